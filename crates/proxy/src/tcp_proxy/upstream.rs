//! The host's side of an L4 session: a connection of its own, not pooled.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mio::Token;
use mio::event::Event;
use telemetry::stats::Local;
use telemetry::stats::sets::{Cluster as ClusterStat, ClusterTimes};

use super::session::TcpSession;
use super::session::attempts_left;
use crate::arena::Key;
use crate::network::downstream::Downstream;
use crate::network::io::{FlushResult, Io, ReadResult};
use crate::network::socket::Socket;
use crate::network::tls::stats;
use crate::stream_info::{LogRecord, ResponseFlags};
use crate::timer_wheel::{TimerHandle, TimerWheel};
use crate::upstream::cluster::Cluster;
use crate::upstream::config::ClusterRef;
use crate::upstream::host::Host;
use crate::upstream::opening::{Opening, Progress};
use crate::upstream::outlier::Outcome;
use crate::worker::Worker;
use crate::worker::token::Owner;

/// A session's connection to its host.
#[derive(Debug)]
pub struct TcpUpstream {
    /// Its bytes.
    pub io: Io,
    /// The session's client.
    pub downstream: Key<Downstream>,
    /// The client is slower than the host: reading rests.
    pub read_paused: bool,
    /// This worker's cells of its cluster.
    counters: Local<ClusterStat>,
    at: ClusterRef,
    cluster: Arc<Cluster>,
    host: Arc<Host>,
    opening: Opening,
    opened_ns: u64,
    connect_deadline_ns: u64,
    timer: TimerHandle,
    is_dirty: bool,
    is_ready: bool,
}

const READS_PER_TURN: usize = 4;

impl Worker {
    /// Begins to connect a session to a host.
    pub(super) fn open_tcp_upstream(
        &mut self,
        downstream: Key<Downstream>,
        at: ClusterRef,
        cluster: Arc<Cluster>,
        host: Arc<Host>,
    ) -> io::Result<()> {
        let key = self.tcp_ups.next_key();
        let mut socket = Socket::connect(&host.address, cluster.config.tcp_keepalive.as_ref())?;
        socket.register(self.poll.registry(), Token(Owner::TcpUpstream(key).token() as usize))?;
        host.counters.cx_total.fetch_add(1, Ordering::Relaxed);
        host.counters.cx_active.fetch_add(1, Ordering::Relaxed);
        cluster.breakers[0].connections.acquire();
        let counters = self.cx.recorder.local(&cluster.stats.counters);
        counters.inc(ClusterStat::UPSTREAM_CX_TOTAL);
        counters.gauge_add(ClusterStat::UPSTREAM_CX_ACTIVE, 1);
        // As in Envoy, a session is a request to its cluster.
        counters.inc(ClusterStat::UPSTREAM_RQ_PENDING_TOTAL);
        let connect_deadline_ns = self.clock.after(Some(cluster.config.connect_timeout));
        self.tcp_ups.insert(TcpUpstream {
            io: Io::new(socket, false),
            downstream,
            counters,
            read_paused: false,
            at,
            cluster,
            host,
            opening: Opening::Connecting,
            opened_ns: self.clock.now_ns(),
            connect_deadline_ns,
            timer: TimerHandle::default(),
            is_dirty: false,
            is_ready: false,
        });
        if let Some(session) = self.tcp_session(downstream) {
            session.upstream = Some(key);
        }
        if let Some(upstream) = self.tcp_ups.get_mut(key) {
            self.wheel.arm(
                &mut upstream.timer,
                Owner::TcpUpstream(key).token(),
                connect_deadline_ns,
            );
        }
        Ok(())
    }

    pub(crate) fn tcp_upstream_event(&mut self, key: Key<TcpUpstream>, event: &Event) {
        let Some(upstream) = self.tcp_ups.get_mut(key) else { return };
        let ends = event.is_read_closed() || event.is_error() || event.is_write_closed();
        if matches!(upstream.opening, Opening::Connecting) {
            if event.is_writable() || ends {
                self.tcp_connect_ended(key);
            }
        } else if event.is_writable() && !upstream.io.writable {
            upstream.io.writable = true;
            self.mark_tcp_upstream(key);
        }
        let Some(upstream) = self.tcp_ups.get_mut(key) else { return };
        if event.is_readable() || ends {
            upstream.io.readable = true;
            upstream.io.fin_seen |= ends;
            self.read_tcp_upstream(key);
        }
    }

