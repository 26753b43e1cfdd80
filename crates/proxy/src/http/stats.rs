//! A connection manager's statistics.

use codec::http2::Counts;
use telemetry::stats::sets::{Http2, HttpConnManager, HttpTimes, ListenerHttp};
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
    /// `http2.*`, of all clients together.
    pub http2: Block<Http2>,
}

impl HttpBlocks {
    /// The blocks; `listener_prefix` is the listener's stat prefix.
    pub fn new(registry: &Registry, listener_prefix: &str, stat_prefix: &str) -> Self {
        let scope = Scope::http(stat_prefix);
        Self {
            counters: registry.block(&scope),
            times: registry.block(&scope),
            listener: registry.block(&Scope::listener_http(listener_prefix, stat_prefix)),
            http2: registry.block(&Scope::new()),
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

/// Adds what a connection's codec has counted.
pub fn count_frames(cells: &Local<Http2>, counts: &Counts) {
    let pairs = [
        (Http2::GOAWAY_SENT, counts.goaway_sent),
        (Http2::HEADER_OVERFLOW, counts.header_overflow),
        (Http2::HEADERS_CB_NO_STREAM, counts.headers_cb_no_stream),
        (Http2::INBOUND_EMPTY_FRAMES_FLOOD, counts.inbound_empty_frames_flood),
        (Http2::INBOUND_PRIORITY_FRAMES_FLOOD, counts.inbound_priority_frames_flood),
        (Http2::INBOUND_WINDOW_UPDATE_FRAMES_FLOOD, counts.inbound_window_update_frames_flood),
        (Http2::OUTBOUND_CONTROL_FLOOD, counts.outbound_control_flood),
        (Http2::OUTBOUND_FLOOD, counts.outbound_flood),
        (Http2::RX_MESSAGING_ERROR, counts.rx_messaging_error),
        (Http2::RX_RESET, counts.rx_reset),
        (Http2::STREAM_REFUSED_ERRORS, counts.stream_refused_errors),
        (Http2::TRAILERS, counts.trailers),
        (Http2::TX_RESET, counts.tx_reset),
    ];
    for (counter, by) in pairs {
        if by > 0 {
            cells.add(counter, u64::from(by));
        }
    }
}
