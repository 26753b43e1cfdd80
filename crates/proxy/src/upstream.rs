//! Steps 13 to 16: clusters as one worker sees them, load balancing, pools, attempts.

pub mod attempt;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod health_check;
pub mod host;
pub mod load_balancing;
pub mod multiplexed;
pub mod opening;
pub mod outlier;
pub mod pool;
pub mod stats;

use std::collections::HashMap;
use std::sync::Arc;

use codec::headers::RequestHead;
use hashbrown::HashTable;
use smallvec::SmallVec;
use telemetry::stats::Recorder;

use crate::arena::{Arena, Key};
use crate::route_table::{RouteAction, RouteMatch};
use crate::router::config::ClusterChoice;
use crate::stream_info::AlpnList;
use crate::worker::random::Random;
use cluster::Cluster;
use config::{ClusterRef, UpstreamProtocol};
use host::{Host, HostSet};
use load_balancing::Balancer;
use pool::Pool;
use stats::ClusterCells;

/// A worker's clusters and pools.
#[derive(Default)]
pub struct Upstreams {
    slots: Vec<Slot>,
    /// Pools of all clusters; connections name theirs by key.
    pub pools: Arena<Pool>,
    /// Slots by the hash of their clusters' names.
    names: HashTable<u32>,
    hasher: ahash::RandomState,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    known: Option<Known>,
}

/// A cluster that there is. Most of a mesh's clusters are never asked for on most workers: so much must do for them.
struct Known {
    cluster: Arc<Cluster>,
    hosts: Arc<HostSet>,
    /// Made when it is first used.
    here: Option<Box<WorkerCluster>>,
}

/// A cluster that is in use on this worker.
pub struct WorkerCluster {
    /// What all workers share.
    pub cluster: Arc<Cluster>,
    /// This worker's cells.
    pub cells: ClusterCells,
    /// Chooses hosts.
    pub balancer: Balancer,
    /// Pools, as the hosts of the balancer's set; made when first needed. A host has one for each protocol and each ALPN list asked for.
    pools: Vec<SmallVec<[Key<Pool>; 1]>>,
}

impl WorkerCluster {
    fn new(
        cluster: &Arc<Cluster>,
        hosts: &Arc<HostSet>,
        recorder: &Recorder,
        random: &mut Random,
    ) -> Self {
        Self {
            cells: ClusterCells::new(recorder, &cluster.stats),
            balancer: Balancer::new(&cluster.config, Arc::clone(hosts), random),
            pools: vec![SmallVec::new(); hosts.hosts.len()],
            cluster: Arc::clone(cluster),
        }
    }
}

impl Upstreams {
    fn known(&self, at: ClusterRef) -> Option<&Known> {
        let slot = self.slots.get(at.slot as usize)?;
        slot.known.as_ref().filter(|_| slot.generation == at.generation)
    }

    fn known_mut(&mut self, at: ClusterRef) -> Option<&mut Known> {
        let slot = self.slots.get_mut(at.slot as usize)?;
        slot.known.as_mut().filter(|_| slot.generation == at.generation)
    }

    /// The cluster in a slot, if it is in use here.
    #[inline]
    pub fn get(&self, at: ClusterRef) -> Option<&WorkerCluster> {
        self.known(at)?.here.as_deref()
    }

    /// The cluster in a slot, if there is one; from now on it is in use here.
    #[inline]
    pub fn take_up(
        &mut self,
        at: ClusterRef,
        recorder: &Recorder,
        random: &mut Random,
    ) -> Option<&mut WorkerCluster> {
        let Known { cluster, hosts, here } = self.known_mut(at)?;
        let make = || Box::new(WorkerCluster::new(cluster, hosts, recorder, random));
        Some(here.get_or_insert_with(make))
    }

    /// The cluster that a route leads to, if it is there.
    pub fn find(
        &self,
        route: &RouteMatch,
        action: &RouteAction,
        request: &RequestHead,
    ) -> Option<ClusterRef> {
        match &action.cluster {
            ClusterChoice::Weighted(_) => route.cluster().filter(|at| self.known(*at).is_some()),
            choice => self.resolve(choice, request),
        }
    }

    /// The cluster that is meant, where it is not chosen by weight, if it is there.
    pub fn resolve(&self, choice: &ClusterChoice, request: &RequestHead) -> Option<ClusterRef> {
        let at = match choice {
            ClusterChoice::Header(name) => {
                let name = std::str::from_utf8(request.get(&**name)?).ok()?;
                self.named(name)?
            }
            ClusterChoice::Cluster(at) => *at,
            ClusterChoice::Weighted(_) => return None,
        };
        self.known(at).map(|_| at)
    }

    fn named(&self, name: &str) -> Option<ClusterRef> {
        let slots = &self.slots;
        let slot =
            *self.names.find(self.hasher.hash_one(name), |slot| is_named(slots, *slot, name))?;
        Some(ClusterRef { slot, generation: slots[slot as usize].generation })
    }

