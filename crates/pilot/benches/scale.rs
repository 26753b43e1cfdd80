//! The control plane alone, under many proxies: what a start and one change cost.
//!
//! `cargo bench -p pilot --bench scale -- --services 1000 --proxies 1000`
//!
//! This process is the control plane. The proxies are streams of a child process, each over a connection of its own, so
//! that their work is not counted. Every proxy subscribes as ours do: clusters and listeners, then endpoints of every
//! cluster and every virtual host. One line of JSON is the result: CPU seconds of this process, bytes of resources,
//! milliseconds from the write to each proxy's having it.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of its own: it reads its arguments and starts its load"
)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use api::envoy::config::core::v3::{Extension, Node};
use api::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use api::google::protobuf::{Struct, Value, value::Kind};
use identity::PrivateKey;
use identity::token::TokenIssuer;
use pilot::{Options, Pilot};
use resources::store::{Store, Versioned, WriteOptions};
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use xds::ResourceType;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: usize| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let (services, proxies) = (number("--services", 100), number("--proxies", 50));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match number("--load-port", 0) {
        0 => println!("{}", runtime.block_on(measure(services, proxies))),
        port => runtime.block_on(load(port as u16, services, proxies)),
    }
}

/// What is measured of one change.
struct Cost {
    cpu: f64,
    bytes: u64,
    p50: f64,
    p99: f64,
}

impl Cost {
    fn json(&self) -> Json {
        json!({"cpu_s": self.cpu, "bytes": self.bytes, "p50_ms": self.p50, "p99_ms": self.p99})
    }
}

async fn measure(services: usize, proxies: usize) -> Json {
    let store: Arc<dyn Store> = Arc::new(Versioned::in_memory().expect("a store"));
    write(&*store, &mesh(services)).await;
    let pilot = start(&store).await;
    assert!(pilot.ready().await);
    let rss_before = rss_mb();
    let cpu_before = cpu_seconds();
    let port = pilot.plaintext_address().expect("a plaintext port").port();
    let started = Instant::now();
    let mut load = Load::start(port, services, proxies);
    load.wait_for("synced");
    let sync_seconds = started.elapsed().as_secs_f64();
    let sync_cpu = cpu_seconds() - cpu_before;
    let bytes_at_start = pilot.bytes_sent();
    let rss_after = rss_mb();

    let weight =
        change(&pilot, &*store, &mut load, ResourceType::VirtualHost, &virtual_service(0, 50))
            .await;
    let moved = entry(1, 0).replace("10.0.1.0", "10.200.1.0");
    let endpoint = change(&pilot, &*store, &mut load, ResourceType::Endpoints, &moved).await;
    let service =
        change(&pilot, &*store, &mut load, ResourceType::VirtualHost, &service(services)).await;
    let result = json!({
        "services": services,
        "proxies": proxies,
        "initial_sync_cpu_s": sync_cpu,
        "initial_sync_s": sync_seconds,
        "bytes_per_proxy_at_start": bytes_at_start / proxies.max(1) as u64,
        "rss_before_mb": rss_before,
        "rss_after_mb": rss_after,
        "rss_end_mb": rss_mb(),
        "one_weight": weight.json(),
        "one_endpoint": endpoint.json(),
        "one_service": service.json(),
    });
    drop(load);
    pilot.shutdown().await;
    result
}

/// Writes, waits until every proxy has it, and says what that cost.
async fn change(
    pilot: &Pilot,
    store: &dyn Store,
    load: &mut Load,
    kind: ResourceType,
    yaml: &str,
) -> Cost {
    load.tell(&format!("expect {}", kind as usize));
    load.wait_for("expecting");
    let (cpu, bytes) = (cpu_seconds(), pilot.bytes_sent());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
    write(store, yaml).await;
    let times = load.wait_for("arrived");
    let mut micros: Vec<f64> = times
        .split_whitespace()
        .filter_map(|t| t.parse::<u128>().ok())
        .map(|t| t.saturating_sub(now) as f64)
        .collect();
    micros.sort_by(f64::total_cmp);
    let at = |share: f64| {
        micros.get(((micros.len() as f64 - 1.0) * share) as usize).copied().unwrap_or_default()
            / 1000.0
    };
    // Acknowledgements are work too.
    tokio::time::sleep(Duration::from_millis(300)).await;
    Cost {
        cpu: cpu_seconds() - cpu,
        bytes: pilot.bytes_sent() - bytes,
        p50: at(0.5),
        p99: at(0.99),
    }
}

