use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use codec::headers::{Fields, RequestHead, ResponseHead, Version};
use serde_json::json;

use super::sink::{BufferOptions, Destination, Sinks};
use super::time::{Moment, TimeFormat};
use super::*;
use crate::route_table::config::{HeaderMatcher, ValueMatch};
use crate::stream_info::{
    AccessLogger, CertificateInfo, ConnectionInfo, LogRecord, ResponseFlags, StreamInfo, Timings,
    TlsInfo,
};
use crate::string_matcher::StringMatcher;
use crate::upstream::host::{Host, HostAddress, HostOptions};

const MS: u64 = 1_000_000;

/// A finished request as the engine would report it.
struct Stream {
    info: StreamInfo,
    request: RequestHead,
    response: ResponseHead,
    trailers: Fields,
}

impl Stream {
    fn new() -> Self {
        let mut request = RequestHead::new();
        request.set_method(b"GET");
        request.set_path(b"/new/x?a=1&b=%C3%A9");
        request.set_authority(b"reviews:80");
        request.fields.append("x-envoy-original-path", b"/rw/x?a=1&b=%C3%A9");
        request.fields.append("user-agent", b"curl/8");
        request.fields.append("x-request-id", b"40c03d14-6667-4246-9504-aaaaf205f4b5");
        let mut response = ResponseHead::new(200);
        response.fields.append("content-type", b"text/plain");
        let host = Host::new(
            HostAddress::Tcp("127.0.0.1:29920".parse().unwrap()),
            HostOptions {
                metadata: Some(Arc::new(
                    json!({"ns": {"a": "x", "o": {"p": [1, true]}}}).as_object().unwrap().clone(),
                )),
                ..HostOptions::default()
            },
        );
        let info = StreamInfo {
            stream_id: 7,
            start_wall_ns: 1_795_270_564_302_822_000,
            timings: Timings {
                start_ns: 100 * MS,
                request_end_ns: 101 * MS,
                upstream_first_tx_ns: 102 * MS,
                upstream_last_tx_ns: 103 * MS,
                upstream_first_rx_ns: 110 * MS,
                upstream_last_rx_ns: 111 * MS,
                downstream_first_tx_ns: 112 * MS,
                end_ns: 115 * MS,
            },
            bytes_received: 3,
            bytes_sent: 357,
            protocol: Some(Version::Http11),
            response_code: 200,
            response_code_details: "via_upstream",
            attempt_count: 1,
            upstream_host: Some(Arc::new(host)),
            connection: Some(Rc::new(downstream())),
            dynamic_metadata: vec![("ns", json!({"n": 5, "s": "v"}))],
            ..StreamInfo::default()
        };
        Self { info, request, response, trailers: Fields::new() }
    }

    fn record(&self) -> LogRecord<'_> {
        LogRecord {
            worker: 0,
            now_ns: 120 * MS,
            info: &self.info,
            request: Some(&self.request),
            response: Some(&self.response),
            response_trailers: Some(&self.trailers),
        }
    }

    fn line(&self, format: &str) -> String {
        let mut out = Vec::new();
        Format::parse(format, &environment()).unwrap().append_line(&self.record(), &mut out);
        String::from_utf8(out).unwrap()
    }

    fn json(&self, template: &serde_json::Value, omit: bool) -> String {
        let mut out = Vec::new();
        JsonFormat::compile(template, omit, &environment())
            .unwrap()
            .append(&self.record(), &mut out);
        String::from_utf8(out).unwrap()
    }
}

