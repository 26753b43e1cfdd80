//! LDS, RDS and CDS for gRPC clients without a proxy; their endpoints are everybody's.

use std::sync::Arc;

use super::Caches;
use super::origin::Translated;
use super::view::ViewKey;
use super::virtual_host::mesh_routes;
use crate::model::PushContext;
use crate::model::registry::Row;
use crate::model::service::{Host, ServicePort};
use crate::naming;
use crate::networking::proxyless::{self, ListenerKey, ProxylessClusterKey, RoutesKey};
use crate::networking::virtual_host::VirtualHostKey;

/// The listeners of a host: one for each name of each of its ports.
pub fn listeners(
    caches: &mut Caches,
    context: &PushContext,
    view: &ViewKey,
    host: &Host,
) -> Vec<Translated> {
    let mut all = Vec::new();
    for (row, port) in ports(context, view, host) {
        for alias in aliases(context, view, row) {
            let key = ListenerKey {
                name: naming::virtual_host(&alias, port.number),
                routes: naming::outbound_cluster(port.number, "", host),
            };
            all.extend(
                caches.proxyless_listeners.resource(key, |key| {
                    Some((key.name.as_str().into(), proxyless::listener(key)))
                }),
            );
        }
    }
    all
}

/// The route configurations of a host: one for each of its ports.
pub fn routes(
    caches: &mut Caches,
    context: &PushContext,
    view: &ViewKey,
    host: &Host,
) -> Vec<Translated> {
    let rule = context.virtual_services.for_mesh_host(host, &view.namespace);
    let rule = rule.filter(|rule| !rule.view.http.is_empty());
    let mut all = Vec::new();
    for (row, port) in ports(context, view, host) {
        let cluster = naming::outbound_cluster(port.number, "", host);
        let names = aliases(context, view, row);
        let with_port = names.iter().map(|name| naming::virtual_host(name, port.number));
        let virtual_host = VirtualHostKey {
            name: naming::virtual_host(host, port.number).into(),
            domains: with_port.chain(names.iter().cloned()).collect(),
            virtual_services: rule
                .map(|rule| mesh_routes(context, view, rule, port.number))
                .into_iter()
                .collect(),
            default_cluster: Some(cluster.clone()),
            redirect_to_https: false,
            default_retries: context.mesh.default_retries.clone(),
            tunnel_cluster: None,
        };
        let key = RoutesKey { name: cluster, virtual_host };
        all.extend(
            caches
                .proxyless_routes
                .resource(key, |key| Some((key.name.as_str().into(), proxyless::routes(key)))),
        );
    }
    all
}

/// The clusters of a service.
pub fn clusters(
    caches: &mut Caches,
    context: &PushContext,
    view: &ViewKey,
    row: &Row,
) -> Vec<Translated> {
    let keys = super::cluster::keys(context, view, row).into_iter().map(ProxylessClusterKey);
    keys.filter_map(|key| {
        caches
            .proxyless_clusters
            .resource(key, |key| Some((Arc::from(key.0.name()), proxyless::cluster(key)?)))
    })
    .collect()
}

/// The ports that may speak gRPC.
fn ports<'a>(
    context: &'a PushContext,
    view: &'a ViewKey,
    host: &Host,
) -> impl Iterator<Item = (&'a Row, &'a ServicePort)> {
    let row = context.service(host).filter(|row| view.knows(&row.service));
    row.into_iter().flat_map(|row| {
        let ports = row.service.ports.iter().filter(|port| port.may_be_http());
        ports.map(move |port| (row, port))
    })
}

fn aliases(context: &PushContext, view: &ViewKey, row: &Row) -> Vec<String> {
    naming::host_aliases(&row.service.host, &view.namespace, &context.mesh.domain_suffix)
}
