//! What leaves on a connection, the same for both ends. What decoding has made necessary (acknowledgements, resets, windows
//! that open) waits for [`write_control`](Connection::write_control); heads and bodies go straight to the output.

use super::connection::Connection;
use super::frame::{
    ACK, END_HEADERS, END_STREAM, ErrorCode, HEAD_LEN, Kind, PREFACE, head_bytes, write_goaway,
    write_ping, write_rst_stream, write_window_update,
};
use super::limits::Limits;
use super::streams::ResetBy;
use super::{MAX_WINDOW, Options, RFC_WINDOW, hpack, settings};
use crate::headers::Fields;
use crate::http1::DataTail;

/// What our PINGs carry, by what they are for.
pub(super) const KEEP_ALIVE: &[u8; 8] = b"or.alive";
pub(super) const PROBE: &[u8; 8] = b"or.probe";
pub(super) const DRAIN: &[u8; 8] = b"or.drain";

/// How far a server is with taking no more streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    No,
    /// The client has been told to open no more; those on their way are still taken.
    Announced,
    /// The last stream has been named.
    Final,
}

/// The sending half of a connection.
#[derive(Debug)]
pub(super) struct Output {
    pub encoder: hpack::Encoder,
    /// What we may send on all streams.
    pub window: i32,
    pub drain: Drain,
    /// Something waits for `write_control`.
    pub due: bool,
    /// Streams whose windows are to be opened.
    pub due_streams: Vec<u32>,
    /// Whole frames that wait.
    control: Vec<u8>,
    has_begun: bool,
}

/// The queue of control frames keeps so much memory.
const KEPT_CONTROL: usize = 512;

impl Output {
    pub fn new(options: &Options) -> Output {
        Output {
            encoder: hpack::Encoder::new(options.huffman, options.header_table_size),
            window: RFC_WINDOW as i32,
            drain: Drain::No,
            due: true,
            due_streams: Vec::new(),
            control: Vec::new(),
            has_begun: false,
        }
    }

    pub fn rst_stream(&mut self, id: u32, code: ErrorCode, limits: &mut Limits) {
        self.queue_control(limits, |out| write_rst_stream(id, code, out));
    }

    pub fn ping_ack(&mut self, data: &[u8; 8], limits: &mut Limits) {
        self.queue_control(limits, |out| write_ping(ACK, data, out));
    }

    pub fn settings_ack(&mut self, limits: &mut Limits) {
        self.queue_control(limits, |out| {
            out.extend_from_slice(&head_bytes(0, Kind::Settings, ACK, 0));
        });
    }

    pub fn goaway(&mut self, last: u32, code: ErrorCode, reason: &str, limits: &mut Limits) {
        self.drain = Drain::Final;
        self.queue_control(limits, |out| write_goaway(last, code, reason, out));
    }

    /// The second step of a drain.
    pub fn final_goaway(&mut self, last: u32, limits: &mut Limits) {
        self.goaway(last, ErrorCode::NoError, "", limits);
    }

    fn queue_control(&mut self, limits: &mut Limits, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.control.len();
        write(&mut self.control);
        limits.outbound.wrote_control(self.control.len() - before);
        self.due = true;
    }
}

impl Connection {
    /// Writes what waits: the connection's first words, control frames, openings of windows.
    #[inline]
    pub fn write_control(&mut self, out: &mut Vec<u8>) {
        if self.output.due {
            self.write_due(out);
        }
    }

    fn write_due(&mut self, out: &mut Vec<u8>) {
        self.output.due = false;
        if out.is_empty() && self.output.control.is_empty() {
            self.limits.outbound.unsent(0);
        }
        if !std::mem::replace(&mut self.output.has_begun, true) {
            if !self.is_server {
                out.extend_from_slice(PREFACE);
            }
            settings::write(&self.options, self.is_server, out);
        }
        out.extend_from_slice(&self.output.control);
        self.output.control.clear();
        if self.output.control.capacity() > KEPT_CONTROL {
            self.output.control = Vec::new();
        }
        if !self.is_closed() {
            self.open_windows(out);
        }
    }