fn downstream() -> ConnectionInfo {
    let peer = CertificateInfo {
        subject: "CN=a,O=b".to_owned(),
        uri_sans: vec!["spiffe://td/ns/x/sa/y".to_owned(), "spiffe://other".to_owned()],
        not_before: 1_795_270_564,
        ..CertificateInfo::default()
    };
    ConnectionInfo {
        id: 2,
        remote_address: "10.1.2.3:41412".parse().ok(),
        direct_remote_address: "[2001:db8::1]:5".parse().ok(),
        local_address: "127.0.0.1:29910".parse().ok(),
        requested_server_name: Some("sni.example".into()),
        listener_name: "l1".into(),
        start_ns: 90 * MS,
        handshake_done_ns: 95 * MS,
        tls: Some(Arc::new(TlsInfo {
            version: "TLSv1.3",
            cipher: "TLS_AES_256_GCM_SHA384",
            curve: "X25519MLKEM768",
            peer: Some(peer),
            peer_chain: vec![vec![0xFF; 50].into()],
            ..TlsInfo::default()
        })),
        ..ConnectionInfo::default()
    }
}

fn environment() -> Environment {
    Environment {
        hostname: "vm".into(),
        variable: Arc::new(|name| (name == "FOO").then(|| "bar".to_owned())),
        instance: 1,
    }
}

/// What Envoy 1.40 printed for an equal request, operator by operator.
#[test]
fn operators_print_what_envoy_prints() {
    let table = [
        ("%START_TIME%", "2026-11-21T14:16:04.302Z"),
        ("%START_TIME(%s.%3f|%6f|%9f|%f|%1f)%", "1795270564.302|302822|302822000|302822000|3"),
        (
            "%START_TIME(%Y/%e/%d~%H:%M:%S%z~%Z~%b~%j~%a~%y~%T~%F~%E4S~%s~%I%p~%D~%R)%",
            "2026/21/21~14:16:04+0000~UTC~Nov~325~Sat~26~14:16:04~2026-11-21~04.3028~1795270564~02PM~11/21/26~14:16",
        ),
        ("%START_TIME(%3s)%", "1795270564"),
        ("%EMIT_TIME%", "2026-11-21T14:16:04.322Z"),
        ("%DURATION%", "15"),
        ("%REQUEST_DURATION%", "1"),
        ("%DOWNSTREAM_TLS_GROUP% %UPSTREAM_TLS_GROUP%", "X25519MLKEM768 -"),
        ("%REQUEST_TX_DURATION%", "3"),
        ("%RESPONSE_DURATION%", "10"),
        ("%RESPONSE_TX_DURATION%", "5"),
        ("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%", "15000"),
        ("%COMMON_DURATION(DS_TX_END:DS_RX_BEG)%", "-"),
        ("%DOWNSTREAM_HANDSHAKE_DURATION%", "5"),
        ("%BYTES_RECEIVED% %BYTES_SENT%", "3 357"),
        (
            "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%",
            "200 via_upstream - -",
        ),
        ("%CONNECTION_TERMINATION_DETAILS%", "-"),
        ("%GRPC_STATUS% %GRPC_STATUS_NUMBER%", "- -"),
        ("%ACCESS_LOG_TYPE% %PROTOCOL% %UPSTREAM_PROTOCOL%", "DownstreamEnd HTTP/1.1 -"),
        ("%ROUTE_NAME% %UPSTREAM_CLUSTER% %LISTENER_NAME%", "- - l1"),
        (
            "%UPSTREAM_HOST% %UPSTREAM_HOST_NAME% %UPSTREAM_HOST_NAME_WITHOUT_PORT%",
            "127.0.0.1:29920 127.0.0.1:29920 127.0.0.1",
        ),
        ("%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %UPSTREAM_REMOTE_PORT%", "127.0.0.1 29920"),
        ("%UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_CONNECTION_ID%", "- 0"),
        ("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_PORT%", "10.1.2.3:41412 41412"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)%", "10.1.0.0/16"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(0)%", "0.0.0.0/0"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(99)%", "-"),
        (
            "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT(32)%",
            "[2001:db8::1]:5 2001:db8::/32",
        ),
        ("%CONNECTION_ID% %UPSTREAM_REQUEST_ATTEMPT_COUNT%", "2 1"),
        ("%REQUESTED_SERVER_NAME% %REQUESTED_SERVER_NAME(HOST_FIRST)%", "sni.example reviews:80"),
        ("%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER%", "TLSv1.3 TLS_AES_256_GCM_SHA384"),
        ("%DOWNSTREAM_PEER_URI_SAN%", "spiffe://td/ns/x/sa/y,spiffe://other"),
        ("%DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_PEER_DNS_SAN%", "CN=a,O=b -"),
        ("%DOWNSTREAM_PEER_CERT_V_START(%Y)%", "2026"),
        ("%REQ(:METHOD)% %REQ(:PATH)% %REQ(:path):3%", "GET /new/x?a=1&b=%C3%A9 /ne"),
        ("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(nope)% %REQ(nope):0%", "/rw/x?a=1&b=%C3%A9 - -"),
        ("%RESP(content-type)% %RESP(:status)% %TRAILER(a)%", "text/plain 200 -"),
        ("%PATH% %PATH(NQ)% %PATH(WQ:PATH)%", "/rw/x?a=1&b=%C3%A9 /rw/x /new/x?a=1&b=%C3%A9"),
        (
            "%QUERY_PARAM(a)% %QUERY_PARAM(b)% %QUERY_PARAM(zz)% %QUERY_PARAMS%",
            "1 é - a=1&b=%C3%A9",
        ),
        ("%DYNAMIC_METADATA(ns:n)% %DYNAMIC_METADATA(ns:s)% %DYNAMIC_METADATA(a)%", "5 v -"),
        ("%UPSTREAM_METADATA(ns:a)% %METADATA(UPSTREAM_HOST:ns:o:p)%", "x [1,true]"),
        ("%ENVIRONMENT(FOO)% %ENVIRONMENT(NONE)% %HOSTNAME%", "bar - vm"),
        ("%STREAM_ID%", "40c03d14-6667-4246-9504-aaaaf205f4b5"),
        ("100%% %RESPONSE_CODE%%DURATION%", "100% 20015"),
    ];
    let stream = Stream::new();
    for (format, expected) in table {
        // Values of these tests hold nothing that a line would escape.
        assert_eq!(stream.line(format), expected, "{format}");
    }
}

