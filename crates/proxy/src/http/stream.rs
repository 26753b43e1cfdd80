//! Step 7: one request's state machine. The file to read if you read only one.
//!
//! A stream names its client's connection and its upstream connection by key and owns neither. It moves by events:
//! bytes of the request (from the connection manager), the attempt's fate and bytes of the response (from upstream),
//! deadlines, and what filters ask for. It ends when the response is whole, or when either side gives up.

use std::rc::Rc;

use codec::event::{CodecError, StreamId};
use codec::headers::{Fields, RequestHead, ResponseHead, names};
use telemetry::stats::sets::{HttpConnManager as Stat, HttpTimes};

use super::config::RouteSource;
use super::flow::{Owed, Rest};
use super::request_headers::{HeadRules, Rejection, sanitise};
use super::tunnel;
use crate::arena::Key;
use crate::buffer::Pending;
use smallvec::SmallVec;

use crate::filter_manager::calls::{Caller, FilterCall, FilterTimer};
use crate::filter_manager::iterate::Progress;
use crate::filter_manager::{ChainInstance, Direction, LocalReply};
use crate::listener::chain::HttpState;
use crate::network::downstream::{CloseReason, Downstream, Kind};
use crate::route_table::RouteInput;
use crate::router::RouterState;
use crate::stream_info::{ConnectionInfo, LogRecord, ResponseFlags, StreamInfo};
use crate::timer_wheel::TimerHandle;
use crate::upstream::connection::UpstreamConnection;
use crate::worker::Worker;

/// One request and its response.
#[derive(Debug, Default)]
pub struct Stream {
    /// The client's connection; `None` for calls made by filters.
    pub downstream: Option<Key<Downstream>>,
    /// Its number there.
    pub id: StreamId,
    /// The connection manager that serves it, pinned.
    pub http: Option<Rc<HttpState>>,
    /// The request, as it will be sent on.
    pub request: RequestHead,
    /// The response, as it is sent on.
    pub response: ResponseHead,
    /// Request trailers, once `has_request_trailers`.
    pub request_trailers: Fields,
    /// Response trailers, once `has_response_trailers`.
    pub response_trailers: Fields,
    /// What happened.
    pub info: StreamInfo,
    /// This stream's filters.
    pub chain: Option<Box<ChainInstance>>,
    /// Request body bytes that wait for an upstream, or are kept for another attempt.
    pub body: Pending,
    /// What its client is not told of yet that it has sent of the request.
    pub request_owed: Owed<Downstream>,
    /// Response body bytes that wait for the client's window.
    pub unsent: Pending,
    /// What comes after them.
    pub unsent_rest: Rest,
    /// It is in its connection's line of those that wait for the client's window.
    pub awaits_client: bool,
    /// What its host is not told of yet that it has sent of the response.
    pub response_owed: Owed<UpstreamConnection>,
    /// Attempts, timeouts, retries.
    pub router: RouterState,
    /// How far the request has come through the filters.
    pub decode: Progress,
    /// How far the response has.
    pub encode: Progress,
    /// For calls: on whose behalf.
    pub caller: Option<Caller>,
    /// For calls: the answer's body.
    pub call_body: Vec<u8>,
    /// Calls that filters have in flight.
    pub calls: SmallVec<[FilterCall; 1]>,
    /// Timers of filters.
    pub timers: SmallVec<[FilterTimer; 1]>,
    /// How often it was answered from here: whoever is under way with another answer sees that it is not wanted.
    pub replies: u32,
    /// The request has come whole.
    pub request_done: bool,
    /// The request has passed the filters whole: the router has all of it.
    pub request_ready: bool,
    /// Its trailers have.
    pub trailers_ready: bool,
    /// There are request trailers.
    pub has_request_trailers: bool,
    /// There are response trailers.
    pub has_response_trailers: bool,
    /// The response has begun to be encoded.
    pub response_started: bool,
    /// The last time anything moved.
    pub last_activity_ns: u64,
    /// Only for streams without a client's connection.
    pub timer: TimerHandle,
}

