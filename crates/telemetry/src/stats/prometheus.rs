//! Prometheus text exposition with Envoy's names: `envoy_` before the tag-extracted name, tags as labels.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::histogram::{BOUNDS, Distribution, QUANTILES};
use super::snapshot::{Member, Reading, Selection, Series, Snapshot, Value};
use super::template::{Field, Kind, Unit, Values};

/// Where a metric's values are: a field (with its first cell) of each block that has it.
type Places<'a> = Vec<(&'a Reading, &'static Field, usize)>;

/// What an exposition has beside what every one has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exposition {
    /// Histograms as quantiles instead of buckets.
    pub summaries: bool,
    /// Texts as gauges with value 0, the text a label.
    pub texts: bool,
}

impl Snapshot {
    /// As [`Snapshot::to_prometheus_as`], with nothing special.
    pub fn to_prometheus(&self, selection: &Selection<'_>) -> String {
        self.to_prometheus_as(selection, Exposition::default())
    }

    /// The selected statistics: counters, gauges, then histograms, each sorted by name, with one `# HELP` and one
    /// `# TYPE` a metric.
    pub fn to_prometheus_as(&self, selection: &Selection<'_>, how: Exposition) -> String {
        let mut out = String::new();
        let mut name = String::new();
        for ((kind, metric), places) in self.metrics() {
            let kind = if how.summaries && kind == "histogram" { "summary" } else { kind };
            let mut begun = false;
            for (reading, field, at) in places {
                reading.visit_field(field, at, selection, &mut |series| {
                    name.clear();
                    series.write_name(&mut name);
                    if !selection.admits_name(&name) {
                        return;
                    }
                    if !std::mem::replace(&mut begun, true) {
                        write_header(&metric, kind, reading, field, &mut out);
                    }
                    write_series(&metric, &series, how, &mut out);
                });
            }
        }
        if how.texts {
            self.write_texts(selection, &mut out);
        }
        out
    }

    fn write_texts(&self, selection: &Selection<'_>, out: &mut String) {
        for (name, text) in self.texts(selection) {
            let mut metric = "envoy_".to_owned();
            push_sanitised(name, &mut metric);
            let mut labels = String::new();
            push_label("text_value", text, &mut labels);
            let _ = writeln!(out, "# TYPE {metric} gauge\n{metric}{{{labels}}} 0");
        }
    }

    /// Every metric by kind and name, without yet reading values. The blocks of a metric are in the order of their names.
    fn metrics(&self) -> BTreeMap<(&'static str, String), Places<'_>> {
        let mut readings: Vec<(String, &Reading)> =
            self.readings().iter().map(|reading| (scope_name(reading), reading)).collect();
        readings.sort_by(|a, b| a.0.cmp(&b.0));
        let mut metrics: BTreeMap<_, Places<'_>> = BTreeMap::new();
        for (_, reading) in readings {
            let mut at = 0;
            for field in reading.data.template.fields {
                let kind = match field.kind {
                    Kind::Counter | Kind::Lazy | Kind::Family(_) => "counter",
                    Kind::Gauge | Kind::LazyGauge => "gauge",
                    Kind::Histogram(_) => "histogram",
                };
                metrics
                    .entry((kind, metric_name(reading, field)))
                    .or_default()
                    .push((reading, field, at));
                at += field.cells();
            }
        }
        metrics
    }
}

fn scope_name(reading: &Reading) -> String {
    let mut name = String::new();
    reading.data.scope.write_name("", &mut name);
    name
}

fn metric_name(reading: &Reading, field: &Field) -> String {
    let mut dotted = String::new();
    match (field.kind, class_of(field.name)) {
        (Kind::Family(Values::Classes), _) => {
            reading.data.scope.write_extracted(&format!("{}xx", field.name), &mut dotted)
        }
        (Kind::Family(_), _) => {
            reading.data.scope.write_extracted(field.name.trim_end_matches(['_', '.']), &mut dotted)
        }
        (_, Some((prefix, _))) => {
            reading.data.scope.write_extracted(&format!("{prefix}_xx"), &mut dotted)
        }
        _ => reading.data.scope.write_extracted(field.name, &mut dotted),
    }
    let mut name = String::with_capacity(dotted.len() + 6);
    if !reading.data.scope.is_custom() {
        name.push_str("envoy_");
    }
    push_sanitised(&dotted, &mut name);
    name
}

/// Appends `text` with everything that a Prometheus name cannot hold as `_`.
fn push_sanitised(text: &str, out: &mut String) {
    out.extend(text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }));
}

