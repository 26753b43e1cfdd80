//! `envoy.filters.network.tcp_proxy`, compiled.

use std::sync::Arc;
use std::time::Duration;

use telemetry::stats::{Block, sets};

use crate::stream_info::AccessLoggers;
use crate::upstream::config::{ClusterRef, WeightedClusters};

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
