//! `envoy.filters.http.fault`: delays and aborts, which are the routes'. The filter itself has nothing to do, so it is off
//! but for routes that name it.

use api::envoy::extensions::filters::http::fault::v3::HttpFault;
use api::google::protobuf::Any;

use super::{Direction, Site};
use crate::networking::encoding::pack;
use crate::proxy::Capabilities;

/// Its name, which a route's faults are filed under.
pub const NAME: &str = "envoy.filters.http.fault";
/// `envoy.extensions.filters.http.fault.v3.HTTPFault`.
pub const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";

/// Wherever VirtualServices route: not on the way into a workload.
pub(super) fn config(site: &Site<'_>) -> Option<Any> {
    let routes = site.direction != Direction::Inbound;
    (routes && site.capabilities.contains(Capabilities::FAULT)).then(|| pack(&HttpFault::default()))
}
