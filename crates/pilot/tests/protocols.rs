//! What a port speaks decides how it is listened on, routed and called.

mod fixture;

use std::sync::Arc;

use fixture::{Mesh, NodeBuilder, json};
use pilot::push::Client;
use serde_json::Value;
use xds::ResourceType::{Cluster, Listener, RouteConfiguration, VirtualHost};

/// A service of each protocol, and a client of all of them.
const SERVICES: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: default}, spec: {ports: [{port: 80, name: http}, {port: 443, name: https}], selector: {app: web}}}
---
{apiVersion: v1, kind: Service, metadata: {name: rpc, namespace: default}, spec: {ports: [{port: 50051, name: x, appProtocol: grpc}], selector: {app: rpc}}}
---
{apiVersion: v1, kind: Service, metadata: {name: h2c, namespace: default}, spec: {ports: [{port: 80, appProtocol: kubernetes.io/h2c}], selector: {app: h2c}}}
---
{apiVersion: v1, kind: Service, metadata: {name: anything, namespace: default}, spec: {ports: [{port: 7000}], selector: {app: anything}}}
---
{apiVersion: v1, kind: Service, metadata: {name: browser, namespace: default}, spec: {ports: [{port: 8080, name: grpc-web}], selector: {app: caller}}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: default}, spec: {ports: [{port: 3306}], selector: {app: db}}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: anything, namespace: default}, spec: {hosts: [anything], http: [{timeout: 7s, route: [{destination: {host: anything}}]}]}}
";

fn caller(mesh: &mut Mesh) -> Arc<Client> {
    let node = NodeBuilder::sidecar("127.64.0.1", "caller-1", "default")
        .ours()
        .with("OUTRIGGER_UPSTREAMS", "anything:7000, db:3306, web:80");
    mesh.0.connect(node.proxy("caller", &[("app", "caller")]))
}

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Which HTTP the cluster of a host and port is spoken to in, as its options say.
fn version(client: &Client, host: &str, port: u16) -> &'static str {
    let name = format!("outbound|{port}||{host}.default.svc.cluster.local");
    let cluster = json(client, Cluster, &name);
    let options = &cluster["typed_extension_protocol_options"][HTTP_OPTIONS];
    if !options["use_downstream_protocol_config"].is_null() {
        "as it came"
    } else if !options["explicit_http_config"]["http2_protocol_options"].is_null() {
        "2"
    } else if !options["auto_config"].is_null() {
        "agreed"
    } else {
        "1"
    }
}

fn alpn(client: &Client, name: &str) -> Value {
    let cluster = json(client, Cluster, name);
    let socket = &cluster["transport_socket_matches"][0]["transport_socket"]["typed_config"];
    socket["common_tls_context"]["alpn_protocols"].clone()
}

fn filters(chain: &Value) -> Vec<&str> {
    let manager = &chain["filters"][0]["typed_config"];
    let all = manager["http_filters"].as_array().expect("HTTP filters");
    all.iter().filter_map(|filter| filter["name"].as_str()).collect()
}

#[test]
fn clusters_are_spoken_to_as_their_ports_say() {
    let mut mesh = Mesh::of(SERVICES);
    let client = caller(&mut mesh);
    assert_eq!(version(&client, "web", 80), "agreed");
    assert_eq!(version(&client, "web", 443), "1");
    assert_eq!(version(&client, "rpc", 50051), "2");
    assert_eq!(version(&client, "h2c", 80), "2");
    assert_eq!(version(&client, "anything", 7000), "as it came");
    assert_eq!(version(&client, "db", 3306), "1");
    let rpc = "outbound|50051||rpc.default.svc.cluster.local";
    assert_eq!(alpn(&client, rpc), serde_json::json!(["istio", "h2"]));

    mesh.apply("{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: web, namespace: default}, spec: {host: web, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 9, http2KeepAlive: {interval: 30s, timeout: 5s}}}}}}");
    assert_eq!(version(&client, "web", 80), "2");
    let cluster = json(&client, Cluster, "outbound|80||web.default.svc.cluster.local");
    let options = &cluster["typed_extension_protocol_options"][HTTP_OPTIONS];
    let http2 = &options["explicit_http_config"]["http2_protocol_options"];
    assert_eq!(http2["max_concurrent_streams"], 9);
    assert_eq!(http2["connection_keepalive"]["interval"], "30s");
    assert_eq!(
        alpn(&client, "outbound|80||web.default.svc.cluster.local"),
        serde_json::json!(["istio", "h2"])
    );
}

#[test]
fn the_mesh_upgrades_what_says_that_it_is_http() {
    let mut mesh = Mesh::of(SERVICES);
    mesh.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'h2UpgradePolicy: UPGRADE'}}");
    let client = caller(&mut mesh);
    assert_eq!(version(&client, "web", 80), "2");
    assert_eq!(version(&client, "anything", 7000), "as it came");
    mesh.apply("{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: web, namespace: default}, spec: {host: web, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: DO_NOT_UPGRADE}}}}}");
    assert_eq!(version(&client, "web", 80), "1");
}

