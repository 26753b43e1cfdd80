//! HTTP filters.

mod alpn;
mod basic_auth;
mod istio_stats;
mod peer_metadata;

use proxy::snapshot::registry::{CompileHttpFilter, Row};

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
    Row { name: "istio.stats", message: "stats.PluginConfig", compile: istio_stats::compile },
    Row {
        name: "envoy.filters.http.peer_metadata",
        message: "io.istio.http.peer_metadata.Config",
        compile: peer_metadata::compile,
    },
];
