//! What the main thread counts: listeners, clusters, discovery, the process.

use std::sync::Arc;
use std::time::Instant;

use telemetry::stats::sets::{ClusterManager, ClusterMembership, ListenerManager, Server};
use telemetry::stats::{Block, Gauge, Registry, Scope, SharedRecorder};

use super::control::Core;
use crate::snapshot::{ClusterEvents, ListenerEffect};
use crate::upstream::cluster::{Breakers, Cluster};
use crate::upstream::config::BreakerThresholds;
use crate::upstream::host::{DiscoveredHealth, Host, HostSet};

/// Where it counts.
pub struct Counters {
    recorder: SharedRecorder,
    server: Block<Server>,
    listeners: Block<ListenerManager>,
    clusters: Block<ClusterManager>,
}

impl Counters {
    /// In this registry.
    pub fn new(registry: &Registry, concurrency: usize) -> Self {
        let block = |word: &'static str| Scope::new().text(word);
        let counters = Self {
            recorder: registry.shared_recorder(),
            server: registry.block(&block("server")),
            listeners: registry.block(&block("listener_manager")),
            clusters: registry.block(&block("cluster_manager")),
        };
        counters.recorder.gauge_set(&counters.server, Server::CONCURRENCY, concurrency as i64);
        counters.recorder.gauge_set(&counters.listeners, ListenerManager::WORKERS_STARTED, 1);
        counters
    }

    /// What the main thread counts with: one recorder, as each has cells of its own for whatever it touches.
    pub fn recorder(&self) -> &SharedRecorder {
        &self.recorder
    }

    /// Everything that was configured at the start serves, so long after the process began.
    pub fn initialized(&self, started: Instant) {
        let took = started.elapsed().as_millis() as u64;
        self.recorder.record(&self.server, Server::INITIALIZATION_TIME_MS, took);
    }

    /// Listeners of an update that were refused: nothing of theirs was made.
    pub fn listeners_rejected(&self, count: u64) {
        let failure = ListenerManager::LISTENER_CREATE_FAILURE;
        self.recorder.add(&self.listeners, failure, count);
    }

    /// Endpoints of these clusters came or went.
    pub fn memberships(&self, changed: &[Block<ClusterMembership>]) {
        for block in changed {
            self.recorder.inc(block, ClusterMembership::MEMBERSHIP_CHANGE);
        }
    }

    /// A cluster's names were looked up so many times, so many of them in vain; are the addresses new?
    pub fn resolved(
        &self,
        block: &Block<ClusterMembership>,
        lookups: u64,
        failures: u64,
        is_new: bool,
    ) {
        let add = |counter, by| self.recorder.add(block, counter, by);
        add(ClusterMembership::UPDATE_ATTEMPT, lookups);
        add(ClusterMembership::UPDATE_SUCCESS, lookups - failures);
        add(ClusterMembership::UPDATE_FAILURE, failures);
        if !is_new && failures < lookups {
            add(ClusterMembership::UPDATE_NO_REBUILD, 1);
        }
    }

    /// Fields that no schema knows, in dynamic resources.
    pub fn unknown_fields(&self, count: u64) {
        self.recorder.add(&self.server, Server::DYNAMIC_UNKNOWN_FIELDS, count);
    }

    /// What becomes of clusters.
    pub fn clusters(&self, events: ClusterEvents) {
        self.recorder.add(&self.clusters, ClusterManager::CLUSTER_ADDED, events.added);
        self.recorder.add(&self.clusters, ClusterManager::CLUSTER_MODIFIED, events.modified);
        self.recorder.add(&self.clusters, ClusterManager::CLUSTER_REMOVED, events.removed);
    }

    /// What becomes of a listener.
    pub fn listener(&self, effect: &ListenerEffect, workers: u64) {
        let counter = match effect {
            ListenerEffect::Add(..) => {
                let created = ListenerManager::LISTENER_CREATE_SUCCESS;
                self.recorder.add(&self.listeners, created, workers);
                ListenerManager::LISTENER_ADDED
            }
            ListenerEffect::Update(..) => {
                self.recorder.inc(&self.listeners, ListenerManager::LISTENER_IN_PLACE_UPDATED);
                ListenerManager::LISTENER_MODIFIED
            }
            ListenerEffect::Remove(_) => ListenerManager::LISTENER_REMOVED,
        };
        self.recorder.inc(&self.listeners, counter);
    }

    /// Listeners were stopped.
    pub fn stopped(&self, count: u64) {
        self.recorder.add(&self.listeners, ListenerManager::LISTENER_STOPPED, count);
    }

