//! A tree → wire bytes, by the schema.

use super::Loaded;
use super::scalar::{self, Scalar};
use super::source::{Place, Problem};
use super::suggest::closest;
use super::tree::{Entry, Node, Value};
use crate::google::protobuf::{self, value};
use crate::schema::{Field, Kind, Message, Schema, WellKnown};
use crate::wire::{self, put_bytes, put_value};

/// Messages that stand for another, given as a type URL and a free-form object.
const TYPED_STRUCTS: [&str; 2] = ["xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"];

/// Is this the name of a `TypedStruct`?
pub fn is_typed_struct(name: &str) -> bool {
    TYPED_STRUCTS.contains(&name)
}

/// Writes a document's messages and collects what is wrong.
pub struct Encoder<'a> {
    schema: &'a Schema,
    loaded: &'a mut Loaded,
    path: String,
}

impl<'a> Encoder<'a> {
    /// An encoder that fills `loaded`.
    pub fn new(schema: &'a Schema, loaded: &'a mut Loaded) -> Self {
        Self { schema, loaded, path: String::new() }
    }

    /// Encodes the whole document as one message.
    pub fn document(&mut self, node: &Node, message: Message) {
        let mut out = Vec::new();
        self.message(node, message, &mut out);
        self.loaded.bytes = out;
    }

    fn problem(&mut self, place: Place, message: String) {
        self.loaded.problems.push(Problem { path: self.path.clone(), message, place: Some(place) });
    }

    /// Runs `step` with `segment` added to the path.
    fn within(&mut self, segment: &str, place: Place, step: impl FnOnce(&mut Self)) {
        let mark = self.path.len();
        if !self.path.is_empty() && !segment.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(segment);
        self.loaded.spans.insert(&self.path, place);
        step(self);
        self.path.truncate(mark);
    }

    fn message(&mut self, node: &Node, message: Message, out: &mut Vec<u8>) {
        match message.well_known() {
            None => {
                if let Some(entries) = self.object(node, message) {
                    self.fields(entries, message, out);
                }
            }
            Some(WellKnown::Any) => self.any(node, out),
            Some(WellKnown::Wrapper) => {
                if let Some(field) = message.field_by_number(1) {
                    self.scalar(node, field.kind(), 1, false, out);
                }
            }
            Some(WellKnown::Struct) => {
                if let Some(entries) = self.object(node, message) {
                    out.extend(prost::Message::encode_to_vec(&free_object(entries)));
                }
            }
            Some(WellKnown::Value) => out.extend(prost::Message::encode_to_vec(&free_value(node))),
            Some(WellKnown::ListValue) => match &node.value {
                Value::List(items) => out.extend(prost::Message::encode_to_vec(&free_list(items))),
                _ => {
                    self.problem(node.place, format!("expected a list, found {}", node.describe()))
                }
            },
            Some(WellKnown::Duration) => self.duration(node, out),
            Some(WellKnown::Timestamp) => self.timestamp(node, out),
            Some(WellKnown::FieldMask) => self.field_mask(node, out),
        }
    }

