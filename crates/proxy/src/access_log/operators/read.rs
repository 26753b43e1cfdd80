//! How operators read a stream. Everything answers `None` when there is no such value.

use std::fmt::{Display, Write};
use std::net::{IpAddr, SocketAddr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use codec::headers::names;
use serde_json::{Map, Value};

use super::super::output::Output;
use super::super::time::Moment;
use super::arguments::{Argument, GrpcForm, MetadataOf, NameFirst, PathSource, Point};
use crate::http::grpc;
use crate::stream_info::{CertificateInfo, ConnectionInfo, LogRecord, ResponseFlags, TlsInfo};
use crate::upstream::host::{Host, HostAddress};

type There = Option<()>;

pub(super) fn number(value: u64, out: &mut Output<'_>) -> There {
    out.number(value);
    Some(())
}

/// A string; an empty one counts as none.
pub(super) fn text(value: &str, out: &mut Output<'_>) -> There {
    (!value.is_empty()).then(|| out.text(value.as_bytes()))
}

/// As [`text`], with blanks as underscores, so that a line keeps its columns.
pub(super) fn underscored(value: &str, out: &mut Output<'_>) -> There {
    (!value.is_empty()).then(|| {
        out.write(|piece| {
            for (i, word) in value.split([' ', '\t', '\n']).enumerate() {
                if i > 0 {
                    piece.push(b"_");
                }
                piece.push(word.as_bytes());
            }
        });
    })
}

pub(super) fn display(value: impl Display, out: &mut Output<'_>) -> There {
    out.display(value);
    Some(())
}

pub(super) fn socket(address: SocketAddr, out: &mut Output<'_>) -> There {
    out.socket(address);
    Some(())
}

/// Joined by commas; an empty list counts as none.
pub(super) fn list(values: &[impl Display], out: &mut Output<'_>) -> There {
    (!values.is_empty()).then(|| {
        out.write(|piece| {
            for (i, value) in values.iter().enumerate() {
                let _ = write!(piece, "{}{value}", if i > 0 { "," } else { "" });
            }
        });
    })
}

pub(super) fn downstream<'a>(record: &'a LogRecord<'_>) -> Option<&'a ConnectionInfo> {
    record.info.connection.as_deref()
}

pub(super) fn upstream<'a>(record: &'a LogRecord<'_>) -> Option<&'a ConnectionInfo> {
    record.info.upstream_connection.as_deref()
}

pub(super) fn host<'a>(record: &'a LogRecord<'_>) -> Option<&'a Host> {
    record.info.upstream_host.as_deref()
}

pub(super) fn host_socket(record: &LogRecord<'_>) -> Option<SocketAddr> {
    match &host(record)?.address {
        HostAddress::Tcp(address) => Some(*address),
        HostAddress::Pipe(_) => None,
    }
}

pub(super) fn host_name(record: &LogRecord<'_>, with_port: bool, out: &mut Output<'_>) -> There {
    let host = host(record)?;
    match (host.hostname.is_empty(), with_port, &host.address) {
        (true, false, HostAddress::Tcp(address)) => display(address.ip(), out),
        (true, ..) => text(&host.address_text, out),
        (false, true, _) => text(&host.hostname, out),
        (false, false, _) => text(without_port(&host.hostname), out),
    }
}

fn without_port(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => name,
    }
}

pub(super) fn tls<'a>(record: &'a LogRecord<'_>) -> Option<&'a TlsInfo> {
    downstream(record)?.tls.as_deref()
}

pub(super) fn peer<'a>(record: &'a LogRecord<'_>) -> Option<&'a CertificateInfo> {
    tls(record)?.peer.as_ref()
}

pub(super) fn local<'a>(record: &'a LogRecord<'_>) -> Option<&'a CertificateInfo> {
    tls(record)?.local.as_deref()
}

pub(super) fn upstream_tls<'a>(record: &'a LogRecord<'_>) -> Option<&'a TlsInfo> {
    upstream(record)?.tls.as_deref()
}

pub(super) fn upstream_peer<'a>(record: &'a LogRecord<'_>) -> Option<&'a CertificateInfo> {
    upstream_tls(record)?.peer.as_ref()
}

pub(super) fn upstream_local<'a>(record: &'a LogRecord<'_>) -> Option<&'a CertificateInfo> {
    upstream_tls(record)?.local.as_deref()
}

pub(super) fn direct_remote(record: &LogRecord<'_>) -> Option<SocketAddr> {
    downstream(record)?.direct_remote_address
}

/// A moment that happened.
pub(super) fn at(ns: u64) -> Option<u64> {
    (ns != 0).then_some(ns)
}

