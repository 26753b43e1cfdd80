//! Statistics beside Envoy's: the same configuration and the same traffic give the same numbers under the same names.

use std::collections::BTreeMap;

use anyhow::Result;
use e2e::certificates::Authority;
use e2e::upstream::Act;
use e2e::wait::wait_until;
use e2e::{Engine, Proxy, Upstream};
use tempfile::TempDir;

use crate::bootstrap::indent;
use crate::tls::{ALICE, BOB, client_tls, curl, path, require_client, server_tls};

/// What this is about: the statistics of traffic. Those of the process are its own.
const COMPARED: [&str; 4] = ["cluster.", "http.ingress.", "listener.plain.", "listener.secure."];

/// Envoy's statistics, by a part of their names, of what is not there to be counted.
const NOT_COUNTED: &[&str] = &[
    "_0_rtt",
    "_0rtt",
    "http3",
    "ocsp_staple",
    "sigalgs",
    "ssl.certificate.",
    "_ssl_socket_factory.",
    "lb_subsets_",
    "lb_zone_",
    "lb_local_cluster",
    "lb_recalculate",
    "assignment_",
    "bind_errors",
    "cx_pool_open",
    "cx_pool_overflow",
    "remaining_cx_pools",
    "total_match_count",
    "original_dst_",
    "internal_redirect",
    "preconnect",
    "queue_overloaded",
    "overload",
    "active_overflow",
    "maintenance_mode",
    "max_duration_reached",
    "idle_timeout",
    "ratelimited",
    "rx_reset_no_error",
    ".version",
    "flow_control_backed_up",
    "flow_control_drained",
    ".http1.",
    "connect_attempts_exceeded",
    ".tracing.",
    "upgrades_",
    "ip_detection",
    "too_large",
    "premature_resets",
    "soft_drain",
    "worker_0.",
    "per_socket_event",
    "global_cx_overflow",
    "extension_config_missing",
    // What a handshake agrees on is the libraries' choice.
    "ssl.ciphers.",
    "ssl.curves.",
    "ssl.versions.",
    ".external.",
    ".internal.",
];

/// What differs, and why.
const DIFFERENT: &[(&str, &str)] = &[
    ("_buffered", "of a moment"),
    ("max_host_weight", "Envoy does not set it for static clusters"),
    (
        "rq_redirect",
        "Envoy counts a redirect as a direct response alone; so do we, and as what it is",
    ),
    ("downstream_cx_tx_bytes_total", "answers name their server"),
    (
        "http.ingress.downstream_cx_ssl_total",
        "Envoy's connection manager is there before the handshake, ours after",
    ),
    ("http.ingress.downstream_cx_total", "the same"),
    ("http.ingress.downstream_cx_destroy", "the same"),
    ("delayed_close", "a race with the client"),
    ("ssl.ciphers", "rustls and BoringSSL prefer others"),
    ("ssl.curves", "the same"),
    ("ssl.versions", "Envoy's client speaks TLS 1.2 unless it is told"),
    ("update_attempt", "resolvers have their own pace"),
    ("update_success", "the same"),
    ("update_no_rebuild", "the same"),
];

#[test]
fn the_same_traffic_gives_envoys_numbers() -> Result<()> {
    let engines = Engine::available();
    if engines.len() < 2 {
        return Ok(());
    }
    let (ours, envoys) = (numbers_of(engines[0])?, numbers_of(engines[1])?);
    let is_one_of = |name: &str, parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let lacking: Vec<_> = envoys
        .keys()
        .filter(|name| !ours.contains_key(*name) && !is_one_of(name, NOT_COUNTED))
        .collect();
    assert!(lacking.is_empty(), "Envoy counts, and we do not: {lacking:#?}");
    let excused: Vec<&str> = DIFFERENT.iter().map(|(part, _)| *part).collect();
    let different: Vec<_> = envoys
        .iter()
        .filter(|(name, _)| !is_one_of(name, &excused))
        .filter_map(|(name, theirs)| Some((name, theirs, ours.get(name)?)))
        .filter(|(_, theirs, ours)| theirs != ours)
        .collect();
    assert!(different.is_empty(), "name, Envoy's, ours: {different:#?}");
    // The traffic was what it should be.
    for (name, value) in [
        ("cluster.dead.upstream_rq_503", 1),
        ("cluster.back.upstream_rq_504", 1),
        ("cluster.back.circuit_breakers.default.remaining_cx", 10),
        ("listener.secure.ssl.fail_verify_no_cert", 1),
        ("listener.secure.ssl.fail_verify_san", 1),
        ("listener.secure.ssl.fail_verify_error", 1),
        ("cluster.wrong.ssl.fail_verify_san", 1),
    ] {
        assert_eq!(ours.get(name), Some(&value), "{name}");
    }
    Ok(())
}

