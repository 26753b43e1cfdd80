//! Request and response heads: fields and what stands beside them.
//!
//! `host` is no field of a request head but its authority, as in HTTP/2 and in Envoy: look-ups of `host` and of `:authority`
//! answer the same, and there is never more than one.

use super::fields::{Fields, NameRef, Span};
use super::names::{self, NameSet};
use super::scan;

/// The protocol version that a head came with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
    /// HTTP/2
    Http2,
}

impl Version {
    /// As `%PROTOCOL%` prints it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2",
        }
    }
}

/// The methods that something here decides by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    /// Any other; the bytes are in the head.
    Other,
}

impl Method {
    /// Methods are case-sensitive (RFC 9110 §9.1).
    pub fn from_bytes(bytes: &[u8]) -> Method {
        match bytes {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"CONNECT" => Method::Connect,
            b"OPTIONS" => Method::Options,
            b"TRACE" => Method::Trace,
            b"PATCH" => Method::Patch,
            _ => Method::Other,
        }
    }
}

/// The head of a request. `clear` and reuse it: its memory is kept.
#[derive(Clone, Default)]
pub struct RequestHead {
    /// The fields but `host`. Trailers too are decoded into the fields of a head.
    pub fields: Fields,
    /// The version that the request came with.
    pub version: Version,
    /// The request asks to go on in another protocol, which the field `upgrade` names: a body-less HTTP/1.1 request with
    /// `connection: upgrade`. Encoders write that only if this is set.
    pub is_upgrade: bool,
    method: Span,
    method_kind: Method,
    scheme: Span,
    authority: Span,
    path: Span,
    protocol: Span,
}

/// Where the pseudo fields of a request are in its buffer; empty where there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PseudoFields {
    pub method: Span,
    pub scheme: Span,
    pub authority: Span,
    pub path: Span,
    pub protocol: Span,
}

/// The characters that Envoy lets through in `:authority` and Host.
pub(crate) fn is_authority(authority: &[u8]) -> bool {
    static AUTHORITY: [bool; 256] = scan::table(b"-.:_~%!$&'()*+,;=@[]");
    authority.iter().all(|byte| AUTHORITY[usize::from(*byte)])
}

impl RequestHead {
    /// An empty head.
    pub fn new() -> RequestHead {
        RequestHead::default()
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.forget_pseudo_fields();
    }

    pub(crate) fn forget_pseudo_fields(&mut self) {
        self.version = Version::Http11;
        self.is_upgrade = false;
        self.method_kind = Method::Get;
        (self.method, self.scheme, self.authority, self.path) = Default::default();
        self.protocol = Span::default();
    }

    /// `:method`, as bytes.
    pub fn method(&self) -> &[u8] {
        self.fields.bytes(self.method)
    }

    /// `:method`, to decide by.
    pub fn method_kind(&self) -> Method {
        self.method_kind
    }

    /// `:scheme`: `http`, `https`, or empty where the connection will decide.
    pub fn scheme(&self) -> &[u8] {
        self.fields.bytes(self.scheme)
    }

    /// `:authority`, the `host` field of HTTP/1. Empty if there is none.
    #[inline]
    pub fn authority(&self) -> &[u8] {
        self.fields.bytes(self.authority)
    }

    /// `:path` with its query. Empty for CONNECT.
    #[inline]
    pub fn path(&self) -> &[u8] {
        self.fields.bytes(self.path)
    }

    /// `:protocol` of an extended CONNECT (RFC 8441). Empty if there is none.
    pub fn protocol(&self) -> &[u8] {
        self.fields.bytes(self.protocol)
    }

    /// Sets `:protocol`; an empty one is none.
    pub fn set_protocol(&mut self, protocol: &[u8]) {
        self.protocol = self.fields.store_value(protocol);
    }

    /// Sets `:method`.
    pub fn set_method(&mut self, method: &[u8]) {
        self.method_kind = Method::from_bytes(method);
        self.method = self.fields.store_value(method);
    }

    /// Sets `:scheme`.
    pub fn set_scheme(&mut self, scheme: &[u8]) {
        self.scheme = self.fields.store_value(scheme);
    }

    /// Sets `:authority`.
    pub fn set_authority(&mut self, authority: &[u8]) {
        self.authority = self.fields.store_value(authority);
        self.fields.drop_hidden_host();
    }

