//! The criteria of a route other than its path.

use codec::headers::{RequestHead, ResponseHead};

use super::config::{Criteria, HeaderMatcher, QueryMatcher, QueryValue, TlsCriteria, ValueMatch};
use crate::http::grpc;
use crate::stream_info::TlsInfo;

/// What routing looks at beside the head.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteInput<'a> {
    /// The stream's random number: the same for fractions and for the choice among weighted clusters.
    pub random: u64,
    /// The downstream connection's TLS.
    pub tls: Option<&'a TlsInfo>,
}

/// The path without query and fragment, and the query without its `?`.
pub(super) fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr2(b'?', b'#', path) {
        None => (path, b""),
        Some(end) if path[end] == b'#' => (&path[..end], b""),
        Some(end) => {
            let query = &path[end + 1..];
            let query_end = memchr::memchr(b'#', query).unwrap_or(query.len());
            (&path[..end], &query[..query_end])
        }
    }
}

impl Criteria {
    /// Whether everything but the path holds.
    pub(super) fn hold(&self, head: &RequestHead, query: &[u8], input: RouteInput<'_>) -> bool {
        self.fraction.is_none_or(|fraction| fraction.admits(input.random))
            && (!self.grpc || grpc::is_grpc(head))
            && self.headers.iter().all(|matcher| matcher.matches(head))
            && self.query.iter().all(|matcher| matcher.matches(query))
            && self.tls.is_none_or(|tls| tls.holds(input.tls))
    }
}

impl HeaderMatcher {
    /// Whether a request has what this asks for.
    pub fn matches(&self, head: &RequestHead) -> bool {
        self.matches_values(head.get_all(&self.name))
    }

    /// Whether a response has what this asks for; its `:status` is a header, too.
    pub fn matches_response(&self, head: &ResponseHead) -> bool {
        if self.name.as_str() == ":status" {
            return self.matches_values(std::iter::once(head.status.to_string().as_bytes()));
        }
        self.matches_values(head.fields.get_all(&self.name))
    }

    fn matches_values<'v>(&self, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
        let Some(first) = values.next().or(self.treat_missing_as_empty.then_some(b"")) else {
            // Absent: only a matcher for absence can hold.
            return matches!(self.value, ValueMatch::Present(wanted) if wanted == self.invert);
        };
        let holds = match &self.value {
            ValueMatch::Present(wanted) => *wanted,
            ValueMatch::String(matcher) => {
                matcher.matches(first) || values.any(|value| matcher.matches(value))
            }
            ValueMatch::Range(start, end) => {
                let within = |value: &[u8]| {
                    parse_integer(value).is_some_and(|number| (*start..*end).contains(&number))
                };
                within(first) || values.any(within)
            }
        };
        holds != self.invert
    }
}

fn parse_integer(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

impl QueryMatcher {
    fn matches(&self, query: &[u8]) -> bool {
        let value =
            query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).find_map(|pair| {
                let (name, value) = match memchr::memchr(b'=', pair) {
                    Some(equals) => (&pair[..equals], &pair[equals + 1..]),
                    None => (pair, &b""[..]),
                };
                (name == self.name.as_bytes()).then_some(value)
            });
        match &self.value {
            QueryValue::Present(wanted) => value.is_some() == *wanted,
            QueryValue::String(matcher) => value.is_some_and(|value| matcher.matches(value)),
        }
    }
}

impl TlsCriteria {
    fn holds(self, tls: Option<&TlsInfo>) -> bool {
        let presented = tls.is_some_and(|tls| tls.peer.is_some());
        let validated = tls.is_some_and(|tls| tls.peer_validated);
        self.presented.is_none_or(|wanted| wanted == presented)
            && self.validated.is_none_or(|wanted| wanted == validated)
    }
}
