//! Every cluster there is: warm ones serve, warming ones wait for endpoints and secrets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use api::text::{Problem, closest};
use smallvec::SmallVec;
use telemetry::stats::sets::ClusterMembership;
use telemetry::stats::{Block, Scope};

use super::clusters::{CompiledCluster, Discovery};
use super::compile::{ClusterUse, Environment, Needs};
use super::endpoints::{self, Assignment};
use super::fingerprint::Fingerprint;
use super::slots::Slots;
use super::source::Fetch;
use super::tls::TlsStore;
use super::{DnsTask, Effects, HealthTask, Version};
use crate::config_sync::sink::{GrpcTarget, ResourceKind};
use crate::upstream::cluster::Cluster;
use crate::upstream::config::{ClusterConfig, UpstreamProtocol};
use crate::upstream::host::{HostAddress, HostSet};
use crate::upstream::stats::ClusterBlocks;
use crate::worker::Change;

/// Every cluster, and every assignment of the endpoint discovery service.
#[derive(Debug, Default)]
pub struct ClusterSet {
    /// Boxed: a tree's nodes are half empty, and half of little is less.
    entries: BTreeMap<Arc<str>, Box<Entry>>,
    /// With the fingerprint of what each was compiled from.
    assignments: BTreeMap<Arc<str>, (Fingerprint, Assignment)>,
    /// Which clusters take which assignment.
    users: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Clusters that were touched since the last settling.
    touched: BTreeSet<Arc<str>>,
    removed: Vec<Arc<str>>,
    /// Clusters of which something waits, so that nobody looks for them among thousands.
    waiting: BTreeSet<Arc<str>>,
    /// Clusters that never served yet, or whose hosts have not all been checked once.
    cold: BTreeSet<Arc<str>>,
    /// What is asked of discovery may be another than when that was last looked at.
    wants_changed: bool,
    /// Clusters of the bootstrap, whether or not they can be compiled.
    expected: BTreeSet<String>,
}

/// One name's cluster. Boxed: there may be thousands, and a tree's nodes are half empty.
#[derive(Debug, Default)]
struct Entry {
    active: Option<Box<Active>>,
    warming: Option<Box<Warming>>,
    /// What DNS said last.
    addresses: Option<Box<Addresses>>,
    dns: Option<Box<DnsTask>>,
}

/// The addresses of names.
type Addresses = HashMap<String, Vec<IpAddr>>;

/// A cluster that serves.
#[derive(Debug)]
pub struct Active {
    /// Its configuration as it came.
    pub version: Version,
    /// What workers read.
    pub cluster: Arc<Cluster>,
    /// Its endpoints.
    pub hosts: Arc<HostSet>,
    /// Where the main thread counts its endpoints.
    pub membership: Block<ClusterMembership>,
    /// Without the endpoints that are in its configuration, if they never change.
    discovery: Discovery,
    /// `None` where it needs nothing.
    needs: Option<Box<Needs>>,
    /// Every host has been checked once, if they are checked at all.
    is_checked: bool,
    /// It has hosts that discovery has taken away.
    keeps_hosts: bool,
}

/// A cluster that waits.
#[derive(Debug)]
pub struct Warming {
    /// Its configuration as it came.
    pub version: Version,
    config: ClusterConfig,
    discovery: Discovery,
    needs: Needs,
    scope: Scope,
    membership: Block<ClusterMembership>,
    deadline: Option<Instant>,
}

impl Active {
    /// What its endpoints are called in discovery, if they are discovered.
    pub fn eds_service_name(&self) -> Option<&Arc<str>> {
        match &self.discovery {
            Discovery::Eds(service, _) => Some(service),
            _ => None,
        }
    }

    /// Do its endpoints never change?
    fn is_fixed(&self) -> bool {
        matches!(self.discovery, Discovery::Static(_)) && self.cluster.config.health_check.is_none()
    }

