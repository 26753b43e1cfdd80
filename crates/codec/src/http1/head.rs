//! Parses heads and trailers: httparse finds the parts, this module refuses what httparse is lenient about, and fills a head.
//!
//! A head is judged line by line as lines complete, so that the answer to the same bytes is the same however they arrive:
//! only complete lines are ever looked at, and within the limit of size.

use std::mem::MaybeUninit;

use super::target::{self, Target};
use super::{MOST_FIELDS, Options, Refusal};
use crate::headers::{
    Fields, Method, RequestHead, ResponseHead, Span, Version, is_authority, names,
};

/// How far the head at the front of the input is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It took so many bytes.
    Complete(usize),
    /// It does not end in the input.
    Partial,
}

/// What a partial head had when it was last looked at, so that bytes that trickle in are not parsed over and over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Bytes that have been searched for a line's end.
    searched: usize,
}

impl Seen {
    /// The part of the input that is worth parsing: its complete lines, if there are more than the last time.
    fn new_lines<'a>(&mut self, input: &'a [u8]) -> Option<&'a [u8]> {
        let from = self.searched.min(input.len());
        self.searched = input.len();
        let last = from + memchr::memrchr(b'\n', &input[from..])?;
        Some(&input[..=last])
    }
}

const TOO_LARGE: Refusal =
    Refusal { status: 431, details: "http1.headers_too_large", reason: "head is too large" };
const TOO_MANY: Refusal =
    Refusal { status: 431, details: "http1.too_many_headers", reason: "too many fields" };
const BARE_LF: Refusal = Refusal::codec_error("line does not end in CRLF");

type Headers<'a> = [MaybeUninit<httparse::Header<'a>>];

/// Parses the request head at the front of the input. Empty lines before it are the caller's to skip.
pub(crate) fn parse_request(
    input: &[u8],
    options: &Options,
    seen: &mut Seen,
    head: &mut RequestHead,
) -> Result<Progress, Refusal> {
    let visible = &input[..input.len().min(options.max_head_bytes)];
    check_method_so_far(visible)?;
    if seen.searched == 0 {
        // Nearly always the head is there as a whole.
        match with_room(options.max_fields, |headers| {
            request_lines(visible, options, headers, head)
        }) {
            Ok(Progress::Complete(len)) => return Ok(Progress::Complete(len)),
            Ok(Progress::Partial) => {}
            // The fault may lie in a line that is not complete: what follows decides.
            Err(_) => {}
        }
    }
    if let Some(lines) = seen.new_lines(visible)
        && let Progress::Complete(len) =
            with_room(options.max_fields, |headers| request_lines(lines, options, headers, head))?
    {
        return Ok(Progress::Complete(len));
    }
    if input.len() >= options.max_head_bytes { Err(TOO_LARGE) } else { Ok(Progress::Partial) }
}

/// Parses the response head at the front of the input.
pub(crate) fn parse_response(
    input: &[u8],
    options: &Options,
    seen: &mut Seen,
    head: &mut ResponseHead,
) -> Result<Progress, Refusal> {
    let visible = &input[..input.len().min(options.max_head_bytes)];
    if seen.searched == 0
        && let Ok(Progress::Complete(len)) =
            with_room(options.max_fields, |headers| response_lines(visible, headers, head))
    {
        return Ok(Progress::Complete(len));
    }
    if let Some(lines) = seen.new_lines(visible)
        && let Progress::Complete(len) =
            with_room(options.max_fields, |headers| response_lines(lines, headers, head))?
    {
        return Ok(Progress::Complete(len));
    }
    if input.len() >= options.max_head_bytes { Err(TOO_LARGE) } else { Ok(Progress::Partial) }
}

/// Parses trailers, the empty line that ends them included.
pub(crate) fn parse_trailers(
    input: &[u8],
    options: &Options,
    seen: &mut Seen,
    fields: &mut Fields,
) -> Result<Progress, Refusal> {
    const TOO_LARGE: Refusal = Refusal {
        status: 431,
        details: "http1.trailers_too_large",
        reason: "trailers are too large",
    };

    let visible = &input[..input.len().min(options.max_head_bytes)];
    if let Some(lines) = seen.new_lines(visible)
        && let Progress::Complete(len) = trailer_lines(lines, options.max_fields, fields)?
    {
        return Ok(Progress::Complete(len));
    }
    if input.len() >= options.max_head_bytes { Err(TOO_LARGE) } else { Ok(Progress::Partial) }
}

