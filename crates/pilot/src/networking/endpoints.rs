//! Endpoints: where the instances of a cluster are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::envoy::config::core::v3::{Address, Locality as EnvoyLocality, Metadata};
use api::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};

use super::locality::Preference;
use super::values::{number, pipe_address, socket_address, text_struct};
use crate::model::instance::{Health, Instance, Instances, Locality};
use crate::model::interned::Interned;

/// What a load assignment depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointsKey {
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// The name of the service's port.
    pub port_name: String,
    /// Labels of a subset's instances; empty for all.
    pub labels: BTreeMap<String, String>,
    /// The service's instances.
    pub instances: Interned<Instances>,
    /// Places of instances that take plaintext only, though their proxies could speak mesh TLS.
    pub plaintext: Vec<usize>,
    /// Which instances the client prefers, if it does.
    pub preference: Option<Preference>,
}

/// The load assignment: instances that should get requests, by locality.
pub fn load_assignment(key: &EndpointsKey) -> ClusterLoadAssignment {
    let mut by_locality: BTreeMap<&Locality, Vec<(&Instance, bool)>> = BTreeMap::new();
    for (place, instance) in key.instances.iter().enumerate() {
        if is_chosen(key, instance) {
            let mesh_tls = instance.mesh_tls && !key.plaintext.contains(&place);
            by_locality.entry(&instance.locality).or_default().push((instance, mesh_tls));
        }
    }
    let weights: Vec<(&Locality, u32)> = by_locality
        .iter()
        .map(|(at, instances)| (*at, instances.iter().map(|(one, _)| one.weight.max(1)).sum()))
        .collect();
    let priorities = priorities(key.preference.as_ref(), by_locality.keys().copied());
    let weight = |locality: &Locality| {
        let own = weights.iter().find(|(at, _)| *at == locality).map_or(1, |(_, own)| *own);
        key.preference.as_ref().map_or(own, |wanted| wanted.weight(locality, own, &weights))
    };
    let endpoints = by_locality
        .into_iter()
        .filter_map(|(locality, instances)| {
            Some(LocalityLbEndpoints {
                // gRPC refuses endpoints without one; an empty one means the same as none to Envoy.
                locality: Some(envoy_locality(locality)),
                load_balancing_weight: number(weight(locality)),
                priority: *priorities.get(locality)?,
                lb_endpoints: instances
                    .into_iter()
                    .map(|(one, mesh_tls)| endpoint(key, one, mesh_tls))
                    .collect(),
                ..Default::default()
            })
        })
        .collect();
    ClusterLoadAssignment { cluster_name: key.cluster.to_string(), endpoints, ..Default::default() }
}

fn is_chosen(key: &EndpointsKey, instance: &Instance) -> bool {
    instance.health == Health::Healthy
        && instance.ports.contains_key(&key.port_name)
        && key.labels.iter().all(|(label, value)| instance.labels.get(label) == Some(value))
}

/// By distance, without gaps, as Envoy wants them. Localities that get nothing have none.
fn priorities<'a>(
    preference: Option<&Preference>,
    localities: impl Iterator<Item = &'a Locality>,
) -> BTreeMap<&'a Locality, u32> {
    let Some(wanted) = preference else {
        return localities.map(|locality| (locality, 0)).collect();
    };
    let distances: BTreeMap<&Locality, u32> =
        localities.filter_map(|locality| Some((locality, wanted.distance(locality)?))).collect();
    let mut used: Vec<u32> = distances.values().copied().collect();
    used.sort_unstable();
    used.dedup();
    let rank =
        |distance: u32| used.iter().position(|known| *known == distance).unwrap_or_default() as u32;
    distances.into_iter().map(|(locality, distance)| (locality, rank(distance))).collect()
}

fn envoy_locality(locality: &Locality) -> EnvoyLocality {
    EnvoyLocality {
        region: locality.region.clone(),
        zone: locality.zone.clone(),
        sub_zone: locality.subzone.clone(),
    }
}

fn endpoint(key: &EndpointsKey, instance: &Instance, mesh_tls: bool) -> LbEndpoint {
    let mut metadata = HashMap::from([(
        "istio".to_owned(),
        text_struct([("workload", instance.workload.metadata().as_str())]),
    )]);
    if mesh_tls {
        metadata
            .insert("envoy.transport_socket_match".to_owned(), text_struct([("tlsMode", "istio")]));
    }
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address(instance, key.instances_port(instance))),
            ..Default::default()
        })),
        metadata: Some(Metadata { filter_metadata: metadata, ..Default::default() }),
        load_balancing_weight: number(instance.weight.max(1)),
        ..Default::default()
    }
}

fn address(instance: &Instance, port: u16) -> Address {
    match instance.address.strip_prefix("unix://") {
        Some(path) => pipe_address(path),
        None => socket_address(&instance.address, port),
    }
}

impl EndpointsKey {
    fn instances_port(&self, instance: &Instance) -> u16 {
        instance.ports.get(&self.port_name).copied().unwrap_or_default()
    }
}
