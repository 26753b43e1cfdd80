//! What is counted of each subscription, under Envoy's names: `cluster_manager.cds.*`, `listener_manager.lds.*`,
//! `http.<prefix>.rds.<name>.*`, `http.<prefix>.vhds.<name>.*`, `sds.<name>.*`, and for endpoints `cluster.<name>.update_*`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};
use telemetry::stats::sets::{ClusterMembership, ConfigReload, ConfigSource, ControlPlane};
use telemetry::stats::{Block, Registry, Scope, SharedRecorder};

use crate::config_sync::sink::{Names, ResourceKind, Subscriptions, Update};
use crate::snapshot::Snapshot;

/// Where it is counted.
pub struct DiscoveryCounters {
    registry: Registry,
    recorder: SharedRecorder,
    control_plane: Block<ControlPlane>,
    tracked: Mutex<Tracked>,
}

/// By what is subscribed: a kind, and a name unless everything of the kind is wanted.
type Tracked = HashMap<(ResourceKind, Option<Arc<str>>), Places>;

/// Mostly one: of thousands of assignments each.
type Places = SmallVec<[Place; 1]>;

/// Where one subscription is counted.
enum Place {
    Source(Box<SourcePlace>),
    Endpoints(Block<ClusterMembership>),
}

/// Where a subscription with statistics of its own is counted.
struct SourcePlace {
    scope: Scope,
    updates: Block<ConfigSource>,
    reloads: Option<Block<ConfigReload>>,
}

/// What happened to a subscription.
#[derive(Clone, Copy)]
enum Event<'a> {
    /// It was asked for, for the first time.
    Asked,
    /// The server's answer is in force; its version, if it says one.
    Accepted { version: Option<&'a str>, is_empty: bool, took: Duration },
    /// The server's answer was refused.
    Rejected,
    /// The stream was lost, or could not be opened.
    Failed,
    /// What waited for it goes on without.
    TimedOut,
}

impl DiscoveryCounters {
    /// In this registry, counted by the main thread's recorder.
    pub fn new(registry: &Registry, recorder: SharedRecorder) -> Self {
        Self {
            registry: registry.clone(),
            recorder,
            control_plane: registry.block(&Scope::new().text("control_plane")),
            tracked: Mutex::default(),
        }
    }

    /// What is wanted has changed: what is new is counted as asked for, what is gone is forgotten.
    pub fn follow(&self, snapshot: &Snapshot, wanted: &Subscriptions) {
        let mut tracked = self.tracked.lock();
        let mut now = Tracked::new();
        for (kind, names) in wanted.wanted.values().flatten() {
            let keys: Vec<Option<Arc<str>>> = match names {
                Names::Wildcard => vec![None],
                Names::Named(names) => names.iter().map(|name| Some(Arc::clone(name))).collect(),
            };
            for key in keys.into_iter().map(|name| (*kind, name)) {
                let known = tracked.remove(&key);
                let is_new = known.is_none();
                let places =
                    known.unwrap_or_else(|| self.places(snapshot, *kind, key.1.as_deref()));
                if is_new {
                    places.iter().for_each(|place| self.count(place, Event::Asked));
                }
                now.insert(key, places);
            }
        }
        *tracked = now;
    }