/// Lends as much uninitialised stack as the limit needs; the common limit needs little.
fn with_room<'b, T>(most: usize, parse: impl FnOnce(&mut Headers<'b>) -> T) -> T {
    if most <= 128 {
        parse(&mut [const { MaybeUninit::uninit() }; 128][..most])
    } else {
        parse(&mut [const { MaybeUninit::uninit() }; MOST_FIELDS][..most.min(MOST_FIELDS)])
    }
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

fn request_lines<'b>(
    lines: &'b [u8],
    options: &Options,
    headers: &mut Headers<'b>,
    head: &mut RequestHead,
) -> Result<Progress, Refusal> {
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(lines, headers);
    if parsed == Err(httparse::Error::Version) && has_other_version(lines) {
        return Err(OTHER_VERSION);
    }
    let len = match parsed.map_err(refusal)? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial => return Ok(Progress::Partial),
    };
    let (Some(method), Some(target), Some(version)) =
        (request.method, request.path, request.version)
    else {
        return Ok(Progress::Partial);
    };
    let target_at = method.len() + 1;
    let line_end = target_at + target.len() + " HTTP/1.1".len();
    if !lines[line_end..].starts_with(b"\r\n") {
        return Err(BARE_LF);
    }
    if !target.is_ascii() {
        return Err(Refusal::codec_error("bad byte in the request target"));
    }
    let version = if version == 0 { Version::Http10 } else { Version::Http11 };
    head.forget_pseudo_fields();
    index_fields(&mut head.fields, &lines[..len], line_end + 2, request.headers)?;
    head.set_line(Span::new(0, method.len()), Span::new(target_at, target.len()), version);
    if head.method_kind() == Method::Other && !OTHER_METHODS.contains(&method.as_bytes()) {
        return Err(Refusal::codec_error("unknown method"));
    }
    place_authority(head)?;
    let has_own_authority = match head.method_kind() {
        Method::Connect => true,
        Method::Options if target == "*" => false,
        _ => !target.starts_with('/'),
    };
    if has_own_authority {
        let target = target::split(
            target.as_bytes(),
            target_at,
            head.method_kind(),
            options.allow_absolute_form,
        )?;
        place_target(head, target);
    }
    Ok(Progress::Complete(len))
}

/// Envoy's answer to whatever is well formed and neither 1.0 nor 1.1.
const OTHER_VERSION: Refusal = Refusal {
    status: 426,
    details: "low_version",
    reason: "an HTTP version other than 1.0 and 1.1",
};

/// Whether the request line is three words, the last one `HTTP/` digit `.` digit.
fn has_other_version(lines: &[u8]) -> bool {
    let end = memchr::memchr(b'\n', lines).unwrap_or_default();
    let line = lines[..end].strip_suffix(b"\r").unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let has_version =
        matches!(version, Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']));
    has_version && words.next().is_none() && ![method, target].contains(&Some(b""))
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

fn response_lines<'b>(
    lines: &'b [u8],
    headers: &mut Headers<'b>,
    head: &mut ResponseHead,
) -> Result<Progress, Refusal> {
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        lines,
        headers,
    );
    let len = match parsed.map_err(refusal)? {
        httparse::Status::Complete(len) => len,
        httparse::Status::Partial => return Ok(Progress::Partial),
    };
    if !lines.starts_with(b"HTTP/") {
        return Err(Refusal::codec_error("empty line before a response"));
    }
    let (Some(version), Some(status), Some(line_end)) =
        (response.version, response.code, memchr::memchr(b'\n', lines))
    else {
        return Ok(Progress::Partial);
    };
    if lines[line_end - 1] != b'\r' {
        return Err(BARE_LF);
    }
    if status < 100 {
        return Err(Refusal::codec_error("status below 100"));
    }
    index_fields(&mut head.fields, &lines[..len], line_end + 1, response.headers)?;
    head.version = if version == 0 { Version::Http10 } else { Version::Http11 };
    head.status = status;
    Ok(Progress::Complete(len))
}

fn trailer_lines(lines: &[u8], most: usize, fields: &mut Fields) -> Result<Progress, Refusal> {
    let mut headers = vec![httparse::EMPTY_HEADER; most];
    let (len, headers) = match httparse::parse_headers(lines, &mut headers).map_err(refusal)? {
        httparse::Status::Complete(parsed) => parsed,
        httparse::Status::Partial => return Ok(Progress::Partial),
    };
    index_fields(fields, &lines[..len], 0, headers)?;
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
    Ok(Progress::Complete(len))
}

/// Copies a head whose lines begin at `at` and indexes them, making sure that each ends in CRLF.
fn index_fields(
    fields: &mut Fields,
    wire: &[u8],
    mut at: usize,
    headers: &[httparse::Header<'_>],
) -> Result<(), Refusal> {
    let offset = |part: *const u8| part as usize - wire.as_ptr() as usize;
    fields.load(wire);
    for header in headers {
        let name = Span::new(at, header.name.len());
        debug_assert_eq!(at, offset(header.name.as_ptr()));
        if header.name.len() > usize::from(u16::MAX) {
            return Err(TOO_LARGE);
        }
        let value = Span::new(offset(header.value.as_ptr()), header.value.len());
        let trailing = wire[value.end()..]
            .iter()
            .position(|byte| !matches!(byte, b' ' | b'\t'))
            .unwrap_or_default();
        at = value.end() + trailing;
        if wire[at] != b'\r' {
            return Err(BARE_LF);
        }
        at += 2;
        let is_canonical = trailing == 0
            && value.start as usize == name.end() + 2
            && wire.get(name.end() + 1) == Some(&b' ');
        fields.index_line(name, value, is_canonical);
    }
    if wire[at..] == *b"\r\n" { Ok(()) } else { Err(BARE_LF) }
}

fn refusal(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => TOO_MANY,
        httparse::Error::HeaderName => Refusal::codec_error("bad byte in a field name"),
        httparse::Error::HeaderValue => Refusal::codec_error("bad byte in a field value"),
        httparse::Error::NewLine => BARE_LF,
        httparse::Error::Status => Refusal::codec_error("bad status line"),
        httparse::Error::Token => Refusal::codec_error("bad byte in the request line"),
        httparse::Error::Version => Refusal::codec_error("bad HTTP version"),
    }
}
