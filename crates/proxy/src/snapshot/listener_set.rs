//! Every listener there is: warm ones serve, warming ones wait for routes, secrets and, at first, clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use api::text::Problem;

use super::cluster_set::deadline;
use super::compile::Needs;
use super::listeners::{CompiledListener, SocketOptions};
use super::{Binder, Effects, ListenerEffect, Version};
use crate::config_sync::sink::ResourceKind;
use crate::listener::config::{ListenAddress, ListenerConfig};
use crate::worker::ListenerId;

/// Every listener.
#[derive(Debug, Default)]
pub struct ListenerSet {
    entries: BTreeMap<Arc<str>, Entry>,
    removed: Vec<ListenerId>,
    next_id: u64,
}

/// One name's listener.
#[derive(Debug, Default)]
struct Entry {
    active: Option<Listener>,
    warming: Option<Listener>,
}

/// One version of a listener.
#[derive(Debug)]
pub struct Listener {
    /// The life of its sockets.
    pub id: ListenerId,
    /// Its configuration as it came.
    pub version: Version,
    /// What workers read.
    pub config: Arc<ListenerConfig>,
    socket: SocketOptions,
    needs: Needs,
    deadline: Option<Instant>,
}

impl ListenerSet {
    /// Is this what there is already? An error when the name belongs to the bootstrap.
    pub fn is_current(&self, name: &str, version: &Version) -> Result<bool, Vec<Problem>> {
        let Some(entry) = self.entries.get(name) else { return Ok(false) };
        let Some(newest) = entry.warming.as_ref().or(entry.active.as_ref()) else {
            return Ok(false);
        };
        let newest = &newest.version;
        if newest.is_static && version.is_static {
            return Err(vec![Problem::new("name", format!("there are two listeners `{name}`"))]);
        }
        if newest.is_static {
            return Err(vec![Problem::new(
                "name",
                format!("`{name}` is a listener of the bootstrap"),
            )]);
        }
        Ok(newest.fingerprint == version.fingerprint)
    }

    /// Takes a compiled listener: its sockets are bound, unless those of the version before will do.
    pub fn insert(
        &mut self,
        version: Version,
        compiled: CompiledListener,
        needs: Needs,
        binder: &mut dyn Binder,
        now: Instant,
    ) -> Result<(), Vec<Problem>> {
        let CompiledListener { config, socket } = compiled;
        let name = Arc::clone(&config.name);
        self.unique_address(&name, &config.address)?;
        let entry = self.entries.entry(Arc::clone(&name)).or_default();
        let kept = entry
            .active
            .iter()
            .chain(&entry.warming)
            .find(|known| known.config.address == config.address && known.socket == socket)
            .map(|known| known.id);
        let id = match kept {
            Some(id) => id,
            None => {
                self.next_id += 1;
                let id = ListenerId(self.next_id);
                if let Err(reason) = binder.bind(id, &name, &config.address, &socket) {
                    if entry.active.is_none() && entry.warming.is_none() {
                        self.entries.remove(&name);
                    }
                    return Err(vec![Problem::new("address", reason)]);
                }
                id
            }
        };
        let deadline = deadline(needs.routes.values().chain(needs.secrets.values()), now);
        let listener = Listener { id, version, config: Arc::new(config), socket, needs, deadline };
        if let Some(replaced) = entry.warming.replace(listener) {
            let in_use = entry.active.as_ref().is_some_and(|active| active.id == replaced.id);
            if replaced.id != id && !in_use {
                binder.release(replaced.id);
            }
        }
        Ok(())
    }

    /// Two listeners cannot have one address (unless the kernel chooses the port).
    fn unique_address(&self, name: &str, address: &ListenAddress) -> Result<(), Vec<Problem>> {
        if matches!(address, ListenAddress::Tcp(address) if address.port() == 0) {
            return Ok(());
        }
        let other = self.entries.iter().find(|(other, entry)| {
            let newest = entry.warming.as_ref().or(entry.active.as_ref());
            ***other != *name && newest.is_some_and(|newest| newest.config.address == *address)
        });
        match other {
            Some((other, _)) => Err(vec![Problem::new(
                "address",
                format!("{address} is the address of listener `{other}`"),
            )]),
            None => Ok(()),
        }
    }

