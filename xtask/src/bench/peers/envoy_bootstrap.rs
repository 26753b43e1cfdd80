//! One Envoy bootstrap for both: Outrigger and the real Envoy read the very same file.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Hop, Role, Shape};
use crate::bench::certificates::SPIFFE_ID;

/// Istio's access log.
const ACCESS_LOG: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// The bootstrap as JSON, which is YAML too. `has_istio` is whether the proxy knows Istio's filters.
pub fn render(hop: &Hop<'_>, has_istio: bool) -> String {
    let shape = hop.setting.shape;
    let is_http2 = shape == Shape::Grpc || hop.setting.upgraded_hop && hop.role == Role::First;
    let mut clusters = vec![cluster("backend", &hop.upstreams, upstream_tls(hop), is_http2)];
    let idle = (0..hop.setting.idle_clusters)
        .map(|n| cluster(&format!("idle-{n}"), &hop.upstreams, None, is_http2));
    clusters.extend(idle);
    let mut chain = json!({ "filters": [terminal_filter(hop, has_istio)] });
    if let Some(tls) = downstream_tls(hop) {
        chain["transport_socket"] = tls;
    }
    let listener =
        json!({ "name": "entrance", "address": address(hop.listen), "filter_chains": [chain] });
    let mut bootstrap =
        json!({ "static_resources": { "listeners": [listener], "clusters": clusters } });
    if hop.setting.sidecars {
        bootstrap["node"] = node(hop);
    }
    format!("{bootstrap:#}\n")
}

/// Who the sidecar is, for its metrics.
fn node(hop: &Hop<'_>) -> Value {
    let name = if hop.role == Role::First { "client" } else { "server" };
    json!({
        "id": format!("sidecar~127.0.0.1~{name}-v1.default~default.svc.cluster.local"),
        "cluster": format!("{name}.default"),
        "metadata": {
            "NAME": format!("{name}-v1"),
            "NAMESPACE": "default",
            "WORKLOAD_NAME": format!("{name}-v1"),
            "SERVICE_ACCOUNT": "bench",
            "CLUSTER_ID": "Kubernetes",
            "MESH_ID": "cluster.local",
            "LABELS": { "app": name, "version": "v1" },
        },
    })
}

/// What a sidecar has before its router, in the order that the control plane gives it.
fn istio_filters(hop: &Hop<'_>) -> Vec<Value> {
    let headers = json!([{ "istio_headers": {} }]);
    let (direction, discovery, propagation) = match hop.role {
        Role::First => ("outbound", "upstream_discovery", "upstream_propagation"),
        _ => ("inbound", "downstream_discovery", "downstream_propagation"),
    };
    let mut peer = json!({ "@type": "type.googleapis.com/io.istio.http.peer_metadata.Config" });
    peer[discovery] = headers.clone();
    peer[propagation] = headers;
    let stats = json!({ "@type": "type.googleapis.com/stats.PluginConfig" });
    vec![
        json!({ "name": format!("istio.metadata_exchange.{direction}"), "typed_config": peer }),
        json!({ "name": "istio.stats", "typed_config": stats }),
    ]
}

fn access_log(hop: &Hop<'_>) -> Value {
    let file = hop.setting.folder.join(format!("access-{}.log", hop.listen.port()));
    json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": file,
            "log_format": { "text_format_source": { "inline_string": ACCESS_LOG } },
        },
    }])
}

fn terminal_filter(hop: &Hop<'_>, has_istio: bool) -> Value {
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
    let mut filters =
        if hop.setting.sidecars && has_istio { istio_filters(hop) } else { Vec::new() };
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
    }));
    let mut manager = json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "entrance",
            "codec_type": "AUTO",
            "route_config": {
                "name": "routes",
                "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }],
            },
            "http_filters": filters,
        },
    });
    if hop.setting.sidecars {
        manager["typed_config"]["access_log"] = access_log(hop);
    }
    manager
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

fn address(of: SocketAddr) -> Value {
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
        if hop.setting.upgraded_hop {
            config["common_tls_context"]["alpn_protocols"] = json!(["h2", "http/1.1"]);
        }
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

fn certificate(hop: &Hop<'_>) -> Value {
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
