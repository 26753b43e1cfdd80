//! Step 6: a client's HTTP connection: codec events become streams, and streams' answers bytes.

use std::rc::Rc;

use codec::event::{CodecError, Event, StreamId};
use codec::headers::Version;
use codec::server::ServerCodec;
use codec::{http1, http2};
use telemetry::stats::Counter;
use telemetry::stats::sets::{Http2 as Http2Stat, HttpConnManager as Stat, HttpTimes};

use super::keepalive::Keepalive;
use super::multiplexed::Multiplexed;
use super::protocol::{self, Choice};
use super::stream::Stream;
use super::stream_table::StreamTable;
use super::tunnel;
use crate::arena::Key;
use crate::listener::chain::HttpState;
use crate::network::downstream::{CloseReason, Downstream, Kind};
use crate::worker::Worker;

/// The HTTP side of a client's connection.
#[derive(Debug)]
pub struct HttpConnection {
    /// The connection manager that serves new streams.
    pub state: Rc<HttpState>,
    /// Bytes ⇄ events.
    pub codec: ServerCodec,
    /// Streams in progress.
    pub streams: StreamTable,
    /// What only a connection of many streams has.
    pub multiplexed: Option<Box<Multiplexed>>,
    /// Its first bytes will say what it speaks.
    is_unsniffed: bool,
    /// Reading rests: a stream has more than it can pass on.
    pub read_paused: bool,
    /// The client is ahead: what it sent waits for the end of the stream in progress.
    pub is_blocked: bool,
    /// Every answer says that the connection ends.
    pub is_draining: bool,
    /// A connection that drains may rest until then.
    rest_ends_ns: u64,
    /// Requests so far.
    pub requests: u32,
    /// Since when there has been no stream.
    idle_since_ns: u64,
    /// When the head that is not whole yet began; 0 when there is none.
    pub(super) head_since_ns: u64,
    /// When the connection began.
    opened_ns: u64,
}

impl HttpConnection {
    /// A connection that has just been opened.
    pub fn new(state: &Rc<HttpState>, now_ns: u64) -> Self {
        let config = &state.config;
        state.cells.counters.inc(Stat::DOWNSTREAM_CX_TOTAL);
        state.cells.counters.gauge_add(Stat::DOWNSTREAM_CX_ACTIVE, 1);
        let options = protocol::http1_of(config);
        Self {
            state: Rc::clone(state),
            codec: ServerCodec::Http1(http1::ServerCodec::new(options)),
            streams: StreamTable::default(),
            multiplexed: None,
            is_unsniffed: true,
            read_paused: false,
            is_blocked: false,
            is_draining: false,
            rest_ends_ns: u64::MAX,
            requests: 0,
            idle_since_ns: now_ns,
            head_since_ns: 0,
            opened_ns: now_ns,
        }
    }

    /// Could the client have more to say than it has said: is it unsafe to close without waiting for its FIN?
    pub fn may_still_send(&self) -> bool {
        self.multiplexed.is_some() || !self.codec.is_idle()
    }

    /// No stream, and no part of a request.
    fn is_resting(&self) -> bool {
        self.streams.is_empty() && self.codec.is_idle()
    }

    /// A stream has more than it can pass on. Where many share the connection, their own windows hold them back.
    pub fn pause_reading(&mut self) {
        let pauses = !self.is_multiplexed();
        if pauses && !self.read_paused {
            self.count(Stat::DOWNSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL);
        }
        self.read_paused = pauses;
    }

    /// There is room again; says whether reading rested.
    pub fn resume_reading(&mut self) -> bool {
        let rested = std::mem::take(&mut self.read_paused);
        if rested {
            self.count(Stat::DOWNSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL);
        }
        rested
    }

    fn count(&self, stat: Counter<Stat>) {
        self.state.cells.counters.inc(stat);
    }

    /// Does it carry many streams, each with a window of its own?
    #[inline]
    pub fn is_multiplexed(&self) -> bool {
        self.multiplexed.is_some()
    }

