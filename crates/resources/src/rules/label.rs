//! Label keys and values.

use std::collections::BTreeMap;

use crate::field::{Fields, Reason};

/// A label or annotation key: an optional DNS-subdomain prefix and `/`, then up to 63 characters.
pub fn label_key(key: &str) -> Result<(), String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix {
        super::name::dns_subdomain(prefix).map_err(|error| format!("prefix {prefix:?} {error}"))?;
    }
    if name.is_empty() {
        return Err("the name may not be empty".to_owned());
    }
    plain(name)
}

/// A label value: empty, or up to 63 letters, digits, `-`, `_` and `.`, with a letter or digit at either end.
pub fn label_value(value: &str) -> Result<(), String> {
    if value.is_empty() { Ok(()) } else { plain(value) }
}

fn plain(text: &str) -> Result<(), String> {
    let inner = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let ends = text.bytes().next().zip(text.bytes().last());
    let ends = ends
        .is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric());
    if inner && ends && text.len() <= 63 {
        return Ok(());
    }
    Err("must be up to 63 letters, digits, '-', '_' and '.', starting and ending with a letter or digit".to_owned())
}

/// Reads a map of labels, checking keys and values.
pub fn read_labels(fields: &mut Fields<'_>, name: &'static str) -> BTreeMap<String, String> {
    let labels = fields.text_map(name);
    for (key, value) in &labels {
        if let Err(error) = label_key(key) {
            fields.error_key(name, key, Reason::Invalid, format!("invalid label key: {error}"));
        }
        if let Err(error) = label_value(value) {
            fields.error_key(
                name,
                key,
                Reason::Invalid,
                format!("invalid label value {value:?}: {error}"),
            );
        }
    }
    labels
}

/// Reads the labels of an Istio workload selector: no wildcards, no empty keys, and a warning if there are none.
pub fn read_selector_labels(
    fields: &mut Fields<'_>,
    name: &'static str,
) -> BTreeMap<String, String> {
    let labels = read_labels(fields, name);
    if labels.is_empty() {
        fields.warn("a workload selector without labels selects every workload of the namespace");
    }
    labels
}
