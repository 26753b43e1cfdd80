//! What a TLS client asks for, read from its first records without answering them (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2).
//!
//! Bounded: a hello is at most 64 KiB, as in Envoy. A server name is a host name or the hello is refused: nothing else gets
//! into filter-chain matches and logs.

use std::borrow::Cow;

/// The longest hello, records included.
pub const LONGEST_HELLO: usize = 64 * 1024;

/// TLS 1.2 as a wire version.
pub const TLS12: u16 = 0x0303;
/// TLS 1.3 as a wire version.
pub const TLS13: u16 = 0x0304;

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// SNI, in lower case.
    pub server_name: Option<String>,
    /// ALPN protocols in the client's order.
    pub alpn: Vec<Vec<u8>>,
    /// The wire versions that the client speaks, in its order, GREASE left out.
    pub versions: Vec<u16>,
}

/// What is no client hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// The connection does not start as TLS does.
    #[error("not a TLS handshake")]
    NotTls,
    /// It does, and goes wrong.
    #[error("malformed TLS client hello: {0}")]
    Malformed(&'static str),
    /// Longer than [`LONGEST_HELLO`].
    #[error("TLS client hello is larger than 64 KiB")]
    TooLarge,
}

/// Waits for a hello to be whole. Feed it everything read so far, again and again.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientHelloParser {
    /// With fewer bytes than this the answer is the same as the last time.
    at_least: usize,
}

impl ClientHelloParser {
    /// For a new connection.
    pub fn new() -> ClientHelloParser {
        ClientHelloParser::default()
    }

    /// `None` until `input`, the connection from its first byte, holds the hello.
    pub fn parse(&mut self, input: &[u8]) -> Result<Option<ClientHello>, HelloError> {
        if input.len() < self.at_least {
            return Ok(None);
        }
        match handshake_message(input)? {
            Message::Whole(body) => parse_body(&body).map(Some),
            Message::Needs(at_least) => {
                self.at_least = at_least;
                Ok(None)
            }
        }
    }
}

enum Message<'a> {
    Whole(Cow<'a, [u8]>),
    /// So many bytes of the connection at least.
    Needs(usize),
}

const NOT_A_HELLO: &str = "the first handshake message is not a client hello";
const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const LONGEST_RECORD: usize = 1 << 14;
/// A hello in more pieces than this is made to cost time.
const MOST_RECORDS: usize = 256;

/// Joins the records that the first handshake message spans.
fn handshake_message(input: &[u8]) -> Result<Message<'_>, HelloError> {
    let mut message: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    let mut at = 0;
    for _ in 0..MOST_RECORDS {
        let header = &input[at.min(input.len())..];
        check_record_header(header, at == 0)?;
        let [_, _, _, high, low, ..] = *header else {
            return Ok(Message::Needs(input.len() + 1));
        };
        let len = usize::from(u16::from_be_bytes([high, low]));
        let end = at + 5 + len;
        if end > LONGEST_HELLO {
            return Err(HelloError::TooLarge);
        }
        let fragment = input.get(at + 5..end.min(input.len())).unwrap_or_default();
        if message.is_empty() {
            message = Cow::Borrowed(fragment);
        } else {
            message.to_mut().extend_from_slice(fragment);
        }
        // Until the message's own header is there, any byte may be the one that is wrong.
        let mut missing = 1;
        match *message {
            [CLIENT_HELLO, 0, high, low, ref body @ ..] => {
                let expected = usize::from(u16::from_be_bytes([high, low]));
                match body.len().checked_sub(expected) {
                    Some(spare) => return Ok(Message::Whole(without_header(message, spare))),
                    None => missing = expected - body.len(),
                }
            }
            [CLIENT_HELLO, 1..=255, ..] => return Err(HelloError::TooLarge),
            [CLIENT_HELLO, ..] | [] => {}
            [_, ..] => return Err(HelloError::Malformed(NOT_A_HELLO)),
        }
        if end > input.len() {
            return Ok(Message::Needs(end.min(input.len() + missing)));
        }
        at = end;
    }
    Err(HelloError::Malformed("too many records"))
}

