//! Which extensions there are: tables by message name that the binary fills and passes in.
//!
//! The type URL of a `typed_config` decides which extension loads, as in Envoy; a name is free text. What is in no
//! table and not built in is refused by its type and path.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use api::text::Problem;

use super::filter_overrides::FILTER_CONFIG;
use super::node::NodeInfo;
use crate::filter_manager::HttpFilterFactory;
use crate::listener::config::TrafficDirection;
use crate::stream_info::AccessLogger;

/// What a filter may know while it is compiled.
pub struct CompileContext<'a> {
    /// Where its statistics go.
    pub registry: &'a telemetry::stats::Registry,
    /// This node.
    pub node: &'a NodeInfo,
    /// The direction of the listener.
    pub direction: TrafficDirection,
    /// The connection manager's `stat_prefix`.
    pub stat_prefix: &'a str,
}

impl fmt::Debug for CompileContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompileContext")
            .field("stat_prefix", &self.stat_prefix)
            .finish_non_exhaustive()
    }
}

/// Compiles an HTTP filter from its encoded message, which has passed the schema's checks. Problems have paths from the
/// message on.
pub type CompileHttpFilter =
    fn(&[u8], &CompileContext<'_>) -> Result<Arc<dyn HttpFilterFactory>, Vec<Problem>>;

/// Compiles what a route says of an HTTP filter likewise; the filter finds it by its type
/// ([`FilterContext::route_config`](crate::filter_manager::FilterContext::route_config)).
pub type CompileRouteFilter =
    fn(&[u8], &CompileContext<'_>) -> Result<Arc<dyn Any + Send + Sync>, Vec<Problem>>;

/// Compiles an access logger likewise.
pub type CompileAccessLogger =
    fn(&[u8], &CompileContext<'_>) -> Result<Arc<dyn AccessLogger>, Vec<Problem>>;

/// One row: an extension by its message.
#[derive(Clone, Copy)]
pub struct Row<C> {
    /// The canonical name, for humans: `envoy.filters.http.cors`.
    pub name: &'static str,
    /// The full name of its configuration: `envoy.extensions.filters.http.cors.v3.Cors`.
    pub message: &'static str,
    /// How it is compiled.
    pub compile: C,
}

impl<C> fmt::Debug for Row<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.message)
    }
}

/// Every extension of this binary.
#[derive(Debug, Default, Clone)]
pub struct Extensions {
    http_filters: BTreeMap<&'static str, Row<CompileHttpFilter>>,
    route_filters: BTreeMap<&'static str, Row<CompileRouteFilter>>,
    access_loggers: BTreeMap<&'static str, Row<CompileAccessLogger>>,
    connection_observers: BTreeMap<&'static str, Row<CompileAccessLogger>>,
}

/// What the engine itself takes as a `typed_config`: category, name and message, as `/server_info` lists extensions.
pub const BUILT_IN: &[(&str, &str, &str)] = &[
    (
        "envoy.filters.listener",
        "envoy.filters.listener.tls_inspector",
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    ),
    (
        "envoy.filters.listener",
        "envoy.filters.listener.http_inspector",
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    ),
    (
        "envoy.filters.network",
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    ),
    (
        "envoy.filters.network",
        "envoy.filters.network.tcp_proxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.router",
        "envoy.extensions.filters.http.router.v3.Router",
    ),
    (
        "envoy.transport_sockets",
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    ),
    (
        "envoy.transport_sockets",
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    ),
    (
        "envoy.transport_sockets",
        "envoy.transport_sockets.raw_buffer",
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    ),
    (
        "envoy.upstream_options",
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    ),
    (
        "envoy.access_loggers",
        "envoy.access_loggers.file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    ),
    (
        "envoy.access_loggers",
        "envoy.access_loggers.stdout",
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    ),
    (
        "envoy.access_loggers",
        "envoy.access_loggers.stderr",
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
    ),
    (
        "envoy.request_id",
        "envoy.request_id.uuid",
        "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
    ),
    (
        "envoy.retry_host_predicates",
        "envoy.retry_host_predicates.previous_hosts",
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
    ),
];

impl Extensions {
    /// Only what is built in.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds rows of HTTP filters.
    #[must_use]
    pub fn with_http_filters(mut self, rows: &[Row<CompileHttpFilter>]) -> Self {
        self.http_filters.extend(rows.iter().map(|row| (row.message, *row)));
        self
    }

    /// Adds rows of what routes may say of HTTP filters.
    #[must_use]
    pub fn with_route_filters(mut self, rows: &[Row<CompileRouteFilter>]) -> Self {
        self.route_filters.extend(rows.iter().map(|row| (row.message, *row)));
        self
    }

    /// Adds rows of access loggers.
    #[must_use]
    pub fn with_access_loggers(mut self, rows: &[Row<CompileAccessLogger>]) -> Self {
        self.access_loggers.extend(rows.iter().map(|row| (row.message, *row)));
        self
    }

    /// Adds rows of network filters that only watch: they see an L4 connection open and end.
    #[must_use]
    pub fn with_connection_observers(mut self, rows: &[Row<CompileAccessLogger>]) -> Self {
        self.connection_observers.extend(rows.iter().map(|row| (row.message, *row)));
        self
    }

    /// Does something take this message as a `typed_config`?
    pub fn knows(&self, message: &str) -> bool {
        self.http_filters.contains_key(message)
            || self.route_filters.contains_key(message)
            || message == FILTER_CONFIG
            || self.access_loggers.contains_key(message)
            || self.connection_observers.contains_key(message)
            || BUILT_IN.iter().any(|(_, _, built_in)| *built_in == message)
    }

    pub(super) fn http_filter(&self, message: &str) -> Option<Row<CompileHttpFilter>> {
        self.http_filters.get(message).copied()
    }

    pub(super) fn route_filter(&self, message: &str) -> Option<Row<CompileRouteFilter>> {
        self.route_filters.get(message).copied()
    }

    pub(super) fn connection_observer(&self, message: &str) -> Option<Row<CompileAccessLogger>> {
        self.connection_observers.get(message).copied()
    }

    pub(super) fn access_logger(&self, message: &str) -> Option<Row<CompileAccessLogger>> {
        self.access_loggers.get(message).copied()
    }

    /// Every extension as (category, name, message), for node identification and `/server_info`.
    pub fn list(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let mut rows = BUILT_IN.to_vec();
        rows.extend(
            self.http_filters.values().map(|row| ("envoy.filters.http", row.name, row.message)),
        );
        rows.extend(
            self.access_loggers.values().map(|row| ("envoy.access_loggers", row.name, row.message)),
        );
        let observers = self.connection_observers.values();
        rows.extend(observers.map(|row| ("envoy.filters.network", row.name, row.message)));
        rows.sort_unstable();
        rows
    }
}
