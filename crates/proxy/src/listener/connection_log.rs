//! What a listener's own access loggers are told: each of its connections, when it has ended. Of those that no filter chain
//! takes, nobody else hears.

use std::rc::Rc;

use crate::network::downstream::{Downstream, Kind};
use crate::stream_info::{LogRecord, ResponseFlags, StreamInfo, Timings};
use crate::worker::Worker;

/// Envoy's word for a connection that no filter chain takes.
const NO_CHAIN: &str = "filter_chain_not_found";

impl Worker {
    /// Tells the loggers of a connection that is about to be closed.
    pub(crate) fn log_connection(&self, down: &Downstream) {
        let Some(listener) = self.listeners.get(down.listener) else { return };
        let loggers = &listener.config.access_loggers;
        if loggers.is_empty() {
            return;
        }
        let now = self.clock.now_ns();
        let start = down.info.start_ns;
        let mut info = StreamInfo {
            start_wall_ns: self.clock.wall_ns() - now.saturating_sub(start),
            timings: Timings { start_ns: start, end_ns: now, ..Timings::default() },
            remote_address: down.info.remote_address,
            connection: Some(Rc::clone(&down.info)),
            ..StreamInfo::default()
        };
        // While it is inspected a connection has no chain yet; once that is over, it has one or never will.
        if down.chain.is_none() && matches!(down.kind, Kind::Lingering) {
            info.flags.insert(ResponseFlags::NO_ROUTE_FOUND);
            info.response_code_details = NO_CHAIN;
        }
        let record = LogRecord {
            worker: self.cx.index,
            now_ns: now,
            info: &info,
            request: None,
            response: None,
            response_trailers: None,
        };
        loggers.iter().for_each(|logger| logger.log(&record));
    }
}