    fn open_windows(&mut self, out: &mut Vec<u8>) {
        let mut due = std::mem::take(&mut self.output.due_streams);
        for id in due.drain(..) {
            let Some(stream) = self.streams.get_mut(id) else { continue };
            stream.is_due = false;
            if stream.received_all {
                continue;
            }
            let may_grow = stream.receive.target() < self.options.max_stream_window;
            let now_ns = self.limits.now_ns;
            if may_grow && self.probe.start(id, &stream.receive, &self.receive, now_ns) {
                write_ping(0, PROBE, out);
                self.limits.outbound.wrote_control(HEAD_LEN + PROBE.len());
            }
            let increment = stream.receive.grant();
            if increment > 0 {
                write_window_update(id, increment, out);
                self.limits.outbound.wrote(HEAD_LEN + 4);
            }
        }
        self.output.due_streams = due;
        if self.receive.is_due() {
            write_window_update(0, self.receive.grant(), out);
            self.limits.outbound.wrote(HEAD_LEN + 4);
        }
    }

    /// Writes a block of header fields that `encode` appends.
    pub fn write_block(
        &mut self,
        id: u32,
        end_stream: bool,
        out: &mut Vec<u8>,
        encode: impl FnOnce(&mut hpack::Encoder, &mut Vec<u8>),
    ) {
        self.before_writing(out);
        let start = out.len();
        out.extend_from_slice(&[0; HEAD_LEN]);
        encode(&mut self.output.encoder, out);
        let len = out.len() - start - HEAD_LEN;
        let most = self.peer.max_frame_size as usize;
        let flags = if end_stream { END_STREAM } else { 0 };
        if len <= most {
            let head = head_bytes(len, Kind::Headers, flags | END_HEADERS, id);
            out[start..start + HEAD_LEN].copy_from_slice(&head);
        } else {
            split_block(id, flags, most, start, out);
        }
        self.limits.outbound.wrote(out.len() - start);
    }

    /// See [`super::ServerCodec::begin_data`].
    pub fn begin_data(
        &mut self,
        id: u32,
        len: usize,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) -> DataTail {
        let tail = self.begin_frame(id, len, end_stream, out);
        if end_stream && tail.len == len && self.message_is_whole(id) {
            // The frame's bytes are yet to be written: nothing may come between.
            self.discard(id, ErrorCode::NoError);
        }
        tail
    }

    /// Writes the head of a DATA frame.
    fn begin_frame(
        &mut self,
        id: u32,
        len: usize,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) -> DataTail {
        const NOTHING: DataTail = DataTail { len: 0, suffix: b"" };

        let room = self.output.window;
        let Some(stream) = self.streams.get_mut(id).filter(|stream| !stream.sent_all) else {
            return NOTHING;
        };
        let room = room.min(stream.send_window).max(0) as usize;
        let fits = len.min(room).min(self.peer.max_frame_size as usize);
        let is_last = end_stream && fits == len;
        if fits == 0 && !is_last {
            return NOTHING;
        }
        stream.send_window -= fits as i32;
        self.output.window -= fits as i32;
        self.limits.data_frames_sent += 1;
        self.before_writing(out);
        let flags = if is_last { END_STREAM } else { 0 };
        out.extend_from_slice(&head_bytes(fits, Kind::Data, flags, id));
        self.limits.outbound.wrote(HEAD_LEN + fits);
        DataTail { len: fits, suffix: b"" }
    }

    /// Writes as much of a body as there is room for, and ends the message if it was asked to and all of it fitted.
    pub fn write_data(&mut self, id: u32, data: &[u8], end_stream: bool, out: &mut Vec<u8>) {
        debug_assert!(data.len() <= self.send_room(id), "more than there is room for");
        let mut rest = data;
        loop {
            let tail = self.begin_frame(id, rest.len(), end_stream, out);
            out.extend_from_slice(&rest[..tail.len]);
            rest = &rest[tail.len..];
            if rest.is_empty() || tail.len == 0 {
                break;
            }
        }
        if end_stream && rest.is_empty() {
            self.sent_all(id, out);
        }
    }

    /// Body bytes that may be written on a stream. Of one that takes nothing more any number is dropped.
    #[inline]
    pub fn send_room(&self, id: u32) -> usize {
        match self.streams.get(id) {
            Some(stream) if !stream.sent_all => {
                stream.send_window.min(self.output.window).max(0) as usize
            }
            _ => usize::MAX,
        }
    }

    /// Writes trailers, which end the message.
    pub fn write_trailers(&mut self, id: u32, trailers: &Fields, out: &mut Vec<u8>) {
        if self.streams.get(id).is_some_and(|stream| !stream.sent_all) {
            self.write_block(id, true, out, |encoder, out| encoder.trailers(trailers, out));
            self.sent_all(id, out);
        }
    }

    /// Our message is whole.
    pub fn sent_all(&mut self, id: u32, out: &mut Vec<u8>) {
        if self.message_is_whole(id) {
            self.write_reset(id, ErrorCode::NoError, out);
        }
    }

