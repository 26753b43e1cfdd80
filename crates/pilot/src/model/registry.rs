//! The registry: services, and the instances behind them, out of Kubernetes' objects and WorkloadEntries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use resources::kinds::Parsed;
use resources::kinds::core::pod::{Pod, PodPhase};
use resources::kinds::core::service::Service as KubernetesService;
use resources::kinds::discovery::endpoint_slice::{Endpoint, EndpointPort, EndpointSlice};
use resources::kinds::networking::workload_entry::WorkloadEntry;

use super::export::ExportTo;
use super::hostname;
use super::instance::{
    Health, Identities, Instance, Instances, Locality, TLS_MODE_LABEL, Workload,
};
use super::interned::Interned;
use super::mesh::MeshConfig;
use super::objects::{Name, Objects};
use super::service::{Host, Resolution, Service, ServicePort, TargetPort};

/// Says which service an EndpointSlice is of.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Who sees a service.
const EXPORT_ANNOTATION: &str = "networking.istio.io/exportTo";
/// The cluster that workloads are in; there is one.
const CLUSTER: &str = "Kubernetes";

/// One service with all that is known of it.
#[derive(Clone, Debug)]
pub struct Row {
    /// The service.
    pub service: Interned<Service>,
    /// Its instances.
    pub instances: Interned<Instances>,
    /// Who its instances are.
    pub identities: Interned<Identities>,
}

/// What changed in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowChange {
    /// The service, or that there is one.
    pub service: bool,
    /// Its instances.
    pub instances: bool,
    /// Who its instances are.
    pub identities: bool,
}

impl RowChange {
    /// What changed from one row to the next.
    pub fn between(before: Option<&Row>, after: Option<&Row>) -> RowChange {
        match (before, after) {
            (None, None) => RowChange::default(),
            (Some(before), Some(after)) => RowChange {
                service: before.service != after.service,
                instances: before.instances != after.instances,
                identities: before.identities != after.identities,
            },
            _ => RowChange { service: true, instances: true, identities: true },
        }
    }
}

/// The row of a Kubernetes Service; what is as before keeps its identity.
pub fn row(
    parsed: &Parsed<KubernetesService>,
    objects: &Objects,
    mesh: &MeshConfig,
    before: Option<&Row>,
) -> Row {
    let service = Interned::renew(before.map(|row| &row.service), service(parsed, mesh));
    let instances = Interned::renew(before.map(|row| &row.instances), instances(&service, objects));
    let identities = Interned::renew(before.map(|row| &row.identities), Identities::of(&instances));
    Row { service, instances, identities }
}

/// The host of the Service of this name.
pub fn host_of(name: &Name, mesh: &MeshConfig) -> Host {
    hostname::of_service(&name.name, &name.namespace, &mesh.domain_suffix).into()
}

/// The Service that an EndpointSlice is of.
pub fn service_of_slice(slice: &Parsed<EndpointSlice>) -> Option<Name> {
    slice
        .meta
        .labels
        .get(SERVICE_NAME_LABEL)
        .map(|service| Name::new(&slice.meta.namespace, service))
}

fn service(parsed: &Parsed<KubernetesService>, mesh: &MeshConfig) -> Service {
    let (meta, view) = (&parsed.meta, &parsed.view);
    let export_to = match meta.annotations.get(EXPORT_ANNOTATION) {
        Some(list) => export_annotation(list, &meta.namespace),
        None => ExportTo::of(
            &resources::terms::export::ExportTo::Default,
            &meta.namespace,
            &mesh.service_export,
        ),
    };
    Service {
        host: hostname::of_service(&meta.name, &meta.namespace, &mesh.domain_suffix).into(),
        name: meta.name.clone(),
        namespace: meta.namespace.as_str().into(),
        ports: view
            .ports
            .iter()
            .map(|port| ServicePort {
                name: port.name.clone(),
                number: port.port,
                target: port.target_port.clone(),
                protocol: port.protocol,
            })
            .collect(),
        resolution: match &view.external_name {
            Some(name) => Resolution::Dns(name.clone()),
            None => Resolution::Endpoints,
        },
        selector: view.selector.clone(),
        addresses: view.cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        export_to,
        publish_not_ready: view.publish_not_ready_addresses,
    }
}