pub(super) fn start(record: &LogRecord<'_>) -> Option<u64> {
    at(record.info.timings.start_ns)
}

/// When the stream ended, or now.
pub(super) fn end(record: &LogRecord<'_>) -> Option<u64> {
    at(record.info.timings.end_ns).or(at(record.now_ns))
}

pub(super) fn millis(from: u64, to: u64, out: &mut Output<'_>) -> There {
    number(to.saturating_sub(from) / 1_000_000, out)
}

/// The wall clock now, from the wall clock at the start and the monotonic time since.
pub(super) fn now_wall(record: &LogRecord<'_>) -> u64 {
    record.info.start_wall_ns + record.now_ns.saturating_sub(record.info.timings.start_ns)
}

pub(super) fn common_duration(
    record: &LogRecord<'_>,
    argument: &Argument,
    out: &mut Output<'_>,
) -> There {
    let Argument::Duration(from, to, unit) = argument else { return None };
    let elapsed = point(record, *to)?.checked_sub(point(record, *from)?)?;
    number(elapsed / unit, out)
}

fn point(record: &LogRecord<'_>, point: Point) -> Option<u64> {
    let timings = &record.info.timings;
    match point {
        Point::DownstreamRxBegin => start(record),
        Point::DownstreamRxEnd => at(timings.request_end_ns),
        Point::UpstreamConnectBegin => at(upstream(record)?.start_ns),
        Point::UpstreamHandshakeEnd => at(upstream(record)?.handshake_done_ns),
        Point::UpstreamTxBegin => at(timings.upstream_first_tx_ns),
        Point::UpstreamTxEnd => at(timings.upstream_last_tx_ns),
        Point::UpstreamRxBegin => at(timings.upstream_first_rx_ns),
        Point::UpstreamRxEnd => at(timings.upstream_last_rx_ns),
        Point::DownstreamTxBegin => at(timings.downstream_first_tx_ns),
        Point::DownstreamTxEnd => end(record),
    }
}

pub(super) fn time(argument: &Argument, moment: Moment<'_>, out: &mut Output<'_>) -> There {
    let Argument::Time(format) = argument else { return None };
    out.write(|piece| format.write(moment, piece));
    Some(())
}

pub(super) fn local_time(argument: &Argument, unix_ns: u64, out: &mut Output<'_>) -> There {
    let stamp = jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).ok()?;
    let zone = jiff::tz::TimeZone::system();
    let info = zone.to_offset_info(stamp);
    let moment =
        Moment { unix_ns, offset_seconds: info.offset().seconds(), zone: info.abbreviation() };
    time(argument, moment, out)
}

/// A moment given in seconds since the epoch; before it counts as the epoch.
pub(super) fn seconds(unix: i64) -> Moment<'static> {
    Moment::utc(u64::try_from(unix).unwrap_or(0).saturating_mul(1_000_000_000))
}

pub(super) fn long_flags(flags: ResponseFlags, out: &mut Output<'_>) -> There {
    if flags.is_empty() {
        return text("-", out);
    }
    out.write(|piece| {
        let set = ResponseFlags::ALL.iter().filter(|(flag, ..)| flags.intersects(*flag));
        for (i, (_, _, long)) in set.enumerate() {
            if i > 0 {
                piece.push(b",");
            }
            piece.push(long.as_bytes());
        }
    });
    Some(())
}

