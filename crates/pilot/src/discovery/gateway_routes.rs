//! What a gateway serves: the Gateways that select it, merged by port, and the VirtualServices that bind to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use resources::kinds::networking::gateway::Server;
use resources::kinds::networking::virtual_service::{L4Match, RouteDestination};
use resources::terms::gateway_ref::GatewayRef;
use resources::terms::server_tls::ServerTlsMode;

use super::listener::services_of;
use super::upstream::relay_limits;
use super::virtual_host::destination_services;
use crate::model::PushContext;
use crate::model::gateway::{GatewayRule, exposed_hosts};
use crate::model::hostname;
use crate::model::interned::Interned;
use crate::model::service::{Protocol, TargetPort};
use crate::model::virtual_service::VirtualServiceRule;
use crate::naming;
use crate::networking::destination::Destinations;
use crate::networking::gateway::{
    GatewayListenerKey, ServerAction, ServerKey, server_names, terminating_tls,
};
use crate::networking::relay::RelayChain;
use crate::networking::route::RoutesKey;
use crate::networking::virtual_host::VirtualHostKey;
use crate::proxy::{Proxy, ProxyKind};

/// The address in a listener's name where a server names none.
const EVERY_ADDRESS: &str = "0.0.0.0";

/// One server of a Gateway at a proxy.
struct Bound {
    gateway: Interned<GatewayRule>,
    index: usize,
    /// The address in names.
    named: String,
    /// The port that the proxy listens on.
    port: u16,
}

impl Bound {
    fn server(&self) -> &Server {
        &self.gateway.view.servers[self.index]
    }

    /// The route configuration of an HTTP server; `None` for one that relays connections.
    fn routes(&self) -> Option<String> {
        let server = self.server();
        let bind_suffix = server.bind.as_ref().map(|bind| format!(".{bind}")).unwrap_or_default();
        match server.port.protocol {
            protocol if protocol.is_http() => {
                Some(naming::gateway_http_route(self.port) + &bind_suffix)
            }
            Protocol::Https => {
                terminating_tls(server)?;
                let (gateway, port) = (&self.gateway, &server.port);
                let name = naming::gateway_https_route(
                    port.number,
                    &port.name,
                    &gateway.name,
                    &gateway.namespace,
                );
                Some(name + &bind_suffix)
            }
            _ => None,
        }
    }

    fn redirects(&self) -> bool {
        self.server().tls.as_ref().is_some_and(|tls| tls.https_redirect)
    }
}

/// The servers that a proxy serves, the oldest Gateway's first. A server whose port cannot be combined with an older
/// one's is left out: plaintext and TLS cannot share a port.
fn bound(context: &PushContext, proxy: &Proxy) -> Vec<Bound> {
    if proxy.kind != ProxyKind::Router {
        return Vec::new();
    }
    let mut all: Vec<Bound> = Vec::new();
    let mut tls_ports: BTreeMap<(String, u16), bool> = BTreeMap::new();
    for gateway in context.gateways.selecting(&proxy.labels) {
        for (index, server) in gateway.view.servers.iter().enumerate() {
            let named = server.bind.clone().unwrap_or_else(|| EVERY_ADDRESS.to_owned());
            let port = target_port(context, proxy, server.port.number);
            let is_tls = server.tls.is_some() && !server.port.protocol.is_http();
            let first = *tls_ports.entry((named.clone(), port)).or_insert(is_tls);
            if first == is_tls && server.port.protocol != Protocol::Udp {
                all.push(Bound { gateway: gateway.clone(), index, named, port });
            }
        }
    }
    all
}

/// Servers name ports of the gateway's Service; the workload listens on what they lead to.
fn target_port(context: &PushContext, proxy: &Proxy, port: u16) -> u16 {
    let targets =
        services_of(context, proxy).filter_map(|row| match row.service.port(port)?.target {
            TargetPort::Number(number) => Some(number),
            TargetPort::Name(_) => None,
        });
    targets.min().unwrap_or(port)
}

/// The names of a proxy's route configurations.
pub fn names(context: &PushContext, proxy: &Proxy) -> BTreeSet<String> {
    bound(context, proxy).iter().filter_map(Bound::routes).collect()
}

