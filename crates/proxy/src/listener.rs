//! Steps 1 to 3: accept, listener filters, filter-chain match.

pub mod chain;
pub mod config;
mod connection_log;
pub mod filter_chain;
pub mod inspection;
pub mod update;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use telemetry::stats::{Local, sets};

use crate::arena::Key;
use crate::network::socket::Socket;
use crate::timer_wheel::{TimerHandle, TimerWheel};
use crate::worker::token::Owner;
use crate::worker::{ListenerId, Worker};
use chain::ActiveChain;
use config::ListenerConfig;

/// How long accepting rests when the process is out of file descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// A listener at work on this worker.
#[derive(Debug)]
pub struct ActiveListener {
    /// Its id.
    pub id: ListenerId,
    /// Its configuration.
    pub config: Arc<ListenerConfig>,
    /// Its chains, as `config.filter_chains`.
    pub chains: Vec<Rc<ActiveChain>>,
    /// The chain for what no other matches.
    pub default_chain: Option<Rc<ActiveChain>>,
    /// Statistics.
    pub stats: ListenerCells,
    /// Connections it has open on this worker.
    pub connections: usize,
    /// Answers say `connection: close`.
    pub draining: bool,
    socket: Option<ListenSocket>,
    local: Option<SocketAddr>,
    /// The process is out of descriptors or memory: said once, not with every attempt.
    accept_pauses: bool,
    timer: TimerHandle,
}

/// A worker's cells of a listener's statistics.
pub struct ListenerCells(pub Local<sets::Listener>);

impl std::fmt::Debug for ListenerCells {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ListenerCells")
    }
}

#[derive(Debug)]
enum ListenSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl ListenSocket {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let socket = socket2::Socket::from(fd);
        socket.set_nonblocking(true)?;
        Ok(match socket.domain()? {
            socket2::Domain::UNIX => {
                Self::Unix(UnixListener::from_std(OwnedFd::from(socket).into()))
            }
            _ => Self::Tcp(TcpListener::from_std(OwnedFd::from(socket).into())),
        })
    }

    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            Self::Unix(listener) => listener.register(registry, token, Interest::READABLE),
        }
    }

    fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Socket::accepted_tcp(stream), Some(peer)))
            }
            Self::Unix(listener) => Ok((Socket::Unix(listener.accept()?.0), None)),
        }
    }

    /// The address every connection arrives at, unless the listener has a wildcard.
    fn fixed_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().ok().filter(|address| !address.ip().is_unspecified())
            }
            Self::Unix(_) => None,
        }
    }
}

impl Worker {
    /// Serves a new listener.
    pub(crate) fn add_listener(
        &mut self,
        id: ListenerId,
        config: Arc<ListenerConfig>,
        fd: Option<OwnedFd>,
    ) {
        let chains =
            config.filter_chains.iter().map(|chain| self.activate(&config, chain)).collect();
        let default_chain =
            config.default_filter_chain.as_ref().map(|chain| self.activate(&config, chain));
        let listener = ActiveListener {
            id,
            chains,
            default_chain,
            stats: ListenerCells(self.cx.recorder.local(&config.stats)),
            connections: 0,
            draining: false,
            socket: None,
            local: None,
            accept_pauses: false,
            timer: TimerHandle::default(),
            config,
        };
        let key = self.listeners.insert(listener);
        if let Some(fd) = fd
            && let Err(error) = self.listen(key, fd)
        {
            tracing::error!(%error, "a listener's socket cannot be used");
        }
    }

    fn listen(&mut self, key: Key<ActiveListener>, fd: OwnedFd) -> io::Result<()> {
        let mut socket = ListenSocket::new(fd)?;
        socket.register(self.poll.registry(), Token(Owner::Listener(key).token() as usize))?;
        if let Some(listener) = self.listeners.get_mut(key) {
            listener.local = socket.fixed_address();
            listener.socket = Some(socket);
        }
        Ok(())
    }

    /// Accepts what the backlog has, up to the limit of a turn.
    pub(crate) fn accept(&mut self, key: Key<ActiveListener>) {
        let most = self
            .listeners
            .get(key)
            .map_or(0, |listener| listener.config.max_accepts_per_turn.max(1));
        for _ in 0..most {
            if !self.accept_one(key) {
                return;
            }
        }
        self.ready_listeners.push(key);
    }

