//! Configuration compiled: protobuf in, plain data that workers read out.
//!
//! * [`compile`]: what every step carries; one file compiles one kind of message: [`clusters`], [`endpoints`],
//!   [`listeners`], [`http`], [`routes`], [`tls`], [`access_logs`].
//! * [`cluster_set`], [`listener_set`], [`route_set`]: what there is of each kind, warm and warming.
//! * [`Snapshot`]: all of it. An update is compiled, checked and held until what it needs is there; what becomes ready is
//!   an effect for the workers. Identical configuration has none.

pub mod access_logs;
pub mod cluster_set;
pub mod clusters;
pub mod compile;
pub mod dump;
pub mod endpoints;
pub mod filter_overrides;
pub mod fingerprint;
pub mod health_checks;
pub mod http;
pub mod http2;
pub mod listener_set;
pub mod listeners;
pub mod node;
pub mod parts;
pub mod registry;
pub mod route_set;
pub mod route_tables;
pub mod routes;
pub mod slots;
pub mod source;
pub mod tls;
pub mod values;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use api::check::Checker;
use api::text::Problem;
use telemetry::stats::Block;
use telemetry::stats::sets::ClusterMembership;

use crate::config_sync::sink::{
    GrpcSource, GrpcTarget, Names, Rejected, Resource, ResourceKind, Source, Subscriptions, Update,
};
use crate::listener::config::{ListenAddress, ListenerConfig};
use crate::upstream::cluster::Cluster;
use crate::upstream::host::HostSet;
use crate::worker::{Change, ListenerId};
use cluster_set::ClusterSet;
use clusters::DnsOptions;
use compile::{ClusterUse, Compile, Environment};
use fingerprint::Fingerprint;
use listener_set::ListenerSet;
use listeners::SocketOptions;
use route_set::RouteSet;
use slots::Slots;
use source::Fetch;
use tls::TlsStore;

/// One version of a resource, as it came.
#[derive(Debug, Clone)]
pub struct Version {
    /// The encoded message.
    pub raw: Arc<[u8]>,
    /// The server's version; empty for what is from the bootstrap.
    pub version: Arc<str>,
    /// Equal for configurations that are equal.
    pub fingerprint: Fingerprint,
    /// When it came.
    pub updated: SystemTime,
    /// Is it from the bootstrap?
    pub is_static: bool,
}

/// What the workers are to be told, in this order.
#[derive(Debug, Default)]
pub struct Effects {
    /// Clusters, endpoints, route tables: one commit.
    pub changes: Vec<Change>,
    /// Then listeners.
    pub listeners: Vec<ListenerEffect>,
    /// How many clusters came, changed and went.
    pub clusters: ClusterEvents,
    /// Where it is counted that a cluster's endpoints came or went.
    pub memberships: Vec<Block<ClusterMembership>>,
    /// Resources that something goes on without, as its time to wait is over.
    pub unanswered: Vec<(ResourceKind, Arc<str>)>,
    /// Kinds of resources whose first answer did not come in time.
    pub silent: Vec<ResourceKind>,
    /// Clusters whose names are to be resolved from now on, or with `None` no more.
    pub dns: Vec<(Arc<str>, Option<DnsTask>)>,
    /// Clusters whose hosts are to be checked from now on, or no more.
    pub health: Vec<HealthTask>,
}

/// How many clusters came, changed and went.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ClusterEvents {
    /// New ones.
    pub added: u64,
    /// Known ones with a new configuration.
    pub modified: u64,
    /// Gone ones.
    pub removed: u64,
}

/// A cluster whose hosts may have to be checked.
#[derive(Debug)]
pub struct HealthTask {
    /// Its name.
    pub name: Arc<str>,
    /// What it is now; `None` when it is gone.
    pub cluster: Option<Arc<Cluster>>,
    /// Its hosts.
    pub hosts: Arc<HostSet>,
}