    /// Would more bytes be of use?
    pub fn wants_input(&self) -> bool {
        !self.read_paused && !self.is_blocked
    }
}

impl Worker {
    /// The connection manager takes over a connection: its protocol is chosen, or will be by its first bytes.
    pub(crate) fn begin_http(&mut self, key: Key<Downstream>) {
        let Some(Downstream { kind: Kind::Http(http), info, .. }) = self.downs.get(key) else {
            return;
        };
        let alpn = info.tls.as_ref().map_or(&[][..], |tls| &tls.alpn);
        if let Choice::Known(version) = protocol::choose(http.state.config.codec, alpn) {
            self.begin_protocol(key, version);
        }
    }

    fn begin_protocol(&mut self, key: Key<Downstream>, version: Version) {
        let now = self.clock.now_ns();
        let Some(Downstream { kind: Kind::Http(http), .. }) = self.downs.get_mut(key) else {
            return;
        };
        http.is_unsniffed = false;
        let config = &http.state.config;
        let counters = &http.state.cells.counters;
        if version != Version::Http2 {
            counters.inc(Stat::DOWNSTREAM_CX_HTTP1_TOTAL);
            counters.gauge_add(Stat::DOWNSTREAM_CX_HTTP1_ACTIVE, 1);
            return;
        }
        counters.inc(Stat::DOWNSTREAM_CX_HTTP2_TOTAL);
        counters.gauge_add(Stat::DOWNSTREAM_CX_HTTP2_ACTIVE, 1);
        let (kb, fields) = (config.limits.max_request_headers_kb, config.limits.max_headers_count);
        let mut options = protocol::http2_of(&config.http2, kb, fields);
        if config.http2.stream_error_on_invalid_message.is_none() {
            options.stream_error_on_invalid_http_message = config.stream_error_on_invalid_message;
        }
        http.codec = ServerCodec::Http2(Box::new(http2::ServerCodec::new(options)));
        let keepalive = config.http2.keepalive.as_ref();
        let keepalive = keepalive.map(|config| Keepalive::new(config, now, &mut self.random));
        let cells = self.cx.recorder.local(&config.stats.http2);
        http.multiplexed = Some(Box::new(Multiplexed::new(cells, keepalive)));
        if http.is_draining {
            self.say_goodbye(key);
        }
        self.mark_downstream(key);
        self.arm_downstream(key);
    }

    /// Looks at the first bytes of a connection; false while they do not say yet what it speaks.
    fn sniff_protocol(&mut self, key: Key<Downstream>, input: &[u8]) -> bool {
        match protocol::sniff(input) {
            Some(version) => {
                self.begin_protocol(key, version);
                true
            }
            None => {
                self.head_began(key);
                false
            }
        }
    }

    /// Decodes what has come; says how many bytes are done with.
    pub(crate) fn http_input(&mut self, key: Key<Downstream>, input: &[u8]) -> usize {
        let Some(Downstream { kind: Kind::Http(http), .. }) = self.downs.get_mut(key) else {
            return input.len();
        };
        if http.is_unsniffed && !self.sniff_protocol(key, input) {
            return 0;
        }
        let Some(Downstream { kind: Kind::Http(http), io, .. }) = self.downs.get_mut(key) else {
            return input.len();
        };
        let is_multiplexed = http.is_multiplexed();
        if is_multiplexed {
            http.codec.observe(self.clock.now_ns(), io.output.len());
        }
        let used = self.http_events(key, input);
        if is_multiplexed {
            self.frames_read(key);
        }
        used
    }