    fn tcp_connect_ended(&mut self, key: Key<TcpUpstream>) {
        let Some(upstream) = self.tcp_ups.get_mut(key) else { return };
        let host = Arc::clone(&upstream.host);
        match upstream.opening.connect_ended(&mut upstream.io, &host, None, None, &mut self.buffers)
        {
            Progress::Pending => self.mark_tcp_upstream(key),
            Progress::Opened => self.tcp_upstream_opened(key),
            Progress::Failed(reason) => self.tcp_upstream_failed(key, &reason),
        }
    }

    /// TCP and, where it is wanted, TLS are there: what the client has sent so far goes out.
    fn tcp_upstream_opened(&mut self, key: Key<TcpUpstream>) {
        let now = self.clock.now_ns();
        let id = self.unique_id();
        let Some(upstream) = self.tcp_ups.get_mut(key) else { return };
        let opened_ns = upstream.opened_ns;
        let info =
            Rc::new(upstream.opening.finish(&upstream.io, &upstream.host, id, opened_ns, now));
        upstream.counters.inc(ClusterStat::UPSTREAM_RQ_TOTAL);
        upstream.counters.gauge_add(ClusterStat::UPSTREAM_RQ_ACTIVE, 1);
        self.wheel.cancel(&mut upstream.timer);
        let (at, downstream) = (upstream.at, upstream.downstream);
        if let (Some(config), host) = (&upstream.cluster.config.outlier, &upstream.host) {
            // Success is told apart only where local failures are: it then clears their count.
            let _ = host.outlier.record(config, Outcome::LocalSuccess);
        }
        if let Some(cluster) = self.upstreams.get(at) {
            cluster
                .cells
                .times
                .record(ClusterTimes::UPSTREAM_CX_CONNECT_MS, (now - opened_ns) / 1_000_000);
            if let Some(tls) = &info.tls {
                stats::handshake(&self.cx.recorder, cluster.cluster.stats.tls.as_ref(), tls);
            }
        }
        let worker = self.cx.index;
        if let Some(session) = self.tcp_session(downstream) {
            session.info.upstream_connection = Some(info);
            session.info.timings.upstream_first_tx_ns = now;
            tell_opened(session, worker, now);
        }
        self.mark_tcp_upstream(key);
    }

    /// The connection could not be opened.
    fn tcp_upstream_failed(&mut self, key: Key<TcpUpstream>, reason: &str) {
        let Some(upstream) = self.tcp_ups.get(key) else { return };
        let (downstream, host, cluster) =
            (upstream.downstream, Arc::clone(&upstream.host), Arc::clone(&upstream.cluster));
        tracing::debug!(host = %host.address_text, reason, "connect failed");
        host.counters.cx_connect_fail.fetch_add(1, Ordering::Relaxed);
        if let Some(cluster) = self.upstreams.get(upstream.at) {
            cluster.cells.counters.inc(ClusterStat::UPSTREAM_CX_CONNECT_FAIL);
        }
        let at = upstream.at;
        self.close_tcp_upstream(key, false);
        self.note_host_outcome(at, &cluster, &host, Outcome::LocalFailure);
        let again = self.tcp_session(downstream).is_some_and(|session| attempts_left(session));
        self.tcp_connect_failed(downstream, reason, again);
    }

    /// More may be read than the last turn allowed, or reading was paused.
    pub(crate) fn tcp_upstream_ready(&mut self, key: Key<TcpUpstream>) {
        if let Some(upstream) = self.tcp_ups.get_mut(key) {
            upstream.is_ready = false;
            self.read_tcp_upstream(key);
        }
    }

