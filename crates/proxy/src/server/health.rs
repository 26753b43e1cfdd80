//! Active health checks: a task a host asks again and again, and what the answers make of the host is published in the
//! host itself, which every worker reads.

mod probe;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng;
use telemetry::stats::{Block, Registry, Scope, SharedRecorder};
use tokio::task::JoinHandle;

use super::control::Control;
use crate::snapshot::HealthTask;
use crate::upstream::cluster::Cluster;
use crate::upstream::health_check::{HealthCheck, Outcome, Streak, Transition};
use crate::upstream::host::{Host, HostSet};
use probe::Connection;

telemetry::stat_set! {
    /// `cluster.<name>.health_check.*`.
    struct Checks {
        ATTEMPT = counter "health_check.attempt",
        SUCCESS = counter "health_check.success",
        FAILURE = counter "health_check.failure",
        PASSIVE_FAILURE = counter "health_check.passive_failure",
        NETWORK_FAILURE = counter "health_check.network_failure",
        VERIFY_CLUSTER = counter "health_check.verify_cluster",
        HEALTHY = gauge "health_check.healthy",
        DEGRADED = gauge "health_check.degraded",
    }
}

/// Every cluster whose hosts are checked.
#[derive(Debug, Default)]
pub struct HealthChecks {
    clusters: HashMap<Arc<str>, Checked>,
}

/// A cluster whose hosts are checked.
#[derive(Debug)]
struct Checked {
    state: Arc<ClusterHealth>,
    /// One task a host.
    tasks: Vec<(Arc<Host>, JoinHandle<()>)>,
}

/// What the tasks of a cluster share.
struct ClusterHealth {
    name: Arc<str>,
    cluster: Arc<Cluster>,
    check: Arc<HealthCheck>,
    hosts: Mutex<Arc<HostSet>>,
    stats: Block<Checks>,
    recorder: SharedRecorder,
    /// Something was sent to the cluster, ever.
    had_traffic: AtomicBool,
    /// Hosts of the beginning that have not answered (or failed to) yet; `None` once all have.
    first_round: Mutex<Option<Vec<Arc<Host>>>>,
    control: Weak<Control>,
}

impl std::fmt::Debug for ClusterHealth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClusterHealth({})", self.name)
    }
}

impl HealthChecks {
    /// A cluster or its endpoints have changed.
    pub fn change(&mut self, task: HealthTask, registry: &Registry, control: &Arc<Control>) {
        let HealthTask { name, cluster, hosts } = task;
        let Some((cluster, check)) =
            cluster.and_then(|it| it.config.health_check.clone().map(|check| (it, check)))
        else {
            self.clusters.remove(&name);
            return;
        };
        let known = self.clusters.remove(&name);
        let mut checked = match known {
            // The same cluster with other hosts: those that stay go on as they are.
            Some(known) if Arc::ptr_eq(&known.state.check, &check) => known,
            known => Checked {
                state: Arc::new(ClusterHealth {
                    stats: registry.block(&Scope::cluster(Arc::clone(&cluster.config.stat_name))),
                    recorder: control.counters.recorder().clone(),
                    had_traffic: AtomicBool::new(
                        known.is_some_and(|known| known.state.had_traffic.load(Ordering::Relaxed)),
                    ),
                    first_round: Mutex::new(Some(hosts.hosts.clone())),
                    hosts: Mutex::new(Arc::clone(&hosts)),
                    control: Arc::downgrade(control),
                    name: Arc::clone(&name),
                    cluster,
                    check,
                }),
                tasks: Vec::new(),
            },
        };
        checked.follow(hosts);
        self.clusters.insert(name, checked);
    }
}

impl Checked {
    /// Checks these hosts from now on.
    fn follow(&mut self, hosts: Arc<HostSet>) {
        let is_checked = |host: &Arc<Host>| hosts.hosts.iter().any(|it| Arc::ptr_eq(it, host));
        self.tasks.retain(|(host, task)| {
            let stays = is_checked(host);
            if !stays {
                task.abort();
            }
            stays
        });
        for host in &hosts.hosts {
            if !host.is_unchecked() && !self.tasks.iter().any(|(known, _)| Arc::ptr_eq(known, host))
            {
                let state = Arc::clone(&self.state);
                let task = tokio::spawn(state.watch(Arc::clone(host)));
                self.tasks.push((Arc::clone(host), task));
            }
        }
        let is_asked = |host: &Arc<Host>| self.tasks.iter().any(|(it, _)| Arc::ptr_eq(it, host));
        let ends = self.state.end_round(is_asked);
        *self.state.hosts.lock() = hosts;
        self.state.refresh_gauges();
        if ends {
            // Whoever calls holds the lock that telling takes.
            let state = Arc::clone(&self.state);
            tokio::spawn(async move { state.tell_checked() });
        }
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|(_, task)| task.abort());
        let count = |gauge| self.state.recorder.gauge_set(&self.state.stats, gauge, 0);
        count(Checks::HEALTHY);
    }
}

