//! VHDS, eager: each virtual host a resource of its own, so that a changed route costs one virtual host.

use std::sync::Arc;

use resources::terms::gateway_ref::GatewayRef;
use xds::ResourceType;

use super::origin::Translated;
use super::view::{View, ViewKey};
use super::{Caches, Generator};
use super::{gateway_routes, upstream};
use crate::model::hostname;
use crate::model::interned::Interned;
use crate::model::service::{Host, Protocol, Service, ServicePort};
use crate::model::sidecar::OutboundRoutes;
use crate::model::virtual_service::VirtualServiceRule;
use crate::model::{Aspect, PushContext};
use crate::naming;
use crate::networking::destination::DestinationServices;
use crate::networking::route::RoutesKey;
use crate::networking::virtual_host::{VirtualHostKey, refuse_all, virtual_host};
use crate::proxy::{Proxy, ProxyKind};

pub(super) const GENERATOR: Generator = Generator {
    kind: ResourceType::VirtualHost,
    aspects: Aspect::SERVICE.with(Aspect::ROUTES),
    of_host,
    follows: &[],
    of_view,
    of_proxy,
};

/// Status of a request to a host that nobody has, at a sidecar's outbound proxy (Istio's `block_all`).
const UNKNOWN_HOST_STATUS: u32 = 502;
/// The port that a request means which names none.
const HTTP_PORT: u16 = 80;

/// What a virtual host resource depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ResourceKey {
    /// Of a host, in a route configuration.
    Host(Arc<str>, VirtualHostKey),
    /// Of last resort, in a route configuration.
    Refuse(Arc<str>),
}

/// The resource of a virtual host in a route configuration.
pub fn resource(caches: &mut Caches, routes: &str, key: VirtualHostKey) -> Option<Translated> {
    let key = ResourceKey::Host(naming::virtual_host_resource(routes, &key.name), key);
    caches.virtual_hosts.resource(key, |key| match key {
        ResourceKey::Host(name, key) => Some((Arc::clone(name), virtual_host(key))),
        ResourceKey::Refuse(_) => None,
    })
}

fn of_host(
    caches: &mut Caches,
    context: &PushContext,
    view: &ViewKey,
    host: &Host,
) -> Vec<Translated> {
    if view.kind != ProxyKind::Sidecar {
        return Vec::new();
    }
    let mut all = Vec::new();
    for routes in view.egress().routes() {
        for key in keys(context, view, &routes, host) {
            all.extend(resource(caches, &routes.name, key));
        }
    }
    all
}

/// The virtual hosts of a host: one for each of its HTTP ports; one for a host that only a VirtualService names.
fn keys(
    context: &PushContext,
    view: &ViewKey,
    routes: &OutboundRoutes<'_>,
    host: &Host,
) -> Vec<VirtualHostKey> {
    let rule = context.virtual_services.for_mesh_host(host, &view.namespace);
    let Some(row) = context.service(host) else {
        // A host that nobody has is there only where a rule names it as it stands; and a wildcard that covers services is
        // their rule, and nothing more.
        let is_theirs = host.starts_with('*') && covers_known(context, view, host);
        return rule
            .filter(|rule| !is_theirs && rule.hosts.iter().any(|named| **named == **host))
            .map(|rule| unregistered(context, view, routes, host, rule))
            .into_iter()
            .collect();
    };
    let service = &row.service;
    if !service.export_to.reaches(&view.namespace) {
        return Vec::new();
    }
    let rule = rule.filter(|rule| !rule.view.http.is_empty());
    let ports = service.ports.iter().filter(|port| port.protocol != Protocol::Udp);
    ports
        .filter(|port| routes.includes(&view.namespace, service, port))
        .map(|port| {
            let cluster = naming::outbound_cluster(port.number, "", host);
            // Clients of an HTTP proxy tunnel what is not HTTP, or not HTTP/1.
            let tunnel_cluster = routes.is_proxy().then(|| cluster.clone());
            let rule = rule.filter(|_| port.may_be_http());
            VirtualHostKey {
                name: naming::virtual_host(host, port.number).into(),
                domains: domains(context, view, routes, service, port),
                virtual_services: rule
                    .map(|rule| mesh_routes(context, view, rule, port.number))
                    .into_iter()
                    .collect(),
                default_cluster: port.may_be_http().then_some(cluster),
                redirect_to_https: false,
                default_retries: context.mesh.default_retries.clone(),
                tunnel_cluster,
            }
        })
        .collect()
}

fn covers_known(context: &PushContext, view: &ViewKey, pattern: &str) -> bool {
    let mut services = context.services.values().map(|row| &row.service);
    services.any(|service| hostname::covers(pattern, &service.host) && view.knows(service))
}

