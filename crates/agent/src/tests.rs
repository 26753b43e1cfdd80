//! An agent between a control plane that checks credentials (TLS, tokens, certificates) and an engine that asks over the
//! agent's socket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::SystemTime;

use api::envoy::config::core::v3::Node;
use api::envoy::extensions::transport_sockets::tls::v3::{Secret, secret};
use api::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use api::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use api::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use api::google::protobuf::value::Kind;
use api::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use api::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use hyper_util::rt::TokioIo;
use identity::certificate::CertificateInfo;
use identity::chain::{TrustRoots, verify_workload};
use identity::tls::{Certificate, Parameters, ServerOptions, Validation, server_config};
use identity::token::{CONTROL_PLANE_AUDIENCE, TokenIssuer, TokenVerifier};
use identity::{CertificateAuthority, CertificateRequest, PrivateKey};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use super::*;
use crate::control_plane::SERVER_NAME;
use crate::credential::FixedToken;
use crate::health::HEALTH_TYPE_URL;

const CLUSTERS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const SECRETS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const HOUR: Duration = Duration::from_secs(3600);

/// Certificates of whoever is at the other end.
#[derive(Clone, Default)]
struct Peer(Vec<rustls::pki_types::CertificateDer<'static>>);

struct Tls(TlsStream<TcpStream>);

impl Connected for Tls {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        let certificates = self.0.get_ref().1.peer_certificates().unwrap_or_default();
        Peer(certificates.iter().map(|der| der.clone().into_owned()).collect())
    }
}

impl AsyncRead for Tls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tls {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A control plane as strict as the real one about who asks.
#[derive(Clone)]
struct ControlPlaneDouble {
    ca: Arc<CertificateAuthority>,
    tokens: TokenVerifier,
    /// What was heard, in order.
    heard: watch::Sender<Vec<String>>,
    /// The node of every stream's first message.
    nodes: Arc<Mutex<Vec<Node>>>,
    ttl: Duration,
}

impl ControlPlaneDouble {
    /// By certificate, else by token; as text, to be compared.
    fn authenticate<T>(&self, request: &Request<T>) -> Result<String, Status> {
        let peer = request.extensions().get::<Peer>().cloned().unwrap_or_default();
        if !peer.0.is_empty() {
            let roots = TrustRoots::from_pem(self.ca.root_pem()).unwrap();
            let id = verify_workload(&peer.0, &roots, "td", SystemTime::now());
            let id = id.map_err(|error| Status::unauthenticated(error.to_string()))?;
            return Ok(format!("certificate {}", id.service_account().unwrap().1));
        }
        let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|text| text.strip_prefix("Bearer "))
            .ok_or_else(|| Status::unauthenticated("no token"))?;
        let bearer = self.tokens.verify(token, CONTROL_PLANE_AUDIENCE, SystemTime::now());
        bearer
            .map(|bearer| format!("token {}", bearer.service_account))
            .map_err(|e| Status::unauthenticated(e.to_string()))
    }

    fn hear(&self, what: String) {
        self.heard.send_modify(|heard| heard.push(what));
    }

    async fn until_heard(&self, what: &str) {
        let mut heard = self.heard.subscribe();
        let found = heard.wait_for(|heard| heard.iter().any(|text| text == what));
        let waited = tokio::time::timeout(Duration::from_secs(20), found).await;
        assert!(
            waited.is_ok_and(|heard| heard.is_ok()),
            "{what:?} not in {:?}",
            self.heard.borrow()
        );
    }

