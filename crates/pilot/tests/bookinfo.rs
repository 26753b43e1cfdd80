//! What the proxies of a small bookinfo get.

mod fixture;

use fixture::{Mesh, json, names};
use serde_json::Value;
use xds::ResourceType::{Cluster, Endpoints, Listener, RouteConfiguration, VirtualHost};

/// Every string at a key, anywhere below a value.
fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            if name == key
                && let Some(text) = value.as_str()
            {
                found.push(text);
            }
            texts(value, key, found);
        }),
        Value::Array(list) => list.iter().for_each(|value| texts(value, key, found)),
        _ => {}
    }
}

fn all_texts<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    texts(value, key, &mut found);
    found
}

#[test]
fn a_sidecar_gets_istios_names() {
    let mut mesh = Mesh::bookinfo();
    let client = mesh.productpage();
    let clusters = names(&client, Cluster);
    for expected in [
        "BlackHoleCluster",
        "inbound|9080||",
        "outbound|9080||productpage.default.svc.cluster.local",
        "outbound|9080|v1|reviews.default.svc.cluster.local",
        "outbound|9080|v2|reviews.default.svc.cluster.local",
        "outbound|3306||mysqldb.default.svc.cluster.local",
        "outbound|80||istio-ingressgateway.istio-system.svc.cluster.local",
    ] {
        assert!(clusters.iter().any(|name| name == expected), "{expected} in {clusters:?}");
    }
    assert_eq!(
        names(&client, Listener),
        ["127.64.0.1_15007", "127.64.0.1_3306", "127.64.0.1_9080"]
    );
    assert_eq!(names(&client, RouteConfiguration), ["http_proxy"]);
    assert_eq!(
        names(&client, VirtualHost),
        [
            "http_proxy/block_all",
            "http_proxy/istio-ingressgateway.istio-system.svc.cluster.local:443",
            "http_proxy/istio-ingressgateway.istio-system.svc.cluster.local:80",
            "http_proxy/mysqldb.default.svc.cluster.local:3306",
            "http_proxy/productpage.default.svc.cluster.local:9080",
            "http_proxy/reviews.default.svc.cluster.local:9080",
        ]
    );
}