#[test]
fn the_default_format_is_envoys() {
    assert_eq!(
        Stream::new().line(DEFAULT_FORMAT),
        "[2026-11-21T14:16:04.302Z] \"GET /rw/x?a=1&b=%C3%A9 HTTP/1.1\" 200 - 3 357 15 - \"-\" \"curl/8\" \
         \"40c03d14-6667-4246-9504-aaaaf205f4b5\" \"reviews:80\" \"127.0.0.1:29920\"\n"
    );
}

#[test]
fn formats_are_accepted_and_refused_as_in_envoy() {
    let accepted = [
        "%%",
        "100%%",
        "%REQ(a)%x",
        "%START_TIME(%1f%2f%9f)%",
        "%COMMON_DURATION(DS_RX_BEG:DS_TX_END)%",
        "%GRPC_STATUS()%",
        "%PATH%",
        "%PATH()%",
        "%PATH(NQ:ORIG)%",
        "%QUERY_PARAMS(ORIG)%",
        "%QUERY_PARAM(a):4%",
        "%TRAILER(a?b):4%",
        "%REQUESTED_SERVER_NAME(SNI_FIRST)%",
        "%METADATA(CLUSTER:y:z)%",
        "%DYNAMIC_METADATA(a:b)%",
        "%RESPONSE_CODE%%DURATION%",
    ];
    for format in accepted {
        assert!(Format::parse(format, &environment()).is_ok(), "{format}");
    }
    let refused = [
        "%NOSUCH%",
        "%DURATION(x)%",
        "%DURATION:5%",
        "%REQ%",
        "%REQ()%",
        "%REQ(a?b?c)%",
        "%REQ(a):x%",
        "%REQ(a",
        "%",
        "100%",
        "%START_TIME:3%",
        "%PROTOCOL:3%",
        "%HOSTNAME:2%",
        "%ENVIRONMENT%",
        "%ENVIRONMENT()%",
        "%COMMON_DURATION%",
        "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:d)%",
        "%GRPC_STATUS(FOO)%",
        "%DOWNSTREAM_REMOTE_ADDRESS(16)%",
        "%PATH(X)%",
        "%QUERY_PARAM%",
        "%REQUESTED_SERVER_NAME(FOO)%",
        "%METADATA(X:y)%",
        "%DYNAMIC_METADATA()%",
        "%DYNAMIC_METADATA%",
        "%req(a)%",
        "% REQ(a)%",
        "%UNIQUE_ID(x)%",
        "%ACCESS_LOG_TYPE(x)%",
        "%RESPONSE_FLAGS_LONG(x)%",
        "%CONNECTION_ID:2%",
    ];
    for format in refused {
        assert!(Format::parse(format, &environment()).is_err(), "{format}");
    }
    let error = |format| Format::parse(format, &environment()).unwrap_err().to_string();
    assert_eq!(error("%NOSUCH%"), "Not supported field in StreamInfo: NOSUCH");
    assert_eq!(error("%TRACE_ID%"), "%TRACE_ID% is not supported: there is no tracing");
    assert_eq!(error("%DURATION:5%"), "%DURATION%: takes no length");
}