impl Stream {
    /// Starts over for a new request, whose head is in `request`.
    pub fn begin(
        &mut self,
        downstream: Key<Downstream>,
        id: StreamId,
        http: Rc<HttpState>,
        connection: Rc<ConnectionInfo>,
        now_ns: u64,
    ) {
        self.downstream = Some(downstream);
        self.id = id;
        self.info.protocol = Some(self.request.version);
        self.info.connection = Some(connection);
        self.http = Some(http);
        self.last_activity_ns = now_ns;
    }

    /// Back to nothing; memory of heads is kept.
    fn recycle(&mut self) {
        self.downstream = None;
        self.http = None;
        self.request.clear();
        self.response.clear();
        self.request_trailers.clear();
        self.response_trailers.clear();
        self.info.clear();
        self.router = RouterState::default();
        self.caller = None;
        (self.request_owed, self.response_owed) = Default::default();
        (self.unsent_rest, self.awaits_client) = (Rest::More, false);
        self.call_body.clear();
        self.calls.clear();
        self.timers.clear();
        self.replies = 0;
        (self.request_ready, self.trailers_ready) = (false, false);
        (self.request_done, self.response_started) = (false, false);
        (self.has_request_trailers, self.has_response_trailers) = (false, false);
    }

    /// A tunnel was asked for and has not been granted yet.
    pub fn awaits_tunnel(&self) -> bool {
        tunnel::asks_for_tunnel(&self.request) && self.info.timings.upstream_first_rx_ns == 0
    }

    /// When it must be looked at.
    pub fn deadline(&self) -> u64 {
        let idle = self
            .idle_timeout_ns()
            .map_or(u64::MAX, |idle| self.last_activity_ns.saturating_add(idle));
        let silence = self.silence_ends_ns();
        let request = self.request_deadline();
        let life = self.router.stream_ends_ns();
        let timer = self.timers.iter().map(|timer| timer.deadline_ns).min().unwrap_or(u64::MAX);
        idle.min(silence).min(request).min(life).min(timer).min(self.router.deadline())
    }

    fn idle_timeout_ns(&self) -> Option<u64> {
        let configured = self.http.as_ref().and_then(|http| http.config.timeouts.stream_idle);
        self.router
            .idle_timeout
            .unwrap_or(configured)
            .map(|idle| u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX))
    }

    fn request_deadline(&self) -> u64 {
        match &self.http {
            Some(http) if !self.request_done => {
                super::conn_manager::after(self.info.timings.start_ns, http.config.timeouts.request)
            }
            _ => u64::MAX,
        }
    }
}

/// Ended streams kept for reuse.
const MAX_IDLE_STREAMS: usize = 512;
/// Heads larger than this give their memory back.
const MAX_KEPT_HEAD: usize = 16 * 1024;

impl Worker {
    /// A request's head is there: it is made safe, routed and sent on its way.
    pub(crate) fn start_stream(&mut self, key: Key<Box<Stream>>, end_stream: bool) {
        let now = self.clock.now_ns();
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(http) = &stream.http else { return };
        if end_stream {
            stream.request_done = true;
            stream.info.timings.request_end_ns = now;
        }
        stream.chain = self.chains.take(&http.config.filters, &self.cx);
        if let Err(rejection) = self.make_safe(key) {
            return self.reject(key, rejection);
        }
        if !end_stream {
            self.answer_expectation(key);
        }
        self.find_route(key);
        let Some(stream) = self.streams.get_mut(key) else { return };
        if let Some(chain) = &mut stream.chain {
            chain.begin(stream.info.route.as_ref());
            self.filter_head(key, Direction::Decode, 0, end_stream);
        } else {
            stream.request_ready = end_stream;
            self.send_upstream(key);
        }
        self.arm_stream(key);
    }

