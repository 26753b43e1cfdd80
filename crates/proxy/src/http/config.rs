//! The HTTP connection manager's configuration, compiled (`HttpConnectionManager` of Envoy v3).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::filter_manager::FilterChainFactory;
use crate::http::stats::HttpBlocks;
use crate::listener::config::CidrRange;
use crate::route_table::RouteTable;
use crate::stream_info::AccessLoggers;

/// One compiled HTTP connection manager.
#[derive(Debug)]
pub struct HttpConnectionManager {
    /// `http.<stat_prefix>.` names the stats.
    pub stat_prefix: Arc<str>,
    /// Where its statistics are.
    pub stats: HttpBlocks,
    /// Which protocol a connection speaks.
    pub codec: CodecType,
    /// HTTP/1 particulars.
    pub http1: Http1Options,
    /// HTTP/2 particulars.
    pub http2: Http2Options,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Size and count limits.
    pub limits: Limits,
    /// Who the client is.
    pub client_address: ClientAddress,
    /// How paths are made safe.
    pub path: PathNormalization,
    /// `x-request-id`.
    pub request_id: RequestIdOptions,
    /// `x-forwarded-client-cert`.
    pub client_cert: ForwardClientCert,
    /// The `server` response header.
    pub server_header: ServerHeader,
    /// `via` added both ways when not empty.
    pub via: Arc<str>,
    /// Tell upstreams which proxy this is (`add_user_agent`).
    pub user_agent: Option<UserAgent>,
    /// `Host` ports and trailing dots.
    pub host: HostNormalization,
    /// Upgrades that may pass (`websocket`, `CONNECT`); anything else is refused with 403.
    pub upgrades: Vec<UpgradeConfig>,
    /// Pass `100 Continue` from upstream on instead of answering `Expect` ourselves.
    pub proxy_100_continue: bool,
    /// Envoy's `stream_error_on_invalid_http_message`: keep the connection after a message error where the framing is known.
    pub stream_error_on_invalid_message: bool,
    /// Where routes come from; loaded once per new stream.
    pub routes: RouteSource,
    /// HTTP filters before the router, in order; the router ends the chain.
    pub filters: Arc<FilterChainFactory>,
    /// Router options.
    pub router: crate::router::config::RouterOptions,
    /// Called once a stream has ended.
    pub access_loggers: AccessLoggers,
    /// What direction the listener serves, for tracing and Istio's filters.
    pub direction: crate::listener::config::TrafficDirection,
}

impl HttpConnectionManager {
    /// A connection manager with Envoy's defaults.
    pub fn new(stat_prefix: &str, stats: HttpBlocks, routes: RouteSource) -> Self {
        Self {
            stat_prefix: stat_prefix.into(),
            stats,
            codec: CodecType::default(),
            http1: Http1Options::default(),
            http2: Http2Options::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            client_address: ClientAddress::default(),
            path: PathNormalization::default(),
            request_id: RequestIdOptions::default(),
            client_cert: ForwardClientCert::default(),
            server_header: ServerHeader::default(),
            via: "".into(),
            user_agent: None,
            host: HostNormalization::default(),
            upgrades: Vec::new(),
            proxy_100_continue: false,
            stream_error_on_invalid_message: false,
            routes,
            filters: Arc::default(),
            router: crate::router::config::RouterOptions::default(),
            access_loggers: Vec::new(),
            direction: crate::listener::config::TrafficDirection::default(),
        }
    }
}

/// `codec_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CodecType {
    /// By ALPN, then by the first bytes.
    #[default]
    Auto,
    /// HTTP/1.x only.
    Http1,
    /// HTTP/2 only.
    Http2,
}

/// `Http1ProtocolOptions` towards clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http1Options {
    /// Answer HTTP/1.0 (else 426).
    pub accept_http_10: bool,
    /// The `Host` of an HTTP/1.0 request without one.
    pub default_host_for_http_10: Arc<str>,
    /// Absolute-form targets set host and scheme (Envoy: true).
    pub allow_absolute_url: bool,
    /// Pass trailers on; otherwise they are read and dropped.
    pub enable_trailers: bool,
    /// `header_key_format: proper_case_words`.
    pub proper_case_words: bool,
}

impl Default for Http1Options {
    fn default() -> Self {
        Self {
            accept_http_10: false,
            default_host_for_http_10: Arc::from(""),
            allow_absolute_url: true,
            enable_trailers: false,
            proper_case_words: false,
        }
    }
}