    /// Decodes event by event.
    fn http_events(&mut self, key: Key<Downstream>, input: &[u8]) -> usize {
        let mut used = 0;
        while used < input.len() {
            let Some(Downstream { kind: Kind::Http(http), close_after_flush, .. }) =
                self.downs.get_mut(key)
            else {
                return input.len();
            };
            if !http.wants_input() || *close_after_flush {
                break;
            }
            let rest = &input[used..];
            let decoded = http.codec.decode(rest, &mut self.next_stream.request);
            used += decoded.consumed;
            match decoded.event {
                Event::NeedInput => {
                    if used < input.len() || decoded.consumed == 0 {
                        self.head_began(key);
                    }
                    break;
                }
                Event::Blocked => {
                    http.is_blocked = true;
                    break;
                }
                Event::Head { stream, end_stream } => self.open_stream(key, stream, end_stream),
                Event::Informational { .. } => {}
                Event::Data { stream: id, range, end_stream } => match http.streams.get(id) {
                    Some(stream) => self.request_data(stream, &rest[range], end_stream),
                    // Its other half has ended: nobody hears this.
                    None => http.codec.passed_on(id, range.len()),
                },
                Event::Trailers { stream } => {
                    if let Some(stream) = http.streams.get(stream) {
                        self.request_trailers(stream);
                    }
                }
                Event::End { stream } => {
                    if let Some(stream) = http.streams.get(stream) {
                        self.request_data(stream, &[], true);
                    }
                }
                Event::Reset { stream, .. } => {
                    if let Some(stream) = http.streams.get(stream) {
                        self.downstream_reset(stream);
                    }
                }
                Event::Room { stream: Some(stream) } => self.client_has_room_for(key, stream),
                Event::Room { stream: None } | Event::PeerSettings => self.client_has_room(key),
                Event::Pong | Event::GoAway => {}
                Event::Error(error) => self.http_error(key, &error),
            }
        }
        used
    }

    /// A head is whole: a stream begins.
    fn open_stream(&mut self, key: Key<Downstream>, id: StreamId, end_stream: bool) {
        let fresh = self.idle_streams.pop().unwrap_or_default();
        let stream = std::mem::replace(&mut self.next_stream, fresh);
        let stream_id = self.unique_id();
        let stream_key = self.streams.insert(stream);
        let (Some(stream), Some(Downstream { kind: Kind::Http(http), info, .. })) =
            (self.streams.get_mut(stream_key), self.downs.get_mut(key))
        else {
            return;
        };
        let now = self.clock.now_ns();
        http.streams.insert(id, stream_key);
        http.requests += 1;
        let began = std::mem::take(&mut http.head_since_ns);
        let began = if began == 0 { now } else { began };
        let state = Rc::clone(&http.state);
        state.cells.counters.inc(Stat::DOWNSTREAM_RQ_TOTAL);
        match &http.multiplexed {
            None => state.cells.counters.inc(Stat::DOWNSTREAM_RQ_HTTP1_TOTAL),
            Some(multiplexed) => {
                state.cells.counters.inc(Stat::DOWNSTREAM_RQ_HTTP2_TOTAL);
                multiplexed.cells.gauge_add(Http2Stat::STREAMS_ACTIVE, 1);
            }
        }
        state.cells.counters.gauge_add(Stat::DOWNSTREAM_RQ_ACTIVE, 1);
        let is_multiplexed = http.is_multiplexed();
        let is_last = state
            .config
            .limits
            .max_requests_per_connection
            .is_some_and(|most| http.requests >= most);
        if is_last && !http.is_draining {
            state.cells.counters.inc(Stat::DOWNSTREAM_CX_MAX_REQUESTS_REACHED);
            http.is_draining = true;
        }
        stream.begin(key, id, state, Rc::clone(info), now);
        stream.info.stream_id = stream_id;
        stream.info.timings.start_ns = began;
        stream.info.start_wall_ns = self.clock.wall_ns() - (now - began);
        if is_multiplexed {
            tunnel::from_extended_connect(&mut stream.request);
            stream.request_owed.begin(key, id);
            if is_last {
                self.say_goodbye(key);
            }
        }
        if self.fails_health_checks {
            self.drain_connection(key);
        }
        self.start_stream(stream_key, end_stream);
    }

