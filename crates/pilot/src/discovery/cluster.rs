//! CDS: the ports and subsets of the services that a view knows, and the application's own ports.

use std::sync::Arc;

use xds::ResourceType;

use super::listener::inbound_ports;
use super::origin::Translated;
use super::view::{View, ViewKey};
use super::{Caches, Generator, proxyless};
use crate::model::registry::Row;
use crate::model::service::{Host, Protocol};
use crate::model::{Aspect, PushContext};
use crate::networking::cluster::{self, ClusterKey, InboundClusterKey};
use crate::proxy::{Capabilities, Proxy, ProxyKind};

pub(super) const GENERATOR: Generator = Generator {
    kind: ResourceType::Cluster,
    aspects: Aspect::SERVICE.with(Aspect::IDENTITIES).with(Aspect::POLICY),
    of_host,
    follows: &[],
    of_view,
    of_proxy,
};

/// The keys of a service's clusters: for each port, the whole service and each subset.
pub fn keys(context: &PushContext, view: &ViewKey, row: &Row) -> Vec<ClusterKey> {
    let service = &row.service;
    if !view.knows(service) {
        return Vec::new();
    }
    let root = &context.mesh.root_namespace;
    let rules =
        context.destination_rules.find(&view.namespace, &service.host, &service.namespace, root);
    let subsets = rules
        .iter()
        .flat_map(|rules| &rules.subsets)
        .map(|subset| Some(Arc::from(subset.name.as_str())));
    let all: Vec<Option<Arc<str>>> = std::iter::once(None).chain(subsets).collect();
    let ports = service.ports.iter().filter(|port| port.protocol != Protocol::Udp);
    ports
        .flat_map(|port| all.iter().map(move |subset| (port.number, subset.clone())))
        .map(|(port, subset)| ClusterKey {
            service: service.clone(),
            port,
            subset,
            rules: rules.cloned(),
            identities: row.identities.clone(),
            server_mode: context.authentication.of_namespace(&service.namespace),
            alpn_by_request: view.capabilities.contains(Capabilities::ALPN),
            detects: view.kind == ProxyKind::Sidecar,
            is_gateway: view.kind == ProxyKind::Router,
            agrees: view.capabilities.contains(Capabilities::HTTP2_BY_AGREEMENT),
            mesh: context.mesh.clone(),
        })
        .collect()
}

fn of_host(
    caches: &mut Caches,
    context: &PushContext,
    view: &ViewKey,
    host: &Host,
) -> Vec<Translated> {
    let Some(row) = context.service(host) else { return Vec::new() };
    if view.kind == ProxyKind::Proxyless {
        return proxyless::clusters(caches, context, view, row);
    }
    let keys = keys(context, view, row);
    keys.into_iter()
        .filter_map(|key| {
            caches.clusters.resource(key, |key| Some((key.name().into(), cluster::outbound(key)?)))
        })
        .collect()
}

fn of_view(caches: &mut Caches, _: &PushContext, view: &View) -> Vec<Translated> {
    if view.key.kind == ProxyKind::Proxyless {
        return Vec::new();
    }
    let black_hole = caches.black_hole.resource((), |()| {
        let cluster = cluster::black_hole();
        Some((cluster.name.as_str().into(), cluster))
    });
    black_hole.into_iter().collect()
}

fn of_proxy(
    caches: &mut Caches,
    context: &PushContext,
    proxy: &Proxy,
    view: &ViewKey,
) -> Vec<Translated> {
    if proxy.kind != ProxyKind::Sidecar {
        return Vec::new();
    }
    let ports = inbound_ports(context, proxy, view);
    ports
        .into_iter()
        .filter_map(|inbound| {
            let key = InboundClusterKey {
                port: inbound.port,
                protocol: inbound.protocol,
                application: inbound.application,
                service: inbound.service,
                connect_timeout: context.mesh.connect_timeout,
            };
            caches.inbound_clusters.resource(key, |key| {
                let cluster = cluster::inbound(key);
                Some((cluster.name.as_str().into(), cluster))
            })
        })
        .collect()
}
