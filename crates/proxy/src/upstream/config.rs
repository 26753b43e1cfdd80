//! Clusters as the engine reads them: compiled, plain data.

use std::sync::Arc;
use std::time::Duration;

use codec::headers::Version;

use crate::http::config::Http2Options;
use crate::network::tls::UpstreamTls;
use crate::stream_info::Metadata;
use crate::upstream::health_check::HealthCheck;

/// A cluster by slot: per name, interned by the snapshot compiler, possibly empty until the cluster comes.
/// A slot is reused only under a new generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterRef {
    /// Index into the view's clusters.
    pub slot: u32,
    /// Must equal the slot's.
    pub generation: u32,
}

impl ClusterRef {
    /// A slot that never holds a cluster.
    pub const NONE: Self = Self { slot: u32::MAX, generation: u32::MAX };
}

/// Clusters of which one is chosen by weight: a route's, or an L4 session's.
#[derive(Debug, Clone)]
pub struct WeightedClusters {
    entries: Vec<(ClusterRef, u32)>,
    total: u64,
}

impl WeightedClusters {
    /// Clusters with their weights; `None` when they add up to nothing.
    pub fn new(entries: Vec<(ClusterRef, u32)>) -> Option<Self> {
        let total = entries.iter().map(|(_, weight)| u64::from(*weight)).sum();
        (total > 0).then_some(Self { entries, total })
    }

    /// The index of the entry at `random`, any number.
    pub fn pick(&self, random: u64) -> usize {
        let mut point = random % self.total;
        for (index, (_, weight)) in self.entries.iter().enumerate() {
            let weight = u64::from(*weight);
            if point < weight {
                return index;
            }
            point -= weight;
        }
        0
    }

    /// Every entry.
    pub fn entries(&self) -> &[(ClusterRef, u32)] {
        &self.entries
    }
}

/// One compiled cluster, without its endpoints.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// The cluster's name.
    pub name: Arc<str>,
    /// `cluster.<stat_name>.` names the stats: `alt_stat_name`, else the name.
    pub stat_name: Arc<str>,
    /// What discovers the endpoints (for admin).
    pub discovery: DiscoveryType,
    /// How long a TCP connect (with the TLS handshake) may take (Envoy: 5 s).
    pub connect_timeout: Duration,
    /// The soft limit of each connection's buffers, in bytes (Envoy: 1 MiB).
    pub per_connection_buffer_limit: u32,
    /// How a host is chosen.
    pub lb_policy: LbPolicy,
    /// Below so many percent of healthy hosts, all hosts count as healthy (Envoy: 50; 0 is off).
    pub healthy_panic_threshold: f64,
    /// Localities get requests by their weights (`locality_weighted_lb_config`), and hosts within them by `lb_policy`.
    pub locality_weighted: bool,
    /// Limits per priority: `[default, high]`.
    pub breakers: [BreakerThresholds; 2],
    /// Ejection, if configured.
    pub outlier: Option<Box<OutlierConfig>>,
    /// Active checks, if configured.
    pub health_check: Option<Arc<HealthCheck>>,
    /// A host that discovery takes away goes at once; otherwise it stays as long as it passes its checks.
    pub ignore_health_on_host_removal: bool,
    /// HTTP towards the hosts.
    pub http: UpstreamHttpOptions,
    /// TLS towards the hosts; `None` is plaintext.
    pub tls: Option<Arc<UpstreamTls>>,
    /// `transport_socket_matches`, in order: the first whose criteria the endpoint's metadata has wins over `tls`.
    pub transport_matches: Vec<TransportMatch>,
    /// TCP keep-alive towards the hosts.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Close a host's connections once it becomes unhealthy.
    pub close_connections_on_host_health_failure: bool,
    /// The cluster's metadata.
    pub metadata: Metadata,
}

impl ClusterConfig {
    /// A cluster with Envoy's defaults.
    pub fn new(name: &str) -> Self {
        Self::named(name.into())
    }

    /// The same, its name shared.
    pub fn named(name: Arc<str>) -> Self {
        Self {
            stat_name: Arc::clone(&name),
            name,
            discovery: DiscoveryType::Static,
            connect_timeout: Duration::from_secs(5),
            per_connection_buffer_limit: 1 << 20,
            lb_policy: LbPolicy::RoundRobin,
            healthy_panic_threshold: 50.0,
            locality_weighted: false,
            breakers: [BreakerThresholds::default(); 2],
            outlier: None,
            health_check: None,
            ignore_health_on_host_removal: false,
            http: UpstreamHttpOptions::default(),
            tls: None,
            transport_matches: Vec::new(),
            tcp_keepalive: None,
            close_connections_on_host_health_failure: false,
            metadata: Metadata::default(),
        }
    }
}

/// Where endpoints come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscoveryType {
    /// In the configuration.
    Static,
    /// DNS, every address a host.
    StrictDns,
    /// DNS, one address at a time.
    LogicalDns,
    /// The endpoint discovery service.
    Eds,
}

/// How a host is chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum LbPolicy {
    /// In turn, by weight.
    RoundRobin,
    /// The least busy of `choices` random ones (all weights equal), else weights divided by the active requests.
    LeastRequest {
        /// How many hosts are compared (Envoy: 2).
        choices: u32,
    },
    /// Any, by weight.
    Random,
}