/// `Http2ProtocolOptions` of one side of a proxy, towards clients or towards hosts. The defaults are Envoy's, but for the
/// windows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Http2Options {
    /// `SETTINGS_HEADER_TABLE_SIZE`, and the most that our encoder uses of the peer's, in bytes (4096).
    pub hpack_table_size: u32,
    /// Most streams at a time on one connection: what the peer is allowed, or what we open (1024).
    pub max_concurrent_streams: u32,
    /// A stream's receive window, in bytes, from the first byte on. `None`: 64 KiB, growing only while the other side
    /// drains (Envoy: 16 MiB).
    pub initial_stream_window_size: Option<u32>,
    /// The connection's receive window, likewise (Envoy: 24 MiB).
    pub initial_connection_window_size: Option<u32>,
    /// Take extended CONNECT (RFC 8441) from clients.
    pub allow_connect: bool,
    /// Most frames of all kinds that wait to be written (10 000).
    pub max_outbound_frames: u32,
    /// Most PING, SETTINGS and RST_STREAM frames among them (1000).
    pub max_outbound_control_frames: u32,
    /// Most frames in a row without payload and without `END_STREAM` (1).
    pub max_consecutive_inbound_frames_with_empty_payload: u32,
    /// Most PRIORITY frames for each stream ever opened (100).
    pub max_inbound_priority_frames_per_stream: u32,
    /// Most WINDOW_UPDATE frames for each DATA frame sent (10).
    pub max_inbound_window_update_frames_per_data_frame_sent: u32,
    /// A malformed message ends its stream alone, not the connection; where this is `None` the connection manager's
    /// `stream_error_on_invalid_message` decides.
    pub stream_error_on_invalid_message: Option<bool>,
    /// PINGs that find dead connections.
    pub keepalive: Option<Http2Keepalive>,
    /// Encode header strings by Huffman's code where that is shorter (true).
    pub huffman: bool,
    /// RST_STREAM frames that a client may send at once (1000).
    pub stream_reset_burst: u64,
    /// And how many a second it may send after those (33).
    pub stream_reset_rate: u64,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            hpack_table_size: 4096,
            max_concurrent_streams: 1024,
            initial_stream_window_size: None,
            initial_connection_window_size: None,
            allow_connect: false,
            max_outbound_frames: 10_000,
            max_outbound_control_frames: 1_000,
            max_consecutive_inbound_frames_with_empty_payload: 1,
            max_inbound_priority_frames_per_stream: 100,
            max_inbound_window_update_frames_per_data_frame_sent: 10,
            stream_error_on_invalid_message: None,
            keepalive: None,
            huffman: true,
            stream_reset_burst: 1_000,
            stream_reset_rate: 33,
        }
    }
}

/// `connection_keepalive`: PINGs, and what their absence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Http2Keepalive {
    /// Between PINGs; `None` sends none by the clock.
    pub interval: Option<Duration>,
    /// Without any frame from the peer for so long after a PING the connection is dead.
    pub timeout: Duration,
    /// Up to so many percent of the interval are added to it, at random (15).
    pub jitter_percent: u8,
    /// A connection that was silent for so long is sent a PING ahead of its next stream.
    pub idle_interval: Option<Duration>,
}

/// Time limits; `None` is no limit. The defaults are Envoy's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// A connection without streams (1 h).
    pub idle: Option<Duration>,
    /// A connection's life, then it drains.
    pub max_connection_duration: Option<Duration>,
    /// A stream's whole life.
    pub max_stream_duration: Option<Duration>,
    /// A stream without any activity (5 min).
    pub stream_idle: Option<Duration>,
    /// From the first byte to the last of a request.
    pub request: Option<Duration>,
    /// From the first byte of a request to the end of its head.
    pub request_headers: Option<Duration>,
    /// Between the drain notice and the close (5 s).
    pub drain: Duration,
    /// How long a closing connection waits for the peer's FIN (1 s); zero closes at once after the flush.
    pub delayed_close: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: Some(Duration::from_secs(3600)),
            max_connection_duration: None,
            max_stream_duration: None,
            stream_idle: Some(Duration::from_secs(300)),
            request: None,
            request_headers: None,
            drain: Duration::from_secs(5),
            delayed_close: Duration::from_secs(1),
        }
    }
}

/// Size and count limits. The defaults are Envoy's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest request head, in KiB (60).
    pub max_request_headers_kb: u32,
    /// Most request header fields (100).
    pub max_headers_count: u32,
    /// Most requests per connection; then it is closed.
    pub max_requests_per_connection: Option<u32>,
    /// What happens to header names with `_`.
    pub headers_with_underscores: UnderscoreAction,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_request_headers_kb: 60,
            max_headers_count: 100,
            max_requests_per_connection: None,
            headers_with_underscores: UnderscoreAction::Allow,
        }
    }
}

/// `headers_with_underscores_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnderscoreAction {
    /// Pass.
    #[default]
    Allow,
    /// Answer 400.
    RejectRequest,
    /// Remove the field.
    DropHeader,
}

