//! Parses heads and trailers: `lines` finds the parts, this module judges them and fills a head.
//!
//! A head is judged line by line as lines complete, so that the answer to the same bytes is the same however they arrive.

use super::lines::{self, BARE_LF, Found, TOO_LARGE, fault};
use super::target::{self, Target};
use super::{Options, Refusal};
use crate::headers::scan::{target_end, text_end};
use crate::headers::{
    Fields, Method, RequestHead, ResponseHead, Span, Version, is_authority, names,
};

/// How far the head at the front of the input is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It took so many bytes.
    Complete(usize),
    /// It does not end in the input.
    Partial,
}

/// What a partial head had when it was last looked at, so that bytes that trickle in are not parsed over and over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Bytes that have been searched for a line's end.
    searched: usize,
}

impl Seen {
    /// Some of the head has come.
    pub(super) fn has_begun(self) -> bool {
        self.searched > 0
    }

    /// Whether the input may say more than the last time: it has more complete lines.
    fn is_worth_parsing(&mut self, input: &[u8]) -> bool {
        let from = std::mem::replace(&mut self.searched, input.len()).min(input.len());
        from == 0 || memchr::memchr(b'\n', &input[from..]).is_some()
    }
}

/// Parses the request head at the front of the input. Empty lines before it are the caller's to skip.
pub(super) fn parse_request(
    input: &[u8],
    options: &Options,
    seen: &mut Seen,
    head: &mut RequestHead,
) -> Result<Progress, Refusal> {
    check_method_so_far(&input[..input.len().min(options.max_head_bytes)])?;
    parse(input, options, seen, TOO_LARGE, |visible| request_lines(visible, options, head))
}

/// Parses the response head at the front of the input.
pub(super) fn parse_response(
    input: &[u8],
    options: &Options,
    seen: &mut Seen,
    head: &mut ResponseHead,
) -> Result<Progress, Refusal> {
    parse(input, options, seen, TOO_LARGE, |visible| response_lines(visible, options, head))
}

/// Parses trailers, the empty line that ends them included.
pub(super) fn parse_trailers(
    input: &[u8],
    options: &Options,
    seen: &mut Seen,
    fields: &mut Fields,
) -> Result<Progress, Refusal> {
    const TRAILERS_TOO_LARGE: Refusal = Refusal {
        status: 431,
        details: "http1.trailers_too_large",
        reason: "trailers are too large",
    };

    parse(input, options, seen, TRAILERS_TOO_LARGE, |visible| {
        trailer_lines(visible, options, fields)
    })
}

/// Looks at what the limit of size lets see, if there is anything new in it.
#[inline]
fn parse(
    input: &[u8],
    options: &Options,
    seen: &mut Seen,
    too_large: Refusal,
    lines: impl FnOnce(&[u8]) -> Found<usize>,
) -> Result<Progress, Refusal> {
    let visible = &input[..input.len().min(options.max_head_bytes)];
    if seen.is_worth_parsing(visible)
        && let Some(len) = lines(visible)?
    {
        return Ok(Progress::Complete(len));
    }
    if input.len() >= options.max_head_bytes { Err(too_large) } else { Ok(Progress::Partial) }
}

/// A method is refused at its first bad byte, so that what is not HTTP at all is not waited for.
fn check_method_so_far(input: &[u8]) -> Result<(), Refusal> {
    const LONGEST_METHOD: usize = 32;

    let end = input.iter().take(LONGEST_METHOD + 1).position(|byte| !byte.is_ascii_uppercase());
    match end {
        None if input.len() <= LONGEST_METHOD => Ok(()),
        Some(end @ 1..) if input[end] == b' ' || input[end] == b'-' => Ok(()),
        _ => Err(Refusal::codec_error("not an HTTP method")),
    }
}

/// The methods that Envoy's parser knows, the common ones aside.
const OTHER_METHODS: [&[u8]; 26] = [
    b"ACL",
    b"BIND",
    b"CHECKOUT",
    b"COPY",
    b"LINK",
    b"LOCK",
    b"MERGE",
    b"MKACTIVITY",
    b"MKCALENDAR",
    b"MKCOL",
    b"MOVE",
    b"M-SEARCH",
    b"NOTIFY",
    b"PROPFIND",
    b"PROPPATCH",
    b"PURGE",
    b"REBIND",
    b"REPORT",
    b"SEARCH",
    b"SOURCE",
    b"SUBSCRIBE",
    b"UNBIND",
    b"UNLINK",
    b"UNLOCK",
    b"UNSUBSCRIBE",
    b"MSEARCH",
];

fn request_lines(input: &[u8], options: &Options, head: &mut RequestHead) -> Found<usize> {
    const BAD_LINE: Refusal = Refusal::codec_error("bad byte in the request line");

    let method = Span::new(0, lines::token_end(input, 0));
    match input.get(method.end()) {
        Some(b' ') if method.len > 0 => {}
        Some(_) => return fault(input, method.end(), BAD_LINE),
        None => return Ok(None),
    }
    let target_at = method.end() + 1;
    let target = Span::new(target_at, target_end(input, target_at) - target_at);
    match input.get(target.end()) {
        Some(b' ') if target.len > 0 => {}
        Some(_) => return fault(input, target.end(), BAD_LINE),
        None => return Ok(None),
    }
    let version_at = target.end() + 1;
    let version = match input[version_at..].first_chunk() {
        Some(b"HTTP/1.1\r\n") => Version::Http11,
        Some(b"HTTP/1.0\r\n") => Version::Http10,
        _ => return odd_version(input, version_at),
    };
    if !input[target_at..target.end()].is_ascii() {
        return Err(Refusal::codec_error("bad byte in the request target"));
    }
    head.forget_pseudo_fields();
    head.fields.clear();
    let fields_at = version_at + "HTTP/1.1\r\n".len();
    let Some(len) = lines::fields(input, fields_at, options.max_fields, &mut head.fields)? else {
        return Ok(None);
    };
    head.fields.take_wire(&input[..len]);
    head.set_line(method, target, version);
    judge_request(target, options, head)?;
    Ok(Some(len))
}