/// Names to resolve for a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsTask {
    /// Which.
    pub names: Vec<String>,
    /// How.
    pub options: DnsOptions,
}

/// One change of a listener.
#[derive(Debug)]
pub enum ListenerEffect {
    /// Serve on the sockets bound for this id.
    Add(ListenerId, Arc<ListenerConfig>),
    /// Serve with this from now on.
    Update(ListenerId, Arc<ListenerConfig>),
    /// Drain and close.
    Remove(ListenerId),
}

/// Binds sockets: the part of preparing a listener that needs the outside world.
pub trait Binder {
    /// Binds the sockets of a listener; they wait until it is added.
    ///
    /// # Errors
    /// Why not, for a person: the address is taken, forbidden, not there.
    fn bind(
        &mut self,
        id: ListenerId,
        name: &str,
        address: &ListenAddress,
        options: &SocketOptions,
    ) -> Result<(), String>;

    /// The listener went away before it was added.
    fn release(&mut self, id: ListenerId);
}

/// Binds nothing: for validation.
#[derive(Debug, Default)]
pub struct NoSockets;

impl Binder for NoSockets {
    fn bind(
        &mut self,
        _: ListenerId,
        _: &str,
        _: &ListenAddress,
        _: &SocketOptions,
    ) -> Result<(), String> {
        Ok(())
    }

    fn release(&mut self, _: ListenerId) {}
}

/// Everything that is configured.
#[derive(Debug)]
pub struct Snapshot {
    env: Environment,
    slots: Slots,
    tls: TlsStore,
    clusters: ClusterSet,
    listeners: ListenerSet,
    routes: RouteSet,
    secrets: BTreeMap<Arc<str>, Version>,
    static_secrets: BTreeSet<String>,
    ads: Option<GrpcSource>,
    discovered: BTreeMap<ResourceKind, Fetch>,
    /// Kinds whose first answer has not come, with when they are waited for no longer.
    awaited: BTreeMap<ResourceKind, Option<Instant>>,
    /// The last version of each resource that was rejected, until a good one comes.
    rejected: BTreeMap<(ResourceKind, String), RejectedVersion>,
    /// Fields of dynamic resources that no schema knows, since they were last asked for.
    unknown_fields: u64,
    /// What is asked of discovery may be another than when that was last asked.
    wants_changed: bool,
}

/// A version of a resource that was rejected.
#[derive(Debug, Clone)]
pub struct RejectedVersion {
    /// As it came.
    pub resource: Resource,
    /// Everything that is wrong with it.
    pub details: String,
    /// When it came.
    pub when: SystemTime,
}

impl Snapshot {
    /// Nothing configured yet.
    pub fn new(env: Environment) -> Self {
        Self {
            env,
            slots: Slots::default(),
            tls: TlsStore::default(),
            clusters: ClusterSet::default(),
            listeners: ListenerSet::default(),
            routes: RouteSet::default(),
            secrets: BTreeMap::new(),
            static_secrets: BTreeSet::new(),
            ads: None,
            discovered: BTreeMap::new(),
            awaited: BTreeMap::new(),
            rejected: BTreeMap::new(),
            unknown_fields: 0,
            wants_changed: true,
        }
    }

    /// What compilation stands on.
    pub fn environment(&self) -> &Environment {
        &self.env
    }

    /// How many fields that no schema knows have come since this was last asked (`server.dynamic_unknown_fields`).
    pub fn take_unknown_fields(&mut self) -> u64 {
        std::mem::take(&mut self.unknown_fields)
    }

