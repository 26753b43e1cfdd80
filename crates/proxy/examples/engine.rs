//! The engine alone, with configuration built by hand: one worker, one listener, one route, one host.
//!
//! `engine LISTEN-ADDRESS BACKEND-ADDRESS`

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proxy::http::config::{HttpConnectionManager, RouteSource};
use proxy::http::stats::HttpBlocks;
use proxy::listener::config::{FilterChain, ListenAddress, ListenerConfig, TerminalFilter};
use proxy::listener::filter_chain::FilterChainIndex;
use proxy::route_table::config::{
    Criteria, PathMatch, RouteConfig, TableConfig, VirtualHostConfig,
};
use proxy::route_table::{Action, RouteAction, RouteTable, VirtualHost};
use proxy::router::config::ClusterChoice;
use proxy::upstream::cluster::Cluster;
use proxy::upstream::config::{ClusterConfig, ClusterRef};
use proxy::upstream::host::{Host, HostAddress, HostOptions, HostSet};
use proxy::upstream::stats::ClusterBlocks;
use proxy::worker::{Change, ListenerId, Message, WorkerOptions, spawn};
use telemetry::stats::{Registry, Scope};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(backend)) = (arguments.next(), arguments.next()) else {
        return Err("usage: engine LISTEN-ADDRESS BACKEND-ADDRESS".into());
    };
    let (listen, backend): (SocketAddr, SocketAddr) = (listen.parse()?, backend.parse()?);
    let registry = Registry::new();
    let worker = spawn(WorkerOptions { index: 0, registry: registry.clone(), cpu: None })?;
    let at = ClusterRef { slot: 0, generation: 0 };
    let mut config = ClusterConfig::new("backend");
    config.breakers[0].max_requests = 100_000;
    config.breakers[0].max_connections = 100_000;
    let cluster = Arc::new(Cluster::new(config, ClusterBlocks::new(&registry, "backend")));
    let host = Arc::new(Host::new(HostAddress::Tcp(backend), HostOptions::default()));
    let changes =
        [Change::Cluster(at, Some(cluster)), Change::Hosts(at, Arc::new(HostSet::new(vec![host])))];
    worker.mailbox.send(Message::Commit { changes: changes.into(), ack: None });
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(listen), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&listen.into())?;
    socket.listen(4096)?;
    let config = listener(&registry, listen, at)?;
    let socket = Some(socket.into());
    worker.mailbox.send(Message::AddListener { id: ListenerId(1), config, socket, ack: None });
    worker.join();
    Ok(())
}

fn listener(
    registry: &Registry,
    address: SocketAddr,
    at: ClusterRef,
) -> Result<Arc<ListenerConfig>, Box<dyn std::error::Error>> {
    let action = RouteAction::new(ClusterChoice::Cluster(at));
    let route = RouteConfig::new(
        Criteria::path(PathMatch::Prefix("/".into())),
        Action::Route(Box::new(action)),
    );
    let host = VirtualHost::compile(VirtualHostConfig {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: vec![route],
        ..VirtualHostConfig::default()
    })?;
    let table = Arc::new(RouteTable::new(TableConfig::default(), vec![host])?);
    let stats = HttpBlocks::new(registry, "engine", "ingress_http");
    let http = HttpConnectionManager::new("ingress_http", stats, RouteSource::Inline(table));
    let chain = Arc::new(FilterChain {
        name: "".into(),
        criteria: Default::default(),
        fingerprint: 0,
        tls: None,
        transport_socket_connect_timeout: None,
        terminal: TerminalFilter::Http(Arc::new(http)),
    });
    let chains = vec![chain];
    Ok(Arc::new(ListenerConfig {
        name: "engine".into(),
        stat_prefix: "engine".into(),
        stats: registry.block(&Scope::listener("engine")),
        address: ListenAddress::Tcp(address),
        index: FilterChainIndex::build(&chains)?,
        filter_chains: chains,
        default_filter_chain: None,
        listener_filters: Vec::new(),
        listener_filters_timeout: Some(Duration::from_secs(15)),
        continue_on_listener_filters_timeout: false,
        per_connection_buffer_limit: 1 << 20,
        connection_limit: None,
        traffic_direction: Default::default(),
        access_loggers: Vec::new(),
        max_accepts_per_turn: 64,
    }))
}
