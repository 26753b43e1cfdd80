//! `config.core.v3.HealthCheck` → [`HealthCheck`].

use std::ops::Range;
use std::time::Duration;

use api::envoy::config::core::v3 as core;
use api::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use api::envoy::r#type::v3::{CodecClientType, Int64Range};
use bytes::Bytes;
use core::health_check::{
    GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck, payload,
};
use core::{HeaderValueOption, RequestMethod};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::compile::Compile;
use super::values;
use crate::upstream::health_check::{
    GrpcProbe, HealthCheck, HttpProbe, Intervals, Probe, TcpProbe,
};

/// Envoy's `no_traffic_interval`.
const NO_TRAFFIC_INTERVAL: Duration = Duration::from_secs(60);
/// Envoy's `response_buffer_size`, in bytes.
const RESPONSE_BUFFER: usize = 1024;
/// Who asks, as Envoy says it.
const USER_AGENT: &str = "Envoy/HC";

/// Compiles a cluster's health check; there may be one.
pub fn health_check(
    cx: &mut Compile<'_>,
    cluster: &str,
    messages: &[core::HealthCheck],
) -> Option<HealthCheck> {
    if messages.len() > 1 {
        cx.problem_at("health_checks", "only one health check is supported");
    }
    let message = messages.first()?;
    cx.at("health_checks[0]", |cx| check(cx, cluster, message))
}

fn check(cx: &mut Compile<'_>, cluster: &str, message: &core::HealthCheck) -> Option<HealthCheck> {
    let probe = match message.health_checker.as_ref()? {
        HealthChecker::HttpHealthCheck(http) => {
            Probe::Http(cx.at("http_health_check", |cx| http_probe(cx, cluster, http))?)
        }
        HealthChecker::TcpHealthCheck(tcp) => {
            Probe::Tcp(cx.at("tcp_health_check", |cx| tcp_probe(cx, tcp))?)
        }
        HealthChecker::GrpcHealthCheck(grpc) => {
            Probe::Grpc(cx.at("grpc_health_check", |cx| grpc_probe(cx, cluster, grpc))?)
        }
        HealthChecker::CustomHealthCheck(_) => {
            cx.problem_at("custom_health_check", "`custom_health_check` is not supported yet");
            return None;
        }
    };
    let time = |value: Option<&api::google::protobuf::Duration>, default: Duration| {
        value.map_or(default, values::duration)
    };
    let interval = time(message.interval.as_ref(), Duration::ZERO);
    let unhealthy = time(message.unhealthy_interval.as_ref(), interval);
    let no_traffic = time(message.no_traffic_interval.as_ref(), NO_TRAFFIC_INTERVAL);
    Some(HealthCheck {
        probe,
        timeout: time(message.timeout.as_ref(), Duration::ZERO),
        initial_jitter: time(message.initial_jitter.as_ref(), Duration::ZERO),
        interval_jitter: time(message.interval_jitter.as_ref(), Duration::ZERO),
        interval_jitter_percent: message.interval_jitter_percent,
        unhealthy_threshold: message.unhealthy_threshold.map_or(1, |count| count.value),
        healthy_threshold: message.healthy_threshold.map_or(1, |count| count.value),
        intervals: Intervals {
            healthy: interval,
            healthy_edge: time(message.healthy_edge_interval.as_ref(), interval),
            unhealthy,
            unhealthy_edge: time(message.unhealthy_edge_interval.as_ref(), unhealthy),
            no_traffic,
            no_traffic_healthy: time(message.no_traffic_healthy_interval.as_ref(), no_traffic),
        },
        reuse_connection: message.reuse_connection.is_none_or(|reuse| reuse.value),
    })
}

