//! What a workload calls by a port of its own (`--upstream reviews:9080`): a listener for each, whose shape is what the
//! service's port says that it speaks. HTTP is routed, anything else relayed; where nothing is said, what comes decides.

use resources::kinds::networking::virtual_service::{L4Match, RouteDestination, TcpRoute};
use resources::terms::gateway_ref::GatewayRef;

use super::view::ViewKey;
use super::virtual_host::{destination_services, mesh_routes};
use crate::model::PushContext;
use crate::model::hostname;
use crate::model::interned::Interned;
use crate::model::registry::Row;
use crate::model::service::{Protocol, Service, ServicePort};
use crate::model::virtual_service::VirtualServiceRule;
use crate::naming;
use crate::networking::destination::Destinations;
use crate::networking::outbound::{HttpKey, TcpKey};
use crate::networking::relay::{Limits, RelayChain};
use crate::networking::virtual_host::VirtualHostKey;
use crate::proxy::{Proxy, ProxyKind, Upstream};

/// A listener of a workload's own.
pub enum UpstreamListener {
    /// For requests, or for what turns out to be some.
    Http(HttpKey),
    /// For connections.
    Tcp(TcpKey),
}

/// The listeners for a workload's upstreams. Nothing is listened on for a service that is not there (yet) or that the
/// workload does not know.
pub fn listeners(context: &PushContext, proxy: &Proxy, view: &ViewKey) -> Vec<UpstreamListener> {
    let of_upstream = |(row, port): (&Row, &ServicePort)| {
        let tcp = || tcp_key(context, view, proxy.address, &row.service, port.number);
        if !port.may_be_http() {
            return UpstreamListener::Tcp(tcp());
        }
        UpstreamListener::Http(HttpKey {
            bind: proxy.address,
            port: port.number,
            routes: naming::virtual_host(&row.service.host, port.number),
            credential: None,
            grpc_web: port.protocol == Protocol::GrpcWeb,
            tunnels: false,
            otherwise: (port.protocol == Protocol::Unspecified).then(tcp),
            capabilities: proxy.capabilities,
            mesh: context.mesh.clone(),
        })
    };
    known(context, proxy, view).map(of_upstream).collect()
}

/// The virtual hosts of a workload's upstreams, each with its route configuration: whatever host a request names, it
/// means the one whose port it came to.
pub fn virtual_hosts(
    context: &PushContext,
    proxy: &Proxy,
    view: &ViewKey,
) -> Vec<(String, VirtualHostKey)> {
    let http = known(context, proxy, view).filter(|(_, port)| port.may_be_http());
    http.map(|(row, port)| {
        let host = &row.service.host;
        let name = naming::virtual_host(host, port.number);
        let rule = context.virtual_services.for_mesh_host(host, &view.namespace);
        let rule = rule.filter(|rule| !rule.view.http.is_empty());
        let key = VirtualHostKey {
            name: name.as_str().into(),
            domains: vec!["*".to_owned()],
            virtual_services: rule
                .map(|rule| mesh_routes(context, view, rule, port.number))
                .into_iter()
                .collect(),
            default_cluster: Some(naming::outbound_cluster(port.number, "", host)),
            redirect_to_https: false,
            default_retries: context.mesh.default_retries.clone(),
            tunnel_cluster: None,
        };
        (name, key)
    })
    .collect()
}

fn known<'a>(
    context: &'a PushContext,
    proxy: &'a Proxy,
    view: &'a ViewKey,
) -> impl Iterator<Item = (&'a Row, &'a ServicePort)> {
    let is_sidecar = proxy.kind == ProxyKind::Sidecar;
    proxy.upstreams.iter().filter(move |_| is_sidecar).filter_map(|upstream| {
        let host = host_of(context, proxy, upstream);
        let row = context.service(&host).filter(|row| view.knows(&row.service))?;
        Some((row, row.service.port(upstream.port)?))
    })
}

