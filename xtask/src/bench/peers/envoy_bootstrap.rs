//! One Envoy bootstrap for both: Outrigger and the real Envoy read the very same file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use super::{Hop, Role, Shape};
use crate::bench::certificates::SPIFFE_ID;

/// Where the system likes.
const ANYWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The bootstrap as JSON, which is YAML too.
pub fn render(hop: &Hop<'_>) -> String {
    let shape = hop.setting.shape;
    let is_http2 = shape == Shape::Grpc;
    let mut clusters = vec![cluster("backend", &hop.upstreams, upstream_tls(hop), is_http2)];
    let idle = hop.setting.idle;
    clusters.extend(
        (0..idle.clusters).map(|n| cluster(&format!("idle-{n}"), &hop.upstreams, None, is_http2)),
    );
    if idle.endpoints > 0 {
        clusters.push(cluster("idle", &somewhere(idle.endpoints), None, is_http2));
    }
    let mut chain = json!({ "filters": [terminal_filter(hop, idle.virtual_hosts)] });
    if let Some(tls) = downstream_tls(hop) {
        chain["transport_socket"] = tls;
    }
    let listener = |name: &str, listen, chain: Value| json!({ "name": name, "address": address(listen), "filter_chains": [chain] });
    let mut listeners = vec![listener("entrance", hop.listen, chain)];
    listeners.extend((0..idle.listeners).map(|n| {
        let chain = json!({ "filters": [terminal_filter(hop, 0)] });
        listener(&format!("idle-{n}"), ANYWHERE, chain)
    }));
    let bootstrap = json!({ "static_resources": { "listeners": listeners, "clusters": clusters } });
    format!("{bootstrap:#}\n")
}

/// So many addresses where nobody is asked for anything.
fn somewhere(count: usize) -> Vec<SocketAddr> {
    (0..count).map(|n| ([127, 1, (n >> 8) as u8, n as u8], 9).into()).collect()
}

/// A virtual host like those of services in a mesh.
fn idle_virtual_host(n: usize) -> Value {
    let route = |prefix: &str| json!({ "match": { "prefix": prefix }, "route": { "cluster": "backend", "timeout": "30s" } });
    json!({
        "name": format!("idle-{n}"),
        "domains": [format!("idle-{n}"), format!("idle-{n}.default.svc.cluster.local")],
        "routes": [route("/api"), route("/")],
    })
}

fn terminal_filter(hop: &Hop<'_>, idle_virtual_hosts: usize) -> Value {
    if hop.setting.shape == Shape::Tcp {
        return json!({
            "name": "envoy.filters.network.tcp_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "entrance",
                "cluster": "backend",
            },
        });
    }
    let route =
        json!({ "match": { "prefix": "/" }, "route": { "cluster": "backend", "timeout": "30s" } });
    let mut hosts = vec![json!({ "name": "all", "domains": ["*"], "routes": [route] })];
    hosts.extend((0..idle_virtual_hosts).map(idle_virtual_host));
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
    });
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "entrance",
            "codec_type": "AUTO",
            "route_config": {
                "name": "routes",
                "virtual_hosts": hosts,
            },
            "http_filters": [router],
        },
    })
}

fn cluster(name: &str, upstreams: &[SocketAddr], tls: Option<Value>, is_http2: bool) -> Value {
    let endpoints: Vec<Value> = upstreams
        .iter()
        .map(|upstream| json!({ "endpoint": { "address": address(*upstream) } }))
        .collect();
    // The generator's load is the limit, not the circuit breakers' defaults.
    let plenty = json!({
        "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000, "max_retries": 100,
    });
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "ROUND_ROBIN",
        "circuit_breakers": { "thresholds": [plenty] },
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] },
    });
    if let Some(tls) = tls {
        cluster["transport_socket"] = tls;
    }
    if is_http2 {
        cluster["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        });
    }
    cluster
}

pub fn address(of: SocketAddr) -> Value {
    json!({ "socket_address": { "address": of.ip().to_string(), "port_value": of.port() } })
}

fn downstream_tls(hop: &Hop<'_>) -> Option<Value> {
    let mutual = match (hop.setting.shape, hop.role) {
        (Shape::Tls, _) => false,
        (Shape::Mesh, Role::Second) => true,
        _ => return None,
    };
    let mut config = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": { "tls_certificates": [certificate(hop)] },
    });
    if mutual {
        config["require_client_certificate"] = json!(true);
        config["common_tls_context"]["validation_context"] = validation(hop);
    }
    Some(json!({ "name": "envoy.transport_sockets.tls", "typed_config": config }))
}

fn upstream_tls(hop: &Hop<'_>) -> Option<Value> {
    if (hop.setting.shape, hop.role) != (Shape::Mesh, Role::First) {
        return None;
    }
    let config = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": "bench.local",
        "common_tls_context": { "tls_certificates": [certificate(hop)], "validation_context": validation(hop) },
    });
    Some(json!({ "name": "envoy.transport_sockets.tls", "typed_config": config }))
}

pub fn certificate(hop: &Hop<'_>) -> Value {
    let files = hop.setting.certificates;
    json!({
        "certificate_chain": { "filename": files.certificate },
        "private_key": { "filename": files.key },
    })
}

fn validation(hop: &Hop<'_>) -> Value {
    json!({
        "trusted_ca": { "filename": hop.setting.certificates.authority },
        "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": SPIFFE_ID } }],
    })
}