fn export_annotation(list: &str, namespace: &str) -> ExportTo {
    let entries: BTreeSet<String> = list
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty() && *entry != "~")
        .map(|entry| if entry == "." { namespace.to_owned() } else { entry.to_owned() })
        .collect();
    if entries.contains("*") { ExportTo::All } else { ExportTo::Namespaces(entries) }
}

/// Instances come from EndpointSlices where somebody keeps them, else from the pods that the Service selects; and from
/// the WorkloadEntries that it selects.
fn instances(service: &Service, objects: &Objects) -> Instances {
    let mut all = Vec::new();
    let slices = slices_of(service, objects);
    if slices.is_empty() {
        all.extend(pods_of(service, objects).filter_map(|pod| instance_of_pod(service, pod)));
    }
    for slice in slices {
        all.extend(
            slice
                .view
                .endpoints
                .iter()
                .filter_map(|endpoint| instance_of_endpoint(service, slice, endpoint, objects)),
        );
    }
    all.extend(entries_of(service, objects).map(|entry| instance_of_entry(service, entry)));
    all.sort_by(|a: &Instance, b| (&a.address, &a.ports).cmp(&(&b.address, &b.ports)));
    // An instance that is in two slices (a slice is being split) counts once.
    all.dedup_by(|a, b| a.address == b.address && a.ports == b.ports);
    all
}

fn in_namespace<'a, T>(
    table: &'a super::objects::Table<T>,
    namespace: &'a str,
) -> impl Iterator<Item = &'a Arc<Parsed<T>>> {
    table
        .range(Name::new(namespace, "")..)
        .take_while(move |(name, _)| &*name.namespace == namespace)
        .map(|(_, object)| object)
}

fn slices_of<'a>(service: &Service, objects: &'a Objects) -> Vec<&'a Parsed<EndpointSlice>> {
    let of_service = |slice: &&Arc<Parsed<EndpointSlice>>| {
        slice.meta.labels.get(SERVICE_NAME_LABEL).is_some_and(|name| *name == service.name)
    };
    let namespace = service.namespace.to_string();
    objects
        .endpoint_slices
        .range(Name::new(&namespace, "")..)
        .take_while(|(name, _)| *name.namespace == *namespace)
        .map(|(_, slice)| slice)
        .filter(of_service)
        .map(AsRef::as_ref)
        .collect()
}

fn pods_of<'a>(
    service: &'a Service,
    objects: &'a Objects,
) -> impl Iterator<Item = &'a Arc<Parsed<Pod>>> {
    in_namespace(&objects.pods, &service.namespace).filter(|pod| service.selects(&pod.meta.labels))
}

fn entries_of<'a>(
    service: &'a Service,
    objects: &'a Objects,
) -> impl Iterator<Item = &'a Arc<Parsed<WorkloadEntry>>> {
    in_namespace(&objects.workload_entries, &service.namespace)
        .filter(|entry| is_selected(service, entry))
}

/// Whether a service selects an entry.
pub fn is_selected(service: &Service, entry: &Parsed<WorkloadEntry>) -> bool {
    let label = |key: &String| entry.view.labels.get(key).or_else(|| entry.meta.labels.get(key));
    !service.selector.is_empty()
        && service.selector.iter().all(|(key, value)| label(key) == Some(value))
}

/// An entry's labels are those of its spec, and those of the object where the spec says nothing.
pub fn entry_labels(entry: &Parsed<WorkloadEntry>) -> BTreeMap<String, String> {
    let mut labels = entry.meta.labels.clone();
    labels.extend(entry.view.labels.clone());
    labels
}

fn instance_of_pod(service: &Service, pod: &Parsed<Pod>) -> Option<Instance> {
    if matches!(pod.view.phase, PodPhase::Succeeded | PodPhase::Failed) {
        return None;
    }
    let ports = service.ports.iter().filter_map(|port| {
        let number = match &port.target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => pod.view.spec.port_named(name),
        };
        Some((port.name.clone(), number?))
    });
    Some(Instance {
        address: pod.view.ips.first()?.clone(),
        ports: ports.collect(),
        labels: Arc::new(pod.meta.labels.clone()),
        locality: pod_locality(pod, None),
        weight: 0,
        health: if pod.view.ready || service.publish_not_ready {
            Health::Healthy
        } else {
            Health::Unhealthy
        },
        workload: pod_workload(pod),
        mesh_tls: has_mesh_tls(&pod.meta.labels),
    })
}