    /// Part of a head has come: the clocks for the rest of it start.
    fn head_began(&mut self, key: Key<Downstream>) {
        let now = self.clock.now_ns();
        let Some(Downstream { kind: Kind::Http(http), .. }) = self.downs.get_mut(key) else {
            return;
        };
        let is_resting = match http.is_multiplexed() {
            true => !http.codec.is_in_head(),
            false => http.codec.is_idle() && !http.is_unsniffed,
        };
        if http.head_since_ns != 0 || !http.streams.is_empty() || is_resting {
            return;
        }
        http.head_since_ns = now;
        let timeouts = &http.state.config.timeouts;
        if timeouts.request_headers.is_some() || timeouts.request.is_some() {
            self.arm_downstream(key);
        }
    }

    /// The client broke the protocol: it is told so, and the connection ends.
    fn http_error(&mut self, key: Key<Downstream>, error: &CodecError) {
        let Some(Downstream { kind: Kind::Http(http), .. }) = self.downs.get_mut(key) else {
            return;
        };
        if http.is_multiplexed() {
            return self.frames_broken(key, error);
        }
        http.state.cells.counters.inc(Stat::DOWNSTREAM_CX_PROTOCOL_ERROR);
        // As in Envoy: what cannot be read on ends its request from the client's side.
        http.state.cells.counters.inc(Stat::DOWNSTREAM_RQ_RX_RESET);
        match http.streams.get(error.stream) {
            Some(stream) => self.protocol_error(stream, error),
            None => {
                self.next_stream.request.clear();
                self.open_error_stream(key, error);
            }
        }
    }

    /// A request that never became one still is answered and logged.
    fn open_error_stream(&mut self, key: Key<Downstream>, error: &CodecError) {
        if let Some(stream) = self.begin_unserved_stream(key, error.stream) {
            self.protocol_error(stream, error);
        }
    }

    /// A stream for a request that is not served, so that it is counted and logged.
    pub(super) fn begin_unserved_stream(
        &mut self,
        key: Key<Downstream>,
        id: StreamId,
    ) -> Option<Key<Box<Stream>>> {
        let fresh = self.idle_streams.pop().unwrap_or_default();
        let stream = std::mem::replace(&mut self.next_stream, fresh);
        let stream_id = self.unique_id();
        let stream_key = self.streams.insert(stream);
        let (Some(stream), Some(Downstream { kind: Kind::Http(http), info, .. })) =
            (self.streams.get_mut(stream_key), self.downs.get_mut(key))
        else {
            return None;
        };
        let now = self.clock.now_ns();
        http.streams.insert(id, stream_key);
        let counters = &http.state.cells.counters;
        counters.inc(Stat::DOWNSTREAM_RQ_TOTAL);
        counters.gauge_add(Stat::DOWNSTREAM_RQ_ACTIVE, 1);
        match &http.multiplexed {
            None => counters.inc(Stat::DOWNSTREAM_RQ_HTTP1_TOTAL),
            Some(multiplexed) => {
                counters.inc(Stat::DOWNSTREAM_RQ_HTTP2_TOTAL);
                multiplexed.cells.gauge_add(Http2Stat::STREAMS_ACTIVE, 1);
            }
        }
        stream.begin(key, id, Rc::clone(&http.state), Rc::clone(info), now);
        stream.info.stream_id = stream_id;
        stream.info.timings.start_ns = now;
        stream.info.start_wall_ns = self.clock.wall_ns();
        Some(stream_key)
    }

    /// A stream has ended: the connection goes on to the next request, rests, or ends.
    pub(crate) fn stream_left(&mut self, key: Key<Downstream>, id: StreamId) {
        let now = self.clock.now_ns();
        let Some(down) = self.downs.get_mut(key) else { return };
        let Kind::Http(http) = &mut down.kind else { return };
        http.streams.remove(id);
        let is_last = http.streams.is_empty();
        if is_last {
            http.idle_since_ns = now;
        }
        http.resume_reading();
        let is_multiplexed = match &http.multiplexed {
            None => false,
            Some(multiplexed) => {
                multiplexed.cells.gauge_add(Http2Stat::STREAMS_ACTIVE, -1);
                true
            }
        };
        if http.codec.must_close() {
            down.close_after_flush = true;
            self.mark_downstream(key);
            return;
        }
        if std::mem::take(&mut http.is_blocked) || down.io.readable || !down.io.input.is_empty() {
            self.wake_downstream(key);
        }
        // Of many streams the others' deadlines are armed, and whoever is woken for one that is gone looks again.
        if is_last || !is_multiplexed {
            self.arm_downstream(key);
        }
    }