/// What the lines of a request say beyond their form.
fn judge_request(target: Span, options: &Options, head: &mut RequestHead) -> Result<(), Refusal> {
    let kind = head.method_kind();
    if kind == Method::Other && !OTHER_METHODS.contains(&head.method()) {
        return Err(Refusal::codec_error("unknown method"));
    }
    place_authority(head)?;
    let bytes = head.path();
    let has_own_authority = match kind {
        Method::Connect => true,
        Method::Options if bytes == b"*" => false,
        _ => bytes.first() != Some(&b'/'),
    };
    if has_own_authority {
        let at = target.start as usize;
        let target = target::split(bytes, at, kind, options.allow_absolute_form)?;
        place_target(head, target);
    }
    Ok(())
}

/// Envoy's answer to whatever is well formed and neither 1.0 nor 1.1.
const OTHER_VERSION: Refusal = Refusal {
    status: 426,
    details: "low_version",
    reason: "an HTTP version other than 1.0 and 1.1",
};

/// The request line has two words; the third is no version of ours, or not whole.
#[cold]
fn odd_version(input: &[u8], at: usize) -> Found<usize> {
    let Some(end) = memchr::memchr(b'\n', &input[at..]) else {
        return Ok(None);
    };
    Err(match &input[at..at + end] {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1'] => BARE_LF,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9', b'\r'] => OTHER_VERSION,
        _ => Refusal::codec_error("bad HTTP version"),
    })
}

/// The one Host field becomes the authority.
fn place_authority(head: &mut RequestHead) -> Result<(), Refusal> {
    let Some(host) = head.fields.hide_host() else {
        return Ok(());
    };
    // The first is out of sight now: any other is one too many.
    if head.fields.contains(names::HOST) {
        return Err(Refusal::codec_error("more than one Host"));
    }
    if !is_authority(head.fields.bytes(host)) {
        return Err(Refusal::codec_error("bad character in Host"));
    }
    head.set_authority_span(host);
    Ok(())
}

/// A target with an authority of its own overrides Host (RFC 9112 §3.2.2).
fn place_target(head: &mut RequestHead, target: Target) {
    head.set_target(target.scheme, target.authority, target.path);
    let scheme: &[u8] = match target.scheme.len {
        4 => b"http",
        5 => b"https",
        _ => return,
    };
    head.set_scheme(scheme);
    if target.needs_slash {
        head.set_path(b"/");
    }
}

fn response_lines(input: &[u8], options: &Options, head: &mut ResponseHead) -> Found<usize> {
    const BAD_STATUS: Refusal = Refusal::codec_error("bad status line");
    const STATUS_AT: usize = "HTTP/1.1 ".len();
    const REASON_AT: usize = "HTTP/1.1 200".len();

    let Some(line) = input.first_chunk::<REASON_AT>() else {
        return fault(input, 0, BAD_STATUS);
    };
    let version = match &line[..STATUS_AT] {
        b"HTTP/1.1 " => Version::Http11,
        b"HTTP/1.0 " => Version::Http10,
        _ => return fault(input, 0, BAD_STATUS),
    };
    let [hundreds @ b'0'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] = &line[STATUS_AT..]
    else {
        return fault(input, 0, BAD_STATUS);
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    let status = digit(hundreds) * 100 + digit(tens) * 10 + digit(ones);
    let line_end = match input.get(REASON_AT) {
        Some(b' ') => text_end(input, REASON_AT + 1),
        Some(_) => REASON_AT,
        None => return Ok(None),
    };
    let fields_at = match input.get(line_end) {
        Some(b'\r') => lines::empty_line(input, line_end)?,
        Some(b'\n') => return Err(BARE_LF),
        Some(_) => return fault(input, line_end, BAD_STATUS),
        None => None,
    };
    let Some(fields_at) = fields_at else { return Ok(None) };
    if status < 100 {
        return Err(Refusal::codec_error("status below 100"));
    }
    head.fields.clear();
    let Some(len) = lines::fields(input, fields_at, options.max_fields, &mut head.fields)? else {
        return Ok(None);
    };
    head.fields.take_wire(&input[..len]);
    (head.version, head.status) = (version, status);
    Ok(Some(len))
}

fn trailer_lines(input: &[u8], options: &Options, fields: &mut Fields) -> Found<usize> {
    fields.clear();
    let Some(len) = lines::fields(input, 0, options.max_fields, fields)? else { return Ok(None) };
    fields.take_wire(&input[..len]);
    let framing = [
        names::CONTENT_LENGTH,
        names::TRANSFER_ENCODING,
        names::HOST,
        names::CONNECTION,
        names::TRAILER,
    ];
    if framing.into_iter().any(|name| fields.contains(name)) {
        return Err(Refusal::codec_error("trailers that frame or route the message"));
    }
    Ok(Some(len))
}
