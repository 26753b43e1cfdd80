//! `envoy.filters.http.cors`: cross-origin policies, which are the routes'.

use api::envoy::extensions::filters::http::cors::v3::Cors;
use api::google::protobuf::Any;

use super::{Direction, Site};
use crate::networking::encoding::pack;
use crate::proxy::Capabilities;

/// Its name, which a route's policy is filed under.
pub const NAME: &str = "envoy.filters.http.cors";
/// `envoy.extensions.filters.http.cors.v3.Cors`.
pub const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors";

/// Wherever VirtualServices route: not on the way into a workload.
pub(super) fn config(site: &Site<'_>) -> Option<Any> {
    let routes = site.direction != Direction::Inbound;
    (routes && site.capabilities.contains(Capabilities::CORS)).then(|| pack(&Cors::default()))
}