/// The keys of a proxy's listeners.
pub fn listeners(context: &PushContext, proxy: &Proxy) -> Vec<GatewayListenerKey> {
    let mut by_port: BTreeMap<(String, u16), Vec<ServerKey>> = BTreeMap::new();
    for bound in bound(context, proxy) {
        let servers = by_port.entry((bound.named.clone(), bound.port)).or_default();
        let action = match bound.routes() {
            Some(routes) => ServerAction::Http { routes },
            None => ServerAction::Relay { chains: relay_chains(context, proxy, &bound) },
        };
        // All plaintext HTTP servers of a port share one chain and one route configuration.
        if servers.iter().any(|known| known.action == action)
            && bound.server().port.protocol.is_http()
        {
            continue;
        }
        servers.push(ServerKey { gateway: bound.gateway.clone(), index: bound.index, action });
    }
    by_port
        .into_iter()
        .map(|((named, port), servers)| GatewayListenerKey {
            bind: bind_address(proxy, &named),
            named,
            port,
            servers,
            capabilities: proxy.capabilities,
            mesh: context.mesh.clone(),
        })
        .filter(|key| key.servers.iter().any(serves_anything))
        .collect()
}

/// A listener without a filter chain would take connections for nothing.
fn serves_anything(server: &ServerKey) -> bool {
    match &server.action {
        ServerAction::Http { .. } => true,
        ServerAction::Relay { chains } => !chains.is_empty(),
    }
}

fn bind_address(proxy: &Proxy, named: &str) -> IpAddr {
    let every = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    match named.parse() {
        Ok(address) if address != every => address,
        _ => proxy.gateway_address.unwrap_or(every),
    }
}

/// The virtual hosts of a proxy, each with its route configuration.
pub fn virtual_hosts(context: &PushContext, proxy: &Proxy) -> Vec<(String, VirtualHostKey)> {
    let mut routes: BTreeMap<String, BTreeMap<(u16, String), HostRoutes>> = BTreeMap::new();
    for bound in bound(context, proxy) {
        let Some(name) = bound.routes() else { continue };
        let hosts = routes.entry(name).or_default();
        let port = bound.server().port.number;
        if bound.redirects() {
            for host in &bound.server().hosts {
                hosts.entry((port, host.host.clone())).or_default().redirect = true;
            }
        }
        let over_tls = terminating_tls(bound.server()).is_some();
        let gateway = bound.gateway.reference();
        for rule in context.virtual_services.for_gateway(&gateway, &proxy.namespace) {
            for host in exposed_hosts(bound.server(), rule) {
                let entry = hosts.entry((port, host)).or_default();
                entry.redirect |= bound.redirects();
                entry.over_tls |= over_tls;
                entry.add(rule, gateway.clone());
            }
        }
    }
    routes
        .into_iter()
        .flat_map(|(name, hosts)| {
            let keys = keys(context, &name, hosts);
            keys.into_iter().map(move |key| (name.clone(), key))
        })
        .collect()
}

#[derive(Default)]
struct HostRoutes {
    rules: Vec<(Interned<VirtualServiceRule>, GatewayRef)>,
    redirect: bool,
    over_tls: bool,
}

impl HostRoutes {
    fn add(&mut self, rule: &Interned<VirtualServiceRule>, gateway: GatewayRef) {
        if !self.rules.iter().any(|(known, _)| known == rule) {
            self.rules.push((rule.clone(), gateway));
        }
    }
}

/// Virtual hosts of one route configuration. Two servers of different numbers on one port of the proxy may name the
/// same host: its first virtual host, by number, has it.
fn keys(
    context: &PushContext,
    routes: &str,
    hosts: BTreeMap<(u16, String), HostRoutes>,
) -> Vec<VirtualHostKey> {
    let mut seen = BTreeSet::new();
    let mut keys: Vec<VirtualHostKey> = hosts
        .into_iter()
        .filter(|((_, host), _)| seen.insert(host.clone()))
        .map(|((port, host), found)| VirtualHostKey {
            name: naming::virtual_host(&host, port).into(),
            domains: vec![host],
            virtual_services: found
                .rules
                .into_iter()
                .map(|(rule, gateway)| RoutesKey {
                    over_tls: found.over_tls,
                    ..gateway_routes(context, rule, gateway, port)
                })
                .collect(),
            default_cluster: None,
            redirect_to_https: found.redirect,
            default_retries: context.mesh.default_retries.clone(),
            tunnel_cluster: None,
        })
        .collect();
    if keys.is_empty() {
        // Istio's name for "nothing is routed here": answers 404.
        let port = routes.split('.').nth(1).unwrap_or_default();
        keys.push(VirtualHostKey {
            name: format!("{}:{port}", naming::BLACKHOLE_VIRTUAL_HOST).into(),
            domains: vec!["*".to_owned()],
            virtual_services: Vec::new(),
            default_cluster: None,
            redirect_to_https: false,
            default_retries: Default::default(),
            tunnel_cluster: None,
        });
    }
    keys
}

