use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use api::envoy::config::cluster::v3::Cluster as ClusterMessage;
use api::google::protobuf::Duration as ProtoDuration;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use serde_json::{Value, json};
use telemetry::logging::{Level, Levels};
use telemetry::stats::Registry;
use telemetry::stats::sets::Cluster as ClusterStats;

use super::state::Resources;
use super::*;
use crate::access_log::sink::{BufferOptions, Sinks};
use crate::listener::config::ListenAddress;
use crate::stream_info::CertificateInfo;
use crate::upstream::cluster::Cluster;
use crate::upstream::config::ClusterConfig;
use crate::upstream::host::{DiscoveredHealth, Host, HostAddress, HostOptions, HostSet};
use crate::upstream::stats::ClusterBlocks;

/// A server that remembers what it was told.
#[derive(Default)]
struct Fake {
    told: Mutex<Vec<String>>,
    failing: Mutex<bool>,
}

fn cluster(name: &str) -> StaticResource {
    let message = ClusterMessage {
        name: name.to_owned(),
        connect_timeout: Some(ProtoDuration { seconds: 1, nanos: 0 }),
        ..ClusterMessage::default()
    };
    StaticResource {
        name: name.to_owned(),
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        bytes: Bytes::from(message.encode_to_vec()),
        updated: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_270_564_302),
    }
}

impl AdminState for Fake {
    fn state(&self) -> ServerState {
        if *self.failing.lock() { ServerState::Draining } else { ServerState::Live }
    }
    fn version(&self) -> String {
        "abc/0.1.0/Clean/RELEASE/aws-lc".to_owned()
    }
    fn command_line_options(&self) -> Value {
        json!({"concurrency": 2})
    }
    fn node(&self) -> Bytes {
        let node = api::envoy::config::core::v3::Node { id: "n1".to_owned(), ..Default::default() };
        Bytes::from(node.encode_to_vec())
    }
    fn listeners(&self) -> Vec<ListenerStatus> {
        let tcp = |text: &str| ListenAddress::Tcp(text.parse().unwrap());
        vec![
            ListenerStatus {
                name: "l2".into(),
                addresses: vec![tcp("127.0.0.1:29911"), tcp("[::1]:29912")],
            },
            ListenerStatus {
                name: "l1".into(),
                addresses: vec![ListenAddress::Pipe("/run/s".into())],
            },
        ]
    }
    fn clusters(&self) -> Vec<ClusterStatus> {
        let host = Host::new(
            HostAddress::Tcp("127.0.0.1:29920".parse().unwrap()),
            HostOptions {
                hostname: "hx".into(),
                health: DiscoveredHealth::Draining,
                ..HostOptions::default()
            },
        );
        host.counters.cx_total.store(6, Ordering::Relaxed);
        host.counters.rq_active.store(1, Ordering::Relaxed);
        let blocks =
            ClusterBlocks::new(&Registry::new(), &telemetry::stats::Scope::cluster("a.b.c"));
        vec![ClusterStatus {
            cluster: Arc::new(Cluster::new(ClusterConfig::new("a.b.c"), blocks)),
            hosts: Arc::new(HostSet::new(vec![Arc::new(host)])),
            eds_service_name: Some("eds".into()),
            added_via_api: true,
        }]
    }
    fn certificates(&self) -> Vec<CertificateStatus> {
        let info = CertificateInfo {
            serial: "0a".to_owned(),
            uri_sans: vec!["spiffe://td/ns/x/sa/y".to_owned()],
            dns_sans: vec!["d".to_owned()],
            not_before: 1_795_270_564,
            not_after: 1_795_270_565,
            ..CertificateInfo::default()
        };
        vec![CertificateStatus {
            authorities: vec![(info.clone(), Some("/ca.pem".into()))],
            chain: vec![(info, None)],
        }]
    }
    fn config_dump(&self) -> ConfigDump {
        let dynamic = DynamicResource {
            name: "dyn".to_owned(),
            active: Some(("v7".to_owned(), cluster("dyn"))),
            warming: None,
            rejected: Some(RejectedResource {
                details: "bad field".to_owned(),
                version: "v8".to_owned(),
                resource: cluster("dyn"),
            }),
        };
        let never = DynamicResource {
            name: "never".to_owned(),
            active: None,
            rejected: Some(RejectedResource {
                details: "worse".to_owned(),
                version: "v1".to_owned(),
                resource: cluster("never"),
            }),
            ..dynamic.clone()
        };
        let clusters = Resources {
            version: "v7".to_owned(),
            fixed: vec![cluster("a"), cluster("b")],
            dynamic: vec![dynamic, never],
        };
        ConfigDump { clusters, ..ConfigDump::default() }
    }
    fn unready(&self) -> Vec<(&'static str, Vec<String>)> {
        vec![("init manager Clusters", vec!["Cluster c".to_owned()])]
    }
    fn runtime_layers(&self) -> Vec<(String, Vec<(String, Value)>)> {
        let layer = |name: &str, value: Value| (name.to_owned(), vec![("k".to_owned(), value)]);
        vec![layer("base", json!(1)), ("empty".to_owned(), Vec::new()), layer("over", json!("x"))]
    }
    fn drain_listeners(&self, request: DrainRequest) {
        self.told.lock().push(format!("{request:?}"));
    }
    fn fail_health_checks(&self, fail: bool) {
        *self.failing.lock() = fail;
    }
    fn quit(&self) {
        self.told.lock().push("quit".to_owned());
    }
}

