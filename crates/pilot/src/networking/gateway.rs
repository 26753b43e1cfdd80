//! Listeners of gateways: one for each port, a filter chain for each server that terminates or passes TLS.

use std::net::IpAddr;

use api::envoy::config::core::v3::{TrafficDirection, TransportSocket};
use api::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener};
use api::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use resources::kinds::networking::gateway::Server;
use resources::terms::server_tls::{ServerTls, ServerTlsMode, TlsVersion};

use super::access_log::listener_access_logs;
use super::connection_manager::{ConnectionManager, Routes, network_filter};
use super::filters::Direction;
use super::inbound::tls_inspector;
use super::relay::{RelayChain, relay};
use super::tls::{self, GatewayTls};
use super::values::socket_address;
use crate::model::gateway::GatewayRule;
use crate::model::interned::Interned;
use crate::model::mesh::MeshConfig;
use crate::model::service::Protocol;
use crate::naming;
use crate::proxy::Capabilities;

/// What a gateway picks from, best first.
const SERVER_ALPN: [&str; 2] = ["h2", "http/1.1"];

/// What a gateway's listener depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayListenerKey {
    /// The address it binds.
    pub bind: IpAddr,
    /// The address in its name: Istio's is every one, whatever is bound.
    pub named: String,
    /// The port it listens on.
    pub port: u16,
    /// Its servers, the oldest Gateway's first.
    pub servers: Vec<ServerKey>,
    /// What the node can load.
    pub capabilities: Capabilities,
    /// The mesh's settings.
    pub mesh: Interned<MeshConfig>,
}

/// One server of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerKey {
    /// Its Gateway.
    pub gateway: Interned<GatewayRule>,
    /// Its place among the Gateway's servers.
    pub index: usize,
    /// What it does.
    pub action: ServerAction,
}

/// What a server does with a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerAction {
    /// Requests are routed by this route configuration.
    Http {
        /// Its name.
        routes: String,
    },
    /// Connections are relayed.
    Relay {
        /// Server names with where they go; no names match every connection.
        chains: Vec<RelayChain>,
    },
}

impl ServerKey {
    /// The server; `None` if the Gateway lost it, which no key that is made from it has.
    pub fn server(&self) -> Option<&Server> {
        self.gateway.view.servers.get(self.index)
    }
}

/// The listener.
pub fn listener(key: &GatewayListenerKey) -> Listener {
    let name = naming::listener(&key.named, key.port);
    let mut filter_chains = Vec::new();
    let mut inspects_tls = false;
    for entry in &key.servers {
        let Some(server) = entry.server() else { continue };
        let terminating = terminating_tls(server);
        inspects_tls |= written_tls(server).is_some();
        match &entry.action {
            ServerAction::Http { routes } => {
                let socket = terminating.map(|tls| server_socket(tls, &SERVER_ALPN));
                let names = if socket.is_some() { server_names(server) } else { Vec::new() };
                let own = server.name.clone().filter(|_| socket.is_some());
                let stat_prefix = own.unwrap_or_else(|| format!("outbound_{name}"));
                let filters = vec![http(key, stat_prefix, routes)];
                filter_chains.push(chain(names, filters, socket, routes.clone()));
            }
            ServerAction::Relay { chains } => {
                for relayed in chains {
                    let socket = terminating.map(|tls| server_socket(tls, &SERVER_ALPN));
                    let filters = relay(relayed, key.capabilities, &key.mesh);
                    let chain_name = format!("{name}_{}", relayed.server_names.join(","));
                    let names = relayed.server_names.clone();
                    filter_chains.push(chain(names, filters, socket, chain_name));
                }
            }
        }
    }
    Listener {
        address: Some(socket_address(&key.bind.to_string(), key.port)),
        filter_chains,
        listener_filters: if inspects_tls { vec![tls_inspector()] } else { Vec::new() },
        access_log: listener_access_logs(&key.mesh),
        traffic_direction: TrafficDirection::Outbound as i32,
        name,
        ..Default::default()
    }
}

