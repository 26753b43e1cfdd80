//! Step 14: which host gets the next request. One balancer per worker and cluster; it sees what all workers share
//! (health, ejection, requests in flight) in the hosts themselves.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use rand::Rng;

use super::config::{ClusterConfig, LbPolicy};
use super::host::{DiscoveredHealth, Host, HostSet};

/// A worker's balancer over one cluster's current endpoints. A new [`HostSet`] needs a new balancer; changes of health
/// within a set are noticed by its epoch.
#[derive(Debug)]
pub struct Balancer {
    policy: LbPolicy,
    panic_threshold: f64,
    locality_weighted: bool,
    set: Arc<HostSet>,
    epoch: u64,
    /// Cumulative percentages, 100 at the last: which priority a draw falls into.
    priorities: Vec<Priority>,
    /// Healthy hosts are so few that all count (Envoy's panic mode) in at least one priority.
    panicking: bool,
}

#[derive(Debug)]
struct Priority {
    /// A draw of 0..100 below this (and not below the one before) is for this priority.
    until: u32,
    /// One, unless localities have weights: then one for each, with the sum of the weights up to it.
    localities: Vec<(u64, Candidates)>,
}

/// The hosts of a priority that may be chosen, and the state of choosing.
#[derive(Debug, Default)]
struct Candidates {
    hosts: Vec<u32>,
    next: usize,
    /// Weights differ: earliest deadline first. Empty where they are all equal.
    schedule: BinaryHeap<Entry>,
    clock: f64,
    sequence: u64,
}

/// A host's place in the schedule; the heap's greatest is the one due first.
#[derive(Debug)]
struct Entry {
    deadline: f64,
    sequence: u64,
    host: u32,
}

impl Balancer {
    /// A balancer at a random point of its round, so that workers (and restarts) do not all start with the first host.
    pub fn new(config: &ClusterConfig, set: Arc<HostSet>, rng: &mut impl Rng) -> Self {
        let mut balancer = Self {
            policy: config.lb_policy.clone(),
            panic_threshold: config.healthy_panic_threshold,
            locality_weighted: config.locality_weighted,
            epoch: set.health_epoch(),
            set,
            priorities: Vec::new(),
            panicking: false,
        };
        balancer.rebuild(rng);
        balancer
    }

    /// The endpoints it balances over.
    pub fn host_set(&self) -> &Arc<HostSet> {
        &self.set
    }

    /// Whether some priority is in panic mode, where health is not looked at.
    pub fn is_panicking(&self) -> bool {
        self.panicking
    }

    /// The index in the host set of the host for the next request; `None` when there is none to choose.
    pub fn pick(&mut self, rng: &mut impl Rng) -> Option<usize> {
        self.refresh(rng);
        let index = match self.priorities.as_slice() {
            [] => return None,
            [_] => 0,
            several => {
                let draw = rng.random_range(0..100);
                several.iter().position(|priority| draw < priority.until)?
            }
        };
        let hosts = &self.set.hosts;
        let localities = &mut self.priorities[index].localities;
        let locality = match localities.as_slice() {
            [_] => 0,
            several => {
                let draw = rng.random_range(0..several.last()?.0);
                several.iter().position(|(until, _)| draw < *until)?
            }
        };
        let candidates = &mut localities[locality].1;
        candidates.pick(&self.policy, hosts, rng).map(|host| host as usize)
    }

    /// As [`Balancer::pick`], but draws again, up to `attempts` times in all, while `avoid` holds for the host drawn
    /// (Envoy's `retry_host_predicate` with `host_selection_retry_max_attempts`). The last draw stands.
    pub fn pick_avoiding(
        &mut self,
        rng: &mut impl Rng,
        attempts: u32,
        mut avoid: impl FnMut(&Arc<Host>) -> bool,
    ) -> Option<usize> {
        let mut picked = self.pick(rng)?;
        for _ in 1..attempts.max(1) {
            if !avoid(&self.set.hosts[picked]) {
                break;
            }
            picked = self.pick(rng)?;
        }
        Some(picked)
    }