    fn read_tcp_upstream(&mut self, key: Key<TcpUpstream>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for turn in 0.. {
            let Some(upstream) = self.tcp_ups.get_mut(key) else { break };
            if !upstream.io.readable || upstream.io.eof || upstream.read_paused {
                break;
            }
            if turn == READS_PER_TURN {
                self.wake_tcp_upstream(key);
                break;
            }
            let downstream = upstream.downstream;
            let result = upstream.io.read(None, &mut scratch, &mut self.buffers);
            let has_records = upstream.io.has_records();
            if upstream.opening.handshake_step(&mut upstream.io) {
                self.tcp_upstream_opened(key);
            } else if has_records {
                self.mark_tcp_upstream(key);
            }
            match result {
                ReadResult::Data(bytes) => {
                    if let Some(upstream) = self.tcp_ups.get(key) {
                        let count = bytes.len() as u64;
                        upstream.counters.add(ClusterStat::UPSTREAM_CX_RX_BYTES_TOTAL, count);
                    }
                    self.tcp_output(downstream, bytes);
                }
                ReadResult::Nothing => {}
                ReadResult::WouldBlock => break,
                ReadResult::Eof => {
                    self.tcp_upstream_ended(downstream);
                    self.tcp_check_end(downstream);
                }
                ReadResult::Failed(error) => self.tcp_upstream_broken(key, &error),
            }
        }
        self.scratch = scratch;
    }

    /// The host reset its connection, or cut it: so is the client's.
    fn tcp_upstream_broken(&mut self, key: Key<TcpUpstream>, error: &io::Error) {
        let Some(upstream) = self.tcp_ups.get(key) else { return };
        if upstream.opening.is_pending() {
            return self.tcp_upstream_failed(key, &error.to_string());
        }
        let downstream = upstream.downstream;
        if let Some(down) = self.downs.get_mut(downstream) {
            down.io.socket.reset_on_close();
        }
        let flags = match error.kind() {
            io::ErrorKind::ConnectionReset => ResponseFlags::UPSTREAM_REMOTE_RESET,
            _ => ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
        };
        self.fail_tcp(downstream, flags, "");
    }

    /// Sends a client's bytes on, or keeps them until the connection is open and has room.
    pub(super) fn tcp_send_upstream(
        &mut self,
        downstream: Key<Downstream>,
        key: Key<TcpUpstream>,
        bytes: &[u8],
    ) {
        let Some(upstream) = self.tcp_ups.get_mut(key) else { return };
        if let FlushResult::Failed(error) = upstream.io.write_through(bytes, &[], &mut self.buffers)
        {
            return self.tcp_upstream_broken(key, &error);
        }
        upstream.count_sent();
        if upstream.io.output.len() > upstream.cluster.config.per_connection_buffer_limit as usize
            && let Some(session) = self.tcp_session(downstream)
        {
            session.read_paused = true;
        }
    }

    pub(crate) fn flush_tcp_upstream(&mut self, key: Key<TcpUpstream>) {
        let Some(upstream) = self.tcp_ups.get_mut(key) else { return };
        upstream.is_dirty = false;
        if matches!(upstream.opening, Opening::Connecting) {
            return;
        }
        upstream.count_sent();
        let downstream = upstream.downstream;
        let limit = upstream.cluster.config.per_connection_buffer_limit as usize;
        if let FlushResult::Failed(error) = upstream.io.flush(&mut self.buffers) {
            return self.tcp_upstream_broken(key, &error);
        }
        let has_room = upstream.io.output.len() <= limit / 2;
        if has_room
            && let Some(session) = self.tcp_session(downstream)
            && session.read_paused
        {
            session.read_paused = false;
            self.wake_downstream(downstream);
        }
        self.tcp_check_end(downstream);
    }

    /// The client takes bytes again.
    pub(super) fn resume_tcp_upstream(&mut self, key: Key<TcpUpstream>) {
        if let Some(upstream) = self.tcp_ups.get_mut(key)
            && upstream.read_paused
        {
            upstream.read_paused = false;
            self.wake_tcp_upstream(key);
        }
    }

