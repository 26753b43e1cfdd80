//! What the server tells the admin interface, and what it does for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::listener::config::ListenAddress;
use crate::stream_info::CertificateInfo;
use crate::upstream::cluster::Cluster;
use crate::upstream::host::HostSet;

/// `ServerInfo.State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Serving.
    Live = 0,
    /// Draining, or told to fail health checks.
    Draining = 1,
    /// Waiting for clusters.
    PreInitializing = 2,
    /// Waiting for listeners and routes.
    Initializing = 3,
}

impl ServerState {
    /// Envoy's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            ServerState::Live => "LIVE",
            ServerState::Draining => "DRAINING",
            ServerState::PreInitializing => "PRE_INITIALIZING",
            ServerState::Initializing => "INITIALIZING",
        }
    }
}

/// The server, as the admin interface sees it. Called on the main thread's runtime; must not block for long.
pub trait AdminState: Send + Sync + 'static {
    /// How far it is.
    fn state(&self) -> ServerState;
    /// `<revision>/<version>/<status>/<build>/<TLS library>`, as `--version` prints.
    fn version(&self) -> String;
    /// `server_info.command_line_options`.
    fn command_line_options(&self) -> serde_json::Value;
    /// The node's `core.v3.Node`, encoded.
    fn node(&self) -> Bytes;
    /// Listeners that serve.
    fn listeners(&self) -> Vec<ListenerStatus>;
    /// Clusters that serve.
    fn clusters(&self) -> Vec<ClusterStatus>;
    /// All certificates in use.
    fn certificates(&self) -> Vec<CertificateStatus>;
    /// All configuration in force.
    fn config_dump(&self) -> ConfigDump;
    /// What is configured and does not serve yet: kinds, and the names of each.
    fn unready(&self) -> Vec<(&'static str, Vec<String>)> {
        Vec::new()
    }
    /// Runtime layers by name, the first below the others, each with its keys and values.
    fn runtime_layers(&self) -> Vec<(String, Vec<(String, serde_json::Value)>)> {
        Vec::new()
    }
    /// Sets gauges that are measured only when somebody looks.
    fn refresh(&self) {}
    /// Stops listeners.
    fn drain_listeners(&self, request: DrainRequest);
    /// Makes health checks (`/ready`, the health-check filter) fail or pass.
    fn fail_health_checks(&self, fail: bool);
    /// Ends the process in order.
    fn quit(&self);
}

/// A listener that serves.
#[derive(Clone, Debug)]
pub struct ListenerStatus {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is bound (the port the kernel chose).
    pub addresses: Vec<ListenAddress>,
}

/// A cluster that serves.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// Its configuration and counters.
    pub cluster: Arc<Cluster>,
    /// Its endpoints.
    pub hosts: Arc<HostSet>,
    /// What its endpoints are called in discovery, if they are discovered.
    pub eds_service_name: Option<Arc<str>>,
    /// It came over xDS.
    pub added_via_api: bool,
}

/// The certificates of one TLS context.
#[derive(Clone, Debug, Default)]
pub struct CertificateStatus {
    /// Authorities that peers are verified with, and the file each came from.
    pub authorities: Vec<(CertificateInfo, Option<PathBuf>)>,
    /// Our chain, leaf first, and the file each came from.
    pub chain: Vec<(CertificateInfo, Option<PathBuf>)>,
}

impl CertificateStatus {
    /// What tells it from others: the fingerprints of its leaf and of its first authority.
    pub fn first_fingerprints(&self) -> (Option<&str>, Option<&str>) {
        (first_fingerprint(&self.chain), first_fingerprint(&self.authorities))
    }
}

fn first_fingerprint(list: &[(CertificateInfo, Option<PathBuf>)]) -> Option<&str> {
    list.first().map(|(info, _)| info.fingerprint_256.as_str())
}

/// `POST /drain_listeners`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainRequest {
    /// Say `Connection: close` for the drain time before the listeners close.
    pub graceful: bool,
    /// Only listeners with inbound traffic direction.
    pub inbound_only: bool,
    /// Never close the listeners; only drain their connections.
    pub skip_exit: bool,
}

/// All configuration in force, as wire bytes.
#[derive(Clone, Debug, Default)]
pub struct ConfigDump {
    /// The bootstrap.
    pub bootstrap: Option<StaticResource>,
    /// Clusters.
    pub clusters: Resources,
    /// Listeners.
    pub listeners: Resources,
    /// Route configurations, inline ones as static.
    pub routes: Resources,
    /// Secrets.
    pub secrets: Resources,
    /// Endpoints (`include_eds`).
    pub endpoints: Resources,
}

/// Resources of one kind.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// The version of the last response over xDS; empty without.
    pub version: String,
    /// From the bootstrap.
    pub fixed: Vec<StaticResource>,
    /// From xDS.
    pub dynamic: Vec<DynamicResource>,
}

/// A resource of the bootstrap.
#[derive(Clone, Debug)]
pub struct StaticResource {
    /// Its name.
    pub name: String,
    /// Its message's type URL.
    pub type_url: &'static str,
    /// The encoded message.
    pub bytes: Bytes,
    /// When it took effect.
    pub updated: SystemTime,
}

/// A resource that came over xDS.
#[derive(Clone, Debug)]
pub struct DynamicResource {
    /// What is in force; `None` while the first version warms or was rejected.
    pub active: Option<(String, StaticResource)>,
    /// What is prepared and not yet in force, with its version.
    pub warming: Option<(String, StaticResource)>,
    /// What it is called, whichever of the above is there.
    pub name: String,
    /// The last version, if it was rejected.
    pub rejected: Option<RejectedResource>,
}

/// A version of a resource that was rejected.
#[derive(Clone, Debug)]
pub struct RejectedResource {
    /// Everything that is wrong with it.
    pub details: String,
    /// The server's version of it.
    pub version: String,
    /// As it came; `updated` is when.
    pub resource: StaticResource,
}
