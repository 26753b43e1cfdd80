//! The control plane's sockets: TLS for streams and certificates, plaintext for whoever must, HTTP for numbers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use identity::TrustDomain;
use identity::chain::TrustRoots;
use identity::token::TokenVerifier;
use resources::kinds::Kind;
use resources::kinds::core::config_map::ConfigMap;
use resources::object::ObjectKey;
use resources::store::{Store, StoreError};
use tokio::io;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::ads::authenticate::Authenticator;
use crate::ads::service::{serve_plaintext, serve_tls};
use crate::ca::{AuthorityError, CertificateService, load_or_create};
use crate::certificate::ServerCertificate;
use crate::ingest::Ingest;
use crate::model::PushContext;
use crate::model::mesh::{CONFIG_MAP, CONTROL_PLANE_NAMESPACE, MeshConfig};
use crate::monitoring;
use crate::plane::Plane;
use crate::push::Discovery;
use crate::registration::Registrations;
use crate::status::MeshStatus;

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
    /// The mesh's configuration cannot be read.
    #[error("the mesh's configuration: {0}")]
    Mesh(String),
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
    let mesh = read_mesh(&*options.store).await?;
    let listener = bind(options.listen, "xDS and certificates over TLS").await?;
    let plaintext = match options.plaintext_listen {
        Some(address) => Some(bind(address, "xDS in plaintext").await?),
        None => None,
    };
    let monitoring = bind(options.monitoring_listen, "monitoring").await?;
    let authority = Arc::new(
        load_or_create(&*options.store, CONTROL_PLANE_NAMESPACE, &mesh.trust_domain).await?,
    );
    let registrations = Registrations::new(Arc::clone(&options.store), options.disconnect_grace);
    let trust_domain: TrustDomain = mesh.trust_domain.parse().map_err(certificate_error)?;
    let plane = Plane::new(Discovery::new(PushContext::of_mesh(mesh)), registrations);
    let roots = TrustRoots::from_pem(authority.root_pem()).map_err(certificate_error)?;
    let authenticator = Authenticator::new(roots.clone(), options.tokens, Arc::clone(&plane));
    let certificates = Arc::new(
        ServerCertificate::new(Arc::clone(&authority), roots, &options.server_names)
            .map_err(StartError::Certificate)?,
    );
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
    let renewing = Arc::clone(&certificates).renew();
    tasks.spawn(until_stopped(Arc::clone(&plane), renewing));
    tasks.spawn(keep_status(Arc::clone(&plane), Arc::clone(&options.store)));
    tasks.spawn(serve_tls(
        Arc::clone(&plane),
        listener,
        certificates,
        authenticator,
        certificate_service,
    ));
    if let Some(plaintext) = plaintext {
        tasks.spawn(serve_plaintext(Arc::clone(&plane), plaintext));
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

    /// Whose identities the mesh's are.
    pub fn trust_domain(&self) -> String {
        self.plane.mesh().trust_domain.clone()
    }

    /// Whether every kind has been read, so that streams are answered.
    pub fn is_ready(&self) -> bool {
        self.plane.phase().ready
    }

    /// Waits until every kind has been read. False if the control plane was stopped before.
    pub async fn ready(&self) -> bool {
        self.plane.wait_until_ready().await
    }

    /// Who is connected, and whether each has what it should have.
    pub fn status(&self) -> MeshStatus {
        self.plane.status()
    }

    /// Bytes of resources that were sent, all streams together.
    pub fn bytes_sent(&self) -> u64 {
        self.plane.counters.bytes_sent()
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

/// The mesh's configuration as it is at the start: whose identities this control plane will certify.
async fn read_mesh(store: &dyn Store) -> Result<MeshConfig, StartError> {
    let collection = ConfigMap::INFO.collection.clone();
    let key = ObjectKey::new(collection, CONTROL_PLANE_NAMESPACE, CONFIG_MAP);
    let problem = |error: String| StartError::Mesh(format!("{key}: {error}"));
    let written = match store.get(&key).await {
        Ok(object) => {
            Some(ConfigMap::parse(&object).map_err(|errors| problem(errors.to_string()))?.view)
        }
        Err(StoreError::NotFound(_)) => None,
        Err(error) => return Err(problem(error.to_string())),
    };
    MeshConfig::read(written.as_ref()).ok_or_else(|| problem("data.mesh is not valid".to_owned()))
}

async fn bind(address: SocketAddr, what: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen { address, what, error })
}

fn certificate_error(error: impl std::fmt::Display) -> StartError {
    StartError::Certificate(error.to_string())
}

/// Runs something that never ends by itself.
async fn until_stopped(plane: Arc<Plane>, task: impl Future<Output = ()>) {
    tokio::select! {
        () = task => {}
        () = plane.stopping() => {}
    }
}

/// Writes on objects how they fare.
async fn keep_status(plane: Arc<Plane>, store: Arc<dyn Store>) {
    let keeping = plane.keeper.run(&plane, &*store);
    until_stopped(Arc::clone(&plane), keeping).await;
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
