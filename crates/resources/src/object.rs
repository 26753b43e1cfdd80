//! An object, whole: what a person wrote, as JSON, with accessors for the metadata that every object has.

use std::borrow::Cow;
use std::fmt;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A set of objects of one kind, whatever version wrote them: `networking.istio.io/virtualservices`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Collection {
    /// API group; empty for the core group.
    pub group: Cow<'static, str>,
    /// Plural resource name, lower case.
    pub plural: Cow<'static, str>,
}

impl Collection {
    /// A collection that is known when the program is written.
    pub const fn of(group: &'static str, plural: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), plural: Cow::Borrowed(plural) }
    }
}

impl fmt::Display for Collection {
    /// `plural.group`, as kubectl prints it; the core group has no suffix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group.as_ref() {
            "" => f.write_str(&self.plural),
            group => write!(f, "{}.{group}", self.plural),
        }
    }
}

/// Where one object lives. The version that wrote it is no part of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectKey {
    /// The collection it belongs to.
    pub collection: Collection,
    /// Namespace; empty for a cluster-scoped kind.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// The key of `namespace/name` in a collection.
    pub fn new(
        collection: Collection,
        namespace: impl Into<String>,
        name: impl Into<String>,
    ) -> Self {
        Self { collection, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    /// `virtualservices.networking.istio.io default/reviews`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{} {}", self.collection, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.collection, self.name),
        }
    }
}

/// A Kubernetes-style object, kept whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    api_version: String,
    kind: String,
    metadata: Map<String, Value>,
    /// Every other top-level field, in the order written.
    fields: Map<String, Value>,
}

/// Why a JSON value is no object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnObject {
    /// It is a list, a string or another value without fields.
    #[error("expected an object with apiVersion, kind and metadata")]
    NotAMap,
    /// `apiVersion`, `kind` or `metadata` is missing or of another type.
    #[error("{0}: {1}")]
    Field(&'static str, &'static str),
}

