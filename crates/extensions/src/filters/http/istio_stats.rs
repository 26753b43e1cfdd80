//! `istio.stats`: Istio's HTTP metrics.
//!
//! A stream's labels are worked out when its connection first sees that combination of cluster, host, peer and result; from
//! then on counting is a comparison of addresses and a few additions.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use api::text::Problem;
use codec::headers::RequestHead;
use proxy::filter_manager::{FilterContext, HttpFilter, HttpFilterFactory, Phases, WorkerContext};
use proxy::snapshot::registry::CompileContext;
use proxy::stream_info::{LogRecord, ResponseFlags, StreamInfo};
use proxy::upstream::cluster::Cluster;
use proxy::upstream::host::Host;
use telemetry::stats::{Block, Local};

use crate::grpc::messages::GrpcMessages;
use crate::istio::labels::{Facts, Protocol, Reporter, is_mutual_tls, principals, protocol_of};
use crate::istio::series::{IstioHttp, SeriesTable};
use crate::istio::settings::Settings;
use crate::istio::workload::{Peer, Workload};

/// Combinations that one connection remembers.
const MAX_SEEN: usize = 64;

#[derive(Debug)]
struct Factory(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    settings: Settings,
    table: Arc<SeriesTable<IstioHttp>>,
}

struct IstioStats(Arc<Compiled>, Weak<Compiled>);

/// Reads an encoded `PluginConfig`.
pub(super) fn compile(
    bytes: &[u8],
    context: &CompileContext<'_>,
) -> Result<Arc<dyn HttpFilterFactory>, Vec<Problem>> {
    let settings = Settings::read(bytes, context)?;
    let table = SeriesTable::new(context.registry, settings.removed.clone());
    Ok(Arc::new(Factory(Arc::new(Compiled { settings, table }))))
}

impl HttpFilterFactory for Factory {
    fn create(&self, _: &WorkerContext) -> Box<dyn HttpFilter> {
        Box::new(IstioStats(Arc::clone(&self.0), Arc::downgrade(&self.0)))
    }

    fn phases(&self) -> Phases {
        Phases { complete: true, ..Phases::default() }
    }
}

/// What a connection has counted under, newest last.
struct Seen {
    by: Weak<Compiled>,
    series: Vec<Series>,
}

/// One combination. The weak references pin addresses, so that a new cluster or host is never taken for an old one.
struct Series {
    cluster: Option<Weak<Cluster>>,
    host: Option<Weak<Host>>,
    peer: Option<Rc<Workload>>,
    protocol: Protocol,
    flags: ResponseFlags,
    source_principal: Box<str>,
    destination_principal: Box<str>,
    /// The authority, where it is a label.
    authority: Option<Box<str>>,
    cells: Local<IstioHttp>,
    _block: Block<IstioHttp>,
}

/// The combination of the stream that has just ended.
struct Combination<'a> {
    info: &'a StreamInfo,
    peer: Option<Rc<Workload>>,
    protocol: Protocol,
    principals: (&'a str, &'a str),
    authority: Option<&'a str>,
}

fn same<T>(known: Option<&Weak<T>>, now: Option<&Arc<T>>) -> bool {
    match (known, now) {
        (None, None) => true,
        (Some(known), Some(now)) => std::ptr::eq(known.as_ptr(), Arc::as_ptr(now)),
        _ => false,
    }
}

impl Series {
    fn is(&self, now: &Combination<'_>) -> bool {
        self.protocol == now.protocol
            && self.flags == now.info.flags
            && same(self.host.as_ref(), now.info.upstream_host.as_ref())
            && same(self.cluster.as_ref(), now.info.cluster.as_ref())
            && match (&self.peer, &now.peer) {
                (None, None) => true,
                (Some(known), Some(now)) => Rc::ptr_eq(known, now),
                _ => false,
            }
            && self.authority.as_deref() == now.authority
            && *self.source_principal == *now.principals.0
            && *self.destination_principal == *now.principals.1
    }
}

impl Compiled {
    /// The workload on the other side, as its connection said.
    fn peer(&self, info: &StreamInfo) -> Option<Rc<Workload>> {
        let connection = match self.settings.reporter {
            Reporter::Destination => info.connection.as_ref(),
            Reporter::Source => info.upstream_connection.as_ref(),
        };
        connection?.state.borrow().get::<Peer>()?.workload.clone()
    }

