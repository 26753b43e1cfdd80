//! `/runtime`: layers, and what each says of a key.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{AdminContext, Endpoint, Query, Reply};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/runtime",
    changes: false,
    help: "print runtime values",
    parameters: &[],
    handle,
};

fn handle(context: &AdminContext, _: &Query) -> Reply {
    let layers = context.state.runtime_layers();
    let mut entries: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (i, (_, values)) in layers.iter().enumerate() {
        for (key, value) in values {
            let row = entries.entry(key).or_insert_with(|| vec![String::new(); layers.len()]);
            row[i] = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        }
    }
    let entries: serde_json::Map<String, Value> = entries
        .into_iter()
        .map(|(key, row)| {
            let last = row.iter().rev().find(|value| !value.is_empty());
            (key.to_owned(), json!({"final_value": last, "layer_values": row}))
        })
        .collect();
    let names: Vec<&str> = layers.iter().map(|(name, _)| name.as_str()).collect();
    Reply::json(&json!({"entries": entries, "layers": names}))
}
