//! What one stream knows of one type: what is wanted, what the client holds, what is on its way.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use ahash::RandomState;

use super::table::{Entry, Map, SharedTables, Table};
use super::{Answered, ResourceSource};
use crate::nack::Rejection;
use crate::resource::{Resource, Version};
use crate::resource_type::{ResourceType, collection_of};
use crate::wire::DeltaResponse;

type Set = HashSet<Arc<str>, RandomState>;

/// One type on one stream.
#[derive(Debug, Default)]
pub(super) struct TypeState {
    introduced: bool,
    wildcard: bool,
    /// Subscribed collections (eager virtual hosts), and whether the client knows that one is empty.
    collections: Map<bool>,
    /// Everything subscribed by name, held, rejected or on its way.
    entries: Table,
    /// Collections, or with `relist` everything, that must be listed before anything is sent.
    relist: bool,
    relist_collections: Set,
    /// Names that may differ from what the client holds.
    dirty: Set,
    /// Resources to send, newest version.
    additions: Map<Resource>,
    /// Names that are gone from the source and still held by the client.
    removals: Set,
    /// Names that were asked for and do not exist; telling so waits for nobody.
    absences: Set,
    /// The first subscription wants an answer even if there is nothing to say.
    owes_answer: bool,
    in_flight: Option<InFlight>,
    /// How many entries stand on a rejected version now.
    rejected: usize,
    /// Every version that the client refused on this stream; never sent again.
    refused: HashSet<(Arc<str>, Version), RandomState>,
}

/// Bytes of resources in one response; a single resource may be more. What is left follows when this much is answered.
/// The transport keeps the room of a stream's biggest message for the stream's life, so this times proxies is memory.
const RESPONSE_BYTES: usize = 128 << 10;

/// How many refused versions a stream remembers before it forgets them all.
const MAX_REFUSED: usize = 4096;

/// A response that awaits its answer.
#[derive(Debug)]
pub(super) struct InFlight {
    nonce: u64,
    sent: Vec<(Arc<str>, Version)>,
    removed: Vec<Arc<str>>,
}

impl InFlight {
    /// The names of the resources in the response.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> + Clone {
        self.sent.iter().map(|(name, _)| name)
    }
}

/// Subscriptions.
impl TypeState {
    pub(super) fn is_introduced(&self) -> bool {
        self.introduced
    }

    pub(super) fn name_count(&self) -> usize {
        self.entries.len() + self.collections.len()
    }

    /// The first request of this type: what the client brings along, and whether it wants everything.
    pub(super) fn introduce(&mut self, initial: &HashMap<String, String>, everything: bool) {
        self.introduced = true;
        self.owes_answer = true;
        for (name, version) in initial {
            let name: Arc<str> = Arc::from(name.as_str());
            // Another server's version compares equal to nothing, but it says that the client holds something.
            let held = Version::parse(version).unwrap_or_else(|| Version::of(version.as_bytes()));
            self.entries.set(name.clone(), Entry { held: Some(held), ..Entry::default() });
            self.dirty.insert(name);
        }
        if everything {
            self.wildcard = true;
            self.relist = true;
        }
    }

    pub(super) fn subscribe(&mut self, kind: ResourceType, name: &str) {
        if name == "*" {
            self.wildcard = true;
            self.relist = true;
            self.owes_answer = true;
            return;
        }
        if kind.has_collections() && collection_of(name).is_none() {
            let name: Arc<str> = Arc::from(name);
            self.relist_collections.insert(name.clone());
            self.collections.insert(name, false);
            return;
        }
        let name = self.entries.name(name).cloned().unwrap_or_else(|| Arc::from(name));
        let on_its_way = self
            .in_flight
            .as_ref()
            .is_some_and(|in_flight| in_flight.names().any(|sent| *sent == name));
        let mut entry = self.entries.get(&name).copied().unwrap_or_default();
        // On the first request a held version speaks for itself; later, asking for what is held means "send it again".
        entry.again =
            on_its_way || entry.named || (entry.held.is_some() && !self.dirty.contains(&name));
        entry.named = true;
        entry.told_absent = false;
        self.entries.set(name.clone(), entry);
        self.dirty.insert(name);
    }

    pub(super) fn unsubscribe(&mut self, kind: ResourceType, name: &str) {
        if name == "*" {
            self.wildcard = false;
            self.relist = false;
        } else if kind.has_collections() && collection_of(name).is_none() {
            self.collections.remove(name);
            self.relist_collections.remove(name);
            self.absences.remove(name);
        } else {
            self.entries.change(name, |entry| entry.named = false);
        }
        self.forget_unwanted(kind);
    }

