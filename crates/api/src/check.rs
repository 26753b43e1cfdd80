//! The one walker over wire bytes that judges configuration, from files and over xDS alike.
//!
//! Known but unsupported → a problem that names the path. Breaks a constraint of the schema → a problem. Unknown →
//! counted, as Envoy does over xDS (a file's unknown fields never get so far).

mod rules;

use std::fmt;

use prost::Message as _;

use crate::google::protobuf;
use crate::schema::{Enum, Field, Kind, Message, Schema, WellKnown};
use crate::text::{Problem, encode_struct, is_typed_struct};
use crate::wire::{Fields, Malformed, Value};

/// Deeper messages are refused, as protobuf's own readers do.
const MAX_DEPTH: usize = 100;

/// What a walk found.
#[derive(Debug, Default)]
pub struct Report {
    /// Everything that must not be accepted.
    pub problems: Vec<Problem>,
    /// Fields that the schema does not have.
    pub unknown_fields: u64,
    /// Paths of the deprecated fields that are set.
    pub deprecated: Vec<String>,
}

/// Judges messages by the schema and by which extensions are there.
pub struct Checker<'a> {
    schema: &'a Schema,
    extensions: &'a dyn Fn(&str) -> bool,
}

impl fmt::Debug for Checker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").finish_non_exhaustive()
    }
}

impl<'a> Checker<'a> {
    /// `extensions` tells by the message's full name whether something takes it as a `typed_config`.
    pub fn new(schema: &'a Schema, extensions: &'a dyn Fn(&str) -> bool) -> Self {
        Self { schema, extensions }
    }

    /// Walks the message in `bytes`. Paths begin at it.
    pub fn check(&self, message: Message, bytes: &[u8]) -> Report {
        let mut walk =
            Walk { checker: self, report: Report::default(), path: String::new(), depth: 0 };
        walk.message(message, bytes);
        walk.report
    }
}

/// May this `Any` be there without a type? In an override it says that the filter is in.
pub(crate) fn may_be_empty(message: Message, field: Field) -> bool {
    field.name() == "config" && message.name() == "envoy.config.route.v3.FilterConfig"
}

/// The state of one walk.
struct Walk<'a> {
    checker: &'a Checker<'a>,
    report: Report,
    path: String,
    depth: usize,
}

