//! What two sidecars with a service between them are sent, as JSON: `cargo xtask bench` measures its double hop with it, so that
//! nobody has to keep a copy true.
#![allow(clippy::print_stdout, clippy::expect_used, reason = "a tool of the bench")]

#[path = "../tests/fixture/mod.rs"]
mod fixture;

use fixture::{Mesh, NodeBuilder, json, names};
use pilot::push::Client;
use serde_json::{Map, Value, json as object};
use xds::ResourceType::{Cluster, Endpoints, Listener, RouteConfiguration, VirtualHost};

/// A client and a server in a mesh that nobody has configured.
const MESH: &str = "
{apiVersion: v1, kind: Service, metadata: {name: server, namespace: default}, spec: {ports: [{port: 8080, name: http}], selector: {app: server}}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: client-v1, namespace: default}, spec: {address: 127.64.0.1, labels: {app: client, version: v1}, serviceAccount: bench}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: server-v1, namespace: default}, spec: {address: 127.64.0.2, labels: {app: server, version: v1}, serviceAccount: bench}}
";

/// Whose sidecars they are, and what the mesh says of HTTP/2 between them.
const VARIANTS: [(&str, bool, Option<&str>); 4] = [
    ("outrigger", true, None),
    ("outrigger-http1", true, Some("DO_NOT_UPGRADE")),
    ("envoy", false, None),
    ("envoy-h2", false, Some("UPGRADE")),
];

fn main() {
    let sent = VARIANTS.map(|(name, is_ours, upgrade)| (name.to_owned(), sent(is_ours, upgrade)));
    println!("{}", Value::Object(Map::from_iter(sent)));
}

fn sent(is_ours: bool, upgrade: Option<&str>) -> Value {
    let mut mesh = Mesh::of(MESH);
    if let Some(policy) = upgrade {
        // Whoever configures the mesh says where its access log goes, too.
        mesh.apply(&format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio, namespace: istio-system}}, data: {{mesh: '{{h2UpgradePolicy: {policy}, accessLogFile: /dev/stdout}}'}}}}"));
    }
    let mut sidecar = |address: &str, app: &str, key: &str, value: &str| {
        let node = NodeBuilder::sidecar(address, &format!("{app}-v1"), "default").with(key, value);
        let node = if is_ours { node.ours() } else { node };
        mesh.0.connect(node.proxy("bench", &[("app", app), ("version", "v1")]))
    };
    let client = sidecar("127.64.0.1", "client", "OUTRIGGER_UPSTREAMS", "server:8080");
    let server = sidecar("127.64.0.2", "server", "OUTRIGGER_APP_PORTS", r#"{"8080":"9000"}"#);
    let cluster = "outbound|8080||server.default.svc.cluster.local";
    object!({
        "first": {
            "listener": json(&client, Listener, "127.64.0.1_8080"),
            "virtual_hosts": virtual_hosts(&client, "server.default.svc.cluster.local:8080"),
            "cluster": json(&client, Cluster, cluster),
            "endpoints": json(&client, Endpoints, cluster),
        },
        "second": {
            "listener": json(&server, Listener, "127.64.0.2_8080"),
            "cluster": json(&server, Cluster, "inbound|8080||"),
        },
    })
}

/// Of a route configuration: in it, or as resources of their own.
fn virtual_hosts(client: &Client, routes: &str) -> Value {
    let inline = json(client, RouteConfiguration, routes)["virtual_hosts"].take();
    if !inline.is_null() {
        return inline;
    }
    let of_routes = |name: &String| name.starts_with(&format!("{routes}/"));
    let all = names(client, VirtualHost).into_iter().filter(of_routes);
    all.map(|name| json(client, VirtualHost, &name)).collect()
}