impl Object {
    /// Takes a JSON value that has `apiVersion`, `kind` and, if present, a `metadata` map.
    pub fn from_value(value: Value) -> Result<Self, NotAnObject> {
        let Value::Object(mut fields) = value else { return Err(NotAnObject::NotAMap) };
        let mut text = |field: &'static str| match fields.shift_remove(field) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text),
            Some(Value::String(_) | Value::Null) | None => {
                Err(NotAnObject::Field(field, "required"))
            }
            Some(_) => Err(NotAnObject::Field(field, "must be a string")),
        };
        let (api_version, kind) = (text("apiVersion")?, text("kind")?);
        let metadata = match fields.shift_remove("metadata") {
            Some(Value::Object(metadata)) => metadata,
            None | Some(Value::Null) => Map::new(),
            Some(_) => return Err(NotAnObject::Field("metadata", "must be a map")),
        };
        Ok(Self { api_version, kind, metadata, fields })
    }

    /// A fresh object with a name and nothing else.
    pub fn new(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        let mut metadata = Map::new();
        metadata.insert("name".to_owned(), name.into());
        if !namespace.is_empty() {
            metadata.insert("namespace".to_owned(), namespace.into());
        }
        Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            metadata,
            fields: Map::new(),
        }
    }

    /// The same object with a top-level field set (`spec`, `data`, ...).
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.fields.insert(field.to_owned(), value);
        self
    }

    /// Every top-level field but `apiVersion`, `kind` and `metadata`.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// Every top-level field but `apiVersion`, `kind` and `metadata`, to change.
    pub fn fields_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.fields
    }

    /// The whole as a JSON value.
    pub fn into_value(self) -> Value {
        let mut whole = Map::new();
        whole.insert("apiVersion".to_owned(), Value::String(self.api_version));
        whole.insert("kind".to_owned(), Value::String(self.kind));
        whole.insert("metadata".to_owned(), Value::Object(self.metadata));
        whole.extend(self.fields);
        Value::Object(whole)
    }

    /// The whole as a JSON value, copied.
    pub fn to_value(&self) -> Value {
        self.clone().into_value()
    }

    /// A top-level field other than `apiVersion`, `kind` and `metadata`.
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field)
    }

    /// `spec`, if it has one.
    pub fn spec(&self) -> Option<&Value> {
        self.fields.get("spec")
    }

    /// `status`, if it has one.
    pub fn status(&self) -> Option<&Value> {
        self.fields.get("status")
    }

    /// `apiVersion`, `networking.istio.io/v1`.
    pub fn api_version(&self) -> &str {
        &self.api_version
    }

    /// Rewrites `apiVersion`: every version of a kind that is served has the same fields.
    pub fn set_api_version(&mut self, api_version: impl Into<String>) {
        self.api_version = api_version.into();
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The group part of `apiVersion`; empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// `metadata`.
    pub fn metadata(&self) -> &Map<String, Value> {
        &self.metadata
    }

    /// `metadata`, to change.
    pub fn metadata_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.metadata
    }

    fn meta_str(&self, field: &str) -> &str {
        self.metadata().get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// `metadata.name`; empty if missing.
    pub fn name(&self) -> &str {
        self.meta_str("name")
    }

    /// `metadata.namespace`; empty if missing or cluster-scoped.
    pub fn namespace(&self) -> &str {
        self.meta_str("namespace")
    }

    /// `metadata.uid`; empty before it was stored.
    pub fn uid(&self) -> &str {
        self.meta_str("uid")
    }

    /// `metadata.resourceVersion`: opaque, empty before it was stored.
    pub fn resource_version(&self) -> &str {
        self.meta_str("resourceVersion")
    }

    /// `metadata.generation`: rises with every change of anything but metadata and status.
    pub fn generation(&self) -> u64 {
        self.metadata().get("generation").and_then(Value::as_u64).unwrap_or_default()
    }

    /// `metadata.creationTimestamp`, RFC 3339; empty before it was stored.
    pub fn creation_timestamp(&self) -> &str {
        self.meta_str("creationTimestamp")
    }

    /// Whether the object is on its way out and only waits for its finalizers.
    pub fn is_terminating(&self) -> bool {
        self.metadata().get("deletionTimestamp").is_some_and(|value| !value.is_null())
    }

    /// `metadata.finalizers`.
    pub fn finalizers(&self) -> impl Iterator<Item = &str> {
        self.metadata()
            .get("finalizers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    }

    /// `metadata.labels`, in the order written.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        string_pairs(self.metadata().get("labels"))
    }

    /// One label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.metadata().get("labels")?.get(key)?.as_str()
    }

    /// `metadata.annotations`, in the order written.
    pub fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        string_pairs(self.metadata().get("annotations"))
    }

    /// One annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata().get("annotations")?.get(key)?.as_str()
    }

    /// Sets a string in `metadata`.
    pub fn set_meta(&mut self, field: &str, value: impl Into<String>) {
        self.metadata_mut().insert(field.to_owned(), Value::String(value.into()));
    }

    /// Sets a label.
    pub fn set_label(&mut self, key: &str, value: &str) {
        set_pair(self.metadata_mut(), "labels", key, value);
    }

    /// Sets an annotation.
    pub fn set_annotation(&mut self, key: &str, value: &str) {
        set_pair(self.metadata_mut(), "annotations", key, value);
    }
}

impl Serialize for Object {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3 + self.fields.len()))?;
        map.serialize_entry("apiVersion", &self.api_version)?;
        map.serialize_entry("kind", &self.kind)?;
        map.serialize_entry("metadata", &self.metadata)?;
        for (field, value) in &self.fields {
            map.serialize_entry(field, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

fn string_pairs(map: Option<&Value>) -> impl Iterator<Item = (&str, &str)> {
    map.and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| value.as_str().map(|value| (key.as_str(), value)))
}

fn set_pair(metadata: &mut Map<String, Value>, map: &str, key: &str, value: &str) {
    let slot = metadata.entry(map).or_insert_with(|| Value::Object(Map::new()));
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    if let Value::Object(pairs) = slot {
        pairs.insert(key.to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keeps_what_it_does_not_know() {
        let value = json!({"apiVersion": "x.io/v9", "kind": "Odd", "metadata": {"name": "a", "new": [1]}, "extra": 1.50});
        let object = Object::from_value(value.clone()).unwrap();
        assert_eq!((object.group(), object.kind()), ("x.io", "Odd"));
        assert_eq!(object.into_value(), value);
    }

    #[test]
    fn refuses_what_is_no_object() {
        assert_eq!(Object::from_value(json!([1])), Err(NotAnObject::NotAMap));
        let no_kind = Object::from_value(json!({"apiVersion": "v1"}));
        assert_eq!(no_kind, Err(NotAnObject::Field("kind", "required")));
        let odd = Object::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": "x"}));
        assert_eq!(odd, Err(NotAnObject::Field("metadata", "must be a map")));
    }
}
