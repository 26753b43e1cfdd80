//! gRPC without a gRPC server: answers that the proxy makes itself, deadlines, retries by status, gRPC-Web and statistics,
//! each beside the real Envoy. Over HTTP/1.1, whose heads and trailers a test can write by hand.

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::http1::Response;
use e2e::{Act, Engine, Proxy, Upstream, wait_until};

use crate::bootstrap::{http_proxy, http_proxy_with};

const CALL: &str = "POST /pkg.Service/Method HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc\r\n\
                    te: trailers\r\ncontent-length: 5\r\n";

/// A call with an empty message and these further headers.
fn call(proxy: &Proxy, headers: &str) -> Result<Response> {
    let mut client = proxy.connect("entrance")?;
    client.send([format!("{CALL}{headers}\r\n").as_bytes(), &[0; 5]].concat())?;
    client.response()
}

fn status(response: &Response) -> (u16, Option<&str>, Option<&str>) {
    (response.status, response.header("grpc-status"), response.header("grpc-message"))
}

/// A gRPC answer over HTTP/1.1: a message, then a status in the trailers.
fn answer(message: &[u8], status: u8) -> Vec<u8> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    let mut out = format!("{head}{:x}\r\n", framed.len()).into_bytes();
    out.extend(framed);
    out.extend(format!("\r\n0\r\ngrpc-status: {status}\r\n\r\n").into_bytes());
    out
}

#[test]
fn answers_made_by_the_proxy_are_statuses() -> Result<()> {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    for engine in Engine::available() {
        let proxy = Proxy::start_engine(engine, &http_proxy(nobody))?;
        let response = call(&proxy, "")?;
        assert_eq!((response.status, response.header("grpc-status")), (200, Some("14")));
        let message = response.header("grpc-message").context("no message")?;
        assert!(message.starts_with("upstream connect error or disconnect/reset"), "{message}");
        assert_eq!(response.header("content-type"), Some("application/grpc"), "{engine:?}");
        assert_eq!(response.text(), "", "{engine:?}");

        let routes = http_proxy(nobody).replace(
            "route: { cluster: backend, timeout: 15s }",
            "direct_response: { status: 403, body: { inline_string: \"50% not ~allowed\" } }",
        );
        let proxy = Proxy::start_engine(engine, &routes)?;
        let found = call(&proxy, "")?;
        let expected = (200, Some("7"), Some("50%25 not %7Eallowed"));
        assert_eq!(status(&found), expected, "{engine:?}");
    }
    Ok(())
}

#[test]
fn deadlines_end_calls_and_are_told_to_the_upstream() -> Result<()> {
    for engine in Engine::available() {
        let upstream = Upstream::doing(|_| Act::Stall)?;
        let route = "max_stream_duration: { grpc_timeout_header_max: 0s, grpc_timeout_header_offset: 0.01s }";
        let proxy = Proxy::start_engine(engine, &http_proxy_with(upstream.port(), route, ""))?;
        let found = call(&proxy, "grpc-timeout: 200000u\r\n")?;
        assert_eq!((found.status, found.header("grpc-status")), (200, Some("4")), "{engine:?}");
        let received = upstream.received();
        assert_eq!(received[0].header("grpc-timeout"), Some("190m"), "{engine:?}");
    }
    Ok(())
}

#[test]
fn trailers_only_statuses_are_retried_and_counted() -> Result<()> {
    for engine in Engine::available() {
        let upstream = Upstream::doing(|request| {
            let first = request.header("x-envoy-attempt-count") == Some("1");
            if !first {
                return Act::Send(answer(b"", 0));
            }
            let refusal = "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: 14\r\ncontent-length: 0\r\n\r\n";
            Act::Send(refusal.as_bytes().to_vec())
        })?;
        let route = "retry_policy: { retry_on: unavailable, num_retries: 2 }";
        let bootstrap = http_proxy_with(upstream.port(), route, "")
            .replace("domains:", "include_request_attempt_count: true\n              domains:");
        let proxy = Proxy::start_engine(engine, &bootstrap)?;
        let found = call(&proxy, "")?;
        assert_eq!((found.status, found.header("grpc-status")), (200, None), "{engine:?}");
        assert_eq!(upstream.received().len(), 2, "{engine:?}");
        wait_until("a retry", || {
            let retries = proxy.stat("cluster.backend.upstream_rq_retry")?;
            Ok((retries == Some(1)).then_some(()))
        })?;
    }
    Ok(())
}

/// A bootstrap with one more filter, and trailers let through.
fn with_filter(port: u16, filter: &str) -> String {
    let trailers = "http_protocol_options: { enable_trailers: true }";
    http_proxy_with(port, "timeout: 15s", trailers)
        .replace(
            "          http_filters:\n",
            &format!("          http_filters:\n          - {filter}\n"),
        )
        .replace("    type: STATIC\n", &format!("    type: STATIC\n    {trailers}\n"))
}

