//! What is configured, as `/config_dump`, `/clusters`, `/listeners` and `/certs` ask for it.

use std::sync::Arc;

use api::envoy::config::listener::v3::{self as proto, filter::ConfigType};
use api::envoy::config::route::v3::RouteConfiguration;
use api::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use api::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use bytes::Bytes;
use prost::{Message as _, Name as _};

use super::cluster_set::Active;
use super::listener_set::Listener;
use super::{Snapshot, Version};
use crate::admin::state::Resources;
use crate::admin::{CertificateStatus, ConfigDump, DynamicResource, StaticResource};
use crate::config_sync::sink::ResourceKind;

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
        for (name, version) in self.clusters.assignments() {
            add(&mut dump.endpoints, ResourceKind::Endpoints, name, Some(version), None);
        }
        for (name, version) in &self.secrets {
            add(&mut dump.secrets, ResourceKind::Secret, name, Some(version), None);
        }
        dump
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
