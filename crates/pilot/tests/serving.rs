//! The control plane over its sockets: streams, certificates, registration, and whom it refuses.

mod fixture;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api::envoy::config::core::v3::Node;
use api::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use api::google::rpc::Status as RpcStatus;
use api::istio::v1::auth::IstioCertificateRequest;
use api::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use fixture::NodeBuilder;
use identity::token::{CONTROL_PLANE_AUDIENCE, TokenIssuer};
use identity::{CertificateInfo, PrivateKey, SpiffeId};
use pilot::{Options, Pilot};
use resources::store::{Filter, Store, Versioned, WriteOptions};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use xds::{DeltaClient, Rejection, ResourceType, SotwClient};

struct Fixture {
    store: Arc<dyn Store>,
    issuer: TokenIssuer,
    pilot: Pilot,
}

impl Fixture {
    async fn start(yaml: &str) -> Fixture {
        let store: Arc<dyn Store> = Arc::new(Versioned::in_memory().expect("a store"));
        let issuer =
            TokenIssuer::new(PrivateKey::generate().expect("a key"), "test").expect("an issuer");
        write(&*store, yaml).await;
        let fixture = Fixture { pilot: start(&store, &issuer).await, store, issuer };
        assert!(fixture.pilot.ready().await);
        fixture
    }

    async fn write(&self, yaml: &str) {
        write(&*self.store, yaml).await;
    }

    fn token(&self, namespace: &str, account: &str) -> String {
        self.token_for(namespace, account, CONTROL_PLANE_AUDIENCE, SystemTime::now())
    }

    fn token_for(&self, namespace: &str, account: &str, audience: &str, now: SystemTime) -> String {
        self.issuer
            .issue(namespace, account, audience, Duration::from_secs(600), now)
            .expect("a token")
    }

    async fn channel(&self, identity: Option<Identity>) -> Channel {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.pilot.root_certificate()))
            .domain_name("istiod.istio-system.svc");
        if let Some(identity) = identity {
            tls = tls.identity(identity);
        }
        let endpoint =
            Endpoint::from_shared(format!("https://{}", self.pilot.address())).expect("an address");
        endpoint
            .tls_config(tls)
            .expect("a TLS configuration")
            .connect()
            .await
            .expect("a connection")
    }

    async fn entries(&self) -> Vec<String> {
        use resources::kinds::Kind;
        use resources::kinds::networking::workload_entry::WorkloadEntry;
        let listed = self
            .store
            .list(&WorkloadEntry::INFO.collection, &Filter::default())
            .await
            .expect("a list");
        listed.items.iter().map(|object| object.name().to_owned()).collect()
    }
}

async fn write(store: &dyn Store, yaml: &str) {
    for object in fixture::objects(yaml) {
        let info = resources::kinds::kind_of(&object).expect("a known kind");
        let key = resources::kinds::key_of(&object, info);
        store.create(key, object, WriteOptions::by("test")).await.expect("a write");
    }
}

async fn start(store: &Arc<dyn Store>, issuer: &TokenIssuer) -> Pilot {
    let any = "127.0.0.1:0".parse().expect("an address");
    pilot::start(Options {
        store: Arc::clone(store),
        tokens: issuer.verifier().expect("a verifier"),
        listen: any,
        plaintext_listen: None,
        monitoring_listen: any,
        server_names: Vec::new(),
        workload_certificate_ttl: Some(Duration::from_secs(60)),
        disconnect_grace: Duration::from_millis(300),
    })
    .await
    .expect("a control plane")
}

fn with_token<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request
            .metadata_mut()
            .insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    }
    request
}

/// A proxy on a stream: subscribes as Envoy does, and accepts everything.
struct Client {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
    state: DeltaClient,
    held: BTreeMap<(ResourceType, String), Vec<u8>>,
}

impl Client {
    async fn open(channel: Channel, token: Option<&str>, node: Node) -> Result<Client, Status> {
        let (requests, receiver) = mpsc::channel(64);
        let mut service = AggregatedDiscoveryServiceClient::new(channel);
        let request = with_token(ReceiverStream::new(receiver), token);
        let responses = service.delta_aggregated_resources(request).await?.into_inner();
        let mut state = DeltaClient::new(node);
        state.subscribe_all(ResourceType::Cluster);
        state.subscribe_all(ResourceType::Listener);
        state.connected();
        let mut client = Client { requests, responses, state, held: BTreeMap::new() };
        client.flush().await;
        Ok(client)
    }