#[test]
fn browsers_call_through_grpc_web() -> Result<()> {
    let filter = "{ name: web, typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb } }";
    for engine in Engine::available() {
        let upstream = Upstream::doing(|_| Act::Send(answer(b"hello", 0)))?;
        let proxy = Proxy::start_engine(engine, &with_filter(upstream.port(), filter))?;
        let mut client = proxy.connect("entrance")?;
        let message = [&[0, 0, 0, 0, 2][..], b"hi"].concat();
        let trailers = [&[0x80, 0, 0, 0, 15][..], b"grpc-status:0\r\n"].concat();
        let reply = [&[0, 0, 0, 0, 5][..], b"hello"].concat();

        client.send([format!("POST /pkg.Service/Method HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web+proto\r\ncontent-length: {}\r\n\r\n", message.len()).as_bytes(), &message].concat())?;
        let found = client.response()?;
        assert_eq!(found.header("content-type"), Some("application/grpc-web+proto"), "{engine:?}");
        assert_eq!(found.body, [reply.clone(), trailers.clone()].concat(), "{engine:?}");

        let text = STANDARD.encode(&message);
        client.send(format!("POST /pkg.Service/Method HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web-text\r\naccept: application/grpc-web-text\r\ncontent-length: {}\r\n\r\n{text}", text.len()))?;
        let found = client.response()?;
        let kind = Some("application/grpc-web-text+proto");
        assert_eq!(found.header("content-type"), kind, "{engine:?}");
        let expected = STANDARD.encode(&reply) + &STANDARD.encode(&trailers);
        assert_eq!(found.text(), expected, "{engine:?}");

        for request in upstream.received() {
            let kind = request.header("content-type").unwrap_or_default();
            assert!(matches!(kind, "application/grpc" | "application/grpc+proto"), "{engine:?}");
            assert_eq!(request.header("te"), Some("trailers"), "{engine:?}");
            assert_eq!(request.body, message, "{engine:?}");
        }
    }
    Ok(())
}

#[test]
fn what_is_no_grpc_becomes_a_status_for_browsers() -> Result<()> {
    let filter = "{ name: web, typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb } }";
    for engine in Engine::available() {
        let upstream = Upstream::doing(|_| Act::Answer(503, "<b>gone</b>".to_owned()))?;
        let proxy = Proxy::start_engine(engine, &with_filter(upstream.port(), filter))?;
        let mut client = proxy.connect("entrance")?;
        client.send("POST /pkg.Service/Method HTTP/1.1\r\nhost: a\r\ncontent-type: application/grpc-web+proto\r\ncontent-length: 0\r\n\r\n")?;
        let found = client.response()?;
        let expected = (503, Some("14"), Some("<b>gone</b>"));
        assert_eq!(status(&found), expected, "{engine:?}");
        assert_eq!(found.text(), "", "{engine:?}");
    }
    Ok(())
}

#[test]
fn calls_are_counted_by_method() -> Result<()> {
    let filter = "{ name: stats, typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig, stats_for_all_methods: true, enable_upstream_stats: true } }";
    for engine in Engine::available() {
        let upstream = Upstream::doing(|_| Act::Send(answer(b"hello", 5)))?;
        let proxy = Proxy::start_engine(engine, &with_filter(upstream.port(), filter))?;
        call(&proxy, "")?;
        call(&proxy, "")?;
        let base = "cluster.backend.grpc.pkg.Service.Method";
        let counts = [
            ("5", 2),
            ("failure", 2),
            ("total", 2),
            ("request_message_count", 2),
            ("response_message_count", 2),
        ];
        for (name, count) in counts {
            let name = format!("{base}.{name}");
            wait_until(&name, || Ok((proxy.stat(&name)? == Some(count)).then_some(())))
                .with_context(|| format!("{engine:?}"))?;
        }
        assert_eq!(proxy.stat(&format!("{base}.success"))?.unwrap_or(0), 0, "{engine:?}");
    }
    Ok(())
}

#[test]
fn access_logs_select_by_status() -> Result<()> {
    for engine in Engine::available() {
        let upstream = Upstream::doing(|request| {
            let status = if request.target().ends_with("Bad") { 13 } else { 0 };
            Act::Send(answer(b"", status))
        })?;
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let manager = format!(
            "http_protocol_options: {{ enable_trailers: true }}
access_log:
- name: f
  filter: {{ and_filter: {{ filters: [ {{ grpc_status_filter: {{ statuses: [INTERNAL] }} }}, {{ log_type_filter: {{ types: [DownstreamEnd] }} }} ] }} }}
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
    path: {}
    log_format: {{ text_format_source: {{ inline_string: \"%REQ(:PATH)% %GRPC_STATUS% %GRPC_STATUS_NUMBER%\\n\" }} }}",
            log.display()
        );
        let bootstrap = http_proxy_with(upstream.port(), "timeout: 15s", &manager).replace(
            "    type: STATIC\n",
            "    type: STATIC\n    http_protocol_options: { enable_trailers: true }\n",
        );
        let flush = ["--file-flush-interval-msec", "50"];
        let proxy = Proxy::start_with(engine, &bootstrap, &flush)?;
        let mut client = proxy.connect("entrance")?;
        for method in ["Good", "Bad", "Good"] {
            let head = CALL.replace("Method", method);
            client.send([format!("{head}\r\n").as_bytes(), &[0; 5]].concat())?;
            client.response()?;
        }
        let text = wait_until("a line", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            Ok((!text.is_empty()).then_some(text))
        })?;
        assert_eq!(text, "/pkg.Service/Bad Internal 13\n", "{engine:?}");
    }
    Ok(())
}