/// `("downstream_rq", "2")` of `downstream_rq_2xx`: the tag `envoy.response_code_class`.
fn class_of(leaf: &str) -> Option<(&str, &str)> {
    let (prefix, class) = leaf.strip_suffix("xx")?.rsplit_once('_')?;
    (prefix.ends_with("_rq") && class.len() == 1).then_some((prefix, class))
}

/// Help says where the metric's values come from: the dotted name that `/stats` shows, without its tags' values.
fn write_header(metric: &str, kind: &str, reading: &Reading, field: &Field, out: &mut String) {
    let mut dotted = String::new();
    if reading.data.scope.is_custom() {
        dotted.push_str("Istio's ");
    }
    reading.data.scope.write_extracted(field.name, &mut dotted);
    let dotted = dotted.trim_end_matches(['_', '.']);
    let unit = match field.kind {
        Kind::Histogram(Unit::Bytes) => ", in bytes",
        Kind::Histogram(Unit::Milliseconds) => ", in milliseconds",
        Kind::Histogram(Unit::Microseconds) => ", in microseconds",
        _ => "",
    };
    let _ = writeln!(out, "# HELP {metric} {dotted}{unit}\n# TYPE {metric} {kind}");
}

fn write_series(metric: &str, series: &Series<'_>, how: Exposition, out: &mut String) {
    let labels = labels(series);
    let _ = match &series.value {
        Value::Counter(value) => writeln!(out, "{metric}{{{labels}}} {value}"),
        Value::Gauge(value) => writeln!(out, "{metric}{{{labels}}} {value}"),
        Value::Histogram(value, _) if how.summaries => write_summary(metric, value, &labels, out),
        Value::Histogram(value, _) => write_histogram(metric, value, &labels, out),
    };
}

fn write_histogram(
    metric: &str,
    of: &Distribution,
    labels: &str,
    out: &mut String,
) -> std::fmt::Result {
    let comma = if labels.is_empty() { "" } else { "," };
    for (bound, count) in BOUNDS.iter().zip(of.cumulative()) {
        writeln!(out, "{metric}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}")?;
    }
    writeln!(out, "{metric}_bucket{{{labels}{comma}le=\"+Inf\"}} {}", of.count())?;
    writeln!(out, "{metric}_sum{{{labels}}} {}", of.sum)?;
    writeln!(out, "{metric}_count{{{labels}}} {}", of.count())
}

fn write_summary(
    metric: &str,
    of: &Distribution,
    labels: &str,
    out: &mut String,
) -> std::fmt::Result {
    let comma = if labels.is_empty() { "" } else { "," };
    for quantile in QUANTILES {
        let value = of.quantile(quantile).unwrap_or(f64::NAN);
        writeln!(out, "{metric}{{{labels}{comma}quantile=\"{quantile}\"}} {value}")?;
    }
    writeln!(out, "{metric}_sum{{{labels}}} {}", of.sum)?;
    writeln!(out, "{metric}_count{{{labels}}} {}", of.count())
}

fn labels(series: &Series<'_>) -> String {
    let mut out = String::new();
    match series.member {
        Member::Code(code) => {
            push_label("envoy.response_code", itoa::Buffer::new().format(code), &mut out)
        }
        Member::Class(class) => {
            push_label("envoy.response_code_class", itoa::Buffer::new().format(class), &mut out)
        }
        Member::Name(tag, name) => push_label(tag, name, &mut out),
        Member::None => {
            if let Some((_, class)) = class_of(series.field) {
                push_label("envoy.response_code_class", class, &mut out);
            }
        }
    }
    series.scope.tags().for_each(|(name, value)| push_label(name, value, &mut out));
    out
}

fn push_label(name: &str, value: &str, out: &mut String) {
    if !out.is_empty() {
        out.push(',');
    }
    push_sanitised(name, out);
    out.push_str("=\"");
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out.push('"');
}