/// Runs the traffic through a proxy, and reads what it counted.
fn numbers_of(engine: Engine) -> Result<BTreeMap<String, i64>> {
    let folder = TempDir::new()?;
    let authority = Authority::new(folder.path(), "ca")?;
    let strangers = Authority::new(folder.path(), "strangers")?;
    let server = authority.issue("server", &["a.example", BOB])?;
    let alice = authority.issue("alice", &[ALICE])?;
    let bob = authority.issue("bob", &[BOB])?;
    let stranger = strangers.issue("stranger", &[ALICE])?;
    let back = Upstream::doing(|request| match request.target() {
        "/slow" => Act::Stall,
        "/missing" => Act::Answer(404, "nothing".to_owned()),
        _ => Act::Answer(200, "hello".to_owned()),
    })?;
    let secure = server_tls(&server, &require_client(folder.path(), ALICE));
    let inner =
        Proxy::start(&bootstrap(&listener("inner", &secure), &cluster("back", NOBODY, "")))?;
    let inner = inner.listener("inner").map(|address| (address.port(), inner))?;
    let towards = |name| client_tls(&alice, folder.path(), name);
    let clusters = [
        cluster("back", back.port(), LIMITS),
        cluster("dead", NOBODY, ""),
        cluster("good", inner.0, &towards(BOB)),
        cluster("wrong", inner.0, &towards(ALICE)),
    ];
    let listeners = [listener("plain", ""), listener("secure", &secure)];
    let proxy = Proxy::start_engine(engine, &bootstrap(&listeners.concat(), &clusters.concat()))?;

    for (target, status) in [
        ("/", 200),
        ("/missing", 404),
        ("/direct", 200),
        ("/redirect", 301),
        ("/dead", 503),
        ("/slow", 504),
        ("/good", 200),
        ("/wrong", 503),
        ("/none", 503),
    ] {
        let response = proxy.connect("plain")?.get("a.example", target)?;
        assert_eq!(response.status, status, "{engine:?} {target}: {}", response.text());
    }
    let mut nonsense = proxy.connect("plain")?;
    nonsense.send("nonsense\r\n\r\n")?;
    assert_eq!(nonsense.response()?.status, 400, "{engine:?}");
    drop(nonsense);
    let authority_file = folder.path().join("ca.pem");
    for (client, is_let_in) in
        [(Some(&alice), true), (Some(&bob), false), (Some(&stranger), false), (None, false)]
    {
        let arguments = client.map_or(Vec::new(), |client| {
            vec!["--cert", path(&client.certificate), "--key", path(&client.key)]
        });
        let done = curl(proxy.listener("secure")?, "a.example", &authority_file, &arguments)?;
        assert_eq!(done.status.success(), is_let_in, "{engine:?}: {done:?}");
    }
    wait_until("all clients to be gone", || {
        Ok((proxy.stat("http.ingress.downstream_cx_active")? == Some(0)).then_some(()))
    })?;
    let text = proxy.admin_get("/stats")?.text();
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    let wanted = lines.filter(|(name, _)| COMPARED.iter().any(|scope| name.starts_with(scope)));
    Ok(wanted.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
}

/// A port at which nobody answers.
const NOBODY: u16 = 1;

/// Of the cluster `back`.
const LIMITS: &str = "circuit_breakers: { thresholds: [{ max_connections: 11, max_requests: 8, track_remaining: true }] }\n";

fn bootstrap(listeners: &str, clusters: &str) -> String {
    format!("static_resources:\n  listeners:\n{listeners}  clusters:\n{clusters}")
}

fn cluster(name: &str, port: u16, more: &str) -> String {
    crate::bootstrap::cluster(name, port) + &indent(more, 4)
}

fn listener(name: &str, transport_socket: &str) -> String {
    let to = |path: &str, cluster: &str, more: &str| {
        format!(
            "            - {{ match: {{ prefix: {path} }}, route: {{ cluster: {cluster}{more} }} }}\n"
        )
    };
    let routes = [
        "            - { match: { prefix: /direct }, direct_response: { status: 200 } }\n"
            .to_owned(),
        "            - { match: { prefix: /redirect }, redirect: { path_redirect: / } }\n"
            .to_owned(),
        to("/dead", "dead", ""),
        to("/good", "good", ", prefix_rewrite: /direct"),
        to("/wrong", "wrong", ""),
        to("/none", "none", ""),
        to("/slow", "back", ", timeout: 0.2s"),
        to("/", "back", ""),
    ];
    format!(
        r#"  - name: {name}
    stat_prefix: {name}
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          codec_type: HTTP1
          route_config:
            validate_clusters: false
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
{routes}          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
{transport_socket}"#,
        routes = routes.concat().replace("            - ", "              - "),
        transport_socket = indent(transport_socket, 6),
    )
}
