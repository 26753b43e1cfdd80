//! A client's connection: its socket's events, its reads and writes, its end. What the bytes mean is its kind's.

use std::net::SocketAddr;
use std::rc::Rc;

use mio::Token;
use mio::event::Event;
use telemetry::stats::sets::HttpConnManager as HttpStat;

use super::credits::Credits;
use super::io::{FlushResult, Io, Landed, ReadResult};
use super::socket::Socket;
use crate::arena::Key;
use crate::http::conn_manager::HttpConnection;
use crate::http::flow;
use crate::listener::ActiveListener;
use crate::listener::chain::{ActiveChain, ActiveTerminal};
use crate::listener::inspection::Inspection;
use crate::network::handshake::Handshake;
use crate::stream_info::ConnectionInfo;
use crate::tcp_proxy::session::TcpSession;
use crate::timer_wheel::{TimerHandle, TimerWheel};
use crate::upstream::connection::UpstreamConnection;
use crate::worker::Worker;
use crate::worker::token::Owner;

/// One client's connection.
#[derive(Debug)]
pub struct Downstream {
    /// Its bytes.
    pub io: Io,
    /// What they mean.
    pub kind: Kind,
    /// What is known of it.
    pub info: Rc<ConnectionInfo>,
    /// Where it came in.
    pub listener: Key<ActiveListener>,
    /// The chain that serves it, once chosen.
    pub chain: Option<Rc<ActiveChain>>,
    /// The most that may wait to be written before the sender is paused.
    pub buffer_limit: usize,
    /// It must be gone by then.
    pub close_deadline_ns: u64,
    /// Close once everything is written.
    pub close_after_flush: bool,
    /// Bytes of responses in `io.output` that their hosts' windows wait for.
    pub credits: Credits<UpstreamConnection>,
    /// What the gauges of buffered bytes have of it: read and kept, encoded and not written.
    buffered: (u32, u32),
    /// Someone upstream is paused until this connection has written enough.
    pub above_high_watermark: bool,
    timer: TimerHandle,
    is_dirty: bool,
    is_ready: bool,
}

/// What a connection's bytes are to us.
#[derive(Debug)]
pub enum Kind {
    /// The first bytes, which decide who serves it.
    Inspecting(Box<Inspection>),
    /// A TLS handshake.
    Handshaking(Box<Handshake>),
    /// Whatever they are, for one host.
    Tcp(Box<TcpSession>),
    /// HTTP requests.
    Http(HttpConnection),
    /// Everything is said; we wait for the peer to hear it.
    Lingering,
}

/// Who ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer, or the network.
    Remote,
    /// Us.
    Local,
}

/// How many reads one connection gets in a turn.
const READS_PER_TURN: usize = 4;

impl Worker {
    /// A new connection: chooses its chain, or first looks at its bytes.
    pub(crate) fn open_downstream(
        &mut self,
        listener_key: Key<ActiveListener>,
        mut socket: Socket,
        peer: Option<SocketAddr>,
        local: Option<SocketAddr>,
    ) {
        let id = self.unique_id();
        let Some(listener) = self.listeners.get(listener_key) else { return };
        let info = Rc::new(ConnectionInfo {
            id,
            remote_address: peer,
            direct_remote_address: peer,
            local_address: local,
            listener_name: listener.config.name.clone(),
            start_ns: self.clock.now_ns(),
            ..ConnectionInfo::default()
        });
        let buffer_limit = listener.config.per_connection_buffer_limit as usize;
        let key = self.downs.next_key();
        let token = Token(Owner::Downstream(key).token() as usize);
        if let Err(error) = socket.register(self.poll.registry(), token) {
            tracing::warn!(%error, "a connection cannot be registered");
            self.connection_closed(listener_key);
            return;
        }
        self.downs.insert(Downstream {
            io: Io::new(socket, true),
            kind: Kind::Lingering,
            info,
            listener: listener_key,
            chain: None,
            buffer_limit,
            close_deadline_ns: u64::MAX,
            close_after_flush: false,
            credits: Credits::default(),
            buffered: (0, 0),
            above_high_watermark: false,
            timer: TimerHandle::default(),
            is_dirty: false,
            is_ready: false,
        });
        self.gauges.connections.store(self.downs.len(), std::sync::atomic::Ordering::Relaxed);
        self.begin_inspection(key);
    }

