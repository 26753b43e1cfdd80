//! Hosts and host sets: what all workers share of a cluster's endpoints.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::network::tls::UpstreamTls;
use crate::stream_info::Metadata;
use crate::upstream::health_check::CheckTarget;

/// Where a host is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix domain socket.
    Pipe(PathBuf),
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Pipe(path) => path.display().fmt(f),
        }
    }
}

/// A locality.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Sub-zone.
    pub sub_zone: Arc<str>,
}

/// Health as the endpoint's discovery tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum DiscoveredHealth {
    /// `HEALTHY` or `UNKNOWN`.
    #[default]
    Healthy = 0,
    /// `DEGRADED`.
    Degraded = 1,
    /// `UNHEALTHY`, `TIMEOUT`.
    Unhealthy = 2,
    /// `DRAINING`: no new requests.
    Draining = 3,
}

/// One endpoint. It keeps its identity (and so its counters and its ejection) across endpoint updates as long as its
/// address stays: the producer reuses the `Arc` and sets weight and health in place.
#[derive(Debug)]
pub struct Host {
    /// Where it is.
    pub address: HostAddress,
    /// `address` as text, made once for logs.
    pub address_text: Arc<str>,
    /// The endpoint's hostname (auto host rewrite, DNS name); may be empty.
    pub hostname: Arc<str>,
    /// Endpoint metadata.
    pub metadata: Metadata,
    /// Its locality.
    pub locality: Arc<Locality>,
    /// Its priority: 0 is best.
    pub priority: u32,
    /// How it is checked, if not as its cluster says.
    pub check: Option<Arc<CheckTarget>>,
    /// TLS as chosen by `transport_socket_matches` for its metadata; `None` is plaintext.
    pub tls: Option<Arc<UpstreamTls>>,
    weight: AtomicU32,
    locality_weight: AtomicU32,
    health: AtomicU32,
    active_check_failed: AtomicBool,
    /// What happened to it.
    pub counters: HostCounters,
    /// Consecutive errors and ejection.
    pub outlier: crate::upstream::outlier::HostOutlier,
}

/// Per-process counters of a host (Envoy's `/clusters` shows them).
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct HostCounters {
    /// Connections open now.
    pub cx_active: AtomicU32,
    /// Requests in flight now.
    pub rq_active: AtomicU32,
    /// Connections ever.
    pub cx_total: AtomicU64,
    /// Connects that failed.
    pub cx_connect_fail: AtomicU64,
    /// Requests ever.
    pub rq_total: AtomicU64,
    /// Responses other than 5xx.
    pub rq_success: AtomicU64,
    /// 5xx and resets.
    pub rq_error: AtomicU64,
    /// Per-try and route timeouts.
    pub rq_timeout: AtomicU64,
}

impl HostCounters {
    /// Counts an answer by its status, or by what stands for it.
    pub fn count(&self, status: u16) {
        let counter = if status >= 500 { &self.rq_error } else { &self.rq_success };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a host is made from.
#[derive(Debug, Clone, Default)]
pub struct HostOptions {
    /// The endpoint's hostname.
    pub hostname: Arc<str>,
    /// Endpoint metadata.
    pub metadata: Metadata,
    /// Its locality.
    pub locality: Arc<Locality>,
    /// Its priority.
    pub priority: u32,
    /// TLS towards it.
    pub tls: Option<Arc<UpstreamTls>>,
    /// How it is checked, if not as its cluster says.
    pub check: Option<Arc<CheckTarget>>,
    /// Load-balancing weight (at least 1).
    pub weight: u32,
    /// Its locality's weight, where localities have some.
    pub locality_weight: u32,
    /// Discovered health.
    pub health: DiscoveredHealth,
}

impl Host {
    /// A host at `address`.
    pub fn new(address: HostAddress, options: HostOptions) -> Self {
        Self {
            address_text: address.to_string().into(),
            address,
            hostname: options.hostname,
            metadata: options.metadata,
            locality: options.locality,
            priority: options.priority,
            tls: options.tls,
            check: options.check,
            weight: AtomicU32::new(options.weight.max(1)),
            locality_weight: AtomicU32::new(options.locality_weight),
            health: AtomicU32::new(options.health as u32),
            active_check_failed: AtomicBool::new(false),
            counters: HostCounters::default(),
            outlier: crate::upstream::outlier::HostOutlier::default(),
        }
    }

    /// Is it left out of its cluster's checks?
    pub fn is_unchecked(&self) -> bool {
        self.check.as_ref().is_some_and(|check| check.disabled)
    }

    /// Load-balancing weight, at least 1.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Sets the weight; takes effect with the next [`HostSet`].
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight.max(1), Ordering::Relaxed);
    }

    /// The weight of its locality; 0 is none.
    pub fn locality_weight(&self) -> u32 {
        self.locality_weight.load(Ordering::Relaxed)
    }

    /// Sets the weight of its locality; takes effect with the next [`HostSet`].
    pub fn set_locality_weight(&self, weight: u32) {
        self.locality_weight.store(weight, Ordering::Relaxed);
    }

    /// Health as discovered.
    pub fn discovered_health(&self) -> DiscoveredHealth {
        match self.health.load(Ordering::Relaxed) {
            0 => DiscoveredHealth::Healthy,
            1 => DiscoveredHealth::Degraded,
            2 => DiscoveredHealth::Unhealthy,
            _ => DiscoveredHealth::Draining,
        }
    }

    /// Sets the discovered health.
    pub fn set_discovered_health(&self, health: DiscoveredHealth) {
        self.health.store(health as u32, Ordering::Relaxed);
    }

    /// Sets what the active health checker found.
    pub fn set_active_check_failed(&self, failed: bool) {
        self.active_check_failed.store(failed, Ordering::Relaxed);
    }

    /// Did the active health checker find it failed?
    pub fn active_check_failed(&self) -> bool {
        self.active_check_failed.load(Ordering::Relaxed)
    }

    /// May new requests go there, panic mode aside?
    pub fn is_healthy(&self) -> bool {
        matches!(self.discovered_health(), DiscoveredHealth::Healthy | DiscoveredHealth::Degraded)
            && !self.active_check_failed()
            && !self.outlier.is_ejected()
    }
}

/// A cluster's endpoints at one moment; swapped whole, its hosts keep their identity.
#[derive(Debug, Default)]
pub struct HostSet {
    /// Every host, in the order of the assignment, all priorities.
    pub hosts: Vec<Arc<Host>>,
    /// `policy.overprovisioning_factor` in percent (Envoy: 140).
    pub overprovisioning_factor: u32,
    health_epoch: AtomicU64,
}

impl HostSet {
    /// A set of hosts with Envoy's overprovisioning factor.
    pub fn new(hosts: Vec<Arc<Host>>) -> Self {
        Self { hosts, overprovisioning_factor: 140, health_epoch: AtomicU64::new(0) }
    }

    /// Tells every worker's balancer that the health of some host has changed (a check, an ejection).
    pub fn health_changed(&self) {
        self.health_epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// How often health has changed within this set.
    pub fn health_epoch(&self) -> u64 {
        self.health_epoch.load(Ordering::Relaxed)
    }
}
