//! How long a body is: the decision where smuggling is won or lost (RFC 9112 §6).

use super::Refusal;
use crate::headers::{Fields, Method, Version, names};

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// After so many bytes; never 0.
    Length(u64),
    /// By the chunked coding.
    Chunked,
    /// By the end of the connection; responses only.
    UntilClose,
}

impl Framing {
    /// The body of a request.
    pub fn of_request(
        fields: &Fields,
        version: Version,
        method: Method,
    ) -> Result<Framing, Refusal> {
        let declared = Declared::read(fields, version)?;
        if method == Method::Connect {
            return match declared {
                Declared::Chunked => Err(Refusal::bad_request(
                    "http1.transfer_encoding_not_allowed",
                    "CONNECT with Transfer-Encoding",
                )),
                Declared::Length(1..) => Err(Refusal::bad_request(
                    "http1.content_length_not_allowed",
                    "CONNECT with Content-Length",
                )),
                Declared::Length(0) | Declared::Nothing => Ok(Framing::None),
            };
        }
        Ok(match declared {
            Declared::Chunked => Framing::Chunked,
            Declared::Length(0) | Declared::Nothing => Framing::None,
            Declared::Length(length) => Framing::Length(length),
        })
    }

    /// The body of a final response other than 101, and other than 2xx to CONNECT.
    pub fn of_response(
        fields: &Fields,
        version: Version,
        status: u16,
        request: Method,
    ) -> Result<Framing, Refusal> {
        let declared = Declared::read(fields, version)?;
        if status == 204 && !matches!(declared, Declared::Nothing | Declared::Length(0)) {
            return Err(Refusal::codec_error("204 with a body"));
        }
        if request == Method::Head || matches!(status, 100..=199 | 204 | 304) {
            return Ok(Framing::None);
        }
        Ok(match declared {
            Declared::Chunked => Framing::Chunked,
            Declared::Length(0) => Framing::None,
            Declared::Length(length) => Framing::Length(length),
            Declared::Nothing => Framing::UntilClose,
        })
    }
}

#[derive(Clone, Copy)]
enum Declared {
    Nothing,
    Length(u64),
    Chunked,
}

impl Declared {
    #[inline]
    fn read(fields: &Fields, version: Version) -> Result<Declared, Refusal> {
        let has_coding = fields.contains(names::TRANSFER_ENCODING);
        match (has_coding, fields.get(names::CONTENT_LENGTH)) {
            (false, None) => Ok(Declared::Nothing),
            (false, Some(length)) => {
                if fields.get_all(names::CONTENT_LENGTH).nth(1).is_some() {
                    return Err(Refusal::codec_error("more than one Content-Length"));
                }
                Ok(Declared::Length(parse_length(length)?))
            }
            (true, Some(_)) => Err(Refusal::bad_request(
                "http1.content_length_and_chunked_not_allowed",
                "both Content-Length and Transfer-Encoding",
            )),
            (true, None) => Declared::read_coding(fields, version),
        }
    }

    fn read_coding(fields: &Fields, version: Version) -> Result<Declared, Refusal> {
        if version == Version::Http10 {
            return Err(Refusal::bad_request(
                "http1.transfer_encoding_not_allowed",
                "Transfer-Encoding in an HTTP/1.0 message",
            ));
        }
        let mut codings = fields.get_all(names::TRANSFER_ENCODING);
        let is_chunked =
            codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
        if !is_chunked || codings.next().is_some() {
            return Err(Refusal {
                status: 501,
                details: "http1.invalid_transfer_encoding",
                reason: "Transfer-Encoding is not exactly `chunked`",
            });
        }
        Ok(Declared::Chunked)
    }
}

/// Digits only: no sign, no list, no space, and no more than 64 bits.
pub(crate) fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    const ODD: Refusal = Refusal::codec_error("Content-Length is not a decimal number");

    if value.is_empty() {
        return Err(ODD);
    }
    let mut length = 0u64;
    for byte in value {
        if !byte.is_ascii_digit() {
            return Err(ODD);
        }
        length = length
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(byte - b'0')))
            .ok_or(Refusal::codec_error("Content-Length overflows"))?;
    }
    Ok(length)
}

/// Whether a list-valued field such as `connection` has this token, in any case.
pub(super) fn has_token(fields: &Fields, name: crate::headers::KnownName, token: &[u8]) -> bool {
    let has = |value: &[u8]| {
        // Nearly always there is one token, and nothing around it.
        value.eq_ignore_ascii_case(token)
            || value
                .split(|byte| *byte == b',')
                .any(|element| element.trim_ascii().eq_ignore_ascii_case(token))
    };
    fields.get_all(name).any(has)
}