    async fn flush(&mut self) {
        while let Some(request) = self.state.poll_request() {
            let _ = self.requests.send(request).await;
        }
    }

    /// Takes one response, and subscribes to what its resources name.
    async fn step(&mut self) -> Result<(), Status> {
        let response =
            tokio::time::timeout(Duration::from_secs(10), self.responses.message()).await;
        let response =
            response.expect("a response in time")?.ok_or_else(|| Status::unavailable("closed"))?;
        let update = self.state.receive(response).expect("a response of the protocol");
        let kind = update.id.kind;
        for received in &update.changed {
            let name = received.name.to_string();
            let dependent = match kind {
                ResourceType::Cluster if name.starts_with("outbound|") => {
                    Some(ResourceType::Endpoints)
                }
                ResourceType::Listener if name.ends_with("_15007") => {
                    Some(ResourceType::VirtualHost)
                }
                _ => None,
            };
            match dependent {
                Some(ResourceType::VirtualHost) => {
                    self.state.subscribe(ResourceType::VirtualHost, "http_proxy")
                }
                Some(dependent) => self.state.subscribe(dependent, name.as_str()),
                None => {}
            }
            if let Some(body) = &received.body {
                self.held.insert((kind, name), body.value.clone());
            }
        }
        for name in &update.removed {
            self.held.remove(&(kind, name.to_string()));
        }
        self.state.answer(&update.id, Vec::new());
        self.flush().await;
        Ok(())
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&Client) -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !holds(self) {
            assert!(
                tokio::time::Instant::now() < deadline,
                "never: {what}; held {:?}",
                self.held.keys()
            );
            self.step().await.unwrap_or_else(|status| panic!("{what}: {status}"));
        }
    }

    fn has(&self, kind: ResourceType, name: &str) -> bool {
        self.held.contains_key(&(kind, name.to_owned()))
    }
}

const GROUP: &str = "{apiVersion: networking.istio.io/v1, kind: WorkloadGroup, metadata: {name: reviews-v3, namespace: default}, spec: {metadata: {labels: {app: reviews, version: v3}}, template: {serviceAccount: bookinfo-reviews}}}";

fn reviews_node() -> Node {
    NodeBuilder::sidecar("127.64.0.30", "reviews-v3", "default")
        .ours()
        .with("AUTO_REGISTER_GROUP", "reviews-v3")
        .node()
}

const NEW_ENDPOINT: &str = "outbound|9080||reviews.default.svc.cluster.local";

