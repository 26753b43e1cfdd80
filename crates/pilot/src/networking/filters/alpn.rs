//! `istio.alpn`: upstream ALPN by the protocol of the request, so that a mesh peer knows what it gets before it reads.

use api::google::protobuf::Any;
use prost::Message;

use super::{Direction, Site};
use crate::proxy::Capabilities;

/// `istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig`.
pub const TYPE_URL: &str = "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";

/// ALPN towards mesh peers for HTTP/1.0, HTTP/1.1 and HTTP/2, by the filter's own numbers of these protocols.
const OVERRIDES: [(i32, [&str; 3]); 3] = [
    (0, ["istio-http/1.0", "istio", "http/1.0"]),
    (1, ["istio-http/1.1", "istio", "http/1.1"]),
    (2, ["istio-h2", "istio", "h2"]),
];

#[derive(Clone, PartialEq, Message)]
struct FilterConfig {
    #[prost(message, repeated, tag = "1")]
    alpn_override: Vec<AlpnOverride>,
}

#[derive(Clone, PartialEq, Message)]
struct AlpnOverride {
    #[prost(int32, tag = "1")]
    upstream_protocol: i32,
    #[prost(string, repeated, tag = "2")]
    alpn_override: Vec<String>,
}

/// Every chain that leads to peers; the way into a workload ends at the application.
pub(super) fn config(site: &Site<'_>) -> Option<Any> {
    let wanted = site.direction != Direction::Inbound && site.capabilities.contains(Capabilities::ALPN);
    wanted.then(|| {
        let alpn_override = OVERRIDES
            .iter()
            .map(|(protocol, alpn)| AlpnOverride {
                upstream_protocol: *protocol,
                alpn_override: alpn.iter().map(|name| (*name).to_owned()).collect(),
            })
            .collect();
        Any { type_url: TYPE_URL.to_owned(), value: FilterConfig { alpn_override }.encode_to_vec() }
    })
}
