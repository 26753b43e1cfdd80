//! What one more configured thing keeps in memory, in bytes asked of the allocator, so that it cannot creep up.
//!
//! The proxy runs as it does in production, on one worker. What is measured is the difference between many things and
//! few, divided by how many more they are.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::envoy::config::cluster::v3::Cluster;
use api::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api::schema::Schema;

use api::text::Sources;
use proxy::bootstrap::Bootstrap;
use proxy::config_sync::sink::{ConfigSink, Resource, ResourceKind, Update};
use proxy::server::{self, Options, Server};
use telemetry::logging::{Level, Levels};

/// Knows how much is allocated.
struct Weighing(AtomicUsize);

#[global_allocator]
static ALLOCATOR: Weighing = Weighing(AtomicUsize::new(0));

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Weighing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.0.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Few and many: powers of two apart, so that tables that grow by doubling are as full with one as with the other.
const FEW: usize = 250;
const MANY: usize = 1000;

fn options() -> Options {
    Options {
        concurrency: 1,
        drain_time: Duration::from_secs(1),
        grace: Duration::ZERO,
        flush_interval: Duration::from_secs(10),
        flush_bytes: 1 << 16,
        admin_address_path: None,
        version: String::new(),
        command_line: serde_json::Value::Null,
        levels: Arc::new(Levels::new(Level::Critical)),
        hostname: String::new(),
        variable: |_| None,
    }
}

/// Runs a proxy with this bootstrap, changes its configuration, and says how much is then allocated.
fn weigh(bootstrap: &str, updates: Vec<Update>) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = ALLOCATOR.0.load(Ordering::Relaxed);
    // They are allocated now and free when that is looked at again.
    let known: usize = updates.iter().map(weight_of_update).sum();
    let after = runtime.block_on(async {
        let server = start(bootstrap).await;
        for update in updates {
            let applied = server.config().apply(update).await;
            assert!(applied.rejected.is_empty(), "{:?}", applied.rejected.first());
        }
        server.wait_until_ready().await;
        // The worker has read its mail: this comes after everything else.
        server.config().apply(last()).await;
        let after = ALLOCATOR.0.load(Ordering::Relaxed);
        server.stop().await;
        after
    });
    after + known - before
}

fn weight_of_update(update: &Update) -> usize {
    let of = |it: &Resource| it.name.capacity() + it.version.capacity() + it.bytes.capacity();
    update.added.capacity() * size_of::<Resource>() + update.added.iter().map(of).sum::<usize>()
}

async fn start(bootstrap: &str) -> Server {
    let extensions = extensions::extensions();
    let mut sources = Sources::default();
    sources.push("bootstrap.yaml", bootstrap);
    let bootstrap = Bootstrap::read(&Schema::new(), &extensions, sources).unwrap();
    server::start(bootstrap, extensions, options()).await.unwrap()
}

/// What each of many things takes.
fn each(weight_of: &dyn Fn(usize) -> usize) -> usize {
    // What a process makes once.
    weight_of(1);
    let (few, many) = (weight_of(FEW), weight_of(MANY));
    (many - few) / (MANY - FEW)
}