    /// Would a cluster with these ask of discovery what this one asks?
    fn wants_the_same(&self, discovery: &Discovery, needs: &Needs) -> bool {
        let known = self.needs.as_deref().map(|needs| &needs.secrets);
        known.unwrap_or(&BTreeMap::new()) == &needs.secrets
            && match (&self.discovery, discovery) {
                (Discovery::Eds(a, from), Discovery::Eds(b, other)) => a == b && from == other,
                (Discovery::Eds(..), _) | (_, Discovery::Eds(..)) => false,
                _ => true,
            }
    }
}

impl ClusterSet {
    /// Is this what there is already? An error when the name belongs to the bootstrap.
    pub fn is_current(&self, name: &str, version: &Version) -> Result<bool, Vec<Problem>> {
        let Some(entry) = self.entries.get(name) else { return Ok(false) };
        let newest = entry.warming.as_ref().map(|warming| &warming.version);
        let Some(newest) = newest.or(entry.active.as_ref().map(|active| &active.version)) else {
            return Ok(false);
        };
        if newest.is_static && version.is_static {
            return Err(vec![Problem::new("name", format!("there are two clusters `{name}`"))]);
        }
        if newest.is_static {
            return Err(vec![Problem::new(
                "name",
                format!("`{name}` is a cluster of the bootstrap"),
            )]);
        }
        Ok(newest.fingerprint == version.fingerprint)
    }

    /// Notes the names of the bootstrap's clusters.
    pub fn expect(&mut self, names: impl Iterator<Item = String>) {
        self.expected.extend(names);
    }

    /// What is wrong with a reference to a cluster.
    pub fn misuse(&self, used: &ClusterUse) -> Option<Problem> {
        if !self.entries.contains_key(&used.name) {
            let hint = closest(&used.name, self.entries.keys().map(|name| &**name));
            let hint = hint.map_or(String::new(), |name| format!(", did you mean `{name}`?"));
            let message = format!("there is no cluster `{}`{hint}", used.name);
            let missing = used.must_exist && !self.expected.contains(&*used.name);
            return missing.then(|| Problem::new(used.path.clone(), message));
        }
        None
    }

    /// Takes a compiled cluster; it waits until the next settling at least.
    pub fn insert(
        &mut self,
        name: &str,
        version: Version,
        compiled: CompiledCluster,
        needs: Needs,
        now: Instant,
    ) -> Result<(), Vec<Problem>> {
        let CompiledCluster { config, discovery, scope, membership } = compiled;
        let is_its_own = *name == *config.name;
        let name = if is_its_own { Arc::clone(&config.name) } else { name.into() };
        let timeouts = needs.secrets.values().chain(match &discovery {
            Discovery::Eds(_, fetch) => Some(&**fetch),
            _ => None,
        });
        let deadline = deadline(timeouts, now);
        if let Discovery::Eds(service, _) = &discovery {
            self.users.entry(Arc::clone(service)).or_default().insert(Arc::clone(&name));
        }
        let entry = self.entries.entry(Arc::clone(&name)).or_default();
        if entry.active.is_none() {
            self.cold.insert(Arc::clone(&name));
        }
        self.wants_changed |= entry.active.as_ref().is_none_or(|active| {
            entry.warming.is_some() || !active.wants_the_same(&discovery, &needs)
        });
        let warming = Warming { version, config, discovery, needs, scope, membership, deadline };
        entry.warming = Some(Box::new(warming));
        self.waiting.insert(Arc::clone(&name));
        self.touched.insert(name);
        Ok(())
    }

    /// Takes endpoints that were discovered.
    pub fn insert_assignment(
        &mut self,
        service: &str,
        fingerprint: Fingerprint,
        assignment: Assignment,
    ) {
        if self.assignments.get(service).is_some_and(|(known, _)| *known == fingerprint) {
            return;
        }
        let users = self.users.get_key_value(service);
        let name = users.map_or_else(|| service.into(), |(name, _)| Arc::clone(name));
        self.assignments.insert(name, (fingerprint, assignment));
        self.touched.extend(users.into_iter().flat_map(|(_, users)| users).cloned());
    }