fn http_probe(cx: &mut Compile<'_>, cluster: &str, message: &HttpHealthCheck) -> Option<HttpProbe> {
    let method = match message.method() {
        RequestMethod::MethodUnspecified | RequestMethod::Get => Method::GET,
        RequestMethod::Head => Method::HEAD,
        RequestMethod::Post => Method::POST,
        RequestMethod::Put => Method::PUT,
        RequestMethod::Delete => Method::DELETE,
        RequestMethod::Options => Method::OPTIONS,
        RequestMethod::Trace => Method::TRACE,
        RequestMethod::Patch => Method::PATCH,
        RequestMethod::Connect => {
            cx.problem_at("method", "CONNECT checks nothing");
            return None;
        }
    };
    if message.path.parse::<http::uri::PathAndQuery>().is_err() || !message.path.starts_with('/') {
        cx.problem_at("path", format!("`{}` is no path", message.path));
        return None;
    }
    let send = match &message.send {
        None => Bytes::new(),
        Some(send) => cx.at("send", |cx| payload(cx, send))?,
    };
    if !send.is_empty()
        && matches!(method, Method::GET | Method::HEAD | Method::DELETE | Method::TRACE)
    {
        cx.problem_at("send", format!("{method} has no body"));
    }
    let receive = cx.each("receive", &message.receive, payload);
    let expected = match message.expected_statuses.as_slice() {
        [] => std::iter::once(200..201).collect(),
        ranges => cx.each("expected_statuses", ranges, statuses),
    };
    let service = match &message.service_name_matcher {
        None => None,
        Some(matcher) => {
            Some(cx.at("service_name_matcher", |cx| values::string_matcher(cx, matcher))?)
        }
    };
    let mut headers = HeaderMap::new();
    headers.insert(http::header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    add_headers(cx, "request_headers_to_add", &message.request_headers_to_add, &mut headers);
    for name in &message.request_headers_to_remove {
        headers.remove(name);
    }
    Some(HttpProbe {
        method,
        host: if message.host.is_empty() { cluster.into() } else { message.host.as_str().into() },
        path: message.path.as_str().into(),
        headers,
        send,
        receive,
        response_buffer: message
            .response_buffer_size
            .map_or(RESPONSE_BUFFER, |size| usize::try_from(size.value).unwrap_or(usize::MAX)),
        expected,
        retriable: cx.each("retriable_statuses", &message.retriable_statuses, statuses),
        http2: message.codec_client_type() == CodecClientType::Http2,
        service,
    })
}

fn tcp_probe(cx: &mut Compile<'_>, message: &TcpHealthCheck) -> Option<TcpProbe> {
    let send = match &message.send {
        None => Bytes::new(),
        Some(send) => cx.at("send", |cx| payload(cx, send))?,
    };
    Some(TcpProbe { send, receive: cx.each("receive", &message.receive, payload) })
}

fn grpc_probe(cx: &mut Compile<'_>, cluster: &str, message: &GrpcHealthCheck) -> Option<GrpcProbe> {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    add_headers(cx, "initial_metadata", &message.initial_metadata, &mut headers);
    let authority = match message.authority.as_str() {
        "" => cluster,
        authority => authority,
    };
    // `grpc.health.v1.HealthCheckRequest { string service = 1; }`
    let mut body = Vec::new();
    prost::encoding::string::encode(1, &message.service_name, &mut body);
    if message.service_name.is_empty() {
        body.clear();
    }
    let mut framed = Vec::new();
    codec::grpc::prefix(0, body.len(), &mut framed);
    framed.extend(body);
    Some(GrpcProbe { authority: authority.into(), headers, message: framed.into() })
}

/// Bytes as they are, or in hexadecimal.
fn payload(cx: &mut Compile<'_>, message: &Payload) -> Option<Bytes> {
    match message.payload.as_ref()? {
        payload::Payload::Binary(bytes) => Some(bytes.clone().into()),
        payload::Payload::Text(text) => {
            let decoded = hex(text);
            if decoded.is_none() {
                cx.problem_at("text", format!("`{text}` is not hexadecimal"));
            }
            decoded
        }
    }
}

fn hex(text: &str) -> Option<Bytes> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks_exact(2);
    let whole = pairs.remainder().is_empty();
    let decoded = pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?));
    decoded.collect::<Option<Vec<u8>>>().filter(|_| whole).map(Bytes::from)
}

fn statuses(cx: &mut Compile<'_>, range: &Int64Range) -> Option<Range<u16>> {
    match (u16::try_from(range.start), u16::try_from(range.end)) {
        (Ok(start), Ok(end)) if start >= 100 && start < end && end <= 600 => Some(start..end),
        _ => {
            cx.problem("a range of statuses begins at 100 or later, and ends at 600 or before");
            None
        }
    }
}

fn add_headers(
    cx: &mut Compile<'_>,
    field: &str,
    options: &[HeaderValueOption],
    headers: &mut HeaderMap,
) {
    for (index, option) in options.iter().enumerate() {
        cx.at(&format!("{field}[{index}]"), |cx| {
            let header = option.header.clone().unwrap_or_default();
            let name = HeaderName::from_bytes(header.key.as_bytes());
            let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(&header.value)) else {
                return cx.problem_at("header", "is no header");
            };
            if header.value.contains('%') {
                return cx.problem_at("header.value", "formatters are not supported here yet");
            }
            match option.append_action() {
                HeaderAppendAction::AppendIfExistsOrAdd => drop(headers.append(name, value)),
                HeaderAppendAction::OverwriteIfExistsOrAdd => drop(headers.insert(name, value)),
                _ => cx.problem_at("append_action", "this is not supported here yet"),
            }
        });
    }
}
