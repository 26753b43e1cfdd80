//! The router, which ends every chain.

use api::envoy::extensions::filters::http::router::v3::Router;
use api::google::protobuf::Any;

use crate::networking::encoding::pack;

/// Its name.
pub const NAME: &str = "envoy.filters.http.router";

/// The defaults.
pub fn config() -> Any {
    pack(&Router::default())
}