    /// The endpoints are gone.
    pub fn remove_assignment(&mut self, service: &str) {
        if let Some((fingerprint, assignment)) = self.assignments.get_mut(service) {
            *assignment = Assignment::default();
            *fingerprint = super::fingerprint::of("removed");
            self.touched.extend(self.users.get(service).into_iter().flatten().cloned());
        }
    }

    /// The cluster is gone.
    pub fn remove(&mut self, name: &str) {
        let Some((name, entry)) = self.entries.remove_entry(name) else { return };
        let is_static = entry.active.as_ref().is_some_and(|active| active.version.is_static);
        if is_static {
            self.entries.insert(name, entry);
            return;
        }
        for set in [&mut self.touched, &mut self.waiting, &mut self.cold] {
            set.remove(&name);
        }
        for service in entry.services() {
            self.forget_user(service, &name);
        }
        self.wants_changed = true;
        self.removed.push(name);
    }

    /// The cluster does not take the assignment any more; one that none takes is gone.
    fn forget_user(&mut self, service: &Arc<str>, name: &Arc<str>) {
        let Some(users) = self.users.get_mut(service) else { return };
        users.remove(name);
        if users.is_empty() {
            self.users.remove(service);
            self.assignments.remove(service);
        }
    }

    /// What DNS says; is it new?
    pub fn resolved(&mut self, name: &str, addresses: Addresses) -> bool {
        let Some((name, _)) = self.entries.get_key_value(name) else { return false };
        let name = Arc::clone(name);
        let Some(entry) = self.entries.get_mut(&name) else { return false };
        if entry.addresses.as_deref() == Some(&addresses) {
            return false;
        }
        entry.addresses = Some(Box::new(addresses));
        self.touched.insert(name);
        true
    }

    /// Every host of the cluster has been checked once.
    pub fn health_checked(&mut self, name: &str) {
        if let Some(active) = self.entries.get_mut(name).and_then(|entry| entry.active.as_mut()) {
            active.is_checked = true;
            self.cold.remove(name);
        }
    }

    /// A host has failed its checks: if only those kept it, it goes with the next settling.
    pub fn host_failed(&mut self, name: &str) {
        let known = self.entries.get_key_value(name);
        let keeps_hosts = |entry: &Entry| entry.active.as_ref().is_some_and(|it| it.keeps_hosts);
        if let Some((name, _)) = known.filter(|(_, entry)| keeps_hosts(entry)) {
            self.touched.insert(Arc::clone(name));
        }
    }

