//! Active health checks beside the real Envoy: who is asked what, and what the answers do to traffic.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use e2e::{Act, Engine, Proxy, Upstream, wait_until};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Bytes, Service, http};
use tonic::transport::server::TcpIncoming;

use crate::bootstrap::http_proxy;
use crate::grpc::bytes_codec::BytesCodec;

/// Answers requests with its name, and checks with 200 as long as it is told to.
fn host(name: &'static str) -> Result<(Upstream, Arc<AtomicBool>)> {
    let healthy = Arc::new(AtomicBool::new(true));
    let tells = Arc::clone(&healthy);
    let upstream = Upstream::doing(move |request| match request.target() {
        "/healthz" if tells.load(Ordering::Relaxed) => Act::Answer(200, "fine".to_owned()),
        "/healthz" => Act::Answer(503, "ill".to_owned()),
        _ => Act::Answer(200, name.to_owned()),
    })?;
    Ok((upstream, healthy))
}

/// Two endpoints, checked as `check` says.
fn bootstrap(ports: [u16; 2], check: &str) -> String {
    let endpoint = |port: u16| {
        format!(
            "        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}\n"
        )
    };
    let one = endpoint(ports[0]);
    http_proxy(ports[0])
        .replace(one.trim_end(), &format!("{one}{}", endpoint(ports[1]).trim_end()))
        .replace(
            "    type: STATIC\n",
            &format!(
                "    type: STATIC\n    common_lb_config: {{ healthy_panic_threshold: {{ value: 0 }} }}\n    health_checks:\n    - {{ timeout: 1s, interval: 0.05s, no_traffic_interval: 0.05s, {check} }}\n"
            ),
        )
}

/// Who answers a few requests.
fn answering(proxy: &Proxy) -> Result<BTreeSet<String>> {
    let mut client = proxy.connect("entrance")?;
    (0..6).map(|_| Ok(client.get("a", "/")?.text())).collect()
}

#[test]
fn a_host_that_fails_its_checks_gets_no_requests_until_it_passes_again() -> Result<()> {
    let check = "unhealthy_threshold: 2, healthy_threshold: 2, http_health_check: { path: /healthz, host: checked.example, request_headers_to_add: [{ header: { key: x-check, value: \"1\" } }], expected_statuses: [{ start: 200, end: 201 }], retriable_statuses: [{ start: 500, end: 600 }] }";
    for engine in Engine::available() {
        let (one, _) = host("one")?;
        let (two, two_is_healthy) = host("two")?;
        let proxy = Proxy::start_engine(engine, &bootstrap([one.port(), two.port()], check))?;
        let until = |what: &str, expected: &[&str]| {
            let expected: BTreeSet<String> = expected.iter().map(|it| (*it).to_owned()).collect();
            wait_until(what, || Ok((answering(&proxy)? == expected).then_some(())))
                .with_context(|| format!("{engine:?}"))
        };
        until("both", &["one", "two"])?;
        two_is_healthy.store(false, Ordering::Relaxed);
        until("one alone", &["one"])?;
        let clusters = proxy.admin_get("/clusters")?.text();
        let flags = format!("backend::127.0.0.1:{}::health_flags::/failed_active_hc", two.port());
        assert!(clusters.contains(&flags), "{engine:?}: {clusters}");
        wait_until("statistics", || {
            let healthy = proxy.stat("cluster.backend.health_check.healthy")?;
            let failure = proxy.stat("cluster.backend.health_check.failure")?;
            let members = proxy.stat("cluster.backend.membership_healthy")?;
            let is = healthy == Some(1) && failure.unwrap_or(0) >= 2 && members == Some(1);
            Ok(is.then_some(()))
        })?;
        two_is_healthy.store(true, Ordering::Relaxed);
        until("both again", &["one", "two"])?;

        let asked = two.received().into_iter().find(|it| it.target() == "/healthz");
        let asked = asked.context("never asked")?;
        assert_eq!(asked.header("host"), Some("checked.example"), "{engine:?}");
        assert_eq!(asked.header("user-agent"), Some("Envoy/HC"), "{engine:?}");
        assert_eq!(asked.header("x-check"), Some("1"), "{engine:?}");
    }
    Ok(())
}

