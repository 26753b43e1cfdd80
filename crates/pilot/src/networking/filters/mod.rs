//! The HTTP filters this control plane emits, in the order in which requests pass them.

mod alpn;
mod cors;
mod fault;
mod grpc_stats;
mod grpc_web;
mod peer_metadata;
mod proxy_authorization;
mod router;
mod stats;

use api::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpFilter, http_filter,
};
use api::google::protobuf::Any;

use crate::proxy::Capabilities;
pub use cors::NAME as CORS_FILTER;
pub use fault::NAME as FAULT_FILTER;
pub use router::{NAME as ROUTER, defaults as router};
pub use stats::{NAME as STATS_FILTER, of_node as stats};

/// Which side of a workload a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Requests to the workload.
    Inbound,
    /// Requests of the workload.
    Outbound,
    /// Requests from outside the mesh.
    Gateway,
}

/// Where a filter chain stands: all that a filter may depend on.
pub struct Site<'a> {
    /// Which side of a workload it serves.
    pub direction: Direction,
    /// What the node can load.
    pub capabilities: Capabilities,
    /// The htpasswd line that clients of the outbound HTTP proxy must satisfy.
    pub proxy_credential: Option<&'a str>,
    /// Whether clients may speak gRPC-Web.
    pub grpc_web: bool,
}

/// One filter: its name in the chain, and its configuration where it belongs into a chain.
struct Row {
    name: &'static str,
    config: fn(&Site<'_>) -> Option<Any>,
}

/// Row order is filter order.
const HTTP_FILTERS: [Row; 9] = [
    Row { name: "envoy.filters.http.basic_auth", config: proxy_authorization::config },
    Row { name: "istio.metadata_exchange", config: peer_metadata::config },
    Row { name: "envoy.filters.http.grpc_web", config: grpc_web::config },
    Row { name: "envoy.filters.http.grpc_stats", config: grpc_stats::config },
    Row { name: "istio.alpn", config: alpn::config },
    Row { name: FAULT_FILTER, config: fault::config },
    Row { name: CORS_FILTER, config: cors::config },
    Row { name: STATS_FILTER, config: stats::config },
    Row { name: ROUTER, config: router::config },
];

/// The extensions that are emitted only to nodes whose list has them.
pub fn extension_type_urls() -> [(Capabilities, &'static str); 8] {
    [
        (Capabilities::ALPN, alpn::TYPE_URL),
        (Capabilities::STATS, stats::TYPE_URL),
        (Capabilities::PEER_METADATA, peer_metadata::TYPE_URL),
        (Capabilities::BASIC_AUTH, proxy_authorization::TYPE_URL),
        (Capabilities::CORS, cors::TYPE_URL),
        (Capabilities::GRPC_WEB, grpc_web::TYPE_URL),
        (Capabilities::GRPC_STATS, grpc_stats::TYPE_URL),
        (Capabilities::FAULT, fault::TYPE_URL),
    ]
}

/// The filters of a chain at `site`.
pub fn http_filters(site: &Site<'_>) -> Vec<HttpFilter> {
    HTTP_FILTERS
        .iter()
        .filter_map(|row| {
            let config = (row.config)(site)?;
            Some(HttpFilter {
                name: row.name.to_owned(),
                // Nobody pays for it but requests of routes that have faults.
                disabled: row.name == FAULT_FILTER,
                config_type: Some(http_filter::ConfigType::TypedConfig(config)),
                ..Default::default()
            })
        })
        .collect()
}
