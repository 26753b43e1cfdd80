//! Every route configuration that was discovered, built from virtual hosts that are compiled one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use api::envoy::config::route::v3 as proto;
use api::text::Problem;
use prost::Message;

use super::cluster_set::ClusterSet;
use super::compile::Compile;
use super::fingerprint::{self, Fingerprint};
use super::routes::{self, TableSettings};
use super::slots::Slots;
use super::source::{self, Fetch};
use super::{Effects, Version, route_tables};
use crate::route_table::{RouteTable, VirtualHost};
use crate::worker::Change;

/// Every discovered route configuration.
#[derive(Debug, Default)]
pub struct RouteSet {
    entries: BTreeMap<Arc<str>, Entry>,
    touched: BTreeSet<Arc<str>>,
}

/// One route configuration.
#[derive(Debug)]
struct Entry {
    version: Version,
    settings: TableSettings,
    /// Clusters that it refers to, but for those of its virtual hosts.
    uses: Arc<[Arc<str>]>,
    /// From the configuration itself, in its order.
    own: Vec<Host>,
    /// Where the others come from.
    source: Option<Fetch>,
    /// Those that were discovered, by name; `None` until the first answer.
    discovered: Option<BTreeMap<Arc<str>, (Version, Host)>>,
    table: Arc<RouteTable>,
}

/// One compiled virtual host.
#[derive(Debug, Clone)]
struct Host {
    fingerprint: Fingerprint,
    compiled: Arc<VirtualHost>,
    /// Clusters that it refers to.
    uses: Arc<[Arc<str>]>,
}

impl Entry {
    fn is_ready(&self) -> bool {
        self.source.is_none() || self.discovered.is_some()
    }

    fn hosts(&self) -> Vec<Arc<VirtualHost>> {
        let discovered = self.discovered.iter().flat_map(BTreeMap::values).map(|(_, host)| host);
        self.own.iter().chain(discovered).map(|host| Arc::clone(&host.compiled)).collect()
    }
}

impl RouteSet {
    /// Is this what there is already?
    pub fn is_current(&self, name: &str, version: &Version) -> bool {
        self.entries.get(name).is_some_and(|entry| entry.version.fingerprint == version.fingerprint)
    }

    /// Takes a route configuration. Virtual hosts that did not change are taken over as they are.
    pub fn insert(
        &mut self,
        cx: &mut Compile<'_>,
        message: &proto::RouteConfiguration,
        version: Version,
        clusters: &ClusterSet,
        _now: Instant,
    ) -> Result<(), Vec<Problem>> {
        let (config, settings) = routes::table(cx, message);
        let uses = uses(cx, 0);
        let name = Arc::clone(&config.name);
        let old = self
            .entries
            .get(&name)
            .filter(|entry| entry.settings.fingerprint == settings.fingerprint);
        let own = cx.each("virtual_hosts", &message.virtual_hosts, |cx, host| {
            self::host(cx, host, &settings, |print| {
                old?.own.iter().find(|known| known.fingerprint == print).cloned()
            })
        });
        let source = match message.vhds.as_ref() {
            None => None,
            Some(vhds) => {
                cx.at("vhds.config_source", |cx| source::fetch(cx, vhds.config_source.as_ref()))
            }
        };
        finish(cx, clusters)?;
        let discovered =
            source.as_ref().and(self.entries.get(&name)).and_then(|entry| entry.discovered.clone());
        let table = Arc::default();
        let mut entry = Entry { version, settings, uses, own, source, discovered, table };
        entry.table = RouteTable::new(config, entry.hosts())
            .map(Arc::new)
            .map_err(|error| vec![Problem::new("virtual_hosts", error.to_string())])?;
        self.touched.insert(Arc::clone(&name));
        self.entries.insert(name, entry);
        Ok(())
    }

    /// Takes a discovered virtual host, `<route configuration>/<virtual host>`.
    pub fn insert_virtual_host(
        &mut self,
        cx: &mut Compile<'_>,
        resource: &str,
        message: &proto::VirtualHost,
        version: Version,
        clusters: &ClusterSet,
    ) -> Result<(), Vec<Problem>> {
        let Some((table, entry)) = owner(&mut self.entries, resource) else {
            return Err(vec![Problem::new(
                "",
                format!("no route configuration discovers `{resource}`"),
            )]);
        };
        let name = &resource[table.len() + 1..];
        let known = entry.discovered.as_ref().and_then(|hosts| hosts.get(name));
        if known.is_some_and(|(known, _)| known.fingerprint == version.fingerprint) {
            return Ok(());
        }
        let host = self::host(cx, message, &entry.settings, |_| None);
        finish(cx, clusters)?;
        let Some(host) = host else { return Ok(()) };
        let mut hosts = entry.discovered.clone().unwrap_or_default();
        hosts.insert(name.into(), (version, host));
        let before = entry.discovered.replace(hosts);
        match entry.table.with_virtual_hosts(entry.hosts()) {
            Ok(rebuilt) => {
                entry.table = Arc::new(rebuilt);
                self.touched.insert(table);
                Ok(())
            }
            Err(error) => {
                entry.discovered = before;
                Err(vec![Problem::new("", error.to_string())])
            }
        }
    }