pub(crate) fn log_type(record: &LogRecord<'_>) -> &'static str {
    if record.info.protocol.is_some() { "DownstreamEnd" } else { "TcpConnectionEnd" }
}

pub(super) fn address(address: SocketAddr, argument: &Argument, out: &mut Output<'_>) -> There {
    let Argument::Prefix(length) = argument else { return display(address.ip(), out) };
    let network = match address.ip() {
        IpAddr::V4(ip) => {
            let kept = 32_u32.checked_sub((*length).into())?;
            IpAddr::V4(u32::MAX.checked_shl(kept).map_or(0, |mask| ip.to_bits() & mask).into())
        }
        IpAddr::V6(ip) => {
            let kept = 128_u32.checked_sub((*length).into())?;
            IpAddr::V6(u128::MAX.checked_shl(kept).map_or(0, |mask| ip.to_bits() & mask).into())
        }
    };
    display(format_args!("{network}/{length}"), out)
}

pub(super) fn port(address: SocketAddr, out: &mut Output<'_>) -> There {
    number(address.port().into(), out)
}

pub(super) fn server_name(
    record: &LogRecord<'_>,
    argument: &Argument,
    out: &mut Output<'_>,
) -> There {
    let Argument::ServerName { first, original } = argument else { return None };
    let sni = downstream(record)?.requested_server_name.as_deref().map(str::as_bytes);
    let host = || {
        let request = record.request?;
        let before = original.then(|| request.get(names::X_ENVOY_ORIGINAL_HOST)).flatten();
        before.or(Some(request.authority()).filter(|host| !host.is_empty()))
    };
    let name = match first {
        NameFirst::SniOnly => sni,
        NameFirst::Sni => sni.or_else(host),
        NameFirst::Host => host().or(sni),
    };
    name.filter(|name| !name.is_empty()).map(|name| out.text(name))
}

/// What each certificate says that the peer presented, its own first; read when a log asks.
pub(super) fn chain(tls: &TlsInfo) -> impl Iterator<Item = identity::CertificateInfo> {
    tls.peer_chain.iter().filter_map(|der| identity::CertificateInfo::parse(der).ok())
}

/// The peer's certificate as PEM, percent-encoded.
pub(super) fn certificate(tls: &TlsInfo, out: &mut Output<'_>) -> There {
    let der = tls.peer_chain.first()?;
    out.write(|piece| {
        piece.push(b"-----BEGIN%20CERTIFICATE-----%0A");
        for line in der.chunks(48) {
            let mut encoded = [0; 64];
            let len = STANDARD.encode_slice(line, &mut encoded).unwrap_or(0);
            for byte in &encoded[..len] {
                match byte {
                    b'+' => piece.push(b"%2B"),
                    b'/' => piece.push(b"%2F"),
                    b'=' => piece.push(b"%3D"),
                    byte => piece.push(&[*byte]),
                }
            }
            piece.push(b"%0A");
        }
        piece.push(b"-----END%20CERTIFICATE-----%0A");
    });
    Some(())
}

pub(super) fn request_header(
    record: &LogRecord<'_>,
    argument: &Argument,
    out: &mut Output<'_>,
) -> There {
    let Argument::Headers(main, alternative) = argument else { return None };
    let request = record.request?;
    let value = request.get(main).or_else(|| request.get(alternative.as_ref()?))?;
    out.text(value);
    Some(())
}

pub(super) fn response_header(
    record: &LogRecord<'_>,
    argument: &Argument,
    out: &mut Output<'_>,
) -> There {
    let Argument::Headers(main, alternative) = argument else { return None };
    let response = record.response?;
    for name in [Some(main), alternative.as_ref()].into_iter().flatten() {
        if name.as_str() == ":status" {
            return display(response.status, out);
        }
        if let Some(value) = response.get(name) {
            out.text(value);
            return Some(());
        }
    }
    None
}

pub(super) fn trailer(record: &LogRecord<'_>, argument: &Argument, out: &mut Output<'_>) -> There {
    let Argument::Headers(main, alternative) = argument else { return None };
    let trailers = record.response_trailers?;
    let value = trailers.get(main).or_else(|| trailers.get(alternative.as_ref()?))?;
    out.text(value);
    Some(())
}

fn path_of<'a>(record: &LogRecord<'a>, source: PathSource) -> Option<&'a [u8]> {
    let request = record.request?;
    let original = || request.get(names::X_ENVOY_ORIGINAL_PATH);
    let present = || Some(request.path()).filter(|path| !path.is_empty());
    match source {
        PathSource::Original => original(),
        PathSource::Path => present(),
        PathSource::OriginalOrPath => original().or_else(present),
    }
}

pub(super) fn path(record: &LogRecord<'_>, argument: &Argument, out: &mut Output<'_>) -> There {
    let Argument::Path { with_query, source } = argument else { return None };
    let path = path_of(record, *source)?;
    let end = if *with_query { None } else { memchr::memchr(b'?', path) };
    out.text(&path[..end.unwrap_or(path.len())]);
    Some(())
}

fn query_of(path: &[u8]) -> Option<&[u8]> {
    let query = &path[memchr::memchr(b'?', path)? + 1..];
    Some(&query[..memchr::memchr(b'#', query).unwrap_or(query.len())])
}

pub(super) fn query(record: &LogRecord<'_>, argument: &Argument, out: &mut Output<'_>) -> There {
    let Argument::Path { source, .. } = argument else { return None };
    out.text(query_of(path_of(record, *source)?)?);
    Some(())
}

