//! The way into a workload: one listener for each of its ports.

use std::net::IpAddr;

use api::envoy::config::core::v3::TrafficDirection;
use api::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, listener_filter,
};
use api::envoy::config::route::v3::{RetryPolicy, RouteConfiguration};
use api::envoy::extensions::filters::listener::{http_inspector, tls_inspector};
use prost::{Message, Name};

use super::access_log::listener_access_logs;
use super::connection_manager::{ConnectionManager, Routes, network_filter};
use super::encoding::pack;
use super::filters::Direction;
use super::relay::{Limits, RelayChain, relay};
use super::retry;
use super::tls;
use super::values::{boolean, duration, socket_address};
use super::virtual_host;
use crate::model::authentication::MtlsMode;
use crate::model::interned::Interned;
use crate::model::mesh::MeshConfig;
use crate::model::service::Protocol;
use crate::naming;
use crate::proxy::Capabilities;

/// ALPN of mesh clients that send HTTP.
const MESH_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// ALPN of mesh clients that send anything else.
const MESH_TCP: [&str; 2] = ["istio-peer-exchange", "istio"];
/// What the inspector reports of plaintext HTTP.
pub const PLAIN_HTTP: [&str; 2] = ["http/1.1", "h2c"];
/// What a mesh server of HTTP picks from, best first. `istio` is last, for clients that offer nothing else because they
/// did not know what would be sent: a server that finds nothing to pick may end the handshake.
const SERVER_HTTP: [&str; 3] = ["h2", "http/1.1", "istio"];
/// What a mesh server picks from, for anything else.
const SERVER_TCP: [&str; 1] = ["istio"];

/// What an inbound listener depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundKey {
    /// The address it listens on.
    pub bind: IpAddr,
    /// The port that peers call.
    pub port: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// What it demands of clients.
    pub mode: MtlsMode,
    /// What the node can load.
    pub capabilities: Capabilities,
    /// The mesh's settings.
    pub mesh: Interned<MeshConfig>,
}

/// One way that a connection may look, and what is done with it then.
struct Chain {
    transport: &'static str,
    alpn: &'static [&'static str],
    terminate_tls: bool,
    http: bool,
}

const TLS: &str = "tls";
/// The transport that is none.
pub const RAW: &str = "raw_buffer";

/// Istio's table: what is accepted, by what is demanded and what is spoken.
fn chains(mode: MtlsMode, protocol: Protocol) -> Vec<Chain> {
    let chain =
        |transport, alpn, terminate_tls, http| Chain { transport, alpn, terminate_tls, http };
    let auto = protocol == Protocol::Unspecified;
    let http = protocol.is_http();
    match mode {
        MtlsMode::Permissive if auto => vec![
            chain(TLS, &MESH_HTTP, true, true),
            chain(RAW, &PLAIN_HTTP, false, true),
            chain(TLS, &MESH_TCP, true, false),
            chain(RAW, &[], false, false),
            // TLS that is not the mesh's is the application's own.
            chain(TLS, &[], false, false),
        ],
        MtlsMode::Permissive if http => {
            vec![chain(TLS, &[], true, true), chain(RAW, &[], false, true)]
        }
        MtlsMode::Permissive => {
            vec![
                chain(TLS, &MESH_TCP, true, false),
                chain(TLS, &[], false, false),
                chain(RAW, &[], false, false),
            ]
        }
        MtlsMode::Strict if auto => {
            vec![chain(TLS, &MESH_HTTP, true, true), chain(TLS, &[], true, false)]
        }
        MtlsMode::Strict => vec![chain(TLS, &[], true, http)],
        MtlsMode::Disable if auto => {
            vec![chain("", &PLAIN_HTTP, false, true), chain("", &[], false, false)]
        }
        MtlsMode::Disable => vec![chain("", &[], false, http)],
    }
}

/// The listener.
pub fn listener(key: &InboundKey) -> Listener {
    let name = naming::listener(&key.bind.to_string(), key.port);
    let chains = chains(key.mode, key.protocol);
    let mut listener_filters = Vec::new();
    if key.mode != MtlsMode::Disable {
        listener_filters.push(tls_inspector());
    }
    if key.protocol == Protocol::Unspecified {
        listener_filters.push(http_inspector());
    }
    Listener {
        address: Some(socket_address(&key.bind.to_string(), key.port)),
        filter_chains: chains.iter().map(|chain| filter_chain(key, chain, &name)).collect(),
        listener_filters,
        listener_filters_timeout: Some(duration(key.mesh.protocol_detection_timeout)),
        continue_on_listener_filters_timeout: true,
        access_log: listener_access_logs(&key.mesh),
        traffic_direction: TrafficDirection::Inbound as i32,
        name,
        ..Default::default()
    }
}

