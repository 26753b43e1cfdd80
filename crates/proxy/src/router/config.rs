//! What a route tells the router to do; route tables embed these.

use std::sync::Arc;
use std::time::Duration;

use crate::route_table::config::{Fraction, HeaderMatcher};
use crate::upstream::config::{ClusterRef, WeightedClusters};

/// Options of `envoy.filters.http.router`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouterOptions {
    /// Add and honour no `x-envoy-*` headers.
    pub suppress_envoy_headers: bool,
    /// Skip per-response-code stats.
    pub no_dynamic_stats: bool,
}

/// The cluster of a route.
#[derive(Debug, Clone)]
pub enum ClusterChoice {
    /// Always this one.
    Cluster(ClusterRef),
    /// One of several by weight; the index of the entry tells its header changes apart.
    Weighted(WeightedClusters),
    /// Named by a request header; resolved through the view's names.
    Header(Arc<str>),
}

/// The part of `RouteAction` that the router itself carries out (rewrites and header changes are the table's).
#[derive(Debug, Clone)]
pub struct RoutePolicy {
    /// Whole response within this (Envoy: 15 s); `None` is no limit.
    pub timeout: Option<Duration>,
    /// Overrides the connection manager's stream idle timeout: `Some(None)` switches it off.
    pub idle_timeout: Option<Option<Duration>>,
    /// Overrides the connection manager's max stream duration.
    pub max_stream_duration: Option<Option<Duration>>,
    /// How far the deadline that a gRPC client gives counts; `None` is not at all.
    pub grpc_timeout: Option<GrpcTimeout>,
    /// Retries; `None` is none.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Which breakers count: 0 default, 1 high.
    pub priority: usize,
    /// The status when the cluster does not exist (Envoy: 503).
    pub cluster_not_found_status: u16,
    /// `include_request_attempt_count`: set `x-envoy-attempt-count` upstream.
    pub include_attempt_count_in_request: bool,
    /// `include_attempt_count_in_response`.
    pub include_attempt_count_in_response: bool,
    /// Upgrades this route switches on or off, over the connection manager's.
    pub upgrades: Vec<(Arc<str>, bool)>,
    /// CONNECT ends here: its payload goes to the cluster's host as bytes; `None` passes CONNECT on.
    pub connect: Option<ConnectConfig>,
    /// `host_rewrite: auto`: the authority becomes the chosen host's name.
    pub auto_host_rewrite: bool,
    /// Keep the original authority in `x-forwarded-host` when it is rewritten.
    pub append_x_forwarded_host: bool,
    /// Most bytes a retry or a mirror may buffer of a request's body.
    pub request_body_buffer_limit: Option<u64>,
    /// Where copies of requests go.
    pub mirrors: Arc<[Mirror]>,
}

impl RoutePolicy {
    /// It has a `max_stream_duration`, which stands in the place of its `timeout`.
    pub fn limits_streams(&self) -> bool {
        self.max_stream_duration.is_some()
            || self.grpc_timeout.is_some_and(|rule| !rule.of_response)
    }
}

impl RoutePolicy {
    /// The most bytes of a request's body that are kept for another attempt, or for copies, where its connection may
    /// keep `connection_limit`.
    pub fn most_kept_of_body(&self, connection_limit: usize) -> usize {
        let own = self.request_body_buffer_limit;
        own.map_or(connection_limit, |own| {
            usize::try_from(own).unwrap_or(usize::MAX).min(connection_limit)
        })
    }
}

impl Default for RoutePolicy {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(15)),
            idle_timeout: None,
            max_stream_duration: None,
            grpc_timeout: None,
            retry: None,
            priority: 0,
            cluster_not_found_status: 503,
            include_attempt_count_in_request: false,
            include_attempt_count_in_response: false,
            upgrades: Vec::new(),
            connect: None,
            auto_host_rewrite: false,
            append_x_forwarded_host: false,
            request_body_buffer_limit: None,
            mirrors: Arc::default(),
        }
    }
}

/// `RequestMirrorPolicy`.
#[derive(Debug, Clone)]
pub struct Mirror {
    /// Where copies go; a cluster or a header that names one.
    pub cluster: ClusterChoice,
    /// So many requests are copied; `None` is all.
    pub fraction: Option<Fraction>,
    /// The copy's host gets `-shadow` behind its name (true).
    pub marks_host: bool,
    /// The copy's host instead.
    pub host: Option<Box<str>>,
}

/// How the `grpc-timeout` header bounds a stream (`grpc_timeout_header_max`, `grpc_timeout_header_offset`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// At most this; `None` is whatever the client says.
    pub max: Option<Duration>,
    /// So much earlier than the client says, to leave time for the answer to travel.
    pub offset: Duration,
    /// The deprecated `max_grpc_timeout`: it bounds the response, as the route's timeout does, and not the stream.
    pub of_response: bool,
}

/// `upgrade_configs[].connect_config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectConfig {
    /// A POST to such a route is taken for a CONNECT.
    pub allow_post: bool,
}

