//! What Istio's control plane would send, case by case: precedence, defaults and the names of things.

mod fixture;

use std::sync::Arc;

use fixture::{Mesh, NodeBuilder, json, names};
use pilot::push::Client;
use serde_json::{Value, json as value};
use xds::ResourceType::{Cluster, Endpoints, Listener, Secret, VirtualHost};

const WEB: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: default}, spec: {ports: [{port: 80, name: http, targetPort: 8080}], selector: {app: web}}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: default}, spec: {ports: [{port: 3306, name: tcp}], selector: {app: db}}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: web-1, namespace: default}, spec: {address: 10.0.0.1, labels: {app: web}, serviceAccount: web}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: web-2, namespace: default}, spec: {address: 10.0.0.2, labels: {app: web, legacy: 'yes'}, serviceAccount: web}}
---
{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: gw, namespace: istio-system}, spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*/*']}]}}
";
const WEB_CLUSTER: &str = "outbound|80||web.default.svc.cluster.local";

/// The mesh above with more objects, and a client of it.
fn mesh_with(yaml: &str) -> Mesh {
    let mut mesh = Mesh::of(WEB);
    mesh.apply(yaml);
    mesh
}

fn caller(mesh: &mut Mesh) -> Arc<Client> {
    let node = NodeBuilder::sidecar("127.64.0.1", "caller-1", "default")
        .ours()
        .with("OUTRIGGER_UPSTREAMS", "db:3306");
    mesh.0.connect(node.proxy("caller", &[("app", "web")]))
}

/// A real Envoy: it lists none of our abilities.
fn envoy(mesh: &mut Mesh) -> Arc<Client> {
    let node = NodeBuilder::sidecar("127.64.0.3", "envoy-1", "default");
    mesh.0.connect(node.proxy("caller", &[("app", "web")]))
}

fn istio(kind: &str, name: &str, spec: &str) -> String {
    let group = if kind == "PeerAuthentication" { "security" } else { "networking" };
    format!(
        "{{apiVersion: {group}.istio.io/v1, kind: {kind}, metadata: {{name: {name}, namespace: default}}, spec: {spec}}}\n---\n"
    )
}

fn mesh_config(text: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio, namespace: istio-system}}, data: {{mesh: '{text}'}}}}\n---\n"
    )
}

fn web_host(client: &Client) -> Value {
    json(client, VirtualHost, "http_proxy/web.default.svc.cluster.local:80")
}

fn rule(policy: &str) -> String {
    istio("DestinationRule", "web", &format!("{{host: web, trafficPolicy: {policy}}}"))
}

#[test]
fn a_gateway_sees_only_what_is_exported_to_its_namespace() {
    for (export, expected) in [
        ("['.']", vec!["http.80/blackhole:80"]),
        ("[istio-system]", vec!["http.80/a.com:80"]),
        ("['*']", vec!["http.80/a.com:80"]),
    ] {
        let spec = format!(
            "{{hosts: [a.com], gateways: [istio-system/gw], exportTo: {export}, http: [{{route: [{{destination: {{host: web}}}}]}}]}}"
        );
        let mut mesh = mesh_with(&istio("VirtualService", "a", &spec));
        assert_eq!(names(&mesh.gateway(), VirtualHost), expected, "{export}");
    }
}

#[test]
fn what_matches_everything_comes_last_whoever_wrote_it() {
    let of = |name: &str, spec: &str| {
        let spec = format!("{{hosts: [a.com], gateways: [istio-system/gw], http: [{spec}]}}");
        istio("VirtualService", name, &spec)
    };
    let to = "route: [{destination: {host: web}}]";
    let mut mesh = mesh_with(
        &(of("all", &format!("{{name: all, {to}}}"))
            + &of("narrow", &format!("{{name: narrow, match: [{{uri: {{prefix: /n}}}}], {to}}}"))),
    );
    let host = json(&mesh.gateway(), VirtualHost, "http.80/a.com:80");
    let routes: Vec<&str> = host["routes"]
        .as_array()
        .expect("routes")
        .iter()
        .map(|route| route["name"].as_str().expect("a name"))
        .collect();
    assert_eq!(routes, ["narrow", "all"]);
}

#[test]
fn of_two_virtual_services_the_less_public_speaks_then_the_older_then_the_first_by_name() {
    let of = |name: &str, second: u8, export: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: {name}, namespace: default, creationTimestamp: '2026-01-01T00:00:0{second}Z'}}, spec: {{hosts: [web], exportTo: [{export}], http: [{{name: {name}, route: [{{destination: {{host: web}}}}]}}]}}}}\n---\n"
        )
    };
    let speaks = |yaml: String| {
        let mut mesh = mesh_with(&yaml);
        let host = web_host(&caller(&mut mesh));
        host["routes"][0]["name"].as_str().expect("a name").to_owned()
    };
    assert_eq!(speaks(of("old", 1, "'*'") + &of("own", 2, "'.'")), "own");
    assert_eq!(speaks(of("new", 2, "'*'") + &of("old", 1, "'*'")), "old");
    assert_eq!(speaks(of("z", 1, "'*'") + &of("a", 1, "'*'")), "a");
}

#[test]
fn redirects_name_a_port_only_where_the_scheme_does_not_imply_it() {
    for (redirect, port) in [
        ("{scheme: https}", None),
        ("{scheme: https, port: 443}", None),
        ("{scheme: https, port: 8443}", Some(8443)),
        ("{scheme: https, derivePort: FROM_PROTOCOL_DEFAULT}", None),
        ("{scheme: https, derivePort: FROM_REQUEST_PORT}", Some(80)),
        ("{authority: b.com, derivePort: FROM_REQUEST_PORT}", None),
        ("{port: 443}", Some(443)),
    ] {
        let spec = format!("{{hosts: [web], http: [{{redirect: {redirect}}}]}}");
        let mut mesh = mesh_with(&istio("VirtualService", "web", &spec));
        let host = web_host(&caller(&mut mesh));
        let found = host["routes"][0]["redirect"]["port_redirect"].as_u64();
        assert_eq!(found, port, "{redirect}");
    }
}

#[test]
fn the_rewrites_authority_wins_over_the_routes_and_that_over_the_destinations() {
    let rewrite = "rewrite: {authority: rewrite}, ";
    let route = "headers: {request: {set: {Host: route}}}, ";
    for (above, expected) in [
        (format!("{rewrite}{route}"), "rewrite"),
        (route.to_owned(), "route"),
        (String::new(), "destination"),
    ] {
        let spec = format!(
            "{{hosts: [web], http: [{{{above}route: [{{destination: {{host: web}}, headers: {{request: {{set: {{':authority': destination}}}}}}}}]}}]}}"
        );
        let mut mesh = mesh_with(&istio("VirtualService", "web", &spec));
        let host = web_host(&caller(&mut mesh));
        assert_eq!(host["routes"][0]["route"]["host_rewrite_literal"], *expected, "{above}");
    }
}

#[test]
fn a_routes_time_bounds_what_grpc_clients_ask_for_and_nothing_else_does() {
    let spec = "{hosts: [web], http: [{timeout: 7s, route: [{destination: {host: web}}]}]}";
    let mut mesh = mesh_with("");
    let client = caller(&mut mesh);
    let action = |client: &Client| web_host(client)["routes"][0]["route"].clone();
    assert_eq!(action(&client)["timeout"], "0s");
    assert_eq!(action(&client)["max_grpc_timeout"], "0s");
    mesh.apply(&istio("VirtualService", "web", spec));
    assert_eq!(action(&client)["max_grpc_timeout"], "7s");
}

#[test]
fn a_service_is_called_by_its_whole_name_with_the_last_dot_too() {
    let mut mesh = mesh_with("");
    let host = web_host(&caller(&mut mesh));
    let domains = host["domains"].as_array().expect("domains");
    for domain in ["web.default.svc.cluster.local.", "web.default.svc.cluster.local.:80"] {
        assert!(domains.contains(&value!(domain)), "{domains:?}");
    }
}

#[test]
fn ejected_instances_stay_out_however_many_they_are() {
    let panic = |policy: &str| {
        let mut mesh = mesh_with(&rule(policy));
        json(&caller(&mut mesh), Cluster, WEB_CLUSTER)["common_lb_config"]
            ["healthy_panic_threshold"]
            .clone()
    };
    assert_eq!(panic("{loadBalancer: {simple: RANDOM}}"), Value::Null);
    // An empty percentage is zero.
    assert_eq!(panic("{outlierDetection: {consecutive5xxErrors: 3}}"), value!({}));
    assert_eq!(panic("{outlierDetection: {minHealthPercent: 30}}"), value!({"value": 30}));
}

#[test]
fn local_failures_eject_where_a_rule_counts_them_apart() {
    let policy = "{outlierDetection: {splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 4}}";
    let mut mesh = mesh_with(&rule(policy));
    let cluster = json(&caller(&mut mesh), Cluster, WEB_CLUSTER);
    let outliers = &cluster["outlier_detection"];
    assert_eq!(outliers["consecutive_local_origin_failure"], 4);
    assert_eq!(outliers["enforcing_consecutive_local_origin_failure"], 100);
    assert_eq!(outliers["enforcing_local_origin_success_rate"], 0);
}

#[test]
fn a_subsets_port_settings_leave_nothing_of_the_rules() {
    let spec = "{host: web, trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}, subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: RANDOM}}]}}, {name: v2, labels: {version: v2}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}]}";
    let mut mesh = mesh_with(&istio("DestinationRule", "web", spec));
    let client = caller(&mut mesh);
    let limit = |subset: &str| {
        let name = format!("outbound|80|{subset}|web.default.svc.cluster.local");
        let cluster = json(&client, Cluster, &name);
        assert_eq!(cluster["lb_policy"], "RANDOM");
        cluster["circuit_breakers"]["thresholds"][0]["max_connections"].clone()
    };
    assert_eq!((limit("v1"), limit("v2")), (value!(u32::MAX), value!(7)));
}

#[test]
fn listeners_wait_for_silent_clients_and_tell_of_those_that_no_chain_takes() {
    let mut mesh = mesh_with("");
    let client = caller(&mut mesh);
    for name in ["127.64.0.1_8080", "127.64.0.1_15007", "127.64.0.1_3306"] {
        let listener = json(&client, Listener, name);
        assert_eq!(listener["listener_filters_timeout"], "0s", "{name}");
        assert_eq!(listener["continue_on_listener_filters_timeout"], true, "{name}");
        let filter = &listener["access_log"][0]["filter"];
        assert_eq!(filter["response_flag_filter"]["flags"], value!(["NR"]), "{name}");
    }
    let inbound = json(&client, Listener, "127.64.0.1_8080");
    for chain in inbound["filter_chains"].as_array().expect("chains") {
        assert_eq!(chain["name"], "127.64.0.1_8080");
    }
    mesh.apply(&mesh_config("protocolDetectionTimeout: 5s"));
    assert_eq!(json(&client, Listener, "127.64.0.1_8080")["listener_filters_timeout"], "5s");
}

#[test]
fn an_instance_whose_own_policy_is_plaintext_is_called_so() {
    let mut mesh = mesh_with("");
    let client = caller(&mut mesh);
    let with_tls = |client: &Client| -> Vec<String> {
        let assignment = json(client, Endpoints, WEB_CLUSTER);
        let endpoints = assignment["endpoints"][0]["lb_endpoints"].as_array().expect("endpoints");
        let tls = |endpoint: &&Value| {
            let metadata = &endpoint["metadata"]["filter_metadata"];
            metadata["envoy.transport_socket_match"]["tlsMode"] == "istio"
        };
        let address = |endpoint: &Value| {
            let socket = &endpoint["endpoint"]["address"]["socket_address"];
            socket["address"].as_str().expect("an address").to_owned()
        };
        endpoints.iter().filter(tls).map(address).collect()
    };
    assert_eq!(with_tls(&client), ["10.0.0.1", "10.0.0.2"]);
    let legacy = "{selector: {matchLabels: {legacy: 'yes'}}, mtls: {mode: DISABLE}}";
    mesh.apply(&istio("PeerAuthentication", "legacy", legacy));
    assert_eq!(with_tls(&client), ["10.0.0.1"]);
    let port = "{selector: {matchLabels: {legacy: 'yes'}}, mtls: {mode: STRICT}, portLevelMtls: {'8080': {mode: DISABLE}}}";
    mesh.apply(&istio("PeerAuthentication", "legacy", port));
    assert_eq!(with_tls(&client), ["10.0.0.1"], "by the instance's port");
    let other =
        "{selector: {matchLabels: {legacy: 'yes'}}, portLevelMtls: {'80': {mode: DISABLE}}}";
    mesh.apply(&istio("PeerAuthentication", "legacy", other));
    assert_eq!(with_tls(&client), ["10.0.0.1", "10.0.0.2"], "not by the service's");
}

/// The client TLS of the cluster, where all of it is one socket.
fn client_tls(client: &Client) -> Value {
    json(client, Cluster, WEB_CLUSTER)["transport_socket"]["typed_config"].clone()
}

#[test]
fn a_server_outside_of_the_mesh_is_checked_by_the_machines_roots_and_the_name_that_is_called() {
    let mut mesh = mesh_with(&rule("{tls: {mode: SIMPLE}}"));
    let client = caller(&mut mesh);
    let tls = client_tls(&client);
    assert_eq!(tls["sni"], "web.default.svc.cluster.local");
    let combined = &tls["common_tls_context"]["combined_validation_context"];
    assert_eq!(combined["validation_context_sds_secret_config"]["name"], "file-root:system");
    let names = &combined["default_validation_context"]["match_typed_subject_alt_names"];
    assert_eq!(names[0]["matcher"]["exact"], "web.default.svc.cluster.local");

    mesh.apply(&rule("{tls: {mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /r, sni: x.com}}"));
    let tls = client_tls(&client);
    let common = &tls["common_tls_context"];
    let combined = &common["combined_validation_context"];
    assert_eq!(tls["sni"], "x.com");
    assert_eq!(common["tls_certificate_sds_secret_configs"][0]["name"], "file-cert:/c~/k");
    assert_eq!(combined["validation_context_sds_secret_config"]["name"], "file-root:/r");
    let names = &combined["default_validation_context"]["match_typed_subject_alt_names"];
    assert_eq!(*names, Value::Null, "who says a name says whether it is checked");

    mesh.apply(&rule("{tls: {mode: SIMPLE, insecureSkipVerify: true}}"));
    let common = &client_tls(&client)["common_tls_context"];
    assert_eq!(common["combined_validation_context"], Value::Null);
}

#[test]
fn secrets_that_rules_name_are_for_gateways() {
    const SECRET: &str = "{apiVersion: v1, kind: Secret, metadata: {name: out, namespace: istio-system}, stringData: {tls.crt: c, tls.key: k, ca.crt: r}}";
    let mut mesh = mesh_with(SECRET);
    let gateway = mesh.gateway();
    assert_eq!(names(&gateway, Secret), [""; 0]);
    mesh.apply(&rule("{tls: {mode: MUTUAL, credentialName: out}}"));
    assert_eq!(names(&gateway, Secret), ["kubernetes://out", "kubernetes://out-cacert"]);
    let common = &client_tls(&gateway)["common_tls_context"];
    assert_eq!(common["tls_certificate_sds_secret_configs"][0]["name"], "kubernetes://out");
    let sidecar = caller(&mut mesh);
    assert_eq!(client_tls(&sidecar), Value::Null);
    assert_eq!(names(&sidecar, Secret), [""; 0]);
}

#[test]
fn the_meshs_defaults_reach_routes_clusters_and_listeners() {
    let text = "defaultHttpRetryPolicy: {attempts: 5, retryOn: \"503\"}\n\n    tcpKeepalive: {time: 60s, probes: 3}\n\n    defaultConfig: {gatewayTopology: {numTrustedProxies: 2}}";
    let mut mesh = mesh_with(&mesh_config(&text.replace("    ", "")));
    mesh.apply(&rule("{connectionPool: {tcp: {tcpKeepalive: {time: 9s}}}}"));
    let client = caller(&mut mesh);
    let retries = web_host(&client)["routes"][0]["route"]["retry_policy"].clone();
    assert_eq!(
        (&retries["num_retries"], &retries["retry_on"]),
        (&value!(5), &value!("retriable-status-codes"))
    );
    let inbound = inbound_retries(&client);
    assert_eq!(inbound["num_retries"], 5);
    let cluster = json(&client, Cluster, WEB_CLUSTER);
    let keepalive = &cluster["upstream_connection_options"]["tcp_keepalive"];
    assert_eq!(*keepalive, value!({"keepalive_probes": 3, "keepalive_time": 9}));
    mesh.apply(&istio("VirtualService", "a", "{hosts: [a.com], gateways: [istio-system/gw], http: [{route: [{destination: {host: web}}]}]}"));
    let listener = json(&mesh.gateway(), Listener, "0.0.0.0_80");
    let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(manager["xff_num_trusted_hops"], 2);
    assert_eq!(manager["set_current_client_cert_details"]["cert"], true);
}

fn inbound_retries(client: &Client) -> Value {
    let address = client.proxy.address;
    let listener = json(client, Listener, &format!("{address}_8080"));
    let manager = &listener["filter_chains"][0]["filters"];
    let manager = manager.as_array().and_then(|all| all.last()).expect("a connection manager");
    manager["typed_config"]["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["retry_policy"]
        .clone()
}

#[test]
fn an_envoy_sends_again_what_an_application_never_began_to_read() {
    let mut mesh = mesh_with("");
    let retries = inbound_retries(&envoy(&mut mesh));
    assert_eq!(retries, value!({"retry_on": "reset-before-request", "num_retries": 2}));
    // Our own do so by themselves.
    assert_eq!(inbound_retries(&caller(&mut mesh)), Value::Null);
}

#[test]
fn relayed_connections_last_as_long_as_the_rule_lets_them() {
    let mut mesh = mesh_with("");
    let client = caller(&mut mesh);
    let relay = |client: &Client| {
        let listener = json(client, Listener, "127.64.0.1_3306");
        let filters = listener["filter_chains"][0]["filters"].clone();
        filters.as_array().and_then(|all| all.last()).expect("a relay")["typed_config"].clone()
    };
    assert_eq!(relay(&client)["idle_timeout"], Value::Null);
    mesh.apply(&istio("DestinationRule", "db", "{host: db, trafficPolicy: {connectionPool: {tcp: {idleTimeout: 90s, maxConnectionDuration: 1h}}}}"));
    assert_eq!(relay(&client)["idle_timeout"], "90s");
    assert_eq!(relay(&client)["max_downstream_connection_duration"], "3600s");
}

#[test]
fn tls_of_an_application_is_led_by_the_name_that_it_asks_for() {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: sec, namespace: default}, spec: {ports: [{port: 443, name: https}], selector: {app: web}}}\n---\n";
    let spec = "{hosts: [sec], tls: [{match: [{sniHosts: [sec]}], route: [{destination: {host: web}, weight: 1}, {destination: {host: db}, weight: 3}]}]}";
    let mut mesh = mesh_with(&(service.to_owned() + &istio("VirtualService", "sec", spec)));
    let node = NodeBuilder::sidecar("127.64.0.4", "c-1", "default")
        .ours()
        .with("OUTRIGGER_UPSTREAMS", "sec:443");
    let client = mesh.0.connect(node.proxy("c", &[("app", "c")]));
    let listener = json(&client, Listener, "127.64.0.4_443");
    let chain = &listener["filter_chains"][0];
    assert_eq!(chain["filter_chain_match"]["server_names"], value!(["sec"]));
    assert_eq!(listener["listener_filters"][0]["name"], "envoy.filters.listener.tls_inspector");
    let filters = chain["filters"].as_array().expect("filters");
    let relay = &filters.last().expect("a relay")["typed_config"];
    assert_eq!(relay["stat_prefix"], "sec.default");
    assert_eq!(relay["weighted_clusters"]["clusters"][1]["weight"], 3);
}

#[test]
fn filters_stand_in_istios_order() {
    let mut mesh = mesh_with("");
    let listener = json(&caller(&mut mesh), Listener, "127.64.0.1_15007");
    let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    let filters = manager["http_filters"].as_array().expect("filters");
    let names: Vec<&str> = filters.iter().filter_map(|filter| filter["name"].as_str()).collect();
    assert_eq!(
        names,
        [
            "istio.metadata_exchange",
            "envoy.filters.http.grpc_stats",
            "istio.alpn",
            "envoy.filters.http.cors",
            "istio.stats",
            "envoy.filters.http.router",
        ]
    );
    let grpc = &filters[1]["typed_config"];
    assert_eq!(grpc["emit_filter_state"], true);
    assert_eq!(grpc["stats_for_all_methods"], false);
}

#[test]
fn a_wildcard_is_a_virtual_host_where_it_covers_no_service() {
    let of = |pattern: &str| {
        istio(
            "VirtualService",
            "wild",
            &format!(
                "{{hosts: ['{pattern}'], http: [{{name: wild, route: [{{destination: {{host: web}}}}]}}]}}"
            ),
        )
    };
    let mut mesh = mesh_with(&of("*.example.com"));
    let client = caller(&mut mesh);
    let host = json(&client, VirtualHost, "http_proxy/*.example.com:80");
    assert_eq!(host["domains"], value!(["*.example.com", "*.example.com:80"]));
    assert_eq!(host["routes"][0]["name"], "wild");
    mesh.apply(&of("*.default.svc.cluster.local"));
    let hosts = names(&client, VirtualHost);
    assert!(!hosts.iter().any(|name| name.contains('*')), "{hosts:?}");
    assert_eq!(web_host(&client)["routes"][0]["name"], "wild");
}

#[test]
fn a_rule_for_its_own_namespace_leaves_others_alone() {
    let of = |name: &str, second: u8, export: &str, rest: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: {name}, namespace: default, creationTimestamp: '2026-01-01T00:00:0{second}Z'}}, spec: {{host: web, exportTo: ['{export}'], {rest}}}}}\n---\n"
        )
    };
    let own = of("own", 1, ".", "trafficPolicy: {loadBalancer: {simple: RANDOM}}");
    let all = of("all", 2, "*", "subsets: [{name: v1, labels: {version: v1}}]");
    let mut mesh = mesh_with(&(own + &all));
    let node = NodeBuilder::sidecar("127.64.0.5", "o-1", "other").ours();
    let clients = [caller(&mut mesh), mesh.0.connect(node.proxy("o", &[("app", "o")]))];
    let seen = clients.map(|client| {
        let subsets = names(&client, Cluster).iter().filter(|name| name.contains("|v1|")).count();
        let policy = json(&client, Cluster, WEB_CLUSTER)["lb_policy"].clone();
        (policy, subsets)
    });
    assert_eq!(seen, [(value!("RANDOM"), 1), (value!("LEAST_REQUEST"), 1)]);
}
