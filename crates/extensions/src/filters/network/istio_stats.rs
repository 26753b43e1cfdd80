//! `istio.stats` on L4: Istio's TCP metrics, counted when a connection has its upstream and when it ends.

use std::sync::Arc;

use api::text::Problem;
use parking_lot::Mutex;
use proxy::snapshot::registry::CompileContext;
use proxy::stream_info::{AccessLogger, LogRecord};
use telemetry::stats::Recorder;

use crate::istio::labels::{Facts, Protocol, Reporter, is_mutual_tls, principals};
use crate::istio::series::{IstioTcp, SeriesTable};
use crate::istio::settings::Settings;
use crate::istio::workload::Workload;

/// Workers beyond this share recorders; each is behind a lock that nobody else takes.
const RECORDERS: usize = 64;

struct TcpStats {
    settings: Settings,
    table: Arc<SeriesTable<IstioTcp>>,
    recorders: Box<[Mutex<Recorder>]>,
}

impl std::fmt::Debug for TcpStats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TcpStats({:?})", self.settings)
    }
}

/// Reads an encoded `PluginConfig`.
pub(super) fn compile(
    bytes: &[u8],
    context: &CompileContext<'_>,
) -> Result<Arc<dyn AccessLogger>, Vec<Problem>> {
    let settings = Settings::read(bytes, context)?;
    let table = SeriesTable::new(context.registry, settings.removed.clone());
    let recorders = (0..RECORDERS).map(|_| Mutex::new(context.registry.recorder())).collect();
    Ok(Arc::new(TcpStats { settings, table, recorders }))
}

impl TcpStats {
    fn count(
        &self,
        record: &LogRecord<'_>,
        count: impl FnOnce(&telemetry::stats::Local<IstioTcp>),
    ) {
        let info = record.info;
        let peer = match self.settings.reporter {
            Reporter::Source => {
                info.upstream_host.as_ref().and_then(|host| Workload::of_endpoint(&host.metadata))
            }
            Reporter::Destination => None,
        };
        let block = self.table.find(
            record.worker,
            &Facts {
                reporter: self.settings.reporter,
                own: &self.settings.own,
                peer: peer.as_ref(),
                principals: principals(info, self.settings.reporter),
                cluster: info.cluster.as_deref(),
                authority: None,
                route: None,
                protocol: Protocol::Tcp,
                flags: info.flags,
                mutual_tls: is_mutual_tls(info),
            },
        );
        count(&self.recorders[record.worker % RECORDERS].lock().local(&block));
    }
}

impl AccessLogger for TcpStats {
    fn opened(&self, record: &LogRecord<'_>) {
        self.count(record, |cells| cells.inc(IstioTcp::CONNECTIONS_OPENED));
    }

    fn log(&self, record: &LogRecord<'_>) {
        self.count(record, |cells| {
            cells.inc(IstioTcp::CONNECTIONS_CLOSED);
            cells.add(IstioTcp::SENT_BYTES, record.info.bytes_sent);
            cells.add(IstioTcp::RECEIVED_BYTES, record.info.bytes_received);
        });
    }
}

#[cfg(test)]
mod tests;