pub(super) fn query_parameter(
    record: &LogRecord<'_>,
    argument: &Argument,
    out: &mut Output<'_>,
) -> There {
    let wanted = argument.text()?.as_bytes();
    let query = query_of(path_of(record, PathSource::OriginalOrPath)?)?;
    let value = query.split(|b| *b == b'&').find_map(|pair| {
        let equals = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        (&pair[..equals] == wanted).then(|| pair.get(equals + 1..).unwrap_or_default())
    })?;
    let decoded: std::borrow::Cow<'_, [u8]> = percent_encoding::percent_decode(value).into();
    out.text(&decoded);
    Some(())
}

fn follow<'a>(root: &'a Value, keys: &[Box<str>]) -> Option<&'a Value> {
    keys.iter().try_fold(root, |value, key| value.get(&**key))
}

fn in_namespace<'a>(map: &'a Map<String, Value>, keys: &[Box<str>]) -> Option<&'a Value> {
    let (namespace, rest) = keys.split_first()?;
    follow(map.get(&**namespace)?, rest)
}

fn metadata(
    record: &LogRecord<'_>,
    of: MetadataOf,
    keys: &[Box<str>],
    out: &mut Output<'_>,
) -> There {
    let value = match of {
        MetadataOf::Dynamic => {
            let (namespace, rest) = keys.split_first()?;
            let found =
                record.info.dynamic_metadata.iter().find(|(name, _)| *name == &**namespace)?;
            follow(&found.1, rest)?
        }
        MetadataOf::Cluster => {
            in_namespace(record.info.cluster.as_ref()?.config.metadata.as_ref()?, keys)?
        }
        MetadataOf::Host => in_namespace(host(record)?.metadata.as_ref()?, keys)?,
    };
    out.json(value);
    Some(())
}

pub(super) fn dynamic_metadata(
    record: &LogRecord<'_>,
    argument: &Argument,
    out: &mut Output<'_>,
) -> There {
    let Argument::Keys(keys) = argument else { return None };
    metadata(record, MetadataOf::Dynamic, keys, out)
}

pub(super) fn cluster_metadata(
    record: &LogRecord<'_>,
    argument: &Argument,
    out: &mut Output<'_>,
) -> There {
    let Argument::Keys(keys) = argument else { return None };
    metadata(record, MetadataOf::Cluster, keys, out)
}

pub(super) fn host_metadata(
    record: &LogRecord<'_>,
    argument: &Argument,
    out: &mut Output<'_>,
) -> There {
    let Argument::Keys(keys) = argument else { return None };
    metadata(record, MetadataOf::Host, keys, out)
}

pub(super) fn typed_metadata(
    record: &LogRecord<'_>,
    argument: &Argument,
    out: &mut Output<'_>,
) -> There {
    let Argument::Metadata(of, keys) = argument else { return None };
    metadata(record, *of, keys, out)
}

/// `x-request-id`, else a number made of the process's instance and the stream's.
pub(super) fn stream_id(
    record: &LogRecord<'_>,
    argument: &Argument,
    out: &mut Output<'_>,
) -> There {
    let Argument::Instance(instance) = argument else { return None };
    if let Some(id) = record.request.and_then(|request| request.get(names::X_REQUEST_ID)) {
        out.text(id);
        return Some(());
    }
    let id = uuid::Uuid::from_u64_pair(*instance, record.info.stream_id);
    text(id.hyphenated().encode_lower(&mut [0; 36]), out)
}

const GRPC_STATUS: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

pub(super) fn grpc_status(
    record: &LogRecord<'_>,
    argument: &Argument,
    out: &mut Output<'_>,
) -> There {
    let Argument::Grpc(form) = argument else { return None };
    let status = grpc_number(record)?;
    match (GRPC_STATUS.get(status as usize), form) {
        (Some((camel, _)), GrpcForm::Camel) => text(camel, out),
        (Some((_, snake)), GrpcForm::Snake) => text(snake, out),
        (None, _) | (_, GrpcForm::Number) => number(status, out),
    }
}

/// The gRPC status of a gRPC request: from the trailers, the head, or the HTTP status.
pub fn grpc_number(record: &LogRecord<'_>) -> Option<u64> {
    let content_type = record.request?.get(names::CONTENT_TYPE)?;
    // gRPC-Web counts, too: its status is in the head or in the trailers that its filter has made.
    if !content_type.starts_with(b"application/grpc") {
        return None;
    }
    let in_trailers =
        record.response_trailers.and_then(|trailers| trailers.get_str(names::GRPC_STATUS));
    let in_head = || record.response.and_then(|head| head.fields.get_str(names::GRPC_STATUS));
    if let Some(status) = in_trailers.or_else(in_head) {
        return Some(status.parse().unwrap_or(2));
    }
    Some(grpc::status_of_http(record.info.response_code).into())
}
