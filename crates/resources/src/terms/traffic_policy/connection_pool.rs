//! Limits and timeouts of connections.

use std::time::Duration;

use crate::field::{Fields, Names, Reason};

/// Limits and timeouts of connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectionPool {
    /// For every connection.
    pub tcp: Option<TcpPool>,
    /// For HTTP.
    pub http: Option<HttpPool>,
}

/// Limits and timeouts of every connection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TcpPool {
    /// Most connections; 0 and nothing mean no limit.
    pub max_connections: Option<u32>,
    /// Time to connect; the mesh's where nothing was said.
    pub connect_timeout: Option<Duration>,
    /// TCP keep-alive probes.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Longest life of a connection.
    pub max_connection_duration: Option<Duration>,
    /// Time without bytes after which a connection is closed; zero switches it off.
    pub idle_timeout: Option<Duration>,
}

/// TCP keep-alive probes; what is absent is the system's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Probes without answer before the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    pub time: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
}

/// Limits and timeouts of HTTP.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpPool {
    /// Most requests that wait for a connection.
    pub http1_max_pending_requests: Option<u32>,
    /// Most requests in flight, HTTP/1 too.
    pub http2_max_requests: Option<u32>,
    /// Most requests of one connection; 0 means no limit, 1 switches keep-alive off.
    pub max_requests_per_connection: Option<u32>,
    /// Most retries in flight.
    pub max_retries: Option<u32>,
    /// Time without requests after which a connection is closed; 1 h where nothing was said.
    pub idle_timeout: Option<Duration>,
    /// Whether HTTP/1 requests go up as HTTP/2.
    pub h2_upgrade_policy: H2Upgrade,
    /// Whether the protocol of the downstream is used upstream.
    pub use_client_protocol: bool,
    /// Most concurrent streams of one HTTP/2 connection.
    pub max_concurrent_streams: Option<u32>,
    /// HTTP/2 pings.
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// HTTP/2 pings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http2KeepAlive {
    /// Time between pings.
    pub interval: Duration,
    /// Time for an answer.
    pub timeout: Duration,
}

/// Whether HTTP/1 requests go up as HTTP/2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum H2Upgrade {
    /// The mesh decides.
    #[default]
    Default,
    /// No.
    DoNotUpgrade,
    /// Yes.
    Upgrade,
}

impl Names for H2Upgrade {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("DEFAULT", Self::Default),
        ("DO_NOT_UPGRADE", Self::DoNotUpgrade),
        ("UPGRADE", Self::Upgrade),
    ];
}

impl ConnectionPool {
    /// Reads the settings; Sidecars have them too.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        if fields.count(&["tcp", "http"]) == 0 {
            fields.error(Reason::Required, "one of tcp, http is required");
        }
        Self {
            tcp: fields.object("tcp", TcpPool::read),
            http: fields.object("http", HttpPool::read),
        }
    }
}

impl TcpPool {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            max_connections: fields.non_negative("maxConnections"),
            connect_timeout: fields.duration("connectTimeout"),
            tcp_keepalive: fields.object("tcpKeepalive", TcpKeepalive::read),
            max_connection_duration: fields.duration("maxConnectionDuration"),
            idle_timeout: fields.duration_or_zero("idleTimeout"),
        }
    }
}

impl TcpKeepalive {
    /// Reads the settings; MeshConfig has them too.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            probes: fields.u32("probes"),
            time: fields.duration("time"),
            interval: fields.duration("interval"),
        }
    }
}

impl HttpPool {
    fn read(fields: &mut Fields<'_>) -> Self {
        let read = Self {
            http1_max_pending_requests: fields.non_negative("http1MaxPendingRequests"),
            http2_max_requests: fields.non_negative("http2MaxRequests"),
            max_requests_per_connection: fields.non_negative("maxRequestsPerConnection"),
            max_retries: fields.non_negative("maxRetries"),
            idle_timeout: fields.duration("idleTimeout"),
            h2_upgrade_policy: fields.choice("h2UpgradePolicy").unwrap_or_default(),
            use_client_protocol: fields.flag("useClientProtocol").unwrap_or_default(),
            max_concurrent_streams: fields.non_negative("maxConcurrentStreams"),
            http2_keep_alive: fields.object("http2KeepAlive", |fields| {
                for field in ["interval", "timeout"] {
                    if !fields.has(field) {
                        fields.require(field);
                    }
                }
                Http2KeepAlive {
                    interval: fields.duration("interval").unwrap_or_default(),
                    timeout: fields.duration("timeout").unwrap_or_default(),
                }
            }),
        };
        if read.h2_upgrade_policy == H2Upgrade::Upgrade && read.use_client_protocol {
            fields.error_in(
                "useClientProtocol",
                Reason::Forbidden,
                "cannot go with h2UpgradePolicy: UPGRADE",
            );
        }
        read
    }
}