    /// Accepts one connection; `false` when there is none (for now).
    fn accept_one(&mut self, key: Key<ActiveListener>) -> bool {
        let Some(listener) = self.listeners.get_mut(key) else { return false };
        let Some(socket) = &listener.socket else { return false };
        match socket.accept() {
            Ok((socket, peer)) => {
                if std::mem::take(&mut listener.accept_pauses) {
                    tracing::info!(listener = %listener.config.name, "accepting goes on");
                }
                let local = listener.local;
                self.new_connection(key, socket, peer, local);
                true
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => false,
                io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => true,
                _ => {
                    // EMFILE, ENFILE, ENOBUFS, ENOMEM: the backlog keeps the connections until there is room again.
                    if !std::mem::replace(&mut listener.accept_pauses, true) {
                        let listener = &listener.config.name;
                        tracing::warn!(%listener, %error, "accepting pauses; connections wait");
                    }
                    let deadline = self.clock.after(Some(EXHAUSTED_PAUSE));
                    self.wheel.arm(&mut listener.timer, Owner::Listener(key).token(), deadline);
                    false
                }
            },
        }
    }

    pub(crate) fn listener_timer(&mut self, key: Key<ActiveListener>) {
        if let Some(listener) = self.listeners.get_mut(key) {
            TimerWheel::fired(&mut listener.timer);
            self.accept(key);
        }
    }

    fn new_connection(
        &mut self,
        key: Key<ActiveListener>,
        socket: Socket,
        peer: Option<SocketAddr>,
        local: Option<SocketAddr>,
    ) {
        let Some(listener) = self.listeners.get_mut(key) else { return };
        if let Some(limit) = &listener.config.connection_limit
            && !limit.try_acquire()
        {
            listener.stats.0.inc(sets::Listener::DOWNSTREAM_CX_OVERFLOW);
            return;
        }
        listener.connections += 1;
        listener.stats.0.inc(sets::Listener::DOWNSTREAM_CX_TOTAL);
        listener.stats.0.gauge_add(sets::Listener::DOWNSTREAM_CX_ACTIVE, 1);
        let local = local.or_else(|| socket.local_address());
        self.open_downstream(key, socket, peer, local);
    }

    /// A connection of this listener is gone.
    pub(crate) fn connection_closed(&mut self, key: Key<ActiveListener>) {
        let Some(listener) = self.listeners.get_mut(key) else { return };
        listener.connections -= 1;
        listener.stats.0.inc(sets::Listener::DOWNSTREAM_CX_DESTROY);
        listener.stats.0.gauge_add(sets::Listener::DOWNSTREAM_CX_ACTIVE, -1);
        if let Some(limit) = &listener.config.connection_limit {
            limit.release();
        }
        self.forget_empty_listener(key);
    }

    /// A listener that accepts nothing any more goes with its last connection.
    pub(crate) fn forget_empty_listener(&mut self, key: Key<ActiveListener>) {
        let is_over = |listener: &ActiveListener| {
            listener.socket.is_none() && listener.connections == 0 && listener.draining
        };
        if self.listeners.get(key).is_some_and(is_over)
            && let Some(mut listener) = self.listeners.remove(key)
        {
            self.wheel.cancel(&mut listener.timer);
        }
    }

    /// Serves a connection that was accepted elsewhere.
    pub(crate) fn adopt(&mut self, id: ListenerId, fd: OwnedFd) {
        let Some(key) = self.listener_key(id) else { return };
        match Socket::adopt(fd) {
            Ok(socket) => {
                let peer = socket.peer_address();
                self.new_connection(key, socket, peer, None);
            }
            Err(error) => tracing::warn!(%error, "a connection cannot be adopted"),
        }
    }

    /// The listener of that id.
    pub(crate) fn listener_key(&self, id: ListenerId) -> Option<Key<ActiveListener>> {
        self.listeners.iter().find(|(_, listener)| listener.id == id).map(|(key, _)| key)
    }

    /// Accepts what is in the backlog, then closes the socket: nothing that was accepted by the kernel is reset. After
    /// a drain that was announced, connections that rest end here.
    pub(crate) fn stop_listening(&mut self, key: Key<ActiveListener>) {
        while self.accept_one(key) {}
        let Some(listener) = self.listeners.get_mut(key) else { return };
        self.wheel.cancel(&mut listener.timer);
        listener.socket = None;
        if listener.draining {
            for connection in self.connections_of(key) {
                self.close_if_resting(connection);
            }
        }
        self.forget_empty_listener(key);
    }
}
