//! The client's side of an L4 session: where it goes, what it has come to, when it ends.

use std::rc::Rc;
use std::sync::Arc;

use rand::RngCore;
use telemetry::stats::sets::{Cluster as ClusterStat, TcpProxy as Stat};

use super::config::Destination;
use super::upstream::TcpUpstream;
use crate::arena::Key;
use crate::http::conn_manager::after;
use crate::listener::chain::TcpState;
use crate::network::downstream::{CloseReason, Downstream, Kind};
use crate::network::io::FlushResult;
use crate::stream_info::{LogRecord, ResponseFlags, StreamInfo};
use crate::upstream::config::ClusterRef;
use crate::worker::Worker;

/// A client's bytes on their way to a host.
#[derive(Debug)]
pub struct TcpSession {
    /// The proxy that serves it, pinned.
    pub state: Rc<TcpState>,
    /// The connection to the host, while there is one.
    pub upstream: Option<Key<TcpUpstream>>,
    /// The host is slower than the client: reading rests.
    pub read_paused: bool,
    /// What happened.
    pub info: StreamInfo,
    pub(super) cluster: ClusterRef,
    pub(super) connect_attempts: u32,
    /// The last time any byte passed.
    pub(super) last_activity_ns: u64,
    /// The longest life.
    ends_at_ns: u64,
}

impl TcpSession {
    /// The next deadline.
    pub fn deadline(&self) -> u64 {
        after(self.last_activity_ns, self.state.config.idle_timeout).min(self.ends_at_ns)
    }
}

impl Worker {
    /// A connection is given to a TCP proxy: a cluster is chosen and a host connected to.
    pub(crate) fn open_tcp(&mut self, key: Key<Downstream>, state: &Rc<TcpState>) {
        let now = self.clock.now_ns();
        let Some(down) = self.downs.get_mut(key) else { return };
        let cluster = match &state.config.destination {
            Destination::Cluster(cluster) => *cluster,
            Destination::Weighted(clusters) => {
                clusters.entries()[clusters.pick(self.random.next_u64())].0
            }
        };
        state.cells.inc(Stat::DOWNSTREAM_CX_TOTAL);
        let mut session = TcpSession {
            state: Rc::clone(state),
            upstream: None,
            read_paused: false,
            info: StreamInfo::default(),
            cluster,
            connect_attempts: 0,
            last_activity_ns: now,
            ends_at_ns: self.clock.after(state.config.max_downstream_connection_duration),
        };
        session.info.stream_id = down.info.id;
        session.info.connection = Some(Rc::clone(&down.info));
        session.info.timings.start_ns = down.info.start_ns;
        session.info.start_wall_ns = self.clock.wall_ns() - (now - down.info.start_ns);
        down.kind = Kind::Tcp(Box::new(session));
        self.arm_downstream(key);
        self.connect_tcp(key);
    }

    pub(super) fn tcp_session(&mut self, key: Key<Downstream>) -> Option<&mut TcpSession> {
        match &mut self.downs.get_mut(key)?.kind {
            Kind::Tcp(session) => Some(session),
            _ => None,
        }
    }

    /// Bytes from the client.
    pub(crate) fn tcp_input(&mut self, key: Key<Downstream>, bytes: &[u8]) -> usize {
        let now = self.clock.now_ns();
        let Some(session) = self.tcp_session(key) else { return bytes.len() };
        session.last_activity_ns = now;
        session.info.bytes_received += bytes.len() as u64;
        session.state.cells.add(Stat::DOWNSTREAM_CX_RX_BYTES_TOTAL, bytes.len() as u64);
        if let Some(upstream) = session.upstream {
            self.tcp_send_upstream(key, upstream, bytes);
        }
        bytes.len()
    }

