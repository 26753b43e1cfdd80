//! What routes say of filters, and of copies of their requests, beside the real Envoy.

use anyhow::{Context, Result};
use e2e::{Engine, Proxy, Upstream, wait_until};

use crate::bootstrap::{cluster, http_proxy, http_proxy_with};

const LIMIT: &str =
    "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
const CORS: &str = "type.googleapis.com/envoy.extensions.filters.http.cors.v3";

fn with_filter(bootstrap: &str, filter: &str) -> String {
    let filters = "          http_filters:\n";
    bootstrap.replace(filters, &format!("{filters}          - {filter}\n"))
}

/// The route in its long form, with more fields.
fn with_route_fields(bootstrap: &str, fields: &str) -> String {
    let match_line = "              - match: { prefix: \"/\" }\n";
    bootstrap.replace(match_line, &format!("{match_line}                {fields}\n"))
}

#[test]
fn requests_beyond_the_bucket_are_refused_and_routes_have_their_own() -> Result<()> {
    let always = "{ default_value: { numerator: 100 } }";
    let bucket = |tokens: u32| {
        format!(
            "stat_prefix: limited, token_bucket: {{ max_tokens: {tokens}, fill_interval: 3600s }}, filter_enabled: {always}, filter_enforced: {always}, response_headers_to_add: [{{ header: {{ key: x-limited, value: \"yes\" }} }}]"
        )
    };
    let filter = format!("{{ name: limit, typed_config: {{ '@type': {LIMIT}, {} }} }}", bucket(2));
    let own =
        format!("typed_per_filter_config: {{ limit: {{ '@type': {LIMIT}, {} }} }}", bucket(1));
    let off = "typed_per_filter_config: { limit: { '@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true } }";
    for engine in Engine::available() {
        let upstream = Upstream::saying("x")?;
        let plain = with_filter(&http_proxy(upstream.port()), &filter);
        let cases = [
            (plain.clone(), [200, 200, 429, 429]),
            (with_route_fields(&plain, &own), [200, 429, 429, 429]),
            (with_route_fields(&plain, off), [200, 200, 200, 200]),
        ];
        for (bootstrap, expected) in cases {
            let proxy = Proxy::start_engine(engine, &bootstrap)?;
            let mut client = proxy.connect("entrance")?;
            for status in expected {
                let found = client.get("a", "/")?;
                assert_eq!(found.status, status, "{engine:?}");
                if status == 429 {
                    assert_eq!(found.text(), "local_rate_limited", "{engine:?}");
                    assert_eq!(found.header("x-limited"), Some("yes"), "{engine:?}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_filter_that_is_off_is_switched_on_by_a_route() -> Result<()> {
    let always = "{ default_value: { numerator: 100 } }";
    let filter = format!(
        "{{ name: limit, disabled: true, typed_config: {{ '@type': {LIMIT}, stat_prefix: x, token_bucket: {{ max_tokens: 1, fill_interval: 3600s }}, filter_enabled: {always}, filter_enforced: {always} }} }}"
    );
    let on = "typed_per_filter_config: { limit: { '@type': type.googleapis.com/envoy.config.route.v3.FilterConfig, config: {} } }";
    for engine in Engine::available() {
        let upstream = Upstream::saying("x")?;
        let off = with_filter(&http_proxy(upstream.port()), &filter);
        for (bootstrap, second) in [(off.clone(), 200), (with_route_fields(&off, on), 429)] {
            let proxy = Proxy::start_engine(engine, &bootstrap)?;
            let mut client = proxy.connect("entrance")?;
            assert_eq!(client.get("a", "/")?.status, 200, "{engine:?}");
            assert_eq!(client.get("a", "/")?.status, second, "{engine:?}");
        }
    }
    Ok(())
}

#[test]
fn requests_are_delayed_and_aborted_as_configured_or_asked_for() -> Result<()> {
    const FAULT: &str = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault";
    let always = "percentage: { numerator: 100 }";
    let faults = format!(
        "headers: [{{ name: x-who, string_match: {{ exact: me }} }}], delay: {{ header_delay: {{}}, {always} }}, abort: {{ header_abort: {{}}, {always} }}"
    );
    let filter = format!("{{ name: fault, typed_config: {{ '@type': {FAULT}, {faults} }} }}");
    let of_route = format!(
        "typed_per_filter_config: {{ fault: {{ '@type': {FAULT}, abort: {{ http_status: 418, {always} }} }} }}"
    );
    for engine in Engine::available() {
        let upstream = Upstream::saying("x")?;
        let asked = with_filter(&http_proxy(upstream.port()), &filter);
        let proxy = Proxy::start_engine(engine, &asked)?;
        let mut client = proxy.connect("entrance")?;
        let mut get = |headers: &str| -> Result<(u16, String)> {
            client.send(format!("GET / HTTP/1.1\r\nhost: a\r\n{headers}\r\n"))?;
            let answer = client.response()?;
            Ok((answer.status, answer.text()))
        };
        assert_eq!(get("x-envoy-fault-abort-request: 503\r\n")?.0, 200, "{engine:?}: not me");
        assert_eq!(get("x-who: me\r\n")?.0, 200, "{engine:?}: nothing is asked for");
        let abort = "x-who: me\r\nx-envoy-fault-abort-request: 503\r\n";
        assert_eq!(get(abort)?, (503, "fault filter abort".to_owned()), "{engine:?}");
        let began = std::time::Instant::now();
        let delay = "x-who: me\r\nx-envoy-fault-delay-request: 200\r\n";
        assert_eq!(get(delay)?.0, 200, "{engine:?}");
        assert!(began.elapsed() >= std::time::Duration::from_millis(200), "{engine:?}");
        let both = format!("{delay}x-envoy-fault-abort-request: 429\r\n");
        assert_eq!(get(&both)?.0, 429, "{engine:?}: a delay may be followed by an abort");
        for (name, count) in [("aborts_injected", 2), ("delays_injected", 2), ("active_faults", 0)]
        {
            let name = format!("http.entrance.fault.{name}");
            assert_eq!(proxy.stat(&name)?, Some(count), "{engine:?}: {name}");
        }
        let own = Proxy::start_engine(engine, &with_route_fields(&asked, &of_route))?;
        assert_eq!(own.connect("entrance")?.get("a", "/")?.status, 418, "{engine:?}");
        assert_eq!(own.stat("http.entrance.fault.aborts_injected")?, Some(1), "{engine:?}");
    }
    Ok(())
}

#[test]
fn browsers_of_listed_origins_may_read_answers() -> Result<()> {
    let filter =
        format!("{{ name: envoy.filters.http.cors, typed_config: {{ '@type': {CORS}.Cors }} }}");
    let policy = format!(
        "typed_per_filter_config: {{ envoy.filters.http.cors: {{ '@type': {CORS}.CorsPolicy, allow_origin_string_match: [{{ exact: \"https://good.example\" }}], allow_methods: \"GET, PUT\", expose_headers: x-own, max_age: \"60\" }} }}"
    );
    for engine in Engine::available() {
        let upstream = Upstream::saying("x")?;
        let bootstrap = with_filter(&http_proxy(upstream.port()), &filter);
        let proxy = Proxy::start_engine(engine, &with_route_fields(&bootstrap, &policy))?;
        let mut client = proxy.connect("entrance")?;
        let mut ask = |method: &str, headers: &str| {
            client.send(format!("{method} / HTTP/1.1\r\nhost: a\r\n{headers}\r\n"))?;
            client.response()
        };
        let preflight = "access-control-request-method: PUT\r\n";
        let good = "origin: https://good.example\r\n";
        let found = ask("OPTIONS", &format!("{good}{preflight}"))?;
        assert_eq!(found.status, 200, "{engine:?}");
        assert_eq!(found.header("access-control-allow-origin"), Some("https://good.example"));
        assert_eq!(found.header("access-control-allow-methods"), Some("GET, PUT"), "{engine:?}");
        assert_eq!(found.header("access-control-max-age"), Some("60"), "{engine:?}");
        assert_eq!(upstream.received().len(), 0, "{engine:?}: answered by the proxy");
        let found = ask("GET", good)?;
        assert_eq!(found.header("access-control-allow-origin"), Some("https://good.example"));
        assert_eq!(found.header("access-control-expose-headers"), Some("x-own"), "{engine:?}");
        let found = ask("GET", "origin: https://bad.example\r\n")?;
        assert_eq!(found.status, 200, "{engine:?}");
        assert_eq!(found.header("access-control-allow-origin"), None, "{engine:?}");
        assert_eq!(proxy.stat("http.entrance.cors.origin_invalid")?, Some(1), "{engine:?}");
    }
    Ok(())
}

#[test]
fn copies_of_requests_go_to_the_mirror_and_nobody_waits_for_them() -> Result<()> {
    for engine in Engine::available() {
        let upstream = Upstream::saying("mine")?;
        let mirror = Upstream::doing(|_| e2e::Act::Answer(500, "nobody reads this".to_owned()))?;
        let route = "request_mirror_policies: [{ cluster: mirror }]";
        let bootstrap =
            http_proxy_with(upstream.port(), route, "") + &cluster("mirror", mirror.port());
        let proxy = Proxy::start_engine(engine, &bootstrap)?;
        let mut client = proxy.connect("entrance")?;
        assert_eq!(client.get("a:80", "/get?x=1")?.text(), "mine", "{engine:?}");
        client.send("POST /post HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody")?;
        assert_eq!(client.response()?.text(), "mine", "{engine:?}");
        let copies = wait_until("two copies", || {
            let received = mirror.received();
            Ok((received.len() == 2).then_some(received))
        })
        .with_context(|| format!("{engine:?}"))?;
        let get = copies.iter().find(|it| it.target() == "/get?x=1").context("no GET")?;
        assert_eq!(get.header("host"), Some("a-shadow:80"), "{engine:?}");
        let post = copies.iter().find(|it| it.target() == "/post").context("no POST")?;
        assert_eq!(post.body, b"body", "{engine:?}");
        assert_eq!(upstream.received().len(), 2, "{engine:?}");
    }
    Ok(())
}

#[test]
fn an_attempt_that_falls_silent_is_given_up_and_made_again() -> Result<()> {
    for engine in Engine::available() {
        let upstream = Upstream::doing(|request| {
            match request.header("x-envoy-attempt-count") == Some("1") {
                true => e2e::Act::Stall,
                false => e2e::Act::Answer(200, "again".to_owned()),
            }
        })?;
        let route = "retry_policy: { retry_on: 5xx, num_retries: 1, per_try_idle_timeout: 0.2s }";
        let bootstrap = http_proxy_with(upstream.port(), route, "")
            .replace("domains:", "include_request_attempt_count: true\n              domains:");
        let proxy = Proxy::start_engine(engine, &bootstrap)?;
        assert_eq!(proxy.connect("entrance")?.get("a", "/")?.text(), "again", "{engine:?}");
        let idle = proxy.stat("cluster.backend.upstream_rq_per_try_idle_timeout")?;
        assert_eq!(idle, Some(1), "{engine:?}");
    }
    Ok(())
}
