//! Prometheus text exposition with Envoy's names: `envoy_` before the tag-extracted name, tags as labels.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::histogram::{BOUNDS, Distribution};
use super::snapshot::{Member, Reading, Selection, Series, Snapshot, Value};
use super::template::{Field, Kind, Values};

/// Where a metric's values are: a field (with its first cell) of each block that has it.
type Places<'a> = Vec<(&'a Reading, &'static Field, usize)>;

impl Snapshot {
    /// The selected statistics: counters, gauges, then histograms, each sorted by name, with one `# TYPE` a metric.
    pub fn to_prometheus(&self, selection: &Selection<'_>) -> String {
        let mut out = String::new();
        let mut name = String::new();
        for ((kind, metric), places) in self.metrics() {
            let mut begun = false;
            for (reading, field, at) in places {
                reading.visit_field(field, at, selection, &mut |series| {
                    name.clear();
                    series.write_name(&mut name);
                    if !selection.admits_name(&name) {
                        return;
                    }
                    if !std::mem::replace(&mut begun, true) {
                        let _ = writeln!(out, "# TYPE {metric} {kind}");
                    }
                    write_series(&metric, &series, &mut out);
                });
            }
        }
        out
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
                    Kind::Gauge => "gauge",
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

fn write_series(metric: &str, series: &Series<'_>, out: &mut String) {
    let labels = labels(series);
    let _ = match &series.value {
        Value::Counter(value) => writeln!(out, "{metric}{{{labels}}} {value}"),
        Value::Gauge(value) => writeln!(out, "{metric}{{{labels}}} {value}"),
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
