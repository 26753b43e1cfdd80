//! The client against a real gRPC server over real sockets, with a main thread that keeps a map.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::envoy::config::core::v3::Node;
use api::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use api::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use api::text::Problem;
use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream as TokioStream;
use tokio_stream::wrappers::{UnboundedReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};
use xds::server::RequestOutcome;
use xds::sotw::{SotwOutcome, SotwServer};
use xds::{DeltaServer, Rejection, ResourceSource, ResourceType};

use super::sink::*;
use crate::upstream::host::HostAddress;

/// What the control plane has, and what it heard.
#[derive(Default)]
struct World {
    contents: BTreeMap<(ResourceType, String), String>,
    nodes: Vec<Node>,
    headers: Vec<Option<String>>,
    rejections: Vec<Rejection>,
    sent: Vec<String>,
    /// The versions that clients brought along.
    held: BTreeSet<String>,
}

impl ResourceSource for World {
    fn names(&mut self, kind: ResourceType) -> Vec<Arc<str>> {
        self.contents
            .keys()
            .filter(|(k, _)| *k == kind)
            .map(|(_, n)| Arc::from(n.as_str()))
            .collect()
    }

    fn names_in(&mut self, kind: ResourceType, collection: &str) -> Vec<Arc<str>> {
        let prefix = format!("{collection}/");
        self.names(kind).into_iter().filter(|name| name.starts_with(&prefix)).collect()
    }

    fn resource(&mut self, kind: ResourceType, name: &str) -> Option<xds::Resource> {
        let content = self.contents.get(&(kind, name.to_owned()))?;
        // A resource of the wrong type travels under a content of its own.
        let type_url =
            if content == "mislabelled" { "type.googleapis.com/x.Y" } else { kind.type_url() };
        Some(xds::Resource::new(name, type_url, content.clone().into_bytes()))
    }
}

#[derive(Clone)]
struct ControlPlane {
    world: Arc<Mutex<World>>,
    changed: watch::Sender<Vec<(ResourceType, String)>>,
    killed: watch::Sender<bool>,
}

type Responses = Pin<Box<dyn TokioStream<Item = Result<DeltaDiscoveryResponse, Status>> + Send>>;

impl ControlPlane {
    fn new() -> ControlPlane {
        ControlPlane {
            world: Arc::default(),
            changed: watch::Sender::new(Vec::new()),
            killed: watch::Sender::new(false),
        }
    }

    fn put(&self, kind: ResourceType, name: &str, content: &str) {
        self.world.lock().unwrap().contents.insert((kind, name.into()), content.into());
        self.changed.send_modify(|log| log.push((kind, name.into())));
    }

    fn delete(&self, kind: ResourceType, name: &str) {
        self.world.lock().unwrap().contents.remove(&(kind, name.into()));
        self.changed.send_modify(|log| log.push((kind, name.into())));
    }

    fn delta(&self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Response<Responses> {
        let header =
            request.metadata().get("x-who").map(|value| value.to_str().unwrap().to_owned());
        self.world.lock().unwrap().headers.push(header);
        let (responses, outgoing) = mpsc::unbounded_channel();
        tokio::spawn(self.clone().serve(request.into_inner(), responses));
        Response::new(Box::pin(UnboundedReceiverStream::new(outgoing)))
    }

    async fn serve(
        self,
        mut requests: Streaming<DeltaDiscoveryRequest>,
        responses: mpsc::UnboundedSender<Result<DeltaDiscoveryResponse, Status>>,
    ) {
        let mut server = DeltaServer::new();
        let mut changed = self.changed.subscribe();
        let mut killed = self.killed.subscribe();
        loop {
            tokio::select! {
                _ = killed.wait_for(|killed| *killed) => return,
                request = requests.message() => match request {
                    Ok(Some(request)) => self.hear(&mut server, request),
                    _ => return,
                },
                Ok(()) = changed.changed() => {
                    for (kind, name) in changed.borrow_and_update().iter() {
                        server.changed(*kind, &Arc::from(name.as_str()));
                    }
                }
            }
            let mut world = self.world.lock().unwrap();
            while let Some(response) = server.next_response(&mut *world) {
                let response =
                    DeltaDiscoveryResponse::decode(response.encode_to_vec().as_slice()).unwrap();
                let kind = ResourceType::from_type_url(&response.type_url).unwrap();
                world.sent.extend(response.resources.iter().map(|r| format!("{kind} {}", r.name)));
                let _ = responses.send(Ok(response));
            }
        }
    }

    fn hear(&self, server: &mut DeltaServer, request: DeltaDiscoveryRequest) {
        let mut world = self.world.lock().unwrap();
        world.nodes.extend(request.node.clone());
        world.held.extend(request.initial_resource_versions.keys().cloned());
        if let RequestOutcome::Rejected(_, rejections) = server.on_request(request).unwrap() {
            world.rejections.extend(rejections);
        }
    }

    /// Serves on a Unix socket until dropped.
    fn listen(&self, path: &PathBuf) -> Listening {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let service = tonic::transport::Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(self.clone()))
            .add_service(SecretDiscoveryServiceServer::new(self.clone()))
            .serve_with_incoming(UnixListenerStream::new(listener));
        let task = tokio::spawn(async move { service.await.unwrap() });
        Listening { task, killed: self.killed.clone() }
    }
}