#[test]
fn every_operator_is_either_supported_or_refused_with_a_reason() {
    let mut names: Vec<&str> =
        supported_operators().chain(UNSUPPORTED.iter().map(|(name, _)| *name)).collect();
    let total = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), total, "an operator is listed twice");
    // 162 that stock Envoy accepts and three of its formatter extensions.
    assert_eq!(total, 165, "{names:?}");
}

#[test]
fn values_cannot_forge_lines_or_leave_their_quotes() {
    let mut stream = Stream::new();
    stream.request.fields.append("x-q", b"a\"b\\c\t[fake] \x7f\xff\x1b\xc3\xa9");
    assert_eq!(stream.line("\"%REQ(x-q)%\""), "\"a\\x22b\\x5Cc\\x09[fake] \\x7F\\xFF\\x1Bé\"");
    assert_eq!(
        stream.json(&json!({"q": "%REQ(x-q)%", "m": "<%REQ(x-q)%>"}), false),
        r#"{"m":"<a\"b\\c\t[fake] \u007f\u00ff\u001bé>","q":"a\"b\\c\t[fake] \u007f\u00ff\u001bé"}"#
    );
    let mut raw = Vec::new();
    Format::parse("%REQ(x-q):3%", &environment()).unwrap().append(&stream.record(), &mut raw);
    assert_eq!(raw, b"a\"b");
}

#[test]
fn truncation_never_cuts_a_character() {
    let mut stream = Stream::new();
    stream.request.fields.append("x-u", "aéé".as_bytes());
    let lengths = [
        ("%REQ(x-u):1%", "a"),
        ("%REQ(x-u):2%", "a"),
        ("%REQ(x-u):3%", "aé"),
        ("%REQ(x-u):9%", "aéé"),
    ];
    for (format, expected) in lengths {
        assert_eq!(stream.line(format), expected, "{format}");
    }
}

#[test]
fn json_is_typed_nested_and_sorted() {
    let stream = Stream::new();
    let template = json!({
        "z": ["%RESPONSE_CODE%", true, null, "plain"],
        "a": {"bytes": "%BYTES_SENT%", "none": "%REQ(nope)%"},
        "mixed": "a-%REQ(nope)%-%BYTES_SENT%",
        "meta": "%UPSTREAM_METADATA(ns)%",
        "n": 5,
        "k\"ey": "100%%",
    });
    assert_eq!(
        stream.json(&template, false),
        r#"{"a":{"bytes":357,"none":null},"k\"ey":"100%","meta":{"a":"x","o":{"p":[1,true]}},"mixed":"a---357","n":5,"z":[200,true,null,"plain"]}"#
    );
    assert_eq!(
        stream.json(&json!({"a": "%REQ(nope)%", "b": "%PROTOCOL%", "c": "<%REQ(nope)%>"}), true),
        r#"{"b":"HTTP/1.1","c":"<>"}"#
    );
}

