//! What is configured, as `/config_dump`, `/clusters`, `/listeners` and `/certs` ask for it.

use std::sync::Arc;

use api::envoy::config::core::v3::socket_address::PortSpecifier;
use api::envoy::config::core::v3::{Address, HealthStatus, Locality, Pipe, SocketAddress, address};
use api::envoy::config::endpoint::v3::cluster_load_assignment::Policy;
use api::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use api::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
};
use api::envoy::config::listener::v3::{self as proto, filter::ConfigType};
use api::envoy::config::route::v3::RouteConfiguration;
use api::google::protobuf::UInt32Value;
use api::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use api::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use bytes::Bytes;
use prost::{Message as _, Name as _};
use telemetry::stats::Block;
use telemetry::stats::sets::ClusterMembership;

use super::cluster_set::Active;
use super::listener_set::Listener;
use super::{RejectedVersion, Snapshot, Version};
use crate::admin::state::{RejectedResource, Resources};
use crate::admin::{CertificateStatus, ConfigDump, DynamicResource, StaticResource};
use crate::config_sync::sink::ResourceKind;
use crate::upstream::host::{DiscoveredHealth, Host, HostAddress};

impl Snapshot {
    /// Every cluster that serves.
    pub fn clusters(&self) -> impl Iterator<Item = (&Arc<str>, &Active)> {
        self.clusters.active()
    }

    /// Every listener that serves.
    pub fn listeners(&self) -> impl Iterator<Item = (&Arc<str>, &Listener)> {
        self.listeners.active()
    }

    /// How many clusters wait.
    pub fn warming_clusters(&self) -> usize {
        self.clusters.warming().count()
    }

    /// Where the endpoints of clusters that wait are counted.
    pub fn warming_memberships(&self) -> impl Iterator<Item = &Block<ClusterMembership>> {
        self.clusters.warming().filter_map(|(name, _)| self.clusters.membership(name))
    }

    /// What is configured and does not serve yet: kinds, and the names of each.
    pub fn unready(&self) -> Vec<(&'static str, Vec<String>)> {
        let clusters = self.clusters.warming().map(|(name, _)| format!("Cluster {name}"));
        let listeners = self.listeners.warming().map(|(name, _)| format!("Listener {name}"));
        let kinds = [
            ("init manager Clusters", clusters.collect::<Vec<_>>()),
            ("init manager Listeners", listeners.collect()),
        ];
        kinds.into_iter().filter(|(_, names)| !names.is_empty()).collect()
    }

    /// How many listeners wait.
    pub fn warming_listeners(&self) -> usize {
        self.listeners.warming().count()
    }

    /// The certificates of every TLS context.
    pub fn certificates(&self) -> Vec<CertificateStatus> {
        self.tls.certificates()
    }

    /// All configuration in force, but for the bootstrap.
    pub fn dump(&self) -> ConfigDump {
        let mut dump = ConfigDump::default();
        for (name, active) in self.clusters.active() {
            add(&mut dump.clusters, ResourceKind::Cluster, name, Some(&active.version), None);
        }
        for (name, warming) in self.clusters.warming() {
            add(&mut dump.clusters, ResourceKind::Cluster, name, None, Some(&warming.version));
        }
        for (name, listener) in self.listeners.active() {
            add(&mut dump.listeners, ResourceKind::Listener, name, Some(&listener.version), None);
            dump.routes.fixed.extend(inline_routes(&listener.version));
        }
        for (name, listener) in self.listeners.warming() {
            add(&mut dump.listeners, ResourceKind::Listener, name, None, Some(&listener.version));
        }
        for (name, version) in self.routes.versions() {
            add(&mut dump.routes, ResourceKind::Routes, name, Some(version), None);
        }
        for (name, active) in self.clusters.active() {
            add_endpoints(&mut dump.endpoints, name, active);
        }
        for (name, version) in &self.secrets {
            add(&mut dump.secrets, ResourceKind::Secret, name, Some(version), None);
        }
        for ((kind, name), rejected) in &self.rejected {
            let resources = match kind {
                ResourceKind::Cluster => &mut dump.clusters,
                ResourceKind::Listener => &mut dump.listeners,
                ResourceKind::Routes | ResourceKind::VirtualHosts => &mut dump.routes,
                ResourceKind::Endpoints => &mut dump.endpoints,
                ResourceKind::Secret => &mut dump.secrets,
            };
            add_rejected(resources, *kind, name, rejected);
        }
        dump
    }
}

