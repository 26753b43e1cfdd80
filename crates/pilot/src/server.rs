//! The control plane's sockets: TLS for streams and certificates, plaintext for whoever must, HTTP for numbers.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use api::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use api::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;
use arc_swap::ArcSwap;
use identity::ca::CertificateAuthority;
use identity::chain::TrustRoots;
use identity::tls::{Certificate, Parameters, ServerOptions, Validation, server_config};
use identity::token::TokenVerifier;
use identity::{CertificateRequest, PrivateKey, TrustDomain};
use resources::store::Store;
use tokio::io;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use xds::wire::DeltaResponse;

use crate::ads::{RESPONSES_IN_FLIGHT, Stream};
use crate::authenticate::Authenticator;
use crate::ca::{AuthorityError, CertificateService, load_or_create};
use crate::ingest::Ingest;
use crate::model::PushContext;
use crate::model::mesh::MeshConfig;
use crate::monitoring;
use crate::plane::Plane;
use crate::push::Discovery;
use crate::registration::Registrations;
use crate::status::MeshStatus;

/// The name that agents look for in the control plane's certificate.
const SERVER_NAME: &str = "istiod.istio-system.svc";
/// Life of the control plane's own certificate; it is renewed at half of it.
const SERVER_CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 3600);
/// A client that does not finish its handshake by then is gone.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes that may be done at the same time, and connections that may wait for a stream.
const PENDING_CONNECTIONS: usize = 64;
/// A request is a list of names; Envoy's biggest have every cluster's.
const MAX_REQUEST_BYTES: usize = 16 << 20;

/// What the control plane is started with.
pub struct Options {
    /// Where objects live.
    pub store: Arc<dyn Store>,
    /// Judges workloads' tokens.
    pub tokens: TokenVerifier,
    /// TLS: streams and certificates (Istio: 15012).
    pub listen: SocketAddr,
    /// Plaintext streams without secrets and registration (Istio: 15010); none unless asked for.
    pub plaintext_listen: Option<SocketAddr>,
    /// Metrics and status over HTTP (Istio: 15014).
    pub monitoring_listen: SocketAddr,
    /// Further names and addresses of the control plane's certificate.
    pub server_names: Vec<String>,
    /// Life of workloads' certificates; the longest that is granted. 24 hours where nothing is said.
    pub workload_certificate_ttl: Option<Duration>,
    /// How long a workload that went away without a word stays registered.
    pub disconnect_grace: Duration,
}

/// Why the control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({what}): {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What for.
        what: &'static str,
        /// What the system says.
        error: io::Error,
    },
    /// There is no authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The control plane's own certificate cannot be made.
    #[error("the control plane's certificate: {0}")]
    Certificate(String),
}

/// A running control plane. Dropping it stops it without ceremony.
pub struct Pilot {
    plane: Arc<Plane>,
    address: SocketAddr,
    plaintext_address: Option<SocketAddr>,
    monitoring_address: SocketAddr,
    root: String,
    tasks: JoinSet<()>,
}

