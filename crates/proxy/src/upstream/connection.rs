//! A connection to a host: opening, reads and writes, its end. Like a client's connection, seen from the other side.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use codec::client::ClientCodec;
use codec::event::Event as CodecEvent;
use codec::headers::Version;
use codec::{http1, raw};
use mio::Token;
use mio::event::Event;
use telemetry::stats::sets::{Cluster as ClusterStat, ClusterTimes};
use telemetry::stats::{Counter, Local};

use super::cluster::Cluster;
use super::config::UpstreamProtocol;
use super::host::Host;
use super::multiplexed::Multiplexed;
use super::opening::{Opening, Progress};
use super::pool::Pool;
use crate::arena::Key;
use crate::http::conn_manager::after;
use crate::http::stream::Stream;
use crate::http::stream_table::StreamTable;
use crate::http::{flow, protocol};
use crate::network::credits::Credits;
use crate::network::downstream::Downstream;
use crate::network::io::{FlushResult, Io, Landed, ReadResult};
use crate::network::socket::Socket;
use crate::network::tls;
use crate::router::ResetReason;
use crate::stream_info::ConnectionInfo;
use crate::timer_wheel::{TimerHandle, TimerWheel};
use crate::worker::Worker;
use crate::worker::token::Owner;

/// One connection to a host.
#[derive(Debug)]
pub struct UpstreamConnection {
    /// Its bytes.
    pub io: Io,
    /// Bytes ⇄ events.
    pub codec: ClientCodec,
    /// Streams on it: one for HTTP/1.
    pub streams: StreamTable,
    /// Its pool.
    pub pool: Key<Pool>,
    /// Its cluster.
    pub cluster: Arc<Cluster>,
    /// Its host.
    pub host: Arc<Host>,
    /// What is known of it; made when it is open.
    pub info: Rc<ConnectionInfo>,
    /// How far it is from being open.
    pub opening: Opening,
    /// Until it is open: when to give up.
    pub connect_deadline_ns: u64,
    /// Since when it has been idle.
    pub idle_since_ns: u64,
    /// Requests so far.
    pub requests: u32,
    /// It has answered a request.
    pub has_answered: bool,
    /// It is in its pool's list of those that can take a stream.
    pub is_available: bool,
    /// A client is slower than this host: reading rests.
    pub read_paused: bool,
    /// Some client is not read from until this connection has written enough.
    pub above_high_watermark: bool,
    /// What only a connection of many streams has.
    pub multiplexed: Option<Box<Multiplexed>>,
    /// Streams with bytes for which the host's window has no room, in their turn.
    pub waiting: VecDeque<Key<Box<Stream>>>,
    /// Bytes of requests in `io.output` that their clients' windows wait for.
    pub credits: Credits<Downstream>,
    /// This worker's cells of its cluster.
    counters: Local<ClusterStat>,
    /// What the gauges of buffered bytes have of it: read and kept, encoded and not written.
    buffered: (u32, u32),
    /// Bytes written and counted so far.
    written: u64,
    opened_ns: u64,
    timer: TimerHandle,
    is_dirty: bool,
    is_ready: bool,
}

const READS_PER_TURN: usize = 4;

impl UpstreamConnection {
    fn is_connecting(&self) -> bool {
        self.opening.is_pending()
    }

    /// Where bytes may be taken from before it is their turn.
    pub(crate) fn io_to_read_ahead(&self) -> Option<&Io> {
        let wants_input = !self.is_connecting() && !self.io.eof && !self.read_paused;
        wants_input.then_some(&self.io)
    }
}

