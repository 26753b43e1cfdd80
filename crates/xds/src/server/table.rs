//! What one stream knows of every name of a type. Streams that know the same keep it once.
//!
//! Thousands of proxies of a mesh hold the same clusters, endpoints and virtual hosts in the same versions. So a table is
//! a base that others may share and, laid over it, what this stream alone has come to know since. A stream at rest that
//! has come to know much looks for a base that says just that, and only where there is none makes one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ahash::RandomState;

use crate::resource::Version;

pub(super) type Map<V> = HashMap<Arc<str>, V, RandomState>;

/// What is known of one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub held: Option<Version>,
    /// The source's present version, if the client refused it.
    pub rejected: Option<Version>,
    /// Subscribed by name.
    pub named: bool,
    /// The client has been told that there is nothing of this name.
    pub told_absent: bool,
    /// Send even if held: the client asked again.
    pub again: bool,
}

/// The bases of all streams of a server. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct SharedTables(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    hasher: RandomState,
    bases: Mutex<HashMap<u64, Vec<Weak<Base>>, RandomState>>,
}

#[derive(Debug, Default)]
struct Base {
    entries: Map<Entry>,
    /// The sum of the entries' hashes, so that it can be carried on as entries change.
    sum: u64,
    held: usize,
}

/// One type's names on one stream.
#[derive(Debug, Default)]
pub(super) struct Table {
    base: Arc<Base>,
    /// What is different here; `None` is gone.
    own: Map<Option<Entry>>,
    len: usize,
}

/// Differences that a stream at rest may keep to itself.
const MOST_OWN: usize = 32;

impl SharedTables {
    fn hash(&self, name: &str, entry: &Entry) -> u64 {
        self.0.hasher.hash_one((name, entry))
    }

    /// The base that is `base` with `own` laid over it: another stream's, or a new one.
    fn base_of(&self, base: &Base, own: &Map<Option<Entry>>, len: usize) -> Arc<Base> {
        let mut sum = base.sum;
        for (name, entry) in own {
            let old = base.entries.get(name).map_or(0, |old| self.hash(name, old));
            let new = entry.as_ref().map_or(0, |new| self.hash(name, new));
            sum = sum.wrapping_sub(old).wrapping_add(new);
        }
        let is_it = |other: &Arc<Base>| {
            other.entries.len() == len
                && merged(base, own).all(|(name, entry)| other.entries.get(name) == Some(entry))
        };
        let mut bases = self.0.bases.lock().unwrap_or_else(PoisonError::into_inner);
        let known = bases.entry(sum).or_default();
        known.retain(|base| base.strong_count() > 0);
        if let Some(found) = known.iter().filter_map(Weak::upgrade).find(is_it) {
            return found;
        }
        let mut entries = Map::with_capacity_and_hasher(len, self.0.hasher.clone());
        entries.extend(merged(base, own).map(|(name, entry)| (Arc::clone(name), *entry)));
        let held = entries.values().filter(|entry| entry.held.is_some()).count();
        let made = Arc::new(Base { entries, sum, held });
        known.push(Arc::downgrade(&made));
        bases.retain(|_, known| known.iter().any(|base| base.strong_count() > 0));
        made
    }
}

/// Every entry of `base` with `own` laid over it.
fn merged<'t>(
    base: &'t Base,
    own: &'t Map<Option<Entry>>,
) -> impl Iterator<Item = (&'t Arc<str>, &'t Entry)> {
    let below = base.entries.iter().filter(|(name, _)| !own.contains_key(*name));
    below.chain(own.iter().filter_map(|(name, entry)| Some((name, entry.as_ref()?))))
}

