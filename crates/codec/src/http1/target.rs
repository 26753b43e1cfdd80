//! The four forms of a request target (RFC 9112 §3.2), by place in the head's bytes.

use super::Refusal;
use crate::headers::{Method, Span, is_authority};

/// Where the parts of a target are. What is empty was not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub scheme: Span,
    pub authority: Span,
    pub path: Span,
    /// The target names a place and nothing else: its path is `/`.
    pub needs_slash: bool,
}

const INVALID: Refusal = Refusal::bad_request("http1.invalid_url", "request target is not valid");

/// Splits a target that is neither in origin form nor `*`. `at` is where it starts in the head.
pub(super) fn split(
    target: &[u8],
    at: usize,
    method: Method,
    allow_absolute: bool,
) -> Result<Target, Refusal> {
    if method == Method::Connect {
        if !is_authority(target) || !has_port(target) {
            return Err(Refusal::bad_request(
                "http1.invalid_url",
                "CONNECT to something that is not host:port",
            ));
        }
        return Ok(Target { authority: Span::new(at, target.len()), ..Target::default() });
    }
    if !allow_absolute {
        return Err(INVALID);
    }
    let scheme = [&b"http"[..], b"https"]
        .into_iter()
        .find(|scheme| {
            target.len() >= scheme.len() + 3
                && target[..scheme.len()].eq_ignore_ascii_case(scheme)
                && target[scheme.len()..].starts_with(b"://")
        })
        .ok_or(INVALID)?;
    let host = scheme.len() + 3;
    let rest = &target[host..];
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    let authority = &rest[..end];
    if authority.is_empty() || authority.contains(&b'@') || !is_authority(authority) {
        return Err(INVALID);
    }
    Ok(Target {
        scheme: Span::new(at, scheme.len()),
        authority: Span::new(at + host, end),
        path: Span::new(at + host + end, rest.len() - end),
        needs_slash: end == rest.len(),
    })
}

fn has_port(authority: &[u8]) -> bool {
    let Some(colon) = memchr::memrchr(b':', authority) else {
        return false;
    };
    let (host, port) = (&authority[..colon], &authority[colon + 1..]);
    let port_fits = (1..=5).contains(&port.len())
        && port.iter().all(u8::is_ascii_digit)
        && port.iter().fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0')) <= 65_535;
    let host_fits = !host.is_empty() && (host.starts_with(b"[") == host.ends_with(b"]"));
    port_fits && host_fits && (host.starts_with(b"[") || !host.contains(&b':'))
}