async fn start(store: &Arc<dyn Store>) -> Pilot {
    let issuer =
        TokenIssuer::new(PrivateKey::generate().expect("a key"), "bench").expect("an issuer");
    let any = "127.0.0.1:0".parse().expect("an address");
    pilot::start(Options {
        store: Arc::clone(store),
        tokens: issuer.verifier().expect("a verifier"),
        listen: any,
        plaintext_listen: Some(any),
        monitoring_listen: any,
        server_names: Vec::new(),
        workload_certificate_ttl: None,
        disconnect_grace: Duration::from_secs(1),
    })
    .await
    .expect("a control plane")
}

/// CPU time of all threads, nanoseconds exact.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux");
    let nanos: u64 = tasks
        .filter_map(Result::ok)
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    nanos as f64 / 1e9
}

fn rss_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or_default() / 1024
}

// ---- the mesh ----

/// So many services with three instances each; every second one with two subsets and weights.
fn mesh(services: usize) -> String {
    let mut yaml = String::new();
    for n in 0..services {
        yaml += &service(n);
        (0..3).for_each(|instance| yaml += &entry(n, instance));
        if n % 2 == 0 {
            yaml += &virtual_service(n, 92);
            let _ = write!(
                yaml,
                "---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: svc-{n}, namespace: default}}, spec: {{host: svc-{n}, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}}}\n"
            );
        }
    }
    yaml
}

fn service(n: usize) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Service, metadata: {{name: svc-{n}, namespace: default}}, spec: {{ports: [{{port: 80, name: http, targetPort: 8080}}], selector: {{app: svc-{n}}}}}}}\n"
    )
}

fn entry(n: usize, instance: usize) -> String {
    let version = if instance == 2 { "v2" } else { "v1" };
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: svc-{n}-{instance}, namespace: default}}, spec: {{address: 10.{}.{}.{instance}, labels: {{app: svc-{n}, version: {version}}}, serviceAccount: svc-{n}}}}}\n",
        n / 250,
        n % 250
    )
}

fn virtual_service(n: usize, weight: u32) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: svc-{n}, namespace: default}}, spec: {{hosts: [svc-{n}], http: [{{match: [{{headers: {{end-user: {{exact: jason}}}}}}], route: [{{destination: {{host: svc-{n}, subset: v2}}}}]}}, {{retries: {{attempts: 3, perTryTimeout: 2s}}, route: [{{destination: {{host: svc-{n}, subset: v1}}, weight: {weight}}}, {{destination: {{host: svc-{n}, subset: v2}}, weight: {}}}]}}]}}}}\n",
        100 - weight
    )
}

async fn write(store: &dyn Store, yaml: &str) {
    for document in resources::yaml::load("bench.yaml", yaml).expect("well-formed") {
        let info = resources::kinds::kind_of(&document.object).expect("a known kind");
        let key = resources::kinds::key_of(&document.object, info);
        let options = WriteOptions::by("bench");
        if store.get(&key).await.is_ok() {
            store.update(key, document.object, options).await.expect("an update");
        } else {
            store.create(key, document.object, options).await.expect("a write");
        }
    }
}

// ---- the load, from this side ----

