//! What the main thread counts: listeners, clusters, discovery, the process.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use telemetry::stats::sets::{
    ClusterManager, ClusterMembership, ConfigSource, ListenerManager, Server,
};
use telemetry::stats::{Block, Registry, Scope, SharedRecorder};

use super::control::Core;
use crate::config_sync::sink::{ResourceKind, Update};
use crate::snapshot::{ClusterEvents, ListenerEffect};
use crate::upstream::host::DiscoveredHealth;

/// Where it counts.
pub struct Counters {
    registry: Registry,
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
            registry: registry.clone(),
        };
        counters.recorder.gauge_set(&counters.server, Server::CONCURRENCY, concurrency as i64);
        counters.recorder.gauge_set(&counters.listeners, ListenerManager::WORKERS_STARTED, 1);
        counters
    }

    /// Everything that was configured at the start serves, so long after the process began.
    pub fn initialized(&self, started: Instant) {
        let took = started.elapsed().as_millis() as u64;
        self.recorder.record(&self.server, Server::INITIALIZATION_TIME_MS, took);
    }

    /// An update came, of which so many resources were rejected.
    pub fn update(&self, update: &Update, rejected: usize) {
        let Some(scope) = scope(update) else { return };
        let block: Block<ConfigSource> = self.registry.block(&scope);
        self.recorder.inc(&block, ConfigSource::UPDATE_ATTEMPT);
        if rejected > 0 {
            self.recorder.inc(&block, ConfigSource::UPDATE_REJECTED);
            return;
        }
        self.recorder.inc(&block, ConfigSource::UPDATE_SUCCESS);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.recorder.gauge_set(&block, ConfigSource::UPDATE_TIME, now.as_millis() as i64);
        if let Some(newest) = update.added.last() {
            self.registry.set_text(&scope, "version_text", &newest.version);
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
            let hosts = &active.hosts.hosts;
            let count = |gauge, value: usize| {
                self.recorder.gauge_set(&active.membership, gauge, value as i64)
            };
            count(ClusterMembership::MEMBERSHIP_TOTAL, hosts.len());
            let degraded = |health| health == DiscoveredHealth::Degraded;
            let healthy = hosts
                .iter()
                .filter(|host| host.is_healthy() && !degraded(host.discovered_health()));
            count(ClusterMembership::MEMBERSHIP_HEALTHY, healthy.count());
            let degraded =
                hosts.iter().filter(|host| host.is_healthy() && degraded(host.discovered_health()));
            count(ClusterMembership::MEMBERSHIP_DEGRADED, degraded.count());
        }
    }
}

/// Where Envoy counts the updates of this kind; some are counted per resource, which is not done yet.
fn scope(update: &Update) -> Option<Scope> {
    match update.kind {
        ResourceKind::Cluster => Some(Scope::new().text("cluster_manager").text("cds")),
        ResourceKind::Listener => Some(Scope::new().text("listener_manager").text("lds")),
        _ => None,
    }
}