impl Worker {
    /// Opens another connection of a pool.
    pub(crate) fn connect_upstream(&mut self, pool_key: Key<Pool>) {
        let Some(pool) = self.upstreams.pools.get_mut(pool_key) else { return };
        let (at, cluster, host) = (pool.at, Arc::clone(&pool.cluster), Arc::clone(&pool.host));
        let key = self.ups.next_key();
        let registry = self.poll.registry();
        let socket = Socket::connect(&host.address, cluster.config.tcp_keepalive.as_ref())
            .and_then(|mut socket| {
                socket.register(registry, Token(Owner::Upstream(key).token() as usize))?;
                Ok(socket)
            });
        if let Some(worker_cluster) = self.upstreams.get(at) {
            let counters = &worker_cluster.cells.counters;
            counters.inc(ClusterStat::UPSTREAM_CX_TOTAL);
            counters.gauge_add(ClusterStat::UPSTREAM_CX_ACTIVE, 1);
        }
        host.counters.cx_total.fetch_add(1, Ordering::Relaxed);
        host.counters.cx_active.fetch_add(1, Ordering::Relaxed);
        cluster.breakers[0].connections.acquire();
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => return self.connect_refused(pool_key, &cluster, &host, &error),
        };
        let Some(pool) = self.upstreams.pools.get_mut(pool_key) else { return };
        pool.connections += 1;
        pool.connecting += 1;
        let connect_deadline_ns = self.clock.after(Some(cluster.config.connect_timeout));
        let protocol = pool.protocol;
        let options = protocol::http1_to(&cluster.config.http);
        let now = self.clock.now_ns();
        let counters = self.cx.recorder.local(&cluster.stats.counters);
        self.ups.insert(UpstreamConnection {
            counters,
            buffered: (0, 0),
            written: 0,
            io: Io::new(socket, false),
            // Which one it is to be is known once the connection is open.
            codec: match protocol {
                UpstreamProtocol::Raw => ClientCodec::Raw(raw::ClientCodec::new()),
                _ => ClientCodec::Http1(http1::ClientCodec::new(options)),
            },
            has_answered: false,
            is_available: false,
            streams: StreamTable::default(),
            pool: pool_key,
            cluster,
            host,
            info: Rc::default(),
            opening: Opening::Connecting,
            connect_deadline_ns,
            idle_since_ns: now,
            requests: 0,
            read_paused: false,
            above_high_watermark: false,
            multiplexed: None,
            waiting: VecDeque::new(),
            credits: Credits::default(),
            opened_ns: now,
            timer: TimerHandle::default(),
            is_dirty: false,
            is_ready: false,
        });
        if let (Some(connection), Some(version)) = (self.ups.get(key), protocol.version()) {
            connection.count_protocol(version);
        }
        self.arm_upstream(key);
    }

    /// The socket could not even begin to connect.
    fn connect_refused(
        &mut self,
        pool_key: Key<Pool>,
        cluster: &Cluster,
        host: &Host,
        error: &std::io::Error,
    ) {
        cluster.breakers[0].connections.release();
        host.counters.cx_active.fetch_sub(1, Ordering::Relaxed);
        host.counters.cx_connect_fail.fetch_add(1, Ordering::Relaxed);
        if let Some(pool) = self.upstreams.pools.get(pool_key)
            && let Some(cluster) = self.upstreams.get(pool.at)
        {
            cluster.cells.counters.gauge_add(ClusterStat::UPSTREAM_CX_ACTIVE, -1);
            cluster.cells.counters.inc(ClusterStat::UPSTREAM_CX_CONNECT_FAIL);
        }
        tracing::debug!(host = %host.address_text, %error, "connect failed at once");
        self.fail_waiting(pool_key, ResetReason::ConnectionFailure, None);
    }

    pub(crate) fn upstream_event(
        &mut self,
        key: Key<UpstreamConnection>,
        event: &Event,
        ahead: Option<Landed>,
    ) {
        let Some(connection) = self.ups.get_mut(key) else { return };
        let ends = event.is_read_closed() || event.is_error() || event.is_write_closed();
        if matches!(connection.opening, Opening::Connecting) {
            if event.is_writable() || ends {
                self.connect_finished(key);
            }
            if !(event.is_readable() || ends) {
                return;
            }
        } else if event.is_writable() && !connection.io.writable {
            connection.io.writable = true;
            self.mark_upstream(key);
        }
        let Some(connection) = self.ups.get_mut(key) else { return };
        if event.is_readable() || ends {
            connection.io.readable = true;
            connection.io.fin_seen |= ends;
            self.read_upstream(key, ahead);
        }
    }

    fn connect_finished(&mut self, key: Key<UpstreamConnection>) {
        let Some(connection) = self.ups.get_mut(key) else { return };
        let host = Arc::clone(&connection.host);
        let pool = self.upstreams.pools.get(connection.pool);
        let alpn = pool.and_then(|pool| pool.alpn.as_ref());
        let fallback = pool.and_then(|pool| pool.fallback_alpn.as_ref());
        let (opening, io) = (&mut connection.opening, &mut connection.io);
        match opening.connect_ended(io, &host, alpn, fallback, &mut self.buffers) {
            Progress::Pending => self.mark_upstream(key),
            Progress::Opened => self.connection_opened(key),
            Progress::Failed(reason) => {
                tracing::debug!(host = %host.address_text, reason, "connect failed");
                self.close_unopened(key, ResetReason::ConnectionFailure, Some(&reason));
            }
        }
    }

    /// TCP and, where it is wanted, TLS are there: the connection can serve.
    fn connection_opened(&mut self, key: Key<UpstreamConnection>) {
        let now = self.clock.now_ns();
        let id = self.unique_id();
        let Some(connection) = self.ups.get_mut(key) else { return };
        let UpstreamConnection { opening, io, host, opened_ns, .. } = connection;
        connection.info = Rc::new(opening.finish(io, host, id, *opened_ns, now));
        connection.connect_deadline_ns = u64::MAX;
        let connect_ms = (now - connection.opened_ns) / 1_000_000;
        if let Some(pool) = self.upstreams.pools.get_mut(connection.pool) {
            pool.connecting -= 1;
            let at = pool.at;
            if let Some(cluster) = self.upstreams.get(at) {
                cluster.cells.times.record(ClusterTimes::UPSTREAM_CX_CONNECT_MS, connect_ms);
                if let Some(tls) = &connection.info.tls {
                    let block = connection.cluster.stats.tls.as_ref();
                    tls::stats::handshake(&self.cx.recorder, block, tls);
                }
            }
        }
        let pool = connection.pool;
        self.begin_upstream_protocol(key);
        self.mark_upstream(key);
        self.connection_available(key);
        self.open_for_waiting(pool);
    }

    /// More may be read than the last turn allowed, or reading was paused.
    pub(crate) fn upstream_ready(&mut self, key: Key<UpstreamConnection>) {
        let Some(connection) = self.ups.get_mut(key) else { return };
        connection.is_ready = false;
        if !connection.io.input.is_empty() {
            self.deliver_pending_response(key);
        }
        self.read_upstream(key, None);
    }

    /// As `read_downstream`.
    fn read_upstream(&mut self, key: Key<UpstreamConnection>, mut ahead: Option<Landed>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for turn in 0.. {
            let Some(connection) = self.ups.get_mut(key) else { break };
            let io = &connection.io;
            let may_read = io.readable && !io.eof && !connection.read_paused;
            if !may_read && ahead.is_none() {
                break;
            }
            if turn == READS_PER_TURN {
                self.wake_upstream(key);
                break;
            }
            let result = connection.io.read(ahead.take(), &mut scratch, &mut self.buffers);
            let has_records = connection.io.has_records();
            if connection.opening.handshake_step(&mut connection.io) {
                self.connection_opened(key);
            } else if has_records {
                self.mark_upstream(key);
            }
            match result {
                ReadResult::Data(bytes) => self.upstream_bytes(key, bytes),
                ReadResult::Nothing => {}
                ReadResult::WouldBlock => break,
                ReadResult::Eof => self.upstream_eof(key),
                ReadResult::Failed(error) => self.upstream_broken(key, &error),
            }
        }
        self.scratch = scratch;
    }

    fn upstream_bytes(&mut self, key: Key<UpstreamConnection>, bytes: &[u8]) {
        let Some(connection) = self.ups.get_mut(key) else { return };
        connection.counters.add(ClusterStat::UPSTREAM_CX_RX_BYTES_TOTAL, bytes.len() as u64);
        if !connection.io.input.is_empty() {
            connection.io.input.writer(&mut self.buffers).extend_from_slice(bytes);
            return self.deliver_pending_response(key);
        }
        let used = self.response_input(key, bytes);
        if used < bytes.len()
            && let Some(connection) = self.ups.get_mut(key)
        {
            connection.io.input.writer(&mut self.buffers).extend_from_slice(&bytes[used..]);
        }
    }

    fn deliver_pending_response(&mut self, key: Key<UpstreamConnection>) {
        let Some(connection) = self.ups.get_mut(key) else { return };
        let mut input = std::mem::take(&mut connection.io.input);
        let used = self.response_input(key, input.as_slice());
        input.consume(used, &mut self.buffers);
        match self.ups.get_mut(key) {
            Some(connection) => connection.io.input = input,
            None => input.clear(&mut self.buffers),
        }
    }

    /// Decodes what has come; says how many bytes are done with.
    fn response_input(&mut self, key: Key<UpstreamConnection>, input: &[u8]) -> usize {
        let Some(connection) = self.ups.get_mut(key) else { return input.len() };
        let is_multiplexed = connection.is_multiplexed();
        if is_multiplexed {
            connection.codec.observe(self.clock.now_ns(), connection.io.output.len());
        }
        let used = self.response_events(key, input);
        if is_multiplexed {
            self.host_frames_read(key);
        }
        used
    }

    /// Decodes event by event.
    fn response_events(&mut self, key: Key<UpstreamConnection>, input: &[u8]) -> usize {
        let mut used = 0;
        while used < input.len() {
            let Some(connection) = self.ups.get_mut(key) else { return input.len() };
            if connection.read_paused {
                break;
            }
            let rest = &input[used..];
            let decoded = connection.codec.decode(rest, &mut self.spare_response);
            used += decoded.consumed;
            if matches!(decoded.event, CodecEvent::NeedInput | CodecEvent::Blocked) {
                break;
            }
            self.response_event(key, decoded.event, rest);
        }
        used
    }

    pub(super) fn response_event(
        &mut self,
        key: Key<UpstreamConnection>,
        event: CodecEvent,
        input: &[u8],
    ) {
        let Some(connection) = self.ups.get_mut(key) else { return };
        let streams = &connection.streams;
        match event {
            CodecEvent::NeedInput | CodecEvent::Blocked => {}
            CodecEvent::Head { stream, end_stream } => {
                if let Some(stream) = streams.get(stream) {
                    self.upstream_head(stream, key, end_stream);
                }
            }
            CodecEvent::Informational { stream } => {
                if let Some(stream) = streams.get(stream) {
                    self.send_informational(stream);
                }
            }
            CodecEvent::Data { stream, range, end_stream } => {
                if let Some(stream) = streams.get(stream) {
                    self.upstream_data(stream, key, &input[range], end_stream);
                }
            }
            CodecEvent::Trailers { stream } => {
                if let Some(stream) = streams.get(stream) {
                    self.upstream_trailers(stream, key);
                }
            }
            CodecEvent::End { stream } => {
                if let Some(stream) = streams.get(stream) {
                    self.upstream_data(stream, key, &[], true);
                }
            }
            CodecEvent::Reset { stream, reason } => {
                if let Some(stream) = streams.get(stream) {
                    self.upstream_reset(stream, key, reason.into());
                }
            }
            CodecEvent::Room { stream: Some(stream) } => self.host_has_room_for(key, stream),
            CodecEvent::Room { stream: None } => self.host_has_room(key),
            CodecEvent::PeerSettings => {
                let pool = connection.pool;
                self.host_has_room(key);
                self.connection_available(key);
                self.open_for_waiting(pool);
            }
            CodecEvent::GoAway => self.host_says_goodbye(key),
            CodecEvent::Pong => {}
            CodecEvent::Error(error) if !error.close => {
                if let Some(stream) = streams.get(error.stream) {
                    self.upstream_reset(stream, key, ResetReason::Protocol);
                }
            }
            CodecEvent::Error(error) => self.host_broke_protocol(key, error.reason),
        }
    }

    /// What the host says cannot be read on: the connection ends, and with it everything on it.
    fn host_broke_protocol(&mut self, key: Key<UpstreamConnection>, reason: &'static str) {
        let Some(connection) = self.ups.get_mut(key) else { return };
        tracing::debug!(host = %connection.host.address_text, reason, "upstream broke the protocol");
        if connection.codec.has_control() {
            // Best effort: the host is told what it did.
            connection.codec.write_control(connection.io.output.writer(&mut self.buffers));
            let _: FlushResult = connection.io.flush(&mut self.buffers);
        }
        self.count_upstream(key, ClusterStat::UPSTREAM_CX_PROTOCOL_ERROR);
        self.close_upstream(key, ResetReason::Protocol, true);
    }

    /// The connection broke: while it was being opened that is a failure to connect.
    fn upstream_broken(&mut self, key: Key<UpstreamConnection>, error: &std::io::Error) {
        let Some(connection) = self.ups.get(key) else { return };
        if connection.is_connecting() {
            let reason = error.to_string();
            self.close_unopened(key, ResetReason::ConnectionFailure, Some(&reason));
        } else {
            self.close_upstream(key, ResetReason::ConnectionTermination, false);
        }
    }

    /// The host sends nothing more: perhaps that is how its response ends.
    fn upstream_eof(&mut self, key: Key<UpstreamConnection>) {
        let Some(connection) = self.ups.get_mut(key) else { return };
        if !connection.streams.is_empty() {
            self.end_of_responses(key);
        }
        self.close_upstream(key, ResetReason::ConnectionTermination, false);
    }

    fn end_of_responses(&mut self, key: Key<UpstreamConnection>) {
        while let Some(connection) = self.ups.get_mut(key) {
            let event = connection.codec.end_of_input();
            if event == CodecEvent::NeedInput {
                return;
            }
            self.response_event(key, event, &[]);
        }
    }

    /// Ends a connection with everything on it. `local` when it is our decision.
    pub(crate) fn close_upstream(
        &mut self,
        key: Key<UpstreamConnection>,
        reason: ResetReason,
        local: bool,
    ) {
        self.close_with(key, reason, local, None);
    }

    /// Gives up a connection that did not open; `detail` says why.
    fn close_unopened(
        &mut self,
        key: Key<UpstreamConnection>,
        reason: ResetReason,
        detail: Option<&str>,
    ) {
        self.close_with(key, reason, false, detail);
    }

    fn close_with(
        &mut self,
        key: Key<UpstreamConnection>,
        reason: ResetReason,
        local: bool,
        detail: Option<&str>,
    ) {
        let Some(mut connection) = self.ups.remove(key) else { return };
        self.wheel.cancel(&mut connection.timer);
        connection.uncount();
        tls::stats::failure(
            &self.cx.recorder,
            connection.cluster.stats.tls.as_ref(),
            connection.io.tls_failure(),
        );
        connection.io.release(&mut self.buffers);
        connection.cluster.breakers[0].connections.release();
        connection.host.counters.cx_active.fetch_sub(1, Ordering::Relaxed);
        let failed_to_open = connection.is_connecting();
        let pool_key = connection.pool;
        if let Some(pool) = self.upstreams.pools.get_mut(pool_key) {
            pool.connections -= 1;
            if failed_to_open {
                pool.connecting -= 1;
            } else {
                pool.available.retain(|other| *other != key);
            }
        }
        self.count_close(&connection, reason, local);
        if failed_to_open {
            connection.host.counters.cx_connect_fail.fetch_add(1, Ordering::Relaxed);
            self.fail_waiting(pool_key, reason, detail);
        }
        for stream in connection.streams.keys() {
            self.connection_lost(stream, &connection, reason);
        }
        self.forget_empty_pool(pool_key);
        self.open_for_waiting(pool_key);
    }

    fn count_close(&mut self, connection: &UpstreamConnection, reason: ResetReason, local: bool) {
        let Some(pool) = self.upstreams.pools.get(connection.pool) else { return };
        let Some(cluster) = self.upstreams.get(pool.at) else { return };
        let counters = &cluster.cells.counters;
        counters.gauge_add(ClusterStat::UPSTREAM_CX_ACTIVE, -1);
        if connection.is_connecting() {
            counters.inc(ClusterStat::UPSTREAM_CX_CONNECT_FAIL);
            if reason == ResetReason::ConnectionTimeout {
                counters.inc(ClusterStat::UPSTREAM_CX_CONNECT_TIMEOUT);
            }
        }
        counters.inc(ClusterStat::UPSTREAM_CX_DESTROY);
        counters.inc(if local {
            ClusterStat::UPSTREAM_CX_DESTROY_LOCAL
        } else {
            ClusterStat::UPSTREAM_CX_DESTROY_REMOTE
        });
        if !connection.streams.is_empty() {
            counters.inc(ClusterStat::UPSTREAM_CX_DESTROY_WITH_ACTIVE_RQ);
            counters.inc(if local {
                ClusterStat::UPSTREAM_CX_DESTROY_LOCAL_WITH_ACTIVE_RQ
            } else {
                ClusterStat::UPSTREAM_CX_DESTROY_REMOTE_WITH_ACTIVE_RQ
            });
        }
        let times = &cluster.cells.times;
        times.record(
            ClusterTimes::UPSTREAM_CX_LENGTH_MS,
            (self.clock.now_ns() - connection.opened_ns) / 1_000_000,
        );
        if !connection.is_connecting() {
            times.record(ClusterTimes::UPSTREAM_RQ_PER_CX, u64::from(connection.requests));
        }
    }

    /// A place has become free, or connections turned out to carry less than was hoped for: who waits beyond what is being
    /// opened gets a connection of his own, as far as the breakers allow.
    pub(super) fn open_for_waiting(&mut self, pool_key: Key<Pool>) {
        while let Some(pool) = self.upstreams.pools.get(pool_key)
            && !pool.is_draining
            && pool.wants_connection()
        {
            let (thresholds, breakers) = pool.cluster.priority(0);
            let is_full = breakers.connections.is_exhausted(thresholds.max_connections);
            if is_full && pool.connections > 0 {
                return;
            }
            self.connect_upstream(pool_key);
        }
    }

    pub(crate) fn count_upstream(
        &mut self,
        key: Key<UpstreamConnection>,
        stat: Counter<ClusterStat>,
    ) {
        if let Some(connection) = self.ups.get(key)
            && let Some(pool) = self.upstreams.pools.get(connection.pool)
            && let Some(cluster) = self.upstreams.get(pool.at)
        {
            cluster.cells.counters.inc(stat);
        }
    }

    /// Something is to be written at the end of the turn.
    #[inline]
    pub(crate) fn mark_upstream(&mut self, key: Key<UpstreamConnection>) {
        if let Some(connection) = self.ups.get_mut(key)
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.dirty_ups.push(key);
        }
    }

    pub(crate) fn wake_upstream(&mut self, key: Key<UpstreamConnection>) {
        if let Some(connection) = self.ups.get_mut(key)
            && !connection.is_ready
        {
            connection.is_ready = true;
            self.ready_ups.push(key);
        }
    }

    pub(crate) fn flush_upstream(&mut self, key: Key<UpstreamConnection>) {
        let Some(connection) = self.ups.get_mut(key) else { return };
        connection.is_dirty = false;
        if connection.is_multiplexed() {
            if connection.codec.has_control() {
                connection.codec.observe(self.clock.now_ns(), connection.io.output.len());
                connection.codec.write_control(connection.io.output.writer(&mut self.buffers));
            }
            connection.count_frames();
        }
        let flushed = connection.io.flush(&mut self.buffers);
        connection.count_bytes();
        match flushed {
            // The peer may have answered before it closed: what it said is read first.
            FlushResult::Failed(_) => {
                connection.io.output.clear(&mut self.buffers);
                (connection.io.readable, connection.io.fin_seen) = (true, true);
                self.wake_upstream(key);
            }
            FlushResult::Done | FlushResult::Blocked => self.upstream_has_room(key),
        }
    }

    /// Makes sure the connection is looked at by its next deadline.
    pub(crate) fn arm_upstream(&mut self, key: Key<UpstreamConnection>) {
        let Some(connection) = self.ups.get_mut(key) else { return };
        let deadline = connection.deadline();
        if deadline != u64::MAX {
            self.wheel.arm(&mut connection.timer, Owner::Upstream(key).token(), deadline);
        }
    }

    pub(crate) fn upstream_timer(&mut self, key: Key<UpstreamConnection>) {
        let now = self.clock.now_ns();
        let Some(connection) = self.ups.get_mut(key) else { return };
        TimerWheel::fired(&mut connection.timer);
        if self.host_keepalive(key, now) {
            return;
        }
        let Some(connection) = self.ups.get_mut(key) else { return };
        if connection.connect_deadline_ns <= now {
            return self.close_upstream(key, ResetReason::ConnectionTimeout, true);
        }
        if connection.streams.is_empty()
            && !connection.is_connecting()
            && connection.rest_ends_ns() <= now
        {
            connection.counters.inc(connection.why_over(now));
            return self.close_upstream(key, ResetReason::ConnectionTermination, true);
        }
        self.arm_upstream(key);
    }
}