fn unregistered(
    context: &PushContext,
    view: &ViewKey,
    routes: &OutboundRoutes<'_>,
    host: &Host,
    rule: &Interned<VirtualServiceRule>,
) -> VirtualHostKey {
    let port = routes.port.unwrap_or(HTTP_PORT);
    VirtualHostKey {
        name: naming::virtual_host(host, port).into(),
        domains: vec![host.to_string(), format!("{host}:{port}")],
        virtual_services: vec![mesh_routes(context, view, rule, port)],
        default_cluster: None,
        redirect_to_https: false,
        default_retries: context.mesh.default_retries.clone(),
        tunnel_cluster: None,
    }
}

/// A request to an HTTP proxy names host and port, or means port 80; one to a service's port may leave the port out.
/// A service without port 80 is called without a port by its first HTTP port.
fn domains(
    context: &PushContext,
    view: &ViewKey,
    routes: &OutboundRoutes<'_>,
    service: &Service,
    port: &ServicePort,
) -> Vec<String> {
    let default_port = || {
        let mut http = service.ports.iter().filter(|port| port.may_be_http());
        let first = http.clone().next();
        http.find(|port| port.number == HTTP_PORT).or(first).map(|port| port.number)
    };
    let bare = !routes.is_proxy() || default_port() == Some(port.number);
    let mut names =
        naming::host_aliases(&service.host, &view.namespace, &context.mesh.domain_suffix);
    // The whole name with the dot that says so, as resolvers are given it.
    names.insert(1, format!("{}.", service.host));
    names.extend(service.addresses.iter().map(|address| match address {
        std::net::IpAddr::V4(v4) => v4.to_string(),
        std::net::IpAddr::V6(v6) => format!("[{v6}]"),
    }));
    let mut all = Vec::with_capacity(names.len() * 2);
    for name in names {
        all.push(format!("{name}:{}", port.number));
        if bare {
            all.push(name);
        }
    }
    all
}

/// What a rule says of a host's port to the proxies of a view.
pub fn mesh_routes(
    context: &PushContext,
    view: &ViewKey,
    rule: &Interned<VirtualServiceRule>,
    port: u16,
) -> RoutesKey {
    RoutesKey {
        virtual_service: rule.clone(),
        gateway: GatewayRef::Mesh,
        over_tls: false,
        client: rule.client(&view.namespace, &view.labels),
        port,
        services: destination_services(context, rule),
        domain_suffix: Arc::clone(&context.mesh.domain_suffix),
    }
}

/// What a rule's translation may know of the registry.
pub fn destination_services(
    context: &PushContext,
    rule: &VirtualServiceRule,
) -> DestinationServices {
    rule.destinations(&context.mesh.domain_suffix)
        .into_iter()
        .map(|host| {
            let service = context.service(&host).map(|row| row.service.clone());
            (Host::from(host), service)
        })
        .collect()
}

/// The virtual host of last resort of each route configuration.
fn of_view(caches: &mut Caches, _: &PushContext, view: &View) -> Vec<Translated> {
    if view.key.kind != ProxyKind::Sidecar {
        return Vec::new();
    }
    let routes = view.key.egress().routes();
    routes
        .into_iter()
        .filter_map(|routes| {
            let name = naming::virtual_host_resource(&routes.name, naming::BLOCK_ALL);
            caches.virtual_hosts.resource(ResourceKey::Refuse(name), |key| match key {
                ResourceKey::Refuse(name) => {
                    Some((Arc::clone(name), refuse_all(naming::BLOCK_ALL, UNKNOWN_HOST_STATUS)))
                }
                ResourceKey::Host(..) => None,
            })
        })
        .collect()
}

/// The virtual hosts of what is one proxy's alone, each with its route configuration.
pub fn of_proxy_alone(
    context: &PushContext,
    proxy: &Proxy,
    view: &ViewKey,
) -> Vec<(String, VirtualHostKey)> {
    match proxy.kind {
        ProxyKind::Router => gateway_routes::virtual_hosts(context, proxy),
        ProxyKind::Sidecar => upstream::virtual_hosts(context, proxy, view),
        ProxyKind::Proxyless => Vec::new(),
    }
}

fn of_proxy(
    caches: &mut Caches,
    context: &PushContext,
    proxy: &Proxy,
    view: &ViewKey,
) -> Vec<Translated> {
    of_proxy_alone(context, proxy, view)
        .into_iter()
        .filter_map(|(routes, key)| resource(caches, &routes, key))
        .collect()
}
