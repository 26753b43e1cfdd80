use std::sync::Arc;

use codec::headers::{RequestHead, ResponseHead};
use proxy::listener::config::TrafficDirection;
use proxy::snapshot::node::NodeInfo;
use proxy::stream_info::{CertificateInfo, ConnectionInfo, Timings, TlsInfo};
use proxy::upstream::config::ClusterConfig;
use proxy::upstream::host::{HostAddress, HostOptions};
use proxy::upstream::stats::ClusterBlocks;
use serde_json::{Value, json};
use telemetry::stats::{Registry, Scope, Selection, Snapshot};

use super::*;
use crate::istio::workload::header_of_node;

fn metadata(value: &Value) -> proxy::stream_info::Metadata {
    Some(Arc::new(value.as_object().unwrap().clone()))
}

fn node(name: &str, app: &str) -> NodeInfo {
    let metadata = json!({
        "NAME": format!("{name}-pod"), "NAMESPACE": "bookinfo", "WORKLOAD_NAME": name, "CLUSTER_ID": "Kubernetes",
        "LABELS": {"app": app, "version": "v1"},
    });
    NodeInfo { metadata: Arc::new(metadata.as_object().unwrap().clone()), ..NodeInfo::default() }
}

fn tls(local: &str, peer: &str) -> Option<Arc<TlsInfo>> {
    let certificate = |account: &str| CertificateInfo {
        uri_sans: vec![format!("spiffe://cluster.local/ns/bookinfo/sa/{account}")],
        ..CertificateInfo::default()
    };
    Some(Arc::new(TlsInfo {
        peer: Some(certificate(peer)),
        local: Some(Arc::new(certificate(local))),
        peer_validated: true,
        ..TlsInfo::default()
    }))
}

struct Mesh {
    registry: Registry,
    worker: WorkerContext,
    compiled: Arc<Compiled>,
}

impl Mesh {
    fn new(
        direction: TrafficDirection,
        node: &NodeInfo,
        config: &api::istio::stats::PluginConfig,
    ) -> Self {
        let registry = Registry::new();
        let context = CompileContext { registry: &registry, node, direction, stat_prefix: "x" };
        let settings = Settings::read(&prost::Message::encode_to_vec(config), &context).unwrap();
        let table = SeriesTable::new(&registry, settings.removed.clone());
        let worker = WorkerContext { index: 0, recorder: registry.recorder() };
        Self { worker, compiled: Arc::new(Compiled { settings, table }), registry }
    }

    fn complete(&self, info: &StreamInfo) {
        let mut request = RequestHead::new();
        request.set_authority(b"reviews:9080");
        let response = ResponseHead::new(info.response_code);
        let record = LogRecord {
            worker: 0,
            now_ns: 0,
            info,
            request: Some(&request),
            response: Some(&response),
            response_trailers: None,
        };
        self.compiled.complete(&Arc::downgrade(&self.compiled), &record, &self.worker);
    }

    fn line(&self, metric: &str) -> Vec<String> {
        let text = Snapshot::take(&self.registry).to_prometheus(&Selection::default());
        text.lines().filter(|line| line.starts_with(metric)).map(str::to_owned).collect()
    }

    fn cluster(&self, metadata: proxy::stream_info::Metadata) -> Arc<Cluster> {
        let mut config = ClusterConfig::new("outbound|9080||reviews.bookinfo.svc.cluster.local");
        config.metadata = metadata;
        Arc::new(Cluster::new(config, ClusterBlocks::new(&self.registry, &Scope::cluster("c"))))
    }
}

fn services() -> proxy::stream_info::Metadata {
    metadata(&json!({"istio": {"services": [
        {"host": "reviews.bookinfo.svc.cluster.local", "name": "reviews", "namespace": "bookinfo"}
    ]}}))
}

fn ended(code: u16) -> StreamInfo {
    StreamInfo {
        response_code: code,
        timings: Timings { start_ns: 1_000_000, end_ns: 8_000_000, ..Timings::default() },
        bytes_sent: 300,
        response_header_bytes: 100,
        request_header_bytes: 20,
        connection: Some(Rc::default()),
        ..StreamInfo::default()
    }
}