    fn object<'n>(&mut self, node: &'n Node, message: Message) -> Option<&'n [Entry]> {
        match &node.value {
            Value::Object(entries) => Some(entries),
            _ => {
                let found = node.describe();
                self.problem(
                    node.place,
                    format!("expected an object ({}), found {found}", message.name()),
                );
                None
            }
        }
    }

    fn fields(&mut self, entries: &[Entry], message: Message, out: &mut Vec<u8>) {
        let mut fields: Vec<(Field, &Entry)> = Vec::with_capacity(entries.len());
        for entry in entries {
            match message.field_by_name(&entry.key) {
                _ if entry.key == "@type" => {}
                None => self.unknown_field(entry, message),
                Some(_) if entry.value.is_null() && !takes_null(message, &entry.key) => {}
                Some(field) if fields.iter().any(|(other, _)| *other == field) => {
                    self.problem(
                        entry.key_place,
                        format!("`{}` is set twice in one object", field.name()),
                    );
                }
                Some(field) => fields.push((field, entry)),
            }
        }
        self.one_of_each(&mut fields, message);
        for (field, entry) in fields {
            let place = match entry.value.value {
                Value::Scalar { .. } => entry.value.place,
                _ => entry.key_place,
            };
            // An override that says nothing but that the filter is in.
            if is_empty_filter_config(message, field, &entry.value) {
                put_bytes(out, field.number(), &[]);
                continue;
            }
            self.within(field.name(), place, |encoder| encoder.field(field, &entry.value, out));
        }
    }

    /// Of the fields of one oneof only one may be set; a later source overrides an earlier one.
    fn one_of_each(&mut self, fields: &mut Vec<(Field, &Entry)>, message: Message) {
        for oneof in message.oneofs() {
            let members: Vec<(Field, &Entry)> = fields
                .iter()
                .copied()
                .filter(|(field, _)| field.oneof() == Some(oneof.position))
                .collect();
            let Some(last) = members.iter().map(|(_, entry)| entry.key_place.source).max() else {
                continue;
            };
            let (kept, overridden): (Vec<_>, Vec<_>) =
                members.into_iter().partition(|(_, entry)| entry.key_place.source == last);
            fields.retain(|(field, _)| overridden.iter().all(|(other, _)| other != field));
            if let [_, second, ..] = &kept[..] {
                let names: Vec<_> =
                    kept.iter().map(|(field, _)| format!("`{}`", field.name())).collect();
                let message =
                    format!("only one of {} may be set ({})", names.join(" and "), oneof.name());
                self.problem(second.1.key_place, message);
            }
        }
    }

    fn unknown_field(&mut self, entry: &Entry, message: Message) {
        let names: Vec<_> =
            message.fields().filter(|field| !field.is_deprecated()).map(Field::name).collect();
        let begins = names
            .iter()
            .copied()
            .filter(|name| entry.key.len() > 2 && name.starts_with(&entry.key));
        let suggestion = closest(&entry.key, names.iter().copied())
            .or_else(|| begins.min_by_key(|name| name.len()));
        let mut text = format!("unknown field `{}` in {}", entry.key, message.name());
        match suggestion {
            Some(name) => text.push_str(&format!(", did you mean `{name}`?")),
            None if names.len() <= 8 && !names.is_empty() => {
                text.push_str(&format!("; its fields are {}", names.join(", ")));
            }
            None => {}
        }
        let path = self.path.clone();
        self.loaded.unknown.push(Problem { path, message: text, place: Some(entry.key_place) });
    }

    fn field(&mut self, field: Field, node: &Node, out: &mut Vec<u8>) {
        if field.is_map() {
            self.map(field, node, out);
        } else if field.is_repeated() {
            let Value::List(items) = &node.value else {
                let hint = "expected a list (items start with `- `)";
                return self.problem(node.place, format!("{hint}, found {}", node.describe()));
            };
            for (index, item) in items.iter().enumerate() {
                self.within(&format!("[{index}]"), item.place, |encoder| {
                    encoder.value(item, field.kind(), field.number(), true, out);
                });
            }
        } else {
            self.value(node, field.kind(), field.number(), field.has_presence(), out);
        }
    }

    fn map(&mut self, field: Field, node: &Node, out: &mut Vec<u8>) {
        let Value::Object(entries) = &node.value else {
            return self.problem(
                node.place,
                format!("expected an object of names, found {}", node.describe()),
            );
        };
        for entry in entries {
            let mut pair = Vec::new();
            let value =
                Value::Scalar { text: entry.key.clone(), plain: field.key_kind() != Kind::String };
            let key = Node { place: entry.key_place, value };
            self.within(&format!("[{:?}]", entry.key), entry.key_place, |encoder| {
                encoder.scalar(&key, field.key_kind(), 1, true, &mut pair);
                encoder.value(&entry.value, field.kind(), 2, true, &mut pair);
            });
            put_bytes(out, field.number(), &pair);
        }
    }

    fn value(&mut self, node: &Node, kind: Kind, number: u32, presence: bool, out: &mut Vec<u8>) {
        let Kind::Message(message) = kind else {
            return self.scalar(node, kind, number, presence, out);
        };
        let mut body = Vec::new();
        self.message(node, message, &mut body);
        put_bytes(out, number, &body);
    }

    fn scalar(&mut self, node: &Node, kind: Kind, number: u32, presence: bool, out: &mut Vec<u8>) {
        match scalar::read(node, kind) {
            Ok(scalar) if scalar.is_default() && !presence => {}
            Ok(Scalar::Bytes(bytes)) => put_bytes(out, number, &bytes),
            Ok(Scalar::Varint(varint)) => put_value(out, number, wire::Value::Varint(varint)),
            Ok(Scalar::Fixed64(fixed)) => put_value(out, number, wire::Value::Fixed64(fixed)),
            Ok(Scalar::Fixed32(fixed)) => put_value(out, number, wire::Value::Fixed32(fixed)),
            Err(message) => self.problem(node.place, message),
        }
    }

    /// The body is read by the type that `@type` names, wherever among the keys that is.
    fn any(&mut self, node: &Node, out: &mut Vec<u8>) {
        let Value::Object(entries) = &node.value else {
            return self.problem(
                node.place,
                format!("expected an object with `@type`, found {}", node.describe()),
            );
        };
        let Some(entry) = entries.iter().find(|entry| entry.key == "@type") else {
            let message = "`@type` is missing: it says which configuration this is, such as \
                           `\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router`";
            return self.problem(node.place, message.to_owned());
        };
        let Some((type_url, message)) = self.type_of(&entry.value) else { return };
        if is_typed_struct(message.name()) {
            return self.typed_struct(node, entries, out);
        }
        let mut body = Vec::new();
        self.any_body(node, entries, message, &mut body);
        put_bytes(out, 1, type_url.as_bytes());
        put_bytes(out, 2, &body);
    }

    fn any_body(&mut self, node: &Node, entries: &[Entry], message: Message, body: &mut Vec<u8>) {
        if message.well_known().is_none() {
            return self.fields(entries, message, body);
        }
        match entries.iter().find(|entry| entry.key == "value") {
            Some(entry) => self.message(&entry.value, message, body),
            None => self.problem(node.place, format!("a {} here needs `value`", message.name())),
        }
    }

    fn type_of(&mut self, node: &Node) -> Option<(String, Message)> {
        let Value::Scalar { text, .. } = &node.value else {
            self.problem(node.place, format!("expected a type URL, found {}", node.describe()));
            return None;
        };
        let name = text.rsplit_once('/').map_or(text.as_str(), |(_, name)| name);
        let found = self.schema.message(name);
        if !text.contains('/') {
            let hint = if found.is_some() {
                format!(", did you mean `type.googleapis.com/{text}`?")
            } else {
                String::new()
            };
            self.problem(node.place, format!("`{text}` is no type URL{hint}"));
            return None;
        }
        if found.is_none() {
            let last = |name: &'static str| name.rsplit('.').next().unwrap_or(name);
            let names = || self.schema.messages().map(Message::name);
            let wanted = name.rsplit('.').next().unwrap_or(name);
            let suggestion =
                closest(name, names()).or_else(|| names().find(|known| last(known) == wanted));
            let hint = suggestion.map_or(String::new(), |name| {
                format!(", did you mean `type.googleapis.com/{name}`?")
            });
            self.problem(node.place, format!("unknown type URL `{text}`{hint}"));
        }
        found.map(|message| (text.clone(), message))
    }

    fn typed_struct(&mut self, node: &Node, entries: &[Entry], out: &mut Vec<u8>) {
        let find = |key: &str| entries.iter().find(|entry| entry.key == key);
        let Some(type_url) = find("type_url").or_else(|| find("typeUrl")) else {
            return self.problem(node.place, "a TypedStruct needs `type_url`".to_owned());
        };
        let Some((type_url, message)) = self.type_of(&type_url.value) else { return };
        let mut body = Vec::new();
        if let Some(value) = find("value") {
            self.message(&value.value, message, &mut body);
        }
        put_bytes(out, 1, type_url.as_bytes());
        put_bytes(out, 2, &body);
    }

    fn duration(&mut self, node: &Node, out: &mut Vec<u8>) {
        match text_of(node).and_then(scalar::duration) {
            Some((seconds, nanos)) => {
                out.extend(prost::Message::encode_to_vec(&protobuf::Duration { seconds, nanos }));
            }
            None => {
                let hint = text_of(node).filter(|text| scalar::float(text).is_some());
                let hint =
                    hint.map_or(String::new(), |number| format!(", did you mean `{number}s`?"));
                let message = format!(
                    "expected a duration in seconds such as `1.5s`, found {}{hint}",
                    node.describe()
                );
                self.problem(node.place, message);
            }
        }
    }

    fn timestamp(&mut self, node: &Node, out: &mut Vec<u8>) {
        match text_of(node).and_then(|text| text.parse::<jiff::Timestamp>().ok()) {
            Some(time) => {
                let time = protobuf::Timestamp {
                    seconds: time.as_second(),
                    nanos: time.subsec_nanosecond(),
                };
                out.extend(prost::Message::encode_to_vec(&time));
            }
            None => {
                let found = node.describe();
                self.problem(
                    node.place,
                    format!("expected a time such as `2026-01-31T12:00:00Z`, found {found}"),
                );
            }
        }
    }

    fn field_mask(&mut self, node: &Node, out: &mut Vec<u8>) {
        let Some(text) = text_of(node) else {
            return self
                .problem(node.place, format!("expected field names, found {}", node.describe()));
        };
        for path in text.split(',').filter(|path| !path.is_empty()) {
            put_bytes(out, 1, snake_case(path).as_bytes());
        }
    }
}