    /// Every cluster, serving or not yet.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.entries.keys()
    }

    /// Where the clusters that take an assignment are counted.
    pub fn memberships(&self, service: &str) -> Vec<Block<ClusterMembership>> {
        let users = self.users.get(service).into_iter().flatten();
        users.filter_map(|name| self.membership(name).cloned()).collect()
    }

    /// Where a cluster's endpoints are counted.
    pub fn membership(&self, name: &str) -> Option<&Block<ClusterMembership>> {
        let entry = self.entries.get(name)?;
        let warming = entry.warming.as_ref().map(|warming| &warming.membership);
        warming.or(entry.active.as_ref().map(|active| &active.membership))
    }

    /// Puts what is ready into use.
    pub fn settle(
        &mut self,
        slots: &mut Slots,
        tls: &TlsStore,
        env: &Environment,
        now: Instant,
        effects: &mut Effects,
    ) {
        // The bootstrap has been read.
        self.expected.clear();
        for name in std::mem::take(&mut self.removed) {
            if !self.entries.contains_key(&name) {
                effects.changes.push(Change::Cluster(slots.cluster(&name), None));
                effects.clusters.removed += 1;
                effects.health.push(HealthTask {
                    name: Arc::clone(&name),
                    cluster: None,
                    hosts: Arc::default(),
                });
                effects.dns.push((name, None));
            }
        }
        // What waits for a secret or a deadline is not touched by its coming, so it is looked at every time.
        let mut names = std::mem::take(&mut self.touched);
        names.extend(self.waiting.iter().cloned());
        for name in names {
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            let services = |entry: &Entry| entry.services().cloned().collect::<SmallVec<[_; 2]>>();
            let before = services(entry);
            let newest = entry.active.as_ref().zip(entry.warming.as_ref());
            let is_other = newest.is_some_and(|(active, warming)| {
                !active.wants_the_same(&warming.discovery, &warming.needs)
            });
            let settling = Settling { name: &name, assignments: &self.assignments, tls, env, now };
            settling.settle(entry, slots, effects);
            if entry.warming.is_none() {
                self.waiting.remove(&name);
                self.wants_changed |= is_other;
            }
            if entry.active.as_ref().is_some_and(|active| active.is_checked) {
                self.cold.remove(&name);
            }
            let now = services(entry);
            let left = before.iter().filter(|service| !now.contains(service));
            left.for_each(|service| self.forget_user(service, &name));
        }
    }

    /// May what is asked of discovery be another than when this was last asked?
    pub fn take_wants_changed(&mut self) -> bool {
        std::mem::take(&mut self.wants_changed)
    }

    /// Does every cluster serve that ever was configured?
    pub fn are_warm(&self) -> bool {
        self.cold.is_empty()
    }

    /// When something that waits goes on without. What waits for DNS has no such time: resolution tells even when it fails.
    pub fn next_deadline(&self) -> Option<Instant> {
        let entries = self.waiting.iter().filter_map(|name| self.entries.get(name));
        let may_go_on = entries.filter(|entry| entry.dns.is_none() || entry.addresses.is_some());
        may_go_on.filter_map(|entry| entry.warming.as_ref()?.deadline).min()
    }

    /// Calls `each` with every assignment that is wanted.
    pub fn each_endpoint_source(&self, mut each: impl FnMut(&Arc<str>, &Fetch)) {
        for entry in self.entries.values() {
            for discovery in entry.discoveries() {
                if let Discovery::Eds(service, fetch) = discovery {
                    each(service, fetch);
                }
            }
        }
    }

    /// Calls `each` with what every cluster needs.
    pub fn each_need(&self, mut each: impl FnMut(&Needs)) {
        for entry in self.entries.values() {
            let active = entry.active.as_ref().and_then(|active| active.needs.as_deref());
            active.into_iter().for_each(&mut each);
            entry.warming.iter().for_each(|warming| each(&warming.needs));
        }
    }

    /// How a cluster is reached by the main thread.
    pub fn grpc_target(&self, name: &str) -> Option<GrpcTarget> {
        let active = self.entries.get(name)?.active.as_ref()?;
        let tls = active.cluster.config.tls.as_ref();
        Some(GrpcTarget {
            addresses: active.hosts.hosts.iter().map(|host| host.address.clone()).collect(),
            tls: tls.and_then(|tls| tls.current()).map(|side| Arc::clone(&side.config)),
            sni: tls.and_then(|tls| tls.settings().sni.as_ref()).map(|sni| sni.to_string()),
            authority: name.to_owned(),
        })
    }

    /// Every cluster that serves.
    pub fn active(&self) -> impl Iterator<Item = (&Arc<str>, &Active)> {
        self.entries.iter().filter_map(|(name, entry)| Some((name, entry.active.as_deref()?)))
    }

    /// Every cluster that waits.
    pub fn warming(&self) -> impl Iterator<Item = (&Arc<str>, &Warming)> {
        let warming = |name| {
            let (name, entry) = self.entries.get_key_value(name)?;
            Some((name, entry.warming.as_deref()?))
        };
        self.waiting.iter().filter_map(warming)
    }
}

/// The earliest moment at which waiting for any of these ends; `None` when one of them is waited for for ever.
pub fn deadline<'a>(fetches: impl Iterator<Item = &'a Fetch>, now: Instant) -> Option<Instant> {
    let mut latest = now;
    for fetch in fetches {
        latest = latest.max(now + fetch.initial_timeout?);
    }
    Some(latest)
}

impl Entry {
    fn discoveries(&self) -> impl Iterator<Item = &Discovery> {
        let active = self.active.iter().map(|active| &active.discovery);
        active.chain(self.warming.iter().map(|warming| &warming.discovery))
    }

