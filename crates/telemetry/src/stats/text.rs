//! Envoy's `/stats` text: `name: value` a line.
//!
//! A histogram shows as `name: P0(interval,cumulative) P25(...) ...`. Values since the last flush are not kept apart, so
//! the first of each pair is always `nan`, which is what Envoy shows for an interval without values.

use std::fmt::Write;

use super::histogram::{Distribution, QUANTILES};
use super::snapshot::{HistogramView, Selection, Snapshot, Value};

impl Snapshot {
    /// The selected statistics as Envoy's text, texts first, then counters and gauges, then histograms.
    pub fn to_text(&self, selection: &Selection<'_>, view: HistogramView) -> String {
        let mut out = String::new();
        for (name, text) in self.texts(selection) {
            let _ = writeln!(out, "{name}: \"{}\"", text.escape_default());
        }
        for (name, series) in self.sorted(selection) {
            let _ = match &series.value {
                Value::Counter(value) => writeln!(out, "{name}: {value}"),
                Value::Gauge(value) => writeln!(out, "{name}: {value}"),
                Value::Histogram(value, _) => writeln!(out, "{name}: {}", histogram(value, view)),
            };
        }
        out
    }
}

fn histogram(of: &Distribution, view: HistogramView) -> String {
    if let Some(buckets) = view.buckets(of) {
        let shown: Vec<String> =
            buckets.map(|(bound, count)| format!("B{}(0,{count})", bound_text(bound))).collect();
        return shown.join(" ");
    }
    if of.count() == 0 {
        return "No recorded values".to_owned();
    }
    let shown =
        QUANTILES.map(|q| format!("P{}(nan,{})", q * 100.0, of.quantile(q).unwrap_or_default()));
    shown.join(" ")
}

/// As C's `%g`, which is how Envoy writes bounds in its text.
fn bound_text(bound: f64) -> String {
    if bound >= 1e6 { format!("{}e+06", bound / 1e6) } else { format!("{bound}") }
}