    /// Takes an update. What is rejected changes nothing; the rest serves as soon as [`Snapshot::settle`] finds it ready.
    pub fn apply(
        &mut self,
        update: &Update,
        binder: &mut dyn Binder,
        now: Instant,
    ) -> Vec<Rejected> {
        let mut rejected = Vec::new();
        self.awaited.remove(&update.kind);
        self.note_wants(update.kind);
        for resource in &update.added {
            let key = (update.kind, resource.name.clone());
            match self.take(update.kind, resource, false, binder, now) {
                Ok(()) => drop(self.rejected.remove(&key)),
                Err(problems) => {
                    let refused = Rejected { name: resource.name.clone(), problems };
                    let details = refused.reason();
                    let when = SystemTime::now();
                    let version = RejectedVersion { resource: resource.clone(), details, when };
                    self.rejected.insert(key, version);
                    rejected.push(refused);
                }
            }
        }
        for name in &update.removed {
            self.rejected.remove(&(update.kind, name.clone()));
            self.remove(update.kind, name, binder);
        }
        rejected
    }

    /// Takes one resource of the bootstrap, which the check of the whole bootstrap has seen.
    ///
    /// # Errors
    /// Everything that is wrong with it, with paths from it on.
    pub fn take_static(
        &mut self,
        kind: ResourceKind,
        name: &str,
        bytes: Vec<u8>,
        binder: &mut dyn Binder,
        now: Instant,
    ) -> Result<(), Vec<Problem>> {
        if kind == ResourceKind::Secret {
            self.static_secrets.insert(name.to_owned());
        }
        self.note_wants(kind);
        let resource = Resource { name: name.to_owned(), version: String::new(), bytes };
        self.take(kind, &resource, true, binder, now)
    }

    /// Names of the bootstrap's clusters: one that cannot be compiled is no reason to complain of who refers to it.
    pub fn expect_clusters(&mut self, names: impl Iterator<Item = String>) {
        self.clusters.expect(names);
    }

    fn take(
        &mut self,
        kind: ResourceKind,
        resource: &Resource,
        is_static: bool,
        binder: &mut dyn Binder,
        now: Instant,
    ) -> Result<(), Vec<Problem>> {
        let version = self.check(kind, resource, is_static)?;
        match kind {
            ResourceKind::Cluster => self.take_cluster(resource, version, now),
            ResourceKind::Endpoints => self.take_endpoints(resource, version),
            ResourceKind::Listener => self.take_listener(resource, version, binder, now),
            ResourceKind::Routes => self.take_routes(resource, version, now),
            ResourceKind::VirtualHosts => self.take_virtual_host(resource, version),
            ResourceKind::Secret => self.take_secret(resource, version),
        }
    }

    /// The schema's verdict, and the canonical form.
    fn check(
        &mut self,
        kind: ResourceKind,
        resource: &Resource,
        is_static: bool,
    ) -> Result<Version, Vec<Problem>> {
        let schema = &self.env.schema;
        let Some(message) = schema.message_of_type_url(kind.type_url()) else {
            return Err(vec![Problem::new("", format!("unknown type {}", kind.type_url()))]);
        };
        if !is_static {
            let extensions = |name: &str| self.env.extensions.knows(name);
            let report = Checker::new(schema, &extensions).check(message, &resource.bytes);
            self.unknown_fields += report.unknown_fields;
            if !report.problems.is_empty() {
                return Err(report.problems);
            }
        }
        let canonical = api::canonical::encode(schema, message, &resource.bytes);
        Ok(Version {
            fingerprint: fingerprint::of(&canonical),
            raw: canonical.into(),
            version: values::text(&resource.version),
            updated: SystemTime::now(),
            is_static,
        })
    }

