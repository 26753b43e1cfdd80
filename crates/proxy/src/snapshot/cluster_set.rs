//! Every cluster there is: warm ones serve, warming ones wait for endpoints and secrets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use api::text::{Problem, closest};
use telemetry::stats::Block;
use telemetry::stats::sets::ClusterMembership;

use super::clusters::{CompiledCluster, Discovery};
use super::compile::{ClusterUse, Environment, Needs};
use super::endpoints::{self, Assignment};
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
    entries: BTreeMap<Arc<str>, Entry>,
    assignments: BTreeMap<Arc<str>, (Version, Arc<Assignment>)>,
    /// Which clusters take which assignment.
    users: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Clusters that were touched since the last settling.
    touched: BTreeSet<Arc<str>>,
    removed: Vec<Arc<str>>,
    /// Clusters of the bootstrap, whether or not they can be compiled.
    expected: BTreeSet<String>,
}

/// One name's cluster.
#[derive(Debug, Default)]
struct Entry {
    active: Option<Active>,
    /// Boxed: most clusters have none, and there may be thousands.
    warming: Option<Box<Warming>>,
    /// What DNS said last.
    addresses: Option<HashMap<String, Vec<IpAddr>>>,
    dns: Option<DnsTask>,
}

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
    discovery: Discovery,
    needs: Needs,
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
        let name: Arc<str> = name.into();
        let CompiledCluster { config, discovery, membership } = compiled;
        let timeouts = needs.secrets.values().chain(match &discovery {
            Discovery::Eds(_, fetch) => Some(fetch),
            _ => None,
        });
        let deadline = deadline(timeouts, now);
        if let Discovery::Eds(service, _) = &discovery {
            self.users.entry(Arc::clone(service)).or_default().insert(Arc::clone(&name));
        }
        let entry = self.entries.entry(Arc::clone(&name)).or_default();
        let warming = Warming { version, config, discovery, needs, membership, deadline };
        entry.warming = Some(Box::new(warming));
        self.touched.insert(name);
        Ok(())
    }

    /// Takes endpoints that were discovered.
    pub fn insert_assignment(&mut self, service: &str, version: Version, assignment: Assignment) {
        if self
            .assignments
            .get(service)
            .is_some_and(|(known, _)| known.fingerprint == version.fingerprint)
        {
            return;
        }
        self.assignments.insert(service.into(), (version, Arc::new(assignment)));
        self.touched.extend(self.users.get(service).into_iter().flatten().cloned());
    }

    /// The endpoints are gone.
    pub fn remove_assignment(&mut self, service: &str) {
        if let Some((version, assignment)) = self.assignments.get_mut(service) {
            *assignment = Arc::default();
            version.fingerprint = super::fingerprint::of("removed");
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
        self.touched.remove(&name);
        self.removed.push(name);
        self.forget_unused_assignments();
    }

    fn forget_unused_assignments(&mut self) {
        let mut used: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
        for (name, entry) in &self.entries {
            for service in entry.services() {
                used.entry(Arc::clone(service)).or_default().insert(Arc::clone(name));
            }
        }
        self.assignments.retain(|service, _| used.contains_key(service));
        self.users = used;
    }

    /// What DNS says; is it new?
    pub fn resolved(&mut self, name: &str, addresses: HashMap<String, Vec<IpAddr>>) -> bool {
        let Some((name, _)) = self.entries.get_key_value(name) else { return false };
        let name = Arc::clone(name);
        let Some(entry) = self.entries.get_mut(&name) else { return false };
        if entry.addresses.as_ref() == Some(&addresses) {
            return false;
        }
        entry.addresses = Some(addresses);
        self.touched.insert(name);
        true
    }

    /// Every host of the cluster has been checked once.
    pub fn health_checked(&mut self, name: &str) {
        if let Some(active) = self.entries.get_mut(name).and_then(|entry| entry.active.as_mut()) {
            active.is_checked = true;
        }
    }

    /// A host has failed its checks: if only those kept it, it goes with the next settling.
    pub fn host_failed(&mut self, name: &str) {
        let known = self.entries.get_key_value(name);
        if let Some((name, Entry { active: Some(Active { keeps_hosts: true, .. }), .. })) = known {
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
        names.extend(
            self.entries
                .iter()
                .filter(|(_, entry)| entry.warming.is_some())
                .map(|(name, _)| Arc::clone(name)),
        );
        for name in names {
            if let Some(entry) = self.entries.get_mut(&name) {
                let settling =
                    Settling { name: &name, assignments: &self.assignments, tls, env, now };
                settling.settle(entry, slots, effects);
            }
        }
    }

    /// Does every cluster serve that ever was configured?
    pub fn are_warm(&self) -> bool {
        self.entries.values().all(|entry| entry.active.as_ref().is_some_and(|it| it.is_checked))
    }

    /// When something that waits goes on without. What waits for DNS has no such time: resolution tells even when it fails.
    pub fn next_deadline(&self) -> Option<Instant> {
        let may_go_on = |entry: &&Entry| entry.dns.is_none() || entry.addresses.is_some();
        let entries = self.entries.values().filter(may_go_on);
        entries.filter_map(|entry| entry.warming.as_ref()?.deadline).min()
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
            entry.active.iter().for_each(|active| each(&active.needs));
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
        self.entries.iter().filter_map(|(name, entry)| Some((name, entry.active.as_ref()?)))
    }

    /// Every cluster that waits.
    pub fn warming(&self) -> impl Iterator<Item = (&Arc<str>, &Warming)> {
        self.entries.iter().filter_map(|(name, entry)| Some((name, entry.warming.as_deref()?)))
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
    assignments: &'a BTreeMap<Arc<str>, (Version, Arc<Assignment>)>,
    tls: &'a TlsStore,
    env: &'a Environment,
    now: Instant,
}

impl Settling<'_> {
    fn settle(&self, entry: &mut Entry, slots: &mut Slots, effects: &mut Effects) {
        self.resolve(entry, effects);
        if let Some(warming) =
            entry.warming.take_if(|warming| self.is_ready(warming, entry.addresses.is_some()))
        {
            self.activate(entry, *warming, slots, effects);
        } else if let Some(active) = &mut entry.active {
            let config = &active.cluster.config;
            let mut hosts =
                hosts(self.assignments, &active.discovery, config, &entry.addresses, &active.hosts);
            if config.health_check.is_some() && !config.ignore_health_on_host_removal {
                active.keeps_hosts = endpoints::keep_healthy(&mut hosts, &active.hosts);
            }
            effects.memberships.extend(changed(&active.membership, &active.hosts, &hosts));
            active.hosts = Arc::new(hosts);
            effects
                .changes
                .push(Change::Hosts(slots.cluster(self.name), Arc::clone(&active.hosts)));
            if active.cluster.config.health_check.is_some() {
                effects.health.push(self.health_task(active));
            }
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
        if task == entry.dns {
            return;
        }
        if task.is_some() {
            entry.addresses = None;
        }
        effects.dns.push((Arc::clone(self.name), task.clone()));
        entry.dns = task;
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
        let Warming { version, config, discovery, needs, membership, .. } = warming;
        let previous = entry.active.take();
        let empty = Arc::default();
        let old_hosts = previous.as_ref().map_or(&empty, |active| &active.hosts);
        let hosts = hosts(self.assignments, &discovery, &config, &entry.addresses, old_hosts);
        let mut stats = ClusterBlocks::new(&self.env.registry, &config.stat_name);
        if config.tls.is_some() || config.transport_matches.iter().any(|found| found.tls.is_some())
        {
            stats = stats.with_tls(&self.env.registry, &config.stat_name);
        }
        if config.http.protocol != UpstreamProtocol::Http1 {
            stats = stats.with_http2(&self.env.registry, &config.stat_name);
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
            || hosts.hosts.iter().all(|host| host.check.disabled);
        let was_checked =
            previous.is_some_and(|active| active.cluster.config.health_check.is_some());
        let active = Active {
            version,
            cluster: Arc::new(cluster),
            hosts: Arc::new(hosts),
            membership,
            discovery,
            needs,
            is_checked,
            keeps_hosts: false,
        };
        if was_checked || active.cluster.config.health_check.is_some() {
            effects.health.push(self.health_task(&active));
        }
        let slot = slots.cluster(self.name);
        effects.changes.push(Change::Cluster(slot, Some(Arc::clone(&active.cluster))));
        effects.changes.push(Change::Hosts(slot, Arc::clone(&active.hosts)));
        entry.active = Some(active);
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
    assignments: &BTreeMap<Arc<str>, (Version, Arc<Assignment>)>,
    discovery: &Discovery,
    config: &ClusterConfig,
    addresses: &Option<HashMap<String, Vec<IpAddr>>>,
    previous: &HostSet,
) -> HostSet {
    let none = HashMap::new();
    let addresses = addresses.as_ref().unwrap_or(&none);
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
fn one_address(
    addresses: &HashMap<String, Vec<IpAddr>>,
    previous: &HostSet,
) -> HashMap<String, Vec<IpAddr>> {
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
