//! A connection manager's statistics.

use telemetry::stats::sets::{HttpConnManager, HttpTimes, ListenerHttp};
use telemetry::stats::{Block, Local, Recorder, Registry, Scope};

/// `http.<stat_prefix>.*` and `listener.<address>.http.<stat_prefix>.*`.
#[derive(Debug, Clone)]
pub struct HttpBlocks {
    /// Connections and requests.
    pub counters: Block<HttpConnManager>,
    /// Histograms.
    pub times: Block<HttpTimes>,
    /// Responses, by listener.
    pub listener: Block<ListenerHttp>,
}

impl HttpBlocks {
    /// The blocks; `listener_prefix` is the listener's stat prefix.
    pub fn new(registry: &Registry, listener_prefix: &str, stat_prefix: &str) -> Self {
        let scope = Scope::http(stat_prefix);
        Self {
            counters: registry.block(&scope),
            times: registry.block(&scope),
            listener: registry.block(&Scope::listener_http(listener_prefix, stat_prefix)),
        }
    }
}

/// A worker's cells.
pub struct HttpCells {
    /// Connections and requests.
    pub counters: Local<HttpConnManager>,
    /// Histograms.
    pub times: Local<HttpTimes>,
    /// Responses, by listener.
    pub listener: Local<ListenerHttp>,
}

impl HttpCells {
    /// This worker's cells.
    pub fn new(recorder: &Recorder, blocks: &HttpBlocks) -> Self {
        Self {
            counters: recorder.local(&blocks.counters),
            times: recorder.local(&blocks.times),
            listener: recorder.local(&blocks.listener),
        }
    }
}