    /// Step 8: nothing reads a head that has not been made safe.
    fn make_safe(&mut self, key: Key<Box<Stream>>) -> Result<(), Rejection> {
        let Some(stream) = self.streams.get_mut(key) else { return Ok(()) };
        let (Some(http), Some(connection)) = (&stream.http, &stream.info.connection) else {
            return Ok(());
        };
        let table = match &http.config.routes {
            RouteSource::Inline(table) => Some(table),
            RouteSource::Slot(slot) => self.tables.get(*slot),
        };
        let internal_only = table.map_or(&[][..], |table| &table.config().internal_only_headers);
        let rules = HeadRules::new(&http.config, internal_only);
        let caller = sanitise(&mut stream.request, rules, connection, &mut self.random)?;
        stream.info.remote_address = caller.address.map(|address| (address, 0).into());
        Ok(())
    }

    fn reject(&mut self, key: Key<Box<Stream>>, rejection: Rejection) {
        let (statistic, flags) = (rejection.statistic(), rejection.flags());
        let headers = match rejection.location {
            Some(location) => vec![("location".into(), String::from_utf8_lossy(&location).into())],
            None => Vec::new(),
        };
        if rejection.close {
            self.answer_is_last(key);
        }
        if let (Some(stat), Some(http)) =
            (statistic, self.streams.get(key).and_then(|stream| stream.http.as_ref()))
        {
            http.cells.counters.inc(stat);
        }
        let reply = LocalReply {
            status: rejection.status,
            flags,
            body: rejection.body.into(),
            headers,
            details: rejection.details,
            ..LocalReply::default()
        };
        self.local_reply(key, reply);
    }

    /// The connection ends with this stream's answer, which says so.
    pub(crate) fn answer_is_last(&mut self, key: Key<Box<Stream>>) {
        if let Some(down) = self.streams.get(key).and_then(|stream| stream.downstream)
            && let Some(http) = self.http_of(down)
            && !http.is_multiplexed()
        {
            http.is_draining = true;
        }
    }