    pub(super) fn wants(&self, kind: ResourceType, name: &str) -> bool {
        self.wildcard
            || self.entries.get(name).is_some_and(|entry| entry.named)
            || self.is_collected(kind, name)
    }

    fn is_collected(&self, kind: ResourceType, name: &str) -> bool {
        kind.has_collections()
            && collection_of(name)
                .is_some_and(|collection| self.collections.contains_key(collection))
    }

    fn forget_unwanted(&mut self, kind: ResourceType) {
        let is_unwanted = |name: &str, entry: &Entry| {
            !self.wildcard && !entry.named && !self.is_collected(kind, name)
        };
        let unwanted: Vec<(Arc<str>, Entry)> = self
            .entries
            .iter()
            .filter(|(name, entry)| is_unwanted(name, entry))
            .map(|(name, entry)| (name.clone(), *entry))
            .collect();
        for (name, entry) in unwanted {
            self.entries.remove(&name);
            self.dirty.remove(&name);
            self.additions.remove(&name);
            self.removals.remove(&name);
            self.absences.remove(&name);
            self.rejected -= usize::from(entry.rejected.is_some());
        }
        // Who gives a name up and asks for it again wants to see it again.
        self.refused.retain(|(name, _)| self.entries.contains(name));
    }
}

/// Changes.
impl TypeState {
    pub(super) fn mark(&mut self, kind: ResourceType, name: &Arc<str>) {
        if self.introduced
            && (self.entries.contains(name) || self.wildcard || self.is_collected(kind, name))
        {
            self.dirty.insert(name.clone());
        }
    }

    pub(super) fn mark_all(&mut self) {
        if self.introduced {
            self.relist = self.wildcard;
            self.relist_collections.extend(self.collections.keys().cloned());
            self.dirty.extend(self.entries.iter().map(|(name, _)| name.clone()));
        }
    }

    /// Nothing to add or change, and nothing unanswered.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight.is_none()
            && self.dirty.is_empty()
            && self.additions.is_empty()
            && !self.relist
            && self.relist_collections.is_empty()
    }

    pub(super) fn may_send(&self) -> bool {
        self.introduced && self.in_flight.is_none()
    }

    pub(super) fn has_additions(&self) -> bool {
        !self.additions.is_empty() || !self.absences.is_empty() || self.owes_answer
    }

    pub(super) fn has_removals(&self) -> bool {
        !self.removals.is_empty()
    }

    pub(super) fn rejected_count(&self) -> usize {
        self.rejected
    }

    pub(super) fn held(&self, name: &str) -> Option<Version> {
        self.entries.get(name)?.held
    }

    pub(super) fn held_count(&self) -> usize {
        self.entries.held()
    }

    /// Reads every dirty name from the source and decides what it needs.
    pub(super) fn resolve(&mut self, kind: ResourceType, source: &mut dyn ResourceSource) {
        if std::mem::take(&mut self.relist) {
            self.dirty.extend(source.names(kind));
        }
        for collection in std::mem::take(&mut self.relist_collections) {
            let names = source.names_in(kind, &collection);
            let told = self
                .collections
                .get_mut(&collection)
                .is_none_or(|told| std::mem::replace(told, true));
            if names.is_empty() && !told {
                self.absences.insert(collection);
            }
            self.dirty.extend(names);
        }
        for name in std::mem::take(&mut self.dirty) {
            match source.resource(kind, &name) {
                Some(resource) => self.resolve_present(resource),
                None => self.resolve_absent(name),
            }
        }
    }

    fn resolve_present(&mut self, resource: Resource) {
        let name = resource.name().clone();
        self.removals.remove(&name);
        self.absences.remove(&name);
        let mut entry = self.entries.get(&name).copied().unwrap_or_default();
        entry.told_absent = false;
        let version = Some(resource.version());
        let again = std::mem::take(&mut entry.again);
        let refused = self.refused.contains(&(name.clone(), resource.version()));
        self.rejected -= usize::from(entry.rejected.take().is_some());
        if refused && entry.held != version {
            entry.rejected = version;
            self.rejected += 1;
        }
        if refused || (entry.held == version && !again) {
            self.additions.remove(&name);
        } else {
            self.additions.insert(name.clone(), resource);
        }
        // Under the source's own name: one string for all streams.
        self.entries.set(name, entry);
    }

    fn resolve_absent(&mut self, name: Arc<str>) {
        self.additions.remove(&name);
        let Some(mut entry) = self.entries.get(&name).copied() else { return };
        entry.again = false;
        self.rejected -= usize::from(entry.rejected.take().is_some());
        self.entries.set(name.clone(), entry);
        if entry.held.is_some() {
            self.removals.insert(name);
        } else if entry.named {
            if !entry.told_absent {
                self.absences.insert(name);
            }
        } else {
            self.entries.remove(&name);
        }
    }
}

