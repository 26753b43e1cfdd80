//! What is configured, as `/config_dump`, `/clusters`, `/listeners` and `/certs` ask for it.

use std::sync::Arc;

use bytes::Bytes;

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

    /// Does every cluster serve?
    pub fn clusters_are_warm(&self) -> bool {
        self.clusters.are_warm()
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
