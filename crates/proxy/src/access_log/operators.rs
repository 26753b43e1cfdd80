//! The operators: one row each in [`ROWS`]. What Envoy has beyond them is in [`UNSUPPORTED`] with the reason.

mod arguments;
mod read;

use arguments::{Argument, Arguments};
pub use read::grpc_number;
pub(super) use read::log_type;
use read::*;

use super::format::{Command, Environment, FormatError};
use super::output::Output;
use super::time::Moment;
use crate::stream_info::LogRecord;

/// Envoy's default access-log format.
pub const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
\"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// Writes a value; `None` when the stream has none.
type Write = fn(&LogRecord<'_>, &Argument, &mut Output<'_>) -> Option<()>;

/// One operator of the language.
struct Row {
    name: &'static str,
    arguments: Arguments,
    write: Write,
}

const fn row(name: &'static str, arguments: Arguments, write: Write) -> Row {
    Row { name, arguments, write }
}

use Arguments::{
    Bare, CommonDuration, GrpcForm, Headers, Keys, Mask, PathForm, QueryForm, ServerName, Text,
    Time, Typed,
};

const ROWS: &[Row] = &[
    // Time.
    row("START_TIME", Time, |r, a, out| time(a, Moment::utc(r.info.start_wall_ns), out)),
    row("START_TIME_LOCAL", Time, |r, a, out| local_time(a, r.info.start_wall_ns, out)),
    row("EMIT_TIME", Time, |r, a, out| time(a, Moment::utc(now_wall(r)), out)),
    row("EMIT_TIME_LOCAL", Time, |r, a, out| local_time(a, now_wall(r), out)),
    row("DURATION", Bare, |r, _, out| millis(start(r)?, end(r)?, out)),
    row("REQUEST_DURATION", Bare, |r, _, out| {
        millis(start(r)?, at(r.info.timings.request_end_ns)?, out)
    }),
    row("REQUEST_TX_DURATION", Bare, |r, _, out| {
        millis(start(r)?, at(r.info.timings.upstream_last_tx_ns)?, out)
    }),
    row("RESPONSE_DURATION", Bare, |r, _, out| {
        millis(start(r)?, at(r.info.timings.upstream_first_rx_ns)?, out)
    }),
    row("RESPONSE_TX_DURATION", Bare, |r, _, out| {
        millis(at(r.info.timings.upstream_first_rx_ns)?, end(r)?, out)
    }),
    row("COMMON_DURATION", CommonDuration, common_duration),
    row("DOWNSTREAM_HANDSHAKE_DURATION", Bare, |r, _, out| {
        millis(downstream(r)?.start_ns, at(downstream(r)?.handshake_done_ns)?, out)
    }),
    // Sizes.
    row("BYTES_RECEIVED", Bare, |r, _, out| number(r.info.bytes_received, out)),
    row("BYTES_SENT", Bare, |r, _, out| number(r.info.bytes_sent, out)),
    row("REQUEST_HEADERS_BYTES", Bare, |r, _, out| number(r.info.request_header_bytes.into(), out)),
    row("RESPONSE_HEADERS_BYTES", Bare, |r, _, out| {
        number(r.info.response_header_bytes.into(), out)
    }),
    row("RESPONSE_TRAILERS_BYTES", Bare, |r, _, out| {
        number(r.response_trailers.map_or(0, |trailers| trailers.byte_size() as u64), out)
    }),
    // Result.
    row("RESPONSE_CODE", Bare, |r, _, out| number(r.info.response_code.into(), out)),
    row("RESPONSE_CODE_DETAILS", Bare, |r, _, out| underscored(r.info.response_code_details, out)),
    row("RESPONSE_FLAGS", Bare, |r, _, out| display(r.info.flags, out)),
    row("RESPONSE_FLAGS_LONG", Bare, |r, _, out| long_flags(r.info.flags, out)),
    row("CONNECTION_TERMINATION_DETAILS", Bare, |r, _, out| {
        underscored(r.info.connection_termination_details, out)
    }),
    row("UPSTREAM_TRANSPORT_FAILURE_REASON", Bare, |r, _, out| {
        underscored(r.info.upstream_transport_failure_reason.as_deref()?, out)
    }),
    row("GRPC_STATUS", GrpcForm, grpc_status),
    row("GRPC_STATUS_NUMBER", Bare, |r, _, out| number(grpc_number(r)?, out)),
    row("ACCESS_LOG_TYPE", Bare, |r, _, out| text(log_type(r), out)),
    // Route and cluster.
    row("PROTOCOL", Bare, |r, _, out| text(r.info.protocol?.as_str(), out)),
    row("UPSTREAM_PROTOCOL", Bare, |r, _, out| text(r.info.upstream_protocol?.as_str(), out)),
    row("ROUTE_NAME", Bare, |r, _, out| text(r.info.route.as_ref()?.name(), out)),
    row("FILTER_CHAIN_NAME", Bare, |r, _, out| text(&downstream(r)?.filter_chain_name, out)),
    row("LISTENER_NAME", Bare, |r, _, out| text(&downstream(r)?.listener_name, out)),
    row("UPSTREAM_CLUSTER", Bare, |r, _, out| {
        text(&r.info.cluster.as_ref()?.config.stat_name, out)
    }),
    row("UPSTREAM_CLUSTER_RAW", Bare, |r, _, out| text(&r.info.cluster.as_ref()?.config.name, out)),
    row("UPSTREAM_HOST", Bare, |r, _, out| text(&host(r)?.address_text, out)),
    row("UPSTREAM_HOST_NAME", Bare, |r, _, out| host_name(r, true, out)),
    row("UPSTREAM_HOST_NAME_WITHOUT_PORT", Bare, |r, _, out| host_name(r, false, out)),
    row("UPSTREAM_REQUEST_ATTEMPT_COUNT", Bare, |r, _, out| {
        number(r.info.attempt_count.into(), out)
    }),
    // Addresses.
    row("UPSTREAM_LOCAL_ADDRESS", Bare, |r, _, out| socket(upstream(r)?.local_address?, out)),
    row("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Mask, |r, a, out| {
        address(upstream(r)?.local_address?, a, out)
    }),
    row("UPSTREAM_LOCAL_PORT", Bare, |r, _, out| port(upstream(r)?.local_address?, out)),
    row("UPSTREAM_REMOTE_ADDRESS", Bare, |r, _, out| text(&host(r)?.address_text, out)),
    row("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Mask, |r, a, out| address(host_socket(r)?, a, out)),
    row("UPSTREAM_REMOTE_PORT", Bare, |r, _, out| port(host_socket(r)?, out)),
    row("UPSTREAM_CONNECTION_ID", Bare, |r, _, out| number(upstream(r).map_or(0, |c| c.id), out)),
    row("DOWNSTREAM_REMOTE_ADDRESS", Bare, |r, _, out| socket(r.info.client_address()?, out)),
    row("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Mask, |r, a, out| {
        address(r.info.client_address()?, a, out)
    }),
    row("DOWNSTREAM_REMOTE_PORT", Bare, |r, _, out| port(r.info.client_address()?, out)),
    row("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Bare, |r, _, out| socket(direct_remote(r)?, out)),
    row("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", Mask, |r, a, out| {
        address(direct_remote(r)?, a, out)
    }),
    row("DOWNSTREAM_DIRECT_REMOTE_PORT", Bare, |r, _, out| port(direct_remote(r)?, out)),
    row("DOWNSTREAM_LOCAL_ADDRESS", Bare, |r, _, out| socket(downstream(r)?.local_address?, out)),
    row("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Mask, |r, a, out| {
        address(downstream(r)?.local_address?, a, out)
    }),
    row("DOWNSTREAM_LOCAL_PORT", Bare, |r, _, out| port(downstream(r)?.local_address?, out)),
    // The local address is never restored from anything, so the direct one is the same.
    row("DOWNSTREAM_DIRECT_LOCAL_ADDRESS", Bare, |r, _, out| {
        socket(downstream(r)?.local_address?, out)
    }),
    row("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT", Mask, |r, a, out| {
        address(downstream(r)?.local_address?, a, out)
    }),
    row("DOWNSTREAM_DIRECT_LOCAL_PORT", Bare, |r, _, out| port(downstream(r)?.local_address?, out)),
    row("CONNECTION_ID", Bare, |r, _, out| number(downstream(r).map_or(0, |c| c.id), out)),
    // TLS with the client.
    row("REQUESTED_SERVER_NAME", ServerName, server_name),
    row("DOWNSTREAM_TLS_VERSION", Bare, |r, _, out| text(tls(r)?.version, out)),
    row("DOWNSTREAM_TLS_CIPHER", Bare, |r, _, out| text(tls(r)?.cipher, out)),
    row("DOWNSTREAM_TLS_GROUP", Bare, |r, _, out| text(tls(r)?.curve, out)),
    row("DOWNSTREAM_PEER_URI_SAN", Bare, |r, _, out| list(&peer(r)?.uri_sans, out)),
    row("DOWNSTREAM_PEER_DNS_SAN", Bare, |r, _, out| list(&peer(r)?.dns_sans, out)),
    row("DOWNSTREAM_PEER_IP_SAN", Bare, |r, _, out| list(&peer(r)?.ip_sans, out)),
    row("DOWNSTREAM_PEER_EMAIL_SAN", Bare, |r, _, out| list(&peer(r)?.email_sans, out)),
    row("DOWNSTREAM_PEER_SUBJECT", Bare, |r, _, out| text(&peer(r)?.subject, out)),
    row("DOWNSTREAM_PEER_ISSUER", Bare, |r, _, out| text(&peer(r)?.issuer, out)),
    row("DOWNSTREAM_PEER_SERIAL", Bare, |r, _, out| text(&peer(r)?.serial, out)),
    row("DOWNSTREAM_PEER_FINGERPRINT_256", Bare, |r, _, out| text(&peer(r)?.fingerprint_256, out)),
    row("DOWNSTREAM_PEER_FINGERPRINT_1", Bare, |r, _, out| text(&chain(tls(r)?).next()?.sha1, out)),
    row("DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1", Bare, |r, _, out| {
        list(&chain(tls(r)?).map(|it| it.sha1).collect::<Vec<_>>(), out)
    }),
    row("DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256", Bare, |r, _, out| {
        list(&chain(tls(r)?).map(|it| it.sha256).collect::<Vec<_>>(), out)
    }),
    row("DOWNSTREAM_PEER_CHAIN_SERIALS", Bare, |r, _, out| {
        list(&chain(tls(r)?).map(|it| it.serial).collect::<Vec<_>>(), out)
    }),
    row("DOWNSTREAM_PEER_CERT", Bare, |r, _, out| certificate(tls(r)?, out)),
    row("DOWNSTREAM_PEER_CERT_V_START", Time, |r, a, out| {
        time(a, seconds(peer(r)?.not_before), out)
    }),
    row("DOWNSTREAM_PEER_CERT_V_END", Time, |r, a, out| time(a, seconds(peer(r)?.not_after), out)),
    row("DOWNSTREAM_LOCAL_URI_SAN", Bare, |r, _, out| list(&local(r)?.uri_sans, out)),
    row("DOWNSTREAM_LOCAL_DNS_SAN", Bare, |r, _, out| list(&local(r)?.dns_sans, out)),
    row("DOWNSTREAM_LOCAL_IP_SAN", Bare, |r, _, out| list(&local(r)?.ip_sans, out)),
    row("DOWNSTREAM_LOCAL_EMAIL_SAN", Bare, |r, _, out| list(&local(r)?.email_sans, out)),
    row("DOWNSTREAM_LOCAL_SUBJECT", Bare, |r, _, out| text(&local(r)?.subject, out)),
    // TLS with the upstream host.
    row("UPSTREAM_SERVER_NAME", Bare, |r, _, out| {
        text(upstream(r)?.requested_server_name.as_deref()?, out)
    }),
    row("UPSTREAM_TLS_VERSION", Bare, |r, _, out| text(upstream_tls(r)?.version, out)),
    row("UPSTREAM_TLS_CIPHER", Bare, |r, _, out| text(upstream_tls(r)?.cipher, out)),
    row("UPSTREAM_TLS_GROUP", Bare, |r, _, out| text(upstream_tls(r)?.curve, out)),
    row("UPSTREAM_PEER_URI_SAN", Bare, |r, _, out| list(&upstream_peer(r)?.uri_sans, out)),
    row("UPSTREAM_PEER_DNS_SAN", Bare, |r, _, out| list(&upstream_peer(r)?.dns_sans, out)),
    row("UPSTREAM_PEER_IP_SAN", Bare, |r, _, out| list(&upstream_peer(r)?.ip_sans, out)),
    row("UPSTREAM_PEER_SUBJECT", Bare, |r, _, out| text(&upstream_peer(r)?.subject, out)),
    row("UPSTREAM_PEER_ISSUER", Bare, |r, _, out| text(&upstream_peer(r)?.issuer, out)),
    row("UPSTREAM_PEER_CERT", Bare, |r, _, out| certificate(upstream_tls(r)?, out)),
    row("UPSTREAM_PEER_CERT_V_START", Time, |r, a, out| {
        time(a, seconds(upstream_peer(r)?.not_before), out)
    }),
    row("UPSTREAM_PEER_CERT_V_END", Time, |r, a, out| {
        time(a, seconds(upstream_peer(r)?.not_after), out)
    }),
    row("UPSTREAM_LOCAL_URI_SAN", Bare, |r, _, out| list(&upstream_local(r)?.uri_sans, out)),
    row("UPSTREAM_LOCAL_DNS_SAN", Bare, |r, _, out| list(&upstream_local(r)?.dns_sans, out)),
    row("UPSTREAM_LOCAL_IP_SAN", Bare, |r, _, out| list(&upstream_local(r)?.ip_sans, out)),
    // Heads, paths, metadata.
    row("REQ", Headers, request_header),
    row("REQUEST_HEADER", Headers, request_header),
    row("RESP", Headers, response_header),
    row("RESPONSE_HEADER", Headers, response_header),
    row("TRAILER", Headers, trailer),
    row("RESPONSE_TRAILER", Headers, trailer),
    row("PATH", PathForm, path),
    row("QUERY_PARAM", Text, query_parameter),
    row("QUERY_PARAMS", QueryForm, query),
    row("DYNAMIC_METADATA", Keys, dynamic_metadata),
    row("CLUSTER_METADATA", Keys, cluster_metadata),
    row("UPSTREAM_METADATA", Keys, host_metadata),
    row("METADATA", Typed, typed_metadata),
    // The process and numbers.
    row("ENVIRONMENT", Arguments::Variable, |_, a, out| text(a.text()?, out)),
    row("HOSTNAME", Arguments::Hostname, |_, a, out| text(a.text()?, out)),
    row("UNIQUE_ID", Bare, |_, _, out| {
        text(uuid::Uuid::new_v4().hyphenated().encode_lower(&mut [0; 36]), out)
    }),
    row("STREAM_ID", Arguments::Instance, stream_id),
];