/// What each may take, in bytes. Envoy's take 47,800 (a cluster), 1,500 (an endpoint), 49,000 (a listener) and 4,300 (a
/// virtual host with two routes).
#[test]
fn what_is_configured_takes_little() {
    type Weight<'a> = &'a dyn Fn(usize) -> usize;
    let limits: [(&str, usize, Weight<'_>); 6] = [
        ("a static cluster", 2700, &|count| weigh(&static_clusters(count, 1), Vec::new())),
        ("its endpoint", 480, &|count| weigh(&static_clusters(1, count), Vec::new())),
        ("a listener", 7500, &|count| weigh(&listeners(count), Vec::new())),
        ("a virtual host", 2900, &|count| weigh(&virtual_hosts(count), Vec::new())),
        ("a discovered cluster", 3600, &|count| weigh(XDS, discovered(count, 1))),
        ("its endpoint", 540, &|count| weigh(XDS, discovered(1, count))),
    ];
    let taken = limits.map(|(what, limit, weight_of)| (what, limit, each(weight_of)));
    let too_much = taken.iter().any(|(_, limit, taken)| taken > limit || *taken == 0);
    assert!(!too_much, "bytes that each may take, and takes: {taken:?}");
}

/// As the benchmark has them.
fn static_clusters(count: usize, endpoints: usize) -> String {
    let mut yaml = "static_resources:\n  clusters:\n".to_owned();
    for n in 0..count {
        let name = format!("idle-{n:04}");
        writeln!(
            yaml,
            "  - name: {name}\n    type: STATIC\n    connect_timeout: 5s\n    lb_policy: ROUND_ROBIN\n    \
             circuit_breakers: {{thresholds: [{{max_connections: 100000, max_pending_requests: 100000, \
             max_requests: 100000, max_retries: 100}}]}}\n    load_assignment:\n      cluster_name: {name}\n      \
             endpoints:\n      - lb_endpoints:"
        )
        .unwrap();
        for port in 1..=endpoints {
            writeln!(
                yaml,
                "        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}"
            )
            .unwrap();
        }
    }
    yaml
}

fn manager(virtual_hosts: &str) -> String {
    format!(
        "\n      - name: hcm\n        typed_config:\n          \
         '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n          \
         stat_prefix: ingress\n          http_filters:\n          - name: router\n            typed_config: \
         {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}\n          \
         route_config:\n            name: routes\n            virtual_hosts:\n{virtual_hosts}"
    )
}

fn listener(name: &str, virtual_hosts: &str) -> String {
    format!(
        "  - name: {name}\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    \
         filter_chains:\n    - filters:{}",
        manager(virtual_hosts)
    )
}

fn virtual_host(n: usize) -> String {
    format!(
        "            - name: reviews-{n}\n              domains: [reviews-{n}, reviews-{n}.default.svc.cluster.local]\n              routes:\n              \
         - {{match: {{prefix: /a}}, route: {{cluster: backend, timeout: 3s}}}}\n              \
         - {{match: {{prefix: /}}, route: {{cluster: backend}}}}\n"
    )
}

const BACKEND: &str = "  clusters:\n  - {name: backend, type: STATIC}\n";

fn listeners(count: usize) -> String {
    let listeners: String =
        (0..count).map(|n| listener(&format!("listener-{n}"), &virtual_host(0))).collect();
    format!("static_resources:\n{BACKEND}  listeners:\n{listeners}")
}

fn virtual_hosts(count: usize) -> String {
    let hosts: String = (0..count).map(virtual_host).collect();
    format!("static_resources:\n{BACKEND}  listeners:\n{}", listener("l", &hosts))
}

const XDS: &str = "static_resources:\n  clusters:\n  - name: xds\n    type: STATIC\n    \
    typed_extension_protocol_options:\n      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n        \
    '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n        \
    explicit_http_config: {http2_protocol_options: {}}\n\
dynamic_resources:\n  ads_config:\n    api_type: DELTA_GRPC\n    grpc_services:\n    - envoy_grpc: {cluster_name: xds}\n";

/// As Istio's control plane sends them.
fn discovered(count: usize, each: usize) -> Vec<Update> {
    let name = |n| format!("outbound|80|v1|reviews-{n:04}.default.svc.cluster.local");
    let cluster = |n| {
        let json = serde_json::json!({
            "name": name(n),
            "type": "EDS",
            "eds_cluster_config": {
                "eds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
                "service_name": name(n),
            },
            "connect_timeout": "10s",
            "lb_policy": "LEAST_REQUEST",
            "circuit_breakers": {"thresholds": [{
                "max_connections": 4294967295_u32, "max_pending_requests": 4294967295_u32,
                "max_requests": 4294967295_u32, "max_retries": 4294967295_u32, "track_remaining": true,
            }]},
            "common_lb_config": {"locality_weighted_lb_config": {}},
            "metadata": {"filter_metadata": {"istio": {"services": [
                {"host": "reviews.default.svc.cluster.local", "name": "reviews", "namespace": "default"}
            ]}}},
        });
        resource::<Cluster>("envoy.config.cluster.v3.Cluster", &name(n), &json)
    };
    let endpoints = |n| {
        let endpoints: Vec<_> = (1..=each).map(|port| serde_json::json!({
            "endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}},
            "metadata": {"filter_metadata": {"istio": {"workload": "reviews;default;reviews;v1;Kubernetes"}}},
            "load_balancing_weight": 1,
        })).collect();
        let json = serde_json::json!({
            "cluster_name": name(n),
            "endpoints": [{
                "locality": {"region": "eu", "zone": "a"},
                "load_balancing_weight": 1,
                "lb_endpoints": endpoints,
            }],
        });
        let message = "envoy.config.endpoint.v3.ClusterLoadAssignment";
        resource::<ClusterLoadAssignment>(message, &name(n), &json)
    };
    let update = |kind, added| Update { kind, added, removed: Vec::new() };
    vec![
        update(ResourceKind::Cluster, (0..count).map(cluster).collect()),
        update(ResourceKind::Endpoints, (0..count).map(endpoints).collect()),
    ]
}

fn last() -> Update {
    let json = serde_json::json!({"name": "last", "type": "STATIC"});
    let added = vec![resource::<Cluster>("envoy.config.cluster.v3.Cluster", "last", &json)];
    Update { kind: ResourceKind::Cluster, added, removed: Vec::new() }
}

fn resource<M: prost::Message + Default>(
    message: &str,
    name: &str,
    json: &serde_json::Value,
) -> Resource {
    let schema = Schema::new();
    let mut sources = Sources::default();
    sources.push("resource", &json.to_string());
    let loaded = api::text::load(&schema, schema.message(message).unwrap(), &sources);
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    let bytes = M::decode(loaded.bytes.as_slice()).unwrap().encode_to_vec();
    Resource { name: name.to_owned(), version: "1".to_owned(), bytes }
}