    fn refresh(&mut self, rng: &mut impl Rng) {
        let epoch = self.set.health_epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.rebuild(rng);
        }
    }

    /// Divides the load over priorities as Envoy: a priority takes its health times the overprovisioning factor, what it
    /// cannot take goes to the next, and what none can take to their degraded hosts in the same way; if all together cannot
    /// take everything, shares grow in proportion.
    fn rebuild(&mut self, rng: &mut impl Rng) {
        let groups = group_by_priority(&self.set);
        let factor = match self.set.overprovisioning_factor {
            0 => 140,
            factor => u64::from(factor),
        };
        let available = |hosts: &[u32], group: &Group| {
            (hosts.len() as u64 * factor / group.all.len().max(1) as u64).min(100)
        };
        let healthy = groups.iter().map(|group| available(&group.healthy, group));
        let degraded = groups.iter().map(|group| available(&group.degraded, group));
        let health: Vec<u64> = healthy.chain(degraded).collect();
        let total: u64 = health.iter().sum::<u64>().min(100);
        self.panicking = false;
        self.priorities.clear();
        let shares =
            if total == 0 { shares_of_size(&groups) } else { shares_of_health(&health, total) };
        let mut until = 0;
        let healthy_then_degraded = groups
            .iter()
            .map(|group| (group, &group.healthy))
            .chain(groups.iter().map(|group| (group, &group.degraded)));
        for ((group, hosts), share) in healthy_then_degraded.zip(shares) {
            if share == 0 {
                continue;
            }
            until += share;
            let localities = self.localities_of(group, hosts, total, factor);
            if !localities.is_empty() {
                let candidates = |hosts| Candidates::new(hosts, &self.policy, &self.set.hosts, rng);
                let (untils, hosts): (Vec<_>, Vec<_>) = localities.into_iter().unzip();
                let localities = untils.into_iter().zip(hosts.into_iter().map(candidates));
                self.priorities.push(Priority { until, localities: localities.collect() });
            }
        }
        // Rounding leaves the last share a little short, and a share without hosts is for whoever follows.
        if let Some(last) = self.priorities.last_mut() {
            last.until = 100;
        }
    }

    /// Who may be chosen in a priority: all alike, or by localities, each with the sum of the weights up to it. As in Envoy
    /// a locality's weight shrinks with its healthy hosts, once those are fewer than the overprovisioning makes up for.
    fn localities_of(
        &mut self,
        group: &Group,
        hosts: &[u32],
        total_health: u64,
        factor: u64,
    ) -> Vec<(u64, Vec<u32>)> {
        let candidates = self.candidates_of(group, hosts, total_health);
        if candidates.is_empty() {
            return Vec::new();
        }
        // In panic localities do not count, as in Envoy.
        if !self.locality_weighted || self.panicking {
            return vec![(1, candidates)];
        }
        let of = |host: &u32| &self.set.hosts[*host as usize];
        let mut localities: Vec<(u64, Vec<u32>)> = Vec::new();
        for host in candidates.iter().copied() {
            let same =
                |(_, hosts): &&mut (u64, Vec<u32>)| of(&hosts[0]).locality == of(&host).locality;
            match localities.iter_mut().find(same) {
                Some((_, hosts)) => hosts.push(host),
                None => localities.push((0, vec![host])),
            }
        }
        let mut sum = 0;
        localities.retain_mut(|(until, hosts)| {
            let first = of(&hosts[0]);
            let size = group.all.iter().filter(|host| of(host).locality == first.locality).count();
            let available = (hosts.len() as u64 * factor / size.max(1) as u64).min(100);
            let weight = u64::from(first.locality_weight()) * available;
            sum += weight;
            *until = sum;
            weight > 0
        });
        // Without any weight localities do not count either.
        if localities.is_empty() { vec![(1, candidates)] } else { localities }
    }

    fn candidates_of(&mut self, group: &Group, hosts: &[u32], total_health: u64) -> Vec<u32> {
        let available = group.healthy.len() + group.degraded.len();
        let available_percent = 100.0 * available as f64 / group.all.len().max(1) as f64;
        // A priority panics only when the load cannot be moved to hosts elsewhere.
        let panic = total_health < 100 && available_percent < self.panic_threshold;
        if panic {
            self.panicking = true;
            return group.all.clone();
        }
        hosts.to_vec()
    }
}

/// The hosts of one priority, as indices.
#[derive(Debug, Default)]
struct Group {
    all: Vec<u32>,
    healthy: Vec<u32>,
    degraded: Vec<u32>,
}

