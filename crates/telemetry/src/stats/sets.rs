//! The sets of statistics the engine counts, under Envoy's names. A field belongs here only if something counts it.

mod cluster;
mod http;
mod http2;
mod listener;
mod server;
mod tcp;
mod tls;

pub use cluster::{
    Cluster, ClusterCodes, ClusterMembership, ClusterRareCodes, ClusterTimes, Outliers, RARE_CODES,
    USUAL_CODES, usual_code,
};
pub use http::{HttpConnManager, HttpTimes, ListenerHttp};
pub use http2::Http2;
pub use listener::{Listener, ListenerTimes};
pub use server::{
    ClusterManager, ConfigReload, ConfigSource, ControlPlane, Filesystem, ListenerManager, Server,
};
pub use tcp::TcpProxy;
pub use tls::{HandshakeOutcome, TLS_CIPHERS, TLS_CURVES, TLS_VERSIONS, Tls};

#[cfg(test)]
mod tests;