    /// The chain is chosen and the transport is ready: the connection becomes what the chain makes of it.
    pub(super) fn enter_terminal(&mut self, key: Key<Downstream>) {
        let now = self.clock.now_ns();
        let Some(down) = self.downs.get_mut(key) else { return };
        let Some(chain) = down.chain.clone() else { return };
        match &chain.terminal {
            ActiveTerminal::Http(state) => {
                down.kind = Kind::Http(HttpConnection::new(state, now));
                self.begin_http(key);
                let Some(down) = self.downs.get_mut(key) else { return };
                let counters = &state.cells.counters;
                if down.io.tls().is_some() {
                    counters.inc(HttpStat::DOWNSTREAM_CX_SSL_TOTAL);
                    counters.gauge_add(HttpStat::DOWNSTREAM_CX_SSL_ACTIVE, 1);
                }
                // What listener filters have looked at is read here for the first time.
                counters.add(HttpStat::DOWNSTREAM_CX_RX_BYTES_TOTAL, down.io.input.len() as u64);
                if self.listeners.get(down.listener).is_none_or(|listener| listener.draining) {
                    self.drain_connection(key);
                }
                self.arm_downstream(key);
            }
            ActiveTerminal::Tcp(state) => self.open_tcp(key, state),
        }
    }

    pub(crate) fn downstream_event(
        &mut self,
        key: Key<Downstream>,
        event: &Event,
        ahead: Option<Landed>,
    ) {
        let Some(down) = self.downs.get_mut(key) else { return };
        if event.is_writable() && !down.io.writable {
            down.io.writable = true;
            self.mark_downstream(key);
        }
        let Some(down) = self.downs.get_mut(key) else { return };
        let ends = event.is_read_closed() || event.is_error();
        if event.is_readable() || ends {
            down.io.readable = true;
            down.io.fin_seen |= ends;
            self.read_downstream(key, ahead);
        }
    }

    /// More may be read or decoded than the last event's turn allowed.
    pub(crate) fn downstream_ready(&mut self, key: Key<Downstream>) {
        let Some(down) = self.downs.get_mut(key) else { return };
        down.is_ready = false;
        if !down.io.input.is_empty() {
            self.deliver_pending(key);
        }
        self.read_downstream(key, None);
    }

    /// Reads and delivers until the socket is drained, nobody wants more, or the turn's share is used up. What was read
    /// ahead comes first, and is kept if nobody wants it any more.
    pub(crate) fn read_downstream(&mut self, key: Key<Downstream>, mut ahead: Option<Landed>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for turn in 0.. {
            let Some(down) = self.downs.get_mut(key) else { break };
            let may_read = down.io.readable && !down.io.eof && down.wants_input();
            if !may_read && ahead.is_none() {
                break;
            }
            if turn == READS_PER_TURN {
                self.wake_downstream(key);
                break;
            }
            let result = down.io.read(ahead.take(), &mut scratch, &mut self.buffers);
            if down.io.handshake_has_ended() {
                self.downstream_secured(key);
            } else if down.io.has_records() {
                self.mark_downstream(key);
            }
            match result {
                ReadResult::Data(bytes) => self.downstream_bytes(key, bytes),
                ReadResult::Nothing => {}
                ReadResult::WouldBlock => break,
                ReadResult::Eof => self.downstream_eof(key),
                ReadResult::Failed(_) => self.close_downstream(key, CloseReason::Remote),
            }
        }
        self.scratch = scratch;
    }

