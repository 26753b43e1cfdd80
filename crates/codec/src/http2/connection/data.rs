//! DATA: bytes against windows and lengths, and windows that grow and open again.

use super::{Body, Connection, Fate, Fault, Input, Step, Taken};
use crate::event::{Event, StreamId};
use crate::http2::RFC_WINDOW;
use crate::http2::frame::{END_STREAM, ErrorCode, FrameHead, HEAD_LEN, PADDED};
use crate::http2::streams::{ANY_LENGTH, ResetBy};

impl Connection {
    pub(super) fn data(&mut self, head: &FrameHead, payload: &[u8]) -> Result<Taken, Fault> {
        let padding = match (head.has(PADDED), payload.first()) {
            (false, _) => 0,
            (true, _) if head.len == 0 => {
                return Err(Fault::new(ErrorCode::FrameSize, "no room for the padding's length"));
            }
            (true, Some(padding)) => usize::from(*padding) + 1,
            (true, None) => return Ok(None),
        };
        if padding > head.len {
            return Err(Fault::protocol("more padding than frame"));
        }
        let len = head.len - padding;
        let end_stream = head.has(END_STREAM);
        let is_futile = len == 0 && !end_stream;
        self.limits.payload(is_futile, &self.options, &mut self.counts)?;
        if self.is_idle_stream(head.stream) {
            return Err(Fault::protocol("DATA on a stream that has not begun"));
        }
        if !self.receive.take(head.len as u32) {
            return Err(Fault::new(ErrorCode::FlowControl, "the connection's window is overrun"));
        }
        let length_byte = usize::from(padding > 0);
        let fate = self.data_on_stream(head, len, padding)?;
        self.input = Input::Body(Body {
            stream: head.stream,
            left: len,
            padding: padding - length_byte,
            end_stream,
            is_wanted: fate == Fate::Wanted,
        });
        let step = match fate {
            Fate::BreaksStream(event) => Some(Step::Event(event)),
            Fate::Wanted | Fate::Ignored => None,
        };
        Ok(Some((HEAD_LEN + length_byte, step)))
    }

    /// What a DATA frame means to its stream.
    fn data_on_stream(
        &mut self,
        head: &FrameHead,
        len: usize,
        padding: usize,
    ) -> Result<Fate, Fault> {
        let (id, frame_len) = (head.stream, head.len as u32);
        let Some(stream) = self.streams.get_mut(id) else {
            self.receive.pass(frame_len);
            self.output.due |= self.receive.is_due();
            return self.after_the_end(id).map(|()| Fate::Ignored);
        };
        if stream.received_all || !stream.receive.take(frame_len) {
            let (code, reason) = match stream.received_all {
                true => (ErrorCode::StreamClosed, "DATA after the end"),
                false => (ErrorCode::FlowControl, "a window is overrun"),
            };
            // It is not among what the stream held.
            self.receive.pass(frame_len);
            return Ok(Fate::BreaksStream(self.break_stream(id, code, reason)));
        }
        if !stream.received_head {
            return self.malformed(id, "DATA before the head").map(Fate::BreaksStream);
        }
        if stream.left != ANY_LENGTH {
            let Some(left) = stream.left.checked_sub(len as u64) else {
                let reason = "more body than content-length says";
                return Ok(Fate::BreaksStream(self.malformed_body(id, reason)));
            };
            stream.left = left;
            if head.has(END_STREAM) && left > 0 {
                let reason = "less body than content-length says";
                return Ok(Fate::BreaksStream(self.malformed_body(id, reason)));
            }
        }
        self.probe.arrived(id, frame_len);
        if padding > 0 {
            self.passed_on(id, padding);
        }
        Ok(Fate::Wanted)
    }

    /// Body bytes that have come; `None` waits for some.
    #[inline]
    pub(super) fn body(
        &mut self,
        mut body: Body,
        available: usize,
        at: usize,
    ) -> Option<(usize, Option<Event>)> {
        let len = body.left.min(available);
        if len == 0 && body.left > 0 {
            return None;
        }
        body.left -= len;
        let is_done = body.left == 0;
        self.input = match is_done {
            true if body.padding > 0 => Input::Skip(body.padding),
            true => Input::Frame,
            false => Input::Body(body),
        };
        if !body.is_wanted {
            return Some((len, None));
        }
        let stream = StreamId(body.stream);
        let end_stream = is_done && body.end_stream;
        if end_stream {
            self.received_all(body.stream);
        }
        let event = match len {
            0 => end_stream.then_some(Event::End { stream }),
            _ => Some(Event::Data { stream, range: at..at + len, end_stream }),
        };
        Some((len, event))
    }

    /// A frame has come for a stream that is over: is that the peer's fault?
    pub(super) fn after_the_end(&mut self, id: u32) -> Result<(), Fault> {
        if !self.is_server {
            return Ok(());
        }
        match self.resets.who(id) {
            Some(ResetBy::Us) => Ok(()),
            Some(ResetBy::Peer) => {
                // It is told once.
                self.resets.take_over(id);
                self.output.rst_stream(id, ErrorCode::StreamClosed, &mut self.limits);
                Ok(())
            }
            None => Err(Fault::new(ErrorCode::StreamClosed, "frame on a stream that has ended")),
        }
    }

    /// See [`ServerCodec::passed_on`](crate::http2::ServerCodec::passed_on).
    #[inline]
    pub(in crate::http2) fn passed_on(&mut self, id: u32, len: usize) {
        let least = self.options.initial_stream_window;
        let Some(stream) = self.streams.get_mut(id) else { return };
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let passed = stream.receive.pass_at_readers_pace(len, least);
        if stream.receive.is_due() && !stream.is_due && !stream.received_all {
            stream.is_due = true;
            self.output.due_streams.push(id);
            self.output.due = true;
        }
        self.receive.pass(passed);
        if self.receive.is_due() {
            self.output.due = true;
        } else if self.receive.credit() < RFC_WINDOW as i32 && !self.receive.drains() {
            // Others hold what the connection may hold, and this one drains: it is not to wait for them.
            self.widen();
        }
    }

    fn widen(&mut self) -> bool {
        let wider = self.receive.target().saturating_mul(2);
        let grows = self.receive.grow_to(wider.min(self.options.max_connection_window));
        self.output.due |= self.receive.is_due();
        grows
    }

    /// An answer to a probe.
    pub(super) fn probed(&mut self) {
        let Some(verdict) = self.probe.finish(self.limits.now_ns) else { return };
        let is_enough = self.receive.target() >= verdict.enough.saturating_mul(2);
        let mut grows =
            verdict.connection_is_narrow && !is_enough && self.receive.drains() && self.widen();
        let most = self.options.max_stream_window.min(verdict.enough);
        if let Some(stream) = self.streams.get_mut(verdict.stream)
            && verdict.stream_is_narrow
            && stream.receive.drains()
        {
            let wider = stream.receive.target().saturating_mul(2).min(most);
            grows |= stream.receive.grow_to(wider);
            if self.receive.target() < wider.saturating_mul(2) {
                self.widen();
            }
        }
        if grows {
            self.probe.has_helped();
        }
    }
}