#[test]
fn a_client_reports_the_endpoints_workload_in_istios_order() {
    let mesh = Mesh::new(
        TrafficDirection::Outbound,
        &node("productpage-v1", "productpage"),
        &Default::default(),
    );
    let host = |workload: &str| {
        let options = HostOptions {
            metadata: metadata(&json!({"istio": {"workload": workload}})),
            ..Default::default()
        };
        Some(Arc::new(Host::new(HostAddress::Tcp("127.0.0.1:1".parse().unwrap()), options)))
    };
    let upstream =
        ConnectionInfo { tls: tls("productpage", "reviews"), ..ConnectionInfo::default() };
    // What only an endpoint says is complete but for its labels.
    let info = StreamInfo {
        cluster: Some(mesh.cluster(services())),
        upstream_host: host("reviews-v2;bookinfo;reviews;v2;Kubernetes"),
        upstream_connection: Some(Rc::new(upstream)),
        ..ended(200)
    };
    mesh.complete(&info);
    mesh.complete(&info);
    assert_eq!(
        mesh.line("istio_requests_total"),
        [concat!(
            "istio_requests_total{reporter=\"source\",source_workload=\"productpage-v1\",",
            "source_canonical_service=\"productpage\",source_canonical_revision=\"v1\",",
            "source_workload_namespace=\"bookinfo\",",
            "source_principal=\"spiffe://cluster.local/ns/bookinfo/sa/productpage\",source_app=\"productpage\",",
            "source_version=\"v1\",source_cluster=\"Kubernetes\",destination_workload=\"reviews-v2\",",
            "destination_workload_namespace=\"bookinfo\",",
            "destination_principal=\"spiffe://cluster.local/ns/bookinfo/sa/reviews\",destination_app=\"unknown\",",
            "destination_version=\"unknown\",destination_service=\"reviews.bookinfo.svc.cluster.local\",",
            "destination_canonical_service=\"reviews\",destination_canonical_revision=\"v2\",",
            "destination_service_name=\"reviews\",destination_service_namespace=\"bookinfo\",",
            "destination_cluster=\"Kubernetes\",request_protocol=\"http\",response_code=\"200\",",
            "grpc_response_status=\"\",response_flags=\"-\",connection_security_policy=\"unknown\"} 2",
        )]
    );
    let sum = mesh.line("istio_response_bytes_sum");
    assert!(sum[0].ends_with("} 800"), "{sum:?}");
    let buckets = mesh.line("istio_request_duration_milliseconds_bucket");
    assert!(
        buckets.iter().any(|line| line.ends_with("le=\"10\"} 2"))
            && buckets.iter().any(|line| line.ends_with("le=\"5\"} 0"))
    );
    // Another endpoint, another series; one and the same connection.
    mesh.complete(&StreamInfo {
        upstream_host: host("reviews-v3;bookinfo;reviews;v3;Kubernetes"),
        ..info
    });
    assert_eq!(mesh.line("istio_requests_total").len(), 2);
}

#[test]
fn what_a_server_says_of_itself_counts_before_what_its_endpoint_says() {
    let mesh = Mesh::new(
        TrafficDirection::Outbound,
        &node("productpage-v1", "productpage"),
        &Default::default(),
    );
    let options = HostOptions {
        metadata: metadata(&json!({"istio": {"workload": "x;bookinfo;x;x;x"}})),
        ..Default::default()
    };
    let host = Host::new(HostAddress::Tcp("127.0.0.1:1".parse().unwrap()), options);
    let upstream =
        ConnectionInfo { tls: tls("productpage", "reviews"), ..ConnectionInfo::default() };
    let header = header_of_node(&node("reviews-v1", "reviews"));
    assert!(Peer::of_connection(&upstream, header.as_bytes()).is_some());
    mesh.complete(&StreamInfo {
        upstream_host: Some(Arc::new(host)),
        upstream_connection: Some(Rc::new(upstream)),
        ..ended(200)
    });
    let line = &mesh.line("istio_requests_total")[0];
    for label in [
        "destination_workload=\"reviews-v1\"",
        "destination_app=\"reviews\"",
        "destination_version=\"v1\"",
    ] {
        assert!(line.contains(label), "{label} in {line}");
    }
}

#[test]
fn a_peer_that_says_nothing_is_known_by_its_certificates_namespace() {
    let mesh =
        Mesh::new(TrafficDirection::Inbound, &node("reviews-v1", "reviews"), &Default::default());
    let connection =
        ConnectionInfo { tls: tls("reviews", "productpage"), ..ConnectionInfo::default() };
    mesh.complete(&StreamInfo { connection: Some(Rc::new(connection)), ..ended(200) });
    let line = &mesh.line("istio_requests_total")[0];
    for label in ["source_workload=\"unknown\"", "source_workload_namespace=\"bookinfo\""] {
        assert!(line.contains(label), "{label} in {line}");
    }
}