#[test]
fn grpc_status_comes_from_trailers_head_or_http() {
    let mut stream = Stream::new();
    stream.request.fields.append("content-type", b"application/grpc");
    assert_eq!(
        stream.line("%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)%"),
        "Unknown UNKNOWN 2"
    );
    stream.response.fields.append("grpc-status", b"3");
    assert_eq!(stream.line("%GRPC_STATUS%"), "InvalidArgument");
    stream.trailers.append("grpc-status", b"42");
    assert_eq!(stream.line("%GRPC_STATUS% %GRPC_STATUS_NUMBER%"), "42 42");
}

#[test]
fn dates_are_right_at_the_edges() {
    let table = [
        (0, "1970-01-01 Thu 001"),
        (951_782_400, "2000-02-29 Tue 060"),
        (1_709_164_800, "2024-02-29 Thu 060"),
        (1_735_689_599, "2024-12-31 Tue 366"),
        (4_107_542_399, "2100-02-28 Sun 059"),
        (4_107_542_400, "2100-03-01 Mon 060"),
    ];
    let format = TimeFormat::parse("%F %a %j").unwrap();
    for (seconds, expected) in table {
        assert_eq!(time::to_string(&format, Moment::utc(seconds * 1_000_000_000)), expected);
    }
    let local = Moment { unix_ns: 0, offset_seconds: -5400, zone: "XYZ" };
    assert_eq!(
        time::to_string(&TimeFormat::parse("%F %T %z %Ez %Z").unwrap(), local),
        "1969-12-31 22:30:00 -0130 -01:30 XYZ"
    );
    assert_eq!(TimeFormat::parse("a%Q"), Err("%Q".to_owned()));
}

#[test]
fn filters_hold_as_in_envoy() {
    let mut stream = Stream::new();
    stream.info.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
    let code = |operator, value| Filter::StatusCode(Comparison { operator, value });
    let header = |name: &str, value: Option<&str>, invert| {
        Filter::Header(HeaderMatcher {
            name: codec::headers::HeaderName::parse(name).unwrap(),
            value: value.map_or(ValueMatch::Present(true), |value| {
                ValueMatch::String(StringMatcher::exact(value))
            }),
            invert,
            treat_missing_as_empty: false,
        })
    };
    let table = [
        (code(ThresholdOperator::Equal, 200), true),
        (code(ThresholdOperator::GreaterOrEqual, 201), false),
        (code(ThresholdOperator::LessOrEqual, 200), true),
        (code(ThresholdOperator::NotEqual, 200), false),
        (
            Filter::Duration(Comparison { operator: ThresholdOperator::GreaterOrEqual, value: 15 }),
            true,
        ),
        (
            Filter::Duration(Comparison { operator: ThresholdOperator::GreaterOrEqual, value: 16 }),
            false,
        ),
        (Filter::ResponseFlag(ResponseFlags::default()), true),
        (Filter::ResponseFlag(ResponseFlags::UPSTREAM_OVERFLOW), true),
        (Filter::ResponseFlag(ResponseFlags::NO_ROUTE_FOUND), false),
        (header("user-agent", Some("curl/8"), false), true),
        (header("user-agent", Some("curl/8"), true), false),
        (header("nope", Some("x"), true), false),
        (header("nope", None, true), true),
        (header("user-agent", None, false), true),
        (Filter::And([code(ThresholdOperator::Equal, 200), Filter::NotHealthCheck].into()), true),
        (Filter::Or([code(ThresholdOperator::Equal, 201)].into()), false),
        (Filter::LogType { types: ["DownstreamEnd"].into(), exclude: true }, false),
        (Filter::GrpcStatus { statuses: [2].into(), exclude: false }, true),
        (Filter::Sampled { numerator: 0, denominator: 100 }, false),
        (Filter::Sampled { numerator: 100, denominator: 100 }, true),
    ];
    for (filter, expected) in table {
        assert_eq!(filter.admits(&stream.record()), expected, "{filter:?}");
    }
}