    /// Notes that our message is whole. True if the stream is to be reset: a server whose answer is whole has no use for the
    /// rest of the request (RFC 9113 §8.1).
    fn message_is_whole(&mut self, id: u32) -> bool {
        let Some(stream) = self.streams.get_mut(id) else { return false };
        stream.sent_all = true;
        if stream.received_all {
            self.forget(id);
            return false;
        }
        self.is_server && !stream.is_tunnel
    }

    /// Gives up a stream that is in the table.
    pub fn write_reset(&mut self, id: u32, code: ErrorCode, out: &mut Vec<u8>) {
        if self.forget(id).is_none() {
            return;
        }
        if self.is_server {
            self.resets.add(id, ResetBy::Us);
        }
        self.before_writing(out);
        write_rst_stream(id, code, out);
        self.limits.outbound.wrote_control(HEAD_LEN + 4);
        self.count(|counts| counts.tx_reset += 1);
    }

    /// See [`super::ServerCodec::ping`].
    pub fn write_ping(&mut self, out: &mut Vec<u8>) {
        self.before_writing(out);
        write_ping(0, KEEP_ALIVE, out);
        self.limits.outbound.wrote_control(HEAD_LEN + KEEP_ALIVE.len());
    }

    /// The next step of a drain.
    pub fn write_drain(&mut self, out: &mut Vec<u8>) {
        match self.output.drain {
            Drain::No => {
                self.before_writing(out);
                self.output.drain = Drain::Announced;
                write_goaway(MAX_WINDOW, ErrorCode::NoError, "", out);
                write_ping(0, DRAIN, out);
                self.limits.outbound.wrote(2 * HEAD_LEN + 16);
            }
            Drain::Announced => {
                self.output.final_goaway(self.last_stream, &mut self.limits);
                self.write_control(out);
            }
            Drain::Final => return,
        }
        self.count(|counts| counts.goaway_sent += 1);
    }

    /// Nothing precedes what waits. What was written before an output that is empty has left.
    #[inline]
    fn before_writing(&mut self, out: &mut Vec<u8>) {
        if out.is_empty() {
            self.limits.outbound.unsent(0);
        }
        self.write_control(out);
    }

    /// Nothing more can happen on this connection.
    pub fn is_over(&self) -> bool {
        self.has_failed
            || self.streams.is_empty() && (self.peer_is_gone || self.output.drain == Drain::Final)
    }
}

/// Makes frames of a block that is too long for one: HEADERS and as many CONTINUATION as it takes.
fn split_block(id: u32, flags: u8, most: usize, start: usize, out: &mut Vec<u8>) {
    let len = out.len() - start - HEAD_LEN;
    let frames = len.div_ceil(most);
    out.resize(out.len() + (frames - 1) * HEAD_LEN, 0);
    for frame in (0..frames).rev() {
        let part = (len - frame * most).min(most);
        let from = start + HEAD_LEN + frame * most;
        let to = start + frame * (HEAD_LEN + most);
        out.copy_within(from..from + part, to + HEAD_LEN);
        let (kind, flags) = match frame {
            0 => (Kind::Headers, flags),
            _ => (Kind::Continuation, 0),
        };
        let end = if frame + 1 == frames { END_HEADERS } else { 0 };
        out[to..to + HEAD_LEN].copy_from_slice(&head_bytes(part, kind, flags | end, id));
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::FrameHead;
    use super::*;

    #[test]
    fn long_blocks_are_cut_into_frames() {
        for len in [5, 6, 10, 11, 23] {
            let mut out = b"before".to_vec();
            out.extend_from_slice(&[0; HEAD_LEN]);
            let block: Vec<u8> = (0..len).collect();
            out.extend_from_slice(&block);
            split_block(7, END_STREAM, 5, 6, &mut out);
            let (mut rest, mut gathered) = (&out[6..], Vec::new());
            while let Some(head) = FrameHead::read(rest) {
                let is_first = gathered.is_empty();
                let kind = if is_first { Kind::Headers } else { Kind::Continuation };
                gathered.extend_from_slice(&rest[HEAD_LEN..HEAD_LEN + head.len]);
                assert_eq!((head.kind, head.stream, head.len <= 5), (kind, 7, true));
                assert_eq!(head.has(END_STREAM), is_first);
                assert_eq!(head.has(END_HEADERS), gathered.len() == block.len());
                rest = &rest[HEAD_LEN + head.len..];
            }
            assert_eq!((gathered, rest.len()), (block, 0));
        }
    }
}