    async fn listen(&self) -> SocketAddr {
        let key = PrivateKey::generate().unwrap();
        let request = CertificateRequest::of_own_key(&key).unwrap();
        let issued =
            self.ca.issue_server(&request, &[SERVER_NAME], HOUR, SystemTime::now()).unwrap();
        let roots = TrustRoots::from_pem(self.ca.root_pem()).unwrap();
        let config = server_config(&ServerOptions {
            certificates: vec![
                Certificate::from_pem(&issued.certificates.concat(), &key.to_pem()).unwrap(),
            ],
            client_validation: Some(Validation { roots: Some(roots), ..Validation::default() }),
            parameters: Parameters { alpn: vec![b"h2".to_vec()], ..Parameters::default() },
            ..ServerOptions::default()
        });
        let acceptor = TlsAcceptor::from(config.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, incoming) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, connections) = (acceptor.clone(), connections.clone());
                tokio::spawn(async move {
                    if let Ok(secured) = acceptor.accept(socket).await {
                        let _ = connections.send(Ok::<_, io::Error>(Tls(secured)));
                    }
                });
            }
        });
        let server = tonic::transport::Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(self.clone()))
            .add_service(IstioCertificateServiceServer::new(self.clone()))
            .serve_with_incoming(UnboundedReceiverStream::new(incoming));
        tokio::spawn(server);
        address
    }
}

#[tonic::async_trait]
impl IstioCertificateService for ControlPlaneDouble {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let who = self.authenticate(&request)?;
        let request = request.into_inner();
        self.hear(format!("certificate for {who}, {} s", request.validity_duration));
        let csr = CertificateRequest::from_pem(&request.csr)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        let account = who.rsplit(' ').next().unwrap();
        let id = SpiffeId::parse(&format!("spiffe://td/ns/default/sa/{account}")).unwrap();
        let issued = self.ca.issue_workload(&csr, &id, self.ttl, SystemTime::now()).unwrap();
        Ok(Response::new(IstioCertificateResponse { cert_chain: issued.certificates }))
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for ControlPlaneDouble {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let who = self.authenticate(&request)?;
        self.hear(format!("sotw stream by {who}"));
        let double = self.clone();
        Ok(Response::new(Box::pin(request.into_inner().map(move |request| {
            let request = request?;
            double
                .hear(describe(&request.type_url, request.error_detail.map(|status| status.code)));
            Ok(DiscoveryResponse {
                type_url: request.type_url,
                nonce: "1".into(),
                ..Default::default()
            })
        }))))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let who = self.authenticate(&request)?;
        self.hear(format!("delta stream by {who}"));
        let double = self.clone();
        Ok(Response::new(Box::pin(request.into_inner().map(move |request| {
            let request = request?;
            double.nodes.lock().unwrap().extend(request.node);
            let code = request.error_detail.map(|status| status.code);
            double.hear(describe(&request.type_url, code));
            Ok(DeltaDiscoveryResponse {
                type_url: request.type_url,
                nonce: "1".into(),
                ..Default::default()
            })
        }))))
    }
}

fn describe(type_url: &str, error: Option<i32>) -> String {
    match (type_url, error) {
        (HEALTH_TYPE_URL, None) => "healthy".into(),
        (HEALTH_TYPE_URL, Some(1)) => "leaving".into(),
        (HEALTH_TYPE_URL, Some(_)) => "unhealthy".into(),
        (other, _) => other.into(),
    }
}

struct Fixture {
    control: ControlPlaneDouble,
    issuer: TokenIssuer,
    address: SocketAddr,
    directory: tempfile::TempDir,
    app: TcpListener,
    /// The port that the engine serves the workload on.
    inbound: TcpListener,
    admin: SocketAddr,
}

impl Fixture {
    async fn new(ttl: Duration) -> Fixture {
        let issuer = TokenIssuer::new(PrivateKey::generate().unwrap(), "mesh").unwrap();
        let control = ControlPlaneDouble {
            ca: Arc::new(CertificateAuthority::self_signed("td", SystemTime::now()).unwrap()),
            tokens: issuer.verifier().unwrap(),
            heard: watch::Sender::new(Vec::new()),
            nodes: Arc::default(),
            ttl,
        };
        Fixture {
            address: control.listen().await,
            control,
            issuer,
            directory: tempfile::tempdir().unwrap(),
            app: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            inbound: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            admin: engine_double().await,
        }
    }

    fn token(&self) -> String {
        self.issuer
            .issue("default", "reviews", CONTROL_PLANE_AUDIENCE, HOUR, SystemTime::now())
            .unwrap()
    }

