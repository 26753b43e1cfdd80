//! EDS: where the instances of a view's clusters are.

use std::sync::Arc;

use xds::ResourceType;

use super::origin::Translated;
use super::view::ViewKey;
use super::{Caches, Generator, nothing_of_proxy, nothing_of_view};
use crate::model::authentication::MtlsMode;
use crate::model::instance::Instance;
use crate::model::registry::Row;
use crate::model::service::{Host, Resolution};
use crate::model::{Aspect, PushContext};
use crate::networking::endpoints::{EndpointsKey, load_assignment};
use crate::networking::locality::preference;
use crate::networking::traffic_policy;

pub(super) const GENERATOR: Generator = Generator {
    kind: ResourceType::Endpoints,
    aspects: Aspect::SERVICE.with(Aspect::INSTANCES).with(Aspect::POLICY),
    of_host,
    follows: &[],
    of_view: nothing_of_view,
    of_proxy: nothing_of_proxy,
};

/// The places of a service's instances whose own policies switch mesh TLS off at a port. What their namespace says is in
/// the cluster.
fn plaintext(context: &PushContext, row: &Row, port_name: &str) -> Vec<usize> {
    let namespace = &row.service.namespace;
    if !context.authentication.has_workloads(namespace) {
        return Vec::new();
    }
    let switches_off = |instance: &Instance| {
        let port = instance.ports.get(port_name).copied().unwrap_or_default();
        let mode = context.authentication.of_port(namespace, &instance.labels, port);
        instance.mesh_tls && mode == MtlsMode::Disable
    };
    let all = row.instances.iter().enumerate();
    all.filter(|(_, instance)| switches_off(instance)).map(|(place, _)| place).collect()
}

fn of_host(
    caches: &mut Caches,
    context: &PushContext,
    view: &ViewKey,
    host: &Host,
) -> Vec<Translated> {
    let Some(row) =
        context.service(host).filter(|row| row.service.resolution == Resolution::Endpoints)
    else {
        return Vec::new();
    };
    let clusters = super::cluster::keys(context, view, row);
    clusters
        .into_iter()
        .filter_map(|cluster| {
            let subset = cluster.subset.as_deref();
            let rules = cluster.rules.as_deref();
            let labels =
                subset.and_then(|name| rules?.subset(name)).map(|subset| subset.labels.clone());
            let settings = traffic_policy::effective(rules, subset, cluster.port);
            let port_name = row.service.port(cluster.port)?.name.clone();
            let key = EndpointsKey {
                cluster: cluster.name().into(),
                plaintext: plaintext(context, row, &port_name),
                port_name,
                labels: labels.unwrap_or_default(),
                instances: row.instances.clone(),
                preference: preference(&settings, &context.mesh.locality_lb, &view.near),
            };
            caches
                .endpoints
                .resource(key, |key| Some((Arc::clone(&key.cluster), load_assignment(key))))
        })
        .collect()
}