/// `CircuitBreakers.Thresholds`; the defaults are Envoy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerThresholds {
    /// TCP connections per process.
    pub max_connections: u32,
    /// Requests that wait for a connection.
    pub max_pending_requests: u32,
    /// Requests in flight.
    pub max_requests: u32,
    /// Retries in flight.
    pub max_retries: u32,
    /// Publish `circuit_breakers.<priority>.remaining_*`.
    pub track_remaining: bool,
}

impl Default for BreakerThresholds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
            track_remaining: false,
        }
    }
}

/// Consecutive-error outlier ejection; the defaults are Envoy's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlierConfig {
    /// 5xx in a row (5); `None` is off.
    pub consecutive_5xx: Option<u32>,
    /// 502, 503, 504 in a row; `None` is off (its enforcement is 0 % by default).
    pub consecutive_gateway_failure: Option<u32>,
    /// Locally originated failures in a row, if they are told apart from 5xx.
    pub consecutive_local_origin_failure: Option<u32>,
    /// `split_external_local_origin_errors`.
    pub split_local_origin: bool,
    /// How often ejections are looked at (10 s).
    pub interval: Duration,
    /// Ejection time, times how often the host was ejected (30 s).
    pub base_ejection_time: Duration,
    /// Its limit (300 s).
    pub max_ejection_time: Duration,
    /// The most hosts ejected, in percent (10).
    pub max_ejection_percent: u32,
    /// Percent of detections by 5xx that eject (100).
    pub enforcing_consecutive_5xx: u32,
    /// Percent of detections by gateway failure that eject (0).
    pub enforcing_consecutive_gateway_failure: u32,
    /// Percent of detections by local failure that eject (100).
    pub enforcing_consecutive_local_origin_failure: u32,
    /// One host may be ejected whatever the percentage.
    pub always_eject_one_host: bool,
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self {
            consecutive_5xx: Some(5),
            consecutive_gateway_failure: Some(5),
            consecutive_local_origin_failure: Some(5),
            split_local_origin: false,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejection_percent: 10,
            enforcing_consecutive_5xx: 100,
            enforcing_consecutive_gateway_failure: 0,
            enforcing_consecutive_local_origin_failure: 100,
            always_eject_one_host: false,
        }
    }
}

/// `HttpProtocolOptions` towards hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamHttpOptions {
    /// The protocol spoken.
    pub protocol: UpstreamProtocol,
    /// An unused pooled connection is closed after this (1 h).
    pub idle_timeout: Option<Duration>,
    /// A pooled connection takes no new request after this.
    pub max_connection_duration: Option<Duration>,
    /// Requests per connection.
    pub max_requests_per_connection: Option<u32>,
    /// Most response header fields (100).
    pub max_response_headers_count: u32,
    /// HTTP/1: pass trailers on.
    pub enable_trailers: bool,
    /// HTTP/1: `header_key_format: proper_case_words`.
    pub proper_case_words: bool,
    /// HTTP/2 particulars; mostly the same for many clusters.
    pub http2: Arc<Http2Options>,
}

impl Default for UpstreamHttpOptions {
    fn default() -> Self {
        Self {
            protocol: UpstreamProtocol::Http1,
            idle_timeout: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_requests_per_connection: None,
            max_response_headers_count: 100,
            enable_trailers: false,
            proper_case_words: false,
            http2: Arc::default(),
        }
    }
}

/// The protocol towards hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 (`explicit_http_config`).
    Http2,
    /// What the client speaks (`use_downstream_protocol_config`).
    Downstream,
    /// What ALPN agrees on, HTTP/1.1 without (`auto_config`). Both are offered.
    Auto,
    /// The bytes of a tunnel that ends here; never configured for a whole cluster.
    Raw,
}

impl UpstreamProtocol {
    /// What is spoken to a host for a request that came in `version`; never [`Self::Downstream`].
    pub fn resolve(self, version: Option<Version>) -> Self {
        match self {
            Self::Downstream if version == Some(Version::Http2) => Self::Http2,
            Self::Downstream => Self::Http1,
            other => other,
        }
    }

    /// Which version that is; `None` where the connection will tell, or where it is none.
    pub fn version(self) -> Option<Version> {
        match self {
            Self::Http1 | Self::Downstream => Some(Version::Http11),
            Self::Http2 => Some(Version::Http2),
            Self::Auto | Self::Raw => None,
        }
    }
}

/// One of `transport_socket_matches`.
#[derive(Debug, Clone)]
pub struct TransportMatch {
    /// The match's name (in stats and dumps).
    pub name: Arc<str>,
    /// What the endpoint's `envoy.transport_socket_match` metadata must have; empty matches every endpoint.
    pub criteria: Vec<(Arc<str>, serde_json::Value)>,
    /// TLS for those endpoints; `None` is plaintext.
    pub tls: Option<Arc<UpstreamTls>>,
}

/// TCP keep-alive; unset values are the system's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TcpKeepalive {
    /// Probes before the connection counts as dead.
    pub probes: Option<u32>,
    /// Silence before the first probe.
    pub time: Option<Duration>,
    /// Between probes.
    pub interval: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_share_the_range() {
        let cluster = |slot| ClusterRef { slot, generation: 0 };
        let weighted =
            WeightedClusters::new(vec![(cluster(1), 1), (cluster(2), 3), (cluster(3), 0)]).unwrap();
        let picks: Vec<u32> = (0..8).map(|n| weighted.entries()[weighted.pick(n)].0.slot).collect();
        assert_eq!(picks, [1, 2, 2, 2, 1, 2, 2, 2]);
        assert!(WeightedClusters::new(vec![(cluster(1), 0)]).is_none());
    }
}
