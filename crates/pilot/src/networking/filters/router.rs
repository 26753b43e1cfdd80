//! The router, which ends every chain.

use api::envoy::extensions::filters::http::router::v3::Router;
use api::google::protobuf::Any;

use super::Site;
use crate::networking::encoding::pack;

/// Its name.
pub const NAME: &str = "envoy.filters.http.router";

pub(super) fn config(_: &Site<'_>) -> Option<Any> {
    Some(defaults())
}

/// The router as every chain has it.
pub fn defaults() -> Any {
    pack(&Router::default())
}
