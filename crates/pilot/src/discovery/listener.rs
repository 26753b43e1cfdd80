//! LDS: what a sidecar or gateway listens on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use resources::kinds::networking::sidecar::{DefaultEndpoint, EgressListener, IngressListener};
use xds::ResourceType;

use super::origin::Translated;
use super::upstream::{self, UpstreamListener};
use super::view::ViewKey;
use super::{Caches, Generator, gateway_routes, nothing_of_view, proxyless};
use crate::model::interned::Interned;
use crate::model::registry::Row;
use crate::model::service::{Host, Protocol, Service, ServicePort, TargetPort};
use crate::model::sidecar::{self, HTTP_PROXY_ROUTE};
use crate::model::{Aspect, PushContext};
use crate::networking::cluster::Application;
use crate::networking::gateway;
use crate::networking::inbound::{self, InboundKey};
use crate::networking::outbound::{self, HttpKey};
use crate::proxy::{Proxy, ProxyKind};

pub(super) const GENERATOR: Generator = Generator {
    kind: ResourceType::Listener,
    aspects: Aspect::SERVICE,
    of_host,
    follows: &[],
    of_view: nothing_of_view,
    of_proxy,
};

/// Where applications listen: nowhere but on their own machine.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Only gRPC clients have listeners of hosts: proxies listen on what is theirs alone.
fn of_host(
    caches: &mut Caches,
    context: &PushContext,
    view: &ViewKey,
    host: &Host,
) -> Vec<Translated> {
    match view.kind {
        ProxyKind::Proxyless => proxyless::listeners(caches, context, view, host),
        ProxyKind::Sidecar | ProxyKind::Router => Vec::new(),
    }
}

fn of_proxy(
    caches: &mut Caches,
    context: &PushContext,
    proxy: &Proxy,
    view: &ViewKey,
) -> Vec<Translated> {
    match proxy.kind {
        ProxyKind::Router => return gateway_listeners(caches, context, proxy),
        ProxyKind::Proxyless => return Vec::new(),
        ProxyKind::Sidecar => {}
    }
    let mut taken = BTreeSet::new();
    let mut all = inbound_listeners(caches, context, proxy, view, &mut taken);
    all.extend(outbound_listeners(caches, context, proxy, view, &mut taken));
    all
}

/// A port by which peers reach a workload.
pub struct InboundPort {
    /// The address that it is on.
    pub bind: IpAddr,
    /// Its number.
    pub port: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// Where the application takes it.
    pub application: Application,
    /// The service that peers mean.
    pub service: Option<Interned<Service>>,
}

/// The ports of a workload: those that its Sidecar lists, else the target ports of the services that select it.
pub fn inbound_ports(context: &PushContext, proxy: &Proxy, view: &ViewKey) -> Vec<InboundPort> {
    let own_services: Vec<&Row> = services_of(context, proxy).collect();
    let application = |port: u16| {
        Application::Address(SocketAddr::new(
            LOOPBACK,
            proxy.app_ports.get(&port).copied().unwrap_or(port),
        ))
    };
    let written =
        view.sidecar.as_ref().map(|rule| rule.view.ingress.as_slice()).unwrap_or_default();
    let mut ports: BTreeMap<(IpAddr, u16), InboundPort> = BTreeMap::new();
    if !written.is_empty() {
        for ingress in written {
            let port = written_port(proxy, ingress, &own_services, &application);
            ports.entry((port.bind, port.port)).or_insert(port);
        }
        return ports.into_values().collect();
    }
    for row in own_services {
        for port in row.service.ports.iter().filter(|port| port.protocol != Protocol::Udp) {
            let Some(target) = target_port(row, port, proxy) else { continue };
            // Where two services disagree about a port, the first by name wins.
            ports.entry((proxy.address, target)).or_insert_with(|| InboundPort {
                bind: proxy.address,
                port: target,
                protocol: port.protocol,
                application: application(target),
                service: Some(row.service.clone()),
            });
        }
    }
    ports.into_values().collect()
}

/// The services that select a proxy's workload, by host.
pub fn services_of<'a>(
    context: &'a PushContext,
    proxy: &'a Proxy,
) -> impl Iterator<Item = &'a Row> {
    context.services.values().filter(|row| {
        row.service.namespace == proxy.namespace && row.service.selects(&proxy.labels)
    })
}

/// The number of a service port at this workload: a named one is its instance's.
fn target_port(row: &Row, port: &ServicePort, proxy: &Proxy) -> Option<u16> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(_) => {
            let address = proxy.address.to_string();
            let own = row.instances.iter().find(|instance| instance.address == address)?;
            own.ports.get(&port.name).copied()
        }
    }
}

fn written_port(
    proxy: &Proxy,
    ingress: &IngressListener,
    own_services: &[&Row],
    application: &dyn Fn(u16) -> Application,
) -> InboundPort {
    let number = ingress.port.number;
    let service = own_services.iter().find(|row| {
        row.service.ports.iter().any(|port| target_port(row, port, proxy) == Some(number))
    });
    InboundPort {
        bind: ingress.bind.as_deref().and_then(|bind| bind.parse().ok()).unwrap_or(proxy.address),
        port: number,
        protocol: ingress.port.protocol,
        application: match &ingress.default_endpoint {
            None => application(number),
            // The workload's own address: the application is on it, but behind the proxy it is on loopback.
            Some(DefaultEndpoint::Address(address)) if address.ip().is_unspecified() => {
                application(address.port())
            }
            Some(DefaultEndpoint::Address(address)) => Application::Address(*address),
            Some(DefaultEndpoint::Unix(path)) => Application::Unix(path.clone()),
        },
        service: service.map(|row| row.service.clone()),
    }
}

