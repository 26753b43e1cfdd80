//! Where operators write to: raw text, log text or JSON, with truncation.

use std::fmt::{self, Display, Write};
use std::net::SocketAddr;

use smallvec::SmallVec;

/// How values are put down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// As they are: header values and bodies.
    Raw,
    /// As part of a line of text: what could forge a line or a quoted field is written as `\xNN`.
    Line,
    /// As part of a JSON string that is already open.
    JsonString,
    /// As a JSON value of its own.
    JsonValue,
}

/// The place an operator writes its one value to.
pub(super) struct Output<'a> {
    pub bytes: &'a mut Vec<u8>,
    pub mode: Mode,
    /// At most so many bytes of the value.
    pub limit: Option<usize>,
}

impl Output<'_> {
    /// An unsigned number.
    pub fn number(&mut self, value: u64) {
        self.bytes.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A string.
    pub fn text(&mut self, value: &[u8]) {
        self.write(|piece| piece.push(value));
    }

    /// Something that prints itself.
    pub fn display(&mut self, value: impl Display) {
        self.write(|piece| {
            let _ = write!(piece, "{value}");
        });
    }

    /// An address with its port, as the standard library prints it.
    pub fn socket(&mut self, address: SocketAddr) {
        let SocketAddr::V4(v4) = address else { return self.display(address) };
        let mut text = SmallVec::<[u8; 24]>::new();
        let mut digits = itoa::Buffer::new();
        for (octet, after) in v4.ip().octets().into_iter().zip(b"...:") {
            text.extend_from_slice(digits.format(octet).as_bytes());
            text.push(*after);
        }
        text.extend_from_slice(digits.format(v4.port()).as_bytes());
        self.text(&text);
    }

    /// A string made of pieces.
    pub fn write(&mut self, then: impl FnOnce(&mut Piece<'_>)) {
        let quoted = self.mode == Mode::JsonValue;
        if quoted {
            self.bytes.push(b'"');
        }
        let left = self.limit.unwrap_or(usize::MAX);
        then(&mut Piece { bytes: self.bytes, mode: self.mode, left });
        if quoted {
            self.bytes.push(b'"');
        }
    }

    /// Any JSON value: itself in JSON, its text elsewhere.
    pub fn json(&mut self, value: &serde_json::Value) {
        match (value, self.mode) {
            (serde_json::Value::String(text), _) => self.text(text.as_bytes()),
            (_, Mode::JsonValue) => self.bytes.extend_from_slice(value.to_string().as_bytes()),
            _ => self.display(value),
        }
    }
}

/// A string being written.
pub(super) struct Piece<'a> {
    bytes: &'a mut Vec<u8>,
    mode: Mode,
    left: usize,
}

impl Piece<'_> {
    /// Appends, escaped as the mode asks, as far as the limit allows (a character is never cut).
    pub fn push(&mut self, value: &[u8]) {
        let value = self.cut(value);
        match self.mode {
            Mode::Raw => self.bytes.extend_from_slice(value),
            Mode::Line => escape(value, self.bytes, line_escape),
            Mode::JsonString | Mode::JsonValue => escape(value, self.bytes, json_escape),
        }
    }

    fn cut<'v>(&mut self, value: &'v [u8]) -> &'v [u8] {
        let mut end = value.len().min(self.left);
        while end < value.len() && end > 0 && value[end] & 0xC0 == 0x80 {
            end -= 1;
        }
        self.left = if end < value.len() { 0 } else { self.left - end };
        &value[..end]
    }
}

impl Write for Piece<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// Copies runs that need no escape whole. Bytes that are no UTF-8 always need one.
fn escape(value: &[u8], out: &mut Vec<u8>, special: fn(u8, &mut Vec<u8>)) {
    if is_plain(value) {
        return out.extend_from_slice(value);
    }
    for chunk in value.utf8_chunks() {
        let text = chunk.valid().as_bytes();
        let mut from = 0;
        for (i, byte) in text.iter().copied().enumerate() {
            if byte < 0x20 || matches!(byte, b'"' | b'\\' | 0x7F) {
                out.extend_from_slice(&text[from..i]);
                special(byte, out);
                from = i + 1;
            }
        }
        out.extend_from_slice(&text[from..]);
        for byte in chunk.invalid().iter().copied() {
            special(byte, out);
        }
    }
}

/// Whether a value is ASCII that needs no escape, as nearly all are. Eight bytes at a time, without branches.
fn is_plain(value: &[u8]) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;

    let (eights, rest) = value.as_chunks::<8>();
    let special = eights.iter().fold(0, |special, eight| {
        let word = u64::from_le_bytes(*eight);
        let below = |text: u64, least: u8| text.wrapping_sub(EACH * u64::from(least)) & !text;
        let is = |byte: u8| below(word ^ (EACH * u64::from(byte)), 1);
        special | word | below(word, 0x20) | is(0x7F) | is(b'"') | is(b'\\')
    });
    let plain = |byte: &u8| (0x20..0x7F).contains(byte) & (*byte != b'"') & (*byte != b'\\');
    special & EACH << 7 == 0 && rest.iter().fold(true, |all, byte| all & plain(byte))
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// A line's own escape is `\xNN`, as in nginx; so a backslash needs it too.
fn line_escape(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'\\', b'x', HEX[(byte >> 4) as usize], HEX[(byte & 15) as usize]]);
}

fn json_escape(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        // JSON has no bytes: what is no UTF-8 becomes the character of that number, as in Envoy.
        _ => out.extend_from_slice(&[
            b'\\',
            b'u',
            b'0',
            b'0',
            HEX[(byte >> 4) as usize].to_ascii_lowercase(),
            HEX[(byte & 15) as usize].to_ascii_lowercase(),
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_an_escape_is_seen_at_every_place() {
        for len in 0..20 {
            for (place, byte) in (0..len).flat_map(|place| (0..=255).map(move |byte| (place, byte)))
            {
                let mut value = vec![b'~'; len];
                value[place] = byte;
                let plain = (0x20..0x7F).contains(&byte) && byte != b'"' && byte != b'\\';
                assert_eq!(is_plain(&value), plain, "{byte} at {place} of {len}");
            }
        }
        assert!(is_plain(b""));
    }
}