    /// Sets `:path`.
    pub fn set_path(&mut self, path: &[u8]) {
        self.path = self.fields.store_value(path);
    }

    /// The first value of a field or a pseudo field; `host` is `:authority`.
    #[inline]
    pub fn get<'n>(&self, name: impl Into<NameRef<'n>>) -> Option<&[u8]> {
        match name.into() {
            NameRef::Known(names::HOST) => present(self.authority()),
            NameRef::Other(pseudo @ [b':', ..]) => self.pseudo(pseudo),
            field => self.fields.get(field),
        }
    }

    /// Every value of a field or a pseudo field.
    pub fn get_all<'a, 'n: 'a>(
        &'a self,
        name: impl Into<NameRef<'n>>,
    ) -> impl Iterator<Item = &'a [u8]> + 'a {
        let name = name.into();
        let pseudo = match name {
            NameRef::Known(names::HOST) | NameRef::Other([b':', ..]) => self.get(name),
            _ => None,
        };
        pseudo.into_iter().chain(self.fields.get_all(name))
    }

    /// The pseudo fields that are there, by name, then the fields.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        const PSEUDO: [&[u8]; 5] = [b":method", b":scheme", b":authority", b":path", b":protocol"];
        let pseudo = PSEUDO.into_iter().filter_map(|name| Some((name, self.pseudo(name)?)));
        pseudo.chain(self.fields.iter())
    }

    /// Bytes of names and values, pseudo fields included.
    pub fn byte_size(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    fn pseudo(&self, name: &[u8]) -> Option<&[u8]> {
        present(match name {
            b":method" => self.method(),
            b":scheme" => self.scheme(),
            b":authority" => self.authority(),
            b":path" => self.path(),
            b":protocol" => self.protocol(),
            _ => return None,
        })
    }
}

/// What decoders and encoders need.
impl RequestHead {
    pub(crate) fn set_pseudo_fields(&mut self, places: PseudoFields, version: Version) {
        self.set_line(places.method, places.path, version);
        (self.scheme, self.authority) = (places.scheme, places.authority);
        self.protocol = places.protocol;
    }

    pub(crate) fn set_line(&mut self, method: Span, path: Span, version: Version) {
        self.method_kind = Method::from_bytes(self.fields.bytes(method));
        self.method = method;
        self.path = path;
        self.version = version;
    }

    pub(crate) fn set_target(&mut self, scheme: Span, authority: Span, path: Span) {
        self.scheme = scheme;
        self.authority = authority;
        self.path = path;
        self.fields.drop_hidden_host();
    }

    pub(crate) fn set_authority_span(&mut self, authority: Span) {
        self.authority = authority;
    }

    /// Writes the field lines for an HTTP/1 wire, `host` first unless its own line is still in its place.
    pub(crate) fn write_lines(&self, out: &mut Vec<u8>, skip: NameSet) {
        if !self.fields.has_hidden_host() {
            out.extend_from_slice(b"host: ");
            out.extend_from_slice(self.authority());
            out.extend_from_slice(b"\r\n");
        }
        self.fields.write_lines(out, skip);
    }
}

fn present(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty()).then_some(value)
}

impl std::fmt::Debug for RequestHead {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let line = [self.method(), self.scheme(), self.authority(), self.path()]
            .map(String::from_utf8_lossy);
        formatter
            .debug_tuple("RequestHead")
            .field(&line)
            .field(&self.version)
            .field(&self.fields)
            .finish()
    }
}

/// The head of a response. `clear` and reuse it: its memory is kept.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// The fields. Trailers too are decoded into the fields of a head.
    pub fields: Fields,
    /// The version that the response came with.
    pub version: Version,
    /// 100 to 999.
    pub status: u16,
}

impl ResponseHead {
    /// An empty head with a status.
    pub fn new(status: u16) -> ResponseHead {
        ResponseHead { fields: Fields::new(), version: Version::Http11, status }
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.fields.clear();
        self.version = Version::Http11;
        self.status = 0;
    }

    /// The first value of a field. `:status` has no bytes: read `status`.
    #[inline]
    pub fn get<'n>(&self, name: impl Into<NameRef<'n>>) -> Option<&[u8]> {
        self.fields.get(name)
    }

    /// Bytes of names and values, `:status` included.
    pub fn byte_size(&self) -> usize {
        ":status200".len() + self.fields.byte_size()
    }
}
