//! Writes heads.
//!
//! The fields of the connection (`connection`, `keep-alive`, `proxy-connection`, `transfer-encoding`) are the codec's own:
//! whatever a head says of them is not written.

use super::body::BodyEncoder;
use super::framing;
use crate::headers::{Fields, Method, NameSet, RequestHead, ResponseHead, Version, names};

/// What a message says of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionField {
    /// Nothing: the version's default.
    Silent,
    Close,
    KeepAlive,
    Upgrade,
}

/// The body that follows, and what of the head must not be written because of it.
pub(super) struct Plan {
    body: BodyEncoder,
    /// A line about the length that the head does not have.
    line: &'static [u8],
    drops_length: bool,
}

impl Plan {
    fn new(body: BodyEncoder, line: &'static [u8], drops_length: bool) -> Plan {
        Plan { body, line, drops_length }
    }

    /// Fields of the head that are not written.
    fn skips(&self, keeps_upgrade: bool) -> NameSet {
        match (keeps_upgrade, self.drops_length) {
            (false, false) => OURS,
            (false, true) => OURS.and(LENGTH),
            (true, false) => OURS_IN_UPGRADES,
            (true, true) => OURS_IN_UPGRADES.and(LENGTH),
        }
    }
}

/// Fields that the codec writes itself.
const OURS: NameSet = OURS_IN_UPGRADES.and(NameSet::of(&[names::UPGRADE, names::HTTP2_SETTINGS]));
/// The same where the head asks for, or grants, another protocol.
const OURS_IN_UPGRADES: NameSet = NameSet::of(&[
    names::CONNECTION,
    names::TRANSFER_ENCODING,
    names::KEEP_ALIVE,
    names::PROXY_CONNECTION,
]);
const LENGTH: NameSet = NameSet::of(&[names::CONTENT_LENGTH]);

const CHUNKED_LINE: &[u8] = b"transfer-encoding: chunked\r\n";
const NO_LENGTH_LINE: &[u8] = b"content-length: 0\r\n";

/// Writes a request head and says how its body is to be written.
pub(super) fn request(head: &RequestHead, end_stream: bool, out: &mut Vec<u8>) -> BodyEncoder {
    let plan = plan_request(head, end_stream);
    let target = if head.method_kind() == Method::Connect { head.authority() } else { head.path() };
    for part in [head.method(), b" ", target, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    head.write_lines(out, plan.skips(head.is_upgrade));
    out.extend_from_slice(plan.line);
    if head.is_upgrade {
        out.extend_from_slice(connection_line(ConnectionField::Upgrade));
    }
    out.extend_from_slice(b"\r\n");
    plan.body
}

fn plan_request(head: &RequestHead, end_stream: bool) -> Plan {
    if head.is_upgrade || head.method_kind() == Method::Connect {
        return Plan::new(BodyEncoder::None, b"", true);
    }
    if let Some(length) = declared_length(&head.fields) {
        return Plan::new(BodyEncoder::Length(length), b"", false);
    }
    match (end_stream, head.method_kind()) {
        // RFC 9110 §8.6: a length of 0 is said unless the method is one that comes without content. Envoy's list.
        (true, Method::Get | Method::Head | Method::Delete | Method::Connect | Method::Trace) => {
            Plan::new(BodyEncoder::None, b"", true)
        }
        (true, _) => Plan::new(BodyEncoder::None, NO_LENGTH_LINE, true),
        (false, _) => Plan::new(BodyEncoder::Chunked, CHUNKED_LINE, true),
    }
}

/// What a response answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub method: Method,
    pub version: Version,
}

/// Writes a final response head, or that of a 101, as planned, and says how its body is to be written.
pub(super) fn response(
    head: &ResponseHead,
    asked: Asked,
    plan: &Plan,
    connection: ConnectionField,
    out: &mut Vec<u8>,
) -> BodyEncoder {
    status_line(head.status, asked.version, out);
    head.fields.write_lines(out, plan.skips(head.status == 101));
    out.extend_from_slice(plan.line);
    out.extend_from_slice(connection_line(connection));
    out.extend_from_slice(b"\r\n");
    plan.body
}

/// Whether the client can tell the end of the body by the end of the connection alone.
pub(super) fn needs_close(head: &ResponseHead, asked: Asked, plan: &Plan) -> bool {
    matches!(plan.body, BodyEncoder::Raw) && head.status != 101 && asked.method != Method::Connect
}

/// How a response is framed.
pub(super) fn plan_response(head: &ResponseHead, asked: Asked, end_stream: bool) -> Plan {
    let is_tunnel =
        head.status == 101 || asked.method == Method::Connect && matches!(head.status, 200..=299);
    if is_tunnel {
        return Plan::new(BodyEncoder::Raw, b"", true);
    }
    if matches!(head.status, 100..=199 | 204) {
        return Plan::new(BodyEncoder::None, b"", true);
    }
    let length = declared_length(&head.fields);
    if asked.method == Method::Head || head.status == 304 {
        // The length that a body would have had may be said, for what it is worth.
        return Plan::new(BodyEncoder::None, b"", length.is_none());
    }
    match (length, end_stream) {
        (Some(length), _) => Plan::new(BodyEncoder::Length(length), b"", false),
        (None, true) => Plan::new(BodyEncoder::None, NO_LENGTH_LINE, true),
        (None, false) if asked.version == Version::Http10 => Plan::new(BodyEncoder::Raw, b"", true),
        (None, false) => Plan::new(BodyEncoder::Chunked, CHUNKED_LINE, true),
    }
}

/// Writes a 1xx head.
pub(super) fn informational(head: &ResponseHead, out: &mut Vec<u8>) {
    status_line(head.status, Version::Http11, out);
    head.fields.write_lines(out, OURS.and(LENGTH));
    out.extend_from_slice(b"\r\n");
}

/// Writes the last chunk with trailers after it.
pub(super) fn trailers(fields: &Fields, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    fields.write_lines(out, OURS.and(LENGTH));
    out.extend_from_slice(b"\r\n");
}

fn declared_length(fields: &Fields) -> Option<u64> {
    framing::parse_length(fields.get(names::CONTENT_LENGTH)?).ok()
}

fn connection_line(connection: ConnectionField) -> &'static [u8] {
    match connection {
        ConnectionField::Silent => b"",
        ConnectionField::Close => b"connection: close\r\n",
        ConnectionField::KeepAlive => b"connection: keep-alive\r\n",
        ConnectionField::Upgrade => b"connection: upgrade\r\n",
    }
}

fn status_line(status: u16, version: Version, out: &mut Vec<u8>) {
    // Whoever is told to come again with another version is told so in it.
    let version = if status == 426 { Version::Http11 } else { version };
    if status == 200 && version != Version::Http10 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(if version == Version::Http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason_phrase(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The registered phrase of a status, as Envoy writes it.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Payload Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "Unknown",
    }
}
