//! The reader: one pass over a JSON object that takes typed fields out of it and collects everything that is wrong.
//!
//! A view is a function from [`Fields`] to a struct. Reading never stops at a mistake: the field is reported and
//! reads as absent, so that one pass finds every error. A field that nobody asked for is an error too, with the
//! nearest known name. `null` reads as absent, as everywhere in Kubernetes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{FieldPath, Finding, Findings, Reason, Segment, did_you_mean};
use crate::rules::duration::parse_duration;

/// An enumeration whose values have fixed names.
pub trait Names: Sized + Copy + 'static {
    /// Every name and what it means.
    const NAMES: &'static [(&'static str, Self)];
}

/// One step of a path, linked to where it hangs; rendered only when there is something to report.
struct At<'p> {
    parent: Option<&'p At<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Field(&'p str),
    Index(usize),
    Key(&'p str),
}

impl At<'_> {
    fn path(&self) -> FieldPath {
        let mut path = self.parent.map(At::path).unwrap_or_default();
        match self.step {
            Step::Root => {}
            Step::Field(name) => path.0.push(Segment::Field(name.to_owned())),
            Step::Index(index) => path.0.push(Segment::Index(index)),
            Step::Key(key) => path.0.push(Segment::Key(key.to_owned())),
        }
        path
    }
}

/// The fields of one JSON object while it is read.
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    at: &'a At<'a>,
    findings: &'a RefCell<Findings>,
    known: Vec<&'static str>,
}