/// The full host of an upstream: a short name is of the workload's namespace, `name.namespace` of that one.
pub fn host_of(context: &PushContext, proxy: &Proxy, upstream: &Upstream) -> String {
    let suffix = &context.mesh.domain_suffix;
    let full = hostname::resolve(&upstream.host, &proxy.namespace, suffix);
    if context.service(&full).is_some() {
        return full;
    }
    match upstream.host.trim_end_matches(".svc").split_once('.') {
        Some((name, namespace)) if !namespace.contains('.') => {
            hostname::of_service(name, namespace, suffix)
        }
        _ => full,
    }
}

/// How long connections to a host may last that clients in `namespace` have relayed: the rule's word for every port.
pub fn relay_limits(context: &PushContext, namespace: &str, host: &str) -> Limits {
    let Some(row) = context.service(host) else { return Limits::default() };
    let (rules, root) = (&context.destination_rules, &context.mesh.root_namespace);
    let rules = rules.find(namespace, host, &row.service.namespace, root);
    let tcp = rules.and_then(|rules| {
        rules.traffic_policy.as_ref()?.settings.connection_pool.as_ref()?.tcp.as_ref()
    });
    tcp.map_or_else(Limits::default, |tcp| Limits {
        idle: tcp.idle_timeout,
        whole: tcp.max_connection_duration,
    })
}

/// A VirtualService's routes for the port decide, by server name where the port says TLS, else the service itself is
/// meant.
pub fn tcp_key(
    context: &PushContext,
    view: &ViewKey,
    bind: std::net::IpAddr,
    service: &Service,
    port: u16,
) -> TcpKey {
    let rule = context.virtual_services.for_mesh_host(&service.host, &view.namespace);
    let is_tls = service.port(port).is_some_and(|port| port.protocol.is_tls());
    let mut chains = match rule {
        Some(rule) => routed_chains(context, view, rule, port, is_tls),
        None => Vec::new(),
    };
    if chains.is_empty() {
        chains.push(RelayChain {
            server_names: Vec::new(),
            clusters: vec![(naming::outbound_cluster(port, "", &service.host), 1)],
            limits: relay_limits(context, &view.namespace, &service.host),
            virtual_service: None,
        });
    }
    TcpKey { bind, port, chains, capabilities: view.capabilities, mesh: context.mesh.clone() }
}

/// Where a rule leads connections to a port: one place, or by server name; nothing if it says nothing of the port.
fn routed_chains(
    context: &PushContext,
    view: &ViewKey,
    rule: &Interned<VirtualServiceRule>,
    port: u16,
    is_tls: bool,
) -> Vec<RelayChain> {
    let client = rule.client(&view.namespace, &view.labels);
    let services = destination_services(context, rule);
    let destinations = Destinations {
        namespace: &rule.namespace,
        domain_suffix: &context.mesh.domain_suffix,
        services: &services,
        listener_port: port,
    };
    let holds = |matched: &L4Match| {
        matched.port.is_none_or(|wanted| wanted == port)
            && (matched.gateways.is_empty() || matched.gateways.contains(&GatewayRef::Mesh))
            && client.is(matched.source_namespace.as_deref(), &matched.source_labels)
    };
    let chain = |server_names: Vec<String>, route: &[RouteDestination]| {
        let first = route.first().map(|to| destinations.host_and_port(&to.destination).0);
        let clusters = route.iter().map(|to| (destinations.cluster(&to.destination), to.weight));
        RelayChain {
            server_names,
            clusters: clusters.collect(),
            limits: relay_limits(context, &view.namespace, &first.unwrap_or_default()),
            virtual_service: Some(rule.clone()),
        }
    };
    if !is_tls {
        let matched = |tcp: &&TcpRoute| tcp.matches.is_empty() || tcp.matches.iter().any(holds);
        let route = rule.view.tcp.iter().find(matched);
        return route.map(|tcp| chain(Vec::new(), &tcp.route)).into_iter().collect();
    }
    let mut chains: Vec<RelayChain> = Vec::new();
    for tls in &rule.view.tls {
        for matched in tls.matches.iter().filter(|matched| holds(&matched.l4)) {
            let any = matched.sni_hosts.iter().any(|name| name == "*");
            let names = if any { Vec::new() } else { matched.sni_hosts.clone() };
            if !chains.iter().any(|known| known.server_names == names) {
                chains.push(chain(names, &tls.route));
            }
        }
    }
    chains
}