/// Tells TLS from plaintext, and reads server name and ALPN.
pub fn tls_inspector() -> ListenerFilter {
    listener_filter(
        "envoy.filters.listener.tls_inspector",
        &tls_inspector::v3::TlsInspector::default(),
    )
}

/// Tells HTTP from anything else that is not TLS.
pub fn http_inspector() -> ListenerFilter {
    listener_filter(
        "envoy.filters.listener.http_inspector",
        &http_inspector::v3::HttpInspector::default(),
    )
}

fn listener_filter<M: Message + Name>(name: &str, config: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(pack(config))),
        ..Default::default()
    }
}

fn filter_chain(key: &InboundKey, chain: &Chain, listener: &str) -> FilterChain {
    let socket = chain.terminate_tls.then(|| {
        let alpn: &[&str] = if chain.http { &SERVER_HTTP } else { &SERVER_TCP };
        tls::mesh_server(alpn, &key.mesh.trust_domains())
    });
    let wants = FilterChainMatch {
        transport_protocol: chain.transport.to_owned(),
        application_protocols: chain.alpn.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    };
    FilterChain {
        filter_chain_match: (wants != FilterChainMatch::default()).then_some(wants),
        filters: if chain.http { vec![http(key, listener)] } else { tcp(key) },
        transport_socket: socket,
        // Istio's: all chains of a port have the listener's name.
        name: listener.to_owned(),
        ..Default::default()
    }
}

fn http(key: &InboundKey, listener: &str) -> Filter {
    let cluster = naming::inbound_cluster(key.port);
    let routes = RouteConfiguration {
        name: cluster.clone(),
        virtual_hosts: vec![virtual_host::inbound(key.port, cluster, retries(key))],
        validate_clusters: boolean(false),
        ..Default::default()
    };
    network_filter(ConnectionManager {
        stat_prefix: format!("inbound_{listener}"),
        direction: Direction::Inbound,
        routes: Routes::Inline(Box::new(routes)),
        mesh: &key.mesh,
        capabilities: key.capabilities,
        proxy_credential: None,
        grpc_web: key.protocol == Protocol::GrpcWeb,
        tunnels: false,
    })
}

/// Our own proxies send again by themselves what an application never began to read; others are told to.
fn retries(key: &InboundKey) -> Option<RetryPolicy> {
    let default = &key.mesh.default_retries;
    if default.is_none() && key.capabilities.is_ours() { None } else { retry::inbound(default) }
}

fn tcp(key: &InboundKey) -> Vec<Filter> {
    let application = RelayChain {
        server_names: Vec::new(),
        clusters: vec![(naming::inbound_cluster(key.port), 1)],
        limits: Limits::default(),
        virtual_service: None,
    };
    relay(&application, key.capabilities, &key.mesh)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Istio's counts of chains, by mode and protocol.
    #[test]
    fn the_table_has_istios_shape() {
        for (mode, protocol, expected) in [
            (MtlsMode::Permissive, Protocol::Unspecified, 5),
            (MtlsMode::Permissive, Protocol::Http, 2),
            (MtlsMode::Permissive, Protocol::Tcp, 3),
            (MtlsMode::Strict, Protocol::Unspecified, 2),
            (MtlsMode::Strict, Protocol::Http, 1),
            (MtlsMode::Strict, Protocol::Tcp, 1),
            (MtlsMode::Disable, Protocol::Unspecified, 2),
            (MtlsMode::Disable, Protocol::Http, 1),
            (MtlsMode::Disable, Protocol::Tcp, 1),
        ] {
            let chains = chains(mode, protocol);
            assert_eq!(chains.len(), expected, "{mode:?} {protocol:?}");
            let plain = chains.iter().any(|chain| !chain.terminate_tls);
            assert_eq!(plain, mode != MtlsMode::Strict, "{mode:?} {protocol:?}");
        }
    }
}