impl UpstreamConnection {
    /// The most that may wait to be written before senders rest.
    #[inline]
    pub fn high_watermark(&self) -> usize {
        let limit = self.cluster.config.per_connection_buffer_limit as usize;
        flow::high_watermark(limit, self.is_multiplexed())
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written + self.io.sent
    }

    /// Counts a request that begins on it.
    pub(super) fn count_request(&self) {
        self.counters.inc(ClusterStat::UPSTREAM_RQ_TOTAL);
        self.counters.gauge_add(ClusterStat::UPSTREAM_RQ_ACTIVE, 1);
    }

    /// Counts what was written, and what is buffered.
    #[inline]
    fn count_bytes(&mut self) {
        let sent = std::mem::take(&mut self.io.sent);
        self.counters.add(ClusterStat::UPSTREAM_CX_TX_BYTES_TOTAL, sent);
        self.written += sent;
        let buffered = (self.io.input.len() as u32, self.io.output.len() as u32);
        if buffered != self.buffered {
            let (input, output) = std::mem::replace(&mut self.buffered, buffered);
            let by = |now: u32, before: u32| i64::from(now) - i64::from(before);
            self.counters
                .gauge_add(ClusterStat::UPSTREAM_CX_RX_BYTES_BUFFERED, by(buffered.0, input));
            self.counters
                .gauge_add(ClusterStat::UPSTREAM_CX_TX_BYTES_BUFFERED, by(buffered.1, output));
        }
    }