/// Dropping it is the end of the control plane and of every stream that it served.
struct Listening {
    task: tokio::task::JoinHandle<()>,
    killed: watch::Sender<bool>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        self.killed.send_replace(true);
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for ControlPlane {
    type StreamAggregatedResourcesStream = tokio_stream::Empty<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = Responses;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("delta only"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        Ok(self.delta(request))
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for ControlPlane {
    type DeltaSecretsStream = Responses;
    type StreamSecretsStream =
        Pin<Box<dyn TokioStream<Item = Result<DiscoveryResponse, Status>> + Send>>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        Ok(self.delta(request))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let (responses, outgoing) = mpsc::unbounded_channel();
        let (world, mut changed) = (self.world.clone(), self.changed.subscribe());
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            let mut server = SotwServer::new();
            loop {
                tokio::select! {
                    Ok(Some(request)) = requests.message() => {
                        let outcome = server.on_request(request).unwrap();
                        if let SotwOutcome::Rejected(_, reason) = outcome {
                            let rejection = Rejection { name: "set".into(), reason };
                            world.lock().unwrap().rejections.push(rejection);
                        }
                    }
                    Ok(()) = changed.changed() => server.changed(ResourceType::Secret),
                    else => return,
                }
                while let Some(response) = server.next_response(&mut *world.lock().unwrap()) {
                    let bytes = response.encode_to_vec();
                    let _ =
                        responses.send(Ok(DiscoveryResponse::decode(bytes.as_slice()).unwrap()));
                }
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(outgoing))))
    }

    async fn fetch_secrets(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("streams only"))
    }
}

/// A main thread that keeps what it is given, wants what that names, and refuses what is bad.
struct MainThread {
    applied: watch::Sender<BTreeMap<(ResourceKind, String), String>>,
    order: Mutex<Vec<ResourceKind>>,
    subscriptions: watch::Sender<Arc<Subscriptions>>,
    socket: PathBuf,
}

impl MainThread {
    fn new(socket: PathBuf, wanted: &[(ResourceKind, Names)]) -> Arc<MainThread> {
        let service = grpc_source();
        let subscriptions = Subscriptions {
            ads: Some(service),
            wanted: BTreeMap::from([(Source::Ads, wanted.iter().cloned().collect())]),
        };
        Arc::new(MainThread {
            applied: watch::Sender::new(BTreeMap::new()),
            order: Mutex::default(),
            subscriptions: watch::Sender::new(Arc::new(subscriptions)),
            socket,
        })
    }

    fn want(&self, source: Source, kind: ResourceKind, name: &str) {
        self.subscriptions.send_modify(|current| {
            let mut next = Subscriptions::clone(current);
            let names = next.wanted.entry(source).or_default().entry(kind);
            if let Names::Named(names) = names.or_insert(Names::Named(Arc::default())) {
                Arc::make_mut(names).insert(name.into());
            }
            *current = Arc::new(next);
        });
    }

    fn drop_name(&self, kind: ResourceKind, name: &str) {
        self.subscriptions.send_modify(|current| {
            let mut next = Subscriptions::clone(current);
            let kinds = next.wanted.get_mut(&Source::Ads).unwrap();
            if let Some(Names::Named(names)) = kinds.get_mut(&kind) {
                Arc::make_mut(names).remove(name);
            }
            *current = Arc::new(next);
        });
    }

    async fn until(
        &self,
        what: &str,
        done: impl Fn(&BTreeMap<(ResourceKind, String), String>) -> bool,
    ) {
        let mut applied = self.applied.subscribe();
        let waiting = applied.wait_for(|state| done(state));
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert!(waited.is_ok_and(|state| state.is_ok()), "{what}: {:?}", self.applied.borrow());
    }

    async fn until_has(&self, kind: ResourceKind, name: &str, content: &str) {
        let key = (kind, name.to_owned());
        self.until(&format!("{key:?} = {content}"), |state| {
            state.get(&key).is_some_and(|c| c == content)
        })
        .await;
    }
}

impl ConfigSink for MainThread {
    fn node(&self) -> Node {
        Node { id: "sidecar~127.64.0.1~a.b~b.svc.cluster.local".into(), ..Node::default() }
    }

