//! The router, which ends every chain.

use api::envoy::extensions::filters::http::router::v3::Router;
use api::google::protobuf::Any;

use super::Site;
use crate::networking::encoding::pack;

pub(super) fn config(_site: &Site<'_>) -> Option<Any> {
    Some(pack(&Router::default()))
}