    /// Tells a client that waits for leave to send its body that it has it.
    fn answer_expectation(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(expected) = stream.request.fields.get(names::EXPECT) else { return };
        let passes_on = stream.http.as_ref().is_none_or(|http| http.config.proxy_100_continue);
        if passes_on || !expected.eq_ignore_ascii_case(b"100-continue") {
            return;
        }
        self.spare_response.clear();
        self.spare_response.status = 100;
        self.send_informational(key);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.request.fields.remove(names::EXPECT);
        }
    }

    /// Step 9: looks the route up and pins it.
    pub(crate) fn find_route(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(http) = &stream.http else { return };
        let table = match &http.config.routes {
            RouteSource::Inline(table) => Some(table),
            RouteSource::Slot(slot) => self.tables.get(*slot),
        };
        let tls = stream.info.connection.as_ref().and_then(|connection| connection.tls.as_deref());
        let input = RouteInput { random: self.random.draw(), tls };
        stream.info.route =
            table.and_then(|table| table.route(&stream.request, input, &mut self.route_scratch));
        let (limit, start) =
            (http.config.timeouts.max_stream_duration, stream.info.timings.start_ns);
        stream.router.limit_stream(stream.info.route.as_ref(), &mut stream.request, limit, start);
    }

    /// Body bytes of the request, perhaps the last.
    pub(crate) fn request_data(&mut self, key: Key<Box<Stream>>, data: &[u8], end_stream: bool) {
        let now = self.clock.now_ns();
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.last_activity_ns = now;
        stream.info.bytes_received += data.len() as u64;
        stream.request_owed.arrived(data.len());
        if end_stream {
            stream.request_done = true;
            stream.info.timings.request_end_ns = now;
        }
        if stream.chain.is_some() {
            self.filter_data(key, Direction::Decode, 0, data, end_stream);
        } else {
            stream.request_ready |= end_stream;
            self.upstream_request_data(key, data);
        }
        self.settle_request(key);
        if end_stream {
            self.arm_stream(key);
        }
    }

    /// The request's trailers: they are in the fields of `next_stream`'s head.
    pub(crate) fn request_trailers(&mut self, key: Key<Box<Stream>>) {
        let now = self.clock.now_ns();
        let Some(stream) = self.streams.get_mut(key) else { return };
        std::mem::swap(&mut stream.request_trailers, &mut self.next_stream.request.fields);
        self.next_stream.request.clear();
        stream.has_request_trailers = true;
        stream.request_done = true;
        stream.last_activity_ns = now;
        stream.info.timings.request_end_ns = now;
        if stream.chain.is_some() {
            self.filter_trailers(key, Direction::Decode, 0);
        } else {
            (stream.request_ready, stream.trailers_ready) = (true, true);
            self.upstream_request_data(key, &[]);
        }
        self.arm_stream(key);
    }

    /// The client broke the protocol within a request.
    pub(crate) fn protocol_error(&mut self, key: Key<Box<Stream>>, error: &CodecError) {
        let flags = match error.status {
            408 => ResponseFlags::default(),
            _ => ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR,
        };
        let body = match error.status {
            400 => "Bad Request",
            408 if error.details == "request_header_timeout" => "request header timeout",
            408 => "request timeout",
            426 => "Upgrade Required",
            431 => "Request Header Fields Too Large",
            501 => "Not Implemented",
            _ => "",
        };
        let reply = LocalReply {
            status: error.status,
            body: body.into(),
            details: error.details,
            flags,
            ..LocalReply::default()
        };
        self.local_reply(key, reply);
    }

    /// The client gave up this stream.
    pub(crate) fn downstream_reset(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.info.flags.insert(ResponseFlags::DOWNSTREAM_REMOTE_RESET);
        if let Some(http) = &stream.http {
            http.cells.counters.inc(Stat::DOWNSTREAM_RQ_RX_RESET);
        }
        stream.info.response_code_details = "downstream_remote_disconnect";
        self.end_stream(key);
    }

    /// The client's connection is gone.
    pub(crate) fn downstream_gone(&mut self, key: Key<Box<Stream>>, reason: CloseReason) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.info.flags.insert(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION);
        if stream.info.response_code_details.is_empty() || !stream.response_started {
            stream.info.response_code_details = match reason {
                CloseReason::Remote => "downstream_remote_disconnect",
                CloseReason::Local => "downstream_local_disconnect",
            };
        }
        self.end_stream(key);
    }

    /// It is over, whichever way: the attempt is given up, loggers hear of it, the connection goes on.
    pub(crate) fn end_stream(&mut self, key: Key<Box<Stream>>) {
        self.abandon_attempt(key);
        self.drop_calls(key);
        self.count_head_bytes(key);
        self.filters_complete(key);
        let Some(mut stream) = self.streams.remove(key) else { return };
        let now = self.clock.now_ns();
        stream.info.timings.end_ns = now;
        if let Some(http) = stream.http.take() {
            let counters = &http.cells.counters;
            counters.gauge_add(Stat::DOWNSTREAM_RQ_ACTIVE, -1);
            let ms = (now - stream.info.timings.start_ns) / 1_000_000;
            http.cells.times.record(HttpTimes::DOWNSTREAM_RQ_TIME, ms);
            self.log(&stream, &http);
        }
        if let Some(chain) = stream.chain.take() {
            self.chains.give(chain);
        }
        self.wheel.cancel(&mut stream.timer);
        stream.body.clear(&mut self.buffers);
        stream.unsent.clear(&mut self.buffers);
        stream.decode.clear(&mut self.buffers);
        stream.encode.clear(&mut self.buffers);
        let (downstream, id) = (stream.downstream, stream.id);
        stream.recycle();
        if self.idle_streams.len() < MAX_IDLE_STREAMS
            && stream.request.fields.capacity() <= MAX_KEPT_HEAD
        {
            self.idle_streams.push(stream);
        }
        if let Some(downstream) = downstream {
            self.stream_left(downstream, id);
        }
    }

    /// The sizes of heads, for those who ask at the end.
    fn count_head_bytes(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(http) = &stream.http else { return };
        if stream.chain.is_some() || !http.config.access_loggers.is_empty() {
            stream.info.request_header_bytes = stream.request.byte_size() as u32;
            if stream.info.response_code != 0 {
                stream.info.response_header_bytes = stream.response.byte_size() as u32;
            }
        }
    }

    fn log(&self, stream: &Stream, http: &HttpState) {
        if http.config.access_loggers.is_empty() {
            return;
        }
        let record = LogRecord {
            worker: self.cx.index,
            now_ns: self.clock.now_ns(),
            info: &stream.info,
            request: Some(&stream.request),
            response: (stream.info.response_code != 0).then_some(&stream.response),
            response_trailers: stream.has_response_trailers.then_some(&stream.response_trailers),
        };
        for logger in &http.config.access_loggers {
            logger.log(&record);
        }
    }

    /// Makes sure the stream is looked at by its next deadline.
    pub(crate) fn arm_stream(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let deadline = stream.deadline();
        match stream.downstream {
            Some(downstream) => self.arm_downstream_at(downstream, deadline),
            None if deadline != u64::MAX => {
                let token = crate::worker::token::Owner::Stream(key).token();
                self.wheel.arm(&mut stream.timer, token, deadline);
            }
            None => {}
        }
    }

    pub(crate) fn stream_timer(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        crate::timer_wheel::TimerWheel::fired(&mut stream.timer);
        self.check_deadlines(key, self.clock.now_ns());
        self.arm_stream(key);
    }

    /// Does what is due.
    pub(crate) fn check_deadlines(&mut self, key: Key<Box<Stream>>, now: u64) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if !stream.timers.is_empty() {
            self.filter_timers(key, now);
        }
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(http) = stream.http.clone() else { return self.router_deadlines(key, now) };
        let counters = &http.cells.counters;
        if stream.request_deadline() <= now {
            counters.inc(Stat::DOWNSTREAM_RQ_TIMEOUT);
            return self.time_out(
                key,
                408,
                "request timeout",
                "request_overall_timeout",
                ResponseFlags::default(),
            );
        }
        if stream.router.stream_ends_ns() <= now {
            let reply = crate::router::reply::stream_too_long(stream.request_done);
            return self.local_reply(key, reply);
        }
        if stream
            .idle_timeout_ns()
            .is_some_and(|idle| stream.last_activity_ns.saturating_add(idle) <= now)
        {
            counters.inc(Stat::DOWNSTREAM_RQ_IDLE_TIMEOUT);
            let status = if stream.request_done { 504 } else { 408 };
            let flags = ResponseFlags::STREAM_IDLE_TIMEOUT;
            return self.time_out(key, status, "stream timeout", "stream_idle_timeout", flags);
        }
        self.router_deadlines(key, now);
    }

    fn time_out(
        &mut self,
        key: Key<Box<Stream>>,
        status: u16,
        body: &'static str,
        details: &'static str,
        flags: ResponseFlags,
    ) {
        self.local_reply(
            key,
            LocalReply { status, body: body.into(), details, flags, ..LocalReply::default() },
        );
    }

    /// The HTTP side of a stream's client connection.
    pub(crate) fn http_of(
        &mut self,
        key: Key<Downstream>,
    ) -> Option<&mut crate::http::conn_manager::HttpConnection> {
        match self.downs.get_mut(key) {
            Some(Downstream { kind: Kind::Http(http), .. }) => Some(http),
            _ => None,
        }
    }
}
