//! `istio.metadata_exchange`: who the peer is, from headers downstream and from endpoint metadata upstream.

use api::google::protobuf::Any;
use prost::Message;

use super::{Direction, Site};
use crate::proxy::Capabilities;

/// `io.istio.http.peer_metadata.Config`.
pub const TYPE_URL: &str = "type.googleapis.com/io.istio.http.peer_metadata.Config";

#[derive(Clone, PartialEq, Message)]
struct Config {
    #[prost(message, repeated, tag = "1")]
    downstream_discovery: Vec<Discovery>,
    #[prost(message, repeated, tag = "2")]
    upstream_discovery: Vec<Discovery>,
    #[prost(message, repeated, tag = "3")]
    downstream_propagation: Vec<Propagation>,
    #[prost(message, repeated, tag = "4")]
    upstream_propagation: Vec<Propagation>,
}

#[derive(Clone, PartialEq, Message)]
struct Discovery {
    #[prost(message, optional, tag = "2")]
    workload_discovery: Option<Empty>,
    #[prost(message, optional, tag = "3")]
    istio_headers: Option<Headers>,
}

#[derive(Clone, PartialEq, Message)]
struct Propagation {
    #[prost(message, optional, tag = "1")]
    istio_headers: Option<Headers>,
}

#[derive(Clone, PartialEq, Message)]
struct Headers {
    /// No headers to peers outside the mesh.
    #[prost(bool, tag = "1")]
    skip_external_clusters: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

/// Inbound learns from and answers the caller; outbound learns from and tells the callee.
pub(super) fn config(site: &Site<'_>) -> Option<Any> {
    if !site.capabilities.contains(Capabilities::PEER_METADATA) {
        return None;
    }
    let headers = Headers { skip_external_clusters: site.direction != Direction::Inbound };
    let discovery = vec![
        Discovery { istio_headers: Some(headers.clone()), ..Default::default() },
        Discovery { workload_discovery: Some(Empty {}), ..Default::default() },
    ];
    let propagation = vec![Propagation { istio_headers: Some(headers) }];
    let config = match site.direction {
        Direction::Inbound => {
            Config { downstream_discovery: discovery, downstream_propagation: propagation, ..Default::default() }
        }
        Direction::Outbound | Direction::Gateway => {
            Config { upstream_discovery: discovery, upstream_propagation: propagation, ..Default::default() }
        }
    };
    Some(Any { type_url: TYPE_URL.to_owned(), value: config.encode_to_vec() })
}