    fn services(&self) -> impl Iterator<Item = &Arc<str>> {
        self.discoveries().filter_map(|discovery| match discovery {
            Discovery::Eds(service, _) => Some(service),
            _ => None,
        })
    }
}

/// One cluster's turn.
struct Settling<'a> {
    name: &'a Arc<str>,
    assignments: &'a BTreeMap<Arc<str>, (Fingerprint, Assignment)>,
    tls: &'a TlsStore,
    env: &'a Environment,
    now: Instant,
}

impl Settling<'_> {
    fn settle(&self, entry: &mut Entry, slots: &mut Slots, effects: &mut Effects) {
        self.resolve(entry, effects);
        let is_resolved = entry.addresses.is_some();
        if let Some(warming) = entry.warming.take_if(|warming| self.is_ready(warming, is_resolved))
        {
            self.activate(entry, *warming, slots, effects);
        } else if let Some(active) = &mut entry.active
            && !active.is_fixed()
        {
            self.refresh(active, entry.addresses.as_deref(), slots, effects);
        }
    }

    /// Endpoints may have changed.
    fn refresh(
        &self,
        active: &mut Active,
        addresses: Option<&Addresses>,
        slots: &mut Slots,
        effects: &mut Effects,
    ) {
        let config = &active.cluster.config;
        let mut hosts =
            hosts(self.assignments, &active.discovery, config, addresses, &active.hosts);
        if config.health_check.is_some() && !config.ignore_health_on_host_removal {
            active.keeps_hosts = endpoints::keep_healthy(&mut hosts, &active.hosts);
        }
        effects.memberships.extend(changed(&active.membership, &active.hosts, &hosts));
        active.hosts = Arc::new(hosts);
        effects.changes.push(Change::Hosts(slots.cluster(self.name), Arc::clone(&active.hosts)));
        if active.cluster.config.health_check.is_some() {
            effects.health.push(self.health_task(active));
        }
    }

    fn health_task(&self, active: &Active) -> HealthTask {
        HealthTask {
            name: Arc::clone(self.name),
            cluster: Some(Arc::clone(&active.cluster)),
            hosts: Arc::clone(&active.hosts),
        }
    }

    /// Starts, changes or ends the resolution of names.
    fn resolve(&self, entry: &mut Entry, effects: &mut Effects) {
        let newest = entry.warming.as_ref().map(|warming| &warming.discovery);
        let task = match newest.or(entry.active.as_ref().map(|active| &active.discovery)) {
            Some(
                Discovery::StrictDns(assignment, options)
                | Discovery::LogicalDns(assignment, options),
            ) => Some(DnsTask { names: assignment.names(), options: options.clone() }),
            _ => None,
        };
        let task = task.filter(|task| !task.names.is_empty());
        if task.as_ref() == entry.dns.as_deref() {
            return;
        }
        if task.is_some() {
            entry.addresses = None;
        }
        effects.dns.push((Arc::clone(self.name), task.clone()));
        entry.dns = task.map(Box::new);
    }

    fn is_ready(&self, warming: &Warming, resolved: bool) -> bool {
        let discovered = match &warming.discovery {
            Discovery::Static(_) => true,
            // Resolution tells even when it fails, so there is no deadline.
            Discovery::StrictDns(assignment, _) | Discovery::LogicalDns(assignment, _) => {
                if !resolved && !assignment.names().is_empty() {
                    return false;
                }
                true
            }
            Discovery::Eds(service, _) => self.assignments.contains_key(service),
        };
        let secrets = warming.needs.secrets.keys().all(|name| self.tls.has(name));
        discovered && secrets || warming.deadline.is_some_and(|deadline| deadline <= self.now)
    }

    fn activate(
        &self,
        entry: &mut Entry,
        warming: Warming,
        slots: &mut Slots,
        effects: &mut Effects,
    ) {
        let unanswered =
            warming.needs.secrets.keys().filter(|name| !self.tls.has(name)).map(Arc::clone);
        effects.unanswered.extend(unanswered.map(|name| (ResourceKind::Secret, name)));
        let Warming { version, config, mut discovery, needs, scope, membership, .. } = warming;
        let previous = entry.active.take();
        let empty = Arc::default();
        let old_hosts = previous.as_ref().map_or(&empty, |active| &active.hosts);
        let addresses = entry.addresses.as_deref();
        let hosts = hosts(self.assignments, &discovery, &config, addresses, old_hosts);
        if config.health_check.is_none()
            && let Discovery::Static(assignment) = &mut discovery
        {
            *assignment = Assignment::default();
        }
        let mut stats = ClusterBlocks::new(&self.env.registry, &scope);
        if config.tls.is_some() || config.transport_matches.iter().any(|found| found.tls.is_some())
        {
            stats = stats.with_tls(&self.env.registry, &scope);
        }
        if config.http.protocol != UpstreamProtocol::Http1 {
            stats = stats.with_http2(&self.env.registry, &scope);
        }
        effects.memberships.extend(changed(&membership, old_hosts, &hosts));
        let cluster = match &previous {
            Some(active) => {
                effects.clusters.modified += 1;
                active.cluster.successor(config, stats)
            }
            None => {
                effects.clusters.added += 1;
                Cluster::new(config, stats)
            }
        };
        let is_checked = previous.is_some()
            || cluster.config.health_check.is_none()
            || hosts.hosts.iter().all(|host| host.is_unchecked());
        let was_checked =
            previous.is_some_and(|active| active.cluster.config.health_check.is_some());
        let active = Active {
            version,
            cluster: Arc::new(cluster),
            hosts: Arc::new(hosts),
            membership,
            discovery,
            needs: (needs != Needs::default()).then(|| Box::new(needs)),
            is_checked,
            keeps_hosts: false,
        };
        if was_checked || active.cluster.config.health_check.is_some() {
            effects.health.push(self.health_task(&active));
        }
        let slot = slots.cluster(self.name);
        effects.changes.push(Change::Cluster(slot, Some(Arc::clone(&active.cluster))));
        effects.changes.push(Change::Hosts(slot, Arc::clone(&active.hosts)));
        entry.active = Some(Box::new(active));
    }
}

