//! The chunked transfer coding, decoded byte by byte between chunks and by ranges within them (RFC 9112 §7.1).
//!
//! Sizes are hex digits alone: no sign, no space, no `0x`. Extensions are dropped; they end where CRLF is and nowhere else.

use std::ops::Range;

use super::Refusal;

/// The longest line before a chunk, extensions included.
const LONGEST_CHUNK_LINE: u16 = 256;

/// 16 hex digits are 64 bits; leading zeros count, so that a line is bounded.
const MOST_SIZE_DIGITS: u8 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkedDecoder {
    state: State,
    /// The size being read, then what is left of the chunk.
    left: u64,
    digits: u8,
    line: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailers,
}

/// What the front of the input is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    NeedInput,
    Data(Range<usize>),
    /// The last chunk is over: trailers, or the empty line, begin after what was consumed.
    Trailers,
}

impl ChunkedDecoder {
    pub fn new() -> ChunkedDecoder {
        ChunkedDecoder { state: State::Size, left: 0, digits: 0, line: 0 }
    }

    /// Bytes consumed, and what they are.
    pub fn decode(&mut self, input: &[u8]) -> Result<(usize, Chunked), Refusal> {
        let mut at = 0;
        loop {
            match self.state {
                State::Trailers => return Ok((at, Chunked::Trailers)),
                State::Data => {
                    let len =
                        (input.len() - at).min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    if len == 0 {
                        return Ok((at, Chunked::NeedInput));
                    }
                    self.left -= len as u64;
                    if self.left == 0 {
                        self.state = State::DataCr;
                    }
                    return Ok((at + len, Chunked::Data(at..at + len)));
                }
                _ => {}
            }
            let Some(&byte) = input.get(at) else {
                return Ok((at, Chunked::NeedInput));
            };
            at += 1;
            self.step(byte)?;
        }
    }

    fn step(&mut self, byte: u8) -> Result<(), Refusal> {
        self.state = match (self.state, byte) {
            (State::Size, _) if byte.is_ascii_hexdigit() => {
                if self.digits == MOST_SIZE_DIGITS {
                    return Err(Refusal::codec_error("chunk size overflows"));
                }
                self.digits += 1;
                self.left =
                    self.left << 4 | u64::from((byte as char).to_digit(16).unwrap_or_default());
                State::Size
            }
            (State::Size, b'\r') if self.digits > 0 => State::SizeLf,
            (State::Size, b';') if self.digits > 0 => State::Extension,
            (State::Size, _) => return Err(Refusal::codec_error("chunk size is not a hex number")),
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b' '..=b'~' | b'\t') => {
                self.line += 1;
                if self.line > LONGEST_CHUNK_LINE {
                    return Err(Refusal::codec_error("chunk extension is too long"));
                }
                State::Extension
            }
            (State::Extension, _) => {
                return Err(Refusal::codec_error("bad byte in a chunk extension"));
            }
            (State::SizeLf, b'\n') if self.left == 0 => State::Trailers,
            (State::SizeLf, b'\n') => State::Data,
            (State::SizeLf, _) => {
                return Err(Refusal::codec_error("chunk size line does not end in CRLF"));
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => {
                (self.digits, self.line) = (0, 0);
                State::Size
            }
            (State::DataCr | State::DataLf, _) => {
                return Err(Refusal::codec_error("chunk data does not end in CRLF"));
            }
            (State::Data | State::Trailers, _) => self.state,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_all(input: &[u8], piece: usize) -> Result<(Vec<u8>, bool), Refusal> {
        let mut decoder = ChunkedDecoder::new();
        let mut body = Vec::new();
        for part in input.chunks(piece.max(1)) {
            let mut at = 0;
            loop {
                match decoder.decode(&part[at..])? {
                    (consumed, Chunked::Data(range)) => {
                        body.extend_from_slice(&part[at..][range]);
                        at += consumed;
                    }
                    (_, Chunked::NeedInput) => break,
                    (_, Chunked::Trailers) => return Ok((body, true)),
                }
            }
        }
        Ok((body, false))
    }

    #[test]
    fn bodies_decode_alike_for_any_split() {
        let table: &[(&[u8], &[u8], bool)] = &[
            (b"5\r\nhello\r\n0\r\n", b"hello", true),
            (b"5\r\nhello\r\n6\r\n world\r\n000\r\n", b"hello world", true),
            (b"a;name=value; other=\"q\"\r\n0123456789\r\n0;x\r\n", b"0123456789", true),
            (b"A\r\n0123456789\r\n", b"0123456789", false),
            (b"0000000000000005\r\nhello\r\n", b"hello", false),
        ];
        for (input, body, complete) in table {
            for piece in 1..=input.len() {
                assert_eq!(
                    decode_all(input, piece),
                    Ok((body.to_vec(), *complete)),
                    "in pieces of {piece}"
                );
            }
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let table: &[&[u8]] = &[
            b"\r\n",
            b"+5\r\nhello\r\n",
            b"-1\r\n",
            b"0x5\r\nhello\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5 ;ext\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5;\nhello\r\n",
            b"5;a\rb\r\nhello\r\n",
            b"5;a\0\r\nhello\r\n",
            b"5\r\rhello\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n0\r\n",
            b"5\r\nhello\rX0\r\n",
            b"00000000000000005\r\nhello\r\n",
            b"10000000000000000\r\n",
            b";ext\r\n",
        ];
        for input in table {
            for piece in 1..=input.len() {
                assert!(
                    decode_all(input, piece).is_err(),
                    "{:?} in pieces of {piece}",
                    String::from_utf8_lossy(input)
                );
            }
        }
        let long = [b"5;".to_vec(), vec![b'x'; 300], b"\r\n".to_vec()].concat();
        assert!(decode_all(&long, long.len()).is_err());
    }
}
