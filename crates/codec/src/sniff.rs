//! Which protocol a connection starts with, from its first bytes.

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sniffed {
    /// Too few bytes to tell.
    NeedInput,
    /// `PRI * HTTP/2.0`, RFC 9113 §3.4.
    Http2,
    /// A request line of HTTP/1.0 or HTTP/1.1.
    Http1(crate::headers::Version),
    /// A TLS handshake record.
    Tls,
    /// Anything else.
    Unknown,
}

/// The client's connection preface of HTTP/2.
pub const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A request line longer than this is not waited for.
const LONGEST_REQUEST_LINE: usize = 8 * 1024;

/// Looks at the first bytes of a connection. The answer never changes with more bytes, but for `NeedInput`.
pub fn sniff(input: &[u8]) -> Sniffed {
    use crate::headers::Version;

    if input.is_empty() {
        return Sniffed::NeedInput;
    }
    if input.starts_with(HTTP2_PREFACE) {
        return Sniffed::Http2;
    }
    if HTTP2_PREFACE.starts_with(input) || input == [0x16] {
        return Sniffed::NeedInput;
    }
    if let [0x16, 0x03, ..] = input {
        return Sniffed::Tls;
    }
    let method = input.iter().position(|byte| !crate::headers::is_token_byte(*byte));
    match method.map(|end| (end, input[end])) {
        Some((1.., b' ')) => {}
        None if input.len() <= LONGEST_REQUEST_LINE => return Sniffed::NeedInput,
        _ => return Sniffed::Unknown,
    }
    match memchr::memchr(b'\n', input) {
        Some(end) => {
            let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
            match line {
                line if line.ends_with(b" HTTP/1.1") => Sniffed::Http1(Version::Http11),
                line if line.ends_with(b" HTTP/1.0") => Sniffed::Http1(Version::Http10),
                _ => Sniffed::Unknown,
            }
        }
        None if input.len() <= LONGEST_REQUEST_LINE => Sniffed::NeedInput,
        None => Sniffed::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Version;

    #[test]
    fn first_bytes_name_the_protocol() {
        let table: &[(&[u8], Sniffed)] = &[
            (b"", Sniffed::NeedInput),
            (HTTP2_PREFACE, Sniffed::Http2),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Sniffed::NeedInput),
            (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Sniffed::Unknown),
            (b"PRI * HTTP/1.1\r\n", Sniffed::Http1(Version::Http11)),
            (b"GET / HTTP/1.1\r\nhost: a\r\n", Sniffed::Http1(Version::Http11)),
            (b"GET / HTTP/1.0\r\n", Sniffed::Http1(Version::Http10)),
            (b"GET / HTTP/1.1", Sniffed::NeedInput),
            (b"GET / HTTP/3\r\n", Sniffed::Unknown),
            (b"GET", Sniffed::NeedInput),
            (b" GET / HTTP/1.1\r\n", Sniffed::Unknown),
            (b"\x16", Sniffed::NeedInput),
            (b"\x16\x03\x01", Sniffed::Tls),
            (b"\x16\x02\x01", Sniffed::Unknown),
            (b"\0\0\0", Sniffed::Unknown),
            (b"SSH-2.0-OpenSSH\r\n", Sniffed::Unknown),
        ];
        for (input, expected) in table {
            assert_eq!(sniff(input), *expected, "{:?}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn an_answer_is_final() {
        for whole in [
            &HTTP2_PREFACE[..],
            b"GET /path HTTP/1.1\r\nhost: a\r\n\r\n",
            b"\x16\x03\x01\x02\x03",
            b"SSH-2.0-x\r\nmore",
        ] {
            let last = sniff(whole);
            for end in 0..whole.len() {
                let early = sniff(&whole[..end]);
                assert!(
                    early == Sniffed::NeedInput || early == last,
                    "{end} bytes of {whole:?}: {early:?}, then {last:?}"
                );
            }
        }
    }
}
