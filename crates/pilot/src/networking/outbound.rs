//! The way out of a workload: its outbound HTTP proxy, and TCP listeners for the upstreams it names.

use std::net::IpAddr;
use std::time::Duration;

use api::envoy::config::core::v3::TrafficDirection;
use api::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use api::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};

use super::access_log::listener_access_logs;
use super::connection_manager::{ConnectionManager, Routes, network_filter};
use super::filters::Direction;
use super::inbound::{PLAIN_HTTP, RAW, http_inspector, tls_inspector};
use super::relay::{Limits, relay};
use super::values::{duration, socket_address};
use crate::model::interned::Interned;
use crate::model::mesh::MeshConfig;
use crate::model::virtual_service::VirtualServiceRule;
use crate::naming;
use crate::proxy::Capabilities;

/// Istio's names of the chains of a listener that finds out what it gets.
const HTTP_CHAIN: &str = "http";
const PASSTHROUGH_CHAIN: &str = "PassthroughFilterChain";

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
    /// Whether its clients may speak gRPC-Web.
    pub grpc_web: bool,
    /// Whether its clients may ask for tunnels, with CONNECT.
    pub tunnels: bool,
    /// Where connections go that turn out not to be HTTP; none where it is known to be.
    pub otherwise: Option<TcpKey>,
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
        grpc_web: key.grpc_web,
        tunnels: key.tunnels,
    });
    let http = FilterChain { filters: vec![manager], ..Default::default() };
    match &key.otherwise {
        None => listener(name, key.bind, key.port, http, &key.mesh),
        Some(relayed) => detecting(listener(name, key.bind, key.port, http, &key.mesh), relayed),
    }
}

/// A listener that takes its first chain for what looks like HTTP, and relays anything else.
fn detecting(mut listener: Listener, relayed: &TcpKey) -> Listener {
    for chain in &mut listener.filter_chains {
        chain.filter_chain_match = Some(FilterChainMatch {
            transport_protocol: RAW.to_owned(),
            application_protocols: PLAIN_HTTP.map(str::to_owned).to_vec(),
            ..Default::default()
        });
        chain.name = HTTP_CHAIN.to_owned();
    }
    listener.listener_filters = vec![tls_inspector(), http_inspector()];
    let timeout = relayed.mesh.protocol_detection_timeout;
    listener.listener_filters_timeout = Some(duration(timeout));
    listener.default_filter_chain = Some(FilterChain {
        filters: relay_filters(relayed, &listener.name),
        name: PASSTHROUGH_CHAIN.to_owned(),
        ..Default::default()
    });
    listener
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
    /// How long its connections may last.
    pub limits: Limits,
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
    let filters = relay_filters(key, &name);
    let chain = FilterChain { filters, ..Default::default() };
    listener(name, key.bind, key.port, chain, &key.mesh)
}

fn relay_filters(key: &TcpKey, listener: &str) -> Vec<Filter> {
    let stat_prefix = match key.clusters.as_slice() {
        [(only, _)] => only.as_str(),
        _ => listener,
    };
    relay(stat_prefix, cluster_specifier(&key.clusters), key.limits, key.capabilities, &key.mesh)
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

fn listener(
    name: String,
    bind: IpAddr,
    port: u16,
    chain: FilterChain,
    mesh: &MeshConfig,
) -> Listener {
    Listener {
        name,
        address: Some(socket_address(&bind.to_string(), port)),
        filter_chains: vec![chain],
        listener_filters_timeout: Some(duration(Duration::ZERO)),
        continue_on_listener_filters_timeout: true,
        access_log: listener_access_logs(mesh),
        traffic_direction: TrafficDirection::Outbound as i32,
        ..Default::default()
    }
}
