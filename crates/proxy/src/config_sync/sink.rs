//! What configuration is delivered to: the main thread, as discovery sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use api::envoy::config::core::v3::Node;
use api::text::Problem;
use tokio::sync::watch;

use crate::upstream::host::HostAddress;

/// The kinds of resources that this proxy takes over discovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoints,
    /// LDS.
    Listener,
    /// RDS.
    Routes,
    /// VHDS: subscribed by the route configuration's name, delivered as `<route configuration>/<virtual host>`.
    VirtualHosts,
    /// SDS.
    Secret,
}

/// One resource, still encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name in discovery.
    pub name: String,
    /// The server's version.
    pub version: String,
    /// The encoded message of the kind's type (not an `Any`).
    pub bytes: Vec<u8>,
}

/// What one response changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The kind of everything in it.
    pub kind: ResourceKind,
    /// New and changed resources.
    pub added: Vec<Resource>,
    /// Names that are gone, or that were subscribed and do not exist. For virtual hosts the name of a route
    /// configuration means that it has none.
    pub removed: Vec<String>,
}

/// What became of an update: everything not named here is applied in every worker.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Resources that stay at their last good version.
    pub rejected: Vec<Rejected>,
}

/// One rejected resource.
#[derive(Clone, Debug)]
pub struct Rejected {
    /// Its name in discovery.
    pub name: String,
    /// Everything that is wrong with it, by path.
    pub problems: Vec<Problem>,
}

impl Rejected {
    /// Everything that is wrong with it, in a line.
    pub fn reason(&self) -> String {
        let problems: Vec<String> = self
            .problems
            .iter()
            .map(|problem| match problem.path.as_str() {
                "" => problem.message.clone(),
                path => format!("{path}: {}", problem.message),
            })
            .collect();
        problems.join("; ")
    }
}

/// Where a kind of resource comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The one aggregated stream.
    Ads,
    /// A gRPC service of its own for one kind.
    Grpc(GrpcSource),
    /// A file.
    File(FileSource),
}

/// A file that is read again when it changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileSource {
    /// Where it is.
    pub path: Arc<str>,
    /// Changes are looked for here instead of where the file is.
    pub watched_directory: Option<Arc<str>>,
    /// It is read again so often instead of being watched.
    pub poll_interval: Option<Duration>,
}

/// A discovery service behind a cluster of the bootstrap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrpcSource {
    /// The cluster's name.
    pub cluster: String,
    /// `:authority` instead of the cluster's name.
    pub authority: Option<String>,
    /// How long a connection attempt may take.
    pub timeout: Option<Duration>,
    /// Incremental (`DELTA_GRPC`); state of the world (`GRPC`) otherwise.
    pub delta: bool,
    /// Request headers of the stream.
    pub initial_metadata: Vec<(String, String)>,
}

/// Which names of a kind are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// All that the server has for this node.
    Wildcard,
    /// These. There may be thousands: they are the names that the configuration has, and the set is shared.
    Named(Arc<BTreeSet<Arc<str>>>),
}

/// All that is wanted, by where it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscriptions {
    /// Where the aggregated stream is.
    pub ads: Option<GrpcSource>,
    /// What is wanted from each source.
    pub wanted: BTreeMap<Source, BTreeMap<ResourceKind, Names>>,
}

/// How a cluster of the bootstrap is reached.
#[derive(Clone, Debug)]
pub struct GrpcTarget {
    /// Its endpoints, in order of preference.
    pub addresses: Vec<HostAddress>,
    /// Its transport socket; `None` for plaintext.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The server name to ask for.
    pub sni: Option<String>,
    /// `:authority`, unless the source has one.
    pub authority: String,
}

/// The main thread's side of discovery.
///
/// `apply` must not wait for *other* resources: a cluster whose endpoints are still to come counts as applied once it is
/// accepted and its endpoints are in [`Self::subscriptions`]. What an update makes wanted must be in there before `apply`
/// returns, so that the server hears of it before it hears that the update was accepted.
pub trait ConfigSink: Send + Sync + 'static {
    /// This proxy as it introduces itself.
    fn node(&self) -> Node;

    /// What is wanted now and from now on.
    fn subscriptions(&self) -> watch::Receiver<Arc<Subscriptions>>;

    /// Applies an update; returns when every worker has committed what was good.
    fn apply(&self, update: Update) -> impl Future<Output = Applied> + Send;

    /// A stream was opened, or was lost or could not be opened: the one for `only` this kind, or the aggregated one.
    fn connected(&self, only: Option<ResourceKind>, is_connected: bool) {
        let _ = (only, is_connected);
    }

    /// Looks a cluster of the bootstrap up; `None` if there is none of this name.
    fn grpc_target(&self, cluster: &str) -> impl Future<Output = Option<GrpcTarget>> + Send;
}