/// `RetryPolicy`; the defaults are Envoy's.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// What is retried.
    pub on: RetryOn,
    /// Retries after the first attempt (1).
    pub num_retries: u32,
    /// Each attempt within this.
    pub per_try_timeout: Option<Duration>,
    /// Each attempt's silence within this.
    pub per_try_idle_timeout: Option<Duration>,
    /// For `retriable-status-codes`.
    pub retriable_status_codes: Vec<u16>,
    /// For `retriable-headers`: responses with any of these.
    pub retriable_headers: Vec<HeaderMatcher>,
    /// Only requests with any of these are retried by this policy; of none, all are.
    pub retriable_request_headers: Vec<HeaderMatcher>,
    /// First back-off; each one after is up to twice as long, fully jittered (25 ms).
    pub base_interval: Duration,
    /// Longest back-off (ten times the base).
    pub max_interval: Duration,
    /// `envoy.retry_host_predicates.previous_hosts`.
    pub avoid_previous_hosts: bool,
    /// How often another host is drawn when a predicate refuses one (1).
    pub host_selection_attempts: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            on: RetryOn::default(),
            num_retries: 1,
            per_try_timeout: None,
            per_try_idle_timeout: None,
            retriable_status_codes: Vec::new(),
            retriable_headers: Vec::new(),
            retriable_request_headers: Vec::new(),
            base_interval: Duration::from_millis(25),
            max_interval: Duration::from_millis(250),
            avoid_previous_hosts: false,
            host_selection_attempts: 1,
        }
    }
}

/// A set of retry conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetryOn(u32);

impl RetryOn {
    /// `5xx`.
    pub const FIVE_XX: Self = Self(1);
    /// `gateway-error`.
    pub const GATEWAY_ERROR: Self = Self(1 << 1);
    /// `reset`.
    pub const RESET: Self = Self(1 << 2);
    /// `reset-before-request`.
    pub const RESET_BEFORE_REQUEST: Self = Self(1 << 3);
    /// `connect-failure`.
    pub const CONNECT_FAILURE: Self = Self(1 << 4);
    /// `retriable-4xx`.
    pub const RETRIABLE_4XX: Self = Self(1 << 5);
    /// `refused-stream`.
    pub const REFUSED_STREAM: Self = Self(1 << 6);
    /// `retriable-status-codes`.
    pub const STATUS_CODES: Self = Self(1 << 7);
    /// `envoy-ratelimited`.
    pub const ENVOY_RATELIMITED: Self = Self(1 << 8);
    /// gRPC `cancelled`.
    pub const GRPC_CANCELLED: Self = Self(1 << 9);
    /// gRPC `deadline-exceeded`.
    pub const GRPC_DEADLINE_EXCEEDED: Self = Self(1 << 10);
    /// gRPC `internal`.
    pub const GRPC_INTERNAL: Self = Self(1 << 11);
    /// gRPC `resource-exhausted`.
    pub const GRPC_RESOURCE_EXHAUSTED: Self = Self(1 << 12);
    /// gRPC `unavailable`.
    pub const GRPC_UNAVAILABLE: Self = Self(1 << 13);
    /// `retriable-headers`.
    pub const HEADERS: Self = Self(1 << 14);
    /// `http3-post-connect-failure`: what cannot happen to the versions that are spoken.
    pub const HTTP3_POST_CONNECT_FAILURE: Self = Self(1 << 15);

    const NAMES: [(&'static str, Self); 16] = [
        ("5xx", Self::FIVE_XX),
        ("gateway-error", Self::GATEWAY_ERROR),
        ("reset", Self::RESET),
        ("reset-before-request", Self::RESET_BEFORE_REQUEST),
        ("connect-failure", Self::CONNECT_FAILURE),
        ("retriable-4xx", Self::RETRIABLE_4XX),
        ("refused-stream", Self::REFUSED_STREAM),
        ("retriable-status-codes", Self::STATUS_CODES),
        ("envoy-ratelimited", Self::ENVOY_RATELIMITED),
        ("cancelled", Self::GRPC_CANCELLED),
        ("deadline-exceeded", Self::GRPC_DEADLINE_EXCEEDED),
        ("internal", Self::GRPC_INTERNAL),
        ("resource-exhausted", Self::GRPC_RESOURCE_EXHAUSTED),
        ("unavailable", Self::GRPC_UNAVAILABLE),
        ("retriable-headers", Self::HEADERS),
        ("http3-post-connect-failure", Self::HTTP3_POST_CONNECT_FAILURE),
    ];

    /// Parses a comma-separated `retry_on`. Unknown words come back, so that the caller can refuse them by name
    /// (configuration) or ignore them (a header).
    pub fn parse(text: &str) -> (Self, Vec<&str>) {
        let mut set = Self::default();
        let mut unknown = Vec::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match Self::NAMES.iter().find(|(name, _)| *name == word) {
                Some((_, flag)) => set = set | *flag,
                None => unknown.push(word),
            }
        }
        (set, unknown)
    }

    /// Has any of `other`.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Nothing at all.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::ops::BitOr for RetryOn {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_on_words() {
        let (on, unknown) = RetryOn::parse("5xx, connect-failure,made-up");
        assert!(on.intersects(RetryOn::FIVE_XX) && on.intersects(RetryOn::CONNECT_FAILURE));
        assert!(!on.intersects(RetryOn::RESET));
        assert_eq!(unknown, ["made-up"]);
    }
}
