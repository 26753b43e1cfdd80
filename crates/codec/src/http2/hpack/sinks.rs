//! Where decoded fields go, and what RFC 9113 §8.2 and §8.3 have against them.

use super::table::Name;
use super::{BlockError, Pseudo};
use crate::headers::{
    Fields, Method, PseudoFields, RequestHead, ResponseHead, Span, Version, names,
};
use crate::headers::{is_authority, is_token_byte};

/// A field at the end of the buffer of a head: `name: value\r\n`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub name: Span,
    pub value: Span,
    pub meaning: Name,
    /// The value has no byte that a value must not have.
    pub is_good: bool,
    /// RFC 7541 §6.2.3: whoever passes it on must not index it either.
    pub never_indexed: bool,
}

type Fault = &'static str;

/// The receiver of a block.
pub(super) trait Sink {
    /// What the fields are stored in.
    fn fields(&mut self) -> &mut Fields;

    /// A pseudo field that comes before all other fields.
    fn pseudo(&mut self, pseudo: Pseudo, value: Span) -> Result<(), Fault>;

    /// The end of the block.
    fn finish(self) -> Result<(), Fault>;

    /// Takes the field at the end of the buffer.
    #[inline]
    fn take(&mut self, field: Field) -> Result<(), BlockError> {
        self.judge(field).map_err(BlockError::Malformed)
    }

    #[inline]
    fn judge(&mut self, field: Field) -> Result<(), Fault> {
        if !field.is_good {
            return Err("bad byte in a field value");
        }
        let known = match field.meaning {
            Name::Field(known) => known,
            Name::Pseudo(_) if self.fields().has_lines() => {
                return Err("pseudo field after a field");
            }
            Name::Pseudo(pseudo) => return self.pseudo(pseudo, field.value),
            Name::UnknownPseudo => return Err("unknown pseudo field"),
            Name::Bad => return Err("bad field name"),
        };
        match known {
            names::CONNECTION
            | names::KEEP_ALIVE
            | names::PROXY_CONNECTION
            | names::TRANSFER_ENCODING
            | names::UPGRADE => return Err("field of an HTTP/1 connection"),
            names::TE if self.fields().bytes(field.value) != b"trailers" => {
                return Err("te other than trailers");
            }
            _ => {}
        }
        let value = trimmed(self.fields(), field.value);
        let is_canonical = value == field.value;
        self.fields().index_written(field.name, value, known, is_canonical, field.never_indexed);
        Ok(())
    }
}

/// RFC 9113 §8.2.1 wants no whitespace around a value, some senders do not know; it means nothing.
#[inline]
fn trimmed(fields: &Fields, value: Span) -> Span {
    let bytes = fields.bytes(value);
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if !is_space(bytes.first()) && !is_space(bytes.last()) {
        return value;
    }
    let start = bytes.len() - bytes.trim_ascii_start().len();
    Span::new(value.start as usize + start, bytes.trim_ascii().len())
}

/// Fills the head of a request.
pub(super) struct RequestSink<'a> {
    head: &'a mut RequestHead,
    method: Option<Span>,
    scheme: Option<Span>,
    authority: Option<Span>,
    path: Option<Span>,
    protocol: Option<Span>,
}

impl<'a> RequestSink<'a> {
    pub fn new(head: &'a mut RequestHead) -> Self {
        let (method, scheme, authority, path, protocol) = (None, None, None, None, None);
        RequestSink { head, method, scheme, authority, path, protocol }
    }
}