    fn series(&self, worker: &WorkerContext, now: &Combination<'_>) -> Series {
        let Combination { info, peer, protocol, principals, authority } = now;
        // A server that says nothing is who its endpoint is.
        let endpoint = match self.settings.reporter {
            Reporter::Source if peer.is_none() => {
                info.upstream_host.as_ref().and_then(|host| Workload::of_endpoint(&host.metadata))
            }
            _ => None,
        };
        let block = self.table.find(
            worker.index,
            &Facts {
                reporter: self.settings.reporter,
                own: &self.settings.own,
                peer: peer.as_deref().or(endpoint.as_ref()),
                principals: *principals,
                cluster: info.cluster.as_deref(),
                authority: *authority,
                route: info.route.as_ref().map(|route| &**route.name()),
                protocol: *protocol,
                flags: info.flags,
                mutual_tls: is_mutual_tls(info),
            },
        );
        Series {
            cluster: info.cluster.as_ref().map(Arc::downgrade),
            host: info.upstream_host.as_ref().map(Arc::downgrade),
            peer: peer.clone(),
            protocol: *protocol,
            flags: info.flags,
            source_principal: principals.0.into(),
            destination_principal: principals.1.into(),
            authority: authority.map(Into::into),
            cells: worker.recorder.local(&block),
            _block: block,
        }
    }
}

/// Whether the cluster says which service it is.
fn names_service(cluster: Option<&Arc<Cluster>>) -> bool {
    let metadata = cluster.and_then(|cluster| cluster.config.metadata.as_ref());
    metadata.and_then(|map| map.get("istio")?.get("services")?.get(0)).is_some()
}

impl Compiled {
    /// Counts a stream that has ended.
    fn complete(&self, this: &Weak<Self>, record: &LogRecord<'_>, worker: &WorkerContext) {
        let info = record.info;
        let fallback = self.settings.host_header_fallback && !names_service(info.cluster.as_ref());
        let authority = record.request.filter(|_| fallback).map(RequestHead::authority);
        let now = Combination {
            info,
            peer: self.peer(info),
            protocol: protocol_of(record),
            principals: principals(info, self.settings.reporter),
            authority: authority.and_then(|authority| std::str::from_utf8(authority).ok()),
        };
        let Some(connection) = &info.connection else {
            return count(&self.series(worker, &now).cells, record);
        };
        let known = connection.state.borrow().get_shared::<RefCell<Seen>>();
        let seen =
            known.filter(|seen| Weak::ptr_eq(&seen.borrow().by, this)).unwrap_or_else(|| {
                let seen = Rc::new(RefCell::new(Seen { by: this.clone(), series: Vec::new() }));
                connection.state.borrow_mut().set_shared(Rc::clone(&seen));
                seen
            });
        let mut seen = seen.borrow_mut();
        let found = seen.series.iter().rposition(|series| series.is(&now)).unwrap_or_else(|| {
            if seen.series.len() >= MAX_SEEN {
                seen.series.clear();
            }
            seen.series.push(self.series(worker, &now));
            seen.series.len() - 1
        });
        count(&seen.series[found].cells, record);
    }
}

fn count(cells: &Local<IstioHttp>, record: &LogRecord<'_>) {
    let info = record.info;
    let end = if info.timings.end_ns == 0 { record.now_ns } else { info.timings.end_ns };
    let duration_ms = end.saturating_sub(info.timings.start_ns) / 1_000_000;
    cells.inc(IstioHttp::REQUESTS_TOTAL);
    cells.record(IstioHttp::REQUEST_DURATION, duration_ms);
    cells.record(
        IstioHttp::REQUEST_BYTES,
        info.bytes_received + u64::from(info.request_header_bytes),
    );
    cells
        .record(IstioHttp::RESPONSE_BYTES, info.bytes_sent + u64::from(info.response_header_bytes));
    if let Some(messages) = info.filter_state.get::<GrpcMessages>() {
        cells.add(IstioHttp::REQUEST_MESSAGES, messages.requests);
        cells.add(IstioHttp::RESPONSE_MESSAGES, messages.responses);
    }
}

impl HttpFilter for IstioStats {
    fn on_stream_complete(&mut self, cx: &mut FilterContext<'_>) {
        let record = LogRecord {
            worker: cx.worker.index,
            now_ns: cx.now_ns,
            info: cx.info,
            request: Some(cx.request),
            response: Some(cx.response),
            response_trailers: cx.response_trailers.as_deref(),
        };
        self.0.complete(&self.1, &record, cx.worker);
    }

    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests;