/// Reads a whole JSON object with `read`, and says everything that was found.
pub fn read_object<T>(
    map: &Map<String, Value>,
    read: impl FnOnce(&mut Fields<'_>) -> T,
) -> (T, Findings) {
    let findings = RefCell::new(Findings::default());
    let at = At { parent: None, step: Step::Root };
    let value = read_fields(map, &at, &findings, read);
    (value, findings.into_inner())
}

fn read_fields<T>(
    map: &Map<String, Value>,
    at: &At<'_>,
    findings: &RefCell<Findings>,
    read: impl FnOnce(&mut Fields<'_>) -> T,
) -> T {
    let mut fields = Fields { map, at, findings, known: Vec::with_capacity(16) };
    let value = read(&mut fields);
    fields.refuse_unknown();
    value
}

impl<'a> Fields<'a> {
    // ---- what was found ----------------------------------------------------------------------------------------

    /// Refuses this object itself.
    pub fn error(&self, reason: Reason, message: impl Into<String>) {
        self.report(self.at.path(), reason, message.into());
    }

    /// Refuses one of its fields.
    pub fn error_in(&self, name: &str, reason: Reason, message: impl Into<String>) {
        self.report(self.at.path().field(name), reason, message.into());
    }

    /// Refuses one element of a list field.
    pub fn error_at(&self, name: &str, index: usize, reason: Reason, message: impl Into<String>) {
        self.report(self.at.path().field(name).index(index), reason, message.into());
    }

    /// Refuses one entry of a map field.
    pub fn error_key(&self, name: &str, key: &str, reason: Reason, message: impl Into<String>) {
        self.report(self.at.path().field(name).key(key), reason, message.into());
    }

    /// Warns about one of its fields.
    pub fn warn_in(&self, name: &str, message: impl Into<String>) {
        let path = self.at.path().field(name);
        self.findings.borrow_mut().warnings.push(Finding {
            path,
            reason: Reason::Invalid,
            message: message.into(),
        });
    }

    /// Warns about this object itself.
    pub fn warn(&self, message: impl Into<String>) {
        let path = self.at.path();
        self.findings.borrow_mut().warnings.push(Finding {
            path,
            reason: Reason::Invalid,
            message: message.into(),
        });
    }

    fn report(&self, path: FieldPath, reason: Reason, message: String) {
        self.findings.borrow_mut().errors.push(Finding { path, reason, message });
    }

    fn type_error(&self, name: &str, value: &Value, expected: &str) {
        self.error_in(
            name,
            Reason::Type,
            format!("expected {expected}, found {}", describe(value)),
        );
    }

    // ---- presence ----------------------------------------------------------------------------------------------

    /// Whether a field is there and not `null`. Does not make it known.
    pub fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// How many of these fields are set.
    pub fn count(&self, names: &[&str]) -> usize {
        names.iter().filter(|name| self.has(name)).count()
    }

    /// Refuses more than one of these fields.
    pub fn at_most_one(&self, names: &[&str]) {
        let set: Vec<_> = names.iter().copied().filter(|name| self.has(name)).collect();
        if set.len() > 1 {
            self.error(Reason::Forbidden, format!("only one of {} may be set", set.join(", ")));
        }
    }

    /// Refuses none and more than one of these fields.
    pub fn exactly_one(&self, names: &[&str]) {
        if self.count(names) == 0 {
            self.error(Reason::Required, format!("one of {} is required", names.join(", ")));
        }
        self.at_most_one(names);
    }

    /// Warns if a deprecated field is set, naming its successor.
    pub fn deprecated(&self, name: &'static str, successor: &str) {
        if self.has(name) {
            self.warn_in(name, format!("deprecated, use {successor} instead"));
        }
    }

    /// Fields of the API that this view has no use for: known, and kept in the object.
    pub fn kept(&mut self, names: &[&'static str]) {
        self.known.extend_from_slice(names);
    }

    /// A field as it stands; `null` is absent.
    pub fn raw(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Reports that a field must be there.
    pub fn require(&self, name: &str) {
        self.error_in(name, Reason::Required, "required");
    }

    // ---- scalars -----------------------------------------------------------------------------------------------

    /// A string, if there.
    pub fn optional_text(&mut self, name: &'static str) -> Option<String> {
        match self.raw(name)? {
            Value::String(text) => Some(text.clone()),
            other => {
                self.type_error(name, other, "a string");
                None
            }
        }
    }

    /// A string; empty if absent.
    pub fn text(&mut self, name: &'static str) -> String {
        self.optional_text(name).unwrap_or_default()
    }

    /// A string that must be there and not be empty.
    pub fn required_text(&mut self, name: &'static str) -> String {
        let present = self.has(name);
        let text = self.text(name);
        if text.is_empty() && (!present || self.map.get(name).is_some_and(Value::is_string)) {
            self.require(name);
        }
        text
    }

    /// A string that a format must accept.
    pub fn parsed<T, E: ToString>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.optional_text(name)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.error_in(
                    name,
                    Reason::Invalid,
                    format!("invalid value {text:?}: {}", error.to_string()),
                );
                None
            }
        }
    }

    /// Checks a string that was read, if it is not empty.
    pub fn check(&self, name: &str, text: &str, rule: impl FnOnce(&str) -> Result<(), String>) {
        if !text.is_empty()
            && let Err(error) = rule(text)
        {
            self.error_in(name, Reason::Invalid, format!("invalid value {text:?}: {error}"));
        }
    }

    /// A boolean, if there.
    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        match self.raw(name)? {
            Value::Bool(flag) => Some(*flag),
            other => {
                self.type_error(name, other, "true or false");
                None
            }
        }
    }

    /// A whole number within `range`, if there.
    pub fn integer<T>(
        &mut self,
        name: &'static str,
        range: std::ops::RangeInclusive<T>,
    ) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        let value = self.raw(name)?;
        let Some(number) = whole(value) else {
            self.type_error(name, value, "a whole number");
            return None;
        };
        match T::try_from(number) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => {
                let expected = format!(
                    "invalid value {number}: must be between {} and {}",
                    range.start(),
                    range.end()
                );
                self.error_in(name, Reason::Invalid, expected);
                None
            }
        }
    }

    /// A port, 1 to 65535, if there.
    pub fn port(&mut self, name: &'static str) -> Option<u16> {
        self.integer(name, 1..=u16::MAX)
    }

    /// A port, 1 to 65535, that must be there; 0 if it is not.
    pub fn required_port(&mut self, name: &'static str) -> u16 {
        if !self.has(name) {
            self.require(name);
        }
        self.port(name).unwrap_or_default()
    }

    /// An unsigned number, if there.
    pub fn u32(&mut self, name: &'static str) -> Option<u32> {
        self.integer(name, 0..=u32::MAX)
    }

    /// A signed number that may not be negative, if there.
    pub fn non_negative(&mut self, name: &'static str) -> Option<u32> {
        self.integer(name, 0..=i32::MAX as u32)
    }

    /// A number within `range`, if there.
    pub fn number(
        &mut self,
        name: &'static str,
        range: std::ops::RangeInclusive<f64>,
    ) -> Option<f64> {
        let value = self.raw(name)?;
        let Some(number) = value.as_f64() else {
            self.type_error(name, value, "a number");
            return None;
        };
        if range.contains(&number) {
            return Some(number);
        }
        let expected = format!(
            "invalid value {number}: must be between {} and {}",
            range.start(),
            range.end()
        );
        self.error_in(name, Reason::Invalid, expected);
        None
    }

    /// A duration of one millisecond or more, if there.
    pub fn duration(&mut self, name: &'static str) -> Option<Duration> {
        let duration = self.duration_or_zero(name)?;
        if duration < Duration::from_millis(1) {
            self.error_in(name, Reason::Invalid, "must be 1ms or more");
            return None;
        }
        Some(duration)
    }

    /// A duration that may be zero, if there.
    pub fn duration_or_zero(&mut self, name: &'static str) -> Option<Duration> {
        self.parsed(name, parse_duration)
    }

    /// One of a fixed set of names, if there.
    pub fn choice<T: Names>(&mut self, name: &'static str) -> Option<T> {
        let text = self.optional_text(name)?;
        if let Some((_, value)) = T::NAMES.iter().find(|(known, _)| *known == text) {
            return Some(*value);
        }
        let names = || T::NAMES.iter().map(|(name, _)| *name);
        let allowed = names().collect::<Vec<_>>().join(", ");
        let hint = did_you_mean(&text, names())
            .map(|name| format!(" (did you mean {name}?)"))
            .unwrap_or_default();
        self.error_in(
            name,
            Reason::NotSupported,
            format!("unknown value {text:?}{hint}: must be one of {allowed}"),
        );
        None
    }

    // ---- objects, lists and maps -------------------------------------------------------------------------------

    /// A nested object, if there.
    pub fn object<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> Option<T> {
        let value = self.raw(name)?;
        let at = At { parent: Some(self.at), step: Step::Field(name) };
        self.nested(value, &at, read)
    }

    /// A nested object that must be there.
    pub fn required_object<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> Option<T> {
        if !self.has(name) {
            self.require(name);
        }
        self.object(name, read)
    }

    /// A list of objects; empty if absent.
    pub fn list<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&mut Fields<'_>) -> T,
    ) -> Vec<T> {
        let elements = self.elements(name);
        let list = At { parent: Some(self.at), step: Step::Field(name) };
        let mut items = Vec::with_capacity(elements.len());
        for (index, element) in elements.iter().enumerate() {
            let at = At { parent: Some(&list), step: Step::Index(index) };
            items.extend(self.nested(element, &at, &mut read));
        }
        items
    }

    /// A list of strings; empty if absent.
    pub fn texts(&mut self, name: &'static str) -> Vec<String> {
        self.texts_with(name, |_| Ok(()))
    }

    /// A list of strings, each accepted by `rule`; empty if absent.
    pub fn texts_with(
        &mut self,
        name: &'static str,
        rule: impl Fn(&str) -> Result<(), String>,
    ) -> Vec<String> {
        let mut texts = Vec::new();
        for (index, element) in self.elements(name).iter().enumerate() {
            let Some(text) = element.as_str() else {
                self.error_at(
                    name,
                    index,
                    Reason::Type,
                    format!("expected a string, found {}", describe(element)),
                );
                continue;
            };
            match rule(text) {
                Ok(()) => texts.push(text.to_owned()),
                Err(error) => {
                    self.error_at(
                        name,
                        index,
                        Reason::Invalid,
                        format!("invalid value {text:?}: {error}"),
                    );
                }
            }
        }
        texts
    }

    /// A list of whole numbers within `range`; empty if absent.
    pub fn integers(
        &mut self,
        name: &'static str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Vec<i64> {
        let mut numbers = Vec::new();
        for (index, element) in self.elements(name).iter().enumerate() {
            match whole(element) {
                Some(number) if range.contains(&number) => numbers.push(number),
                _ => {
                    let expected = format!(
                        "expected a whole number between {} and {}",
                        range.start(),
                        range.end()
                    );
                    self.error_at(
                        name,
                        index,
                        Reason::Invalid,
                        format!("{expected}, found {}", describe(element)),
                    );
                }
            }
        }
        numbers
    }

    /// A map of strings; empty if absent.
    pub fn text_map(&mut self, name: &'static str) -> BTreeMap<String, String> {
        self.scalar_map(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// A map of ports; empty if absent.
    pub fn port_map(&mut self, name: &'static str) -> BTreeMap<String, u16> {
        self.scalar_map(name, "a port between 1 and 65535", |value| {
            whole(value).and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
        })
    }

    /// A map of unsigned numbers; empty if absent.
    pub fn u32_map(&mut self, name: &'static str) -> BTreeMap<String, u32> {
        self.scalar_map(name, "a whole number", |value| {
            whole(value).and_then(|number| u32::try_from(number).ok())
        })
    }

    /// A map of objects; empty if absent. `read` gets the key.
    pub fn object_map<T>(
        &mut self,
        name: &'static str,
        mut read: impl FnMut(&str, &mut Fields<'_>) -> T,
    ) -> BTreeMap<String, T> {
        let mut items = BTreeMap::new();
        let Some(map) = self.entries(name) else { return items };
        let whole = At { parent: Some(self.at), step: Step::Field(name) };
        for (key, value) in map {
            let at = At { parent: Some(&whole), step: Step::Key(key) };
            if let Some(item) = self.nested(value, &at, |fields| read(key, fields)) {
                items.insert(key.clone(), item);
            }
        }
        items
    }

    fn scalar_map<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let mut items = BTreeMap::new();
        let Some(map) = self.entries(name) else { return items };
        for (key, value) in map {
            match read(value) {
                Some(item) => drop(items.insert(key.clone(), item)),
                None => {
                    let message = format!("expected {expected}, found {}", describe(value));
                    self.error_key(name, key, Reason::Type, message);
                }
            }
        }
        items
    }

    fn entries(&mut self, name: &'static str) -> Option<&'a Map<String, Value>> {
        match self.raw(name)? {
            Value::Object(map) => Some(map),
            other => {
                self.type_error(name, other, "a map");
                None
            }
        }
    }

    fn elements(&mut self, name: &'static str) -> &'a [Value] {
        match self.raw(name) {
            Some(Value::Array(elements)) => elements,
            Some(other) => {
                self.type_error(name, other, "a list");
                &[]
            }
            None => &[],
        }
    }

    fn nested<T>(
        &self,
        value: &Value,
        at: &At<'_>,
        read: impl FnOnce(&mut Fields<'_>) -> T,
    ) -> Option<T> {
        match value {
            Value::Object(map) => Some(read_fields(map, at, self.findings, read)),
            other => {
                let message = format!("expected a map of fields, found {}", describe(other));
                self.report(at.path(), Reason::Type, message);
                None
            }
        }
    }

    fn refuse_unknown(&self) {
        for name in self.map.keys() {
            if self.known.contains(&name.as_str()) {
                continue;
            }
            let hint = match did_you_mean(name, self.known.iter().copied()) {
                Some(near) => format!("unknown field, did you mean {near}?"),
                None => format!("unknown field, the fields here are {}", self.known.join(", ")),
            };
            self.error_in(name, Reason::Unknown, hint);
        }
    }
}

/// A JSON number that is whole, `5` and `5.0` alike.
fn whole(value: &Value) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    let number = value.as_f64()?;
    (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64)
}

/// A value in a few words, for a message.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(flag) => format!("{flag}"),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) if text.len() <= 60 => format!("the string {text:?}"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "a map".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read<T>(value: Value, read: impl FnOnce(&mut Fields<'_>) -> T) -> (T, Vec<String>) {
        let Value::Object(map) = value else { panic!("a map is wanted") };
        let (value, findings) = read_object(&map, read);
        (value, findings.errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn collects_every_error_with_its_path() {
        let wrong = json!({"ports": [{"number": 70000}, {"number": "80"}, 7], "nmae": "x", "labels": {"a": 1}});
        let (ports, errors) = read(wrong, |fields| {
            fields.text("name");
            fields.text_map("labels");
            fields.list("ports", |port| port.port("number"))
        });
        assert_eq!(ports, [None, None]);
        assert_eq!(
            errors,
            [
                "labels[a]: expected a string, found the number 1",
                "ports[0].number: invalid value 70000: must be between 1 and 65535",
                "ports[1].number: expected a whole number, found the string \"80\"",
                "ports[2]: expected a map of fields, found the number 7",
                "nmae: unknown field, did you mean name?",
            ]
        );
    }

    #[test]
    fn null_is_absent_and_required_says_so_once() {
        let (name, errors) = read(json!({"name": null}), |fields| fields.required_text("name"));
        assert_eq!((name.as_str(), errors), ("", vec!["name: required".to_owned()]));
        let (_, errors) = read(json!({"name": 5}), |fields| fields.required_text("name"));
        assert_eq!(errors, ["name: expected a string, found the number 5"]);
    }
}