    /// Bytes have been read: what is not consumed is kept.
    fn downstream_bytes(&mut self, key: Key<Downstream>, bytes: &[u8]) {
        let Some(down) = self.downs.get_mut(key) else { return };
        if let Kind::Http(http) = &down.kind {
            let counters = &http.state.cells.counters;
            counters.add(HttpStat::DOWNSTREAM_CX_RX_BYTES_TOTAL, bytes.len() as u64);
        }
        if matches!(down.kind, Kind::Inspecting(_)) {
            down.io.input.writer(&mut self.buffers).extend_from_slice(bytes);
            return self.inspect(key);
        }
        if !down.io.input.is_empty() {
            down.io.input.writer(&mut self.buffers).extend_from_slice(bytes);
            self.deliver_pending(key);
            return;
        }
        let used = self.deliver(key, bytes);
        if used < bytes.len()
            && let Some(down) = self.downs.get_mut(key)
        {
            down.io.input.writer(&mut self.buffers).extend_from_slice(&bytes[used..]);
        }
    }

    pub(super) fn deliver_pending(&mut self, key: Key<Downstream>) {
        let Some(down) = self.downs.get_mut(key) else { return };
        let mut input = std::mem::take(&mut down.io.input);
        let used = self.deliver(key, input.as_slice());
        input.consume(used, &mut self.buffers);
        match self.downs.get_mut(key) {
            Some(down) => down.io.input = input,
            None => input.clear(&mut self.buffers),
        }
    }

    /// Gives bytes to whoever knows what they mean; says how many are done with.
    fn deliver(&mut self, key: Key<Downstream>, bytes: &[u8]) -> usize {
        match self.downs.get(key).map(|down| &down.kind) {
            Some(Kind::Http(_)) => self.http_input(key, bytes),
            Some(Kind::Tcp(_)) => self.tcp_input(key, bytes),
            // Looking takes no bytes, and the handshake's are below us.
            Some(Kind::Inspecting(_) | Kind::Handshaking(_)) => 0,
            Some(Kind::Lingering) | None => bytes.len(),
        }
    }

    fn downstream_eof(&mut self, key: Key<Downstream>) {
        match self.downs.get(key).map(|down| &down.kind) {
            Some(Kind::Tcp(_)) => self.tcp_downstream_ended(key),
            Some(Kind::Inspecting(_)) => self.inspection_ended(key),
            Some(Kind::Http(_) | Kind::Handshaking(_) | Kind::Lingering) => {
                self.close_downstream(key, CloseReason::Remote);
            }
            None => {}
        }
    }

    /// Something is to be written at the end of the turn.
    #[inline]
    pub(crate) fn mark_downstream(&mut self, key: Key<Downstream>) {
        if let Some(down) = self.downs.get_mut(key)
            && !down.is_dirty
        {
            down.is_dirty = true;
            self.dirty_downs.push(key);
        }
    }

    /// Something is to be read or decoded in the next turn, event or not.
    pub(crate) fn wake_downstream(&mut self, key: Key<Downstream>) {
        if let Some(down) = self.downs.get_mut(key)
            && !down.is_ready
        {
            down.is_ready = true;
            self.ready_downs.push(key);
        }
    }

    pub(crate) fn flush_downstream(&mut self, key: Key<Downstream>) {
        let Some(down) = self.downs.get_mut(key) else { return };
        down.is_dirty = false;
        if let Kind::Http(http) = &mut down.kind
            && http.is_multiplexed()
        {
            if http.codec.has_control() {
                http.codec.observe(self.clock.now_ns(), down.io.output.len());
                http.codec.write_control(down.io.output.writer(&mut self.buffers));
            }
            http.count_frames();
        }
        let flushed = down.io.flush(&mut self.buffers);
        down.count_bytes();
        match flushed {
            FlushResult::Failed(_) => self.close_downstream(key, CloseReason::Remote),
            FlushResult::Done if down.close_after_flush => self.finish_downstream(key),
            FlushResult::Done if matches!(down.kind, Kind::Tcp(_)) => {
                self.check_low_watermark(key);
                self.tcp_check_end(key);
            }
            FlushResult::Done | FlushResult::Blocked => self.check_low_watermark(key),
        }
    }