    /// The pool of a host by its index in the balancer's set, whose connections speak `protocol` and offer `alpn`.
    pub fn pool_of(
        &mut self,
        at: ClusterRef,
        index: usize,
        protocol: UpstreamProtocol,
        alpn: Option<&AlpnList>,
    ) -> Option<Key<Pool>> {
        let pools = &mut self.pools;
        let slot =
            self.slots.get_mut(at.slot as usize).filter(|slot| slot.generation == at.generation)?;
        let cluster = slot.known.as_mut()?.here.as_mut()?;
        let host = cluster.balancer.host_set().hosts.get(index)?;
        // Plaintext offers nothing, so it needs no pools apart, and nothing is agreed on.
        let alpn = alpn.filter(|_| host.tls.is_some());
        let protocol = match protocol {
            UpstreamProtocol::Auto if host.tls.is_none() => UpstreamProtocol::Http1,
            protocol => protocol,
        };
        let known = cluster.pools.get_mut(index)?;
        let same = |key: &&Key<Pool>| {
            pools.get(**key).is_some_and(|it| it.protocol == protocol && it.alpn.as_ref() == alpn)
        };
        if let Some(key) = known.iter().find(same) {
            return Some(*key);
        }
        let (shared, host) = (Arc::clone(&cluster.cluster), Arc::clone(host));
        let pool = Pool::new(at, shared, host, protocol, alpn.cloned());
        let key = pools.insert(pool);
        known.push(key);
        Some(key)
    }

    /// A cluster comes or changes. Returns pools that must drain: those of the cluster's old self.
    pub fn set_cluster(
        &mut self,
        at: ClusterRef,
        cluster: Option<Arc<Cluster>>,
        recorder: &Recorder,
        random: &mut Random,
    ) -> Vec<Key<Pool>> {
        let index = at.slot as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }
        let old = self.slots[index].known.take();
        if let Some(old) = &old {
            self.forget_name(at.slot, &old.cluster.config.name);
        }
        let (hosts, used) = old.map(|old| (old.hosts, old.here)).unwrap_or_default();
        self.slots[index].generation = at.generation;
        if let Some(cluster) = cluster {
            // Who uses it has to find the new one in use.
            let make = || Box::new(WorkerCluster::new(&cluster, &hosts, recorder, random));
            let here = used.is_some().then(make);
            let name = Arc::clone(&cluster.config.name);
            self.slots[index].known = Some(Known { cluster, hosts, here });
            self.remember_name(at.slot, &name);
        }
        used.map(|used| used.pools.into_iter().flatten().collect()).unwrap_or_default()
    }

    fn remember_name(&mut self, slot: u32, name: &str) {
        let Self { slots, names, hasher, .. } = self;
        let rehash = |slot: &u32| {
            let known = slots[*slot as usize].known.as_ref();
            hasher.hash_one(known.map_or("", |known| &*known.cluster.config.name))
        };
        names.insert_unique(hasher.hash_one(name), slot, rehash);
    }

    fn forget_name(&mut self, slot: u32, name: &str) {
        if let Ok(found) = self.names.find_entry(self.hasher.hash_one(name), |it| *it == slot) {
            found.remove();
        }
    }

    /// A cluster's endpoints change. Pools of hosts that stay are kept; returns those of hosts that went.
    pub fn set_hosts(
        &mut self,
        at: ClusterRef,
        hosts: Arc<HostSet>,
        random: &mut Random,
    ) -> Vec<Key<Pool>> {
        let Some(known) = self.known_mut(at) else { return Vec::new() };
        let old_set = std::mem::replace(&mut known.hosts, Arc::clone(&hosts));
        let Some(cluster) = &mut known.here else { return Vec::new() };
        let mut by_host: HashMap<*const Host, SmallVec<[Key<Pool>; 1]>> = old_set
            .hosts
            .iter()
            .zip(std::mem::take(&mut cluster.pools))
            .map(|(host, pools)| (Arc::as_ptr(host), pools))
            .collect();
        let mut kept = |host| by_host.remove(&Arc::as_ptr(host)).unwrap_or_default();
        cluster.pools = hosts.hosts.iter().map(&mut kept).collect();
        cluster.balancer = Balancer::new(&cluster.cluster.config, hosts, random);
        by_host.into_values().flatten().collect()
    }

    /// Every cluster there is, with its endpoints, in use here or not.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<Cluster>, &Arc<HostSet>)> {
        let known = self.slots.iter().filter_map(|slot| slot.known.as_ref());
        known.map(|known| (&known.cluster, &known.hosts))
    }
}

fn is_named(slots: &[Slot], slot: u32, name: &str) -> bool {
    let known = slots.get(slot as usize).and_then(|slot| slot.known.as_ref());
    known.is_some_and(|known| *known.cluster.config.name == *name)
}