    /// An update was applied, which took so long; the names of what was rejected.
    pub fn update(&self, update: &Update, rejected: &[String], took: Duration) {
        let tracked = self.tracked.lock();
        let count = |name: Option<&str>, event: Event<'_>| {
            let key = (update.kind, name.map(Arc::from));
            let places = tracked.get(&key).into_iter().flatten();
            places.for_each(|place| self.count(place, event));
        };
        let version = update.added.last().map(|newest| newest.version.as_str());
        let whole = if rejected.is_empty() {
            let is_empty = update.added.is_empty() && update.removed.is_empty();
            Event::Accepted { version, is_empty, took }
        } else {
            Event::Rejected
        };
        count(None, whole);
        for resource in &update.added {
            // Virtual hosts are subscribed by their route configuration's name.
            let name = match update.kind {
                ResourceKind::VirtualHosts => {
                    resource.name.rsplit_once('/').map_or(&*resource.name, |(table, _)| table)
                }
                _ => &resource.name,
            };
            if rejected.contains(&resource.name) {
                count(Some(name), Event::Rejected);
            } else {
                let version = Some(resource.version.as_str());
                count(Some(name), Event::Accepted { version, is_empty: false, took });
            }
        }
        for name in &update.removed {
            count(Some(name), Event::Accepted { version: None, is_empty: true, took });
        }
    }

    /// Something was waited for in vain.
    pub fn timed_out(&self, kind: ResourceKind, name: Option<&Arc<str>>) {
        let tracked = self.tracked.lock();
        let places = tracked.get(&(kind, name.cloned())).into_iter().flatten();
        places.for_each(|place| self.count(place, Event::TimedOut));
    }

    /// A stream was opened, or lost; the aggregated one, or the one for a kind.
    pub fn connected(&self, only: Option<ResourceKind>, is_connected: bool) {
        if only.is_none() {
            let state = i64::from(is_connected);
            self.recorder.gauge_set(&self.control_plane, ControlPlane::CONNECTED_STATE, state);
        }
        if is_connected {
            return;
        }
        for ((kind, _), places) in self.tracked.lock().iter() {
            if only.is_none_or(|only| only == *kind) {
                places.iter().for_each(|place| self.count(place, Event::Failed));
            }
        }
    }

    fn count(&self, place: &Place, event: Event<'_>) {
        match place {
            Place::Source(source) => {
                let SourcePlace { scope, updates, reloads } = &**source;
                self.count_source(updates, event);
                if let Event::Accepted { version: Some(version), .. } = event {
                    self.registry.set_text(scope, "version_text", version);
                    if let Some(reloads) = reloads {
                        self.recorder.inc(reloads, ConfigReload::CONFIG_RELOAD);
                        self.recorder.gauge_set(
                            reloads,
                            ConfigReload::CONFIG_RELOAD_TIME_MS,
                            now_ms(),
                        );
                    }
                }
            }
            Place::Endpoints(block) => {
                let inc = |counter| self.recorder.inc(block, counter);
                match event {
                    Event::Asked => inc(ClusterMembership::UPDATE_ATTEMPT),
                    Event::Accepted { is_empty, .. } => {
                        inc(ClusterMembership::UPDATE_ATTEMPT);
                        inc(ClusterMembership::UPDATE_SUCCESS);
                        if is_empty {
                            inc(ClusterMembership::UPDATE_EMPTY);
                        }
                    }
                    Event::Rejected => {
                        inc(ClusterMembership::UPDATE_ATTEMPT);
                        inc(ClusterMembership::UPDATE_REJECTED);
                    }
                    Event::Failed => inc(ClusterMembership::UPDATE_FAILURE),
                    Event::TimedOut => {}
                }
            }
        }
    }

    fn count_source(&self, block: &Block<ConfigSource>, event: Event<'_>) {
        let inc = |counter| self.recorder.inc(block, counter);
        match event {
            Event::Asked => inc(ConfigSource::UPDATE_ATTEMPT),
            Event::Accepted { took, .. } => {
                inc(ConfigSource::UPDATE_ATTEMPT);
                inc(ConfigSource::UPDATE_SUCCESS);
                self.recorder.gauge_set(block, ConfigSource::UPDATE_TIME, now_ms());
                let took = took.as_millis() as u64;
                self.recorder.record(block, ConfigSource::UPDATE_DURATION, took);
            }
            Event::Rejected => {
                inc(ConfigSource::UPDATE_ATTEMPT);
                inc(ConfigSource::UPDATE_REJECTED);
            }
            Event::Failed => inc(ConfigSource::UPDATE_FAILURE),
            Event::TimedOut => inc(ConfigSource::INIT_FETCH_TIMEOUT),
        }
    }

    fn places(&self, snapshot: &Snapshot, kind: ResourceKind, name: Option<&str>) -> Places {
        let name = name.unwrap_or_default();
        let by_manager = |word: &'static str| -> Places {
            let prefixes = snapshot.stat_prefixes_of_routes(name);
            let scope = |prefix: &Arc<str>| {
                Scope::http(prefix).text(word).tag("envoy.rds_route_config", name)
            };
            prefixes.iter().map(|prefix| self.source(scope(prefix), true)).collect()
        };
        match kind {
            ResourceKind::Cluster => {
                smallvec![self.source(Scope::new().text("cluster_manager").text("cds"), true)]
            }
            ResourceKind::Listener => {
                smallvec![self.source(Scope::new().text("listener_manager").text("lds"), false)]
            }
            ResourceKind::Secret => {
                let scope = Scope::new().text("sds").tag("envoy.xds_resource_name", name);
                smallvec![self.source(scope, false)]
            }
            ResourceKind::Routes => by_manager("rds"),
            ResourceKind::VirtualHosts => by_manager("vhds"),
            ResourceKind::Endpoints => {
                snapshot.memberships(name).into_iter().map(Place::Endpoints).collect()
            }
        }
    }

    fn source(&self, scope: Scope, reloads: bool) -> Place {
        Place::Source(Box::new(SourcePlace {
            updates: self.registry.block(&scope),
            reloads: reloads.then(|| self.registry.block(&scope)),
            scope,
        }))
    }
}

/// Milliseconds since the epoch.
fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}