const WEB: &str = "outbound|80||web.default.svc.cluster.local";

fn rule(policy: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: web, namespace: default}}, spec: {{host: web, trafficPolicy: {policy}}}}}"
    )
}

#[test]
fn our_own_proxies_agree_on_http2_with_mesh_peers() {
    let mut mesh = Mesh::of(SERVICES);
    let client = caller(&mut mesh);
    let options = &json(&client, Cluster, WEB)["typed_extension_protocol_options"][HTTP_OPTIONS];
    let http2 = &options["auto_config"]["http2_protocol_options"];
    assert_eq!(http2["allow_connect"], true, "WebSockets go up as extended CONNECT");
    // One connection carries everything: its peer's silent end must not be found out by TCP.
    assert_eq!(http2["connection_keepalive"]["interval"], "30s");
    // `istio.alpn` says what is offered to requests; tunnels promise nothing.
    assert_eq!(alpn(&client, WEB), serde_json::json!(["istio"]));

    for (policy, expected) in [
        ("{connectionPool: {http: {h2UpgradePolicy: DO_NOT_UPGRADE}}}", "1"),
        ("{connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}", "2"),
        ("{connectionPool: {http: {useClientProtocol: true}}}", "as it came"),
        // Limits of connections are limits of requests in HTTP/1.1 alone.
        ("{connectionPool: {tcp: {maxConnections: 1}}}", "1"),
        ("{connectionPool: {http: {http1MaxPendingRequests: 1}}}", "1"),
        ("{connectionPool: {http: {http2MaxRequests: 7, maxRequestsPerConnection: 2}}}", "agreed"),
        // Nobody who is spoken to otherwise than by mesh TLS.
        ("{tls: {mode: ISTIO_MUTUAL}}", "agreed"),
        ("{tls: {mode: SIMPLE}}", "1"),
        ("{tls: {mode: DISABLE}}", "1"),
    ] {
        mesh.apply(&rule(policy));
        assert_eq!(version(&client, "web", 80), expected, "{policy}");
    }
    mesh.apply(&rule("{loadBalancer: {simple: RANDOM}}"));
    assert_eq!(version(&client, "web", 80), "agreed");
    mesh.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'h2UpgradePolicy: DO_NOT_UPGRADE'}}");
    assert_eq!(version(&client, "web", 80), "1");
}

#[test]
fn peers_without_mesh_tls_are_spoken_to_in_http1() {
    for settings in [
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'enableAutoMtls: false'}}",
        "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: default}, spec: {mtls: {mode: DISABLE}}}",
    ] {
        let mut mesh = Mesh::of(SERVICES);
        mesh.apply(settings);
        let client = caller(&mut mesh);
        assert_eq!(version(&client, "web", 80), "1", "{settings}");
    }
}

#[test]
fn gateways_of_ours_agree_on_http2_too_and_envoys_get_what_istio_sends() {
    let mut mesh = Mesh::of(SERVICES);
    let ours = NodeBuilder::router("127.64.0.9", "gateway-1", "istio-system").ours();
    let ours = mesh.0.connect(ours.proxy("gateway", &[("istio", "ingressgateway")]));
    assert_eq!(version(&ours, "web", 80), "agreed");
    assert_eq!(version(&ours, "anything", 7000), "1");

    let envoy = NodeBuilder::sidecar("127.64.0.2", "caller-2", "default");
    let envoy = mesh.0.connect(envoy.proxy("caller", &[("app", "caller")]));
    assert_eq!(version(&envoy, "web", 80), "1");
    let cluster = json(&envoy, Cluster, WEB);
    assert!(cluster["typed_extension_protocol_options"].is_null(), "{cluster}");
    assert_eq!(alpn(&envoy, WEB), serde_json::json!(["istio-http/1.1", "istio", "http/1.1"]));
}