    /// The connection is gone, and with it its streams.
    pub(crate) fn http_closed(
        &mut self,
        _key: Key<Downstream>,
        mut http: HttpConnection,
        reason: CloseReason,
    ) {
        http.count_frames();
        let counters = &http.state.cells.counters;
        counters.inc(Stat::DOWNSTREAM_CX_DESTROY);
        counters.gauge_add(Stat::DOWNSTREAM_CX_ACTIVE, -1);
        match &http.multiplexed {
            Some(multiplexed) => {
                counters.gauge_add(Stat::DOWNSTREAM_CX_HTTP2_ACTIVE, -1);
                // Its streams cannot tell any more.
                let streams = http.streams.len() as i64;
                multiplexed.cells.gauge_add(Http2Stat::STREAMS_ACTIVE, -streams);
            }
            None if http.is_unsniffed => {}
            None => counters.gauge_add(Stat::DOWNSTREAM_CX_HTTP1_ACTIVE, -1),
        }
        let has_streams = !http.streams.is_empty();
        let (total, active) = match reason {
            CloseReason::Remote => {
                (Stat::DOWNSTREAM_CX_DESTROY_REMOTE, Stat::DOWNSTREAM_CX_DESTROY_REMOTE_ACTIVE_RQ)
            }
            CloseReason::Local => {
                (Stat::DOWNSTREAM_CX_DESTROY_LOCAL, Stat::DOWNSTREAM_CX_DESTROY_LOCAL_ACTIVE_RQ)
            }
        };
        counters.inc(total);
        if has_streams {
            counters.inc(Stat::DOWNSTREAM_CX_DESTROY_ACTIVE_RQ);
            counters.inc(active);
        }
        let length_ms = (self.clock.now_ns() - http.opened_ns) / 1_000_000;
        http.state.cells.times.record(HttpTimes::DOWNSTREAM_CX_LENGTH_MS, length_ms);
        for stream in http.streams.keys() {
            self.downstream_gone(stream, reason);
        }
    }

    /// The client takes bytes again: streams that wait may go on.
    pub(crate) fn http_has_room(&mut self, key: Key<Downstream>) {
        let Some(Downstream { kind: Kind::Http(http), .. }) = self.downs.get(key) else { return };
        for stream in http.streams.keys() {
            self.resume_response(stream);
        }
    }

    /// The next deadline of an HTTP connection and its streams.
    pub(crate) fn http_deadline(&self, http: &HttpConnection) -> u64 {
        let timeouts = &http.state.config.timeouts;
        let mut deadline =
            after(http.opened_ns, timeouts.max_connection_duration.filter(|_| !http.is_draining));
        if let Some(multiplexed) = &http.multiplexed {
            deadline = deadline.min(multiplexed.deadline());
        }
        if http.streams.is_empty() {
            // A connection of many streams that is told to end ends when it has said so twice.
            let idle = timeouts.idle.filter(|_| !(http.is_multiplexed() && http.is_draining));
            deadline = deadline.min(after(http.idle_since_ns, idle)).min(http.rest_ends_ns);
            if http.head_since_ns != 0 {
                deadline = deadline.min(after(http.head_since_ns, timeouts.request_headers));
                deadline = deadline.min(after(http.head_since_ns, timeouts.request));
            }
        }
        for stream in http.streams.keys() {
            deadline =
                deadline.min(self.streams.get(stream).map_or(u64::MAX, |stream| stream.deadline()));
        }
        deadline
    }