fn instance_of_endpoint(
    service: &Service,
    slice: &Parsed<EndpointSlice>,
    endpoint: &Endpoint,
    objects: &Objects,
) -> Option<Instance> {
    let pod = endpoint
        .target_pod
        .as_ref()
        .and_then(|(namespace, name)| objects.pods.get(&Name::new(namespace, name)));
    let health = match (
        endpoint.ready || service.publish_not_ready,
        endpoint.terminating && endpoint.serving,
    ) {
        (true, _) => Health::Healthy,
        (false, true) => Health::Draining,
        (false, false) => Health::Unhealthy,
    };
    let ports = slice
        .view
        .ports
        .iter()
        .filter_map(|EndpointPort { name, port, .. }| Some((name.clone(), (*port)?)));
    let empty = BTreeMap::new();
    let labels = pod.map_or(&empty, |pod| &pod.meta.labels);
    Some(Instance {
        address: endpoint.addresses.first()?.clone(),
        ports: ports.collect(),
        labels: Arc::new(labels.clone()),
        locality: match pod {
            Some(pod) => pod_locality(pod, endpoint.zone.as_deref()),
            None => {
                Locality { zone: endpoint.zone.clone().unwrap_or_default(), ..Default::default() }
            }
        },
        weight: 0,
        health,
        workload: match pod {
            Some(pod) => pod_workload(pod),
            None => {
                Workload::from_labels(&service.name, &slice.meta.namespace, "", CLUSTER, labels)
            }
        },
        mesh_tls: has_mesh_tls(labels),
    })
}

fn instance_of_entry(service: &Service, entry: &Parsed<WorkloadEntry>) -> Instance {
    let view = &entry.view;
    let labels = entry_labels(entry);
    let ports = service.ports.iter().map(|port| {
        let number = view.ports.get(&port.name).copied().unwrap_or(match &port.target {
            TargetPort::Number(number) => *number,
            TargetPort::Name(name) => view.ports.get(name).copied().unwrap_or(port.number),
        });
        (port.name.clone(), number)
    });
    let unhealthy = super::registration::is_unhealthy(entry);
    Instance {
        address: view.address.clone(),
        ports: ports.collect(),
        locality: Locality::parse(&view.locality),
        weight: view.weight.unwrap_or_default(),
        health: if unhealthy { Health::Unhealthy } else { Health::Healthy },
        workload: Workload::from_labels(
            super::registration::workload_name(entry),
            &entry.meta.namespace,
            &view.service_account,
            CLUSTER,
            &labels,
        ),
        // Istio: an entry with a service account has a proxy unless its label says otherwise.
        mesh_tls: match labels.get(TLS_MODE_LABEL) {
            Some(mode) => mode == "istio",
            None => !view.service_account.is_empty(),
        },
        labels: Arc::new(labels),
    }
}

fn has_mesh_tls(labels: &BTreeMap<String, String>) -> bool {
    labels.get(TLS_MODE_LABEL).is_some_and(|mode| mode == "istio")
}

fn pod_locality(pod: &Parsed<Pod>, zone: Option<&str>) -> Locality {
    let label = |key: &str| pod.meta.labels.get(key).cloned();
    match label("istio-locality") {
        Some(own) => Locality::parse(&own),
        None => Locality {
            region: label("topology.kubernetes.io/region").unwrap_or_default(),
            zone: label("topology.kubernetes.io/zone")
                .or(zone.map(str::to_owned))
                .unwrap_or_default(),
            subzone: label("topology.istio.io/subzone").unwrap_or_default(),
        },
    }
}

/// A pod of a Deployment is named `<deployment>-<template hash>-<random>`.
fn pod_workload(pod: &Parsed<Pod>) -> Workload {
    let mut name = pod.meta.name.as_str();
    if let Some(hash) = pod.meta.labels.get("pod-template-hash")
        && let Some((deployment, _)) = name.rsplit_once(&format!("-{hash}-"))
    {
        name = deployment;
    }
    Workload::from_labels(
        name,
        &pod.meta.namespace,
        &pod.view.spec.service_account,
        CLUSTER,
        &pod.meta.labels,
    )
}
