//! HEADERS and CONTINUATION: blocks of header fields, in place or gathered.

use super::control::depends_on_another;
use super::{Connection, Fault, Headers, Step, Unfinished};
use crate::event::{CodecError, Event, StreamId};
use crate::headers::{Fields, names};
use crate::http1::parse_length;
use crate::http2::frame::{END_HEADERS, END_STREAM, ErrorCode, FrameHead, PADDED, PRIORITY};
use crate::http2::hpack;
use crate::http2::streams::ANY_LENGTH;

/// More CONTINUATION frames than this for one block are an attack.
const MOST_CONTINUATIONS: u32 = 64;
/// A gathered block keeps so much memory for the next.
const KEPT_BLOCK: usize = 1024;

impl Connection {
    pub(super) fn headers(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
        begin: usize,
    ) -> Result<Option<Step>, Fault> {
        let (mut from, mut to) = (0, payload.len());
        if head.has(PADDED) {
            let Some(padding) = payload.first() else {
                return Err(Fault::new(ErrorCode::FrameSize, "no room for the padding's length"));
            };
            from = 1;
            to = to.saturating_sub(usize::from(*padding));
        }
        if head.has(PRIORITY) {
            if to < from + 5 {
                return Err(Fault::new(ErrorCode::FrameSize, "no room for the priority"));
            }
            depends_on_another(head.stream, &payload[from..])?;
            from += 5;
        }
        if from > to {
            return Err(Fault::protocol("more padding than frame"));
        }
        let end_stream = head.has(END_STREAM);
        self.limits.check_outbound(&self.options, &mut self.counts)?;
        let is_futile = from == to && !end_stream;
        self.limits.payload(is_futile, &self.options, &mut self.counts)?;
        if head.has(END_HEADERS) {
            let range = Some(begin + from..begin + to);
            return Ok(Some(Step::Headers(Headers { stream: head.stream, end_stream, range })));
        }
        self.unfinished = Some(Unfinished { stream: head.stream, end_stream, frames: 0 });
        self.block.clear();
        self.gather(&payload[from..to])?;
        Ok(None)
    }

    pub(super) fn continuation(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
    ) -> Result<Option<Step>, Fault> {
        let Some(unfinished) = &mut self.unfinished else { return Ok(None) };
        let Unfinished { stream, end_stream, .. } = *unfinished;
        unfinished.frames += 1;
        if unfinished.frames > MOST_CONTINUATIONS {
            return Err(Fault::flood("http2.continuation_flood", "too many CONTINUATION frames"));
        }
        let is_futile = payload.is_empty() && !head.has(END_HEADERS);
        self.limits.payload(is_futile, &self.options, &mut self.counts)?;
        self.gather(payload)?;
        if !head.has(END_HEADERS) {
            return Ok(None);
        }
        self.unfinished = None;
        Ok(Some(Step::Headers(Headers { stream, end_stream, range: None })))
    }

    /// Keeps a part of a block. A block may be longer than the head that it decodes to, but not much.
    fn gather(&mut self, part: &[u8]) -> Result<(), Fault> {
        if self.block.len() + part.len() > 2 * self.options.max_head_bytes {
            self.counts.header_overflow += 1;
            return Err(Fault::flood("http2.headers_too_large", "a block that does not end"));
        }
        self.block.extend_from_slice(part);
        Ok(())
    }

    /// Lends the block that `headers` is about.
    pub(in crate::http2) fn with_block<T>(
        &mut self,
        headers: &Headers,
        input: &[u8],
        decode: impl FnOnce(&mut Connection, &[u8]) -> T,
    ) -> T {
        if let Some(range) = &headers.range {
            return decode(self, &input[range.clone()]);
        }
        let mut block = std::mem::take(&mut self.block);
        let result = decode(self, &block);
        if block.capacity() <= KEPT_BLOCK {
            block.clear();
            self.block = block;
        }
        result
    }

    /// A block for a stream that is over: nothing of it is of interest but what it does to the table.
    pub(in crate::http2) fn skip_block(&mut self, block: &[u8]) -> Result<(), Fault> {
        self.decoder.skip(block).map_err(|error| match error {
            hpack::BlockError::Compression(reason) => Fault::new(ErrorCode::Compression, reason),
            _ => Fault::new(ErrorCode::Compression, "a block that cannot be skipped"),
        })
    }

    /// A block that gave no head.
    pub(in crate::http2) fn block_error(
        &mut self,
        id: u32,
        after_head: bool,
        error: hpack::BlockError,
    ) -> Result<Event, Fault> {
        let (details, reason) = match error {
            hpack::BlockError::Compression(reason) => {
                return Err(Fault::new(ErrorCode::Compression, reason));
            }
            hpack::BlockError::Malformed(reason) => return self.malformed(id, reason),
            hpack::BlockError::TooLarge => ("http2.headers_too_large", "head is too large"),
            hpack::BlockError::TooMany => ("http2.too_many_headers", "too many fields"),
        };
        self.count(|counts| counts.header_overflow += 1);
        self.discard(id, ErrorCode::Internal);
        let stream = StreamId(id);
        let error = CodecError { stream, after_head, status: 431, details, reason, close: false };
        Ok(Event::Error(error))
    }

    /// HEADERS in the middle of a message.
    pub(in crate::http2) fn read_trailers(
        &mut self,
        headers: &Headers,
        block: &[u8],
        fields: &mut Fields,
    ) -> Result<Event, Fault> {
        let id = headers.stream;
        let limits = self.hpack_limits();
        if let Err(error) = self.decoder.trailers(block, limits, fields) {
            return self.block_error(id, true, error);
        }
        if !headers.end_stream {
            return self.malformed(id, "trailers that do not end the message");
        }
        if self.streams.get(id).is_some_and(|stream| !matches!(stream.left, 0 | ANY_LENGTH)) {
            return Ok(self.malformed_body(id, "less body than content-length says"));
        }
        self.count(|counts| counts.trailers += 1);
        self.received_all(id);
        Ok(Event::Trailers { stream: StreamId(id) })
    }

    /// HEADERS on a stream that is over.
    pub(in crate::http2) fn headers_after_the_end(
        &mut self,
        id: u32,
        block: &[u8],
    ) -> Result<(), Fault> {
        self.count(|counts| counts.headers_cb_no_stream += 1);
        // Were all numbers so far used, this one was; otherwise it may be one that was passed over.
        let all_were_used = self.limits.streams >= u64::from(self.last_stream).div_ceil(2);
        if self.is_server && self.resets.who(id).is_none() && !all_were_used {
            return Err(Fault::protocol("a new stream with an old number"));
        }
        self.after_the_end(id)?;
        self.skip_block(block)
    }
}

/// What `content-length` says; `ANY_LENGTH` if there is none.
pub(in crate::http2) fn declared_length(fields: &Fields) -> Result<u64, &'static str> {
    let mut lengths = fields.get_all(names::CONTENT_LENGTH);
    let Some(length) = lengths.next() else { return Ok(ANY_LENGTH) };
    if lengths.next().is_some() {
        return Err("more than one content-length");
    }
    match parse_length(length) {
        Ok(length) if length != ANY_LENGTH => Ok(length),
        _ => Err("content-length is not a decimal number"),
    }
}
