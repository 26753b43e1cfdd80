//! Envoy's `/stats?format=json`.

use serde_json::{Map, Value as Json, json};

use super::histogram::QUANTILES;
use super::snapshot::{HistogramView, Selection, Snapshot, Value};

impl Snapshot {
    /// The selected statistics as Envoy's JSON: `{"stats": [{"name", "value"}, ..., {"histograms": ...}]}`. Values since
    /// the last flush are not kept apart: quantiles of none are `null`, buckets of none are 0.
    pub fn to_json(&self, selection: &Selection<'_>, view: HistogramView) -> Json {
        let mut stats: Vec<Json> = self
            .texts(selection)
            .map(|(name, text)| json!({"name": name, "value": text}))
            .collect();
        let mut histograms = Vec::new();
        for (name, series) in self.sorted(selection) {
            match &series.value {
                Value::Counter(value) => stats.push(json!({"name": name, "value": value})),
                Value::Gauge(value) => stats.push(json!({"name": name, "value": value})),
                Value::Histogram(value, _) => histograms.push(match view.buckets(value) {
                    Some(buckets) => json!({"name": name, "buckets": buckets.map(|(bound, count)| {
                        json!({"upper_bound": bound, "interval": 0, "cumulative": count})
                    }).collect::<Vec<_>>()}),
                    None => json!({"name": name, "values": QUANTILES.map(|q| {
                        json!({"cumulative": value.quantile(q), "interval": null})
                    })}),
                }),
            }
        }
        if !histograms.is_empty() {
            let mut inner = Map::new();
            if view == HistogramView::Summary {
                inner.insert("supported_quantiles".into(), json!(QUANTILES.map(|q| q * 100.0)));
                inner.insert("computed_quantiles".into(), Json::Array(histograms));
                stats.push(json!({"histograms": inner}));
            } else {
                stats.push(json!({"histograms": histograms}));
            }
        }
        json!({"stats": stats})
    }
}