/// A server of a plaintext protocol may have TLS settings that only redirect.
fn written_tls(server: &Server) -> Option<&ServerTls> {
    server.tls.as_ref().filter(|_| !server.port.protocol.is_http())
}

/// The TLS that a server terminates: none where it is plaintext or passed through.
pub fn terminating_tls(server: &Server) -> Option<&ServerTls> {
    let tls = written_tls(server)?;
    let terminates =
        !matches!(tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough);
    terminates.then_some(tls)
}

/// The server names of a server's hosts; none if any host is meant.
pub fn server_names(server: &Server) -> Vec<String> {
    let names: Vec<String> = server.hosts.iter().map(|host| host.host.clone()).collect();
    if names.iter().any(|name| name == "*") { Vec::new() } else { names }
}

fn chain(
    server_names: Vec<String>,
    filters: Vec<Filter>,
    socket: Option<TransportSocket>,
    name: String,
) -> FilterChain {
    let wants = FilterChainMatch { server_names, ..Default::default() };
    FilterChain {
        filter_chain_match: (wants != FilterChainMatch::default()).then_some(wants),
        filters,
        transport_socket: socket,
        name,
        ..Default::default()
    }
}

fn http(key: &GatewayListenerKey, stat_prefix: String, routes: &str) -> Filter {
    network_filter(ConnectionManager {
        stat_prefix,
        direction: Direction::Gateway,
        routes: Routes::Rds(routes.to_owned()),
        mesh: &key.mesh,
        capabilities: key.capabilities,
        proxy_credential: None,
        grpc_web: key
            .servers
            .iter()
            .filter_map(ServerKey::server)
            .any(|server| server.port.protocol == Protocol::GrpcWeb),
        tunnels: false,
    })
}

fn server_socket(written: &ServerTls, alpn: &[&str]) -> TransportSocket {
    if written.mode == ServerTlsMode::IstioMutual {
        return tls::mesh_server(alpn, &[]);
    }
    let by_name: Vec<String> =
        written.credential_names.iter().map(|name| credential_resource(name)).collect();
    let by_file: Vec<String> = written
        .certificates
        .iter()
        .map(|files| format!("file-cert:{}~{}", files.server_certificate, files.private_key))
        .collect();
    let asks_certificate =
        matches!(written.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    let roots = match (&written.ca_cert_credential_name, &written.ca_certificates, by_name.first())
    {
        (Some(name), _, _) => Some(credential_resource(name)),
        (None, Some(file), _) => Some(format!("file-root:{file}")),
        (None, None, Some(certificate)) => Some(format!("{certificate}-cacert")),
        (None, None, None) => None,
    };
    tls::gateway_server(&GatewayTls {
        alpn,
        certificates: if by_name.is_empty() { &by_file } else { &by_name },
        client_roots: roots.as_deref().filter(|_| asks_certificate),
        require_certificate: written.mode == ServerTlsMode::Mutual,
        subject_alt_names: &written.subject_alt_names,
        minimum: version(written.min_protocol_version),
        maximum: version(written.max_protocol_version),
        cipher_suites: &written.cipher_suites,
    })
}

/// `kubernetes://name`, as Istio names a credential. It is looked up in the namespace of the gateway's own credential:
/// a Gateway object elsewhere cannot make a gateway fetch another namespace's Secret.
fn credential_resource(name: &str) -> String {
    format!("kubernetes://{name}")
}

fn version(written: TlsVersion) -> Option<TlsProtocol> {
    match written {
        TlsVersion::Auto => None,
        TlsVersion::V1_0 => Some(TlsProtocol::TlSv10),
        TlsVersion::V1_1 => Some(TlsProtocol::TlSv11),
        TlsVersion::V1_2 => Some(TlsProtocol::TlSv12),
        TlsVersion::V1_3 => Some(TlsProtocol::TlSv13),
    }
}
