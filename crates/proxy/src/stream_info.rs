//! Step 17: what happened to a stream. Filters read and write it; access loggers read it at the end.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use codec::headers::{Fields, RequestHead, ResponseHead, Version};
use telemetry::stats::sets::HandshakeOutcome;

use crate::route_table::RouteMatch;
use crate::upstream::cluster::Cluster;
use crate::upstream::config::UpstreamProtocol;
use crate::upstream::host::Host;

/// `core.v3.Metadata.filter_metadata` by namespace; `None` when empty.
pub type Metadata = Option<Arc<serde_json::Map<String, serde_json::Value>>>;

/// Loggers called when a stream (or an L4 connection) has ended, in order.
pub type AccessLoggers = Vec<Arc<dyn AccessLogger>>;

/// Something that wants to know how streams ended. Called on worker threads: it must not block.
pub trait AccessLogger: Send + Sync + fmt::Debug {
    /// One stream has ended.
    fn log(&self, record: &LogRecord<'_>);

    /// An L4 connection has its upstream; its end will come to `log`.
    fn opened(&self, _record: &LogRecord<'_>) {}
}

/// Protocols offered by ALPN, the dearest first.
pub type AlpnList = Arc<[Vec<u8>]>;

/// In a stream's filter state: the ALPN protocols to offer upstream instead of the cluster's own, by the protocol that
/// will be spoken there; `None` leaves the cluster's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpstreamAlpn {
    http10: Option<AlpnList>,
    http11: Option<AlpnList>,
    http2: Option<AlpnList>,
    /// Where the handshake decides.
    either: Option<AlpnList>,
}

impl UpstreamAlpn {
    /// What to offer for each version.
    pub fn new(
        http10: Option<AlpnList>,
        http11: Option<AlpnList>,
        http2: Option<AlpnList>,
    ) -> Self {
        let either = match (&http2, &http11) {
            (Some(dearest), Some(others)) => {
                let more = others.iter().filter(|name| !dearest.contains(name));
                Some(dearest.iter().chain(more).cloned().collect())
            }
            _ => None,
        };
        Self { http10, http11, http2, either }
    }

    /// What to offer to a host of that cluster; clusters can opt out by `istio.alpn_override: "false"` in their metadata.
    /// A tunnel's bytes may be anything, so nothing is promised of them.
    pub fn for_cluster(&self, protocol: UpstreamProtocol, cluster: &Cluster) -> Option<&AlpnList> {
        let metadata = cluster.config.metadata.as_ref();
        let choice = metadata.and_then(|map| map.get("istio")?.get("alpn_override")?.as_str());
        if choice == Some("false") {
            return None;
        }
        match (protocol, protocol.version()) {
            (UpstreamProtocol::Auto, _) => self.either.as_ref(),
            (_, Some(Version::Http10)) => self.http10.as_ref(),
            (_, Some(Version::Http11)) => self.http11.as_ref(),
            (_, Some(Version::Http2)) => self.http2.as_ref(),
            (_, None) => None,
        }
    }
}

/// All that can be said of an ended stream.
#[derive(Debug)]
pub struct LogRecord<'a> {
    /// The worker that calls, from 0: a logger may keep one buffer a worker.
    pub worker: usize,
    /// Now, in monotonic nanoseconds of the worker's clock.
    pub now_ns: u64,
    /// What happened.
    pub info: &'a StreamInfo,
    /// The request as it was sent on (L4 and early errors have none).
    pub request: Option<&'a RequestHead>,
    /// The response as it was sent on.
    pub response: Option<&'a ResponseHead>,
    /// Response trailers.
    pub response_trailers: Option<&'a Fields>,
}

