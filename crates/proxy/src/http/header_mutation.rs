//! Headers added, set and removed by configuration: `request_headers_to_add` and its like, at every level.
//!
//! One list first removes, then evaluates every value against the head as it is then, then writes: values never see one
//! another. Names and values are compiled once; literal values cost a copy.

use codec::headers::{
    Fields, HeaderName, InvalidHeaderName, KnownName, RequestHead, ResponseHead, names,
};

use crate::access_log::{Environment, Format, FormatError};
use crate::stream_info::{LogRecord, StreamInfo};

/// What one level of configuration does to a head.
#[derive(Clone, Debug, Default)]
pub struct HeaderMutations {
    remove: Vec<HeaderName>,
    add: Vec<HeaderAddition>,
}

/// One entry of a `*_headers_to_add` list (`HeaderValueOption`).
#[derive(Clone, Debug)]
struct HeaderAddition {
    name: HeaderName,
    value: Value,
    action: AppendAction,
    keep_empty: bool,
}

#[derive(Clone, Debug)]
enum Value {
    Literal(Box<[u8]>),
    Format(Format),
}

/// `HeaderValueOption.append_action`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppendAction {
    /// Adds a field, beside those of the same name.
    #[default]
    AppendIfExistsOrAdd,
    /// Adds a field unless there is one.
    AddIfAbsent,
    /// Replaces what is there, or adds.
    OverwriteIfExistsOrAdd,
    /// Replaces what is there; adds nothing.
    OverwriteIfExists,
}

/// Why an entry was refused.
#[derive(Debug, thiserror::Error)]
pub enum HeaderMutationError {
    /// The name is no header name.
    #[error(transparent)]
    Name(#[from] InvalidHeaderName),
    /// Envoy's rule too: routing has read these.
    #[error(":-prefixed or host headers may not be modified: {0}")]
    Reserved(String),
    /// The value is no format.
    #[error("value of {0}: {1}")]
    Value(String, #[source] FormatError),
}

/// What values may speak of.
#[derive(Clone, Copy, Debug)]
pub struct MutationContext<'a> {
    /// The worker, from 0.
    pub worker: usize,
    /// Now, in monotonic nanoseconds of the worker's clock.
    pub now_ns: u64,
    /// What has happened so far.
    pub info: &'a StreamInfo,
}

/// Room for evaluated values, kept by the worker so that evaluation allocates nothing.
#[derive(Debug, Default)]
pub struct MutationScratch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl HeaderMutations {
    /// Adds the removal of a header.
    ///
    /// # Errors
    /// When `name` is no header name, or one that may not be changed.
    pub fn remove(&mut self, name: &str) -> Result<(), HeaderMutationError> {
        self.remove.push(changeable(name)?);
        Ok(())
    }

    /// Adds an addition; `value` is a format string. With `keep_empty` a value that comes out empty is written too.
    ///
    /// # Errors
    /// When `name` is no header name or one that may not be changed, or `value` is no format.
    pub fn add(
        &mut self,
        name: &str,
        value: &str,
        action: AppendAction,
        keep_empty: bool,
        environment: &Environment,
    ) -> Result<(), HeaderMutationError> {
        let format = Format::parse_omitting_empty(value, environment)
            .map_err(|error| HeaderMutationError::Value(name.to_owned(), error))?;
        let value = match format.as_literal() {
            Some(literal) => Value::Literal(literal.into()),
            None => Value::Format(format),
        };
        self.add.push(HeaderAddition { name: changeable(name)?, value, action, keep_empty });
        Ok(())
    }

    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }

    /// Changes a request head.
    pub fn apply_to_request(
        &self,
        head: &mut RequestHead,
        cx: MutationContext<'_>,
        scratch: &mut MutationScratch,
    ) {
        if self.is_empty() {
            return;
        }
        self.apply_removals(&mut head.fields);
        self.evaluate(&record(cx, Some(head), None), scratch);
        self.apply_additions(&mut head.fields, scratch);
    }

    /// Changes a response head; `request` is the one it answers.
    pub fn apply_to_response(
        &self,
        head: &mut ResponseHead,
        request: Option<&RequestHead>,
        cx: MutationContext<'_>,
        scratch: &mut MutationScratch,
    ) {
        if self.is_empty() {
            return;
        }
        self.apply_removals(&mut head.fields);
        self.evaluate(&record(cx, request, Some(head)), scratch);
        self.apply_additions(&mut head.fields, scratch);
    }

    fn apply_removals(&self, fields: &mut Fields) {
        for name in &self.remove {
            fields.remove(name);
        }
    }

    fn evaluate(&self, record: &LogRecord<'_>, scratch: &mut MutationScratch) {
        scratch.bytes.clear();
        scratch.ends.clear();
        for addition in &self.add {
            if let Value::Format(format) = &addition.value {
                format.append(record, &mut scratch.bytes);
            }
            scratch.ends.push(scratch.bytes.len());
        }
    }

    fn apply_additions(&self, fields: &mut Fields, scratch: &MutationScratch) {
        let mut start = 0;
        for (addition, end) in self.add.iter().zip(&scratch.ends) {
            let value = match &addition.value {
                Value::Literal(literal) => literal,
                Value::Format(_) => &scratch.bytes[start..*end],
            };
            start = *end;
            addition.apply(fields, value);
        }
    }
}