/// Responses and answers.
impl TypeState {
    /// As many additions as fit into a response, by name; the others stay.
    fn take_additions(&mut self) -> Vec<Resource> {
        let mut resources: Vec<Resource> =
            std::mem::take(&mut self.additions).into_values().collect();
        resources.sort_unstable_by(|a, b| a.name().cmp(b.name()));
        let mut bytes = 0;
        let fitting = resources.iter().take_while(|resource| {
            let first = bytes == 0;
            bytes += resource.wire().len();
            first || bytes <= RESPONSE_BYTES
        });
        let rest = resources.split_off(fitting.count());
        let rest = rest.into_iter().map(|resource| (resource.name().clone(), resource));
        self.additions = rest.collect();
        resources
    }

    pub(super) fn respond(
        &mut self,
        kind: ResourceType,
        nonce: u64,
        with_removals: bool,
    ) -> DeltaResponse {
        self.owes_answer = false;
        // Taken whole, not drained: a table that once held everything would keep its room for the stream's life.
        let mut removed: Vec<Arc<str>> = std::mem::take(&mut self.absences).into_iter().collect();
        for name in &removed {
            self.entries.change(name, |entry| entry.told_absent = true);
        }
        if with_removals {
            removed.extend(std::mem::take(&mut self.removals));
        }
        removed.sort_unstable();
        let resources = self.take_additions();

        let response = DeltaResponse {
            system_version_info: String::new(),
            resources: resources.iter().map(|resource| resource.wire().clone()).collect(),
            type_url: kind.type_url().to_owned(),
            removed_resources: removed.iter().map(|name| name.to_string()).collect(),
            nonce: nonce.to_string(),
        };
        let sent = resources
            .iter()
            .map(|resource| (resource.name().clone(), resource.version()))
            .collect();
        self.in_flight = Some(InFlight { nonce, sent, removed });
        response
    }

    /// The names in the response that awaits its answer.
    pub(super) fn sent_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.in_flight.iter().flat_map(InFlight::names)
    }

    /// Sends a resource again though the client holds it, if the client asked for it by name.
    pub(super) fn send_again(&mut self, name: &Arc<str>) {
        if self.entries.get(name).is_some_and(|entry| entry.named) {
            self.entries.change(name, |entry| entry.again = true);
            self.dirty.insert(name.clone());
        }
    }

    /// The response that this nonce answers, if it is the one that is unanswered.
    pub(super) fn take_answered(&mut self, nonce: &str) -> Option<InFlight> {
        let answered =
            self.in_flight.as_ref().is_some_and(|in_flight| in_flight.nonce.to_string() == nonce);
        if answered { self.in_flight.take() } else { None }
    }

    /// Records what the client now holds. What it unsubscribed meanwhile is not recorded.
    pub(super) fn accept(
        &mut self,
        kind: ResourceType,
        answered: InFlight,
        rejections: &[Rejection],
        shared: &SharedTables,
    ) -> Answered {
        let rejected = |name: &Arc<str>| rejections.iter().any(|rejection| rejection.name == *name);
        let mut accepted = Vec::with_capacity(answered.sent.len());
        for (name, version) in answered.sent {
            let Some(mut entry) = self.entries.get(&name).copied() else { continue };
            if rejected(&name) {
                self.rejected += usize::from(entry.rejected.replace(version).is_none());
                self.entries.set(name.clone(), entry);
                if self.refused.len() >= MAX_REFUSED {
                    self.refused.clear();
                }
                self.refused.insert((name, version));
            } else {
                entry.held = Some(version);
                self.entries.set(name.clone(), entry);
                accepted.push((name, version));
            }
        }
        for name in &answered.removed {
            let Some(entry) = self.entries.get(name) else { continue };
            // What is named stays wanted; anything else is remembered only while something is to be sent.
            if entry.named || self.additions.contains_key(name) || self.dirty.contains(name) {
                self.entries.change(name, |entry| entry.held = None);
            } else {
                self.entries.remove(name);
            }
        }
        if self.is_quiet() {
            self.entries.settle(shared);
        }
        Answered { kind, accepted, removed: answered.removed }
    }
}