impl ClusterHealth {
    /// Checks one host for ever.
    async fn watch(self: Arc<Self>, host: Arc<Host>) {
        let mut streak = Streak::default();
        let mut connection = None;
        let mut first = true;
        tokio::time::sleep(up_to(self.check.initial_jitter)).await;
        loop {
            self.recorder.inc(&self.stats, Checks::ATTEMPT);
            let outcome = self.ask(&host, &mut connection).await;
            if outcome != Outcome::Success || !self.check.reuse_connection {
                connection = None;
            }
            let failed = host.active_check_failed();
            let transition = streak.take(&self.check, failed, outcome);
            self.count(outcome);
            if transition == Transition::Changed {
                self.publish(&host, !failed);
            }
            if std::mem::take(&mut first) && self.end_round(|other| !Arc::ptr_eq(other, &host)) {
                self.tell_checked();
            }
            let succeeded = outcome == Outcome::Success;
            tokio::time::sleep(self.wait(succeeded, transition)).await;
        }
    }

    async fn ask(&self, host: &Host, connection: &mut Option<Connection>) -> Outcome {
        let asked = probe::ask(host, &self.check.probe, connection);
        match tokio::time::timeout(self.check.timeout, asked).await {
            Ok(answer) => {
                if answer.verified_service {
                    self.recorder.inc(&self.stats, Checks::VERIFY_CLUSTER);
                }
                answer.outcome
            }
            Err(_) => Outcome::Network,
        }
    }

    fn count(&self, outcome: Outcome) {
        let succeeded = outcome == Outcome::Success;
        let counter = if succeeded { Checks::SUCCESS } else { Checks::FAILURE };
        self.recorder.inc(&self.stats, counter);
        if outcome == Outcome::Network {
            self.recorder.inc(&self.stats, Checks::NETWORK_FAILURE);
        }
    }

    /// The host's health has changed: balancers hear of it.
    fn publish(&self, host: &Arc<Host>, failed: bool) {
        host.set_active_check_failed(failed);
        self.hosts.lock().health_changed();
        self.refresh_gauges();
        let cluster = &self.name;
        if failed {
            tracing::info!(%cluster, host = %host.address_text, "failed its health check");
        } else {
            tracing::info!(%cluster, host = %host.address_text, "passed its health check");
        }
        if failed && let Some(control) = self.control.upgrade() {
            let closes = self.cluster.config.close_connections_on_host_health_failure;
            control.host_failed(&self.name, closes.then(|| Arc::clone(host)));
        }
    }

    fn refresh_gauges(&self) {
        let hosts = self.hosts.lock();
        let healthy = hosts.hosts.iter().filter(|host| !host.active_check_failed()).count();
        self.recorder.gauge_set(&self.stats, Checks::HEALTHY, healthy as i64);
    }

    /// Only these are still waited for; says whether the first round ends with that.
    fn end_round(&self, waits: impl Fn(&Arc<Host>) -> bool) -> bool {
        let mut round = self.first_round.lock();
        let Some(hosts) = &mut *round else { return false };
        hosts.retain(waits);
        round.take_if(|hosts| hosts.is_empty()).is_some()
    }

    fn tell_checked(&self) {
        if let Some(control) = self.control.upgrade() {
            control.health_checked(&self.name);
        }
    }

    /// Until the next check.
    fn wait(&self, succeeded: bool, transition: Transition) -> Duration {
        let used = |host: &Arc<Host>| host.counters.cx_total.load(Ordering::Relaxed) > 0;
        let had_traffic =
            self.had_traffic.load(Ordering::Relaxed) || self.hosts.lock().hosts.iter().any(used);
        self.had_traffic.store(had_traffic, Ordering::Relaxed);
        let base = self.check.intervals.after(succeeded, transition, had_traffic);
        let percent = base.mul_f64(f64::from(self.check.interval_jitter_percent) / 100.0);
        let wait = base + up_to(percent) + up_to(self.check.interval_jitter);
        wait.max(Duration::from_millis(1))
    }
}

/// Any time below `limit`.
fn up_to(limit: Duration) -> Duration {
    match u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX) {
        0 => Duration::ZERO,
        nanos => Duration::from_nanos(rand::rng().random_range(0..nanos)),
    }
}
