//! `istio.metadata_exchange`: proxies tell each other in headers which workload they stand beside.
//!
//! What a client says is read once a connection and believed as far as its certificate goes (see [`Peer`]). The headers
//! never reach the application, nor leave the mesh: whatever came in is taken out in both directions, and only what the
//! configuration says is put in.

use std::sync::Arc;

use api::istio::peer_metadata::Config;
use api::istio::peer_metadata::config::discovery_method::MethodSpecifier as Discovery;
use api::istio::peer_metadata::config::propagation_method::MethodSpecifier as Propagation;
use api::text::Problem;
use codec::headers::{Fields, names};
use prost::Message;
use proxy::filter_manager::{
    FilterContext, HeadersStatus, HttpFilter, HttpFilterFactory, Phases, WorkerContext,
};
use proxy::snapshot::registry::CompileContext;

use crate::istio::workload::{Peer, header_of_node};

#[derive(Debug, Clone)]
struct Settings {
    /// Learn the client's workload.
    learn_downstream: bool,
    /// Learn the server's workload from its answer.
    learn_upstream: bool,
    /// Tell the server.
    tell_upstream: bool,
    /// Tell a client that told us.
    tell_downstream: bool,
    /// Leave the client's headers in the request.
    shared_with_upstream: bool,
    /// `x-envoy-peer-metadata` of this proxy.
    header: Arc<str>,
    /// `x-envoy-peer-metadata-id` of this proxy.
    id: Arc<str>,
}

#[derive(Debug)]
struct Factory(Settings);

struct PeerMetadata {
    settings: Settings,
    /// The client sent its metadata, so it can read ours.
    client_exchanges: bool,
}

/// Reads an encoded `Config`.
pub(super) fn compile(
    bytes: &[u8],
    context: &CompileContext<'_>,
) -> Result<Arc<dyn HttpFilterFactory>, Vec<Problem>> {
    let config =
        Config::decode(bytes).map_err(|error| vec![Problem::new("", error.to_string())])?;
    let mut problems = Vec::new();
    let mut learns = |list: &[api::istio::peer_metadata::config::DiscoveryMethod], name: &str| {
        for (i, method) in list.iter().enumerate() {
            let unsupported = match &method.method_specifier {
                Some(Discovery::IstioHeaders(_)) => continue,
                Some(Discovery::Baggage(_)) => "baggage is not supported",
                Some(Discovery::WorkloadDiscovery(_)) => "workload_discovery is not supported",
                None => "a method is needed",
            };
            problems.push(Problem::new(format!("{name}[{i}]"), unsupported));
        }
        !list.is_empty()
    };
    let learn_downstream = learns(&config.downstream_discovery, "downstream_discovery");
    let learn_upstream = learns(&config.upstream_discovery, "upstream_discovery");
    let mut tells = |list: &[api::istio::peer_metadata::config::PropagationMethod], name: &str| {
        for (i, method) in list.iter().enumerate() {
            let unsupported = match &method.method_specifier {
                Some(Propagation::IstioHeaders(headers)) if headers.skip_external_clusters => {
                    "istio_headers.skip_external_clusters is not supported"
                }
                Some(Propagation::IstioHeaders(_)) => continue,
                None => "a method is needed",
            };
            problems.push(Problem::new(format!("{name}[{i}]"), unsupported));
        }
        !list.is_empty()
    };
    let tell_downstream = tells(&config.downstream_propagation, "downstream_propagation");
    let tell_upstream = tells(&config.upstream_propagation, "upstream_propagation");
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Arc::new(Factory(Settings {
        learn_downstream,
        learn_upstream,
        tell_upstream,
        tell_downstream,
        shared_with_upstream: config.shared_with_upstream,
        header: header_of_node(context.node).into(),
        id: Arc::clone(&context.node.id),
    })))
}

impl HttpFilterFactory for Factory {
    fn create(&self, _: &WorkerContext) -> Box<dyn HttpFilter> {
        Box::new(PeerMetadata { settings: self.0.clone(), client_exchanges: false })
    }

    fn phases(&self) -> Phases {
        Phases::HEADERS
    }
}

impl Settings {
    fn tell(&self, fields: &mut Fields) {
        fields.set(names::X_ENVOY_PEER_METADATA_ID, self.id.as_bytes());
        fields.set(names::X_ENVOY_PEER_METADATA, self.header.as_bytes());
    }
}

fn strip(fields: &mut Fields) {
    fields.remove(names::X_ENVOY_PEER_METADATA);
    fields.remove(names::X_ENVOY_PEER_METADATA_ID);
}

impl HttpFilter for PeerMetadata {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _: bool) -> HeadersStatus {
        if let Some(header) = cx.request.fields.get(names::X_ENVOY_PEER_METADATA)
            && self.settings.learn_downstream
            && let Some(connection) = &cx.info.connection
        {
            self.client_exchanges = Peer::of_connection(connection, header).is_some();
        }
        if !self.settings.shared_with_upstream {
            strip(&mut cx.request.fields);
        }
        if self.settings.tell_upstream {
            self.settings.tell(&mut cx.request.fields);
        }
        HeadersStatus::Continue
    }

    fn encode_headers(&mut self, cx: &mut FilterContext<'_>, _: bool) -> HeadersStatus {
        if let Some(header) = cx.response.fields.get(names::X_ENVOY_PEER_METADATA)
            && self.settings.learn_upstream
            && let Some(connection) = &cx.info.upstream_connection
        {
            Peer::of_connection(connection, header);
        }
        strip(&mut cx.response.fields);
        if self.settings.tell_downstream && self.client_exchanges {
            self.settings.tell(&mut cx.response.fields);
        }
        HeadersStatus::Continue
    }

    fn reset(&mut self) {
        self.client_exchanges = false;
    }
}