/// How the client's address is found and told.
#[derive(Debug, Clone, Default)]
pub struct ClientAddress {
    /// The connection's address is the client's (edge proxies).
    pub use_remote_address: bool,
    /// How many `x-forwarded-for` entries from the right are trusted proxies.
    pub xff_num_trusted_hops: u32,
    /// Do not append to `x-forwarded-for`.
    pub skip_xff_append: bool,
    /// Set `x-forwarded-port`.
    pub append_x_forwarded_port: bool,
    /// Addresses that count as internal (Envoy's default since 1.33: none but what is listed).
    pub internal_ranges: Vec<CidrRange>,
    /// Unix-socket peers count as internal.
    pub unix_sockets_internal: bool,
    /// `scheme_header_transformation.scheme_to_overwrite`.
    pub scheme_overwrite: Option<Arc<str>>,
}

impl ClientAddress {
    /// Is this address internal?
    pub fn is_internal(&self, address: IpAddr) -> bool {
        self.internal_ranges.iter().any(|range| range.contains(address))
    }
}

/// Path safety.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathNormalization {
    /// RFC 3986 dot segments and percent-encoding.
    pub normalize_path: bool,
    /// `//` becomes `/`.
    pub merge_slashes: bool,
    /// `%2F`, `%5C`.
    pub escaped_slashes: EscapedSlashesAction,
}

/// `path_with_escaped_slashes_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EscapedSlashesAction {
    /// Leave them.
    #[default]
    KeepUnchanged,
    /// Answer 400.
    RejectRequest,
    /// 307 to the unescaped path.
    UnescapeAndRedirect,
    /// Unescape and go on.
    UnescapeAndForward,
}

/// `x-request-id` handling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestIdOptions {
    /// Make one where there is none (Envoy: true).
    pub generate: bool,
    /// Keep the one of an edge client.
    pub preserve_external: bool,
    /// Set it on every response.
    pub always_set_in_response: bool,
    /// Pack the trace reason into the UUID's version nibble (Envoy: true).
    pub pack_trace_reason: bool,
}

impl Default for RequestIdOptions {
    fn default() -> Self {
        Self {
            generate: true,
            preserve_external: false,
            always_set_in_response: false,
            pack_trace_reason: true,
        }
    }
}

/// `forward_client_cert_details`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ForwardClientCertDetails {
    /// Remove the header.
    #[default]
    Sanitize,
    /// Pass it on mTLS connections only.
    ForwardOnly,
    /// Append ours on mTLS connections.
    AppendForward,
    /// Replace it on mTLS connections.
    SanitizeSet,
    /// Always pass it.
    AlwaysForwardOnly,
}

/// `x-forwarded-client-cert`: what is done and what it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForwardClientCert {
    /// What is done.
    pub details: ForwardClientCertDetails,
    /// Include `Subject`.
    pub subject: bool,
    /// Include `Cert`.
    pub cert: bool,
    /// Include `Chain`.
    pub chain: bool,
    /// Include `DNS`.
    pub dns: bool,
    /// Include `URI`.
    pub uri: bool,
}

/// `server_header_transformation` with the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerHeader {
    /// Replace it.
    Overwrite(Arc<str>),
    /// Add it where there is none.
    AppendIfAbsent(Arc<str>),
    /// Leave the upstream's.
    PassThrough,
}

impl Default for ServerHeader {
    fn default() -> Self {
        Self::Overwrite(Arc::from("envoy"))
    }
}

/// Which proxy this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserAgent {
    /// `node.cluster`.
    pub cluster: Arc<str>,
    /// `node.id`.
    pub node: Arc<str>,
}

/// What is cut from `Host` before routing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostNormalization {
    /// Cut the port when it is the listener's.
    pub strip_matching_port: bool,
    /// Cut any port.
    pub strip_any_port: bool,
    /// Cut a trailing dot.
    pub strip_trailing_dot: bool,
}

/// One upgrade that may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeConfig {
    /// `websocket`, `CONNECT`, ...: compared ignoring case.
    pub upgrade_type: Arc<str>,
    /// Allowed where the route says nothing.
    pub enabled: bool,
}

/// Where a connection manager's routes come from.
#[derive(Debug, Clone)]
pub enum RouteSource {
    /// In its own configuration.
    Inline(Arc<RouteTable>),
    /// By slot of the worker's view: route discovery fills it; while it is empty requests get 404 (NR).
    Slot(RouteTableRef),
}

/// A route table by slot, as [`crate::upstream::config::ClusterRef`] is for clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteTableRef {
    /// Index into the view's tables.
    pub slot: u32,
    /// Must equal the slot's.
    pub generation: u32,
}
