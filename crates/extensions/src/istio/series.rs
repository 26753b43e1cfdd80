//! The series that label sets name: found by their values, kept by the registry, expired when nobody uses them.

use std::sync::Arc;

use telemetry::stats::{Block, Registry, Scope, StatSet};

use super::labels::{Facts, NAMES};
use crate::block_cache::BlockCache;

telemetry::stat_set! {
    /// One label set of Istio's HTTP metrics.
    pub struct IstioHttp {
        REQUESTS_TOTAL = counter "istio_requests_total",
        REQUEST_DURATION = histogram(Milliseconds) "istio_request_duration_milliseconds",
        REQUEST_BYTES = histogram(Bytes) "istio_request_bytes",
        RESPONSE_BYTES = histogram(Bytes) "istio_response_bytes",
        // Of gRPC alone.
        REQUEST_MESSAGES = lazy "istio_request_messages_total",
        RESPONSE_MESSAGES = lazy "istio_response_messages_total",
    }
}

telemetry::stat_set! {
    /// One label set of Istio's TCP metrics.
    pub struct IstioTcp {
        SENT_BYTES = counter "istio_tcp_sent_bytes_total",
        RECEIVED_BYTES = counter "istio_tcp_received_bytes_total",
        CONNECTIONS_OPENED = counter "istio_tcp_connections_opened_total",
        CONNECTIONS_CLOSED = counter "istio_tcp_connections_closed_total",
    }
}

telemetry::stat_set! {
    /// What runs.
    pub struct IstioBuild {
        BUILD = gauge "istio_build",
    }
}

/// All series of one set that one filter made.
pub struct SeriesTable<S> {
    blocks: BlockCache<S>,
    /// Labels that are left out.
    removed: Box<[&'static str]>,
}

impl<S> std::fmt::Debug for SeriesTable<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SeriesTable(without {:?})", self.removed)
    }
}

impl<S: StatSet> SeriesTable<S> {
    /// An empty table.
    pub fn new(registry: &Registry, removed: Box<[&'static str]>) -> Arc<Self> {
        Arc::new(Self { blocks: BlockCache::new(registry), removed })
    }

    /// The series of these facts.
    pub fn find(&self, worker: usize, facts: &Facts<'_>) -> Block<S> {
        let values = facts.values();
        let write_key = |key: &mut Vec<u8>| {
            for value in &values {
                key.extend_from_slice(value.as_deref().unwrap_or("\u{1}").as_bytes());
                key.push(0);
            }
        };
        self.blocks.find(worker, write_key, |registry| {
            let labels = NAMES.into_iter().zip(&values);
            let labels = labels.filter(|(name, _)| !self.removed.contains(name));
            let labels =
                labels.filter_map(|(name, value)| Some((name, Box::from(value.as_deref()?))));
            registry.block(&Scope::custom(labels))
        })
    }
}

/// Says once and for all what runs: `istio_build{component="proxy",tag="..."} 1`.
pub fn publish_build(registry: &Registry, tag: &str) {
    let labels = [("component", Box::from("proxy")), ("tag", Box::from(tag))];
    let block = registry.block::<IstioBuild>(&Scope::custom(labels));
    registry.shared_recorder().gauge_set(&block, IstioBuild::BUILD, 1);
    registry.keep(&block);
}