    /// Bytes from the host.
    pub(super) fn tcp_output(&mut self, key: Key<Downstream>, bytes: &[u8]) {
        let now = self.clock.now_ns();
        let Some(down) = self.downs.get_mut(key) else { return };
        let Kind::Tcp(session) = &mut down.kind else { return };
        session.last_activity_ns = now;
        session.info.bytes_sent += bytes.len() as u64;
        if session.info.timings.downstream_first_tx_ns == 0 {
            session.info.timings.downstream_first_tx_ns = now;
        }
        session.state.cells.add(Stat::DOWNSTREAM_CX_TX_BYTES_TOTAL, bytes.len() as u64);
        if let FlushResult::Failed(_) = down.io.write_through(bytes, &[], &mut self.buffers) {
            return self.close_downstream(key, CloseReason::Remote);
        }
        if down.io.output.len() > down.buffer_limit && !down.above_high_watermark {
            down.above_high_watermark = true;
            session.state.cells.inc(Stat::DOWNSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL);
            if let Some(upstream) = session.upstream
                && let Some(upstream) = self.tcp_ups.get_mut(upstream)
            {
                upstream.read_paused = true;
            }
        }
    }

    /// The client takes bytes again.
    pub(crate) fn tcp_downstream_has_room(&mut self, key: Key<Downstream>) {
        let Some(session) = self.tcp_session(key) else { return };
        session.state.cells.inc(Stat::DOWNSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL);
        if let Some(upstream) = session.upstream {
            self.resume_tcp_upstream(upstream);
        }
    }

    /// The client has said all it will: so has, for the host, this session's upstream side.
    pub(crate) fn tcp_downstream_ended(&mut self, key: Key<Downstream>) {
        let Some(session) = self.tcp_session(key) else { return };
        let Some(upstream) = session.upstream else {
            return self.close_downstream(key, CloseReason::Remote);
        };
        if let Some(upstream) = self.tcp_ups.get_mut(upstream) {
            upstream.io.shutdown_after_flush = true;
        }
        self.mark_tcp_upstream(upstream);
        self.tcp_check_end(key);
    }

    /// The host has said all it will.
    pub(super) fn tcp_upstream_ended(&mut self, key: Key<Downstream>) {
        let Some(down) = self.downs.get_mut(key) else { return };
        down.io.shutdown_after_flush = true;
        self.mark_downstream(key);
    }

    /// Both sides have said everything, and it is written: the session is over.
    pub(crate) fn tcp_check_end(&mut self, key: Key<Downstream>) {
        let Some(down) = self.downs.get(key) else { return };
        let Kind::Tcp(session) = &down.kind else { return };
        let Some(upstream) = session.upstream.and_then(|upstream| self.tcp_ups.get(upstream))
        else {
            return;
        };
        let is_over =
            |io: &crate::network::io::Io| io.eof && io.output.is_empty() && !io.has_records();
        if is_over(&down.io) && is_over(&upstream.io) {
            self.close_downstream(key, CloseReason::Remote);
        }
    }

    /// The session cannot go on: the client hears of it by the end of its connection.
    pub(super) fn fail_tcp(
        &mut self,
        key: Key<Downstream>,
        flags: ResponseFlags,
        details: &'static str,
    ) {
        if let Some(session) = self.tcp_session(key) {
            session.info.flags.insert(flags);
            session.info.connection_termination_details = details;
        }
        self.close_downstream(key, CloseReason::Local);
    }

    /// The client's connection is closed: the host's goes with it, and loggers hear of the session.
    pub(crate) fn tcp_closed(
        &mut self,
        key: Key<Downstream>,
        mut session: TcpSession,
        reason: CloseReason,
    ) {
        let now = self.clock.now_ns();
        let was_reset = reason == CloseReason::Remote
            && self.downs.get(key).is_some_and(|down| !down.io.eof || down.io.is_broken);
        if let Some(upstream) = session.upstream.take() {
            self.close_tcp_upstream(upstream, was_reset);
        }
        session.info.timings.end_ns = now;
        let record = LogRecord {
            worker: self.cx.index,
            now_ns: now,
            info: &session.info,
            request: None,
            response: None,
            response_trailers: None,
        };
        for logger in &session.state.config.access_loggers {
            logger.log(&record);
        }
    }