fn group_by_priority(set: &HostSet) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (index, host) in set.hosts.iter().enumerate() {
        let priority = host.priority as usize;
        if groups.len() <= priority {
            groups.resize_with(priority + 1, Group::default);
        }
        let group = &mut groups[priority];
        let index = index as u32;
        // Draining hosts take no new requests, not even in panic.
        if host.discovered_health() == DiscoveredHealth::Draining {
            continue;
        }
        group.all.push(index);
        if host.is_healthy() {
            let degraded = host.discovered_health() == DiscoveredHealth::Degraded;
            if degraded { group.degraded.push(index) } else { group.healthy.push(index) }
        }
    }
    groups
}

fn shares_of_health(health: &[u64], total: u64) -> Vec<u32> {
    let mut left = 100;
    health
        .iter()
        .map(|health| {
            let share = (health * 100 / total).min(left);
            left -= share;
            share as u32
        })
        .collect()
}

/// Nothing is healthy anywhere: load goes by how many hosts a priority has, as in Envoy's total panic.
fn shares_of_size(groups: &[Group]) -> Vec<u32> {
    let total: usize = groups.iter().map(|group| group.all.len()).sum();
    groups.iter().map(|group| (group.all.len() * 100 / total.max(1)) as u32).collect()
}

impl Candidates {
    fn new(hosts: Vec<u32>, policy: &LbPolicy, all: &[Arc<Host>], rng: &mut impl Rng) -> Self {
        let next = rng.random_range(0..hosts.len());
        let mut candidates = Self { hosts, next, ..Self::default() };
        let first_weight = all[candidates.hosts[0] as usize].weight();
        let equal =
            candidates.hosts.iter().all(|host| all[*host as usize].weight() == first_weight);
        if !equal && *policy != LbPolicy::Random {
            candidates.fill_schedule(all);
            // Start anywhere in the round: picks from a freshly filled schedule always begin with the heaviest.
            for _ in 0..candidates.next {
                candidates.pick_scheduled(all, false);
            }
        }
        candidates
    }

    fn pick(&mut self, policy: &LbPolicy, all: &[Arc<Host>], rng: &mut impl Rng) -> Option<u32> {
        match policy {
            LbPolicy::Random => self.hosts.get(rng.random_range(0..self.hosts.len())).copied(),
            LbPolicy::RoundRobin if !self.schedule.is_empty() => self.pick_scheduled(all, false),
            LbPolicy::LeastRequest { .. } if !self.schedule.is_empty() => {
                self.pick_scheduled(all, true)
            }
            LbPolicy::RoundRobin => Some(self.pick_in_turn()),
            LbPolicy::LeastRequest { choices } => Some(self.pick_least_busy(*choices, all, rng)),
        }
    }

    fn pick_in_turn(&mut self) -> u32 {
        let host = self.hosts[self.next];
        self.next += 1;
        if self.next == self.hosts.len() {
            self.next = 0;
        }
        host
    }

    fn pick_least_busy(&self, choices: u32, all: &[Arc<Host>], rng: &mut impl Rng) -> u32 {
        let active = |host: u32| {
            all[host as usize].counters.rq_active.load(std::sync::atomic::Ordering::Relaxed)
        };
        let mut best = self.hosts[rng.random_range(0..self.hosts.len())];
        for _ in 1..choices.max(1) {
            let other = self.hosts[rng.random_range(0..self.hosts.len())];
            if active(other) < active(best) {
                best = other;
            }
        }
        best
    }

    fn fill_schedule(&mut self, all: &[Arc<Host>]) {
        self.schedule.reserve(self.hosts.len());
        for host in self.hosts.clone() {
            self.schedule_again(host, f64::from(all[host as usize].weight()));
        }
    }

    /// Earliest deadline first: a host's next turn is one over its weight away. With `by_load` the weight shrinks with
    /// the requests in flight (Envoy's least request with weights, bias 1).
    fn pick_scheduled(&mut self, all: &[Arc<Host>], by_load: bool) -> Option<u32> {
        let entry = self.schedule.pop()?;
        self.clock = entry.deadline;
        let host = &all[entry.host as usize];
        let mut weight = f64::from(host.weight());
        if by_load {
            weight /=
                f64::from(host.counters.rq_active.load(std::sync::atomic::Ordering::Relaxed) + 1);
        }
        self.schedule_again(entry.host, weight);
        Some(entry.host)
    }

    fn schedule_again(&mut self, host: u32, weight: f64) {
        self.sequence += 1;
        self.schedule.push(Entry {
            deadline: self.clock + 1.0 / weight,
            sequence: self.sequence,
            host,
        });
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.sequence.cmp(&self.sequence))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

#[cfg(test)]
mod tests;
