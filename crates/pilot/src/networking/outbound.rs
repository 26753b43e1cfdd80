//! The way out of a workload: its outbound HTTP proxy, and TCP listeners for the upstreams it names.

use std::net::IpAddr;

use api::envoy::config::core::v3::TrafficDirection;
use api::envoy::config::listener::v3::{FilterChain, Listener};
use api::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};

use super::connection_manager::{ConnectionManager, Routes, network_filter};
use super::filters::Direction;
use super::relay::relay;
use super::values::socket_address;
use crate::model::interned::Interned;
use crate::model::mesh::MeshConfig;
use crate::model::virtual_service::VirtualServiceRule;
use crate::naming;
use crate::proxy::Capabilities;

/// What an outbound HTTP listener depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpKey {
    /// The address it listens on.
    pub bind: IpAddr,
    /// The port it listens on.
    pub port: u16,
    /// Its route configuration.
    pub routes: String,
    /// The htpasswd line that its clients must satisfy.
    pub credential: Option<String>,
    /// What the node can load.
    pub capabilities: Capabilities,
    /// The mesh's settings.
    pub mesh: Interned<MeshConfig>,
}

/// A listener whose requests are routed by virtual hosts.
pub fn http_listener(key: &HttpKey) -> Listener {
    let name = naming::listener(&key.bind.to_string(), key.port);
    let manager = network_filter(ConnectionManager {
        stat_prefix: format!("outbound_{name}"),
        direction: Direction::Outbound,
        routes: Routes::Rds(key.routes.clone()),
        mesh: &key.mesh,
        capabilities: key.capabilities,
        proxy_credential: key.credential.as_deref(),
    });
    listener(name, key.bind, key.port, FilterChain { filters: vec![manager], ..Default::default() })
}

/// What an outbound TCP listener depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpKey {
    /// The address it listens on.
    pub bind: IpAddr,
    /// The port it listens on.
    pub port: u16,
    /// Clusters with their weights; the first alone if there is one only.
    pub clusters: Vec<(String, u32)>,
    /// The VirtualService that says so, if one does.
    pub virtual_service: Option<Interned<VirtualServiceRule>>,
    /// What the node can load.
    pub capabilities: Capabilities,
    /// The mesh's settings.
    pub mesh: Interned<MeshConfig>,
}

/// A listener whose connections go to one of some clusters.
pub fn tcp_listener(key: &TcpKey) -> Listener {
    let name = naming::listener(&key.bind.to_string(), key.port);
    let stat_prefix = match key.clusters.as_slice() {
        [(only, _)] => only.clone(),
        _ => name.clone(),
    };
    let to = cluster_specifier(&key.clusters);
    let filters = relay(&stat_prefix, to, key.capabilities, &key.mesh);
    listener(name, key.bind, key.port, FilterChain { filters, ..Default::default() })
}

/// One cluster, or several by weight. None at all is the cluster without endpoints.
pub fn cluster_specifier(clusters: &[(String, u32)]) -> ClusterSpecifier {
    match clusters {
        [] => ClusterSpecifier::Cluster(naming::BLACK_HOLE_CLUSTER.to_owned()),
        [(only, _)] => ClusterSpecifier::Cluster(only.clone()),
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several
                .iter()
                .filter(|(_, weight)| *weight > 0)
                .map(|(name, weight)| ClusterWeight {
                    name: name.clone(),
                    weight: *weight,
                    ..Default::default()
                })
                .collect(),
        }),
    }
}

fn listener(name: String, bind: IpAddr, port: u16, chain: FilterChain) -> Listener {
    Listener {
        name,
        address: Some(socket_address(&bind.to_string(), port)),
        filter_chains: vec![chain],
        traffic_direction: TrafficDirection::Outbound as i32,
        ..Default::default()
    }
}
