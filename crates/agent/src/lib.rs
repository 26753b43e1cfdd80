//! The sidecar's helper: what Istio calls the agent.
//!
//! ```text
//!   control plane (TLS 15012)
//!      ^  certificates            ^  discovery, with the workload's credential
//!      |                          |
//!   [certificates]             [relay] <- [health], [app_ports]
//!      |                          |
//!   [secrets] ---- [socket] ------+      agent.sock, 0600
//!                     ^
//!                  the engine (Outrigger's or Envoy), from a [bootstrap] rendered here;  [status] :15020
//! ```
//!
//! Keys are made here and stay in this process and the engine's. Nothing is written to disk.

pub mod app_listener;
pub mod app_ports;
pub mod bootstrap;
pub mod certificates;
pub mod control_plane;
pub mod credential;
pub mod health;

mod engine;
mod raw_codec;
mod relay;
mod secret_files;
mod secrets;
mod socket;
mod status;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::spiffe::SpiffeError;
use identity::{SpiffeId, TrustDomain};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use app_ports::AppPorts;
use bootstrap::{Role, Workload, render, socket_path_in};
use certificates::{CertificateKeeper, CertificateOptions, WorkloadCertificate};
use control_plane::{ConnectError, ControlPlane};
use credential::TokenSource;
use engine::Engine;
use health::{Health, accepts};
use relay::Relay;
pub use relay::RelayState;
pub use secrets::{ROOTS_SECRET, WORKLOAD_SECRET};
use socket::AgentSocket;
use status::{Sources, StatusServer};

