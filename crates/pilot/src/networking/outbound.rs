//! The way out of a workload: its outbound HTTP proxy, and TCP listeners for the upstreams it names.

use std::net::IpAddr;
use std::time::Duration;

use api::envoy::config::core::v3::TrafficDirection;
use api::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};

use super::access_log::listener_access_logs;
use super::connection_manager::{ConnectionManager, Routes, network_filter};
use super::filters::Direction;
use super::inbound::{PLAIN_HTTP, RAW, http_inspector, tls_inspector};
use super::relay::{RelayChain, relay};
use super::values::{duration, socket_address};
use crate::model::interned::Interned;
use crate::model::mesh::MeshConfig;
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
        None => listener(name, key.bind, key.port, vec![http], &key.mesh),
        Some(relayed) => {
            detecting(listener(name, key.bind, key.port, vec![http], &key.mesh), relayed)
        }
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
        filters: relayed
            .chains
            .first()
            .map(|chain| relay(chain, relayed.capabilities, &relayed.mesh))
            .unwrap_or_default(),
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
    /// Where connections go: by server name, or all to one place.
    pub chains: Vec<RelayChain>,
    /// What the node can load.
    pub capabilities: Capabilities,
    /// The mesh's settings.
    pub mesh: Interned<MeshConfig>,
}

/// A listener whose connections are relayed. Those whose server name no chain has are closed.
pub fn tcp_listener(key: &TcpKey) -> Listener {
    let name = naming::listener(&key.bind.to_string(), key.port);
    let chain = |relayed: &RelayChain| {
        let server_names = relayed.server_names.clone();
        let wants = FilterChainMatch { server_names, ..Default::default() };
        FilterChain {
            filter_chain_match: (wants != FilterChainMatch::default()).then_some(wants),
            filters: relay(relayed, key.capabilities, &key.mesh),
            ..Default::default()
        }
    };
    let by_name = key.chains.iter().any(|relayed| !relayed.server_names.is_empty());
    let chains = key.chains.iter().map(chain).collect();
    Listener {
        listener_filters: if by_name { vec![tls_inspector()] } else { Vec::new() },
        ..listener(name, key.bind, key.port, chains, &key.mesh)
    }
}

fn listener(
    name: String,
    bind: IpAddr,
    port: u16,
    filter_chains: Vec<FilterChain>,
    mesh: &MeshConfig,
) -> Listener {
    Listener {
        name,
        address: Some(socket_address(&bind.to_string(), port)),
        filter_chains,
        listener_filters_timeout: Some(duration(Duration::ZERO)),
        continue_on_listener_filters_timeout: true,
        access_log: listener_access_logs(mesh),
        traffic_direction: TrafficDirection::Outbound as i32,
        ..Default::default()
    }
}