/// Starts a control plane. It listens when this returns, and answers when every kind has been read.
pub async fn start(options: Options) -> Result<Pilot, StartError> {
    let mesh = MeshConfig::default();
    let listener = bind(options.listen, "xDS and certificates over TLS").await?;
    let plaintext = match options.plaintext_listen {
        Some(address) => Some(bind(address, "xDS in plaintext").await?),
        None => None,
    };
    let monitoring = bind(options.monitoring_listen, "monitoring").await?;
    let authority =
        Arc::new(load_or_create(&*options.store, &mesh.root_namespace, &mesh.trust_domain).await?);
    let registrations = Registrations::new(Arc::clone(&options.store), options.disconnect_grace);
    let plane = Plane::new(Discovery::new(PushContext::empty()), registrations);
    let trust_domain: TrustDomain = mesh.trust_domain.parse().map_err(certificate_error)?;
    let roots = TrustRoots::from_pem(authority.root_pem()).map_err(certificate_error)?;
    let authenticator = Authenticator::new(roots.clone(), &mesh.trust_domain, options.tokens);
    let certificates = Arc::new(ServerCertificate::new(Arc::clone(&authority), roots, &options.server_names)?);
    let root = authority.root_pem().to_owned();

    let addresses = |listener: &TcpListener| listener.local_addr().unwrap_or(options.listen);
    let mut pilot = Pilot {
        address: addresses(&listener),
        plaintext_address: plaintext.as_ref().map(addresses),
        monitoring_address: addresses(&monitoring),
        plane: Arc::clone(&plane),
        root,
        tasks: JoinSet::new(),
    };
    let certificate_service = CertificateService {
        authority,
        authenticator: Arc::clone(&authenticator),
        trust_domain,
        ttl: options.workload_certificate_ttl,
        plane: Arc::clone(&plane),
    };
    let tasks = &mut pilot.tasks;
    tasks.spawn(read(Arc::clone(&plane), Ingest::start(&options.store)));
    tasks.spawn(Arc::clone(&certificates).renew());
    let streams = Streams { plane: Arc::clone(&plane), authenticator: Some(authenticator) };
    let certificate_service = IstioCertificateServiceServer::new(certificate_service);
    tasks.spawn(serve_tls(Arc::clone(&plane), listener, certificates, streams, certificate_service));
    if let Some(plaintext) = plaintext {
        let streams = Streams { plane: Arc::clone(&plane), authenticator: None };
        tasks.spawn(serve_plaintext(Arc::clone(&plane), plaintext, streams));
    }
    tasks.spawn(monitoring::serve(Arc::clone(&plane), monitoring));
    Ok(pilot)
}

impl Pilot {
    /// Where streams and certificates are served over TLS.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where streams are served in plaintext.
    pub fn plaintext_address(&self) -> Option<SocketAddr> {
        self.plaintext_address
    }

    /// Where numbers are served.
    pub fn monitoring_address(&self) -> SocketAddr {
        self.monitoring_address
    }

    /// The mesh's root certificates, PEM.
    pub fn root_certificate(&self) -> &str {
        &self.root
    }

    /// Whether every kind has been read, so that streams are answered.
    pub fn is_ready(&self) -> bool {
        self.plane.phase().ready
    }

    /// Waits until every kind has been read. False if the control plane was stopped before.
    pub async fn ready(&self) -> bool {
        self.plane.wait_until_ready().await.is_ok()
    }

    /// Who is connected, and whether each has what it should have.
    pub fn status(&self) -> MeshStatus {
        self.plane.status()
    }

    /// Ends every stream and closes every socket.
    pub async fn shutdown(mut self) {
        self.plane.stop();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(Duration::from_secs(2), all).await.is_err() {
            tracing::debug!("streams were still open");
        }
    }
}

async fn bind(address: SocketAddr, what: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen { address, what, error })
}

fn certificate_error(error: impl std::fmt::Display) -> StartError {
    StartError::Certificate(error.to_string())
}

/// Reads the store for ever. Pushing is plain computing, so it has a thread that may be blocked.
async fn read(plane: Arc<Plane>, mut ingest: Ingest) {
    let push = |changes| {
        let plane = Arc::clone(&plane);
        tokio::task::spawn_blocking(move || plane.push(changes))
    };
    let everything = tokio::select! {
        everything = ingest.everything() => everything,
        () = plane.stopping() => return,
    };
    let Some(everything) = everything else { return };
    if push(everything).await.is_err() {
        return;
    }
    plane.become_ready();
    loop {
        let changes = tokio::select! {
            changes = ingest.next() => changes,
            () = plane.stopping() => None,
        };
        let Some(changes) = changes else { return };
        if push(changes).await.is_err() {
            tracing::error!("a change could not be taken in; the configuration before it goes on");
        }
    }
}

/// The control plane's own certificate, renewed while it runs.
struct ServerCertificate {
    authority: Arc<CertificateAuthority>,
    roots: TrustRoots,
    names: Vec<String>,
    config: ArcSwap<rustls::ServerConfig>,
}

impl ServerCertificate {
    fn new(authority: Arc<CertificateAuthority>, roots: TrustRoots, names: &[String]) -> Result<Self, StartError> {
        let mut all = vec![SERVER_NAME.to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
        all.extend(names.iter().filter(|name| name.as_str() != SERVER_NAME).cloned());
        all.sort();
        all.dedup();
        let config = tls_config(&authority, &roots, &all)?;
        Ok(Self { authority, roots, names: all, config: ArcSwap::new(config) })
    }

    async fn renew(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SERVER_CERTIFICATE_LIFE / 2).await;
            match tls_config(&self.authority, &self.roots, &self.names) {
                Ok(config) => self.config.store(config),
                Err(error) => tracing::error!(%error, "cannot renew the control plane's certificate"),
            }
        }
    }
}