/// How often an unhealthy workload is looked at.
const PROBE_SOON: Duration = Duration::from_millis(100);
/// How often a healthy one is.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// A proxy whose configuration does not serve one of the workload's ports (a `Sidecar` may say so) is waited for so long.
const SERVE_LIMIT: Duration = Duration::from_secs(10);
/// A workload that left is quiet when nothing came for so many looks.
const QUIET_LOOKS: u32 = 3;
/// And looks are so far apart.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What an agent is started with.
pub struct Options {
    /// The workload that it helps.
    pub workload: Workload,
    /// The mesh's trust domain.
    pub trust_domain: TrustDomain,
    /// `host:15012`.
    pub control_plane: String,
    /// What the mesh trusts, PEM; got from someone trusted, never from the network.
    pub roots_pem: String,
    /// Proof of who the workload is.
    pub tokens: Arc<dyn TokenSource>,
    /// How long certificates should live.
    pub certificate_ttl: Duration,
    /// Where the engine's admin will listen.
    pub admin: SocketAddr,
    /// Where the status port listens.
    pub status: SocketAddr,
    /// A directory that only its owner can enter, for the socket.
    pub directory: PathBuf,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The root certificate or the address is unusable.
    #[error("{0}")]
    ControlPlane(#[from] ConnectError),
    /// Namespace and service account make no identity.
    #[error("{0}")]
    Identity(#[from] SpiffeError),
    /// A Unix socket's path is at most 107 bytes long.
    #[error("{0}: the path is too long for a socket")]
    PathTooLong(PathBuf),
    /// The socket cannot be opened.
    #[error("{path}: {error}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The status port cannot be opened.
    #[error("status port {address}: {error}")]
    Status {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
}

/// A running agent. Dropping it ends it.
pub struct Agent {
    workload: Workload,
    admin: SocketAddr,
    socket_path: PathBuf,
    keeper: CertificateKeeper,
    health: watch::Sender<Health>,
    app_ports: watch::Sender<AppPorts>,
    relay: watch::Receiver<RelayState>,
    status: StatusServer,
    quit: Arc<Notify>,
    prober: JoinHandle<()>,
    _socket: AgentSocket,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.prober.abort();
    }
}

impl Agent {
    /// Opens socket and status port and starts to ask for a certificate. The engine can be started at once.
    pub async fn start(options: Options) -> Result<Agent, StartError> {
        let Options { workload, .. } = options;
        let id = SpiffeId::for_service_account(
            &options.trust_domain,
            &workload.namespace,
            &workload.service_account,
        )?;
        let control_plane = ControlPlane::new(options.control_plane, &options.roots_pem)?;
        let keeper = CertificateKeeper::start(CertificateOptions {
            control_plane: control_plane.clone(),
            roots_pem: options.roots_pem,
            tokens: options.tokens.clone(),
            id,
            ttl: options.certificate_ttl,
        });
        let health = watch::Sender::new(Health::Unhealthy("starting".to_owned()));
        let app_ports = watch::Sender::new(workload.app_ports.clone());
        let relay_state = watch::Sender::new(RelayState::default());
        let relay = Relay {
            control_plane,
            tokens: options.tokens,
            certificate: keeper.certificates(),
            health: health.subscribe(),
            app_ports: app_ports.subscribe(),
            state: relay_state.clone(),
        };
        let path = options.directory;
        let socket_path = socket_path_in(&path).ok_or(StartError::PathTooLong(path))?;
        let socket = AgentSocket::open(&socket_path, relay, keeper.certificates())
            .map_err(|error| StartError::Socket { path: socket_path.clone(), error })?;
        let engine = Engine { admin: options.admin };
        let quit = Arc::new(Notify::new());
        let served = watch::Sender::new(false);
        let sources = Sources {
            engine,
            certificate: keeper.certificates(),
            relay: relay_state.subscribe(),
            served: served.subscribe(),
            health: health.subscribe(),
            quit: quit.clone(),
        };
        let status = StatusServer::open(options.status, sources)
            .await
            .map_err(|error| StartError::Status { address: options.status, error })?;
        let has_app = workload.role == Role::Sidecar;
        let prober = tokio::spawn(probe(
            engine,
            has_app.then(|| app_ports.subscribe()),
            workload.address,
            served,
            health.clone(),
        ));
        Ok(Agent {
            workload,
            admin: options.admin,
            socket_path,
            keeper,
            health,
            app_ports,
            relay: relay_state.subscribe(),
            status,
            quit,
            prober,
            _socket: socket,
        })
    }

    /// The engine's bootstrap, as JSON.
    pub fn bootstrap(&self) -> serde_json::Value {
        render(&self.workload, self.admin, &self.socket_path)
    }

    /// Where the status port listens.
    pub fn status_address(&self) -> SocketAddr {
        self.status.address
    }

    /// The workload's certificate, now and from now on.
    pub fn certificates(&self) -> watch::Receiver<Option<Arc<WorkloadCertificate>>> {
        self.keeper.certificates()
    }

    /// The workload's health, now and from now on.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// What the relay sees of the control plane, now and from now on.
    pub fn relay(&self) -> watch::Receiver<RelayState> {
        self.relay.clone()
    }

    /// Whether the proxy has its configuration.
    pub async fn proxy_is_ready(&self) -> bool {
        Engine { admin: self.admin }.is_ready().await
    }

    /// The application serves the workload's ports elsewhere than was thought. The control plane hears of it.
    pub fn follow_app(&self, ports: AppPorts) {
        self.app_ports.send_if_modified(|current| {
            let moved = *current != ports;
            *current = ports;
            moved
        });
    }

    /// The application has ended: no request should come any more.
    pub fn app_ended(&self) {
        set_health(&self.health, Health::Unhealthy("the application has ended".to_owned()));
    }

    /// Has the workload taken out of the mesh before it stops. Returns when the control plane has told everyone, and at
    /// the latest after `at_most`; says whether it did.
    pub async fn leave(&self, at_most: Duration) -> bool {
        self.health.send_replace(Health::Leaving);
        let mut relay = self.relay.clone();
        let left = relay.wait_for(|state| state.left || state.streams == 0);
        tokio::time::timeout(at_most, left)
            .await
            .is_ok_and(|state| state.is_ok_and(|state| state.left))
    }

    /// Waits until the requests that were under way when the workload left have their answers, and no straggler comes:
    /// a peer may have sent one just before it heard. At the latest after `at_most`.
    pub async fn quiesce(&self, at_most: Duration) {
        let engine = Engine { admin: self.admin };
        let settled = async {
            let mut last = None;
            let mut quiet = 0;
            while quiet < QUIET_LOOKS {
                // An engine that does not answer has nothing under way.
                let now = engine.inbound().await.unwrap_or_default();
                quiet = if now.active == 0 && last == Some(now) { quiet + 1 } else { 0 };
                last = Some(now);
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        };
        let _ = tokio::time::timeout(at_most, settled).await;
    }

    /// Waits until someone posts to `/quitquitquit`.
    pub async fn quit_requested(&self) {
        self.quit.notified().await;
    }
}

/// Keeps `health` true: the engine must be ready, serve the workload's ports and, where there is an application, it must
/// accept connections.
async fn probe(
    engine: Engine,
    app: Option<watch::Receiver<AppPorts>>,
    address: IpAddr,
    served: watch::Sender<bool>,
    health: watch::Sender<Health>,
) {
    let started = Instant::now();
    loop {
        let ports = app.as_ref().map(|ports| ports.borrow().clone());
        let is_served = async |ports: &AppPorts| {
            let known = *served.borrow();
            known || started.elapsed() > SERVE_LIMIT || all_served(address, ports).await
        };
        let now = if !engine.is_ready().await {
            Health::Unhealthy("the proxy is not ready".to_owned())
        } else if !is_served(ports.as_ref().unwrap_or(&AppPorts::default())).await {
            Health::Unhealthy("the proxy does not serve the workload's ports yet".to_owned())
        } else {
            served.send_if_modified(|known| !std::mem::replace(known, true));
            match ports {
                None => Health::Healthy,
                Some(ports) => app_health(&ports).await,
            }
        };
        let pause = if now == Health::Healthy { PROBE_INTERVAL } else { PROBE_SOON };
        set_health(&health, now);
        tokio::time::sleep(pause).await;
    }
}

/// Whether the engine accepts on every port that the workload is reached at.
async fn all_served(address: IpAddr, ports: &AppPorts) -> bool {
    for port in ports.0.keys() {
        if !accepts(SocketAddr::new(address, *port)).await {
            return false;
        }
    }
    true
}

async fn app_health(ports: &AppPorts) -> Health {
    for port in ports.0.values() {
        if !accepts(SocketAddr::from((Ipv4Addr::LOCALHOST, *port))).await {
            return Health::Unhealthy(format!(
                "the application does not accept connections on port {port}"
            ));
        }
    }
    Health::Healthy
}

/// Leaving is for good.
fn set_health(health: &watch::Sender<Health>, now: Health) {
    health.send_if_modified(|current| {
        let changes = *current != now && *current != Health::Leaving;
        if changes {
            *current = now;
        }
        changes
    });
}
