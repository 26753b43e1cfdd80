//! What all workers share of one cluster: configuration, limits in force, endpoints.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::config::{BreakerThresholds, ClusterConfig};
use super::stats::ClusterBlocks;

/// One cluster of the process. Its breakers and statistics survive updates: the compiler hands the old ones to the new.
#[derive(Debug)]
pub struct Cluster {
    /// Its configuration.
    pub config: ClusterConfig,
    /// Its limits' state, per priority `[default, high]`.
    pub breakers: Arc<Limits>,
    /// Its statistics.
    pub stats: ClusterBlocks,
}

impl Cluster {
    /// A new cluster. To update one, use [`Cluster::successor`].
    pub fn new(config: ClusterConfig, stats: ClusterBlocks) -> Self {
        Self { config, breakers: Arc::default(), stats }
    }

    /// The same cluster under a new configuration: limits count on.
    pub fn successor(&self, config: ClusterConfig, stats: ClusterBlocks) -> Self {
        Self { config, breakers: Arc::clone(&self.breakers), stats }
    }
}

/// What is in use of the limits of each priority, `[default, high]`; every worker counts here. One cache line: a request
/// touches most of it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Limits([Breakers; 2]);

impl std::ops::Index<usize> for Limits {
    type Output = Breakers;

    fn index(&self, priority: usize) -> &Breakers {
        &self.0[priority]
    }
}

/// What is in use of one priority's limits.
#[derive(Debug, Default)]
pub struct Breakers {
    /// TCP connections.
    pub connections: Resource,
    /// Requests that wait for a connection.
    pub pending: Resource,
    /// Requests in flight.
    pub requests: Resource,
    /// Retries in flight.
    pub retries: Resource,
}

/// Something counted.
#[derive(Debug, Default)]
pub struct Resource(AtomicU32);

impl Resource {
    /// Takes one if fewer than `max` are taken.
    pub fn try_acquire(&self, max: u32) -> bool {
        if self.0.fetch_add(1, Ordering::Relaxed) < max {
            return true;
        }
        self.0.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// Takes one whatever the limit (a connection a request cannot do without, as Envoy allows the first of a host).
    pub fn acquire(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives one back.
    pub fn release(&self) {
        let before = self.0.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a resource was released twice");
    }

    /// Taken now.
    pub fn used(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Is the limit reached?
    pub fn is_exhausted(&self, max: u32) -> bool {
        self.used() >= max
    }
}

impl Cluster {
    /// The limits of a priority with their state.
    pub fn priority(&self, priority: usize) -> (&BreakerThresholds, &Breakers) {
        let index = priority.min(1);
        (&self.config.breakers[index], &self.breakers[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_stops_at_its_limit() {
        let resource = Resource::default();
        assert!(resource.try_acquire(1));
        assert!(!resource.try_acquire(1));
        assert_eq!(resource.used(), 1);
        resource.release();
        assert!(resource.try_acquire(1));
    }
}
