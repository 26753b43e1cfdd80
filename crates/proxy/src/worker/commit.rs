//! What a worker does with its mail.

use std::sync::Arc;
use std::time::Duration;

use super::{Change, ListenerId, Message, Worker};
use crate::arena::Key;
use crate::http::config::RouteTableRef;
use crate::listener::ActiveListener;
use crate::network::downstream::CloseReason;
use crate::route_table::RouteTable;
use crate::router::ResetReason;
use crate::upstream::host::Host;
use crate::worker::token::Owner;

/// Route tables by slot.
#[derive(Debug, Default)]
pub struct RouteTables(Vec<(u32, Option<Arc<RouteTable>>)>);

impl RouteTables {
    /// The table in a slot.
    pub fn get(&self, at: RouteTableRef) -> Option<&Arc<RouteTable>> {
        let (generation, table) = self.0.get(at.slot as usize)?;
        table.as_ref().filter(|_| *generation == at.generation)
    }

    fn set(&mut self, at: RouteTableRef, table: Option<Arc<RouteTable>>) {
        let index = at.slot as usize;
        if self.0.len() <= index {
            self.0.resize_with(index + 1, Default::default);
        }
        self.0[index] = (at.generation, table);
    }
}

/// How often outlier ejections are looked at.
const CHORES_INTERVAL: Duration = Duration::from_millis(500);

impl Worker {
    pub(super) fn handle(&mut self, message: Message) {
        match message {
            Message::AddListener { id, config, socket, ack: _ } => {
                self.add_listener(id, config, socket)
            }
            Message::UpdateListener { id, config, drain, ack: _ } => {
                self.update_listener(id, config, drain)
            }
            Message::RemoveListener { id, drain, ack: _ } => {
                if let Some(key) = self.listener_key(id) {
                    self.stop_listening(key);
                    self.drain_listener(key, Some(drain));
                }
            }
            Message::Commit { changes, ack: _ } => {
                for change in &*changes {
                    self.commit(change);
                }
            }
            Message::CloseHost(host) => self.close_host(&host),
            Message::FailHealthChecks(fail) => self.fails_health_checks = fail,
            Message::Adopt { listener, socket } => self.adopt(listener, socket),
            Message::StartDrain { listeners } => {
                for key in self.listeners_of(listeners.as_deref()) {
                    self.drain_listener(key, None);
                }
            }
            Message::StopListening { listeners, ack: _ } => {
                for key in self.listeners_of(listeners.as_deref()) {
                    self.stop_listening(key);
                }
            }
            Message::Shutdown => {
                for key in self.downs.keys() {
                    self.close_downstream(key, CloseReason::Local);
                }
                self.stopping = true;
            }
        }
    }

    fn commit(&mut self, change: &Change) {
        let drained = match change {
            Change::Cluster(at, cluster) => {
                if cluster.as_ref().is_some_and(|cluster| cluster.config.outlier.is_some()) {
                    self.arm_chores();
                }
                self.upstreams.set_cluster(
                    *at,
                    cluster.clone(),
                    &self.cx.recorder,
                    &mut self.random,
                )
            }
            Change::Hosts(at, hosts) => {
                self.upstreams.set_hosts(*at, Arc::clone(hosts), &mut self.random)
            }
            Change::RouteTable(at, table) => {
                self.tables.set(*at, table.clone());
                Vec::new()
            }
        };
        for pool in drained {
            self.drain_pool(pool);
        }
    }

    fn close_host(&mut self, host: &Arc<Host>) {
        for key in self.ups.keys() {
            if self.ups.get(key).is_some_and(|connection| Arc::ptr_eq(&connection.host, host)) {
                self.close_upstream(key, ResetReason::ConnectionTermination, true);
            }
        }
    }

    fn listeners_of(&self, ids: Option<&[ListenerId]>) -> Vec<Key<ActiveListener>> {
        match ids {
            None => self.listeners.keys(),
            Some(ids) => ids.iter().filter_map(|id| self.listener_key(*id)).collect(),
        }
    }

    fn arm_chores(&mut self) {
        let deadline = self.clock.after(Some(CHORES_INTERVAL));
        self.wheel.arm(&mut self.chores, Owner::Chores.token(), deadline);
    }

    /// Takes ejected hosts back. Every worker looks; whoever is first does it.
    pub(super) fn chores(&mut self) {
        crate::timer_wheel::TimerWheel::fired(&mut self.chores);
        let now_ms = self.clock.now_ns() / 1_000_000;
        let mut again = false;
        for (cluster, set) in self.upstreams.iter() {
            let Some(config) = &cluster.config.outlier else { continue };
            again = true;
            for host in &set.hosts {
                if host.outlier.is_ejected() && host.outlier.tick(config, now_ms) {
                    let stats = self.cx.recorder.local(&cluster.stats.outliers);
                    stats.gauge_add(telemetry::stats::sets::Outliers::EJECTIONS_ACTIVE, -1);
                    set.health_changed();
                }
            }
        }
        if again {
            self.arm_chores();
        }
    }
}