fn without_header(message: Cow<'_, [u8]>, spare: usize) -> Cow<'_, [u8]> {
    match message {
        Cow::Borrowed(bytes) => Cow::Borrowed(&bytes[4..bytes.len() - spare]),
        Cow::Owned(mut bytes) => {
            bytes.truncate(bytes.len() - spare);
            bytes.drain(..4);
            Cow::Owned(bytes)
        }
    }
}

/// As far as the header has come.
fn check_record_header(header: &[u8], is_first: bool) -> Result<(), HelloError> {
    let wrong =
        if is_first { HelloError::NotTls } else { HelloError::Malformed("not a handshake record") };
    if header.first().is_some_and(|kind| *kind != HANDSHAKE_RECORD)
        || header.get(1).is_some_and(|major| *major != 3)
    {
        return Err(wrong);
    }
    match *header {
        [_, _, _, 0, 0, ..] => Err(HelloError::Malformed("empty handshake record")),
        [_, _, _, high, low, ..]
            if usize::from(u16::from_be_bytes([high, low])) > LONGEST_RECORD =>
        {
            Err(HelloError::Malformed("record is too long"))
        }
        _ => Ok(()),
    }
}

/// Takes lengths and bytes off the front.
struct Reader<'a>(&'a [u8]);

const CUT_SHORT: HelloError = HelloError::Malformed("a length reaches past the end");

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], HelloError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, HelloError> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, HelloError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// Bytes after a length of one byte.
    fn vec8(&mut self) -> Result<&'a [u8], HelloError> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    /// Bytes after a length of two bytes.
    fn vec16(&mut self) -> Result<&'a [u8], HelloError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn parse_body(body: &[u8]) -> Result<ClientHello, HelloError> {
    let mut reader = Reader(body);
    let legacy_version = reader.u16()?;
    reader.take(32)?;
    if reader.vec8()?.len() > 32 {
        return Err(HelloError::Malformed("session id is too long"));
    }
    let suites = reader.vec16()?;
    if suites.is_empty() || suites.len() % 2 != 0 {
        return Err(HelloError::Malformed("odd list of cipher suites"));
    }
    if reader.vec8()?.is_empty() {
        return Err(HelloError::Malformed("no compression method"));
    }
    let mut hello = ClientHello::default();
    if !reader.is_empty() {
        parse_extensions(reader.vec16()?, &mut hello)?;
    }
    if !reader.is_empty() {
        return Err(HelloError::Malformed("bytes after the extensions"));
    }
    if hello.versions.is_empty() {
        hello.versions.push(legacy_version);
    }
    Ok(hello)
}

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

fn parse_extensions(extensions: &[u8], hello: &mut ClientHello) -> Result<(), HelloError> {
    let mut reader = Reader(extensions);
    let mut seen = 0u64;
    while !reader.is_empty() {
        let kind = reader.u16()?;
        let data = reader.vec16()?;
        if kind < 64 {
            if seen & 1 << kind != 0 {
                return Err(HelloError::Malformed("an extension occurs twice"));
            }
            seen |= 1 << kind;
        }
        match kind {
            SERVER_NAME => hello.server_name = parse_server_name(data)?,
            ALPN => hello.alpn = parse_alpn(data)?,
            SUPPORTED_VERSIONS => hello.versions = parse_versions(data)?,
            _ => {}
        }
    }
    Ok(())
}

/// RFC 6066 §3: a list that may have one entry of each type, and there is one type.
fn parse_server_name(data: &[u8]) -> Result<Option<String>, HelloError> {
    const ODD: HelloError = HelloError::Malformed("server name is not one host name");

    let mut outer = Reader(data);
    let mut list = Reader(outer.vec16()?);
    let (kind, name) = (list.u8()?, list.vec16()?);
    if kind != 0 || !list.is_empty() || !outer.is_empty() {
        return Err(ODD);
    }
    let is_host_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:".contains(byte);
    if name.is_empty() || name.len() > 255 || !name.iter().all(is_host_byte) {
        return Err(ODD);
    }
    Ok(std::str::from_utf8(name).ok().map(str::to_ascii_lowercase))
}

/// RFC 7301 §3.1.
fn parse_alpn(data: &[u8]) -> Result<Vec<Vec<u8>>, HelloError> {
    let mut outer = Reader(data);
    let mut list = Reader(outer.vec16()?);
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let protocol = list.vec8()?;
        if protocol.is_empty() {
            return Err(HelloError::Malformed("empty ALPN protocol"));
        }
        protocols.push(protocol.to_vec());
    }
    if protocols.is_empty() || !outer.is_empty() {
        return Err(HelloError::Malformed("odd list of ALPN protocols"));
    }
    Ok(protocols)
}

/// RFC 8446 §4.2.1; GREASE (RFC 8701) is `0x?a?a` with equal bytes.
fn parse_versions(data: &[u8]) -> Result<Vec<u16>, HelloError> {
    let mut outer = Reader(data);
    let list = outer.vec8()?;
    if list.is_empty() || list.len() % 2 != 0 || !outer.is_empty() {
        return Err(HelloError::Malformed("odd list of versions"));
    }
    let versions = list.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    Ok(versions.filter(|version| version & 0x0f0f != 0x0a0a).collect())
}

#[cfg(test)]
mod tests;
