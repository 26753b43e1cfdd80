//! HTTP filters.

mod alpn;
mod basic_auth;
mod cors;
mod fault;
mod grpc_stats;
mod grpc_web;
mod istio_stats;
mod local_ratelimit;
mod peer_metadata;

use proxy::snapshot::registry::{CompileHttpFilter, CompileRouteFilter, Row};

/// The table.
pub const ROWS: &[Row<CompileHttpFilter>] = &[
    Row {
        name: "istio.alpn",
        message: "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
        compile: alpn::compile,
    },
    Row {
        name: "envoy.filters.http.basic_auth",
        message: "envoy.extensions.filters.http.basic_auth.v3.BasicAuth",
        compile: basic_auth::compile,
    },
    Row {
        name: "envoy.filters.http.cors",
        message: "envoy.extensions.filters.http.cors.v3.Cors",
        compile: cors::compile,
    },
    Row {
        name: "envoy.filters.http.fault",
        message: "envoy.extensions.filters.http.fault.v3.HTTPFault",
        compile: fault::compile,
    },
    Row {
        name: "envoy.filters.http.grpc_stats",
        message: "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
        compile: grpc_stats::compile,
    },
    Row {
        name: "envoy.filters.http.grpc_web",
        message: "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
        compile: grpc_web::compile,
    },
    Row {
        name: "envoy.filters.http.local_ratelimit",
        message: "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        compile: local_ratelimit::compile,
    },
    Row { name: "istio.stats", message: "stats.PluginConfig", compile: istio_stats::compile },
    Row {
        name: "envoy.filters.http.peer_metadata",
        message: "io.istio.http.peer_metadata.Config",
        compile: peer_metadata::compile,
    },
];

/// What routes may say of them (`typed_per_filter_config`).
pub const ROUTE_ROWS: &[Row<CompileRouteFilter>] = &[
    Row {
        name: "envoy.filters.http.cors",
        message: "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        compile: cors::compile_policy,
    },
    Row {
        name: "envoy.filters.http.fault",
        message: "envoy.extensions.filters.http.fault.v3.HTTPFault",
        compile: fault::compile_route,
    },
    Row {
        name: "envoy.filters.http.local_ratelimit",
        message: "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        compile: local_ratelimit::compile_route,
    },
];