    /// Runs a compilation; any problem spoils it.
    fn compile<R>(
        &mut self,
        step: impl FnOnce(&mut Compile<'_>, &mut TlsStore) -> Option<R>,
    ) -> Result<(R, compile::Needs, Vec<ClusterUse>), Vec<Problem>> {
        let mut cx = Compile::new(&self.env, &mut self.slots);
        cx.static_secrets.clone_from(&self.static_secrets);
        let result = step(&mut cx, &mut self.tls);
        for used in &cx.clusters {
            cx.problems.extend(self.clusters.misuse(used));
        }
        match result {
            Some(result) if cx.problems.is_empty() => {
                cx.needs.clusters = cx.clusters.iter().map(|used| Arc::clone(&used.name)).collect();
                Ok((result, cx.needs, cx.clusters))
            }
            _ if cx.problems.is_empty() => Err(vec![Problem::new("", "cannot be compiled")]),
            _ => Err(cx.problems),
        }
    }

    fn take_cluster(
        &mut self,
        resource: &Resource,
        version: Version,
        now: Instant,
    ) -> Result<(), Vec<Problem>> {
        if self.clusters.is_current(&resource.name, &version)? {
            return Ok(());
        }
        let message = decode::<api::envoy::config::cluster::v3::Cluster>(&version.raw)?;
        let (compiled, needs, _) = self.compile(|cx, tls| clusters::cluster(cx, tls, &message))?;
        self.clusters.insert(&resource.name, version, compiled, needs, now)
    }

    fn take_endpoints(
        &mut self,
        resource: &Resource,
        version: Version,
    ) -> Result<(), Vec<Problem>> {
        let message =
            decode::<api::envoy::config::endpoint::v3::ClusterLoadAssignment>(&version.raw)?;
        let (assignment, _, _) = self.compile(|cx, _| Some(endpoints::assignment(cx, &message)))?;
        if let Some(name) = assignment.names().first() {
            return Err(vec![Problem::new("endpoints", format!("`{name}` is no IP address"))]);
        }
        self.clusters.insert_assignment(&resource.name, version.fingerprint, assignment);
        Ok(())
    }

    fn take_listener(
        &mut self,
        resource: &Resource,
        version: Version,
        binder: &mut dyn Binder,
        now: Instant,
    ) -> Result<(), Vec<Problem>> {
        if self.listeners.is_current(&resource.name, &version)? {
            return Ok(());
        }
        let message = decode::<api::envoy::config::listener::v3::Listener>(&version.raw)?;
        let (compiled, needs, _) =
            self.compile(|cx, tls| listeners::listener(cx, tls, &message))?;
        self.listeners.insert(version, compiled, needs, binder, now)
    }

    fn take_routes(
        &mut self,
        resource: &Resource,
        version: Version,
        now: Instant,
    ) -> Result<(), Vec<Problem>> {
        if self.routes.is_current(&resource.name, &version) {
            return Ok(());
        }
        let message = decode::<api::envoy::config::route::v3::RouteConfiguration>(&version.raw)?;
        let Self { env, slots, clusters, routes, .. } = self;
        let mut cx = Compile::new(env, slots);
        cx.validate_clusters = message.validate_clusters.is_some_and(|validate| validate.value);
        routes.insert(&mut cx, &message, version, clusters, now)
    }

    fn take_virtual_host(
        &mut self,
        resource: &Resource,
        version: Version,
    ) -> Result<(), Vec<Problem>> {
        let message = decode::<api::envoy::config::route::v3::VirtualHost>(&version.raw)?;
        let Self { env, slots, clusters, routes, .. } = self;
        let mut cx = Compile::new(env, slots);
        routes.insert_virtual_host(&mut cx, &resource.name, &message, version, clusters)
    }

    fn take_secret(&mut self, resource: &Resource, version: Version) -> Result<(), Vec<Problem>> {
        let known = self.secrets.get(&*resource.name);
        let is_same = known.is_some_and(|known| known.fingerprint == version.fingerprint);
        // The same names of files may have other files behind them.
        if is_same && tls::files_of(&version.raw).is_empty() {
            return Ok(());
        }
        let mut message = tls::decode_secret(&version.raw).map_err(|problem| vec![problem])?;
        resource.name.clone_into(&mut message.name);
        self.compile(|cx, tls| tls.update(cx, &message))?;
        self.secrets.insert(resource.name.as_str().into(), version);
        Ok(())
    }

    fn remove(&mut self, kind: ResourceKind, name: &str, binder: &mut dyn Binder) {
        match kind {
            ResourceKind::Cluster => self.clusters.remove(name),
            // A cluster without endpoints is told so by an empty assignment; the name gone means the same.
            ResourceKind::Endpoints => self.clusters.remove_assignment(name),
            ResourceKind::Listener => self.listeners.remove(name, binder),
            // As in Envoy: what a listener still refers to stays until the listener does not.
            ResourceKind::Routes | ResourceKind::Secret => {}
            ResourceKind::VirtualHosts => self.routes.remove_virtual_host(name),
        }
    }

    /// What has become ready, at a moment after changes or when [`Snapshot::next_deadline`] has come.
    pub fn settle(&mut self, now: Instant) -> Effects {
        let mut effects = Effects::default();
        self.awaited.retain(|kind, deadline| {
            let waits = deadline.is_none_or(|deadline| now < deadline);
            effects.silent.extend((!waits).then_some(*kind));
            waits
        });
        self.clusters.settle(&mut self.slots, &self.tls, &self.env, now, &mut effects);
        self.routes.keep_only(&self.listeners.routes_needed(), &mut effects);
        self.routes.settle(&mut self.slots, &mut effects);
        let clusters_are_warm = self.clusters_are_warm();
        let (routes, tls) = (&self.routes, &self.tls);
        self.listeners.settle(
            clusters_are_warm,
            |name| routes.is_ready(name),
            |name| tls.has(name),
            now,
            &mut effects,
        );
        if self.slots.want_sweep() {
            self.sweep_slots();
        }
        self.wants_changed |= self.clusters.take_wants_changed() || !effects.listeners.is_empty();
        effects
    }

    /// Something of this kind comes or goes. What clusters ask for is known to them; there are few of the others.
    fn note_wants(&mut self, kind: ResourceKind) {
        self.wants_changed |= matches!(kind, ResourceKind::Listener | ResourceKind::Routes);
    }

    /// What discovery is asked for, if that may be something else than when this was last asked.
    pub fn new_subscriptions(&mut self) -> Option<Subscriptions> {
        std::mem::take(&mut self.wants_changed).then(|| self.subscriptions())
    }

    /// Gives away slots whose names are gone, and that nothing refers to any more.
    fn sweep_slots(&mut self) {
        let mut clusters: HashSet<Arc<str>> = self.clusters.names().cloned().collect();
        self.listeners.each_need(|needs| clusters.extend(needs.clusters.iter().cloned()));
        self.routes.each_cluster_use(|name| clusters.extend([Arc::clone(name)]));
        let needed = self.listeners.routes_needed();
        let routes = &self.routes;
        self.slots.sweep(
            |name| clusters.contains(name),
            |name| needed.contains(name) || routes.has(name),
        );
    }

    /// When something that waits goes on without.
    pub fn next_deadline(&self) -> Option<Instant> {
        let warm = self.clusters_are_warm();
        let waiting = [self.clusters.next_deadline(), self.listeners.next_deadline(warm)];
        waiting.into_iter().chain(self.awaited.values().copied()).flatten().min()
    }

    /// Does every cluster serve, those that discovery begins with included?
    pub fn clusters_are_warm(&self) -> bool {
        self.clusters.are_warm() && !self.awaited.contains_key(&ResourceKind::Cluster)
    }

    /// Is everything that was configured serving?
    pub fn is_warm(&self) -> bool {
        self.clusters.are_warm() && self.listeners.are_warm() && self.awaited.is_empty()
    }

    /// The addresses that a cluster's names have now; are they others than before?
    pub fn resolved(&mut self, cluster: &str, addresses: HashMap<String, Vec<IpAddr>>) -> bool {
        self.clusters.resolved(cluster, addresses)
    }

    /// Where a cluster's endpoints are counted.
    pub fn membership(&self, cluster: &str) -> Option<&Block<ClusterMembership>> {
        self.clusters.membership(cluster)
    }

    /// The same, of every cluster that takes an assignment.
    pub fn memberships(&self, service: &str) -> Vec<Block<ClusterMembership>> {
        self.clusters.memberships(service)
    }

    /// The `stat_prefix` of each connection manager that takes a route configuration.
    pub fn stat_prefixes_of_routes(&self, name: &str) -> BTreeSet<Arc<str>> {
        let mut prefixes = BTreeSet::new();
        self.listeners.each_need(|needs| {
            let takes = needs.managers.iter().filter(|(routes, _)| **routes == *name);
            prefixes.extend(takes.map(|(_, prefix)| Arc::clone(prefix)));
        });
        prefixes
    }

    /// Every host of a cluster has been checked once.
    pub fn health_checked(&mut self, cluster: &str) {
        self.clusters.health_checked(cluster);
    }

    /// A host has failed its checks: if only those kept it, it goes with the next settling.
    pub fn host_failed(&mut self, cluster: &str) {
        self.clusters.host_failed(cluster);
    }

    /// Where discovery is, from the bootstrap. Its first answers are waited for as long as each source says.
    pub fn discover(
        &mut self,
        ads: Option<GrpcSource>,
        clusters: Option<Fetch>,
        listeners: Option<Fetch>,
        now: Instant,
    ) {
        self.ads = ads;
        self.wants_changed = true;
        self.discovered.extend(clusters.map(|fetch| (ResourceKind::Cluster, fetch)));
        self.discovered.extend(listeners.map(|fetch| (ResourceKind::Listener, fetch)));
        for (kind, fetch) in &self.discovered {
            self.awaited.insert(*kind, fetch.initial_timeout.map(|timeout| now + timeout));
        }
    }

    /// All that discovery is asked for.
    pub fn subscriptions(&self) -> Subscriptions {
        let mut wanted: BTreeMap<Source, BTreeMap<ResourceKind, Names>> = BTreeMap::new();
        for (kind, fetch) in &self.discovered {
            wanted.entry(fetch.source.clone()).or_default().insert(*kind, Names::Wildcard);
        }
        let mut named: BTreeMap<Source, BTreeMap<ResourceKind, BTreeSet<Arc<str>>>> =
            BTreeMap::new();
        let mut want = |kind: ResourceKind, name: &Arc<str>, fetch: &Fetch| {
            if !named.contains_key(&fetch.source) {
                named.insert(fetch.source.clone(), BTreeMap::new());
            }
            let names = named.get_mut(&fetch.source).map(|kinds| kinds.entry(kind).or_default());
            names.map(|names| names.insert(Arc::clone(name)));
        };
        self.clusters
            .each_endpoint_source(|name, fetch| want(ResourceKind::Endpoints, name, fetch));
        self.clusters.each_need(|needs| {
            needs.secrets.iter().for_each(|(name, fetch)| want(ResourceKind::Secret, name, fetch));
        });
        self.listeners.each_need(|needs| {
            needs.secrets.iter().for_each(|(name, fetch)| want(ResourceKind::Secret, name, fetch));
            needs.routes.iter().for_each(|(name, fetch)| want(ResourceKind::Routes, name, fetch));
        });
        self.routes
            .each_virtual_host_source(|name, fetch| want(ResourceKind::VirtualHosts, name, fetch));
        for (source, kinds) in named {
            let known = wanted.entry(source).or_default();
            for (kind, names) in kinds {
                // Whoever wants everything of a kind wants these, too.
                known.entry(kind).or_insert_with(|| Names::Named(Arc::new(names)));
            }
        }
        Subscriptions { ads: self.ads.clone(), wanted }
    }

    /// How a cluster is reached by the main thread.
    pub fn grpc_target(&self, cluster: &str) -> Option<GrpcTarget> {
        self.clusters.grpc_target(cluster)
    }
}

fn decode<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, Vec<Problem>> {
    M::decode(bytes).map_err(|_| vec![Problem::new("", "malformed protobuf")])
}

#[cfg(test)]
pub(crate) mod tests;