/// What happened to one stream. Times are nanoseconds of the worker's monotonic clock; 0 is "did not happen".
#[derive(Debug, Default)]
pub struct StreamInfo {
    /// The stream's number, unique in this process.
    pub stream_id: u64,
    /// Wall-clock start, nanoseconds since the Unix epoch.
    pub start_wall_ns: u64,
    /// When what happened.
    pub timings: Timings,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
    /// Body bytes to upstream, and from it, of the last attempt.
    pub upstream_bytes_sent: u64,
    /// See `upstream_bytes_sent`.
    pub upstream_bytes_received: u64,
    /// Bytes of the request head as received.
    pub request_header_bytes: u32,
    /// Bytes of the response head as sent.
    pub response_header_bytes: u32,
    /// The protocol of the request; `None` for L4.
    pub protocol: Option<Version>,
    /// The protocol of the upstream connection.
    pub upstream_protocol: Option<Version>,
    /// The status sent; 0 when none was.
    pub response_code: u16,
    /// Envoy's `%RESPONSE_CODE_DETAILS%`.
    pub response_code_details: &'static str,
    /// Why a connection was ended, if it says (`%CONNECTION_TERMINATION_DETAILS%`).
    pub connection_termination_details: &'static str,
    /// What TLS or TCP to upstream failed with (`%UPSTREAM_TRANSPORT_FAILURE_REASON%`).
    pub upstream_transport_failure_reason: Option<Box<str>>,
    /// What went wrong.
    pub flags: ResponseFlags,
    /// Attempts made upstream.
    pub attempt_count: u32,
    /// The route taken.
    pub route: Option<RouteMatch>,
    /// The cluster chosen.
    pub cluster: Option<Arc<Cluster>>,
    /// The last host tried.
    pub upstream_host: Option<Arc<Host>>,
    /// The last upstream connection.
    pub upstream_connection: Option<Rc<ConnectionInfo>>,
    /// The downstream connection.
    pub connection: Option<Rc<ConnectionInfo>>,
    /// The client's address as found from `x-forwarded-for`, if that is not the connection's.
    pub remote_address: Option<SocketAddr>,
    /// Objects that filters leave for each other and for loggers.
    pub filter_state: FilterState,
    /// `%DYNAMIC_METADATA%`, by namespace.
    pub dynamic_metadata: Vec<(&'static str, serde_json::Value)>,
}

/// Moments of a stream, in nanoseconds of the worker's clock; 0 is "not yet".
#[derive(Debug, Default, Clone, Copy)]
pub struct Timings {
    /// First byte of the request.
    pub start_ns: u64,
    /// Last byte of the request.
    pub request_end_ns: u64,
    /// First byte to upstream (last attempt).
    pub upstream_first_tx_ns: u64,
    /// Last byte to upstream.
    pub upstream_last_tx_ns: u64,
    /// First byte from upstream.
    pub upstream_first_rx_ns: u64,
    /// Last byte from upstream.
    pub upstream_last_rx_ns: u64,
    /// First byte to the client.
    pub downstream_first_tx_ns: u64,
    /// Last byte to the client, or the end.
    pub end_ns: u64,
}

impl StreamInfo {
    /// The client's address: from `x-forwarded-for` where that is trusted, else the connection's.
    pub fn client_address(&self) -> Option<SocketAddr> {
        self.remote_address.or_else(|| self.connection.as_ref()?.remote_address)
    }

