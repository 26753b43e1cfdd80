//! A cluster's statistics: the blocks that survive configuration, and a worker's own cells of them.

use telemetry::stats::sets::{
    Cluster, ClusterCodes, ClusterRareCodes, ClusterTimes, Http2, Outliers, Tls,
};
use telemetry::stats::{Block, Local, Recorder, Registry, Scope};

/// `cluster.<name>.*`.
#[derive(Debug, Clone)]
pub struct ClusterBlocks {
    /// Connections, requests, membership.
    pub counters: Block<Cluster>,
    /// Histograms.
    pub times: Block<ClusterTimes>,
    /// Responses by status.
    pub codes: Block<ClusterCodes>,
    /// Statuses that hardly ever occur.
    pub rare_codes: Block<ClusterRareCodes>,
    /// Ejections.
    pub outliers: Block<Outliers>,
    /// TLS towards its hosts, where any has it.
    pub tls: Option<Block<Tls>>,
    /// HTTP/2 towards its hosts, where it is spoken.
    pub http2: Option<Block<Http2>>,
}

impl ClusterBlocks {
    /// The blocks of a cluster in its scope; the same ones as long as anyone holds them.
    pub fn new(registry: &Registry, scope: &Scope) -> Self {
        Self {
            counters: registry.block(scope),
            times: registry.block(scope),
            codes: registry.block(scope),
            rare_codes: registry.block(scope),
            outliers: registry.block(scope),
            tls: None,
            http2: None,
        }
    }

    /// The same, and those of HTTP/2.
    pub fn with_http2(self, registry: &Registry, scope: &Scope) -> Self {
        Self { http2: Some(registry.block(scope)), ..self }
    }

    /// The same, and those of TLS.
    pub fn with_tls(self, registry: &Registry, scope: &Scope) -> Self {
        Self { tls: Some(registry.block(scope)), ..self }
    }
}

/// A worker's cells: made when it first uses the cluster.
pub struct ClusterCells {
    /// Connections and requests.
    pub counters: Local<Cluster>,
    /// Histograms.
    pub times: Local<ClusterTimes>,
    /// Responses by status.
    pub codes: Local<ClusterCodes>,
}

impl ClusterCells {
    /// This worker's cells.
    pub fn new(recorder: &Recorder, blocks: &ClusterBlocks) -> Self {
        Self {
            counters: recorder.local(&blocks.counters),
            times: recorder.local(&blocks.times),
            codes: recorder.local(&blocks.codes),
        }
    }
}
