//! The admin interface: what the process does and says of itself, in Envoy's shapes.
//!
//! [`endpoints`] is the table: one endpoint, one file. Changes are made by POST alone. It runs on the main thread's
//! runtime; what it shows comes from [`AdminState`], which the server implements, and from the statistics.

pub mod endpoints;
mod request;
mod serve;
pub mod state;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use telemetry::logging::Levels;
use telemetry::stats::sets::Server;
use telemetry::stats::{Block, Registry, Scope, SharedRecorder};

use crate::access_log::sink::Sinks;
pub use request::{Method, Query, Reply};
pub use serve::{AdminHandle, serve};
pub use state::{
    AdminState, CertificateStatus, ClusterStatus, ConfigDump, DrainRequest, DynamicResource,
    ListenerStatus, RejectedResource, ServerState, StaticResource,
};

/// Everything that endpoints read or act on.
#[derive(Clone)]
pub struct AdminContext {
    /// The server.
    pub state: Arc<dyn AdminState>,
    /// Its statistics.
    pub registry: Registry,
    /// Access-log files, for `/reopen_logs`.
    pub sinks: Sinks,
    /// Log levels, for `/logging`.
    pub levels: Arc<Levels>,
    /// `stats_config.stats_matcher`: only names for which this is true are shown.
    pub stats_matcher: Option<StatsMatcher>,
    /// The process's start.
    pub started: Instant,
    /// What is measured only when somebody looks.
    pub server_stats: ServerStats,
}

/// Decides by its dotted name whether a statistic is shown.
pub type StatsMatcher = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// `server.*` gauges that are set when statistics are read.
#[derive(Clone)]
pub struct ServerStats {
    block: Block<Server>,
    recorder: SharedRecorder,
}

impl ServerStats {
    /// The gauges of a registry.
    pub fn new(registry: &Registry) -> Self {
        Self {
            block: registry.block(&Scope::new().text("server")),
            recorder: registry.shared_recorder(),
        }
    }
}

impl AdminContext {
    /// Sets the gauges that nobody keeps up to date.
    fn refresh(&self) {
        let ServerStats { block, recorder } = &self.server_stats;
        self.state.refresh();
        let state = self.state.state();
        let memory = endpoints::memory::Memory::read();
        recorder.gauge_set(block, Server::DAYS_UNTIL_FIRST_CERT_EXPIRING, self.days_until_expiry());
        recorder.gauge_set(block, Server::UPTIME, self.started.elapsed().as_secs() as i64);
        recorder.gauge_set(block, Server::STATE, state as i64);
        recorder.gauge_set(block, Server::LIVE, i64::from(state == ServerState::Live));
        recorder.gauge_set(block, Server::MEMORY_ALLOCATED, memory.anonymous as i64);
        recorder.gauge_set(block, Server::MEMORY_HEAP_SIZE, memory.data as i64);
        recorder.gauge_set(block, Server::MEMORY_PHYSICAL_SIZE, memory.resident as i64);
    }

    /// Days until the first certificate in use expires; as Envoy, 2³² - 1 when there is none.
    fn days_until_expiry(&self) -> i64 {
        let certificates = self.state.certificates();
        let all =
            certificates.iter().flat_map(|status| status.chain.iter().chain(&status.authorities));
        let first = all.map(|(info, _)| info.not_after).min();
        first.map_or(i64::from(u32::MAX), endpoints::certs::days_until)
    }
}