fn context() -> (AdminContext, Arc<Fake>) {
    let (registry, fake) = (Registry::new(), Arc::new(Fake::default()));
    let context = AdminContext {
        state: fake.clone(),
        sinks: Sinks::new(BufferOptions::default(), registry.clone()),
        levels: Arc::new(Levels::new(Level::Info)),
        stats_matcher: None,
        started: Instant::now(),
        server_stats: ServerStats::new(&registry),
        registry,
    };
    (context, fake)
}

fn ask(context: &AdminContext, method: Method, target: &str) -> (u16, String) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let verb = if method == Method::Read { "GET" } else { "POST" };
    let reply = endpoints::dispatch(context, method, verb, path, &Query::parse(query));
    (reply.status, String::from_utf8(reply.body).unwrap())
}

fn get(context: &AdminContext, target: &str) -> (u16, String) {
    ask(context, Method::Read, target)
}

fn post(context: &AdminContext, target: &str) -> (u16, String) {
    ask(context, Method::Write, target)
}

fn get_json(context: &AdminContext, target: &str) -> Value {
    let (status, body) = get(context, target);
    assert_eq!(status, 200, "{target}: {body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn what_changes_something_wants_post() {
    let (context, fake) = context();
    let changing: Vec<_> =
        endpoints::ENDPOINTS.iter().filter(|endpoint| endpoint.changes).collect();
    assert!(changing.len() >= 7);
    for endpoint in changing {
        assert_eq!(
            get(&context, endpoint.path),
            (405, "Method GET not allowed, POST required.".to_owned())
        );
    }
    assert!(fake.told.lock().is_empty());
    assert_eq!(post(&context, "/quitquitquit"), (200, "OK\n".to_owned()));
    assert_eq!(*fake.told.lock(), ["quit"]);
}

#[test]
fn an_unknown_path_gets_help_and_an_unknown_parameter_is_refused() {
    let (context, _) = context();
    let (status, body) = get(&context, "/nosuch");
    assert_eq!(status, 404);
    assert!(body.starts_with("invalid path. admin commands are:\n  /: Admin home page\n  /certs: print certs on machine\n"), "{body}");
    assert_eq!(get(&context, "/help").1, body.trim_start_matches("invalid path. "));
    assert_eq!(get(&context, "/stats?text_readouts").0, 400);
    assert_eq!(get(&context, "/").0, 200);
}

#[test]
fn readiness_follows_health_checks() {
    let (context, _) = context();
    assert_eq!(get(&context, "/ready"), (200, "LIVE\n".to_owned()));
    assert_eq!(post(&context, "/healthcheck/fail"), (200, "OK\n".to_owned()));
    assert_eq!(get(&context, "/ready"), (503, "DRAINING\n".to_owned()));
    assert_eq!(get_json(&context, "/server_info")["state"], "DRAINING");
    post(&context, "/healthcheck/ok");
    assert_eq!(get(&context, "/ready").0, 200);
}

#[test]
fn draining_takes_its_parameters() {
    let (context, fake) = context();
    assert_eq!(post(&context, "/drain_listeners?skip_exit").0, 400);
    assert_eq!(post(&context, "/drain_listeners?graceful&inboundonly").0, 200);
    let expected = DrainRequest { graceful: true, inbound_only: true, skip_exit: false };
    assert_eq!(*fake.told.lock(), [format!("{expected:?}")]);
}

#[test]
fn stats_select_and_format() {
    let (context, _) = context();
    let block = context.registry.block::<ClusterStats>(&telemetry::stats::Scope::cluster("a"));
    context.registry.recorder().inc(&block, ClusterStats::UPSTREAM_RQ_TOTAL);
    let (_, used) = get(&context, "/stats?usedonly&filter=%5Ecluster%5C.");
    assert_eq!(used, "cluster.a.upstream_rq_total: 1\n");
    let (_, gauges) = get(&context, "/stats?type=Gauges&filter=server.live");
    assert_eq!(gauges, "server.live: 1\n");
    let inverted = get(&context, "/stats?usedonly&filter=^server&invert_filter").1;
    assert_eq!(inverted, used);
    let json = get_json(&context, "/stats?format=json&usedonly&filter=^cluster");
    assert_eq!(json, json!({"stats": [{"name": "cluster.a.upstream_rq_total", "value": 1}]}));
    let (_, prometheus) = get(&context, "/stats/prometheus?usedonly&filter=^cluster");
    assert_eq!(
        prometheus,
        "# HELP envoy_cluster_upstream_rq_total cluster.upstream_rq_total\n# TYPE envoy_cluster_upstream_rq_total counter\nenvoy_cluster_upstream_rq_total{envoy_cluster_name=\"a\"} 1\n"
    );
    for refused in [
        "/stats?format=html",
        "/stats?type=x",
        "/stats?histogram_buckets=detailed",
        "/stats?filter=(",
    ] {
        assert_eq!(get(&context, refused).0, 400, "{refused}");
    }
    post(&context, "/reset_counters");
    assert_eq!(get(&context, "/stats?usedonly&filter=^cluster").1, "");
}

#[test]
fn listeners_are_envoys() {
    let (context, _) = context();
    assert_eq!(get(&context, "/listeners").1, "l1::/run/s\nl2::127.0.0.1:29911\nl2::[::1]:29912\n");
    let socket = |address: &str, port: u16| json!({"socket_address": {"address": address, "port_value": port}});
    assert_eq!(
        get_json(&context, "/listeners?format=json"),
        json!({"listener_statuses": [
            {"name": "l1", "local_address": {"pipe": {"path": "/run/s"}}},
            {"name": "l2", "local_address": socket("127.0.0.1", 29911), "additional_local_addresses": [socket("::1", 29912)]},
        ]})
    );
}

#[test]
fn clusters_are_envoys() {
    let (context, _) = context();
    let expected = "a.b.c::observability_name::a.b.c\n\
        a.b.c::default_priority::max_connections::1024\n\
        a.b.c::default_priority::max_pending_requests::1024\n\
        a.b.c::default_priority::max_requests::1024\n\
        a.b.c::default_priority::max_retries::3\n\
        a.b.c::high_priority::max_connections::1024\n\
        a.b.c::high_priority::max_pending_requests::1024\n\
        a.b.c::high_priority::max_requests::1024\n\
        a.b.c::high_priority::max_retries::3\n\
        a.b.c::added_via_api::true\n\
        a.b.c::127.0.0.1:29920::cx_active::0\n\
        a.b.c::127.0.0.1:29920::cx_connect_fail::0\n\
        a.b.c::127.0.0.1:29920::cx_total::6\n\
        a.b.c::127.0.0.1:29920::rq_active::1\n\
        a.b.c::127.0.0.1:29920::rq_error::0\n\
        a.b.c::127.0.0.1:29920::rq_pending_active::0\n\
        a.b.c::127.0.0.1:29920::rq_success::0\n\
        a.b.c::127.0.0.1:29920::rq_timeout::0\n\
        a.b.c::127.0.0.1:29920::rq_total::0\n\
        a.b.c::127.0.0.1:29920::hostname::hx\n\
        a.b.c::127.0.0.1:29920::health_flags::/eds_status_draining\n\
        a.b.c::127.0.0.1:29920::weight::1\n\
        a.b.c::127.0.0.1:29920::region::\n\
        a.b.c::127.0.0.1:29920::zone::\n\
        a.b.c::127.0.0.1:29920::sub_zone::\n\
        a.b.c::127.0.0.1:29920::canary::false\n\
        a.b.c::127.0.0.1:29920::priority::0\n\
        a.b.c::127.0.0.1:29920::success_rate::-1\n\
        a.b.c::127.0.0.1:29920::local_origin_success_rate::-1\n";
    assert_eq!(get(&context, "/clusters").1, expected);
    assert_eq!(get(&context, "/clusters?filter=^x").1, "");
    let status = &get_json(&context, "/clusters?format=json")["cluster_statuses"][0];
    let host = &status["host_statuses"][0];
    assert_eq!(host["stats"][1], json!({"value": "6", "name": "cx_total"}));
    assert_eq!(host["stats"][6], json!({"type": "GAUGE", "name": "cx_active"}));
    assert_eq!(host["health_status"], json!({"eds_health_status": "DRAINING"}));
    assert_eq!(status["circuit_breakers"]["thresholds"][1]["priority"], "HIGH");
    assert_eq!(status["added_via_api"], true);
}

#[test]
fn certificates_are_envoys() {
    let (context, _) = context();
    let certs = get_json(&context, "/certs");
    let leaf = &certs["certificates"][0]["cert_chain"][0];
    assert_eq!(leaf["path"], "<inline>");
    assert_eq!(leaf["subject_alt_names"], json!([{"uri": "spiffe://td/ns/x/sa/y"}, {"dns": "d"}]));
    assert_eq!(leaf["valid_from"], "2026-11-21T14:16:04Z");
    assert!(leaf["days_until_expiration"].is_string());
    assert_eq!(certs["certificates"][0]["ca_cert"][0]["path"], "/ca.pem");
}

#[test]
fn config_dump_is_envoys() {
    let (context, _) = context();
    let dump = get_json(&context, "/config_dump");
    let types: Vec<_> = dump["configs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["@type"].as_str().unwrap().rsplit('.').next().unwrap())
        .collect();
    assert_eq!(
        types,
        [
            "ClustersConfigDump",
            "ListenersConfigDump",
            "ScopedRoutesConfigDump",
            "RoutesConfigDump",
            "SecretsConfigDump"
        ]
    );
    let clusters = &dump["configs"][0];
    assert_eq!(
        clusters["static_clusters"][0],
        json!({
            "cluster": {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "a", "connect_timeout": "1s"},
            "last_updated": "2026-11-21T14:16:04.302Z",
        })
    );
    assert_eq!(clusters["dynamic_active_clusters"][0]["version_info"], "v7");
    assert_eq!(clusters["dynamic_active_clusters"][0]["error_state"]["details"], "bad field");
    let picked = get_json(&context, "/config_dump?resource=static_clusters&name_regex=b");
    assert_eq!(picked["configs"].as_array().unwrap().len(), 1);
    assert_eq!(
        picked["configs"][0]["@type"],
        "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster"
    );
    assert_eq!(picked["configs"][0]["cluster"]["name"], "b");
    let masked = get_json(&context, "/config_dump?resource=static_clusters&mask=cluster.name");
    assert_eq!(
        masked["configs"][0]["cluster"],
        json!({"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "a"})
    );
    assert!(masked["configs"][0].get("last_updated").is_none());
    let never = &clusters["dynamic_active_clusters"][1];
    assert!(never.get("cluster").is_none(), "it is not in force: {never}");
    assert_eq!(never["error_state"]["failed_configuration"]["name"], "never");
    assert_eq!(never["error_state"]["version_info"], "v1");
    // Only what the mask finds something in is left; nothing at all is an error.
    let masked =
        get_json(&context, "/config_dump?mask=dynamic_active_clusters.error_state.details");
    assert_eq!(masked["configs"].as_array().unwrap().len(), 1);
    assert_eq!(
        get(&context, "/config_dump?mask=nope"),
        (400, "FieldMask nope could not be successfully applied to any configs.\n".to_owned())
    );
    assert_eq!(get_json(&context, "/config_dump?resource=dynamic_listeners"), json!({}));
    let (status, text) = get(&context, "/config_dump?name_regex=%5B");
    assert!(status == 400 && text.contains("unclosed character class: ["), "{text}");
    assert_eq!(
        get(&context, "/config_dump?resource=nope"),
        (404, "nope not found in config dump\n".to_owned())
    );
}

#[test]
fn log_levels_change_all_or_nothing() {
    let (context, _) = context();
    let (status, body) = post(&context, "/logging?paths=http:debug,nope:trace");
    assert_eq!(status, 400);
    assert!(
        body.starts_with("error: unknown logger name\n") && body.contains("  http: info\n"),
        "{body}"
    );
    let (_, body) = post(&context, "/logging?paths=http:debug,router:trace");
    assert!(
        body.contains("  http: debug\n")
            && body.contains("  router: trace\n")
            && body.contains("  main: info\n")
    );
    assert_eq!(post(&context, "/logging?level=loud").0, 400);
    assert!(post(&context, "/logging?main=off").1.contains("  main: off\n"));
    assert!(!post(&context, "/logging?level=error").1.contains("info"));
}

#[test]
fn runtime_shows_every_layer() {
    let (context, _) = context();
    assert_eq!(
        get_json(&context, "/runtime"),
        json!({"layers": ["base", "empty", "over"], "entries": {"k": {"final_value": "x", "layer_values": ["1", "", "x"]}}})
    );
}

/// What istioctl and its like do with the answers: read them as the protobuf messages they stand for.
#[test]
fn answers_are_the_messages_of_admin_v3() {
    let (context, _) = context();
    let schema = api::schema::Schema::new();
    let table = [
        ("/clusters?format=json", "Clusters"),
        ("/listeners?format=json", "Listeners"),
        ("/certs", "Certificates"),
        ("/memory", "Memory"),
        ("/server_info", "ServerInfo"),
        ("/config_dump?include_eds", "ConfigDump"),
        ("/config_dump?resource=dynamic_active_clusters", "ConfigDump"),
    ];
    for (target, message) in table {
        let (_, body) = get(&context, target);
        let name = format!("envoy.admin.v3.{message}");
        let message = schema.message(&name).unwrap_or_else(|| panic!("no {name}"));
        let loaded = api::text::load(&schema, message, &api::text::Sources::one(target, &body));
        assert!(loaded.problems.is_empty(), "{target}: {:?}", loaded.problems);
        assert!(!loaded.bytes.is_empty(), "{target}");
    }
}

async fn raw(address: SocketAddr, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn it_serves_over_http() {
    let (context, fake) = context();
    let handle = serve(context, SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let answer =
        raw(handle.address, "GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nLIVE\n"),
        "{answer}"
    );
    assert!(
        answer.contains("content-type: text/plain; charset=UTF-8\r\n")
            && answer.contains("x-content-type-options: nosniff\r\n")
    );
    let foreign = "POST /quitquitquit HTTP/1.1\r\nhost: 127.0.0.1\r\norigin: http://evil.example\r\nconnection: close\r\n\r\n";
    assert!(raw(handle.address, foreign).await.starts_with("HTTP/1.1 403 "));
    assert!(fake.told.lock().is_empty());
    let own = "POST /quitquitquit HTTP/1.1\r\nhost: 127.0.0.1\r\norigin: http://127.0.0.1\r\nconnection: close\r\n\r\n";
    assert!(raw(handle.address, own).await.starts_with("HTTP/1.1 200 "));
    let delete = "DELETE /stats HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert!(raw(handle.address, delete).await.starts_with("HTTP/1.1 405 "));
    handle.shutdown().await;
}

#[test]
fn what_does_not_serve_yet_is_told() {
    let (context, _) = context();
    let told = get_json(&context, "/init_dump");
    assert_eq!(
        told,
        json!({"unready_targets_dumps": [
            {"name": "init manager Clusters", "target_names": ["Cluster c"]}
        ]})
    );
    assert_eq!(get_json(&context, "/init_dump?mask=listener"), json!({}));
}

#[test]
fn prometheus_has_texts_and_summaries_when_asked() {
    let (context, _) = context();
    context.registry.set_text(&Scope::new().text("lds"), "version_text", "v1");
    let (_, plain) = get(&context, "/stats/prometheus");
    assert!(!plain.contains("version_text"));
    let (_, texts) = get(&context, "/stats/prometheus?text_readouts");
    assert!(texts.contains("envoy_lds_version_text{text_value=\"v1\"} 0\n"), "{texts}");
    let (_, summary) = get(&context, "/stats/prometheus?histogram_buckets=summary");
    assert!(!summary.contains("_bucket{"), "{summary}");
    assert_eq!(get(&context, "/stats/prometheus?histogram_buckets=detailed").0, 400);
}