/// A cluster's endpoints as they are now, with what is known of their health, as Envoy shows them: made from what
/// serves, whatever it came from.
fn add_endpoints(resources: &mut Resources, cluster: &str, active: &Active) {
    let name = active.eds_service_name().map_or(cluster, |service| service);
    let mut groups: Vec<(&Host, Vec<LbEndpoint>)> = Vec::new();
    for host in &active.hosts.hosts {
        let same =
            |other: &Host| host.locality == other.locality && host.priority == other.priority;
        match groups.iter_mut().find(|(first, _)| same(first)) {
            Some((_, members)) => members.push(lb_endpoint(host)),
            None => groups.push((host, vec![lb_endpoint(host)])),
        }
    }
    let endpoints = groups.into_iter().map(|(first, lb_endpoints)| LocalityLbEndpoints {
        locality: Some(Locality {
            region: first.locality.region.to_string(),
            zone: first.locality.zone.to_string(),
            sub_zone: first.locality.sub_zone.to_string(),
        }),
        priority: first.priority,
        lb_endpoints,
        ..LocalityLbEndpoints::default()
    });
    let assignment = ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: endpoints.collect(),
        policy: Some(Policy {
            overprovisioning_factor: Some(number(active.hosts.overprovisioning_factor)),
            ..Policy::default()
        }),
        ..ClusterLoadAssignment::default()
    };
    let resource = StaticResource {
        name: name.to_owned(),
        type_url: ResourceKind::Endpoints.type_url(),
        bytes: assignment.encode_to_vec().into(),
        updated: active.version.updated,
    };
    if active.version.is_static {
        resources.fixed.push(resource);
    } else if !resources.dynamic.iter().any(|known| known.name == name) {
        resources.dynamic.push(DynamicResource {
            active: Some((String::new(), resource)),
            warming: None,
            name: name.to_owned(),
            rejected: None,
        });
    }
}

fn lb_endpoint(host: &Arc<Host>) -> LbEndpoint {
    let address = match &host.address {
        HostAddress::Tcp(address) => address::Address::SocketAddress(SocketAddress {
            address: address.ip().to_string(),
            port_specifier: Some(PortSpecifier::PortValue(address.port().into())),
            ..SocketAddress::default()
        }),
        HostAddress::Pipe(path) => {
            address::Address::Pipe(Pipe { path: path.display().to_string(), mode: 0 })
        }
    };
    let health = match host.discovered_health() {
        DiscoveredHealth::Draining => HealthStatus::Draining,
        DiscoveredHealth::Degraded if host.is_healthy() => HealthStatus::Degraded,
        _ if host.is_healthy() => HealthStatus::Healthy,
        _ => HealthStatus::Unhealthy,
    };
    LbEndpoint {
        health_status: health.into(),
        load_balancing_weight: Some(number(host.weight())),
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(Address { address: Some(address) }),
            hostname: host.hostname.to_string(),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    }
}

fn number(value: u32) -> UInt32Value {
    UInt32Value { value }
}

/// Notes why the last version was rejected, beside what is in force, if anything is.
fn add_rejected(
    resources: &mut Resources,
    kind: ResourceKind,
    name: &str,
    rejected: &RejectedVersion,
) {
    let refused = RejectedResource {
        details: rejected.details.clone(),
        version: rejected.resource.version.clone(),
        resource: StaticResource {
            name: name.to_owned(),
            type_url: kind.type_url(),
            bytes: Bytes::copy_from_slice(&rejected.resource.bytes),
            updated: rejected.when,
        },
    };
    match resources.dynamic.iter_mut().find(|known| known.name == name) {
        Some(known) => known.rejected = Some(refused),
        None => resources.dynamic.push(DynamicResource {
            active: None,
            warming: None,
            name: name.to_owned(),
            rejected: Some(refused),
        }),
    }
}

fn add(
    resources: &mut Resources,
    kind: ResourceKind,
    name: &str,
    active: Option<&Version>,
    warming: Option<&Version>,
) {
    let resource = |version: &Version| StaticResource {
        name: name.to_owned(),
        type_url: kind.type_url(),
        bytes: Bytes::copy_from_slice(&version.raw),
        updated: version.updated,
    };
    let versioned = |version: &Version| (version.version.to_string(), resource(version));
    if let Some(version) = active.filter(|version| version.is_static) {
        resources.fixed.push(resource(version));
        return;
    }
    let newest = warming.or(active);
    if let Some(version) = newest.filter(|version| *version.version > *resources.version) {
        resources.version = version.version.to_string();
    }
    if let Some(known) = resources.dynamic.iter_mut().find(|known| known.name == name) {
        known.warming = known.warming.take().or(warming.map(versioned));
        return;
    }
    resources.dynamic.push(DynamicResource {
        active: active.map(versioned),
        warming: warming.map(versioned),
        name: name.to_owned(),
        rejected: None,
    });
}

/// The route configurations that stand in a listener's own connection managers: looked for when somebody asks, so that
/// they are not kept twice.
fn inline_routes(version: &Version) -> Vec<StaticResource> {
    let Ok(listener) = proto::Listener::decode(&*version.raw) else { return Vec::new() };
    let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
    let managers =
        chains.flat_map(|chain| &chain.filters).filter_map(|filter| match &filter.config_type {
            Some(ConfigType::TypedConfig(any))
                if any.type_url == HttpConnectionManager::type_url() =>
            {
                HttpConnectionManager::decode(any.value.as_slice()).ok()
            }
            _ => None,
        });
    let routes = managers.filter_map(|manager| match manager.route_specifier {
        Some(RouteSpecifier::RouteConfig(routes)) => Some(routes),
        _ => None,
    });
    let resource = |routes: RouteConfiguration| StaticResource {
        name: routes.name.clone(),
        type_url: ResourceKind::Routes.type_url(),
        bytes: routes.encode_to_vec().into(),
        updated: version.updated,
    };
    routes.map(resource).collect()
}