impl Walk<'_> {
    fn problem(&mut self, message: impl Into<String>) {
        self.report.problems.push(Problem::new(self.path.clone(), message));
    }

    /// Runs `step` with `segment` added to the path.
    fn within(&mut self, segment: &str, step: impl FnOnce(&mut Self)) {
        let mark = self.path.len();
        if !self.path.is_empty() && !segment.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(segment);
        step(self);
        self.path.truncate(mark);
    }

    fn message(&mut self, message: Message, bytes: &[u8]) {
        if self.depth >= MAX_DEPTH {
            return self.problem("nested too deeply");
        }
        self.depth += 1;
        match message.well_known() {
            Some(WellKnown::Any) => self.any(bytes),
            // Their content is free, or one scalar that its field's rules judge.
            Some(_) => {}
            None => match self.collect(message, bytes) {
                Ok(fields) => self.fields(message, &fields),
                Err(Malformed) => self.problem("malformed protobuf"),
            },
        }
        self.depth -= 1;
    }

    /// The fields that are set, by number, with all of their values; unknown ones are counted.
    fn collect<'b>(
        &mut self,
        message: Message,
        bytes: &'b [u8],
    ) -> Result<Vec<Set<'b>>, Malformed> {
        let mut fields: Vec<Set<'b>> = Vec::new();
        for entry in Fields::new(bytes) {
            let (number, value) = entry?;
            let Some(field) = message.field_by_number(number) else {
                self.report.unknown_fields += 1;
                continue;
            };
            match fields.iter_mut().find(|set| set.field == field) {
                Some(set) => set.values.push(value),
                None => fields.push(Set { field, values: vec![value] }),
            }
        }
        fields.sort_by_key(|set| set.field.number());
        Ok(fields)
    }

    fn fields(&mut self, message: Message, fields: &[Set<'_>]) {
        for field in message.fields() {
            let set = fields.iter().find(|set| set.field == field);
            // Of a oneof only the field that is set has rules.
            let judged = set.is_some() || field.oneof().is_none();
            if let Some(rules) = self.checker.schema.rules(field).filter(|_| judged) {
                let broken = rules::broken(field, rules, set.map(|set| &set.values[..]));
                for (index, text) in broken {
                    let segment = index.map_or(String::new(), |index| format!("[{index}]"));
                    self.within(&format!("{}{segment}", field.name()), |walk| walk.problem(text));
                }
            }
            if let Some(set) = set {
                let is_empty = set.values.iter().all(|value| value.bytes().is_empty());
                if !(may_be_empty(message, field) && is_empty) {
                    self.set_field(set);
                }
            }
        }
        for oneof in message.oneofs().filter(|oneof| oneof.is_required()) {
            if !fields.iter().any(|set| set.field.oneof() == Some(oneof.position)) {
                let names: Vec<_> = message
                    .fields()
                    .filter(|field| field.oneof() == Some(oneof.position) && !field.is_deprecated())
                    .map(|field| format!("`{}`", field.name()))
                    .collect();
                self.problem(format!("one of {} is required", names.join(", ")));
            }
        }
    }

    fn set_field(&mut self, set: &Set<'_>) {
        let field = set.field;
        self.within(field.name(), |walk| {
            if !field.is_supported() {
                return walk.problem(format!("`{}` is not supported yet", field.name()));
            }
            if field.is_deprecated() {
                walk.report.deprecated.push(walk.path.clone());
            }
            if let Some(allowed) = field.allowed_values() {
                walk.allowed(set, allowed);
            }
            if field.is_map() {
                set.values.iter().for_each(|value| walk.map_entry(field, value.bytes()));
            } else if let Kind::Message(message) = field.kind() {
                walk.messages(message, set);
            }
        });
    }

    fn messages(&mut self, message: Message, set: &Set<'_>) {
        if set.field.is_repeated() {
            for (index, value) in set.values.iter().enumerate() {
                self.within(&format!("[{index}]"), |walk| walk.message(message, value.bytes()));
            }
        } else if let [value] = &set.values[..] {
            self.message(message, value.bytes());
        } else {
            // A message in several parts: protobuf merges them, and so does this.
            let whole: Vec<u8> =
                set.values.iter().flat_map(|value| value.bytes()).copied().collect();
            self.message(message, &whole);
        }
    }

    fn map_entry(&mut self, field: Field, entry: &[u8]) {
        let (mut key, mut value) = (String::new(), &[][..]);
        for part in Fields::new(entry).flatten() {
            match part {
                (1, Value::Bytes(bytes)) => key = String::from_utf8_lossy(bytes).into_owned(),
                (1, other) => key = other.number().to_string(),
                (2, Value::Bytes(bytes)) => value = bytes,
                _ => {}
            }
        }
        if let Kind::Message(message) = field.kind() {
            self.within(&format!("[{key:?}]"), |walk| walk.message(message, value));
        }
    }

    fn any(&mut self, bytes: &[u8]) {
        let Ok(any) = protobuf::Any::decode(bytes) else {
            return self.problem("malformed protobuf");
        };
        if any.type_url.is_empty() {
            return self.problem("the type URL is missing");
        }
        let Some(message) = self.checker.schema.message_of_type_url(&any.type_url) else {
            return self.problem(format!("unknown type URL `{}`", any.type_url));
        };
        if is_typed_struct(message.name()) {
            return self.typed_struct(&any.value);
        }
        if !(self.checker.extensions)(message.name()) {
            return self.problem(format!("{} is not supported yet", message.name()));
        }
        self.message(message, &any.value);
    }

    fn typed_struct(&mut self, bytes: &[u8]) {
        let Ok(inner) = crate::xds::r#type::v3::TypedStruct::decode(bytes) else {
            return self.problem("malformed protobuf");
        };
        let encoded =
            encode_struct(self.checker.schema, &inner.type_url, &inner.value.unwrap_or_default());
        match encoded {
            Ok(any) => self.any(&any.encode_to_vec()),
            Err(problems) => {
                let path = self.path.clone();
                self.report
                    .problems
                    .extend(problems.into_iter().map(|problem| problem.under(&path)));
            }
        }
    }

    /// Only some of the field's values are supported.
    fn allowed(&mut self, set: &Set<'_>, allowed: &str) {
        let repeated = set.field.is_repeated();
        for (index, value) in set.values.iter().enumerate() {
            let shown = show(set.field.kind(), *value);
            if allowed.split(' ').any(|word| word == shown) {
                continue;
            }
            let name = set.field.name();
            let text = format!(
                "`{name}: {shown}` is not supported yet, only {}",
                allowed.replace(' ', " and ")
            );
            let segment = if repeated { format!("[{index}]") } else { String::new() };
            if segment.is_empty() {
                self.problem(text)
            } else {
                self.within(&segment, |walk| walk.problem(text))
            }
        }
    }
}

/// A field that is set, with its values in wire order.
struct Set<'a> {
    field: Field,
    values: Vec<Value<'a>>,
}

/// A scalar (or a wrapped one) as the lists of supported values write it.
fn show(kind: Kind, value: Value<'_>) -> String {
    match kind {
        Kind::Bool => (value.number() != 0).to_string(),
        Kind::Enum(values) => enum_name(values, value.number()),
        Kind::String => String::from_utf8_lossy(value.bytes()).into_owned(),
        Kind::Message(message) if message.well_known() == Some(WellKnown::Wrapper) => {
            let inner = message.field_by_number(1).map_or(Kind::Uint64, Field::kind);
            let default = if inner == Kind::String { Value::Bytes(&[]) } else { Value::Varint(0) };
            show(
                inner,
                Fields::new(value.bytes()).flatten().last().map_or(default, |(_, value)| value),
            )
        }
        Kind::Message(message) if message.well_known() == Some(WellKnown::Duration) => {
            let duration = protobuf::Duration::decode(value.bytes()).unwrap_or_default();
            crate::dump::duration(duration.seconds, duration.nanos)
        }
        _ => value.number().to_string(),
    }
}

fn enum_name(values: Enum, number: u64) -> String {
    let number = number as i32;
    values.name_of(number).map_or_else(|| number.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests;