    fn options(&self, token: &str) -> Options {
        let app_port = self.app.local_addr().unwrap().port();
        Options {
            workload: Workload {
                role: Role::Sidecar,
                name: "reviews-v1-0".into(),
                namespace: "default".into(),
                service_account: "reviews".into(),
                workload_name: "reviews-v1".into(),
                labels: BTreeMap::new(),
                address: Ipv4Addr::LOCALHOST.into(),
                group: None,
                app_ports: AppPorts::all_on(&[self.inbound.local_addr().unwrap().port()], app_port),
                upstreams: Vec::new(),
                http_proxy_port: 15007,
                proxy_credential: None,
                gateway_address: None,
                mesh: "test".into(),
            },
            trust_domain: "td".parse().unwrap(),
            control_plane: self.address.to_string(),
            roots_pem: self.control.ca.root_pem().to_owned(),
            tokens: Arc::new(FixedToken::new(token)),
            certificate_ttl: self.control.ttl,
            admin: self.admin,
            status: "127.0.0.1:0".parse().unwrap(),
            directory: self.directory.path().to_owned(),
        }
    }

    async fn agent(&self) -> Agent {
        Agent::start(self.options(&self.token())).await.unwrap()
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("agent.sock")
    }

    async fn channel(&self) -> Channel {
        let path = self.socket();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://agent").connect_with_connector(connector).await.unwrap()
    }
}

