//! One proxy, one upstream: what a first user of `outrigger proxy -c` sees, compared with the real Envoy.

use std::process::Command;

use anyhow::{Context, Result};
use e2e::proxy::validate;
use e2e::{Act, Connection, Engine, Proxy, Upstream};

use crate::bootstrap::{http_proxy, http_proxy_with};

#[test]
fn a_request_goes_through_and_comes_back_as_with_envoy() -> Result<()> {
    for engine in Engine::available() {
        let upstream = Upstream::doing(|_| {
            Act::Send(
                b"HTTP/1.1 200 OK\r\nServer: mine\r\nX-Own: 1\r\nContent-Length: 5\r\n\r\nhello"
                    .to_vec(),
            )
        })?;
        let proxy = Proxy::start_engine(engine, &http_proxy(upstream.port()))?;
        let mut client = proxy.connect("entrance")?;
        for _ in 0..3 {
            let response = client.get("example.com", "/a?b=c")?;
            assert_eq!((response.status, response.text().as_str()), (200, "hello"), "{engine:?}");
            assert_eq!(response.header("server"), Some("envoy"), "{engine:?}");
            assert_eq!(response.header("x-own"), Some("1"), "{engine:?}");
            assert!(response.header("x-envoy-upstream-service-time").is_some(), "{engine:?}");
        }
        let received = upstream.received();
        assert_eq!(received.len(), 3);
        let request = &received[0];
        assert_eq!(request.target(), "/a?b=c");
        assert_eq!(request.header("host"), Some("example.com"));
        assert_eq!(
            request.header("x-forwarded-proto"),
            Some("http"),
            "{engine:?}: {}",
            request.head
        );
        assert_eq!(
            request.header("x-request-id").map(str::len),
            Some(36),
            "{engine:?}: {}",
            request.head
        );
        assert_eq!(
            request.header("x-envoy-expected-rq-timeout-ms"),
            Some("15000"),
            "{engine:?}: {}",
            request.head
        );
    }
    Ok(())
}

#[test]
fn curl_is_served() -> Result<()> {
    let upstream = Upstream::saying("served")?;
    let proxy = Proxy::start(&http_proxy(upstream.port()))?;
    let url = format!("http://{}/x", proxy.listener("entrance")?);
    let done =
        Command::new("curl").args(["-sS", "-d", "a=b", "-w", " %{http_code}", &url]).output()?;
    assert_eq!(String::from_utf8_lossy(&done.stdout), "served 200");
    assert_eq!(upstream.received()[0].body, b"a=b");
    Ok(())
}

#[test]
fn statistics_have_envoys_names() -> Result<()> {
    for engine in Engine::available() {
        let upstream = Upstream::saying("x")?;
        let proxy = Proxy::start_engine(engine, &http_proxy(upstream.port()))?;
        let mut client = proxy.connect("entrance")?;
        client.get("a", "/")?;
        client.get("a", "/")?;
        let names = [
            "http.entrance.downstream_rq_total",
            "http.entrance.downstream_rq_2xx",
            "cluster.backend.upstream_rq_total",
            "cluster.backend.upstream_rq_200",
        ];
        for name in names {
            // Counted when the response is, which the client may see a moment before the statistics do.
            e2e::wait_until(name, || Ok((proxy.stat(name)? == Some(2)).then_some(())))
                .with_context(|| format!("{engine:?}"))?;
        }
        assert_eq!(proxy.stat("cluster.backend.upstream_cx_total")?, Some(1), "{engine:?}");
        assert_eq!(proxy.stat("http.entrance.downstream_cx_active")?, Some(1), "{engine:?}");
    }
    Ok(())
}

#[test]
fn a_bad_configuration_is_refused_with_its_place() -> Result<()> {
    let good = http_proxy(1);
    let done = validate(Engine::Outrigger, &good)?;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stdout).contains("configuration '"), "{done:?}");

    let misspelt = good.replace("route_config:", "route_confg:");
    let done = validate(Engine::Outrigger, &misspelt)?;
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{said}");
    for part in ["route_confg", "route_config", "bootstrap.yaml", "listeners[0]"] {
        assert!(said.contains(part), "no `{part}` in: {said}");
    }
    // Every error at once, not only the first.
    let twice = misspelt.replace("lb_policy: ROUND_ROBIN", "lb_policy: ROUND_ROBBIN");
    let said = String::from_utf8_lossy(&validate(Engine::Outrigger, &twice)?.stderr).into_owned();
    assert!(said.contains("route_confg") && said.contains("ROUND_ROBBIN"), "{said}");

    let unsupported = good.replace(
        "envoy.extensions.filters.http.router.v3.Router",
        "envoy.extensions.filters.http.no_such.v3.Thing",
    );
    let said =
        String::from_utf8_lossy(&validate(Engine::Outrigger, &unsupported)?.stderr).into_owned();
    assert!(said.contains("http_filters[0]") && said.contains("no_such"), "{said}");
    Ok(())
}