    /// A session's deadline may have come.
    pub(crate) fn tcp_timer(&mut self, key: Key<Downstream>, now: u64) {
        let Some(session) = self.tcp_session(key) else { return };
        if session.ends_at_ns <= now {
            session.state.cells.inc(Stat::MAX_DOWNSTREAM_CONNECTION_DURATION);
            return self.fail_tcp(
                key,
                ResponseFlags::DURATION_TIMEOUT,
                "max_downstream_connection_duration",
            );
        }
        if session.deadline() <= now {
            session.state.cells.inc(Stat::IDLE_TIMEOUT);
            self.fail_tcp(key, ResponseFlags::default(), "tcp_session_idle_timeout");
        }
    }

    /// Chooses a host and begins to connect. What fails at once is tried again, as often as is configured.
    pub(super) fn connect_tcp(&mut self, key: Key<Downstream>) {
        let Some(session) = self.tcp_session(key) else { return };
        let (at, state) = (session.cluster, Rc::clone(&session.state));
        let (recorder, random) = (&self.cx.recorder, &mut self.random);
        let Some(cluster) = self.upstreams.take_up(at, recorder, random) else {
            state.cells.inc(Stat::DOWNSTREAM_CX_NO_ROUTE);
            return self.fail_tcp(key, ResponseFlags::NO_CLUSTER_FOUND, "");
        };
        let shared = Arc::clone(&cluster.cluster);
        if let Some(session) = self.tcp_session(key) {
            session.info.cluster = Some(Arc::clone(&shared));
        }
        let (recorder, random) = (&self.cx.recorder, &mut self.random);
        let Some(cluster) = self.upstreams.take_up(at, recorder, random) else { return };
        let (thresholds, breakers) = shared.priority(0);
        if breakers.connections.is_exhausted(thresholds.max_connections) {
            cluster.cells.counters.inc(ClusterStat::UPSTREAM_CX_OVERFLOW);
            return self.fail_tcp(key, ResponseFlags::UPSTREAM_OVERFLOW, "");
        }
        let picked = cluster.balancer.pick(&mut self.random);
        let host = picked.and_then(|index| cluster.balancer.host_set().hosts.get(index).cloned());
        let Some(host) = host else {
            cluster.cells.counters.inc(ClusterStat::UPSTREAM_CX_NONE_HEALTHY);
            return self.fail_tcp(key, ResponseFlags::NO_HEALTHY_UPSTREAM, "");
        };
        let Some(session) = self.tcp_session(key) else { return };
        session.connect_attempts += 1;
        session.info.attempt_count = session.connect_attempts;
        session.info.upstream_host = Some(Arc::clone(&host));
        let attempts_left = attempts_left(session);
        if let Err(error) = self.open_tcp_upstream(key, at, shared, host) {
            tracing::debug!(%error, "connect failed at once");
            self.tcp_connect_failed(key, &error.to_string(), attempts_left);
        }
    }

    /// A connect came to nothing: another host, or the end.
    pub(super) fn tcp_connect_failed(
        &mut self,
        key: Key<Downstream>,
        reason: &str,
        attempts_left: bool,
    ) {
        let Some(session) = self.tcp_session(key) else { return };
        session.upstream = None;
        session.info.upstream_transport_failure_reason = Some(reason.into());
        session.info.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        if attempts_left {
            return self.connect_tcp(key);
        }
        self.fail_tcp(key, ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED, "");
    }
}

/// Whether any connect attempt is left to a session.
pub(super) fn attempts_left(session: &TcpSession) -> bool {
    session.connect_attempts < session.state.config.max_connect_attempts.max(1)
}
