//! A listener as the engine reads it: compiled, plain data. `snapshot` is its only producer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use telemetry::stats::{Block, sets};

use crate::http::config::HttpConnectionManager;
use crate::listener::filter_chain::FilterChainIndex;
use crate::network::tls::DownstreamTls;
use crate::stream_info::AccessLoggers;
use crate::tcp_proxy;

/// Where a listener is bound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// TCP over IPv4 or IPv6; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A Unix domain socket.
    Pipe(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Pipe(path) => path.display().fmt(f),
        }
    }
}

/// Envoy's `core.v3.TrafficDirection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrafficDirection {
    /// Not said.
    #[default]
    Unspecified,
    /// From the network to the workload.
    Inbound,
    /// From the workload to the network.
    Outbound,
}

/// A compiled listener.
#[derive(Debug)]
pub struct ListenerConfig {
    /// The listener's name; updates are matched by it.
    pub name: Arc<str>,
    /// The prefix of the listener's stats (`listener.<prefix>.`): `stat_prefix`, else the address with `:` as `_`.
    pub stat_prefix: Arc<str>,
    /// Where its statistics are (`Scope::listener(stat_prefix)`).
    pub stats: Block<sets::Listener>,
    /// Where TLS of its connections is counted, if any chain has it.
    pub tls_stats: Option<Block<sets::Tls>>,
    /// The configured address (not the bound one).
    pub address: ListenAddress,
    /// Chains in configured order; `index` picks one of them.
    pub filter_chains: Vec<Arc<FilterChain>>,
    /// Serves connections that no chain matches; without it they are closed.
    pub default_filter_chain: Option<Arc<FilterChain>>,
    /// The compiled match over `filter_chains`: build it with [`FilterChainIndex::build`].
    pub index: FilterChainIndex,
    /// Run in order over the first bytes, before a chain is chosen.
    pub listener_filters: Vec<ListenerFilter>,
    /// How long listener filters may wait for bytes (Envoy: 15 s); `None` is for ever.
    pub listener_filters_timeout: Option<Duration>,
    /// On that timeout go on with what is known instead of closing.
    pub continue_on_listener_filters_timeout: bool,
    /// The soft limit of each connection's buffers, in bytes (Envoy: 1 MiB).
    pub per_connection_buffer_limit: u32,
    /// At most so many connections per process, if limited.
    pub connection_limit: Option<Arc<ConnectionLimit>>,
    /// For filters and logs.
    pub traffic_direction: TrafficDirection,
    /// Loggers of the listener itself, called when a connection ends.
    pub access_loggers: AccessLoggers,
    /// At most so many accepts per loop turn.
    pub max_accepts_per_turn: u32,
}

/// A limit that all workers share.
#[derive(Debug, Default)]
pub struct ConnectionLimit {
    /// The most connections at a time.
    pub max: u64,
    active: AtomicU64,
}

impl ConnectionLimit {
    /// At most `max` connections.
    pub fn new(max: u64) -> Self {
        Self { max, active: AtomicU64::new(0) }
    }

    /// Takes a place; `false` when there is none.
    pub fn try_acquire(&self) -> bool {
        if self.active.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.active.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Gives a place back.
    pub fn release(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections now.
    pub fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }
}

/// Listener filters that look at the first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerFilter {
    /// `envoy.filters.listener.tls_inspector`: detects TLS, reads SNI and ALPN from the ClientHello.
    TlsInspector {
        /// The longest ClientHello looked at, in bytes (Envoy: 16 KiB).
        max_client_hello_size: u32,
    },
    /// `envoy.filters.listener.http_inspector`: sets the application protocol of plaintext HTTP.
    HttpInspector,
}

/// One filter chain: who it serves, its transport and its filters.
#[derive(Debug)]
pub struct FilterChain {
    /// The chain's name (may be empty).
    pub name: Arc<str>,
    /// Whom it serves.
    pub criteria: FilterChainMatch,
    /// Equal fingerprints mean chains that compile identically: a hash over the chain's deterministic protobuf
    /// encoding (with what it refers to inline). An update rebinds live connections when it is unchanged.
    pub fingerprint: u128,
    /// TLS towards the client; `None` is plaintext.
    pub tls: Option<Arc<DownstreamTls>>,
    /// How long the TLS handshake may take; `None` is for ever.
    pub transport_socket_connect_timeout: Option<Duration>,
    /// What ends the chain.
    pub terminal: TerminalFilter,
}

/// The network filter that ends a chain.
#[derive(Debug, Clone)]
pub enum TerminalFilter {
    /// `envoy.filters.network.http_connection_manager`.
    Http(Arc<HttpConnectionManager>),
    /// `envoy.filters.network.tcp_proxy`.
    Tcp(Arc<tcp_proxy::Config>),
}

/// Envoy's `FilterChainMatch`; an empty criterion matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FilterChainMatch {
    /// The local port the client connected to.
    pub destination_port: Option<u16>,
    /// The local address.
    pub prefix_ranges: Vec<CidrRange>,
    /// SNI: `www.example.com` or `*.example.com`, lower case.
    pub server_names: Vec<String>,
    /// `raw_buffer` or `tls`; empty matches both.
    pub transport_protocol: String,
    /// ALPN (or what http_inspector found): `h2`, `http/1.1`, `istio`, ...
    pub application_protocols: Vec<String>,
    /// The peer's address before the PROXY protocol or original_src changed it.
    pub direct_source_prefix_ranges: Vec<CidrRange>,
    /// Where connections may come from.
    pub source_type: SourceType,
    /// The client's address.
    pub source_prefix_ranges: Vec<CidrRange>,
    /// The client's port.
    pub source_ports: Vec<u16>,
}

/// `FilterChainMatch.ConnectionSourceType`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum SourceType {
    /// From anywhere.
    #[default]
    Any,
    /// The client's address is the local one, or loopback.
    SameIpOrLoopback,
    /// Any other.
    External,
}

/// An address prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CidrRange {
    address: IpAddr,
    length: u8,
}

impl CidrRange {
    /// A prefix of `length` bits (cut to the family's width); host bits are cleared.
    pub fn new(address: IpAddr, length: u8) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let length = length.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                Self { address: IpAddr::V4((u32::from(v4) & mask).into()), length }
            }
            IpAddr::V6(v6) => {
                let length = length.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                Self { address: IpAddr::V6((u128::from(v6) & mask).into()), length }
            }
        }
    }

    /// Is `address` within? (An IPv4-mapped IPv6 address counts as IPv4.)
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4()
            && Self::new(address, self.length).address == self.address
    }

    /// The prefix length in bits: longer is more specific.
    pub fn length(&self) -> u8 {
        self.length
    }
}
