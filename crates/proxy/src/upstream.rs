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
    names: HashMap<Arc<str>, ClusterRef>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    cluster: Option<WorkerCluster>,
}

/// A cluster on this worker.
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

impl Upstreams {
    /// The cluster in a slot.
    #[inline]
    pub fn get(&self, at: ClusterRef) -> Option<&WorkerCluster> {
        let slot = self.slots.get(at.slot as usize)?;
        if slot.generation != at.generation {
            return None;
        }
        slot.cluster.as_ref()
    }

    /// The cluster in a slot.
    #[inline]
    pub fn get_mut(&mut self, at: ClusterRef) -> Option<&mut WorkerCluster> {
        let slot = self.slots.get_mut(at.slot as usize)?;
        if slot.generation != at.generation {
            return None;
        }
        slot.cluster.as_mut()
    }

    /// The cluster that a route leads to, if it is there.
    pub fn find(
        &self,
        route: &RouteMatch,
        action: &RouteAction,
        request: &RequestHead,
    ) -> Option<ClusterRef> {
        match &action.cluster {
            ClusterChoice::Weighted(_) => route.cluster().filter(|at| self.get(*at).is_some()),
            choice => self.resolve(choice, request),
        }
    }

    /// The cluster that is meant, where it is not chosen by weight, if it is there.
    pub fn resolve(&self, choice: &ClusterChoice, request: &RequestHead) -> Option<ClusterRef> {
        let at = match choice {
            ClusterChoice::Header(name) => {
                let name = std::str::from_utf8(request.get(&**name)?).ok()?;
                *self.names.get(name)?
            }
            ClusterChoice::Cluster(at) => *at,
            ClusterChoice::Weighted(_) => return None,
        };
        self.get(at).map(|_| at)
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
        let cluster = slot.cluster.as_mut()?;
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
        let old = self.slots[index].cluster.take();
        if let Some(old) = &old {
            self.names.remove(&old.cluster.config.name);
        }
        let hosts = old.as_ref().map(|old| Arc::clone(old.balancer.host_set())).unwrap_or_default();
        let slot = &mut self.slots[index];
        slot.generation = at.generation;
        slot.cluster = cluster.map(|cluster| {
            self.names.insert(Arc::clone(&cluster.config.name), at);
            WorkerCluster {
                cells: ClusterCells::new(recorder, &cluster.stats),
                balancer: Balancer::new(&cluster.config, Arc::clone(&hosts), random),
                pools: vec![SmallVec::new(); hosts.hosts.len()],
                cluster,
            }
        });
        old.map(|old| old.pools.into_iter().flatten().collect()).unwrap_or_default()
    }

    /// A cluster's endpoints change. Pools of hosts that stay are kept; returns those of hosts that went.
    pub fn set_hosts(
        &mut self,
        at: ClusterRef,
        hosts: Arc<HostSet>,
        random: &mut Random,
    ) -> Vec<Key<Pool>> {
        let Some(cluster) = self.get_mut(at) else { return Vec::new() };
        let old_set = Arc::clone(cluster.balancer.host_set());
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

    /// Every cluster here.
    pub fn iter(&self) -> impl Iterator<Item = &WorkerCluster> {
        self.slots.iter().filter_map(|slot| slot.cluster.as_ref())
    }
}