    /// Starts over, keeping memory.
    pub fn clear(&mut self) {
        let mut filter_state = std::mem::take(&mut self.filter_state);
        filter_state.clear();
        let mut dynamic_metadata = std::mem::take(&mut self.dynamic_metadata);
        dynamic_metadata.clear();
        *self = Self { filter_state, dynamic_metadata, ..Self::default() };
    }
}

/// What is known of a connection, downstream or upstream. It does not change after the handshake.
#[derive(Debug, Default)]
pub struct ConnectionInfo {
    /// The connection's number, unique in this process.
    pub id: u64,
    /// The peer, as far as it is known (original_src or the PROXY protocol may have changed it).
    pub remote_address: Option<SocketAddr>,
    /// The peer of the socket itself.
    pub direct_remote_address: Option<SocketAddr>,
    /// Our end.
    pub local_address: Option<SocketAddr>,
    /// The SNI the client asked for (downstream) or we asked for (upstream).
    pub requested_server_name: Option<Arc<str>>,
    /// What TLS found out; `None` on plaintext.
    pub tls: Option<Arc<TlsInfo>>,
    /// The listener (downstream only).
    pub listener_name: Arc<str>,
    /// The filter chain (downstream only).
    pub filter_chain_name: Arc<str>,
    /// When it began, in the worker's nanoseconds.
    pub start_ns: u64,
    /// When its TLS handshake was done; 0 without.
    pub handshake_done_ns: u64,
    /// What filters keep for the life of the connection.
    pub state: RefCell<FilterState>,
}

/// What a TLS handshake came to.
#[derive(Debug, Default, Clone)]
pub struct TlsInfo {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// The cipher suite's OpenSSL name, as Envoy prints it.
    pub cipher: &'static str,
    /// The key exchange group's name, as Envoy prints it; empty for one that it does not have.
    pub curve: &'static str,
    /// The protocol that ALPN agreed on; empty for none.
    pub alpn: Box<[u8]>,
    /// The session was resumed.
    pub resumed: bool,
    /// The peer's certificate, if it presented one.
    pub peer: Option<CertificateInfo>,
    /// Ours.
    pub local: Option<Arc<CertificateInfo>>,
    /// The peer's chain in DER, leaf first.
    pub peer_chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    /// The peer's certificate was verified against the validation context.
    pub peer_validated: bool,
}

impl TlsInfo {
    /// As statistics count it.
    pub fn outcome(&self) -> HandshakeOutcome<'_> {
        HandshakeOutcome {
            version: self.version,
            cipher: self.cipher,
            curve: self.curve,
            resumed: self.resumed,
            has_peer_certificate: self.peer.is_some(),
        }
    }
}

/// What a certificate says.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// RFC 2253 subject.
    pub subject: String,
    /// RFC 2253 issuer.
    pub issuer: String,
    /// Serial number in hex.
    pub serial: String,
    /// SHA-256 of the DER in hex.
    pub fingerprint_256: String,
    /// URI SANs: SPIFFE ids.
    pub uri_sans: Vec<String>,
    /// DNS SANs.
    pub dns_sans: Vec<String>,
    /// IP SANs.
    pub ip_sans: Vec<std::net::IpAddr>,
    /// Email SANs.
    pub email_sans: Vec<String>,
    /// Seconds since the epoch.
    pub not_before: i64,
    /// Seconds since the epoch.
    pub not_after: i64,
}

/// Objects by type: at most one of each.
#[derive(Default)]
pub struct FilterState {
    entries: Vec<(TypeId, Rc<dyn Any>)>,
}

impl FilterState {
    /// Puts an object, over the one of the same type.
    pub fn set<T: 'static>(&mut self, value: T) {
        self.set_shared(Rc::new(value));
    }

    /// Puts an object that others hold too.
    pub fn set_shared<T: 'static>(&mut self, value: Rc<T>) {
        let id = TypeId::of::<T>();
        match self.entries.iter_mut().find(|(key, _)| *key == id) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((id, value)),
        }
    }

    /// The object of this type.
    pub fn get<T: 'static>(&self) -> Option<&T> {
        let id = TypeId::of::<T>();
        self.entries.iter().find(|(key, _)| *key == id)?.1.downcast_ref()
    }

    /// The object of this type, to keep.
    pub fn get_shared<T: 'static>(&self) -> Option<Rc<T>> {
        let id = TypeId::of::<T>();
        let (_, value) = self.entries.iter().find(|(key, _)| *key == id)?;
        Rc::downcast(Rc::clone(value)).ok()
    }

    /// Drops every object.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

impl fmt::Debug for FilterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilterState({} objects)", self.entries.len())
    }
}

/// Envoy's response flags, a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseFlags(u64);

macro_rules! response_flags {
    ($($constant:ident = $bit:literal, $short:literal, $long:literal;)*) => {
        impl ResponseFlags {
            $(
                #[doc = concat!("`", $short, "`: ", $long)]
                pub const $constant: Self = Self(1 << $bit);
            )*

            /// `(flag, short name, long name)`, in the order in which Envoy prints them.
            pub const ALL: &'static [(Self, &'static str, &'static str)] = &[$((Self::$constant, $short, $long),)*];
        }
    };
}