fn inbound_listeners(
    caches: &mut Caches,
    context: &PushContext,
    proxy: &Proxy,
    view: &ViewKey,
    taken: &mut BTreeSet<(IpAddr, u16)>,
) -> Vec<Translated> {
    let mut all = Vec::new();
    for port in inbound_ports(context, proxy, view) {
        taken.insert((port.bind, port.port));
        let key = InboundKey {
            bind: port.bind,
            port: port.port,
            protocol: port.protocol,
            mode: context.authentication.of_port(&proxy.namespace, &proxy.labels, port.port),
            capabilities: proxy.capabilities,
            mesh: context.mesh.clone(),
        };
        all.extend(caches.inbound_listeners.resource(key, |key| {
            let listener = inbound::listener(key);
            Some((listener.name.as_str().into(), listener))
        }));
    }
    all
}

/// What a Sidecar lists, else one HTTP proxy; and the upstreams that the workload named. What is inbound already is not
/// taken away by it.
fn outbound_listeners(
    caches: &mut Caches,
    context: &PushContext,
    proxy: &Proxy,
    view: &ViewKey,
    taken: &mut BTreeSet<(IpAddr, u16)>,
) -> Vec<Translated> {
    let written = view.egress().listeners();
    let mut keys: Vec<UpstreamListener> = if written.is_empty() {
        vec![UpstreamListener::Http(http_proxy(context, proxy))]
    } else {
        written.iter().filter_map(|listener| egress(context, proxy, view, listener)).collect()
    };
    keys.extend(upstream::listeners(context, proxy, view));
    // HTTP first, where two want the same port.
    keys.sort_by_key(|key| matches!(key, UpstreamListener::Tcp(_)));
    let mut all = Vec::new();
    for key in keys {
        let place = match &key {
            UpstreamListener::Http(key) => (key.bind, key.port),
            UpstreamListener::Tcp(key) => (key.bind, key.port),
        };
        if !taken.insert(place) {
            continue;
        }
        all.extend(match key {
            UpstreamListener::Http(key) => caches.http_listeners.resource(key, |key| {
                let listener = outbound::http_listener(key);
                Some((listener.name.as_str().into(), listener))
            }),
            UpstreamListener::Tcp(key) => caches.tcp_listeners.resource(key, |key| {
                let listener = outbound::tcp_listener(key);
                Some((listener.name.as_str().into(), listener))
            }),
        });
    }
    all
}

/// The listener of an egress entry: none for a TCP port of which no service is imported.
fn egress(
    context: &PushContext,
    proxy: &Proxy,
    view: &ViewKey,
    written: &EgressListener,
) -> Option<UpstreamListener> {
    let Some(port) = &written.port else {
        return Some(UpstreamListener::Http(http_proxy(context, proxy)));
    };
    let bind = written.bind.as_deref().and_then(|bind| bind.parse().ok()).unwrap_or(proxy.address);
    let is_proxy = port.protocol == Protocol::HttpProxy;
    if port.protocol.is_http() || is_proxy || port.protocol == Protocol::Unspecified {
        return Some(UpstreamListener::Http(HttpKey {
            bind,
            port: port.number,
            routes: port.number.to_string(),
            // Only the proxy of the workload's own environment: its clients know the credential.
            credential: proxy
                .proxy_credential
                .clone()
                .filter(|_| port.number == proxy.http_proxy_port),
            grpc_web: port.protocol == Protocol::GrpcWeb,
            tunnels: is_proxy,
            ..http_proxy(context, proxy)
        }));
    }
    let known = context.services.values().find(|row| {
        row.service.port(port.number).is_some()
            && view.knows(&row.service)
            && sidecar::imports(written, &view.namespace, &row.service)
    })?;
    let key = upstream::tcp_key(context, view, bind, &known.service, port.number);
    Some(UpstreamListener::Tcp(key))
}

/// The outbound HTTP proxy of a workload.
fn http_proxy(context: &PushContext, proxy: &Proxy) -> HttpKey {
    HttpKey {
        bind: proxy.address,
        port: proxy.http_proxy_port,
        routes: HTTP_PROXY_ROUTE.to_owned(),
        credential: proxy.proxy_credential.clone(),
        grpc_web: false,
        tunnels: true,
        otherwise: None,
        capabilities: proxy.capabilities,
        mesh: context.mesh.clone(),
    }
}

fn gateway_listeners(caches: &mut Caches, context: &PushContext, proxy: &Proxy) -> Vec<Translated> {
    gateway_routes::listeners(context, proxy)
        .into_iter()
        .filter_map(|key| {
            caches.gateway_listeners.resource(key, |key| {
                let listener = gateway::listener(key);
                Some((listener.name.as_str().into(), listener))
            })
        })
        .collect()
}
