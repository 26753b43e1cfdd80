//! Merging what a manager wants into what is there, and taking out what nobody wants any more.

use serde_json::{Map, Value};

use super::field_set::{Element, FieldSet, is_element};
use super::lists::{ListKind, element_key, is_atomic_map, list_kind};
use crate::object::Collection;

/// What is there, with what is wanted laid over it.
pub(super) fn merged(there: &Value, wanted: &Value, collection: &Collection) -> Value {
    merged_at(there, wanted, collection, "")
}

fn merged_at(there: &Value, wanted: &Value, collection: &Collection, path: &str) -> Value {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) if !is_atomic_map(collection, path) => {
            let mut fields: Map<String, Value> = there.clone();
            for (name, wanted) in wanted {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let value = match there.get(name) {
                    Some(there) => merged_at(there, wanted, collection, &path),
                    None => wanted.clone(),
                };
                fields.insert(name.clone(), value);
            }
            Value::Object(fields)
        }
        (Value::Array(there), Value::Array(wanted)) => {
            let element = |item: &Value| match list_kind(collection, path) {
                ListKind::Atomic => None,
                ListKind::Set => Some(Element::Value(item.to_string())),
                ListKind::Keyed(keys) => element_key(item, keys).map(Element::Key),
            };
            merged_items(there, wanted, element, |there, wanted| {
                merged_at(there, wanted, collection, path)
            })
        }
        _ => wanted.clone(),
    }
}

fn merged_items(
    there: &[Value],
    wanted: &[Value],
    element: impl Fn(&Value) -> Option<Element>,
    merge: impl Fn(&Value, &Value) -> Value,
) -> Value {
    // What cannot be told apart is one value.
    if there.iter().chain(wanted).any(|item| element(item).is_none()) {
        return Value::Array(wanted.to_vec());
    }
    let mut items = there.to_vec();
    for item in wanted {
        let same = element(item)
            .and_then(|element| items.iter_mut().find(|there| is_element(there, &element)));
        match same {
            Some(there) => *there = merge(there, item),
            None => items.push(item.clone()),
        }
    }
    Value::Array(items)
}

/// Takes fields out, and the maps and lists that are empty then.
pub(super) fn remove(value: &mut Value, fields: &FieldSet) {
    for (element, under) in fields.children() {
        match (element, &mut *value) {
            (Element::Field(name), Value::Object(map)) => {
                let Some(child) = map.get_mut(name) else { continue };
                remove(child, under);
                let emptied = under.children().next().is_some() && is_bare(child);
                if under.children().next().is_none() || emptied {
                    map.shift_remove(name);
                }
            }
            (Element::Key(_) | Element::Value(_), Value::Array(items)) => {
                let Some(at) = items.iter().position(|item| is_element(item, element)) else {
                    continue;
                };
                remove_element(items, at, element, under);
            }
            _ => {}
        }
    }
}

fn remove_element(items: &mut Vec<Value>, at: usize, element: &Element, under: &FieldSet) {
    let Element::Key(key) = element else {
        items.remove(at);
        return;
    };
    let keys: Map<String, Value> = serde_json::from_str(key).unwrap_or_default();
    if under.is_member() {
        // The element itself goes if nothing but its keys would be left.
        let mut left = items[at].clone();
        remove(&mut left, under);
        let only_keys =
            left.as_object().is_none_or(|left| left.keys().all(|name| keys.contains_key(name)));
        if only_keys {
            items.remove(at);
            return;
        }
    }
    let item = &mut items[at];
    remove(item, under);
    if let Value::Object(fields) = item {
        // Its keys stay as long as it does.
        for (name, value) in keys {
            fields.entry(name).or_insert(value);
        }
    }
}

fn is_bare(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