#[test]
fn subsets_split_the_endpoints() {
    let mut mesh = Mesh::bookinfo();
    let client = mesh.productpage();
    let endpoints = |subset: &str| {
        let name = format!("outbound|9080|{subset}|reviews.default.svc.cluster.local");
        let found = json(&client, Endpoints, &name);
        all_texts(&found, "address").iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(endpoints(""), ["127.64.0.2", "127.64.0.3"]);
    assert_eq!(endpoints("v2"), ["127.64.0.3"]);
    let whole = json(&client, Endpoints, "outbound|9080||reviews.default.svc.cluster.local");
    assert_eq!(all_texts(&whole, "tlsMode"), ["istio", "istio"]);
    let workloads = all_texts(&whole, "workload");
    assert_eq!(
        workloads,
        ["reviews-1;default;reviews;v1;Kubernetes", "reviews-2;default;reviews;v2;Kubernetes"]
    );
}

#[test]
fn clients_speak_mesh_tls_to_the_service_accounts_of_the_endpoints() {
    let mut mesh = Mesh::bookinfo();
    let client = mesh.productpage();
    let cluster = json(&client, Cluster, "outbound|9080|v1|reviews.default.svc.cluster.local");
    assert_eq!(
        all_texts(&cluster, "sni"),
        ["outbound_.9080_.v1_.reviews.default.svc.cluster.local"]
    );
    assert_eq!(
        all_texts(&cluster, "exact"),
        ["spiffe://cluster.local/ns/default/sa/bookinfo-reviews"]
    );
    let sockets = cluster["transport_socket_matches"].as_array().expect("matches");
    assert_eq!(
        (sockets[0]["name"].as_str(), sockets[1]["name"].as_str()),
        (Some("tlsMode-istio"), Some("tlsMode-disabled"))
    );

    mesh.apply("{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: x, namespace: default}, spec: {mtls: {mode: DISABLE}}}");
    let cluster = json(&client, Cluster, "outbound|9080|v1|reviews.default.svc.cluster.local");
    assert!(cluster.get("transport_socket_matches").is_none(), "{cluster}");
}

#[test]
fn strict_takes_the_plaintext_chains_away() {
    let mut mesh = Mesh::bookinfo();
    let client = mesh.reviews();
    let chains = |listener: Value| listener["filter_chains"].as_array().map_or(0, Vec::len);
    assert_eq!(chains(json(&client, Listener, "127.64.0.2_9080")), 2);
    mesh.apply("{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: istio-system}, spec: {mtls: {mode: STRICT}}}");
    let strict = json(&client, Listener, "127.64.0.2_9080");
    assert_eq!(all_texts(&strict, "transport_protocol"), ["tls"]);
    assert_eq!(chains(strict), 1);
}

#[test]
fn weights_and_matches_become_routes() {
    let mut mesh = Mesh::bookinfo();
    let client = mesh.productpage();
    let host = json(&client, VirtualHost, "http_proxy/reviews.default.svc.cluster.local:9080");
    let domains: Vec<&str> =
        host["domains"].as_array().expect("domains").iter().filter_map(Value::as_str).collect();
    assert!(
        domains.contains(&"reviews:9080") && domains.contains(&"reviews.default"),
        "{domains:?}"
    );
    let routes = host["routes"].as_array().expect("routes");
    assert_eq!(routes[0]["name"], "jason");
    assert_eq!(routes[0]["route"]["cluster"], "outbound|9080|v2|reviews.default.svc.cluster.local");
    let weighted = routes[1]["route"]["weighted_clusters"]["clusters"].as_array().expect("weights");
    let weights: Vec<u64> = weighted.iter().filter_map(|one| one["weight"].as_u64()).collect();
    assert_eq!(weights, [92, 8]);
    let retries = &routes[1]["route"]["retry_policy"];
    assert_eq!(retries["num_retries"], 2);
    assert_eq!(
        retries["retry_on"],
        "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
    );
}

#[test]
fn a_gateway_binds_where_it_was_told_under_istios_names() {
    let mut mesh = Mesh::bookinfo();
    let client = mesh.gateway();
    assert_eq!(names(&client, Listener), ["0.0.0.0_8080"]);
    let listener = json(&client, Listener, "0.0.0.0_8080");
    assert_eq!(listener["address"]["socket_address"]["address"], "127.0.0.1");
    assert_eq!(listener["address"]["socket_address"]["port_value"], 8080);
    assert_eq!(all_texts(&listener, "route_config_name"), ["http.8080"]);
    assert_eq!(names(&client, VirtualHost), ["http.8080/*:80"]);
    let host = json(&client, VirtualHost, "http.8080/*:80");
    assert_eq!(
        all_texts(&host, "cluster"),
        ["outbound|9080||productpage.default.svc.cluster.local"; 2]
    );
}

#[test]
fn the_application_is_reached_on_its_own_port() {
    let mut mesh = Mesh::bookinfo();
    let client = mesh.productpage();
    let cluster = json(&client, Cluster, "inbound|9080||");
    assert!(cluster.to_string().contains("41001"), "{cluster}");
}

#[test]
fn a_node_gets_only_what_it_can_load() {
    let mut mesh = Mesh::bookinfo();
    let plain = fixture::NodeBuilder::sidecar("127.64.0.1", "productpage-1", "default");
    let client = mesh.0.connect(plain.proxy("bookinfo-productpage", &[("app", "productpage")]));
    let listener = json(&client, Listener, "127.64.0.1_15007");
    for extension in fixture::EXTENSIONS {
        assert!(!listener.to_string().contains(extension), "{extension}");
    }
    let routes = json(&client, RouteConfiguration, "http_proxy");
    assert_eq!(routes["virtual_hosts"].as_array().map(Vec::len), Some(6));
    let cluster = json(&client, Cluster, "outbound|9080||reviews.default.svc.cluster.local");
    assert!(cluster.to_string().contains("istio-http/1.1"), "static ALPN: {cluster}");

    let ours = mesh.productpage();
    let listener = json(&ours, Listener, "127.64.0.1_15007").to_string();
    assert!(listener.contains("stats.PluginConfig") && listener.contains("alpn"), "{listener}");
    assert!(json(&ours, RouteConfiguration, "http_proxy").get("virtual_hosts").is_none());
}
