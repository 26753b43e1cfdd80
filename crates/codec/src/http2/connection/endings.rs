//! Ends of streams and of the connection, and what of it is told.

use super::{Connection, Fault, Input};
use crate::event::{CodecError, Event, ResetCode, ResetReason, StreamId};
use crate::http2::frame::ErrorCode;
use crate::http2::limits::Counts;
use crate::http2::streams::{ResetBy, Stream};

/// The details of a message that is no HTTP.
const BROKEN_RULE: &str = "http2.violation.of.messaging.rule";

impl Connection {
    pub(in crate::http2) fn count(&mut self, add: impl FnOnce(&mut Counts)) {
        self.is_counted = true;
        add(&mut self.counts);
    }

    /// The peer has sent the whole message.
    pub(in crate::http2) fn received_all(&mut self, id: u32) {
        if let Some(stream) = self.streams.get_mut(id) {
            stream.received_all = true;
            if stream.sent_all {
                self.forget(id);
            }
        }
    }

    /// Drops a stream. What it held counts as passed on.
    pub(in crate::http2) fn forget(&mut self, id: u32) -> Option<Stream> {
        let stream = self.streams.remove(id)?;
        self.limits.closed += 1;
        self.receive.pass(stream.receive.held());
        self.output.due |= self.receive.is_due();
        if let Input::Body(body) = &mut self.input
            && body.stream == id
        {
            body.is_wanted = false;
        }
        Some(stream)
    }

    /// Resets a stream that is not, or no more, the caller's; it need not be in the table.
    pub(in crate::http2) fn discard(&mut self, id: u32, code: ErrorCode) {
        self.forget(id);
        self.resets.add(id, ResetBy::Us);
        self.output.rst_stream(id, code, &mut self.limits);
        self.count(|counts| counts.tx_reset += 1);
    }

    /// A stream error (RFC 9113 §5.4.2).
    pub(super) fn break_stream(&mut self, id: u32, code: ErrorCode, reason: &'static str) -> Event {
        let after_head = self.streams.get(id).is_some_and(|stream| stream.received_head);
        self.discard(id, code);
        Event::Error(CodecError {
            stream: StreamId(id),
            after_head,
            status: 400,
            details: "http2.protocol_error",
            reason,
            close: false,
        })
    }

    /// A message that is no HTTP (RFC 9113 §8.1.1).
    pub(in crate::http2) fn malformed(
        &mut self,
        id: u32,
        reason: &'static str,
    ) -> Result<Event, Fault> {
        let after_head = self.streams.get(id).is_some_and(|stream| stream.received_head);
        if !self.options.stream_error_on_invalid_http_message {
            self.count(|counts| counts.rx_messaging_error += 1);
            let code = ErrorCode::Protocol;
            return Err(Fault { code, stream: id, after_head, details: BROKEN_RULE, reason });
        }
        Ok(self.malformed_body(id, reason))
    }

    /// A body that is not of the length that its head says: as in Envoy never more than its stream's fault.
    pub(in crate::http2) fn malformed_body(&mut self, id: u32, reason: &'static str) -> Event {
        let after_head = self.streams.get(id).is_some_and(|stream| stream.received_head);
        self.count(|counts| counts.rx_messaging_error += 1);
        self.discard(id, ErrorCode::Protocol);
        Event::Error(CodecError {
            stream: StreamId(id),
            after_head,
            status: 400,
            details: BROKEN_RULE,
            reason,
            close: false,
        })
    }

    /// HEADERS after the end of the message.
    pub(in crate::http2) fn headers_after_end_stream(
        &mut self,
        id: u32,
        block: &[u8],
    ) -> Result<Event, Fault> {
        self.skip_block(block)?;
        Ok(self.break_stream(id, ErrorCode::StreamClosed, "HEADERS after the end"))
    }

    /// A connection error (RFC 9113 §5.4.1).
    pub(in crate::http2) fn fail(&mut self, fault: Fault) -> Event {
        self.input = Input::Closed;
        self.has_failed = true;
        self.is_counted = true;
        self.counts.goaway_sent += 1;
        let last = if self.is_server { self.last_stream } else { 0 };
        self.output.goaway(last, fault.code, fault.reason, &mut self.limits);
        let Fault { stream, after_head, details, reason, .. } = fault;
        let status = if self.is_server { 400 } else { 502 };
        let stream = StreamId(stream);
        Event::Error(CodecError { stream, after_head, status, details, reason, close: true })
    }

    pub(in crate::http2) fn is_closed(&self) -> bool {
        matches!(self.input, Input::Closed)
    }

    /// Streams whose messages are cut off, one by one.
    pub(in crate::http2) fn end_of_input(&mut self) -> Event {
        self.peer_is_gone = true;
        self.input = Input::Closed;
        let is_cut = |stream: &&Stream| !self.is_server || !stream.received_all;
        let cut = self.streams.iter().find(is_cut).map(|stream| stream.id);
        match cut {
            Some(id) => {
                self.forget(id);
                Event::Reset { stream: StreamId(id), reason: ResetReason::ConnectionClosed }
            }
            None => Event::NeedInput,
        }
    }

    /// Between the first byte of a head and its last, as far as is known.
    pub(in crate::http2) fn is_in_head(&self) -> bool {
        self.unfinished.is_some() || self.waits_for_head
    }

    pub(in crate::http2) fn observe(&mut self, now_ns: u64, unsent: usize) {
        self.limits.now_ns = now_ns;
        self.limits.outbound.unsent(unsent);
    }

    pub(in crate::http2) fn take_counts(&mut self) -> Option<Counts> {
        if !std::mem::take(&mut self.is_counted) {
            return None;
        }
        Some(std::mem::take(&mut self.counts))
    }
}

impl From<ResetCode> for ErrorCode {
    fn from(code: ResetCode) -> ErrorCode {
        match code {
            ResetCode::NoError => ErrorCode::NoError,
            ResetCode::Protocol => ErrorCode::Protocol,
            ResetCode::Internal => ErrorCode::Internal,
            ResetCode::Refused => ErrorCode::RefusedStream,
            ResetCode::Cancel => ErrorCode::Cancel,
        }
    }
}