#[test]
fn an_upstream_is_listened_on_as_its_port_says() {
    let mut mesh = Mesh::of(SERVICES);
    let client = caller(&mut mesh);
    let detecting = json(&client, Listener, "127.64.0.1_7000");
    let http = &detecting["filter_chains"][0];
    assert_eq!(
        http["filter_chain_match"]["application_protocols"],
        serde_json::json!(["http/1.1", "h2c"])
    );
    let routes = "anything.default.svc.cluster.local:7000";
    assert_eq!(http["filters"][0]["typed_config"]["rds"]["route_config_name"], routes);
    let otherwise = &detecting["default_filter_chain"]["filters"];
    assert_eq!(otherwise[0]["name"], "istio.stats");
    let cluster = "outbound|7000||anything.default.svc.cluster.local";
    assert_eq!(otherwise[1]["typed_config"]["cluster"], cluster);
    assert_eq!(detecting["listener_filters"].as_array().map(Vec::len), Some(2));

    json(&client, RouteConfiguration, routes);
    let host = json(&client, VirtualHost, &format!("{routes}/{routes}"));
    assert_eq!(host["domains"], serde_json::json!(["*"]));
    assert_eq!(host["routes"][0]["route"]["timeout"], "7s");

    let relayed = json(&client, Listener, "127.64.0.1_3306");
    assert_eq!(
        relayed["filter_chains"][0]["filters"][1]["name"],
        "envoy.filters.network.tcp_proxy"
    );
    let routed = json(&client, Listener, "127.64.0.1_80");
    assert!(routed["default_filter_chain"].is_null());
    assert!(filters(&routed["filter_chains"][0]).contains(&"envoy.filters.http.cors"));

    // What changes is told to the one whose listener it is.
    mesh.apply("{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: anything, namespace: default}, spec: {hosts: [anything], http: [{timeout: 9s, route: [{destination: {host: anything}}]}]}}");
    let host = json(&client, VirtualHost, &format!("{routes}/{routes}"));
    assert_eq!(host["routes"][0]["route"]["timeout"], "9s");
}

#[test]
fn grpc_web_is_made_grpc_only_where_it_is_spoken() {
    let mut mesh = Mesh::of(SERVICES);
    let client = caller(&mut mesh);
    let inbound = json(&client, Listener, "127.64.0.1_8080");
    let chain = &inbound["filter_chains"][0];
    assert!(filters(chain).contains(&"envoy.filters.http.grpc_web"), "{:?}", filters(chain));
    assert!(!filters(chain).contains(&"envoy.filters.http.cors"), "no VirtualService routes here");
    let proxy = json(&client, Listener, "127.64.0.1_15007");
    assert!(!filters(&proxy["filter_chains"][0]).contains(&"envoy.filters.http.grpc_web"));
}

#[test]
fn clients_of_the_http_proxy_tunnel_to_every_port() {
    let mut mesh = Mesh::of(SERVICES);
    let client = caller(&mut mesh);
    let proxy = json(&client, Listener, "127.64.0.1_15007");
    let manager = &proxy["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(manager["upgrade_configs"][1]["upgrade_type"], "CONNECT");
    for (port, routes) in [(80, 2), (443, 1)] {
        let name = format!("http_proxy/web.default.svc.cluster.local:{port}");
        let host = json(&client, VirtualHost, &name);
        let all = host["routes"].as_array().expect("routes");
        let tunnel = all.last().expect("a route");
        assert!(tunnel["match"]["connect_matcher"].is_object(), "{host}");
        assert_eq!(tunnel["route"]["upgrade_configs"][0]["upgrade_type"], "CONNECT");
        let cluster = format!("outbound|{port}||web.default.svc.cluster.local");
        assert_eq!(tunnel["route"]["cluster"], cluster.as_str());
        assert_eq!(all.len(), routes, "{host}");
    }
}

#[test]
fn a_mirror_gets_its_share_of_copies() {
    let mut mesh = Mesh::of(SERVICES);
    mesh.apply("{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: web, namespace: default}, spec: {hosts: [web], http: [{mirrors: [{destination: {host: rpc}, percentage: {value: 0.1}}, {destination: {host: db}, percentage: {value: 0}}], route: [{destination: {host: web, port: {number: 80}}}]}]}}");
    let client = caller(&mut mesh);
    let host = json(&client, VirtualHost, "http_proxy/web.default.svc.cluster.local:80");
    let mirrors = &host["routes"][0]["route"]["request_mirror_policies"];
    assert_eq!(mirrors.as_array().map(Vec::len), Some(1), "{mirrors}");
    assert_eq!(mirrors[0]["cluster"], "outbound|50051||rpc.default.svc.cluster.local");
    let share = &mirrors[0]["runtime_fraction"]["default_value"];
    assert_eq!((&share["numerator"], &share["denominator"]), (&1000.into(), &"MILLION".into()));
}

#[test]
fn a_cross_origin_policy_is_the_routes() {
    let mut mesh = Mesh::of(SERVICES);
    mesh.apply("{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: web, namespace: default}, spec: {hosts: [web], http: [{corsPolicy: {allowOrigins: [{exact: 'https://a.test'}], allowMethods: [GET, POST], maxAge: 24h, allowCredentials: false, unmatchedPreflights: IGNORE}, route: [{destination: {host: web}}]}]}}");
    let client = caller(&mut mesh);
    let host = json(&client, VirtualHost, "http_proxy/web.default.svc.cluster.local:80");
    let policy = &host["routes"][0]["typed_per_filter_config"]["envoy.filters.http.cors"];
    assert_eq!(policy["allow_origin_string_match"][0]["exact"], "https://a.test");
    assert_eq!(policy["allow_methods"], "GET,POST");
    assert_eq!(policy["max_age"], "86400");
    assert_eq!(policy["allow_credentials"], false);
    assert_eq!(policy["forward_not_matching_preflights"], false);
}