    fn subscriptions(&self) -> watch::Receiver<Arc<Subscriptions>> {
        self.subscriptions.subscribe()
    }

    async fn apply(&self, update: Update) -> Applied {
        self.order.lock().unwrap().push(update.kind);
        let mut applied = Applied::default();
        let mut next = self.applied.borrow().clone();
        for resource in update.added {
            let content = String::from_utf8(resource.bytes).unwrap();
            if content == "bad" {
                let problems =
                    vec![Problem::new("lb_policy", "is not supported"), Problem::new("", "no")];
                applied.rejected.push(Rejected { name: resource.name, problems });
                continue;
            }
            match update.kind {
                ResourceKind::Cluster => {
                    self.want(Source::Ads, ResourceKind::Endpoints, &resource.name)
                }
                ResourceKind::Listener => self.want(Source::Ads, ResourceKind::Routes, "80"),
                ResourceKind::Routes => {
                    self.want(Source::Ads, ResourceKind::VirtualHosts, &resource.name)
                }
                _ => {}
            }
            next.insert((update.kind, resource.name), content);
        }
        for name in update.removed {
            if update.kind == ResourceKind::Cluster {
                self.drop_name(ResourceKind::Endpoints, &name);
                next.remove(&(ResourceKind::Endpoints, name.clone()));
            }
            next.remove(&(update.kind, name));
        }
        self.applied.send_replace(next);
        applied
    }

    async fn grpc_target(&self, cluster: &str) -> Option<GrpcTarget> {
        (cluster == "xds-grpc").then(|| GrpcTarget {
            addresses: vec![HostAddress::Pipe(self.socket.clone())],
            tls: None,
            sni: None,
            authority: "xds-grpc".into(),
        })
    }
}

fn grpc_source() -> GrpcSource {
    GrpcSource {
        cluster: "xds-grpc".into(),
        authority: None,
        timeout: None,
        delta: true,
        initial_metadata: vec![("x-who".into(), "me".into())],
    }
}

struct Fixture {
    control: ControlPlane,
    main: Arc<MainThread>,
    _directory: tempfile::TempDir,
    socket: PathBuf,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("xds");
    let wanted =
        [(ResourceKind::Cluster, Names::Wildcard), (ResourceKind::Listener, Names::Wildcard)];
    let main = MainThread::new(socket.clone(), &wanted);
    let control = ControlPlane::new();
    for (kind, name) in [
        (ResourceType::Listener, "l"),
        (ResourceType::RouteConfiguration, "80"),
        (ResourceType::VirtualHost, "80/h"),
        (ResourceType::Cluster, "c"),
        (ResourceType::Endpoints, "c"),
    ] {
        control.put(kind, name, "1");
    }
    Fixture { control, main, _directory: directory, socket }
}

#[tokio::test]
async fn everything_arrives_clusters_and_endpoints_before_listeners_and_routes() {
    let fixture = fixture();
    let _listening = fixture.control.listen(&fixture.socket);
    let _sync = super::start(fixture.main.clone());
    fixture.main.until_has(ResourceKind::VirtualHosts, "80/h", "1").await;
    use ResourceKind::*;
    let order = fixture.main.order.lock().unwrap().clone();
    assert_eq!(order, [Cluster, Endpoints, Listener, Routes, VirtualHosts]);
    let world = fixture.control.world.lock().unwrap();
    assert_eq!(world.nodes.len(), 1, "the node is named once a stream");
    assert_eq!(world.nodes[0].client_features, super::FEATURES);
    assert_eq!(world.headers, [Some("me".to_owned())]);
}

#[tokio::test]
async fn good_resources_apply_and_bad_ones_are_named_with_path_and_reason() {
    let fixture = fixture();
    fixture.control.put(ResourceType::Cluster, "poor", "1");
    let _listening = fixture.control.listen(&fixture.socket);
    let _sync = super::start(fixture.main.clone());
    fixture.main.until_has(ResourceKind::VirtualHosts, "80/h", "1").await;

    fixture.control.put(ResourceType::Cluster, "poor", "bad");
    fixture.control.put(ResourceType::Cluster, "odd", "mislabelled");
    fixture.control.put(ResourceType::Cluster, "new", "1");
    fixture.main.until_has(ResourceKind::Cluster, "new", "1").await;
    fixture.main.until_has(ResourceKind::Cluster, "poor", "1").await;
    // The answer has arrived once the next change has.
    fixture.control.put(ResourceType::Cluster, "c", "2");
    fixture.main.until_has(ResourceKind::Cluster, "c", "2").await;
    let world = fixture.control.world.lock().unwrap();
    let reason = |name: &str| {
        world
            .rejections
            .iter()
            .find(|r| r.name.as_ref() == name)
            .map(|r| r.reason.clone())
            .unwrap_or_default()
    };
    assert_eq!(reason("poor"), "lb_policy: is not supported; no");
    assert!(reason("odd").contains("x.Y"), "{:?}", world.rejections);
    assert_eq!(world.rejections.len(), 2);
}