const NOT_MEASURED: &str = "it is not measured";
const NOT_KEPT: &str = "it is not kept";
const NO_TRACING: &str = "there is no tracing";

/// Envoy's operators that have nothing to say here yet, and why.
pub const UNSUPPORTED: &[(&str, &str)] = &[
    ("ROUNDTRIP_DURATION", "there is no HTTP/3"),
    ("UPSTREAM_CONNECTION_POOL_READY_DURATION", NOT_MEASURED),
    ("DOWNSTREAM_CX_RTT", NOT_MEASURED),
    ("ROUTE_RESOLUTION_COUNT", NOT_MEASURED),
    ("ROUTE_RESOLUTION_TIME_US", NOT_MEASURED),
    ("BYTES_RETRANSMITTED", "there is no HTTP/3"),
    ("PACKETS_RETRANSMITTED", "there is no HTTP/3"),
    ("UPSTREAM_WIRE_BYTES_SENT", NOT_MEASURED),
    ("UPSTREAM_WIRE_BYTES_RECEIVED", NOT_MEASURED),
    ("UPSTREAM_HEADER_BYTES_SENT", NOT_MEASURED),
    ("UPSTREAM_HEADER_BYTES_RECEIVED", NOT_MEASURED),
    ("UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", NOT_MEASURED),
    ("UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", NOT_MEASURED),
    ("DOWNSTREAM_WIRE_BYTES_SENT", NOT_MEASURED),
    ("DOWNSTREAM_WIRE_BYTES_RECEIVED", NOT_MEASURED),
    ("DOWNSTREAM_HEADER_BYTES_SENT", NOT_MEASURED),
    ("DOWNSTREAM_HEADER_BYTES_RECEIVED", NOT_MEASURED),
    ("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", NOT_MEASURED),
    ("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", NOT_MEASURED),
    ("LOCAL_REPLY_BODY", "there is no local_reply_config"),
    ("DOWNSTREAM_TRANSPORT_FAILURE_REASON", "a connection without a handshake is not logged"),
    ("UPSTREAM_DETECTED_CLOSE_TYPE", NOT_KEPT),
    ("DOWNSTREAM_DETECTED_CLOSE_TYPE", NOT_KEPT),
    ("UPSTREAM_LOCAL_CLOSE_REASON", NOT_KEPT),
    ("DOWNSTREAM_LOCAL_CLOSE_REASON", NOT_KEPT),
    ("CUSTOM_FLAGS", "no filter sets any"),
    ("VIRTUAL_CLUSTER_NAME", "there are no virtual clusters"),
    ("UPSTREAM_HOSTS_ATTEMPTED", NOT_KEPT),
    ("UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT", NOT_KEPT),
    ("UPSTREAM_HOST_NAMES_ATTEMPTED", NOT_KEPT),
    ("UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT", NOT_KEPT),
    ("UPSTREAM_CONNECTION_IDS_ATTEMPTED", NOT_KEPT),
    ("UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID", "there are no internal listeners"),
    ("DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID", "there are no internal listeners"),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID", "there are no internal listeners"),
    ("DOWNSTREAM_LOCAL_OTHERNAME_SAN", NOT_KEPT),
    ("DOWNSTREAM_PEER_OTHERNAME_SAN", NOT_KEPT),
    ("DOWNSTREAM_PEER_ISSUER_SERIAL", NOT_KEPT),
    ("DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256", NOT_KEPT),
    ("DOWNSTREAM_TLS_SESSION_ID", NOT_KEPT),
    ("UPSTREAM_TLS_SESSION_ID", NOT_KEPT),
    ("TLS_JA3_FINGERPRINT", NOT_KEPT),
    ("TLS_JA4_FINGERPRINT", NOT_KEPT),
    ("FILTER_STATE", "filter state has no names here"),
    ("UPSTREAM_FILTER_STATE", "filter state has no names here"),
    ("CEL", "there is no expression language"),
    ("TYPED_CEL", "there is no expression language"),
    ("XFCC_VALUE", "x-forwarded-client-cert is not taken apart; use REQ(x-forwarded-client-cert)"),
    ("TRACE_ID", NO_TRACING),
    ("SPAN_ID", NO_TRACING),
    ("REQ_WITHOUT_QUERY", "formatter extensions are not there"),
    ("FILE_CONTENT", "formatter extensions are not there"),
    ("SECRET", "formatter extensions are not there"),
];

