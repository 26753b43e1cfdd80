//! `istio.alpn`: upstream ALPN by the protocol of the request, so that a mesh peer knows what it gets before it reads.

use api::google::protobuf::Any;
use api::istio::alpn::FilterConfig;
use api::istio::alpn::filter_config::{AlpnOverride, Protocol};

use super::{Direction, Site};
use crate::networking::encoding::pack;
use crate::proxy::Capabilities;

/// `istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig`.
pub const TYPE_URL: &str =
    "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";

/// ALPN towards mesh peers, by what they will be spoken to in.
const OVERRIDES: [(Protocol, [&str; 3]); 3] = [
    (Protocol::Http10, ["istio-http/1.0", "istio", "http/1.0"]),
    (Protocol::Http11, ["istio-http/1.1", "istio", "http/1.1"]),
    (Protocol::Http2, ["istio-h2", "istio", "h2"]),
];

/// Every chain that leads to peers; the way into a workload ends at the application.
pub(super) fn config(site: &Site<'_>) -> Option<Any> {
    if site.direction == Direction::Inbound || !site.capabilities.contains(Capabilities::ALPN) {
        return None;
    }
    let overrides = OVERRIDES.iter().map(|(protocol, alpn)| AlpnOverride {
        upstream_protocol: *protocol as i32,
        alpn_override: alpn.iter().map(|name| (*name).to_owned()).collect(),
    });
    Some(pack(&FilterConfig { alpn_override: overrides.collect() }))
}