    /// Sets the gauges, because somebody looks.
    pub fn refresh(&self, core: &Core, connections: usize) {
        let set =
            |gauge, value: usize| self.recorder.gauge_set(&self.listeners, gauge, value as i64);
        set(ListenerManager::TOTAL_LISTENERS_ACTIVE, core.snapshot.listeners().count());
        set(ListenerManager::TOTAL_LISTENERS_WARMING, core.snapshot.warming_listeners());
        let set =
            |gauge, value: usize| self.recorder.gauge_set(&self.clusters, gauge, value as i64);
        set(ClusterManager::ACTIVE_CLUSTERS, core.snapshot.clusters().count());
        set(ClusterManager::WARMING_CLUSTERS, core.snapshot.warming_clusters());
        self.recorder.gauge_set(&self.server, Server::TOTAL_CONNECTIONS, connections as i64);
        for (_, active) in core.snapshot.clusters() {
            self.refresh_membership(&active.membership, &active.hosts);
            self.refresh_breakers(&active.membership, &active.cluster);
        }
        let warming: Vec<_> = core.snapshot.warming_memberships().collect();
        for block in warming {
            self.recorder.gauge_set(block, ClusterMembership::WARMING_STATE, 1);
        }
    }

    fn refresh_membership(&self, block: &Block<ClusterMembership>, set: &HostSet) {
        let hosts = &set.hosts;
        let count = |gauge, value: usize| self.recorder.gauge_set(block, gauge, value as i64);
        let is_degraded = |host: &Host| host.discovered_health() == DiscoveredHealth::Degraded;
        let healthy = |degraded| {
            let alike = |host: &&Arc<Host>| host.is_healthy() && is_degraded(host) == degraded;
            hosts.iter().filter(alike).count()
        };
        count(ClusterMembership::MEMBERSHIP_TOTAL, hosts.len());
        count(ClusterMembership::MEMBERSHIP_HEALTHY, healthy(false));
        count(ClusterMembership::MEMBERSHIP_DEGRADED, healthy(true));
        let draining = |host: &&Arc<Host>| host.discovered_health() == DiscoveredHealth::Draining;
        count(ClusterMembership::MEMBERSHIP_EXCLUDED, hosts.iter().filter(draining).count());
        let heaviest = hosts.iter().map(|host| host.weight()).max().unwrap_or_default();
        count(ClusterMembership::MAX_HOST_WEIGHT, heaviest as usize);
        count(ClusterMembership::WARMING_STATE, 0);
    }

    /// Limits are looked at when somebody asks, so that nobody pays for it who counts against them.
    fn refresh_breakers(&self, block: &Block<ClusterMembership>, cluster: &Cluster) {
        for (priority, (open, remaining)) in OPEN.iter().zip(&REMAINING).enumerate() {
            let (limits, used) = cluster.priority(priority);
            let left = left(limits, used);
            for (gauge, left) in open.iter().zip(left) {
                self.recorder.gauge_set(block, *gauge, i64::from(left == 0));
            }
            for (gauge, left) in remaining.iter().zip(left).filter(|_| limits.track_remaining) {
                self.recorder.gauge_set(block, *gauge, i64::from(left));
            }
        }
    }
}

type Gauges = [[Gauge<ClusterMembership>; 4]; 2];

/// By priority; connections, pending requests, requests, retries.
const OPEN: Gauges = [
    [
        ClusterMembership::DEFAULT_CX_OPEN,
        ClusterMembership::DEFAULT_RQ_PENDING_OPEN,
        ClusterMembership::DEFAULT_RQ_OPEN,
        ClusterMembership::DEFAULT_RQ_RETRY_OPEN,
    ],
    [
        ClusterMembership::HIGH_CX_OPEN,
        ClusterMembership::HIGH_RQ_PENDING_OPEN,
        ClusterMembership::HIGH_RQ_OPEN,
        ClusterMembership::HIGH_RQ_RETRY_OPEN,
    ],
];

/// As [`OPEN`].
const REMAINING: Gauges = [
    [
        ClusterMembership::DEFAULT_REMAINING_CX,
        ClusterMembership::DEFAULT_REMAINING_PENDING,
        ClusterMembership::DEFAULT_REMAINING_RQ,
        ClusterMembership::DEFAULT_REMAINING_RETRIES,
    ],
    [
        ClusterMembership::HIGH_REMAINING_CX,
        ClusterMembership::HIGH_REMAINING_PENDING,
        ClusterMembership::HIGH_REMAINING_RQ,
        ClusterMembership::HIGH_REMAINING_RETRIES,
    ],
];

/// How much of each limit is left, in the order of [`OPEN`].
fn left(limits: &BreakerThresholds, used: &Breakers) -> [u32; 4] {
    [
        limits.max_connections.saturating_sub(used.connections.used()),
        limits.max_pending_requests.saturating_sub(used.pending.used()),
        limits.max_requests.saturating_sub(used.requests.used()),
        limits.max_retries.saturating_sub(used.retries.used()),
    ]
}
