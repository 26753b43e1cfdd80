//! Bodies in both directions: what is left of one that arrives, and the bytes around one that leaves.

use std::ops::Range;

use super::chunked::{Chunked, ChunkedDecoder};
use super::framing::Framing;
use super::head::{self, Progress, Seen};
use super::{Options, Refusal, encode};
use crate::event::{Event, StreamId};
use crate::headers::Fields;

/// A body that arrives.
#[derive(Clone, Copy, Debug)]
pub(super) enum BodyDecoder {
    Length(u64),
    Chunked(ChunkedDecoder, Seen),
    UntilClose,
}

/// What the front of the input is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BodyPart {
    NeedInput,
    Data {
        range: Range<usize>,
        is_last: bool,
    },
    /// The trailers are in the fields that were passed in.
    Trailers,
    End,
}

impl BodyPart {
    /// What it says of a stream, and whether the message is whole with it.
    pub fn into_event(self, stream: StreamId) -> (Event, bool) {
        match self {
            BodyPart::NeedInput => (Event::NeedInput, false),
            BodyPart::Data { range, is_last } => {
                (Event::Data { stream, range, end_stream: is_last }, is_last)
            }
            BodyPart::Trailers => (Event::Trailers { stream }, true),
            BodyPart::End => (Event::End { stream }, true),
        }
    }
}

impl BodyDecoder {
    /// `None` where there is no body.
    pub fn new(framing: Framing) -> Option<BodyDecoder> {
        match framing {
            Framing::None => None,
            Framing::Length(length) => Some(BodyDecoder::Length(length)),
            Framing::Chunked => Some(BodyDecoder::Chunked(ChunkedDecoder::new(), Seen::default())),
            Framing::UntilClose => Some(BodyDecoder::UntilClose),
        }
    }

    /// Bytes consumed, and what they are.
    pub fn decode(
        &mut self,
        input: &[u8],
        options: &Options,
        trailers: &mut Fields,
    ) -> Result<(usize, BodyPart), Refusal> {
        if input.is_empty() {
            return Ok((0, BodyPart::NeedInput));
        }
        match self {
            BodyDecoder::UntilClose => {
                Ok((input.len(), BodyPart::Data { range: 0..input.len(), is_last: false }))
            }
            BodyDecoder::Length(left) => {
                let len = input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= len as u64;
                Ok((len, BodyPart::Data { range: 0..len, is_last: *left == 0 }))
            }
            BodyDecoder::Chunked(decoder, seen) => {
                let (consumed, part) = decoder.decode(input)?;
                match part {
                    Chunked::NeedInput => Ok((consumed, BodyPart::NeedInput)),
                    Chunked::Data(range) => {
                        Ok((consumed, BodyPart::Data { range, is_last: false }))
                    }
                    Chunked::Trailers => {
                        let (len, part) =
                            decode_trailers(&input[consumed..], options, seen, trailers)?;
                        Ok((consumed + len, part))
                    }
                }
            }
        }
    }
}

fn decode_trailers(
    input: &[u8],
    options: &Options,
    seen: &mut Seen,
    trailers: &mut Fields,
) -> Result<(usize, BodyPart), Refusal> {
    if input.starts_with(b"\r\n") {
        return Ok((2, BodyPart::End));
    }
    match head::parse_trailers(input, options, seen, trailers)? {
        Progress::Partial => Ok((0, BodyPart::NeedInput)),
        Progress::Complete(len) if options.enable_trailers => Ok((len, BodyPart::Trailers)),
        Progress::Complete(len) => Ok((len, BodyPart::End)),
    }
}

/// A body that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEncoder {
    /// Nothing may follow the head; data are dropped.
    None,
    Length(u64),
    Chunked,
    /// As it is, until the connection closes.
    Raw,
}

/// What remains to be written of a piece of body after the bytes that `begin_data` has written before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataTail {
    /// How many of the body bytes may be written: fewer than asked for if they would overrun the message.
    pub len: usize,
    /// What to write after them.
    pub suffix: &'static [u8],
}

impl DataTail {
    /// Writes the rest where the body bytes are at hand.
    pub fn write(self, data: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&data[..self.len]);
        out.extend_from_slice(self.suffix);
    }
}

impl BodyEncoder {
    /// Accounts for `len` bytes of body and writes what precedes them.
    pub fn begin(&mut self, len: usize, is_last: bool, out: &mut Vec<u8>) -> DataTail {
        match self {
            BodyEncoder::None => DataTail { len: 0, suffix: b"" },
            BodyEncoder::Raw => DataTail { len, suffix: b"" },
            BodyEncoder::Length(left) => {
                let fits = len.min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= fits as u64;
                DataTail { len: fits, suffix: b"" }
            }
            BodyEncoder::Chunked => begin_chunk(len, is_last, out),
        }
    }

    /// Writes the end of a message, with trailers where it can carry them and they are enabled.
    pub fn end(&self, trailers: &Fields, options: &Options, out: &mut Vec<u8>) {
        match self {
            BodyEncoder::Chunked if options.enable_trailers => encode::trailers(trailers, out),
            BodyEncoder::Chunked => out.extend_from_slice(b"0\r\n\r\n"),
            BodyEncoder::None | BodyEncoder::Length(_) | BodyEncoder::Raw => {}
        }
    }

    /// Whether a message that ends now is whole to its receiver.
    pub fn may_end(&self) -> bool {
        !matches!(self, BodyEncoder::Length(1..))
    }
}

fn begin_chunk(len: usize, is_last: bool, out: &mut Vec<u8>) -> DataTail {
    if len > 0 {
        let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
        out.extend((0..digits).rev().map(|digit| b"0123456789abcdef"[len >> (digit * 4) & 15]));
        out.extend_from_slice(b"\r\n");
    }
    let suffix: &[u8] = match (len, is_last) {
        (0, false) => b"",
        (0, true) => b"0\r\n\r\n",
        (_, false) => b"\r\n",
        (_, true) => b"\r\n0\r\n\r\n",
    };
    DataTail { len, suffix }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_framed_in_hex() {
        let table: &[(usize, bool, &[u8], &[u8])] = &[
            (1, false, b"1\r\n", b"\r\n"),
            (16, false, b"10\r\n", b"\r\n"),
            (0xabcdef, true, b"abcdef\r\n", b"\r\n0\r\n\r\n"),
            (usize::MAX, false, b"ffffffffffffffff\r\n", b"\r\n"),
            (0, true, b"", b"0\r\n\r\n"),
            (0, false, b"", b""),
        ];
        for (len, is_last, prefix, suffix) in table {
            let mut out = Vec::new();
            let tail = BodyEncoder::Chunked.begin(*len, *is_last, &mut out);
            assert_eq!((&out[..], tail), (*prefix, DataTail { len: *len, suffix }));
        }
    }

    #[test]
    fn a_length_is_never_overrun() {
        let (mut encoder, mut out) = (BodyEncoder::Length(5), Vec::new());
        assert_eq!(encoder.begin(3, false, &mut out).len, 3);
        assert!(!encoder.may_end());
        assert_eq!(encoder.begin(3, true, &mut out).len, 2);
        assert!(encoder.may_end());
    }
}