#[test]
fn messages_are_counted_for_grpc_alone() {
    let mesh = Mesh::new(TrafficDirection::Inbound, &node("a", "a"), &Default::default());
    mesh.complete(&ended(200));
    assert_eq!(mesh.line("istio_request_messages_total"), [""; 0]);
    let mut info = ended(200);
    info.filter_state.set(GrpcMessages { requests: 3, responses: 2 });
    mesh.complete(&info);
    assert!(mesh.line("istio_request_messages_total")[0].ends_with(" 3"));
    assert!(mesh.line("istio_response_messages_total")[0].ends_with(" 2"));
}

#[test]
fn a_server_believes_its_client_as_far_as_the_certificate_goes() {
    let mesh =
        Mesh::new(TrafficDirection::Inbound, &node("reviews-v1", "reviews"), &Default::default());
    let connection =
        ConnectionInfo { tls: tls("reviews", "productpage"), ..ConnectionInfo::default() };
    let header = header_of_node(&node("productpage-v1", "productpage"));
    assert!(Peer::of_connection(&connection, header.as_bytes()).is_some());
    let info = StreamInfo {
        cluster: Some(mesh.cluster(None)),
        connection: Some(Rc::new(connection)),
        ..ended(503)
    };
    mesh.complete(&info);
    let line = &mesh.line("istio_requests_total")[0];
    for label in [
        "reporter=\"destination\"",
        "source_workload=\"productpage-v1\"",
        "source_principal=\"spiffe://cluster.local/ns/bookinfo/sa/productpage\"",
        "destination_workload=\"reviews-v1\"",
        "destination_principal=\"spiffe://cluster.local/ns/bookinfo/sa/reviews\"",
        "destination_service=\"reviews:9080\"",
        "destination_service_namespace=\"bookinfo\"",
        "response_code=\"503\"",
        "connection_security_policy=\"mutual_tls\"",
    ] {
        assert!(line.contains(label), "{label} in {line}");
    }
}

#[test]
fn strangers_are_unknown() {
    let mesh =
        Mesh::new(TrafficDirection::Inbound, &node("reviews-v1", "reviews"), &Default::default());
    mesh.complete(&ended(404));
    let line = &mesh.line("istio_requests_total")[0];
    for label in [
        "source_workload=\"unknown\"",
        "source_canonical_revision=\"latest\"",
        "source_principal=\"unknown\"",
        "connection_security_policy=\"none\"",
    ] {
        assert!(line.contains(label), "{label} in {line}");
    }
}

#[test]
fn labels_can_be_left_out_and_what_is_not_there_is_refused() {
    use api::istio::stats::{MetricConfig, PluginConfig};
    let with =
        |metric: MetricConfig| PluginConfig { metrics: vec![metric], ..PluginConfig::default() };
    let removed = vec!["source_principal".to_owned()];
    let node = node("a", "a");
    let mesh = Mesh::new(
        TrafficDirection::Inbound,
        &node,
        &with(MetricConfig { tags_to_remove: removed, ..Default::default() }),
    );
    mesh.complete(&ended(200));
    assert!(!mesh.line("istio_requests_total")[0].contains("source_principal"));
    assert_eq!(
        mesh.line("istio_build"),
        [format!("istio_build{{component=\"proxy\",tag=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))]
    );
    let registry = Registry::new();
    let context = CompileContext {
        registry: &registry,
        node: &node,
        direction: TrafficDirection::Inbound,
        stat_prefix: "",
    };
    for metric in [
        MetricConfig { drop: true, ..Default::default() },
        MetricConfig { name: "requests_total".to_owned(), ..Default::default() },
        MetricConfig { tags_to_remove: vec!["nope".to_owned()], ..Default::default() },
    ] {
        let problems =
            Settings::read(&prost::Message::encode_to_vec(&with(metric)), &context).unwrap_err();
        assert!(problems[0].path.starts_with("metrics[0]"), "{problems:?}");
    }
}

#[test]
fn a_connection_remembers_a_bounded_number_of_combinations() {
    let mesh = Mesh::new(TrafficDirection::Inbound, &node("a", "a"), &Default::default());
    let connection: Rc<ConnectionInfo> = Rc::default();
    for code in 200..400 {
        mesh.complete(&StreamInfo { connection: Some(Rc::clone(&connection)), ..ended(code) });
    }
    let seen = connection.state.borrow().get_shared::<RefCell<Seen>>().unwrap();
    assert!(seen.borrow().series.len() <= MAX_SEEN);
    assert_eq!(mesh.line("istio_requests_total").len(), 200, "forgetting loses no count");
}