#[tokio::test]
async fn losing_the_control_plane_loses_nothing_and_coming_back_costs_only_the_difference() {
    let fixture = fixture();
    let listening = fixture.control.listen(&fixture.socket);
    let _sync = super::start(fixture.main.clone());
    fixture.main.until_has(ResourceKind::VirtualHosts, "80/h", "1").await;
    drop(listening);
    let before = fixture.main.applied.borrow().clone();

    // Another control plane, with a world of its own: nothing in memory survives but what the client says.
    let second = ControlPlane::new();
    for ((kind, name), content) in fixture.control.world.lock().unwrap().contents.clone() {
        second.put(kind, &name, &content);
    }
    second.put(ResourceType::Endpoints, "c", "2");
    second.delete(ResourceType::VirtualHost, "80/h");
    second.put(ResourceType::VirtualHost, "80/other", "1");
    assert_eq!(*fixture.main.applied.borrow(), before);
    let _listening = second.listen(&fixture.socket);
    fixture.main.until_has(ResourceKind::VirtualHosts, "80/other", "1").await;
    fixture.main.until_has(ResourceKind::Endpoints, "c", "2").await;
    let gone = (ResourceKind::VirtualHosts, "80/h".to_owned());
    fixture.main.until("80/h is gone", |state| !state.contains_key(&gone)).await;
    let world = second.world.lock().unwrap();
    assert_eq!(world.sent, ["EDS c", "VHDS 80/other"]);
    let held: Vec<&str> = world.held.iter().map(String::as_str).collect();
    assert_eq!(held, ["80", "80/h", "c", "l"]);
}

#[tokio::test]
async fn a_control_plane_that_comes_late_is_found() {
    let fixture = fixture();
    let _sync = super::start(fixture.main.clone());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let _listening = fixture.control.listen(&fixture.socket);
    fixture.main.until_has(ResourceKind::VirtualHosts, "80/h", "1").await;
}

#[tokio::test]
async fn what_is_no_longer_wanted_is_given_up() {
    let fixture = fixture();
    let _listening = fixture.control.listen(&fixture.socket);
    let _sync = super::start(fixture.main.clone());
    fixture.main.until_has(ResourceKind::VirtualHosts, "80/h", "1").await;
    fixture.control.delete(ResourceType::Cluster, "c");
    let cluster = (ResourceKind::Cluster, "c".to_owned());
    fixture.main.until("the cluster is gone", |state| !state.contains_key(&cluster)).await;
    // Made again, its endpoints are asked for again, and sent again though nothing about them changed.
    fixture.control.put(ResourceType::Cluster, "c", "3");
    fixture.main.until_has(ResourceKind::Endpoints, "c", "1").await;
}

#[tokio::test]
async fn secrets_come_over_a_service_of_their_own() {
    let fixture = fixture();
    fixture.control.put(ResourceType::Secret, "default", "certificate");
    let _listening = fixture.control.listen(&fixture.socket);
    let _sync = super::start(fixture.main.clone());
    fixture.main.until_has(ResourceKind::VirtualHosts, "80/h", "1").await;
    fixture.main.want(Source::Grpc(grpc_source()), ResourceKind::Secret, "default");
    fixture.main.until_has(ResourceKind::Secret, "default", "certificate").await;
    assert_eq!(fixture.control.world.lock().unwrap().headers.len(), 2, "two streams");
}

/// As Istio configures secrets: `api_type: GRPC`.
#[tokio::test]
async fn secrets_come_as_state_of_the_world_too() {
    use api::envoy::extensions::transport_sockets::tls::v3::Secret;
    let fixture = fixture();
    let secret = |content: &str| {
        let r#type = None;
        let bytes = Secret { name: "default".into(), r#type }.encode_to_vec();
        // An unknown field makes the versions differ.
        String::from_utf8(bytes).unwrap()
            + "\u{7a}"
            + &char::from(content.len() as u8).to_string()
            + content
    };
    fixture.control.put(ResourceType::Secret, "default", &secret("one"));
    let _listening = fixture.control.listen(&fixture.socket);
    let _sync = super::start(fixture.main.clone());
    let source = Source::Grpc(GrpcSource { delta: false, ..grpc_source() });
    fixture.main.want(source, ResourceKind::Secret, "default");
    fixture.main.until_has(ResourceKind::Secret, "default", &secret("one")).await;
    fixture.control.put(ResourceType::Secret, "default", &secret("another"));
    fixture.main.until_has(ResourceKind::Secret, "default", &secret("another")).await;
    assert!(fixture.control.world.lock().unwrap().rejections.is_empty());
}