response_flags! {
    FAILED_LOCAL_HEALTH_CHECK = 0, "LH", "FailedLocalHealthCheck";
    NO_HEALTHY_UPSTREAM = 1, "UH", "NoHealthyUpstream";
    UPSTREAM_REQUEST_TIMEOUT = 2, "UT", "UpstreamRequestTimeout";
    LOCAL_RESET = 3, "LR", "LocalReset";
    UPSTREAM_REMOTE_RESET = 4, "UR", "UpstreamRemoteReset";
    UPSTREAM_CONNECTION_FAILURE = 5, "UF", "UpstreamConnectionFailure";
    UPSTREAM_CONNECTION_TERMINATION = 6, "UC", "UpstreamConnectionTermination";
    UPSTREAM_OVERFLOW = 7, "UO", "UpstreamOverflow";
    NO_ROUTE_FOUND = 8, "NR", "NoRouteFound";
    DELAY_INJECTED = 9, "DI", "DelayInjected";
    FAULT_INJECTED = 10, "FI", "FaultInjected";
    RATE_LIMITED = 11, "RL", "RateLimited";
    UNAUTHORIZED_EXTERNAL_SERVICE = 12, "UAEX", "UnauthorizedExternalService";
    RATE_LIMIT_SERVICE_ERROR = 13, "RLSE", "RateLimitServiceError";
    DOWNSTREAM_CONNECTION_TERMINATION = 14, "DC", "DownstreamConnectionTermination";
    UPSTREAM_RETRY_LIMIT_EXCEEDED = 15, "URX", "UpstreamRetryLimitExceeded";
    STREAM_IDLE_TIMEOUT = 16, "SI", "StreamIdleTimeout";
    INVALID_ENVOY_REQUEST_HEADERS = 17, "IH", "InvalidEnvoyRequestHeaders";
    DOWNSTREAM_PROTOCOL_ERROR = 18, "DPE", "DownstreamProtocolError";
    UPSTREAM_MAX_STREAM_DURATION_REACHED = 19, "UMSDR", "UpstreamMaxStreamDurationReached";
    RESPONSE_FROM_CACHE_FILTER = 20, "RFCF", "ResponseFromCacheFilter";
    NO_FILTER_CONFIG_FOUND = 21, "NFCF", "NoFilterConfigFound";
    DURATION_TIMEOUT = 22, "DT", "DurationTimeout";
    UPSTREAM_PROTOCOL_ERROR = 23, "UPE", "UpstreamProtocolError";
    NO_CLUSTER_FOUND = 24, "NC", "NoClusterFound";
    OVERLOAD_MANAGER = 25, "OM", "OverloadManagerTerminated";
    DNS_RESOLUTION_FAILURE = 26, "DF", "DnsResolutionFailed";
    DROP_OVERLOAD = 27, "DO", "DropOverload";
    DOWNSTREAM_REMOTE_RESET = 28, "DR", "DownstreamRemoteReset";
    UNCONDITIONAL_DROP_OVERLOAD = 29, "UDO", "UnconditionalDropOverload";
}

impl ResponseFlags {
    /// Adds flags.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Has any of `other`.
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// None is set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (_, short, _) in Self::ALL.iter().filter(|(flag, _, _)| self.intersects(*flag)) {
            if !std::mem::take(&mut first) {
                f.write_str(",")?;
            }
            f.write_str(short)?;
        }
        if first { f.write_str("-") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_as_envoy_does() {
        let mut flags = ResponseFlags::default();
        assert_eq!(flags.to_string(), "-");
        flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
        flags.insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        assert_eq!(flags.to_string(), "UF,URX");
    }

    #[test]
    fn filter_state_is_by_type() {
        let mut state = FilterState::default();
        state.set(7_u32);
        state.set("x");
        state.set(8_u32);
        assert_eq!(state.get::<u32>(), Some(&8));
        assert_eq!(state.get::<&str>(), Some(&"x"));
        assert_eq!(state.get::<u64>(), None);
    }
}