#[test]
fn tcp_hosts_say_what_is_expected_or_are_left_out() -> Result<()> {
    // "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n" and "200", in hexadecimal.
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let check = format!(
        "unhealthy_threshold: 1, healthy_threshold: 1, reuse_connection: false, tcp_health_check: {{ send: {{ text: \"{}\" }}, receive: [{{ text: \"{}\" }}] }}",
        hex("GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"),
        hex("200")
    );
    for engine in Engine::available() {
        let (one, _) = host("one")?;
        let two = Upstream::doing(|request| match request.target() {
            "/healthz" => Act::SendAndClose(b"no such thing".to_vec()),
            _ => Act::Answer(200, "two".to_owned()),
        })?;
        let proxy = Proxy::start_engine(engine, &bootstrap([one.port(), two.port()], &check))?;
        wait_until("one alone", || {
            Ok((answering(&proxy)? == BTreeSet::from(["one".to_owned()])).then_some(()))
        })
        .with_context(|| format!("{engine:?}"))?;
        let failures = proxy.stat("cluster.backend.health_check.network_failure")?;
        assert!(failures.unwrap_or(0) >= 1, "{engine:?}");
    }
    Ok(())
}

/// `grpc.health.v1.Health`, which serves `pkg.Service` as long as it is told to.
#[derive(Clone)]
struct Health(Arc<AtomicBool>);

impl tonic::server::NamedService for Health {
    const NAME: &'static str = "grpc.health.v1.Health";
}

impl Service<http::Request<Body>> for Health {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let serves = Arc::clone(&self.0);
        let check = move |request: tonic::Request<Bytes>| {
            let serves = serves.load(Ordering::Relaxed);
            async move {
                // `service: "pkg.Service"`, then `status: SERVING` or `NOT_SERVING`.
                if request.into_inner() != b"\x0a\x0bpkg.Service"[..] {
                    return Err(tonic::Status::not_found("no such service"));
                }
                Ok(tonic::Response::new(Bytes::from(vec![8, if serves { 1 } else { 2 }])))
            }
        };
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(BytesCodec);
            Ok(grpc.unary(tower::service_fn(check), request).await)
        })
    }
}

#[test]
fn grpc_hosts_say_that_they_serve() -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let serves = Arc::new(AtomicBool::new(true));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let port = listener.local_addr()?.port();
    let server = tonic::transport::Server::builder().add_service(Health(Arc::clone(&serves)));
    runtime.spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    let check = "health_checks: [{ timeout: 1s, interval: 0.05s, no_traffic_interval: 0.05s, unhealthy_threshold: 1, healthy_threshold: 1, grpc_health_check: { service_name: pkg.Service } }]\n    http2_protocol_options: {}";
    for engine in Engine::available() {
        serves.store(true, Ordering::Relaxed);
        let bootstrap = http_proxy(port)
            .replace("    type: STATIC\n", &format!("    type: STATIC\n    {check}\n"));
        let proxy = Proxy::start_engine(engine, &bootstrap)?;
        let until = |flags: &str| {
            let line = format!("backend::127.0.0.1:{port}::health_flags::{flags}");
            wait_until(flags, || {
                let text = proxy.admin_get("/clusters")?.text();
                Ok(text.lines().any(|it| it == line).then_some(()))
            })
            .with_context(|| format!("{engine:?}"))
        };
        until("healthy")?;
        serves.store(false, Ordering::Relaxed);
        until("/failed_active_hc")?;
        serves.store(true, Ordering::Relaxed);
        until("healthy")?;
    }
    Ok(())
}
