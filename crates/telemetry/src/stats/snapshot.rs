//! The reading side: every statistic at one moment, selected and named.

use std::sync::Arc;

use super::histogram::{self, Distribution};
use super::recorder::gauge_value;
use super::registry::{BlockData, Registry};
use super::scope::Scope;
use super::template::{Field, Kind, Unit, Values};

/// Which kinds of statistics to show; Envoy's `type` parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KindFilter {
    /// All of them.
    #[default]
    All,
    /// Counters alone.
    Counters,
    /// Gauges alone.
    Gauges,
    /// Histograms alone.
    Histograms,
    /// Texts alone.
    TextReadouts,
}

/// What a reader wants to see.
#[derive(Clone, Copy, Default)]
pub struct Selection<'a> {
    /// Only what was written since the start.
    pub used_only: bool,
    /// Only that kind.
    pub kind: KindFilter,
    /// Only names (dotted, whole) for which this is true.
    pub name: Option<&'a dyn Fn(&str) -> bool>,
}

impl Selection<'_> {
    fn admits_kind(&self, kind: KindFilter) -> bool {
        self.kind == KindFilter::All || self.kind == kind
    }

    pub(super) fn admits_name(&self, name: &str) -> bool {
        self.name.is_none_or(|admits| admits(name))
    }
}

/// A value of a statistic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of a counter.
    Counter(u64),
    /// Of a gauge.
    Gauge(i64),
    /// Of a histogram.
    Histogram(Box<Distribution>, Unit),
}

/// One statistic of a [`Snapshot`].
#[derive(Clone, Debug)]
pub struct Series<'a> {
    pub(super) scope: &'a Scope,
    /// Below the scope: the field's name, and a family member's value.
    pub(super) field: &'a str,
    pub(super) member: Member,
    /// The value.
    pub value: Value,
}

/// Which counter of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    None,
    Code(u16),
    /// 1 to 5.
    Class(u8),
    Name(&'static str, &'static str),
}

impl Series<'_> {
    /// Appends Envoy's dotted name.
    pub fn write_name(&self, out: &mut String) {
        match self.member {
            Member::None => self.scope.write_name(self.field, out),
            Member::Code(code) => self.scope.write_name(&format!("{}{code}", self.field), out),
            Member::Class(class) => {
                self.scope.write_name(&format!("{}{class}xx", self.field), out);
            }
            Member::Name(_, name) => self.scope.write_name(&format!("{}{name}", self.field), out),
        }
    }
}

/// Every selected statistic at one moment. Making one waits for nobody and makes no writer wait.
pub struct Snapshot {
    blocks: Vec<Reading>,
    texts: Vec<(String, String)>,
}

pub(super) struct Reading {
    pub(super) data: Arc<BlockData>,
    /// Summed cells; `None` where no thread ever wrote, so everything is zero.
    cells: Option<Box<[u64]>>,
}

impl Snapshot {
    /// Reads the registry.
    pub fn take(registry: &Registry) -> Self {
        let mut scratch = Vec::new();
        let blocks = registry.blocks().into_iter().map(|data| {
            let cells = data.read(&mut scratch).then(|| scratch.clone().into_boxed_slice());
            Reading { data, cells }
        });
        Self { blocks: blocks.collect(), texts: registry.texts().into_iter().collect() }
    }

    pub(super) fn readings(&self) -> &[Reading] {
        &self.blocks
    }

    /// The selected texts, by name.
    pub fn texts<'a>(
        &'a self,
        selection: &Selection<'a>,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let selection = *selection;
        self.texts
            .iter()
            .filter(move |(name, text)| {
                selection.admits_kind(KindFilter::TextReadouts)
                    && selection.admits_name(name)
                    && !(selection.used_only && text.is_empty())
            })
            .map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// The selected series sorted by name: counters and gauges first, histograms after them.
    pub fn sorted<'a>(&'a self, selection: &Selection<'_>) -> Vec<(String, Series<'a>)> {
        let mut all = Vec::new();
        for reading in &self.blocks {
            reading.visit(selection, &mut |series| {
                let mut name = String::new();
                series.write_name(&mut name);
                if selection.admits_name(&name) {
                    all.push((name, series));
                }
            });
        }
        let rank = |series: &Series<'_>| matches!(series.value, Value::Histogram(..));
        all.sort_by(|(a, x), (b, y)| (rank(x), a).cmp(&(rank(y), b)));
        all
    }
}

