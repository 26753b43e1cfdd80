//! What an HTTP/2 connection has beyond an HTTP/1 one, on the client's side: streams that wait for its window, PINGs, a
//! good-bye in two steps, and faults that end one stream of many.

use std::collections::VecDeque;

use codec::event::CodecError;
use telemetry::stats::Local;
use telemetry::stats::sets::{Http2 as Http2Stat, HttpConnManager as Stat};

use super::conn_manager::{HttpConnection, after};
use super::keepalive::{Due, Keepalive};
use super::stream::Stream;
use crate::arena::Key;
use crate::network::downstream::{CloseReason, Downstream, Kind};
use crate::stream_info::ResponseFlags;
use crate::worker::Worker;

/// The part of a connection that only many streams need.
pub struct Multiplexed {
    /// Streams with bytes for which the client's window has no room, in their turn.
    pub waiting: VecDeque<Key<Box<Stream>>>,
    /// `http2.*`.
    pub cells: Local<Http2Stat>,
    keepalive: Option<Keepalive>,
    /// The first GOAWAY has been sent; the last follows then. `u64::MAX` is never.
    last_goaway_ns: u64,
}

impl std::fmt::Debug for Multiplexed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Multiplexed").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl Multiplexed {
    /// For a connection that has just been opened.
    pub fn new(cells: Local<Http2Stat>, keepalive: Option<Keepalive>) -> Self {
        Self { waiting: VecDeque::new(), cells, keepalive, last_goaway_ns: u64::MAX }
    }

    /// When it must be looked at.
    pub fn deadline(&self) -> u64 {
        self.keepalive.as_ref().map_or(u64::MAX, Keepalive::deadline).min(self.last_goaway_ns)
    }
}

impl HttpConnection {
    /// What the codec has counted goes to the statistics.
    pub fn count_frames(&mut self) {
        if let Some(multiplexed) = &self.multiplexed
            && let Some(counts) = self.codec.take_counts()
        {
            super::stats::count_frames(&multiplexed.cells, &counts);
            let premature = u64::from(counts.too_many_premature_resets);
            let counters = &self.state.cells.counters;
            counters.add(Stat::DOWNSTREAM_RQ_TOO_MANY_PREMATURE_RESETS, premature);
        }
    }
}

impl Worker {
    /// A read has been decoded: the client lives; what decoding made necessary is written; perhaps that was the end.
    pub(crate) fn frames_read(&mut self, key: Key<Downstream>) {
        let now = self.clock.now_ns();
        let Some(Downstream { kind: Kind::Http(http), .. }) = self.downs.get_mut(key) else {
            return;
        };
        let (has_control, is_over) = (http.codec.has_control(), http.codec.must_close());
        if !http.codec.is_in_head() {
            http.head_since_ns = 0;
        }
        if let Some(config) = &http.state.config.http2.keepalive
            && let Some(keepalive) =
                http.multiplexed.as_mut().and_then(|multiplexed| multiplexed.keepalive.as_mut())
        {
            keepalive.heard(config, now, &mut self.random);
        }
        if is_over {
            self.end_multiplexed(key);
        } else if has_control {
            self.mark_downstream(key);
        }
    }

    /// Nothing more is to be read: once what is written is flushed the connection ends.
    fn end_multiplexed(&mut self, key: Key<Downstream>) {
        if let Some(down) = self.downs.get_mut(key) {
            down.close_after_flush = true;
            self.mark_downstream(key);
        }
    }

    /// The client broke the protocol of the connection, and all streams end with it; or that of one stream, which the
    /// codec has reset.
    pub(crate) fn frames_broken(&mut self, key: Key<Downstream>, error: &CodecError) {
        let Some(http) = self.http_of(key) else { return };
        if error.close {
            http.state.cells.counters.inc(Stat::DOWNSTREAM_CX_PROTOCOL_ERROR);
            for stream in http.streams.keys() {
                self.end_as_broken(stream, error);
            }
            return self.end_multiplexed(key);
        }
        match http.streams.get(error.stream) {
            Some(stream) => self.end_as_broken(stream, error),
            None => {
                if let Some(stream) = self.begin_unserved_stream(key, error.stream) {
                    self.end_as_broken(stream, error);
                }
            }
        }
    }

    fn end_as_broken(&mut self, key: Key<Box<Stream>>, error: &CodecError) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.info.flags.insert(ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR);
            stream.info.response_code_details = error.details;
            self.end_stream(key);
        }
    }

    /// No new streams: GOAWAY with the highest number first, as requests may be on their way, and with the last that was
    /// taken once a PING has come back, or the drain time is over.
    pub(super) fn say_goodbye(&mut self, key: Key<Downstream>) {
        let now = self.clock.now_ns();
        let Some(Downstream { kind: Kind::Http(http), io, .. }) = self.downs.get_mut(key) else {
            return;
        };
        let drain = http.state.config.timeouts.drain;
        if let Some(multiplexed) = &mut http.multiplexed {
            multiplexed.last_goaway_ns = after(now, Some(drain));
        }
        http.codec.start_drain(io.output.writer(&mut self.buffers));
        self.mark_downstream(key);
        self.arm_downstream(key);
    }

    /// No new streams from now on: what crosses with this the client knows to be unserved.
    pub(super) fn say_last_goodbye(&mut self, key: Key<Downstream>) {
        let Some(Downstream { kind: Kind::Http(http), io, close_after_flush, .. }) =
            self.downs.get_mut(key)
        else {
            return;
        };
        if let Some(multiplexed) = &mut http.multiplexed {
            multiplexed.last_goaway_ns = u64::MAX;
        }
        http.codec.start_drain(io.output.writer(&mut self.buffers));
        *close_after_flush |= http.codec.must_close();
        self.mark_downstream(key);
    }

    /// Does what is due for the connection as such; true when that has ended it.
    pub(super) fn multiplexed_timer(&mut self, key: Key<Downstream>, now: u64) -> bool {
        let Some(Downstream { kind: Kind::Http(http), io, .. }) = self.downs.get_mut(key) else {
            return true;
        };
        let config = http.state.config.http2.keepalive;
        let Some(multiplexed) = &mut http.multiplexed else { return false };
        let due = match (&mut multiplexed.keepalive, &config) {
            (Some(keepalive), Some(config)) => keepalive.due(config, now),
            _ => Due::Nothing,
        };
        let says_last_goodbye = multiplexed.last_goaway_ns <= now;
        match due {
            Due::Nothing => {}
            Due::Ping => {
                http.codec.ping(io.output.writer(&mut self.buffers));
                self.mark_downstream(key);
            }
            Due::Dead => {
                multiplexed.cells.inc(Http2Stat::KEEPALIVE_TIMEOUT);
                self.close_downstream(key, CloseReason::Local);
                return true;
            }
        }
        if says_last_goodbye {
            self.say_last_goodbye(key);
        }
        false
    }
}
