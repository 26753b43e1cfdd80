//! `envoy.filters.http.grpc_stats`: statistics of gRPC calls, and their messages for `istio.stats`.

use api::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig;
use api::envoy::extensions::filters::http::grpc_stats::v3::filter_config::PerMethodStatSpecifier;
use api::google::protobuf::{Any, BoolValue};

use super::Site;
use crate::networking::encoding::pack;
use crate::proxy::Capabilities;

/// `envoy.extensions.filters.http.grpc_stats.v3.FilterConfig`.
pub const TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig";

/// Everywhere, and for all methods together.
pub(super) fn config(site: &Site<'_>) -> Option<Any> {
    let together = PerMethodStatSpecifier::StatsForAllMethods(BoolValue { value: false });
    site.capabilities.contains(Capabilities::GRPC_STATS).then(|| {
        pack(&FilterConfig {
            emit_filter_state: true,
            per_method_stat_specifier: Some(together),
            ..Default::default()
        })
    })
}