impl Reading {
    /// Calls `then` with every statistic of the block that `selection` admits by kind and use (not yet by name).
    pub(super) fn visit<'a>(&'a self, selection: &Selection<'_>, then: &mut dyn FnMut(Series<'a>)) {
        let mut at = 0;
        for field in self.data.template.fields {
            self.visit_field(field, at, selection, then);
            at += field.cells();
        }
    }

    /// As [`Reading::visit`], for the one field whose first cell is `at`.
    pub(super) fn visit_field<'a>(
        &'a self,
        field: &'static Field,
        at: usize,
        selection: &Selection<'_>,
        then: &mut dyn FnMut(Series<'a>),
    ) {
        let cells = self.cells.as_deref().map(|cells| &cells[at..at + field.cells()]);
        let mut emit = |member, value| {
            then(Series { scope: &self.data.scope, field: field.name, member, value })
        };
        let first = cells.map_or(0, |cells| cells[0]);
        match field.kind {
            Kind::Counter
                if selection.admits_kind(KindFilter::Counters)
                    && (first != 0 || !selection.used_only) =>
            {
                emit(Member::None, Value::Counter(first));
            }
            Kind::Lazy if selection.admits_kind(KindFilter::Counters) && first != 0 => {
                emit(Member::None, Value::Counter(first));
            }
            Kind::Gauge
                if selection.admits_kind(KindFilter::Gauges)
                    && (first & 1 != 0 || !selection.used_only) =>
            {
                emit(Member::None, Value::Gauge(gauge_value(first)));
            }
            Kind::LazyGauge if selection.admits_kind(KindFilter::Gauges) && first & 1 != 0 => {
                emit(Member::None, Value::Gauge(gauge_value(first)));
            }
            Kind::Histogram(unit) if selection.admits_kind(KindFilter::Histograms) => {
                let read = cells.map(Distribution::from_cells).unwrap_or_default();
                if read.count() > 0 || !selection.used_only {
                    emit(Member::None, Value::Histogram(Box::new(read), unit));
                }
            }
            Kind::Family(values) if selection.admits_kind(KindFilter::Counters) => {
                let used =
                    cells.into_iter().flatten().enumerate().filter(|(_, count)| **count != 0);
                used.for_each(|(i, count)| emit(member(values, i), Value::Counter(*count)));
            }
            _ => {}
        }
    }
}

fn member(values: Values, index: usize) -> Member {
    match values {
        Values::Codes(codes) => Member::Code(codes[index]),
        Values::Classes => Member::Class(index as u8 + 1),
        Values::Names(tag, names) => Member::Name(tag, names[index]),
    }
}

impl Registry {
    /// The value of a counter by its whole dotted name; for tests and rare questions, as it reads everything.
    pub fn counter_value(&self, name: &str) -> Option<u64> {
        self.find(name, |value| match value {
            Value::Counter(value) => Some(*value),
            _ => None,
        })
    }

    /// The value of a gauge by its whole dotted name.
    pub fn gauge_value(&self, name: &str) -> Option<i64> {
        self.find(name, |value| match value {
            Value::Gauge(value) => Some(*value),
            _ => None,
        })
    }

    /// The contents of a histogram by its whole dotted name.
    pub fn histogram_value(&self, name: &str) -> Option<Distribution> {
        self.find(name, |value| match value {
            Value::Histogram(value, _) => Some((**value).clone()),
            _ => None,
        })
    }

    fn find<T>(&self, name: &str, pick: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let same = |other: &str| other == name;
        let selection = Selection { name: Some(&same), ..Selection::default() };
        Snapshot::take(self).sorted(&selection).iter().find_map(|(_, series)| pick(&series.value))
    }
}

/// How histograms are shown in text and JSON; Envoy's `histogram_buckets` parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HistogramView {
    /// Quantiles.
    #[default]
    Summary,
    /// Buckets that count everything up to their bound.
    Cumulative,
    /// Buckets that count what the one before does not.
    Disjoint,
}

impl HistogramView {
    /// The bounded buckets in this view; `None` for quantiles.
    pub(super) fn buckets(self, of: &Distribution) -> Option<impl Iterator<Item = (f64, u64)>> {
        let counts = match self {
            HistogramView::Summary => return None,
            HistogramView::Cumulative => of.cumulative(),
            HistogramView::Disjoint => of.buckets,
        };
        Some(histogram::BOUNDS.into_iter().zip(counts))
    }
}
