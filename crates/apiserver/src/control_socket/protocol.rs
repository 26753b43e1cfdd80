//! What is said over the control socket.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// What joiners must know of a mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshInfo {
    /// Name of the mesh.
    pub mesh: String,
    /// Its trust domain.
    pub trust_domain: String,
    /// Namespace whose policies are the mesh's.
    pub root_namespace: String,
    /// PEM of the certificates by which its control plane and workloads are known.
    pub root_certificate: String,
    /// `host:port` of the control plane, TLS.
    pub xds_address: String,
}

/// What a workload says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// A WorkloadGroup that is there and says everything else but the instance.
    #[serde(default)]
    pub group: Option<String>,
    /// Name: of the service that it belongs to, and of the group with its version.
    #[serde(default)]
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Version.
    #[serde(default)]
    pub version: Option<String>,
    /// Labels beside `app` and `version`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Service account; the name where nothing was said.
    #[serde(default)]
    pub service_account: Option<String>,
    /// Ports that it is reached at.
    #[serde(default)]
    pub ports: Vec<WishedPort>,
    /// Which of its group's workloads it is; where nothing was said, the first that does not run.
    #[serde(default)]
    pub instance: Option<String>,
}

/// A port that a workload wants to be reached at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WishedPort {
    /// The port.
    pub port: u16,
    /// What it speaks, as the names of Service ports begin: `http`, `tcp`, `grpc`, ...
    pub protocol: String,
}

impl WishedPort {
    /// The port's name in Services and groups, which says what it speaks.
    pub fn name(&self) -> String {
        format!("{}-{}", self.protocol, self.port)
    }
}

/// What a workload got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Namespace.
    pub namespace: String,
    /// Its WorkloadGroup.
    pub group: String,
    /// Which of its group's workloads it is.
    pub instance: String,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its address.
    pub address: IpAddr,
    /// Ports that it is reached at: of its group, and those that its services name.
    pub ports: Vec<u16>,
    /// Services that select it.
    pub services: Vec<String>,
    /// The Service that was made for it because none selected it.
    pub service_made: Option<String>,
    /// Token for the control plane.
    pub token: String,
    /// Its life.
    pub token_expires_in_seconds: u64,
    /// The mesh.
    pub mesh: MeshInfo,
}

/// Whom a token is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenWish {
    /// Namespace of the service account.
    pub namespace: String,
    /// The service account.
    pub service_account: String,
}

/// A token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenAnswer {
    /// The token, a JWT.
    pub token: String,
    /// Its life.
    pub expires_in_seconds: u64,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// In words.
    pub error: String,
}

/// What runs where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the mesh.
    pub mesh: String,
    /// The process that runs it.
    pub pid: u32,
    /// The directory that it is run from.
    pub directory: String,
    /// When it was started, RFC 3339.
    pub started: String,
    /// `host:port` of the control plane.
    pub xds_address: String,
    /// URLs at which the gateway is reached.
    pub gateway: Vec<String>,
    /// Objects by kind.
    pub objects: BTreeMap<String, usize>,
    /// What runs.
    pub workloads: Vec<WorkloadStatus>,
    /// Deployments that nothing says how to run here.
    pub not_run_here: Vec<String>,
    /// What is wrong with the directory as it is now; empty if all of it is in effect.
    pub problems: Vec<String>,
    /// How the objects fare that tell proxies what to do.
    #[serde(default)]
    pub programmed: Vec<ObjectProgress>,
}

/// How one object fares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectProgress {
    /// `VirtualService`, ...
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The generation of which all this is said.
    pub generation: u64,
    /// How many connected proxies it concerns.
    pub proxies: usize,
    /// How many of them do what it says.
    pub programmed: usize,
    /// Why proxies do not: `<proxy>: <resource>: <reason>`.
    pub rejections: Vec<String>,
    /// What of it has no effect: `<field>: <why>`.
    pub warnings: Vec<String>,
}

/// One workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadStatus {
    /// `reviews-v1`, or `reviews-v1-1` for a further replica.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
    /// How far it is.
    pub state: WorkloadState,
    /// Its process, if one runs.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
    /// How its last process ended, if it did.
    pub last_exit: Option<String>,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// Ports that it is reached at.
    pub ports: Vec<u16>,
    /// Whether its sidecar has its configuration and certificate; unknown while it cannot be asked.
    pub synced: Option<bool>,
    /// Why it takes no requests, as its sidecar says.
    #[serde(default)]
    pub trouble: Option<String>,
    /// When its certificate ends, RFC 3339.
    pub certificate_expires: Option<String>,
    /// Its log file.
    pub log: String,
}

/// How far a workload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadState {
    /// Started, not ready yet.
    #[default]
    Starting,
    /// Ready: it takes requests.
    Running,
    /// It was ready and takes no requests now.
    Unready,
    /// Ended, and waits to be started again.
    Waiting,
    /// Ended for good.
    Stopped,
}

impl std::fmt::Display for WorkloadState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Unready => "unready",
            Self::Waiting => "waiting",
            Self::Stopped => "stopped",
        })
    }
}