fn gateway_routes(
    context: &PushContext,
    rule: Interned<VirtualServiceRule>,
    gateway: GatewayRef,
    port: u16,
) -> RoutesKey {
    RoutesKey {
        services: destination_services(context, &rule),
        virtual_service: rule,
        gateway,
        // A request from outside comes from no workload.
        client: Default::default(),
        port,
        over_tls: false,
        domain_suffix: Arc::clone(&context.mesh.domain_suffix),
    }
}

/// Where the connections of a relaying server go: by server name where TLS is passed through, else all to one place.
fn relay_chains(context: &PushContext, proxy: &Proxy, bound: &Bound) -> Vec<RelayChain> {
    let server = bound.server();
    let gateway = bound.gateway.reference();
    let mut chains: Vec<RelayChain> = Vec::new();
    for rule in context.virtual_services.for_gateway(&gateway, &proxy.namespace) {
        if exposed_hosts(server, rule).is_empty() {
            continue;
        }
        let services = destination_services(context, rule);
        let destinations = Destinations {
            namespace: &rule.namespace,
            domain_suffix: &context.mesh.domain_suffix,
            services: &services,
            listener_port: server.port.number,
        };
        for (server_names, route) in relayed_routes(server, &gateway, rule) {
            // The first rule that claims a name has it.
            if chains.iter().any(|chain| chain.server_names == server_names) {
                continue;
            }
            let cluster =
                |to: &RouteDestination| (destinations.cluster(&to.destination), to.weight);
            let host = |to: &RouteDestination| destinations.host_and_port(&to.destination).0;
            let first_host = route.first().map(host).unwrap_or_default();
            chains.push(RelayChain {
                server_names,
                clusters: route.iter().map(cluster).collect(),
                limits: relay_limits(context, &proxy.namespace, &first_host),
                virtual_service: Some(rule.clone()),
            });
        }
    }
    chains
}

/// A rule's routes for connections to a server, each with the server names that it is for; none are all of them.
fn relayed_routes<'a>(
    server: &Server,
    gateway: &GatewayRef,
    rule: &'a VirtualServiceRule,
) -> Vec<(Vec<String>, &'a [RouteDestination])> {
    let is_here = |matched: &L4Match| holds(matched, gateway, server.port.number);
    let passes_tls = server.tls.as_ref().is_some_and(|tls| tls.mode == ServerTlsMode::Passthrough);
    if !passes_tls {
        let mut routes = rule.view.tcp.iter();
        let route = routes.find(|tcp| tcp.matches.is_empty() || tcp.matches.iter().any(is_here));
        let names = terminating_tls(server).map_or_else(Vec::new, |_| server_names(server));
        return route.map(|tcp| (names, &*tcp.route)).into_iter().collect();
    }
    let offers = |name: &str| server.hosts.iter().any(|host| hostname::covers(&host.host, name));
    let mut routes = Vec::new();
    for tls in &rule.view.tls {
        for matched in tls.matches.iter().filter(|matched| is_here(&matched.l4)) {
            let names = matched.sni_hosts.iter().filter(|name| offers(name));
            let names: Vec<String> = names.cloned().collect();
            if names.iter().any(|name| name == "*") {
                routes.push((Vec::new(), &*tls.route));
            } else if !names.is_empty() {
                routes.push((names, &*tls.route));
            }
        }
    }
    routes
}

fn holds(matched: &L4Match, gateway: &GatewayRef, port: u16) -> bool {
    matched.port.is_none_or(|wanted| wanted == port)
        && (matched.gateways.is_empty() || matched.gateways.contains(gateway))
        && matched.source_namespace.is_none()
        && matched.source_labels.is_empty()
}
