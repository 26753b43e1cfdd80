//! `istio.metadata_exchange`: who the peer is, by headers both ways; towards a callee also by endpoint metadata.

use api::google::protobuf::Any;
use api::istio::peer_metadata::Config;
use api::istio::peer_metadata::config::{
    DiscoveryMethod, IstioHeaders, PropagationMethod, discovery_method, propagation_method,
};

use super::{Direction, Site};
use crate::networking::encoding::pack;
use crate::proxy::Capabilities;

/// `io.istio.http.peer_metadata.Config`.
pub const TYPE_URL: &str = "type.googleapis.com/io.istio.http.peer_metadata.Config";

/// Inbound learns from the caller and answers it; outbound tells the callee and learns from it. A gateway's callers
/// are outside of the mesh: nothing of what they say is believed, whatever is configured.
pub(super) fn config(site: &Site<'_>) -> Option<Any> {
    if !site.capabilities.contains(Capabilities::PEER_METADATA) {
        return None;
    }
    let discovery = DiscoveryMethod {
        method_specifier: Some(discovery_method::MethodSpecifier::IstioHeaders(
            IstioHeaders::default(),
        )),
    };
    let propagation = PropagationMethod {
        method_specifier: Some(propagation_method::MethodSpecifier::IstioHeaders(
            IstioHeaders::default(),
        )),
    };
    Some(pack(&match site.direction {
        Direction::Inbound => Config {
            downstream_discovery: vec![discovery],
            downstream_propagation: vec![propagation],
            ..Default::default()
        },
        Direction::Outbound | Direction::Gateway => Config {
            upstream_discovery: vec![discovery],
            upstream_propagation: vec![propagation],
            ..Default::default()
        },
    }))
}
