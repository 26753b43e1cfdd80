//! How lists are merged: most are one value, some are sets or have elements with keys.

use serde_json::{Map, Value};

use crate::object::Collection;

/// How a list is merged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ListKind {
    /// As one value.
    Atomic,
    /// By values.
    Set,
    /// By elements with these keys; a key that is missing has its default.
    Keyed(&'static [(&'static str, Option<&'static str>)]),
}

/// A list's kind: group, or `*` for all; the end of its path, elements left out; how it is merged.
type Row = (&'static str, &'static str, ListKind);

const CONTAINERS: &[Row] = &[
    ("*", "spec.containers", ListKind::Keyed(&[("name", None)])),
    ("*", "spec.initContainers", ListKind::Keyed(&[("name", None)])),
    (
        "*",
        "ontainers.ports",
        ListKind::Keyed(&[("containerPort", None), ("protocol", Some("TCP"))]),
    ),
    ("*", "ontainers.env", ListKind::Keyed(&[("name", None)])),
    ("*", "ontainers.volumeMounts", ListKind::Keyed(&[("mountPath", None)])),
    ("*", "spec.volumes", ListKind::Keyed(&[("name", None)])),
    ("*", "spec.imagePullSecrets", ListKind::Keyed(&[("name", None)])),
];

const ROWS: &[Row] = &[
    ("*", "metadata.finalizers", ListKind::Set),
    ("*", "metadata.ownerReferences", ListKind::Keyed(&[("uid", None)])),
    ("*", "status.conditions", ListKind::Keyed(&[("type", None)])),
    ("", "spec.ports", ListKind::Keyed(&[("port", None), ("protocol", Some("TCP"))])),
    ("networking.istio.io", "spec.ports", ListKind::Keyed(&[("name", None)])),
];

/// Maps that are merged as one value.
const ATOMIC_MAPS: &[(&str, &str)] = &[("", "spec.selector"), ("apps", "spec.selector")];

/// How the list at `path` (field names, elements left out) is merged.
pub(super) fn list_kind(collection: &Collection, path: &str) -> ListKind {
    let pods = matches!(collection.group.as_ref(), "" | "apps" | "batch");
    let rows = ROWS.iter().chain(CONTAINERS.iter().filter(|_| pods));
    let found = rows.filter(|(group, end, _)| {
        (*group == "*" || *group == collection.group) && path.ends_with(end)
    });
    found.map(|(_, _, kind)| *kind).next().unwrap_or(ListKind::Atomic)
}

/// Whether the map at `path` is merged as one value.
pub(super) fn is_atomic_map(collection: &Collection, path: &str) -> bool {
    ATOMIC_MAPS.iter().any(|(group, atomic)| *group == collection.group && path == *atomic)
}

/// The key of a list's element, as FieldsV1 writes it; none if a key is missing.
pub(super) fn element_key(element: &Value, keys: &[(&str, Option<&str>)]) -> Option<String> {
    let fields = element.as_object()?;
    let mut key = Map::new();
    for (name, default) in keys {
        let value = match fields.get(*name) {
            Some(value) => value.clone(),
            None => Value::String((*default)?.to_owned()),
        };
        key.insert((*name).to_owned(), value);
    }
    Some(Value::Object(key).to_string())
}
