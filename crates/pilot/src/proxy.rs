//! One proxy: who it is by its credential, and what it says of itself.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::instance::Locality;

/// Who a stream belongs to, by its credential alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Peer {
    /// Namespace of the service account.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service_account)
    }
}

/// What a proxy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyKind {
    /// Beside one workload.
    Sidecar,
    /// A gateway.
    Router,
    /// None at all: a gRPC client that speaks xDS itself.
    Proxyless,
}

/// What a node can load, as far as anything emitted depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Capabilities(u16);

impl Capabilities {
    /// Virtual hosts as resources of their own, eagerly.
    pub const EAGER_VHDS: Capabilities = Capabilities(1);
    /// `istio.alpn`.
    pub const ALPN: Capabilities = Capabilities(1 << 1);
    /// `istio.stats`.
    pub const STATS: Capabilities = Capabilities(1 << 2);
    /// `istio.metadata_exchange`.
    pub const PEER_METADATA: Capabilities = Capabilities(1 << 3);
    /// `envoy.filters.http.basic_auth`.
    pub const BASIC_AUTH: Capabilities = Capabilities(1 << 4);
    /// `envoy.filters.http.cors`.
    pub const CORS: Capabilities = Capabilities(1 << 5);
    /// `envoy.filters.http.grpc_web`.
    pub const GRPC_WEB: Capabilities = Capabilities(1 << 6);
    /// Clusters whose connections speak what their handshake has agreed on, and pools that know how many requests each
    /// can then carry.
    pub const HTTP2_BY_AGREEMENT: Capabilities = Capabilities(1 << 7);

    /// `envoy.filters.http.grpc_stats`.
    pub const GRPC_STATS: Capabilities = Capabilities(1 << 8);
    /// `envoy.filters.http.fault`.
    pub const FAULT: Capabilities = Capabilities(1 << 9);

    /// Whether it is a proxy of this project: no other has virtual hosts as resources of their own, eagerly.
    pub fn is_ours(self) -> bool {
        self.contains(Self::EAGER_VHDS)
    }

    /// Whether all of `other` is there.
    pub fn contains(self, other: Capabilities) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both.
    #[must_use]
    pub fn with(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 | other.0)
    }
}

/// A proxy as the control plane knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// The node id.
    pub id: String,
    /// What it is for.
    pub kind: ProxyKind,
    /// The workload's name.
    pub name: String,
    /// Its namespace: the credential's.
    pub namespace: Arc<str>,
    /// Its service account: the credential's. Empty on the plaintext port.
    pub service_account: String,
    /// Its workload's labels.
    pub labels: Arc<BTreeMap<String, String>>,
    /// The address it listens on.
    pub address: IpAddr,
    /// Where it runs.
    pub locality: Locality,
    /// The network it is in.
    pub network: String,
    /// The cluster it runs in.
    pub cluster_id: String,
    /// What it can load.
    pub capabilities: Capabilities,
    /// The application's port on 127.0.0.1 for each port of the workload.
    pub app_ports: BTreeMap<u16, u16>,
    /// Hosts and ports it wants TCP listeners for.
    pub upstreams: Vec<Upstream>,
    /// The port of its outbound HTTP proxy.
    pub http_proxy_port: u16,
    /// The htpasswd line that clients of its outbound HTTP proxy must satisfy.
    pub proxy_credential: Option<String>,
    /// What a gateway's listeners bind instead of every address.
    pub gateway_address: Option<IpAddr>,
    /// The WorkloadGroup it wants to join.
    pub auto_register_group: Option<String>,
    /// What software it says it is.
    pub version: String,
    /// Whether its labels are the registry's, not its own word: only then is it given secrets.
    pub is_registered: bool,
}

/// A destination that a workload calls by TCP, on its own address.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Upstream {
    /// Host, as written: short names are relative to the workload's namespace.
    pub host: String,
    /// Service port, and the port it listens on.
    pub port: u16,
}
