//! The series that label sets name: found by their values, kept by the registry, expired when nobody uses them.

use std::borrow::Cow;
use std::sync::Arc;

use parking_lot::Mutex;
use telemetry::stats::{Block, Registry, Scope, StatSet};

use super::labels::{Facts, NAMES};

telemetry::stat_set! {
    /// One label set of Istio's HTTP metrics.
    pub struct IstioHttp {
        REQUESTS_TOTAL = counter "istio_requests_total",
        REQUEST_DURATION = histogram(Milliseconds) "istio_request_duration_milliseconds",
        REQUEST_BYTES = histogram(Bytes) "istio_request_bytes",
        RESPONSE_BYTES = histogram(Bytes) "istio_response_bytes",
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

/// All series of one set that one filter made. Looking one up copies nothing but the values into a buffer.
pub struct SeriesTable<S> {
    registry: Registry,
    shards: Box<[Mutex<Shard<S>>]>,
    /// Labels that are left out.
    removed: Box<[&'static str]>,
}

struct Shard<S> {
    blocks: ahash::HashMap<Box<[u8]>, Block<S>>,
    key: Vec<u8>,
}

impl<S> Default for Shard<S> {
    fn default() -> Self {
        Self { blocks: ahash::HashMap::default(), key: Vec::new() }
    }
}

impl<S> std::fmt::Debug for SeriesTable<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SeriesTable(without {:?})", self.removed)
    }
}

/// Workers share a shard only when there are more of them.
const SHARDS: usize = 16;

/// A shard forgets its table beyond this: the registry still has what is in use.
const MAX_PER_SHARD: usize = 4096;

impl<S: StatSet> SeriesTable<S> {
    /// An empty table.
    pub fn new(registry: &Registry, removed: Box<[&'static str]>) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self { registry: registry.clone(), shards, removed })
    }

    /// The series of these facts.
    pub fn find(&self, worker: usize, facts: &Facts<'_>) -> Block<S> {
        let values = facts.values();
        let mut shard = self.shards[worker % SHARDS].lock();
        let Shard { blocks, key } = &mut *shard;
        key.clear();
        for value in &values {
            key.extend_from_slice(value.as_deref().unwrap_or("\u{1}").as_bytes());
            key.push(0);
        }
        if let Some(block) = blocks.get(key.as_slice()) {
            return block.clone();
        }
        let block = self.make(values);
        if blocks.len() >= MAX_PER_SHARD {
            blocks.clear();
        }
        blocks.insert(key.as_slice().into(), block.clone());
        block
    }

    fn make(&self, values: [Option<Cow<'_, str>>; NAMES.len()]) -> Block<S> {
        let labels = NAMES.into_iter().zip(values).filter(|(name, _)| !self.removed.contains(name));
        let labels = labels.filter_map(|(name, value)| Some((name, Box::from(&*value?))));
        let block = self.registry.block(&Scope::custom(labels));
        self.registry.keep(&block);
        block
    }
}

/// Says once and for all what runs: `istio_build{component="proxy",tag="..."} 1`.
pub fn publish_build(registry: &Registry, tag: &str) {
    let labels = [("component", Box::from("proxy")), ("tag", Box::from(tag))];
    let block = registry.block::<IstioBuild>(&Scope::custom(labels));
    registry.shared_recorder().gauge_set(&block, IstioBuild::BUILD, 1);
    registry.keep(&block);
}