fn log_to(sinks: &Sinks, destination: &Destination, format: &str) -> Log {
    let layout = Layout::Text(Format::parse(format, &environment()).unwrap());
    Log { filter: None, layout, sink: sinks.open(destination).unwrap() }
}

#[test]
fn lines_reach_the_file_and_survive_rotation() {
    let folder = tempfile::tempdir().unwrap();
    let (path, rotated) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let registry = telemetry::stats::Registry::new();
    let sinks =
        Sinks::new(BufferOptions { workers: 2, ..BufferOptions::default() }, registry.clone());
    let destination = Destination::File(path.clone());
    let (one, two) = (
        log_to(&sinks, &destination, "one %RESPONSE_CODE%\n"),
        log_to(&sinks, &destination, "two\n"),
    );
    assert!(Arc::ptr_eq(&one.sink, &two.sink), "one file is opened once");
    let stream = Stream::new();
    one.log(&stream.record());
    two.log(&LogRecord { worker: 1, ..stream.record() });
    sinks.flush(Duration::from_secs(10));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one 200\ntwo\n");
    std::fs::rename(&path, &rotated).unwrap();
    one.log(&stream.record());
    sinks.reopen();
    sinks.flush(Duration::from_secs(10));
    two.log(&stream.record());
    sinks.flush(Duration::from_secs(10));
    assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "one 200\ntwo\none 200\n");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    assert_eq!(registry.counter_value("filesystem.write_buffered"), Some(4));
}

#[test]
fn a_full_disk_costs_lines_and_is_counted() {
    if !std::path::Path::new("/dev/full").exists() {
        eprintln!("skipped: no /dev/full");
        return;
    }
    let registry = telemetry::stats::Registry::new();
    let options =
        BufferOptions { limit_bytes: 8, flush_bytes: 1 << 20, ..BufferOptions::default() };
    let sinks = Sinks::new(options, registry.clone());
    let log = log_to(&sinks, &Destination::File("/dev/full".into()), "0123456789\n");
    let stream = Stream::new();
    sinks.flush(Duration::from_secs(10));
    for _ in 0..3 {
        log.log(&stream.record());
    }
    sinks.flush(Duration::from_secs(10));
    assert_eq!(registry.counter_value("filesystem.write_failed"), Some(1));
    assert_eq!(registry.counter_value("filesystem.write_buffered"), Some(1));
    assert_eq!(registry.counter_value("filesystem.write_dropped"), Some(2));
}

#[test]
fn an_unopenable_file_is_an_error() {
    let sinks = Sinks::new(BufferOptions::default(), telemetry::stats::Registry::new());
    assert!(sinks.open(&Destination::File("/nonexistent/x/y".into())).is_err());
}

/// Fingerprints and serial numbers as `openssl x509 -fingerprint -serial` has them.
#[test]
fn a_presented_chain_is_told_certificate_by_certificate() {
    let now = std::time::SystemTime::now();
    let ca = identity::CertificateAuthority::self_signed("td", now).unwrap();
    let root = identity::CertificateInfo::parse_pem(ca.root_pem()).unwrap();
    let der = identity::certificate::decode_pem(ca.root_pem()).unwrap();
    let tls = TlsInfo { peer_chain: vec![der[0].clone(), der[0].clone()], ..TlsInfo::default() };
    let mut stream = Stream::new();
    let connection = ConnectionInfo { tls: Some(Arc::new(tls)), ..downstream() };
    stream.info.connection = Some(Rc::new(connection));
    for (operator, one) in [
        ("%DOWNSTREAM_PEER_CHAIN_SERIALS%", &root.serial),
        ("%DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256%", &root.sha256),
        ("%DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1%", &root.sha1),
    ] {
        assert_eq!(stream.line(operator), format!("{one},{one}"), "{operator}");
    }
    assert_eq!(stream.line("%DOWNSTREAM_PEER_FINGERPRINT_1%"), root.sha1);
}