impl Sink for RequestSink<'_> {
    fn fields(&mut self) -> &mut Fields {
        &mut self.head.fields
    }

    #[inline]
    fn pseudo(&mut self, pseudo: Pseudo, value: Span) -> Result<(), Fault> {
        let place = match pseudo {
            Pseudo::Method => &mut self.method,
            Pseudo::Scheme => &mut self.scheme,
            Pseudo::Authority => &mut self.authority,
            Pseudo::Path => &mut self.path,
            Pseudo::Protocol => &mut self.protocol,
            Pseudo::Status => return Err(":status in a request"),
        };
        match place.replace(value) {
            Some(_) => Err("pseudo field occurs twice"),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<(), Fault> {
        let method = self.method.ok_or("no :method")?;
        let bytes = self.head.fields.bytes(method);
        if bytes.is_empty() || !bytes.iter().copied().all(is_token_byte) {
            return Err("bad :method");
        }
        let method_kind = Method::from_bytes(bytes);
        if method_kind == Method::Other && is_known_in_another_case(bytes) {
            return Err(":method in another case");
        }
        if method_kind == Method::Connect && self.protocol.is_none() {
            if self.scheme.is_some() || self.path.is_some() {
                return Err("CONNECT with :scheme or :path");
            }
        } else {
            self.check_target(method_kind)?;
        }
        let pseudo = PseudoFields {
            method,
            scheme: self.scheme.unwrap_or_default(),
            authority: self.authority.unwrap_or_default(),
            path: self.path.unwrap_or_default(),
            protocol: self.protocol.unwrap_or_default(),
        };
        let head = self.head;
        let scheme = pseudo.scheme.start as usize..pseudo.scheme.end();
        head.fields.buffer_mut()[scheme].make_ascii_lowercase();
        head.fields.join(names::COOKIE, b"; ");
        head.set_pseudo_fields(pseudo, Version::Http2);
        place_authority(head)?;
        if method_kind == Method::Connect && head.authority().is_empty() {
            return Err("CONNECT without :authority");
        }
        Ok(())
    }
}

impl RequestSink<'_> {
    fn check_target(&self, method: Method) -> Result<(), Fault> {
        let fields = &self.head.fields;
        let scheme = fields.bytes(self.scheme.ok_or("no :scheme")?);
        let is_scheme_byte =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if !scheme.first().is_some_and(u8::is_ascii_alphabetic)
            || !scheme.iter().all(is_scheme_byte)
        {
            return Err("bad :scheme");
        }
        let path = fields.bytes(self.path.ok_or("no :path")?);
        let begins_well = path.starts_with(b"/") || path == b"*" && method == Method::Options;
        if !begins_well || !path.iter().all(u8::is_ascii_graphic) {
            return Err("bad :path");
        }
        match self.protocol {
            None => Ok(()),
            Some(_) if method != Method::Connect => Err(":protocol without CONNECT"),
            Some(protocol) => {
                let bytes = fields.bytes(protocol);
                let is_name = !bytes.is_empty()
                    && bytes.iter().all(|byte| is_token_byte(*byte) || *byte == b'/');
                if is_name { Ok(()) } else { Err("bad :protocol") }
            }
        }
    }
}

/// A rule about `DELETE` does not see `delete`, an upstream may (RFC 9110 §9.1: methods are case-sensitive).
fn is_known_in_another_case(method: &[u8]) -> bool {
    const LONGEST: usize = "OPTIONS".len();

    let mut upper = [0; LONGEST];
    let Some(upper) = upper.get_mut(..method.len()) else { return false };
    upper.copy_from_slice(method);
    upper.make_ascii_uppercase();
    Method::from_bytes(upper) != Method::Other
}

/// `host` stands for an `:authority` that is not there, and may not contradict one that is (RFC 9113 §8.3.1).
fn place_authority(head: &mut RequestHead) -> Result<(), Fault> {
    if head.authority().is_empty() {
        let Some(host) = head.fields.hide_host() else {
            return Ok(());
        };
        if head.fields.contains(names::HOST) {
            return Err("more than one host");
        }
        head.set_authority_span(host);
    } else if head.fields.contains(names::HOST) {
        let authority = head.authority();
        if head.fields.get_all(names::HOST).any(|host| !host.eq_ignore_ascii_case(authority)) {
            return Err("host contradicts :authority");
        }
        head.fields.remove(names::HOST);
    }
    // RFC 9113 §8.3.1 forbids the `user@` that a host of HTTP/1 may still have.
    let authority = head.authority();
    if is_authority(authority) && !authority.contains(&b'@') {
        Ok(())
    } else {
        Err("bad :authority")
    }
}

/// Fills the head of a response.
pub(super) struct ResponseSink<'a> {
    head: &'a mut ResponseHead,
}

impl<'a> ResponseSink<'a> {
    pub fn new(head: &'a mut ResponseHead) -> Self {
        head.version = Version::Http2;
        ResponseSink { head }
    }
}

impl Sink for ResponseSink<'_> {
    fn fields(&mut self) -> &mut Fields {
        &mut self.head.fields
    }

    #[inline]
    fn pseudo(&mut self, pseudo: Pseudo, value: Span) -> Result<(), Fault> {
        if pseudo != Pseudo::Status {
            return Err("pseudo field of a request in a response");
        }
        if self.head.status != 0 {
            return Err("pseudo field occurs twice");
        }
        self.head.status = match self.head.fields.bytes(value) {
            &[hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
                [hundreds, tens, ones]
                    .into_iter()
                    .fold(0, |status, digit| status * 10 + u16::from(digit - b'0'))
            }
            _ => return Err("bad :status"),
        };
        Ok(())
    }

    fn finish(self) -> Result<(), Fault> {
        if self.head.status == 0 { Err("no :status") } else { Ok(()) }
    }
}

/// Fills trailers.
pub(super) struct TrailersSink<'a> {
    pub fields: &'a mut Fields,
}

impl Sink for TrailersSink<'_> {
    fn fields(&mut self) -> &mut Fields {
        self.fields
    }

    fn pseudo(&mut self, _: Pseudo, _: Span) -> Result<(), Fault> {
        Err("pseudo field in trailers")
    }

    fn finish(self) -> Result<(), Fault> {
        let framing = [names::CONTENT_LENGTH, names::HOST, names::TRAILER];
        if framing.into_iter().any(|name| self.fields.contains(name)) {
            return Err("trailers that frame or route the message");
        }
        Ok(())
    }
}