    /// Something of an HTTP connection is due.
    pub(crate) fn http_timer(&mut self, key: Key<Downstream>, now: u64) {
        if self.multiplexed_timer(key, now) {
            return;
        }
        let Some(Downstream { kind: Kind::Http(http), .. }) = self.downs.get_mut(key) else {
            return;
        };
        let timeouts = &http.state.config.timeouts;
        let counters = &http.state.cells.counters;
        if http.streams.is_empty() {
            let head_due = after(
                http.head_since_ns,
                timeouts.request_headers.filter(|_| http.head_since_ns != 0),
            );
            let request_due =
                after(http.head_since_ns, timeouts.request.filter(|_| http.head_since_ns != 0));
            if head_due.min(request_due) <= now {
                counters.inc(if head_due <= now {
                    Stat::DOWNSTREAM_RQ_HEADER_TIMEOUT
                } else {
                    Stat::DOWNSTREAM_RQ_TIMEOUT
                });
                self.head_timed_out(key, head_due <= now);
                return;
            }
            let is_leaving = http.is_multiplexed() && http.is_draining;
            let idle_due = !is_leaving && after(http.idle_since_ns, timeouts.idle) <= now;
            if http.head_since_ns == 0 && (idle_due || http.rest_ends_ns <= now) {
                if idle_due {
                    counters.inc(Stat::DOWNSTREAM_CX_IDLE_TIMEOUT);
                }
                match http.is_multiplexed() {
                    true => self.drain_connection(key),
                    false => self.close_downstream(key, CloseReason::Local),
                }
                return;
            }
        }
        if after(http.opened_ns, timeouts.max_connection_duration) <= now && !http.is_draining {
            counters.inc(Stat::DOWNSTREAM_CX_MAX_DURATION_REACHED);
            self.drain_connection(key);
        }
        let Some(Downstream { kind: Kind::Http(http), .. }) = self.downs.get(key) else { return };
        for stream in http.streams.keys() {
            self.check_deadlines(stream, now);
        }
    }

    /// A head that does not come to an end: 408, and the connection ends.
    fn head_timed_out(&mut self, key: Key<Downstream>, header_timeout: bool) {
        let details =
            if header_timeout { "request_header_timeout" } else { "request_overall_timeout" };
        let error = CodecError {
            stream: StreamId(0),
            after_head: false,
            status: 408,
            details,
            reason: "timeout",
            close: true,
        };
        let Some(Downstream { kind: Kind::Http(http), .. }) = self.downs.get_mut(key) else {
            return;
        };
        self.next_stream.request.clear();
        if http.is_multiplexed() {
            return self.frames_broken(key, &error);
        }
        http.codec.start_drain(&mut Vec::new());
        self.open_error_stream(key, &error);
    }

    /// No new requests: the answer in progress, or the next, says that it is the last. A connection that rests is closed
    /// only after the drain time: closing it now could cross a request on its way.
    pub(crate) fn drain_connection(&mut self, key: Key<Downstream>) {
        let now = self.clock.now_ns();
        let Some(http) = self.http_of(key) else { return };
        if http.is_draining {
            return;
        }
        http.is_draining = true;
        http.state.cells.counters.inc(Stat::DOWNSTREAM_CX_DRAIN_CLOSE);
        if http.is_multiplexed() {
            return self.say_goodbye(key);
        }
        http.rest_ends_ns = after(now, Some(http.state.config.timeouts.drain));
        self.arm_downstream(key);
    }

    /// Closes a connection that rests, unless a request turns out to have arrived. One that never had any keeps the
    /// drain time: its client has only just come.
    pub(crate) fn close_if_resting(&mut self, key: Key<Downstream>) {
        let Some(down) = self.downs.get_mut(key) else { return };
        down.io.readable = true;
        self.read_downstream(key, None);
        self.drain_connection(key);
        let Some(down) = self.downs.get_mut(key) else { return };
        let Kind::Http(http) = &mut down.kind else { return };
        if http.requests > 0 && http.is_resting() && down.io.input.is_empty() {
            if http.is_multiplexed() {
                return self.say_last_goodbye(key);
            }
            down.close_after_flush = true;
            self.mark_downstream(key);
        }
    }
}

/// `since + duration`; `u64::MAX` for none.
pub(crate) fn after(since_ns: u64, duration: Option<std::time::Duration>) -> u64 {
    duration.map_or(u64::MAX, |duration| {
        since_ns.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    })
}