/// Each way an upstream can fail has Envoy's status, details and response flag.
#[test]
fn upstream_failures_are_told_as_envoy_tells_them() -> Result<()> {
    struct Case {
        name: &'static str,
        act: Act,
        status: u16,
        flag: &'static str,
    }
    let cases = [
        Case {
            name: "reset before an answer",
            act: Act::SendAndReset(Vec::new()),
            status: 503,
            flag: "UC",
        },
        Case {
            name: "closed before an answer",
            act: Act::SendAndClose(Vec::new()),
            status: 503,
            flag: "UC",
        },
        Case { name: "never answers", act: Act::Stall, status: 504, flag: "UT" },
        Case {
            name: "nonsense",
            act: Act::Send(b"SMTP ready\r\n\r\n".to_vec()),
            status: 502,
            flag: "UPE",
        },
    ];
    for engine in Engine::available() {
        for Case { name, act, status, flag } in &cases {
            let act = act.clone();
            let upstream = Upstream::doing(move |_| act.clone())?;
            let text = http_proxy_with(
                upstream.port(),
                "timeout: 0.5s",
                &access_log("%RESPONSE_CODE% %RESPONSE_FLAGS%\n"),
            );
            let proxy = Proxy::start_engine(engine, &text)?;
            let response = proxy
                .connect("entrance")?
                .get("a", "/")
                .with_context(|| format!("{engine:?}, {name}"))?;
            assert_eq!(response.status, *status, "{engine:?}, {name}: {}", response.text());
            logged(&proxy, &format!("{status} {flag}"))
                .with_context(|| format!("{engine:?}, {name}"))?;
        }
        let text = http_proxy_with(
            refusing_port()?,
            "timeout: 5s",
            &access_log("%RESPONSE_CODE% %RESPONSE_FLAGS%\n"),
        );
        let proxy = Proxy::start_engine(engine, &text)?;
        let response = proxy.connect("entrance")?.get("a", "/")?;
        assert_eq!(response.status, 503, "{engine:?}");
        logged(&proxy, "503 UF")?;
    }
    Ok(())
}

#[test]
fn an_upstream_that_ends_within_its_body_ends_the_client_too() -> Result<()> {
    for engine in Engine::available() {
        let upstream = Upstream::doing(|_| {
            Act::SendAndClose(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart".to_vec())
        })?;
        let proxy = Proxy::start_engine(engine, &http_proxy(upstream.port()))?;
        let mut client = proxy.connect("entrance")?;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n")?;
        assert_eq!(client.head()?.0, 200, "{engine:?}");
        assert_eq!(client.until_end()?, b"part", "{engine:?}");
    }
    Ok(())
}

#[test]
fn a_kept_upstream_connection_that_closes_is_noticed_before_it_is_used_again() -> Result<()> {
    let upstream = Upstream::saying("x")?;
    let proxy = Proxy::start(&http_proxy(upstream.port()))?;
    let mut client = proxy.connect("entrance")?;
    for round in 1..=20_u64 {
        assert_eq!(client.get("a", "/")?.status, 200, "round {round}");
        upstream.close_connections();
        let gone = "cluster.backend.upstream_cx_active";
        e2e::wait_until("the close to be noticed", || {
            Ok((proxy.stat(gone)? == Some(0)).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn pipelined_requests_are_answered_in_order() -> Result<()> {
    for engine in Engine::available() {
        let upstream = Upstream::doing(|request| Act::Answer(200, request.target().to_owned()))?;
        let proxy = Proxy::start_engine(engine, &http_proxy(upstream.port()))?;
        let mut client: Connection = proxy.connect("entrance")?;
        let requests: String =
            (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n")).collect();
        client.send(requests)?;
        for n in 0..20 {
            assert_eq!(client.response()?.text(), format!("/{n}"), "{engine:?}");
        }
    }
    Ok(())
}

fn access_log(format: &str) -> String {
    format!(
        "access_log:\n- name: file\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog\n    path: /dev/stdout\n    log_format: {{ text_format_source: {{ inline_string: {format:?} }} }}\n"
    )
}

/// Waits until the access log, which goes to the proxy's output, has this line.
fn logged(proxy: &Proxy, line: &str) -> Result<()> {
    e2e::wait_until(&format!("`{line}` in the access log"), || {
        let output = proxy.process.output();
        let found = output.lines().any(|l| l == line);
        if found { Ok(Some(())) } else { anyhow::bail!("{output}") }
    })
}

/// A port that nothing listens on.
fn refusing_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
