//! `envoy.filters.http.grpc_web`: gRPC for browsers, made gRPC.

use api::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use api::google::protobuf::Any;

use super::Site;
use crate::networking::encoding::pack;
use crate::proxy::Capabilities;

/// `envoy.extensions.filters.http.grpc_web.v3.GrpcWeb`.
pub const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb";

/// Only on ports that say that they speak it.
pub(super) fn config(site: &Site<'_>) -> Option<Any> {
    let wanted = site.grpc_web && site.capabilities.contains(Capabilities::GRPC_WEB);
    wanted.then(|| pack(&GrpcWeb::default()))
}