    /// The connection ends: gauges forget it.
    fn uncount(&mut self) {
        self.count_bytes();
        let (input, output) = std::mem::take(&mut self.buffered);
        self.counters.gauge_add(ClusterStat::UPSTREAM_CX_RX_BYTES_BUFFERED, -i64::from(input));
        self.counters.gauge_add(ClusterStat::UPSTREAM_CX_TX_BYTES_BUFFERED, -i64::from(output));
    }

    fn deadline(&self) -> u64 {
        if self.is_connecting() {
            return self.connect_deadline_ns;
        }
        let keepalive = self.multiplexed.as_ref().map_or(u64::MAX, |it| it.deadline());
        if self.streams.is_empty() { keepalive.min(self.rest_ends_ns()) } else { keepalive }
    }

    /// When it is closed if no stream comes.
    fn rest_ends_ns(&self) -> u64 {
        let http = &self.cluster.config.http;
        after(self.idle_since_ns, http.idle_timeout)
            .min(after(self.opened_ns, http.max_connection_duration))
    }

    /// What ends a connection that rests: its age, or its idleness.
    fn why_over(&self, now_ns: u64) -> Counter<ClusterStat> {
        if after(self.opened_ns, self.cluster.config.http.max_connection_duration) <= now_ns {
            ClusterStat::UPSTREAM_CX_MAX_DURATION_REACHED
        } else {
            ClusterStat::UPSTREAM_CX_IDLE_TIMEOUT
        }
    }

