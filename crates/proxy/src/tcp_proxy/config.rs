//! `envoy.filters.network.tcp_proxy`, compiled.

use std::sync::Arc;
use std::time::Duration;

use telemetry::stats::{Block, sets};

use crate::stream_info::AccessLoggers;
use crate::upstream::config::ClusterRef;

/// One compiled TCP proxy.
#[derive(Debug)]
pub struct Config {
    /// `tcp.<stat_prefix>.` names the stats.
    pub stat_prefix: Arc<str>,
    /// Where its statistics are (`Scope::tcp(stat_prefix)`).
    pub stats: Block<sets::TcpProxy>,
    /// Where connections go.
    pub destination: Destination,
    /// Close when no byte passed for so long (Envoy: 1 h); `None` is never.
    pub idle_timeout: Option<Duration>,
    /// Attempts to connect to an upstream host (Envoy: 1).
    pub max_connect_attempts: u32,
    /// The longest life of a connection.
    pub max_downstream_connection_duration: Option<Duration>,
    /// Called when a connection has ended.
    pub access_loggers: AccessLoggers,
}

/// The cluster, or clusters by weight.
#[derive(Debug)]
pub enum Destination {
    /// Always this cluster.
    Cluster(ClusterRef),
    /// One by weight.
    Weighted(WeightedClusters),
}

/// Clusters with weights.
#[derive(Debug)]
pub struct WeightedClusters {
    entries: Vec<(ClusterRef, u32)>,
    total: u64,
}

impl WeightedClusters {
    /// Clusters and weights; `None` when the weights add up to nothing.
    pub fn new(entries: Vec<(ClusterRef, u32)>) -> Option<Self> {
        let total = entries.iter().map(|(_, weight)| u64::from(*weight)).sum();
        (total > 0).then_some(Self { entries, total })
    }

    /// The cluster at `random`, any number.
    pub fn pick(&self, random: u64) -> ClusterRef {
        let mut point = random % self.total;
        for (cluster, weight) in &self.entries {
            let weight = u64::from(*weight);
            if point < weight {
                return *cluster;
            }
            point -= weight;
        }
        self.entries[0].0
    }

    /// Every entry.
    pub fn entries(&self) -> &[(ClusterRef, u32)] {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_share_the_range() {
        let cluster = |slot| ClusterRef { slot, generation: 0 };
        let weighted =
            WeightedClusters::new(vec![(cluster(1), 1), (cluster(2), 3), (cluster(3), 0)]).unwrap();
        let picks: Vec<u32> = (0..8).map(|n| weighted.pick(n).slot).collect();
        assert_eq!(picks, [1, 2, 2, 2, 1, 2, 2, 2]);
        assert!(WeightedClusters::new(vec![(cluster(1), 0)]).is_none());
    }
}