/// An engine that is ready and has one number.
async fn engine_double() -> SocketAddr {
    use axum::routing::get;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new()
        .route("/ready", get(|| async { "LIVE\n" }))
        .route("/stats/prometheus", get(|| async { "# TYPE envoy_x counter\nenvoy_x 7\n" }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn first_certificate(agent: &Agent) -> Arc<WorkloadCertificate> {
    let mut certificates = agent.certificates();
    let found =
        tokio::time::timeout(Duration::from_secs(20), certificates.wait_for(Option::is_some)).await;
    found.expect("a certificate in time").unwrap().clone().unwrap()
}

fn first_request(type_url: &str) -> DeltaDiscoveryRequest {
    let node = Node { id: "sidecar~127.0.0.1~a.b~c".into(), ..Node::default() };
    DeltaDiscoveryRequest { node: Some(node), type_url: type_url.into(), ..Default::default() }
}

/// Opens a relayed stream as an engine does.
async fn open_stream(
    fixture: &Fixture,
) -> Result<(mpsc::UnboundedSender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>), Status>
{
    let (requests, outgoing) = mpsc::unbounded_channel();
    requests.send(first_request(CLUSTERS)).unwrap();
    let mut client = AggregatedDiscoveryServiceClient::new(fixture.channel().await);
    let responses =
        client.delta_aggregated_resources(UnboundedReceiverStream::new(outgoing)).await?;
    Ok((requests, responses.into_inner()))
}

async fn secret(fixture: &Fixture, name: &str) -> Secret {
    let (requests, outgoing) = mpsc::unbounded_channel();
    let request = DeltaDiscoveryRequest {
        resource_names_subscribe: vec![name.into()],
        ..first_request(SECRETS)
    };
    requests.send(request).unwrap();
    let mut client = SecretDiscoveryServiceClient::new(fixture.channel().await);
    let mut responses =
        client.delta_secrets(UnboundedReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let response = responses.message().await.unwrap().unwrap();
    let any = response.resources[0].resource.clone().unwrap();
    Secret::decode(any.value.as_slice()).unwrap()
}

#[tokio::test]
async fn a_token_buys_a_certificate_and_the_certificate_the_next() {
    let fixture = Fixture::new(Duration::from_secs(2)).await;
    let agent = fixture.agent().await;
    let first = first_certificate(&agent).await;
    assert_eq!(first.id.as_str(), "spiffe://td/ns/default/sa/reviews");
    fixture.control.until_heard("certificate for token reviews, 2 s").await;
    fixture.control.until_heard("certificate for certificate reviews, 2 s").await;
    let mut certificates = agent.certificates();
    let renewed =
        certificates.wait_for(|now| now.as_ref().is_some_and(|now| now.key_pem != first.key_pem));
    let renewed = tokio::time::timeout(Duration::from_secs(20), renewed)
        .await
        .unwrap()
        .unwrap()
        .clone()
        .unwrap();
    assert!(renewed.not_after >= first.not_after);
    assert!(renewed.issued < first.not_after, "renewed in time");
}

#[tokio::test]
async fn secrets_are_served_on_a_socket_that_only_its_owner_can_open() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new(HOUR).await;
    let agent = fixture.agent().await;
    let mode = std::fs::metadata(fixture.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Asked before there is a certificate: the answer waits for it.
    let own = secret(&fixture, WORKLOAD_SECRET).await;
    let held = first_certificate(&agent).await;
    let Some(secret::Type::TlsCertificate(own)) = own.r#type else { panic!("{own:?}") };
    let pem = |source: Option<api::envoy::config::core::v3::DataSource>| match source
        .unwrap()
        .specifier
        .unwrap()
    {
        api::envoy::config::core::v3::data_source::Specifier::InlineBytes(bytes) => {
            String::from_utf8(bytes).unwrap()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(pem(own.certificate_chain), held.chain_pem);
    assert_eq!(pem(own.private_key), held.key_pem);
    let roots = secret(&fixture, ROOTS_SECRET).await;
    let Some(secret::Type::ValidationContext(roots)) = roots.r#type else { panic!("{roots:?}") };
    assert_eq!(pem(roots.trusted_ca), fixture.control.ca.root_pem());
}

#[tokio::test]
async fn a_secret_of_files_is_served_and_pushed_when_the_files_change() {
    let fixture = Fixture::new(HOUR).await;
    let _agent = fixture.agent().await;
    let directory = tempfile::tempdir().unwrap();
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| directory.path().join(name));
    std::fs::write(&chain, "chain").unwrap();
    std::fs::write(&key, "key").unwrap();
    let (requests, outgoing) = mpsc::unbounded_channel();
    let name = format!("file-cert:{}~{}", chain.display(), key.display());
    requests
        .send(DeltaDiscoveryRequest {
            resource_names_subscribe: vec![name],
            ..first_request(SECRETS)
        })
        .unwrap();
    let mut client = SecretDiscoveryServiceClient::new(fixture.channel().await);
    let mut responses =
        client.delta_secrets(UnboundedReceiverStream::new(outgoing)).await.unwrap().into_inner();
    for expected in ["chain", "renewed"] {
        let response = responses.message().await.unwrap().unwrap();
        let any = response.resources[0].resource.clone().unwrap();
        let secret = Secret::decode(any.value.as_slice()).unwrap();
        let Some(secret::Type::TlsCertificate(found)) = secret.r#type else { panic!("{secret:?}") };
        let found = found.certificate_chain.unwrap().specifier.unwrap();
        let bytes = api::envoy::config::core::v3::data_source::Specifier::InlineBytes;
        assert_eq!(found, bytes(expected.as_bytes().to_vec()));
        let nonce = response.nonce;
        let answer = DeltaDiscoveryRequest { response_nonce: nonce, ..first_request(SECRETS) };
        requests.send(answer).unwrap();
        std::fs::write(&chain, "renewed").unwrap();
    }
}

#[tokio::test]
async fn a_renewed_certificate_is_pushed_to_who_subscribed_in_either_form() {
    let fixture = Fixture::new(Duration::from_secs(2)).await;
    let _agent = fixture.agent().await;
    let (requests, outgoing) = mpsc::unbounded_channel();
    let names = vec![WORKLOAD_SECRET.to_owned()];
    let ask = |nonce: String| DiscoveryRequest {
        type_url: SECRETS.into(),
        resource_names: names.clone(),
        response_nonce: nonce,
        ..Default::default()
    };
    requests.send(ask(String::new())).unwrap();
    let mut client = SecretDiscoveryServiceClient::new(fixture.channel().await);
    let mut responses =
        client.stream_secrets(UnboundedReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let first = responses.message().await.unwrap().unwrap();
    requests.send(ask(first.nonce)).unwrap();
    let second = responses.message().await.unwrap().unwrap();
    assert_ne!(first.version_info, second.version_info);
}

#[tokio::test]
async fn a_stream_is_relayed_with_our_credential_our_ports_and_our_health() {
    let fixture = Fixture::new(HOUR).await;
    let agent = fixture.agent().await;
    first_certificate(&agent).await;
    let (_requests, mut responses) = open_stream(&fixture).await.unwrap();
    assert_eq!(responses.message().await.unwrap().unwrap().type_url, CLUSTERS);
    fixture.control.until_heard("delta stream by certificate reviews").await;
    fixture.control.until_heard("healthy").await;
    let node = fixture.control.nodes.lock().unwrap()[0].clone();
    let field = node.metadata.unwrap().fields[app_ports::APP_PORTS_FIELD].kind.clone();
    let Some(Kind::StructValue(ports)) = field else { panic!("{field:?}") };
    let app_port = fixture.app.local_addr().unwrap().port().to_string();
    let inbound = fixture.inbound.local_addr().unwrap().port().to_string();
    assert_eq!(ports.fields[&inbound].kind, Some(Kind::StringValue(app_port)));
}

#[tokio::test]
async fn state_of_the_world_is_relayed_too() {
    let fixture = Fixture::new(HOUR).await;
    let agent = fixture.agent().await;
    first_certificate(&agent).await;
    let (requests, outgoing) = mpsc::unbounded_channel();
    let request = DiscoveryRequest { type_url: CLUSTERS.into(), ..Default::default() };
    requests.send(request).unwrap();
    let mut client = AggregatedDiscoveryServiceClient::new(fixture.channel().await);
    let mut responses = client
        .stream_aggregated_resources(UnboundedReceiverStream::new(outgoing))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(responses.message().await.unwrap().unwrap().type_url, CLUSTERS);
    fixture.control.until_heard("sotw stream by certificate reviews").await;
    fixture.control.until_heard("healthy").await;
}

#[tokio::test]
async fn an_application_that_goes_is_unhealthy_and_one_that_moves_is_followed() {
    let mut fixture = Fixture::new(HOUR).await;
    let agent = fixture.agent().await;
    let (_requests, mut responses) = open_stream(&fixture).await.unwrap();
    responses.message().await.unwrap();
    fixture.control.until_heard("healthy").await;
    let moved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    fixture.app = TcpListener::bind("127.0.0.1:0").await.unwrap();
    fixture.control.heard.send_modify(Vec::clear);
    fixture.control.until_heard("unhealthy").await;

    let port = moved.local_addr().unwrap().port();
    let inbound = fixture.inbound.local_addr().unwrap().port();
    agent.follow_app(AppPorts::all_on(&[inbound], port));
    // The stream ends, so that the engine introduces itself anew.
    while let Ok(Some(_)) = responses.message().await {}
    fixture.control.heard.send_modify(Vec::clear);
    let (_requests, mut responses) = open_stream(&fixture).await.unwrap();
    responses.message().await.unwrap();
    fixture.control.until_heard("healthy").await;
    let nodes = fixture.control.nodes.lock().unwrap().clone();
    assert_eq!(nodes.len(), 2);
    assert_ne!(nodes[0].metadata, nodes[1].metadata);
}

#[tokio::test]
async fn leaving_waits_until_the_control_plane_has_told_everyone() {
    let fixture = Fixture::new(HOUR).await;
    let agent = fixture.agent().await;
    let (_requests, mut responses) = open_stream(&fixture).await.unwrap();
    assert_eq!(responses.message().await.unwrap().unwrap().type_url, CLUSTERS);
    fixture.control.until_heard("healthy").await;
    // The relay runs only while the engine reads.
    let reading = tokio::spawn(async move { while let Ok(Some(_)) = responses.message().await {} });
    assert!(agent.leave(Duration::from_secs(20)).await);
    fixture.control.until_heard("leaving").await;
    reading.abort();
}

#[tokio::test]
async fn strangers_get_no_certificate_and_no_stream() {
    let fixture = Fixture::new(HOUR).await;
    let other_mesh = TokenIssuer::new(PrivateKey::generate().unwrap(), "mesh").unwrap();
    let now = SystemTime::now();
    let issue = |issuer: &TokenIssuer, audience, at| {
        issuer.issue("default", "reviews", audience, HOUR, at).unwrap()
    };
    let bad = [
        ("none", String::new()),
        ("nonsense", "x.y.z".into()),
        ("another mesh's", issue(&other_mesh, CONTROL_PLANE_AUDIENCE, now)),
        ("another audience's", issue(&fixture.issuer, "vault", now)),
        ("an expired one", issue(&fixture.issuer, CONTROL_PLANE_AUDIENCE, now - 2 * HOUR)),
    ];
    for (case, token) in bad {
        let agent = Agent::start(fixture.options(&token)).await.unwrap();
        let refused = open_stream(&fixture).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{case}: {refused}");
        assert!(agent.certificates().borrow().is_none(), "{case}");
        let relay = agent.relay();
        assert!(relay.borrow().last_error.is_some(), "{case}");
    }
    assert!(fixture.control.heard.borrow().is_empty(), "{:?}", fixture.control.heard.borrow());
}

#[tokio::test]
async fn a_control_plane_with_another_root_is_not_spoken_to() {
    let fixture = Fixture::new(HOUR).await;
    let mut options = fixture.options(&fixture.token());
    let impostor = CertificateAuthority::self_signed("td", SystemTime::now()).unwrap();
    options.roots_pem = impostor.root_pem().to_owned();
    let _agent = Agent::start(options).await.unwrap();
    let refused = open_stream(&fixture).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unavailable);
    assert!(refused.message().contains("invalid peer certificate: BadSignature"), "{refused}");
    assert!(fixture.control.heard.borrow().is_empty());
}

#[tokio::test]
async fn the_status_port_says_ready_when_all_is_there_and_merges_the_numbers() {
    let fixture = Fixture::new(HOUR).await;
    let agent = fixture.agent().await;
    let get = |path: &'static str| {
        let address = agent.status_address();
        async move { http_get(address, path).await }
    };
    let early = get("/healthz/ready").await;
    assert!(early.starts_with("503"), "{early}");
    let held = first_certificate(&agent).await;
    assert_eq!(
        get("/healthz/ready").await,
        "503 no stream to the control plane: not connected yet\n"
    );
    let (_requests, mut responses) = open_stream(&fixture).await.unwrap();
    responses.message().await.unwrap();
    let mut health = agent.health();
    health.wait_for(|health| *health == Health::Healthy).await.unwrap();
    assert_eq!(get("/healthz/ready").await, "200 ready\n");
    assert_eq!(get("/healthz/workload").await, "200 ready\n");

    let metrics = get("/stats/prometheus").await;
    assert!(metrics.contains("\nenvoy_x 7\n"), "{metrics}");
    assert!(metrics.contains("istio_agent_xds_proxy_streams 1\n"), "{metrics}");
    let ends = held.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let expiration =
        format!("istio_agent_cert_expiration_timestamp{{resource_name=\"default\"}} {ends}\n");
    assert!(metrics.contains(&expiration), "{metrics}");
    assert!(get("/quitquitquit").await.starts_with("405"));
    // Its sidecar still serves what is under way.
    agent.leave(Duration::ZERO).await;
    assert_eq!(get("/healthz/workload").await, "503 it is about to stop\n");
    assert_eq!(get("/healthz/ready").await, "200 ready\n");
}

async fn http_get(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    format!("{} {body}", head.split_whitespace().nth(1).unwrap())
}

/// What the certificate says is what the engine will present.
#[tokio::test]
async fn the_certificate_names_the_workload_and_nothing_else() {
    let fixture = Fixture::new(HOUR).await;
    let agent = fixture.agent().await;
    let held = first_certificate(&agent).await;
    let leaf = CertificateInfo::parse_pem(&held.chain_pem).unwrap();
    assert_eq!(leaf.names.len(), 1);
    assert_eq!(leaf.spiffe_id().unwrap(), held.id);
}