    /// May it take another request now?
    #[inline]
    pub(super) fn can_take(&self, now_ns: u64) -> bool {
        let http = &self.cluster.config.http;
        self.codec.free_streams() > 0
            && !self.io.eof
            && http.max_requests_per_connection.is_none_or(|most| self.requests < most)
            && after(self.opened_ns, http.max_connection_duration) > now_ns
    }

    /// It has no stream and takes no more: why.
    pub(super) fn count_why_over(&self, now_ns: u64) {
        let http = &self.cluster.config.http;
        if http.max_requests_per_connection.is_some_and(|most| self.requests >= most) {
            self.counters.inc(ClusterStat::UPSTREAM_CX_MAX_REQUESTS);
        } else if after(self.opened_ns, http.max_connection_duration) <= now_ns {
            self.counters.inc(ClusterStat::UPSTREAM_CX_MAX_DURATION_REACHED);
        } else if self.codec.must_close() && !self.io.eof && !self.is_multiplexed() {
            // GOAWAY is counted when it comes.
            self.counters.inc(ClusterStat::UPSTREAM_CX_CLOSE_NOTIFY);
        }
    }

    /// Counts the connection by what it speaks.
    pub(super) fn count_protocol(&self, version: Version) {
        self.counters.inc(match version {
            Version::Http2 => ClusterStat::UPSTREAM_CX_HTTP2_TOTAL,
            _ => ClusterStat::UPSTREAM_CX_HTTP1_TOTAL,
        });
    }
}