    /// Is there room again for whoever was paused?
    fn check_low_watermark(&mut self, key: Key<Downstream>) {
        let Some(down) = self.downs.get_mut(key) else { return };
        let low_watermark = down.high_watermark() / 2;
        if down.above_high_watermark && down.io.output.len() <= low_watermark {
            down.above_high_watermark = false;
            self.downstream_has_room(key);
        }
        let Some(down) = self.downs.get(key) else { return };
        if !down.credits.is_empty() && down.io.output.len() <= low_watermark {
            self.credit_hosts(key);
        }
    }

    fn downstream_has_room(&mut self, key: Key<Downstream>) {
        match self.downs.get(key).map(|down| &down.kind) {
            Some(Kind::Http(_)) => self.http_has_room(key),
            Some(Kind::Tcp(_)) => self.tcp_downstream_has_room(key),
            _ => {}
        }
    }

    /// Everything is written and the connection is to end. If the peer may still be sending, closing now would reset
    /// the connection and could cost it our last words: then it gets a while to hear them.
    fn finish_downstream(&mut self, key: Key<Downstream>) {
        let Some(down) = self.downs.get_mut(key) else { return };
        let delay = match &down.kind {
            Kind::Http(http) if http.may_still_send() => http.state.config.timeouts.delayed_close,
            _ => std::time::Duration::ZERO,
        };
        if delay.is_zero() || down.io.eof {
            self.close_downstream(key, CloseReason::Local);
            return;
        }
        // A TLS peer is told first: without that it would take the end for a truncation.
        down.io.shutdown_after_flush = true;
        if let FlushResult::Failed(_) = down.io.flush(&mut self.buffers) {
            return self.close_downstream(key, CloseReason::Remote);
        }
        down.close_after_flush = false;
        down.close_deadline_ns = self.clock.after(Some(delay));
        self.leave_kind(key, CloseReason::Local);
        if let Some(down) = self.downs.get_mut(key) {
            down.io.input.clear(&mut self.buffers);
        }
        self.arm_downstream(key);
        self.wake_downstream(key);
    }

    /// Ends a connection now, with everything on it.
    pub(crate) fn close_downstream(&mut self, key: Key<Downstream>, reason: CloseReason) {
        if let Some(down) = self.downs.get(key) {
            self.log_connection(down);
        }
        self.leave_kind(key, reason);
        let Some(mut down) = self.downs.remove(key) else { return };
        self.count_tls_failure(&down);
        self.wheel.cancel(&mut down.timer);
        down.io.release(&mut self.buffers);
        self.gauges.connections.store(self.downs.len(), std::sync::atomic::Ordering::Relaxed);
        self.connection_closed(down.listener);
    }

    /// The connection's kind lets go of what it has.
    fn leave_kind(&mut self, key: Key<Downstream>, reason: CloseReason) {
        let Some(down) = self.downs.get_mut(key) else { return };
        down.uncount();
        match std::mem::replace(&mut down.kind, Kind::Lingering) {
            Kind::Http(http) => self.http_closed(key, http, reason),
            Kind::Tcp(session) => self.tcp_closed(key, *session, reason),
            Kind::Inspecting(_) => self.inspection_closed(key),
            Kind::Handshaking(_) => self.handshake_closed(key),
            Kind::Lingering => {}
        }
    }

    /// Makes sure that the connection is looked at by its next deadline.
    pub(crate) fn arm_downstream(&mut self, key: Key<Downstream>) {
        let deadline = self.downstream_deadline(key);
        self.arm_downstream_at(key, deadline);
    }

    /// As `arm_downstream`, for a deadline that is known.
    #[inline]
    pub(crate) fn arm_downstream_at(&mut self, key: Key<Downstream>, deadline_ns: u64) {
        if deadline_ns != u64::MAX
            && let Some(down) = self.downs.get_mut(key)
        {
            self.wheel.arm(&mut down.timer, Owner::Downstream(key).token(), deadline_ns);
        }
    }

    fn downstream_deadline(&self, key: Key<Downstream>) -> u64 {
        let Some(down) = self.downs.get(key) else { return u64::MAX };
        let kind = match &down.kind {
            Kind::Http(http) => self.http_deadline(http),
            Kind::Tcp(session) => session.deadline(),
            Kind::Inspecting(inspection) => inspection.deadline_ns,
            Kind::Handshaking(handshake) => handshake.deadline_ns,
            Kind::Lingering => u64::MAX,
        };
        kind.min(down.close_deadline_ns)
    }