    /// A virtual host is gone; the name of a route configuration alone says that it has none.
    pub fn remove_virtual_host(&mut self, resource: &str) {
        let Some((table, entry)) = owner(&mut self.entries, resource) else { return };
        let hosts = entry.discovered.get_or_insert_default();
        if resource.len() == table.len() {
            hosts.clear();
        } else {
            hosts.remove(&resource[table.len() + 1..]);
        }
        // Fewer hosts cannot clash, so this does not fail.
        if let Ok(rebuilt) = entry.table.with_virtual_hosts(entry.hosts()) {
            entry.table = Arc::new(rebuilt);
        }
        self.touched.insert(table);
    }

    /// Forgets what no listener refers to.
    pub fn keep_only(&mut self, needed: &BTreeSet<Arc<str>>, effects: &mut Effects) {
        let _ = effects;
        let unused: Vec<_> =
            self.entries.keys().filter(|name| !needed.contains(*name)).cloned().collect();
        for name in unused {
            self.entries.remove(&name);
            self.touched.insert(name);
        }
    }

    /// Puts changed tables into use.
    pub fn settle(&mut self, slots: &mut Slots, effects: &mut Effects) {
        for name in std::mem::take(&mut self.touched) {
            let table = self
                .entries
                .get(&name)
                .filter(|entry| entry.is_ready())
                .map(|entry| Arc::clone(&entry.table));
            effects.changes.push(Change::RouteTable(slots.route_table(&name), table));
        }
    }

    /// Can a listener serve with these routes?
    pub fn is_ready(&self, name: &str) -> bool {
        self.entries.get(name).is_some_and(Entry::is_ready)
    }

    /// Is there such a route configuration?
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Calls `each` with every cluster that is referred to.
    pub fn each_cluster_use(&self, mut each: impl FnMut(&Arc<str>)) {
        for entry in self.entries.values() {
            let discovered = entry.discovered.iter().flat_map(BTreeMap::values);
            let hosts = entry.own.iter().chain(discovered.map(|(_, host)| host));
            hosts.flat_map(|host| host.uses.iter()).chain(entry.uses.iter()).for_each(&mut each);
        }
    }

    /// Calls `each` with every route configuration whose virtual hosts are discovered.
    pub fn each_virtual_host_source(&self, mut each: impl FnMut(&Arc<str>, &Fetch)) {
        for (name, entry) in &self.entries {
            entry.source.iter().for_each(|fetch| each(name, fetch));
        }
    }

    /// Every route configuration as it came.
    pub fn versions(&self) -> impl Iterator<Item = (&Arc<str>, &Version)> {
        self.entries.iter().map(|(name, entry)| (name, &entry.version))
    }

    /// Every discovered virtual host as it came, by its route configuration.
    pub fn virtual_hosts(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, &Version)> {
        self.entries.iter().flat_map(|(table, entry)| {
            let hosts = entry.discovered.iter().flatten();
            hosts.map(move |(name, (version, _))| (table, name, version))
        })
    }
}

/// The route configuration that a virtual host's resource belongs to. Names may have slashes themselves, so the longest
/// that fits is taken.
fn owner<'a>(
    entries: &'a mut BTreeMap<Arc<str>, Entry>,
    resource: &str,
) -> Option<(Arc<str>, &'a mut Entry)> {
    let fits = |name: &str| {
        resource.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let name = entries.keys().filter(|name| fits(name)).max_by_key(|name| name.len()).cloned()?;
    let entry = entries.get_mut(&name)?;
    Some((name, entry))
}

/// Compiles a virtual host, unless `known` has it under its fingerprint.
fn host(
    cx: &mut Compile<'_>,
    message: &proto::VirtualHost,
    settings: &TableSettings,
    known: impl FnOnce(Fingerprint) -> Option<Host>,
) -> Option<Host> {
    let fingerprint = fingerprint::of(message.encode_to_vec());
    if let Some(host) = known(fingerprint) {
        return Some(host);
    }
    let before = cx.clusters.len();
    let config = routes::virtual_host(cx, message, settings)?;
    let compiled = route_tables::compile_host(cx, config)?;
    Some(Host { fingerprint, compiled, uses: uses(cx, before) })
}

/// The clusters that were referred to since there were `from`.
fn uses(cx: &Compile<'_>, from: usize) -> Arc<[Arc<str>]> {
    cx.clusters[from..].iter().map(|used| Arc::clone(&used.name)).collect()
}

fn finish(cx: &mut Compile<'_>, clusters: &ClusterSet) -> Result<(), Vec<Problem>> {
    for used in &cx.clusters {
        cx.problems.extend(clusters.misuse(used));
    }
    if cx.problems.is_empty() { Ok(()) } else { Err(std::mem::take(&mut cx.problems)) }
}