impl Table {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, name: &str) -> Option<&Entry> {
        match self.own.get(name) {
            Some(entry) => entry.as_ref(),
            None => self.base.entries.get(name),
        }
    }

    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The name as it is kept here.
    pub fn name(&self, name: &str) -> Option<&Arc<str>> {
        match self.own.get_key_value(name) {
            Some((name, entry)) => entry.is_some().then_some(name),
            None => self.base.entries.get_key_value(name).map(|(name, _)| name),
        }
    }

    /// Puts an entry, under this very name.
    pub fn set(&mut self, name: Arc<str>, entry: Entry) {
        let old = self.get(&name);
        if old == Some(&entry) {
            return;
        }
        self.len += usize::from(old.is_none());
        // The string of old stays the key of a map; this one may be everybody's.
        self.own.remove(&name);
        self.own.insert(name, Some(entry));
    }

    /// Changes an entry that is there.
    pub fn change(&mut self, name: &str, change: impl FnOnce(&mut Entry)) {
        let (Some(kept), Some(entry)) = (self.name(name), self.get(name)) else { return };
        let (kept, mut entry) = (Arc::clone(kept), *entry);
        change(&mut entry);
        self.set(kept, entry);
    }

    pub fn remove(&mut self, name: &str) {
        if !self.contains(name) {
            return;
        }
        self.len -= 1;
        match self.base.entries.get_key_value(name) {
            Some((name, _)) => {
                self.own.insert(Arc::clone(name), None);
            }
            None => {
                self.own.remove(name);
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Entry)> {
        merged(&self.base, &self.own)
    }

    /// How many entries the client holds.
    pub fn held(&self) -> usize {
        let is_held =
            |entry: Option<&Entry>| usize::from(entry.is_some_and(|it| it.held.is_some()));
        let below: usize = self.own.keys().map(|name| is_held(self.base.entries.get(name))).sum();
        let own: usize = self.own.values().map(|entry| is_held(entry.as_ref())).sum();
        self.base.held - below + own
    }

    /// The stream is at rest: what it knows is shared from here on, unless that is little.
    pub fn settle(&mut self, shared: &SharedTables) {
        if self.own.len() > MOST_OWN {
            self.base = shared.base_of(&self.base, &self.own, self.len);
            self.own = Map::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(version: usize) -> Entry {
        Entry { held: Some(Version::of(&version.to_le_bytes())), ..Entry::default() }
    }

    fn pairs(table: &Table) -> std::collections::BTreeMap<String, Entry> {
        table.iter().map(|(name, entry)| (name.to_string(), *entry)).collect()
    }

    /// Random changes to several tables that share bases come to what they come to in maps of their own.
    #[test]
    fn tables_are_maps() {
        let shared = SharedTables::default();
        let mut tables: Vec<(Table, std::collections::BTreeMap<String, Entry>)> =
            (0..3).map(|_| Default::default()).collect();
        let mut state = 7u64;
        let mut draw = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % below
        };
        for step in 0..20_000 {
            let which = draw(3) as usize;
            let name = format!("name-{}", draw(120));
            let version = draw(3) as usize;
            let (table, model) = &mut tables[which];
            match draw(8) {
                0..4 => {
                    table.set(name.as_str().into(), entry(version));
                    model.insert(name, entry(version));
                }
                4 | 5 => {
                    table.change(&name, |entry| entry.again = !entry.again);
                    model.entry(name).and_modify(|entry| entry.again = !entry.again);
                }
                6 => {
                    table.remove(&name);
                    model.remove(&name);
                }
                _ => table.settle(&shared),
            }
            assert_eq!(table.len(), model.len(), "{step}");
            assert_eq!(table.held(), model.len());
            if step % 50 == 0 {
                assert_eq!(pairs(table), *model);
            }
        }
    }

    #[test]
    fn streams_that_know_the_same_keep_it_once() {
        let shared = SharedTables::default();
        let mut tables: Vec<Table> = (0..4).map(|_| Table::default()).collect();
        for (number, table) in tables.iter_mut().enumerate() {
            // In different orders, and with a detour.
            for name in 0..100 {
                let name = (name * 7 + number * 13) % 100;
                table.set(format!("name-{name}").into(), entry(number));
            }
            for name in 0..100 {
                table.set(format!("name-{name}").into(), entry(9));
            }
            table.settle(&shared);
            assert!(table.own.is_empty());
        }
        let (first, others) = tables.split_at_mut(1);
        assert!(others.iter().all(|table| Arc::ptr_eq(&table.base, &first[0].base)));

        // One change is no reason for a base of one's own; many are, until others have made them, too.
        first[0].set("name-1".into(), entry(8));
        first[0].settle(&shared);
        assert!(Arc::ptr_eq(&first[0].base, &others[0].base) && first[0].own.len() == 1);
        for table in &mut tables[..2] {
            (0..50).for_each(|name| table.set(format!("name-{name}").into(), entry(8)));
            table.settle(&shared);
        }
        assert!(Arc::ptr_eq(&tables[0].base, &tables[1].base));
        assert!(!Arc::ptr_eq(&tables[0].base, &tables[2].base));
        drop(tables);
        let mut table = Table::default();
        (0..50).for_each(|name| table.set(format!("name-{name}").into(), entry(1)));
        table.settle(&shared);
        assert_eq!(shared.0.bases.lock().unwrap().len(), 1, "bases of nobody are forgotten");
    }
}