#[tokio::test]
async fn a_workload_registers_is_found_and_says_good_bye() {
    let fixture = Fixture::start(include_str!("data/bookinfo.yaml")).await;
    fixture.write(GROUP).await;
    let channel = fixture.channel(None).await;

    let node = NodeBuilder::sidecar("127.64.0.1", "productpage-1", "default").ours().node();
    let token = fixture.token("default", "bookinfo-productpage");
    let mut caller = Client::open(channel.clone(), Some(&token), node).await.expect("a stream");
    caller
        .until("endpoints and routes", |client| {
            client.has(ResourceType::Endpoints, NEW_ENDPOINT)
                && client.has(
                    ResourceType::VirtualHost,
                    "http_proxy/reviews.default.svc.cluster.local:9080",
                )
        })
        .await;
    assert!(
        caller.has(ResourceType::Listener, "127.64.0.1_9080"),
        "its own entry made it known: {:?}",
        caller.held.keys()
    );

    let token = fixture.token("default", "bookinfo-reviews");
    let mut workload = Client::open(channel, Some(&token), reviews_node()).await.expect("a stream");
    workload
        .until("its own port", |client| client.has(ResourceType::Listener, "127.64.0.30_9080"))
        .await;
    assert!(fixture.entries().await.contains(&"reviews-v3-127.64.0.30".to_owned()));
    let address = |client: &Client| {
        let bytes = &client.held[&(ResourceType::Endpoints, NEW_ENDPOINT.to_owned())];
        String::from_utf8_lossy(bytes).contains("127.64.0.30")
    };
    caller.until("the new endpoint", address).await;

    let bye = DeltaDiscoveryRequest {
        type_url: pilot::ads::HEALTH_TYPE_URL.to_owned(),
        error_detail: Some(RpcStatus {
            code: 1,
            message: "leaving".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    workload.requests.send(bye).await.expect("a request");
    loop {
        let response = workload.responses.message().await.expect("a response").expect("not closed");
        if response.type_url == pilot::ads::HEALTH_TYPE_URL {
            break;
        }
    }
    assert!(!fixture.entries().await.contains(&"reviews-v3-127.64.0.30".to_owned()));
    caller.until("the endpoint gone", |client| !address(client)).await;
    fixture.pilot.shutdown().await;
}

#[tokio::test]
async fn a_proxy_that_was_here_before_its_entry_is_asked_to_come_again() {
    let fixture = Fixture::start("").await;
    let token = fixture.token("default", "bookinfo-productpage");
    let channel = fixture.channel(None).await;
    let node = NodeBuilder::sidecar("127.64.0.1", "productpage-1", "default").ours().node();
    let mut early =
        Client::open(channel.clone(), Some(&token), node.clone()).await.expect("a stream");
    early.until("clusters", |client| client.has(ResourceType::Cluster, "BlackHoleCluster")).await;
    fixture.write(include_str!("data/bookinfo.yaml")).await;
    let ended = async {
        loop {
            if let Err(status) = early.step().await {
                return status;
            }
        }
    };
    assert_eq!(
        tokio::time::timeout(Duration::from_secs(10), ended).await.expect("an end").code(),
        Code::Unavailable
    );
    let mut again = Client::open(channel, Some(&token), node).await.expect("a stream");
    again.until("its port", |client| client.has(ResourceType::Listener, "127.64.0.1_9080")).await;
}

#[tokio::test]
async fn a_workload_that_vanishes_is_kept_for_a_grace() {
    let fixture = Fixture::start(include_str!("data/bookinfo.yaml")).await;
    fixture.write(GROUP).await;
    let token = fixture.token("default", "bookinfo-reviews");
    let channel = fixture.channel(None).await;
    let mut workload = Client::open(channel, Some(&token), reviews_node()).await.expect("a stream");
    workload.until("a port", |client| client.has(ResourceType::Listener, "127.64.0.30_9080")).await;
    drop(workload);
    let gone = async {
        while fixture.entries().await.contains(&"reviews-v3-127.64.0.30".to_owned()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.expect("gone after the grace");
}

#[tokio::test]
async fn strangers_are_refused() {
    let fixture = Fixture::start(include_str!("data/bookinfo.yaml")).await;
    fixture.write(GROUP).await;
    let channel = fixture.channel(None).await;
    let now = SystemTime::now();
    let other_issuer =
        TokenIssuer::new(PrivateKey::generate().expect("a key"), "test").expect("an issuer");
    let forged = other_issuer
        .issue("default", "bookinfo-reviews", CONTROL_PLANE_AUDIENCE, Duration::from_secs(600), now)
        .expect("a token");
    let cases = [
        ("no token", None, Code::Unauthenticated),
        ("another signer", Some(forged), Code::Unauthenticated),
        (
            "another audience",
            Some(fixture.token_for("default", "bookinfo-reviews", "other", now)),
            Code::Unauthenticated,
        ),
        (
            "expired",
            Some(fixture.token_for(
                "default",
                "bookinfo-reviews",
                CONTROL_PLANE_AUDIENCE,
                now - Duration::from_secs(7200),
            )),
            Code::Unauthenticated,
        ),
        (
            "another account",
            Some(fixture.token("default", "bookinfo-ratings")),
            Code::PermissionDenied,
        ),
        (
            "another namespace",
            Some(fixture.token("other", "bookinfo-reviews")),
            Code::InvalidArgument,
        ),
    ];
    for (what, token, expected) in cases {
        let refused = match Client::open(channel.clone(), token.as_deref(), reviews_node()).await {
            Err(status) => status,
            Ok(mut client) => client.step().await.expect_err(what),
        };
        assert_eq!(refused.code(), expected, "{what}: {refused}");
    }
    assert!(!fixture.entries().await.iter().any(|name| name.starts_with("reviews-v3")));
}

#[tokio::test]
async fn nonsense_ends_only_its_own_stream() {
    let fixture = Fixture::start(include_str!("data/bookinfo.yaml")).await;
    let token = fixture.token("default", "bookinfo-productpage");
    let channel = fixture.channel(None).await;
    let node = || NodeBuilder::sidecar("127.64.0.1", "productpage-1", "default").ours().node();
    let mut good = Client::open(channel.clone(), Some(&token), node()).await.expect("a stream");
    good.until("clusters", |client| client.has(ResourceType::Cluster, "BlackHoleCluster")).await;

    let mut bad = Client::open(channel, Some(&token), node()).await.expect("a stream");
    bad.until("clusters", |client| client.has(ResourceType::Cluster, "BlackHoleCluster")).await;
    let nonsense = DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/what.is.This".to_owned(),
        ..Default::default()
    };
    bad.requests.send(nonsense).await.expect("a request");
    let ended = async {
        loop {
            if let Err(status) = bad.step().await {
                return status;
            }
        }
    };
    let status = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("an end");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");

    fixture.write("{apiVersion: v1, kind: Service, metadata: {name: later, namespace: default}, spec: {ports: [{port: 80, name: http}], selector: {app: later}}}").await;
    good.until("a later service", |client| {
        client.has(ResourceType::Cluster, "outbound|80||later.default.svc.cluster.local")
    })
    .await;
    assert_eq!(fixture.pilot.status().proxies.len(), 1);
}

#[tokio::test]
async fn certificates_are_the_credentials_identity_and_renew_themselves() {
    let fixture = Fixture::start("").await;
    let key = PrivateKey::generate().expect("a key");
    let domain = "cluster.local".parse().expect("a trust domain");
    // The request asks for somebody else's name.
    let asked = SpiffeId::for_service_account(&domain, "istio-system", "admin").expect("an id");
    let csr = identity::csr::create(&key, &asked).expect("a request");
    let ask = |channel: Channel, token: Option<String>| {
        let message =
            IstioCertificateRequest { csr: csr.clone(), validity_duration: 3600, metadata: None };
        async move {
            let mut service = IstioCertificateServiceClient::new(channel);
            let request = with_token(message, token.as_deref());
            service
                .create_certificate(request)
                .await
                .map(|response| response.into_inner().cert_chain)
        }
    };
    let token = fixture.token("default", "bookinfo-reviews");
    let chain = ask(fixture.channel(None).await, Some(token)).await.expect("a certificate");
    let id = |pem: &str| {
        CertificateInfo::parse_pem(pem).expect("a certificate").spiffe_id().map(|id| id.to_string())
    };
    let expected = Some("spiffe://cluster.local/ns/default/sa/bookinfo-reviews".to_owned());
    assert_eq!(id(&chain[0]), expected);
    assert_eq!(chain.last().map(String::as_str), Some(fixture.pilot.root_certificate()));

    let identity = Identity::from_pem(chain.concat(), key.to_pem());
    let renewed =
        ask(fixture.channel(Some(identity)).await, None).await.expect("a renewal without a token");
    assert_eq!(id(&renewed[0]), expected);

    let refused = ask(fixture.channel(None).await, None).await.expect_err("no credential");
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_proxy_may_speak_the_state_of_the_world() {
    let fixture = Fixture::start(include_str!("data/bookinfo.yaml")).await;
    let token = fixture.token("default", "bookinfo-productpage");
    let (requests, receiver) = mpsc::channel(64);
    let mut service = AggregatedDiscoveryServiceClient::new(fixture.channel(None).await);
    let request = with_token(ReceiverStream::new(receiver), Some(&token));
    let mut responses =
        service.stream_aggregated_resources(request).await.expect("a stream").into_inner();
    let node = NodeBuilder::sidecar("127.64.0.1", "productpage-1", "default").ours().node();
    let mut client = SotwClient::new(node);
    client.subscribe_all(ResourceType::Cluster);
    client.subscribe_all(ResourceType::Listener);
    client.connected();
    let reviews = "outbound|9080||reviews.default.svc.cluster.local";
    let is_reported = |pilot: &Pilot| {
        let proxies = pilot.status().proxies;
        let rejected = proxies.first().into_iter().flat_map(|proxy| &proxy.rejected);
        rejected.into_iter().any(|one| one.name == reviews && one.reason == "no")
    };
    let following = async {
        while !is_reported(&fixture.pilot) {
            while let Some(request) = client.poll_request() {
                requests.send(request).await.expect("a request");
            }
            let next = tokio::time::timeout(Duration::from_millis(50), responses.message()).await;
            let Ok(response) = next else { continue };
            let response = response.expect("a response").expect("not closed");
            let update = client.receive(response).expect("a response of the protocol");
            let refused =
                update.changed.iter().filter(|received| received.name.as_ref() == reviews);
            let refused = refused
                .map(|received| Rejection { name: received.name.clone(), reason: "no".to_owned() });
            let rejections = refused.collect();
            client.answer(&update.id, rejections);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), following).await.expect("the rejection is told");
    assert!(client.held(ResourceType::Cluster).any(|(name, _)| &**name == "inbound|9080||"));
}

const MESH: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: \"trustDomain: shop.test\\nrootNamespace: policies\"}}";

#[tokio::test]
async fn identities_are_of_the_meshs_trust_domain() {
    let store: Arc<dyn Store> = Arc::new(Versioned::in_memory().expect("a store"));
    let issuer =
        TokenIssuer::new(PrivateKey::generate().expect("a key"), "test").expect("an issuer");
    write(&*store, MESH).await;
    write(&*store, "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: all, namespace: policies}, spec: {mtls: {mode: STRICT}}}").await;
    write(&*store, include_str!("data/bookinfo.yaml")).await;
    let fixture = Fixture { pilot: start(&store, &issuer).await, store, issuer };
    assert!(fixture.pilot.ready().await);
    assert_eq!(fixture.pilot.trust_domain(), "shop.test");

    let key = PrivateKey::generate().expect("a key");
    let domain = "shop.test".parse().expect("a trust domain");
    let id = SpiffeId::for_service_account(&domain, "default", "bookinfo-reviews").expect("an id");
    let csr = identity::csr::create(&key, &id).expect("a request");
    let message = IstioCertificateRequest { csr, validity_duration: 60, metadata: None };
    let token = fixture.token("default", "bookinfo-reviews");
    let mut service = IstioCertificateServiceClient::new(fixture.channel(None).await);
    let request = with_token(message, Some(&token));
    let answer = service.create_certificate(request).await.expect("a certificate").into_inner();
    let leaf = CertificateInfo::parse_pem(&answer.cert_chain[0]).expect("a certificate");
    assert_eq!(leaf.spiffe_id().map(|found| found.to_string()), Some(id.to_string()));

    // It opens a stream by that certificate, and looks for peers of that trust domain.
    let identity = Identity::from_pem(answer.cert_chain.concat(), key.to_pem());
    let node = NodeBuilder::sidecar("127.64.0.2", "reviews-1", "default").ours().node();
    let channel = fixture.channel(Some(identity)).await;
    let mut client = Client::open(channel, None, node).await.expect("a stream");
    let has_text = |client: &Client, kind: ResourceType, name: &str, text: &str| {
        let body = client.held.get(&(kind, name.to_owned()));
        body.is_some_and(|body| String::from_utf8_lossy(body).contains(text))
    };
    let reviews = "outbound|9080||reviews.default.svc.cluster.local";
    client
        .until("peers of the trust domain", |client| {
            has_text(client, ResourceType::Cluster, reviews, "spiffe://shop.test/ns/default/sa/")
        })
        .await;
    client
        .until("its port, strict by the root namespace's word", |client| {
            has_text(client, ResourceType::Listener, "127.64.0.2_9080", "spiffe://shop.test/")
                && !has_text(client, ResourceType::Listener, "127.64.0.2_9080", "raw_buffer")
        })
        .await;
}

#[tokio::test]
async fn the_root_survives_a_restart() {
    let fixture = Fixture::start("").await;
    let root = fixture.pilot.root_certificate().to_owned();
    fixture.pilot.shutdown().await;
    let again = start(&fixture.store, &fixture.issuer).await;
    assert_eq!(again.root_certificate(), root);
}