    /// Closes the host's side; with a reset if the client's was one.
    pub(super) fn close_tcp_upstream(&mut self, key: Key<TcpUpstream>, reset: bool) {
        let Some(mut upstream) = self.tcp_ups.remove(key) else { return };
        self.wheel.cancel(&mut upstream.timer);
        if reset {
            upstream.io.socket.reset_on_close();
        }
        stats::failure(
            &self.cx.recorder,
            upstream.cluster.stats.tls.as_ref(),
            upstream.io.tls_failure(),
        );
        upstream.count_sent();
        upstream.io.release(&mut self.buffers);
        upstream.cluster.breakers[0].connections.release();
        upstream.host.counters.cx_active.fetch_sub(1, Ordering::Relaxed);
        upstream.count_close();
        let Some(cluster) = self.upstreams.get(upstream.at) else { return };
        let length = (self.clock.now_ns() - upstream.opened_ns) / 1_000_000;
        cluster.cells.times.record(ClusterTimes::UPSTREAM_CX_LENGTH_MS, length);
    }

    /// Something is to be written at the end of the turn.
    pub(crate) fn mark_tcp_upstream(&mut self, key: Key<TcpUpstream>) {
        if let Some(upstream) = self.tcp_ups.get_mut(key)
            && !upstream.is_dirty
        {
            upstream.is_dirty = true;
            self.dirty_tcp_ups.push(key);
        }
    }

    fn wake_tcp_upstream(&mut self, key: Key<TcpUpstream>) {
        if let Some(upstream) = self.tcp_ups.get_mut(key)
            && !upstream.is_ready
        {
            upstream.is_ready = true;
            self.ready_tcp_ups.push(key);
        }
    }

    /// The connect takes too long.
    pub(crate) fn tcp_upstream_timer(&mut self, key: Key<TcpUpstream>) {
        let now = self.clock.now_ns();
        let Some(upstream) = self.tcp_ups.get_mut(key) else { return };
        TimerWheel::fired(&mut upstream.timer);
        if !upstream.opening.is_pending() {
            return;
        }
        if upstream.connect_deadline_ns > now {
            let deadline = upstream.connect_deadline_ns;
            return self.wheel.arm(&mut upstream.timer, Owner::TcpUpstream(key).token(), deadline);
        }
        if let Some(cluster) = self.upstreams.get(upstream.at) {
            cluster.cells.counters.inc(ClusterStat::UPSTREAM_CX_CONNECT_TIMEOUT);
        }
        self.tcp_upstream_failed(key, "connection timeout");
    }
}

impl TcpUpstream {
    fn count_sent(&mut self) {
        let sent = std::mem::take(&mut self.io.sent);
        self.counters.add(ClusterStat::UPSTREAM_CX_TX_BYTES_TOTAL, sent);
    }

    fn count_close(&self) {
        let counters = &self.counters;
        counters.gauge_add(ClusterStat::UPSTREAM_CX_ACTIVE, -1);
        // What could not be opened was ended from the other side.
        let is_pending = self.opening.is_pending();
        let (by_whom, with_request) = if self.io.eof || is_pending {
            (
                ClusterStat::UPSTREAM_CX_DESTROY_REMOTE,
                ClusterStat::UPSTREAM_CX_DESTROY_REMOTE_WITH_ACTIVE_RQ,
            )
        } else {
            (
                ClusterStat::UPSTREAM_CX_DESTROY_LOCAL,
                ClusterStat::UPSTREAM_CX_DESTROY_LOCAL_WITH_ACTIVE_RQ,
            )
        };
        counters.inc(ClusterStat::UPSTREAM_CX_DESTROY);
        counters.inc(by_whom);
        if !is_pending {
            counters.inc(ClusterStat::UPSTREAM_CX_DESTROY_WITH_ACTIVE_RQ);
            counters.inc(with_request);
            counters.gauge_add(ClusterStat::UPSTREAM_RQ_ACTIVE, -1);
        }
    }
}

/// Loggers that count open connections hear of one.
fn tell_opened(session: &TcpSession, worker: usize, now_ns: u64) {
    let record = LogRecord {
        worker,
        now_ns,
        info: &session.info,
        request: None,
        response: None,
        response_trailers: None,
    };
    for logger in &session.state.config.access_loggers {
        logger.opened(&record);
    }
}