/// Where it is counted that endpoints came or went, if any did.
fn changed(
    membership: &Block<ClusterMembership>,
    before: &HostSet,
    now: &HostSet,
) -> Option<Block<ClusterMembership>> {
    let same = before.hosts.len() == now.hosts.len()
        && before.hosts.iter().zip(&now.hosts).all(|(old, new)| Arc::ptr_eq(old, new));
    (!same).then(|| membership.clone())
}

fn hosts(
    assignments: &BTreeMap<Arc<str>, (Fingerprint, Assignment)>,
    discovery: &Discovery,
    config: &ClusterConfig,
    addresses: Option<&Addresses>,
    previous: &HostSet,
) -> HostSet {
    let none = HashMap::new();
    let addresses = addresses.unwrap_or(&none);
    match discovery {
        Discovery::Static(assignment) | Discovery::StrictDns(assignment, _) => {
            assignment.host_set(config, addresses, previous)
        }
        Discovery::LogicalDns(assignment, _) => {
            assignment.host_set(config, &one_address(addresses, previous), previous)
        }
        Discovery::Eds(service, _) => match assignments.get(service) {
            Some((_, assignment)) => assignment.host_set(config, addresses, previous),
            None => HostSet::default(),
        },
    }
}

/// Of every name one address: the one in use as long as DNS has it, else the first. (Envoy takes the first each time; a
/// name server that turns its answers around would move every new connection.)
fn one_address(addresses: &Addresses, previous: &HostSet) -> Addresses {
    let in_use = |address: &IpAddr| {
        previous
            .hosts
            .iter()
            .any(|host| matches!(&host.address, HostAddress::Tcp(known) if known.ip() == *address))
    };
    let one = |found: &Vec<IpAddr>| {
        found.iter().find(|address| in_use(address)).or(found.first()).copied()
    };
    addresses.iter().map(|(name, found)| (name.clone(), one(found).into_iter().collect())).collect()
}