/// The names of all operators there are.
pub fn supported_operators() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.name)
}

/// A compiled use of an operator.
#[derive(Clone)]
pub(super) struct Operator {
    row: &'static Row,
    argument: Argument,
    pub limit: Option<usize>,
}

impl Operator {
    /// Writes the value; `false`, and nothing written, when there is none.
    pub fn write(&self, record: &LogRecord<'_>, out: &mut Output<'_>) -> bool {
        (self.row.write)(record, &self.argument, out).is_some()
    }
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "%{}({:?})%", self.row.name, self.argument)
    }
}

/// Finds the row and reads the arguments.
pub(super) fn compile(
    command: &Command<'_>,
    environment: &Environment,
) -> Result<Operator, FormatError> {
    let name = command.name;
    let Some(row) = ROWS.iter().find(|row| row.name == name) else {
        let known = UNSUPPORTED.iter().find(|(unsupported, _)| *unsupported == name);
        return Err(known.map_or_else(
            || FormatError::Unknown(name.to_owned()),
            |(name, why)| FormatError::Unsupported(name, why),
        ));
    };
    let refuse = |why: String| FormatError::Arguments(name.to_owned(), why);
    if command.length.is_some() && !row.arguments.takes_length() {
        return Err(refuse("takes no length".to_owned()));
    }
    let argument = row.arguments.parse(command.arguments, environment).map_err(refuse)?;
    Ok(Operator { row, argument, limit: command.length })
}