impl HeaderAddition {
    fn apply(&self, fields: &mut Fields, value: &[u8]) {
        if value.is_empty() && !self.keep_empty {
            return;
        }
        match self.action {
            AppendAction::AppendIfExistsOrAdd => fields.append(&self.name, value),
            AppendAction::AddIfAbsent if fields.contains(&self.name) => {}
            AppendAction::OverwriteIfExists if !fields.contains(&self.name) => {}
            AppendAction::AddIfAbsent
            | AppendAction::OverwriteIfExistsOrAdd
            | AppendAction::OverwriteIfExists => {
                fields.set(&self.name, value);
            }
        }
    }
}

fn changeable(name: &str) -> Result<HeaderName, HeaderMutationError> {
    const HOST: KnownName = names::HOST;

    let parsed = HeaderName::parse(name)?;
    if parsed.is_pseudo() || parsed == HeaderName::Known(HOST) {
        return Err(HeaderMutationError::Reserved(name.to_owned()));
    }
    Ok(parsed)
}

fn record<'a>(
    cx: MutationContext<'a>,
    request: Option<&'a RequestHead>,
    response: Option<&'a ResponseHead>,
) -> LogRecord<'a> {
    LogRecord {
        worker: cx.worker,
        now_ns: cx.now_ns,
        info: cx.info,
        request,
        response,
        response_trailers: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(list: &[(&str, &str)]) -> ResponseHead {
        let mut head = ResponseHead::new(200);
        for (name, value) in list {
            head.fields.append(*name, value.as_bytes());
        }
        head
    }

    fn pairs(fields: &Fields) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        fields.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    fn applied(mutations: &HeaderMutations, head: &mut ResponseHead) -> Vec<(String, String)> {
        let mut request = RequestHead::new();
        request.set_path(b"/p");
        request.fields.set("x-in", b"from request");
        let info = StreamInfo::default();
        let cx = MutationContext { worker: 0, now_ns: 0, info: &info };
        mutations.apply_to_response(head, Some(&request), cx, &mut MutationScratch::default());
        pairs(&head.fields)
    }

    #[test]
    fn every_append_action() {
        use AppendAction::*;
        let table: &[(AppendAction, &[(&str, &str)], &str, bool, &[(&str, &str)])] = &[
            (AppendIfExistsOrAdd, &[("x", "1")], "2", false, &[("x", "1"), ("x", "2")]),
            (AppendIfExistsOrAdd, &[], "2", false, &[("x", "2")]),
            (AddIfAbsent, &[("x", "1")], "2", false, &[("x", "1")]),
            (AddIfAbsent, &[], "2", false, &[("x", "2")]),
            (
                OverwriteIfExistsOrAdd,
                &[("x", "1"), ("y", ""), ("x", "3")],
                "2",
                false,
                &[("x", "2"), ("y", "")],
            ),
            (OverwriteIfExistsOrAdd, &[], "2", false, &[("x", "2")]),
            (OverwriteIfExists, &[("x", "1")], "2", false, &[("x", "2")]),
            (OverwriteIfExists, &[], "2", false, &[]),
            (AppendIfExistsOrAdd, &[], "", false, &[]),
            (AppendIfExistsOrAdd, &[], "", true, &[("x", "")]),
            (OverwriteIfExistsOrAdd, &[("x", "1")], "%REQ(absent)%", false, &[("x", "1")]),
            (OverwriteIfExistsOrAdd, &[("x", "1")], "%REQ(absent)%", true, &[("x", "")]),
        ];
        for (action, before, value, keep_empty, after) in table {
            let mut mutations = HeaderMutations::default();
            mutations.add("X", value, *action, *keep_empty, &Environment::default()).unwrap();
            let after: Vec<_> =
                after.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            assert_eq!(
                applied(&mutations, &mut response(before)),
                after,
                "{action:?} {value:?} on {before:?}"
            );
        }
    }

    #[test]
    fn removals_come_first_and_values_see_the_same_head() {
        let mut mutations = HeaderMutations::default();
        mutations.remove("X-Gone").unwrap();
        let environment = Environment::default();
        for (name, value) in
            [("x-a", "%RESP(x-gone)%|%REQ(x-in)%"), ("x-b", "[%RESP(x-a)%]"), ("x-c", "100%%")]
        {
            mutations
                .add(name, value, AppendAction::OverwriteIfExistsOrAdd, false, &environment)
                .unwrap();
        }
        let after = applied(&mutations, &mut response(&[("x-gone", "1"), ("x-a", "old")]));
        let expected = [("x-a", "|from request"), ("x-b", "[old]"), ("x-c", "100%")];
        assert_eq!(after, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_routing_has_read_may_not_be_changed() {
        let mut mutations = HeaderMutations::default();
        for name in ["host", "Host", ":path", ":authority"] {
            assert!(
                matches!(mutations.remove(name), Err(HeaderMutationError::Reserved(_))),
                "{name}"
            );
        }
        assert!(matches!(mutations.remove("a b"), Err(HeaderMutationError::Name(_))));
        let bad =
            mutations.add("x", "%NOPE%", AppendAction::default(), false, &Environment::default());
        assert!(matches!(bad, Err(HeaderMutationError::Value(..))));
        assert!(mutations.is_empty());
    }
}
