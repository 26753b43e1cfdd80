//! Who this proxy is.

use std::sync::Arc;

use serde_json::{Map, Value};

/// The bootstrap's `node`, with what the command line says over it.
#[derive(Debug, Clone, Default)]
pub struct NodeInfo {
    /// `node.id` (`--service-node`).
    pub id: Arc<str>,
    /// `node.cluster` (`--service-cluster`).
    pub cluster: Arc<str>,
    /// `node.locality`.
    pub region: Arc<str>,
    /// `node.locality`.
    pub zone: Arc<str>,
    /// `node.locality`.
    pub sub_zone: Arc<str>,
    /// `node.metadata`: Istio's `LABELS`, `NAMESPACE`, `WORKLOAD_NAME`, ...
    pub metadata: Arc<Map<String, Value>>,
    /// `node.client_features`.
    pub client_features: Vec<String>,
}
