//! Sets of fields, as a tree; read and written as FieldsV1.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::lists::{ListKind, element_key, is_atomic_map, list_kind};
use crate::object::Collection;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Element {
    /// A field (`f:name`).
    Field(String),
    /// A list's element by its keys, as JSON text (`k:{...}`).
    Key(String),
    /// A set's element by its value, as JSON text (`v:...`).
    Value(String),
}

/// A set of fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldSet {
    /// Whether the path up to here is in the set itself (`.`). A node without children always is.
    member: bool,
    children: BTreeMap<Element, FieldSet>,
}

/// A path, from its end to its root.
#[derive(Clone, Copy)]
pub(super) struct ElementPath<'a> {
    parent: Option<&'a ElementPath<'a>>,
    element: &'a Element,
}

impl<'a> ElementPath<'a> {
    pub(super) fn elements(&self) -> Vec<&'a Element> {
        let mut elements = self.parent.map(ElementPath::elements).unwrap_or_default();
        elements.push(self.element);
        elements
    }

    /// The value at this path.
    pub(super) fn find<'v>(&self, root: &'v Value) -> Option<&'v Value> {
        let within = match self.parent {
            Some(parent) => parent.find(root)?,
            None => root,
        };
        child(within, self.element)
    }
}

/// The value of one step.
pub(super) fn child<'v>(value: &'v Value, element: &Element) -> Option<&'v Value> {
    match element {
        Element::Field(name) => value.as_object()?.get(name),
        _ => value.as_array()?.iter().find(|item| is_element(item, element)),
    }
}

/// Whether a list's element is the one that a step names.
pub(super) fn is_element(item: &Value, element: &Element) -> bool {
    match element {
        Element::Field(_) => false,
        Element::Value(text) => serde_json::from_str(text).is_ok_and(|value: Value| value == *item),
        Element::Key(text) => match serde_json::from_str::<Map<String, Value>>(text) {
            // A key with its default may be missing in the element.
            Ok(keys) => keys.iter().all(|(name, value)| match item.get(name) {
                Some(there) => there == value,
                None => name == "protocol" && value == "TCP",
            }),
            Err(_) => false,
        },
    }
}

impl FieldSet {
    /// Every field of a value: leaves, and the elements of keyed lists themselves.
    pub(super) fn of(value: &Value, collection: &Collection) -> Self {
        let mut set = Self::default();
        set.add(value, collection, "");
        set.member = false;
        set
    }

    fn add(&mut self, value: &Value, collection: &Collection, path: &str) {
        match value {
            Value::Object(fields) if !fields.is_empty() && !is_atomic_map(collection, path) => {
                for (name, value) in fields {
                    let path =
                        if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    let child = self.children.entry(Element::Field(name.clone())).or_default();
                    child.add(value, collection, &path);
                }
            }
            Value::Array(items) if !items.is_empty() => self.add_items(items, collection, path),
            _ => self.member = true,
        }
    }

    fn add_items(&mut self, items: &[Value], collection: &Collection, path: &str) {
        match list_kind(collection, path) {
            ListKind::Atomic => self.member = true,
            ListKind::Set => {
                for item in items {
                    self.children.entry(Element::Value(item.to_string())).or_default().member =
                        true;
                }
            }
            ListKind::Keyed(keys) => {
                for item in items {
                    // An element without its keys cannot be told apart: the list is one value then.
                    let Some(key) = element_key(item, keys) else {
                        self.children.clear();
                        self.member = true;
                        return;
                    };
                    let child = self.children.entry(Element::Key(key)).or_default();
                    child.add(item, collection, path);
                    child.member = true;
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }

    /// Adds another set.
    pub(super) fn unite(&mut self, other: &Self) {
        self.member |= other.member;
        for (element, theirs) in &other.children {
            self.children.entry(element.clone()).or_default().unite(theirs);
        }
    }

    /// Keeps what is in both.
    pub(super) fn intersect(&mut self, other: &Self) {
        self.member &= other.member;
        self.children.retain(|element, child| match other.children.get(element) {
            Some(theirs) => {
                child.intersect(theirs);
                !child.is_empty()
            }
            None => false,
        });
    }

    /// Takes out what is in another set.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        self.children.retain(|element, child| {
            if let Some(theirs) = other.children.get(element) {
                child.subtract(theirs);
            }
            !child.is_empty()
        });
    }

    /// Takes out the leaves of another set: several may own that a list's element is there.
    pub(super) fn subtract_leaves(&mut self, other: &Self) {
        if other.children.is_empty() {
            self.member &= !other.member;
        }
        self.children.retain(|element, child| {
            if let Some(theirs) = other.children.get(element) {
                child.subtract_leaves(theirs);
            }
            !child.is_empty()
        });
    }

    /// Keeps the members whose path passes.
    pub(super) fn retain_paths(&mut self, keep: &mut impl FnMut(&ElementPath<'_>) -> bool) {
        self.retain_under(None, keep);
    }

    fn retain_under(
        &mut self,
        parent: Option<&ElementPath<'_>>,
        keep: &mut impl FnMut(&ElementPath<'_>) -> bool,
    ) {
        self.children.retain(|element, child| {
            let path = ElementPath { parent, element };
            child.retain_under(Some(&path), keep);
            child.member = child.member && keep(&path);
            !child.is_empty()
        });
    }

    /// Visits every member that has nothing under it.
    pub(super) fn each_leaf(&self, visit: &mut impl FnMut(&ElementPath<'_>)) {
        self.each_leaf_under(None, visit);
    }

    fn each_leaf_under(
        &self,
        parent: Option<&ElementPath<'_>>,
        visit: &mut impl FnMut(&ElementPath<'_>),
    ) {
        for (element, child) in &self.children {
            let path = ElementPath { parent, element };
            if child.children.is_empty() {
                visit(&path);
            }
            child.each_leaf_under(Some(&path), visit);
        }
    }

    pub(super) fn children(&self) -> impl Iterator<Item = (&Element, &Self)> {
        self.children.iter()
    }

    pub(super) fn is_member(&self) -> bool {
        self.member
    }

    /// Reads FieldsV1; what is not understood is left out.
    pub(super) fn parse(value: &Value) -> Self {
        let mut set = Self::default();
        let Some(fields) = value.as_object() else { return set };
        for (name, value) in fields {
            let element = match name.split_once(':') {
                Some(("f", name)) => Element::Field(name.to_owned()),
                Some(("k", key)) => Element::Key(key.to_owned()),
                Some(("v", value)) => Element::Value(value.to_owned()),
                _ if name == "." => {
                    set.member = true;
                    continue;
                }
                _ => continue,
            };
            let mut child = Self::parse(value);
            child.member |= child.children.is_empty();
            set.children.insert(element, child);
        }
        set
    }

    /// Writes FieldsV1.
    pub(super) fn write(&self) -> Value {
        let mut fields = Map::new();
        if self.member && !self.children.is_empty() {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            let name = match element {
                Element::Field(name) => format!("f:{name}"),
                Element::Key(key) => format!("k:{key}"),
                Element::Value(value) => format!("v:{value}"),
            };
            fields.insert(name, child.write());
        }
        Value::Object(fields)
    }
}