fn tls_config(
    authority: &CertificateAuthority,
    roots: &TrustRoots,
    names: &[String],
) -> Result<Arc<rustls::ServerConfig>, StartError> {
    let key = PrivateKey::generate().map_err(certificate_error)?;
    let request = CertificateRequest::of_own_key(&key).map_err(certificate_error)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let issued = authority
        .issue_server(&request, &names, SERVER_CERTIFICATE_LIFE, SystemTime::now())
        .map_err(certificate_error)?;
    let certificate =
        Certificate::from_pem(&issued.certificates.concat(), &key.to_pem()).map_err(certificate_error)?;
    let options = ServerOptions {
        certificates: vec![certificate],
        client_validation: Some(Validation { roots: Some(roots.clone()), ..Default::default() }),
        require_client_certificate: false,
        parameters: Parameters { alpn: vec![b"h2".to_vec()], ..Default::default() },
        no_tickets: false,
    };
    server_config(&options).map_err(certificate_error)
}

async fn serve_tls(
    plane: Arc<Plane>,
    listener: TcpListener,
    certificates: Arc<ServerCertificate>,
    streams: Streams,
    certificate_service: IstioCertificateServiceServer<CertificateService>,
) {
    let (sender, incoming) = mpsc::channel(PENDING_CONNECTIONS);
    let accepting = accept(listener, certificates, sender);
    let serving = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_service(streams)
        .add_service(certificate_service)
        .serve_with_incoming_shutdown(ReceiverStream::new(incoming), plane.stopping());
    tokio::select! {
        () = accepting => {}
        served = serving => {
            if let Err(error) = served {
                tracing::error!(%error, "serving over TLS ended");
            }
        }
    }
}

/// Accepts connections and does their handshakes, each by itself: a slow one holds up nobody.
async fn accept(
    listener: TcpListener,
    certificates: Arc<ServerCertificate>,
    sender: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of files, most likely: what is open goes on, and new ones wait.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(certificates.config.load_full());
        let sender = sender.clone();
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    let _ = sender.send(Ok(stream)).await;
                }
                Ok(Err(error)) => tracing::info!(%error, "a TLS handshake failed"),
                Err(_) => tracing::info!("a TLS handshake took too long"),
            }
        });
    }
}

async fn serve_plaintext(plane: Arc<Plane>, listener: TcpListener, streams: Streams) {
    let served = Server::builder()
        .add_service(streams)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), plane.stopping())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "serving in plaintext ended");
    }
}

/// `envoy.service.discovery.v3.AggregatedDiscoveryService`, with responses whose resources are shared bytes.
#[derive(Clone)]
struct Streams {
    plane: Arc<Plane>,
    /// None on the plaintext port.
    authenticator: Option<Arc<Authenticator>>,
}

impl NamedService for Streams {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

const DELTA_METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, std::convert::Infallible>> + Send>>;

impl Service<http::Request<Body>> for Streams {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let streams = self.clone();
        Box::pin(async move {
            if request.uri().path() != DELTA_METHOD {
                return Ok(Status::unimplemented("only DeltaAggregatedResources is served").into_http());
            }
            let codec = ProstCodec::<DeltaResponse, DeltaDiscoveryRequest>::default();
            let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_REQUEST_BYTES);
            Ok(grpc.streaming(streams, request).await)
        })
    }
}

impl StreamingService<DeltaDiscoveryRequest> for Streams {
    type Response = DeltaResponse;
    type ResponseStream = ReceiverStream<Result<DeltaResponse, Status>>;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Self::ResponseStream>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let streams = self.clone();
        Box::pin(async move {
            let peer = match &streams.authenticator {
                Some(authenticator) => Some(authenticator.caller(request.extensions(), request.metadata())?),
                None => None,
            };
            let (sender, responses) = mpsc::channel(RESPONSES_IN_FLIGHT);
            let stream = Stream::new(streams.plane, peer, request.into_inner(), sender);
            tokio::spawn(stream.serve());
            Ok(Response::new(ReceiverStream::new(responses)))
        })
    }
}