    pub(crate) fn downstream_timer(&mut self, key: Key<Downstream>) {
        let Some(down) = self.downs.get_mut(key) else { return };
        TimerWheel::fired(&mut down.timer);
        let now = self.clock.now_ns();
        if down.close_deadline_ns <= now {
            down.count_delayed_close();
            self.close_downstream(key, CloseReason::Local);
            return;
        }
        match &down.kind {
            Kind::Http(_) => self.http_timer(key, now),
            Kind::Tcp(_) => self.tcp_timer(key, now),
            Kind::Inspecting(inspection) if inspection.deadline_ns <= now => {
                self.inspection_timed_out(key)
            }
            Kind::Handshaking(handshake) if handshake.deadline_ns <= now => {
                self.handshake_timed_out(key)
            }
            Kind::Inspecting(_) | Kind::Handshaking(_) | Kind::Lingering => {}
        }
        self.arm_downstream(key);
    }
}

impl Downstream {
    /// Counts what was written, and what is buffered.
    #[inline]
    fn count_bytes(&mut self) {
        let Kind::Http(http) = &self.kind else { return };
        let counters = &http.state.cells.counters;
        counters.add(HttpStat::DOWNSTREAM_CX_TX_BYTES_TOTAL, std::mem::take(&mut self.io.sent));
        let buffered = (self.io.input.len() as u32, self.io.output.len() as u32);
        if buffered != self.buffered {
            let (input, output) = std::mem::replace(&mut self.buffered, buffered);
            let by = |now: u32, before: u32| i64::from(now) - i64::from(before);
            counters.gauge_add(HttpStat::DOWNSTREAM_CX_RX_BYTES_BUFFERED, by(buffered.0, input));
            counters.gauge_add(HttpStat::DOWNSTREAM_CX_TX_BYTES_BUFFERED, by(buffered.1, output));
        }
    }

    /// The time is up. If it was the time to hear our last words, the peer did not hang up after them.
    fn count_delayed_close(&self) {
        if matches!(self.kind, Kind::Lingering)
            && let Some(ActiveTerminal::Http(state)) = self.chain.as_ref().map(|it| &it.terminal)
        {
            state.cells.counters.inc(HttpStat::DOWNSTREAM_CX_DELAYED_CLOSE_TIMEOUT);
        }
    }

    /// The connection's kind is about to let go of it: gauges forget it.
    fn uncount(&mut self) {
        self.count_bytes();
        let Kind::Http(http) = &self.kind else { return };
        let counters = &http.state.cells.counters;
        let (input, output) = std::mem::take(&mut self.buffered);
        counters.gauge_add(HttpStat::DOWNSTREAM_CX_RX_BYTES_BUFFERED, -i64::from(input));
        counters.gauge_add(HttpStat::DOWNSTREAM_CX_TX_BYTES_BUFFERED, -i64::from(output));
        if self.io.tls().is_some() {
            counters.gauge_add(HttpStat::DOWNSTREAM_CX_SSL_ACTIVE, -1);
        }
    }

    /// The most that may wait to be written before senders rest.
    #[inline]
    pub fn high_watermark(&self) -> usize {
        let is_multiplexed = matches!(&self.kind, Kind::Http(http) if http.is_multiplexed());
        flow::high_watermark(self.buffer_limit, is_multiplexed)
    }

    /// Where bytes may be taken from before it is their turn.
    pub(crate) fn io_to_read_ahead(&self) -> Option<&Io> {
        let is_http = matches!(self.kind, Kind::Http(_));
        (is_http && !self.io.eof && self.wants_input()).then_some(&self.io)
    }

    /// Would more bytes be of use now?
    fn wants_input(&self) -> bool {
        match &self.kind {
            Kind::Http(http) => http.wants_input(),
            Kind::Tcp(session) => !session.read_paused,
            Kind::Inspecting(_) | Kind::Handshaking(_) | Kind::Lingering => true,
        }
    }
}