fn takes_null(message: Message, key: &str) -> bool {
    let kind = message.field_by_name(key).map(Field::kind);
    matches!(kind, Some(Kind::Message(message)) if message.well_known() == Some(WellKnown::Value))
}

fn text_of(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, .. } => Some(text),
        _ => None,
    }
}

fn snake_case(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

fn free_object(entries: &[Entry]) -> protobuf::Struct {
    let fields = entries.iter().map(|entry| (entry.key.clone(), free_value(&entry.value)));
    protobuf::Struct { fields: fields.collect() }
}

fn free_list(items: &[Node]) -> protobuf::ListValue {
    protobuf::ListValue { values: items.iter().map(free_value).collect() }
}

/// What a scalar means where no schema says: quotes make text, else null, booleans and numbers are tried.
fn free_value(node: &Node) -> protobuf::Value {
    let kind = match &node.value {
        _ if node.is_null() => value::Kind::NullValue(0),
        Value::Object(entries) => value::Kind::StructValue(free_object(entries)),
        Value::List(items) => value::Kind::ListValue(free_list(items)),
        Value::Scalar { text, plain: false } => value::Kind::StringValue(text.clone()),
        Value::Scalar { text, .. } => match (scalar::boolean(text), scalar::float(text)) {
            (Some(boolean), _) => value::Kind::BoolValue(boolean),
            (None, Some(number)) => value::Kind::NumberValue(number),
            (None, None) => value::Kind::StringValue(text.clone()),
        },
    };
    protobuf::Value { kind: Some(kind) }
}

/// A `TypedStruct` that came over the wire → the `Any` that it stands for.
///
/// # Errors
/// Everything that does not fit the type, with paths from the `Any` on.
pub fn encode_struct(
    schema: &Schema,
    type_url: &str,
    value: &protobuf::Struct,
) -> Result<protobuf::Any, Vec<Problem>> {
    let Some(message) = schema.message_of_type_url(type_url) else {
        return Err(vec![Problem::new("", format!("unknown type URL `{type_url}`"))]);
    };
    let nowhere = Place { source: u8::MAX, line: 0, column: 0, width: 0 };
    let node = Node { place: nowhere, value: Value::Object(entries_of(value, nowhere)) };
    let mut loaded = Loaded::default();
    Encoder::new(schema, &mut loaded).document(&node, message);
    let problems = loaded.all_problems();
    if !problems.is_empty() {
        return Err(problems
            .into_iter()
            .map(|problem| Problem { place: None, ..problem })
            .collect());
    }
    Ok(protobuf::Any { type_url: type_url.to_owned(), value: loaded.bytes })
}

fn is_empty_filter_config(message: Message, field: Field, node: &Node) -> bool {
    let is_empty = matches!(&node.value, Value::Object(entries) if entries.is_empty());
    is_empty && crate::check::may_be_empty(message, field)
}

fn entries_of(object: &protobuf::Struct, place: Place) -> Vec<Entry> {
    let mut entries: Vec<_> = object
        .fields
        .iter()
        .map(|(key, value)| Entry {
            key: key.clone(),
            key_place: place,
            value: node_of(value, place),
        })
        .collect();
    entries.sort_by(|a, b| a.key.cmp(&b.key));
    entries
}

fn node_of(value: &protobuf::Value, place: Place) -> Node {
    let scalar = |text: String, plain| Value::Scalar { text, plain };
    let value = match &value.kind {
        None | Some(value::Kind::NullValue(_)) => scalar("null".to_owned(), true),
        Some(value::Kind::BoolValue(boolean)) => scalar(boolean.to_string(), true),
        Some(value::Kind::NumberValue(number)) => scalar(number.to_string(), true),
        Some(value::Kind::StringValue(text)) => scalar(text.clone(), false),
        Some(value::Kind::StructValue(object)) => Value::Object(entries_of(object, place)),
        Some(value::Kind::ListValue(list)) => {
            Value::List(list.values.iter().map(|item| node_of(item, place)).collect())
        }
    };
    Node { place, value }
}
