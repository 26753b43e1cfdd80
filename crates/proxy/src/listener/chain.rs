//! A filter chain at work on one worker: its configuration with the worker's own cells.

use std::rc::Rc;
use std::sync::Arc;

use telemetry::stats::{Local, sets};

use super::config::{FilterChain, ListenerConfig, TerminalFilter};
use crate::http::config::HttpConnectionManager;
use crate::http::stats::HttpCells;
use crate::tcp_proxy;
use crate::worker::Worker;

/// A filter chain with this worker's cells. Connections hold it; an update that leaves the chain as it is puts the new
/// one in its place.
pub struct ActiveChain {
    /// The chain.
    pub config: Arc<FilterChain>,
    /// The listener it belongs to.
    pub listener: Arc<ListenerConfig>,
    /// What ends it.
    pub terminal: ActiveTerminal,
}

/// What ends a chain.
pub enum ActiveTerminal {
    /// An HTTP connection manager.
    Http(Rc<HttpState>),
    /// A TCP proxy.
    Tcp(Rc<TcpState>),
}

/// An HTTP connection manager at work.
pub struct HttpState {
    /// Its configuration.
    pub config: Arc<HttpConnectionManager>,
    /// Statistics.
    pub cells: HttpCells,
}

/// A TCP proxy at work.
pub struct TcpState {
    /// Its configuration.
    pub config: Arc<tcp_proxy::Config>,
    /// Statistics.
    pub cells: Local<sets::TcpProxy>,
}

impl std::fmt::Debug for ActiveChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActiveChain").field("name", &self.config.name).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for HttpState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpState")
            .field("stat_prefix", &self.config.stat_prefix)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TcpState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpState")
            .field("stat_prefix", &self.config.stat_prefix)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// Makes a chain ready to serve.
    pub(super) fn activate(
        &self,
        listener: &Arc<ListenerConfig>,
        chain: &Arc<FilterChain>,
    ) -> Rc<ActiveChain> {
        let recorder = &self.cx.recorder;
        let terminal = match &chain.terminal {
            TerminalFilter::Http(config) => ActiveTerminal::Http(Rc::new(HttpState {
                cells: HttpCells::new(recorder, &config.stats),
                config: Arc::clone(config),
            })),
            TerminalFilter::Tcp(config) => ActiveTerminal::Tcp(Rc::new(TcpState {
                cells: recorder.local(&config.stats),
                config: Arc::clone(config),
            })),
        };
        Rc::new(ActiveChain { config: Arc::clone(chain), listener: Arc::clone(listener), terminal })
    }
}