struct Load {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Load {
    fn start(port: u16, services: usize, proxies: usize) -> Load {
        let numbers =
            [("--load-port", usize::from(port)), ("--services", services), ("--proxies", proxies)];
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(
                numbers.iter().flat_map(|(name, number)| [(*name).to_owned(), number.to_string()]),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the load starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Load { child, input, output }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the load runs");
    }

    /// The rest of the line that starts with a word.
    fn wait_for(&mut self, word: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(
                self.output.read_line(&mut line).expect("the load runs") > 0,
                "the load ended before {word}"
            );
            if let Some(rest) = line.trim().strip_prefix(word) {
                return rest.to_owned();
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// ---- the load, from the other side ----

#[derive(Default)]
struct Shared {
    /// Proxies that have everything.
    synced: AtomicUsize,
    /// The type that is waited for; none is 99.
    expected: AtomicUsize,
    arrived: parking_lot::Mutex<Vec<u128>>,
    responses: AtomicU64,
}

async fn load(port: u16, services: usize, proxies: usize) {
    let shared = Arc::new(Shared { expected: AtomicUsize::new(99), ..Default::default() });
    // As istiod's load had them: so many at a time.
    let starting = Arc::new(tokio::sync::Semaphore::new(32));
    for index in 0..proxies {
        let (shared, starting) = (Arc::clone(&shared), Arc::clone(&starting));
        tokio::spawn(async move {
            let permit = starting.acquire_owned().await.expect("open");
            proxy(port, index, services, &shared, permit).await;
        });
    }
    while shared.synced.load(Ordering::Relaxed) < proxies {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("synced");
    let (lines, mut commands) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = commands.recv().await {
        let kind = line.split_whitespace().nth(1).and_then(|kind| kind.parse().ok()).unwrap_or(99);
        shared.arrived.lock().clear();
        shared.expected.store(kind, Ordering::SeqCst);
        println!("expecting");
        while shared.arrived.lock().len() < proxies {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        shared.expected.store(99, Ordering::SeqCst);
        let times: Vec<String> = shared.arrived.lock().iter().map(u128::to_string).collect();
        println!("arrived {}", times.join(" "));
    }
}

async fn proxy(
    port: u16,
    index: usize,
    services: usize,
    shared: &Shared,
    permit: tokio::sync::OwnedSemaphorePermit,
) {
    let mut permit = Some(permit);
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))
        .expect("an address")
        .connect()
        .await
        .expect("a connection");
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(64 << 20);
    let (sender, receiver) = mpsc::channel(16);
    let subscribe =
        |kind: ResourceType, names: Vec<String>, node: Option<Node>| DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names,
            node,
            ..Default::default()
        };
    sender
        .send(subscribe(ResourceType::Cluster, Vec::new(), Some(node(index))))
        .await
        .expect("open");
    let mut responses = client
        .delta_aggregated_resources(ReceiverStream::new(receiver))
        .await
        .expect("a stream")
        .into_inner();
    let mut virtual_hosts = 0;
    while let Ok(Some(response)) = responses.message().await {
        shared.responses.fetch_add(1, Ordering::Relaxed);
        let kind = ResourceType::from_type_url(&response.type_url).expect("a known type");
        if kind as usize == shared.expected.load(Ordering::SeqCst) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
            shared.arrived.lock().push(now);
        }
        let _ = sender.send(acknowledge(&response)).await;
        match kind {
            ResourceType::Cluster
                if permit.is_some() && virtual_hosts == 0 && response.resources.len() > 1 =>
            {
                let names = response.resources.iter().map(|r| r.name.clone());
                let names = names.filter(|name| name.starts_with("outbound|")).collect();
                let _ = sender.send(subscribe(ResourceType::Endpoints, names, None)).await;
                let _ = sender.send(subscribe(ResourceType::Listener, Vec::new(), None)).await;
            }
            ResourceType::Listener if virtual_hosts == 0 => {
                let names = vec!["http_proxy".to_owned()];
                let _ = sender.send(subscribe(ResourceType::VirtualHost, names, None)).await;
            }
            ResourceType::VirtualHost if permit.is_some() => {
                virtual_hosts += response.resources.len();
                if virtual_hosts > services {
                    permit = None;
                    shared.synced.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }
}

fn acknowledge(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        ..Default::default()
    }
}

fn node(index: usize) -> Node {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    Node {
        id: format!(
            "sidecar~127.{}.{}.1~load-{index}.default~default.svc.cluster.local",
            64 + index / 250,
            index % 250
        ),
        metadata: Some(Struct { fields: [("INTERCEPTION_MODE".to_owned(), text("NONE"))].into() }),
        client_features: [
            pilot::ads::node::EAGER_VHDS_FEATURE,
            pilot::ads::node::HTTP2_BY_AGREEMENT_FEATURE,
        ]
        .map(str::to_owned)
        .to_vec(),
        extensions: vec![Extension {
            type_urls: vec!["type.googleapis.com/stats.PluginConfig".to_owned()],
            ..Default::default()
        }],
        ..Default::default()
    }
}