    /// The listener is gone.
    pub fn remove(&mut self, name: &str, binder: &mut dyn Binder) {
        let Some(entry) = self.entries.get(name) else { return };
        let newest = entry.warming.as_ref().or(entry.active.as_ref());
        if newest.is_some_and(|newest| newest.version.is_static) {
            return;
        }
        let Some(entry) = self.entries.remove(name) else { return };
        let active = entry.active.map(|active| active.id);
        if let Some(warming) = entry.warming.filter(|warming| Some(warming.id) != active) {
            binder.release(warming.id);
        }
        self.removed.extend(active);
    }

    /// Puts what is ready into use.
    pub fn settle(
        &mut self,
        clusters_are_warm: bool,
        has_routes: impl Fn(&str) -> bool,
        has_secret: impl Fn(&str) -> bool,
        now: Instant,
        effects: &mut Effects,
    ) {
        effects.listeners.extend(self.removed.drain(..).map(ListenerEffect::Remove));
        for entry in self.entries.values_mut() {
            let first = entry.active.is_none();
            let ready = |listener: &mut Listener| {
                let routes = listener.needs.routes.keys().all(|name| has_routes(name));
                let secrets = listener.needs.secrets.keys().all(|name| has_secret(name));
                let due = listener.deadline.is_some_and(|deadline| deadline <= now);
                (clusters_are_warm || !first) && (routes && secrets || due)
            };
            let Some(listener) = entry.warming.take_if(ready) else { continue };
            let routes = listener.needs.routes.keys().filter(|name| !has_routes(name));
            let secrets = listener.needs.secrets.keys().filter(|name| !has_secret(name));
            effects.unanswered.extend(
                (routes.map(|name| (ResourceKind::Routes, Arc::clone(name))))
                    .chain(secrets.map(|name| (ResourceKind::Secret, Arc::clone(name)))),
            );
            let config = Arc::clone(&listener.config);
            match entry.active.replace(listener) {
                None => effects.listeners.extend(
                    entry.active.iter().map(|new| ListenerEffect::Add(new.id, Arc::clone(&config))),
                ),
                Some(old) => {
                    let id = entry.active.as_ref().map_or(old.id, |new| new.id);
                    if id == old.id {
                        effects.listeners.push(ListenerEffect::Update(id, config));
                    } else {
                        effects.listeners.push(ListenerEffect::Add(id, config));
                        effects.listeners.push(ListenerEffect::Remove(old.id));
                    }
                }
            }
        }
    }

    /// Does every listener serve that ever was configured?
    pub fn are_warm(&self) -> bool {
        self.entries.values().all(|entry| entry.active.is_some())
    }

    /// When something that waits goes on without. A first version goes on only once all clusters are warm.
    pub fn next_deadline(&self, clusters_are_warm: bool) -> Option<Instant> {
        let may_go_on = |entry: &&Entry| clusters_are_warm || entry.active.is_some();
        let entries = self.entries.values().filter(may_go_on);
        entries.filter_map(|entry| entry.warming.as_ref()?.deadline).min()
    }

    /// Calls `each` with what every listener needs.
    pub fn each_need(&self, mut each: impl FnMut(&Needs)) {
        for listener in
            self.entries.values().flat_map(|entry| entry.active.iter().chain(&entry.warming))
        {
            each(&listener.needs);
        }
    }

    /// The route configurations that any listener refers to.
    pub fn routes_needed(&self) -> BTreeSet<Arc<str>> {
        let mut names = BTreeSet::new();
        self.each_need(|needs| names.extend(needs.routes.keys().cloned()));
        names
    }

    /// Every listener that serves.
    pub fn active(&self) -> impl Iterator<Item = (&Arc<str>, &Listener)> {
        self.entries.iter().filter_map(|(name, entry)| Some((name, entry.active.as_ref()?)))
    }

    /// Every listener that waits.
    pub fn warming(&self) -> impl Iterator<Item = (&Arc<str>, &Listener)> {
        self.entries.iter().filter_map(|(name, entry)| Some((name, entry.warming.as_ref()?)))
    }
}
