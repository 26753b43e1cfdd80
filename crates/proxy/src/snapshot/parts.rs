//! Equal parts of configurations, kept once: a mesh's thousands of clusters and endpoints differ in little but their names
//! and addresses.

use std::hash::Hash;
use std::sync::{Arc, Weak};

use hashbrown::HashTable;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::source::Fetch;
use crate::http::config::Http2Options;
use crate::upstream::host::Locality;

/// Parts in use. What nobody uses any more is let go of in time.
#[derive(Debug, Default)]
pub struct Parts {
    /// Of clusters and endpoints.
    pub metadata: Shared<Map<String, Value>>,
    /// Of endpoints.
    pub localities: Shared<Locality>,
    /// Where resources come from.
    pub sources: Shared<Fetch>,
    /// How HTTP/2 is spoken to hosts.
    pub http2: Shared<Http2Options>,
}

/// Values of one type.
#[derive(Debug)]
pub struct Shared<T>(Mutex<Table<T>>);

#[derive(Debug)]
struct Table<T> {
    /// With their hashes: what is gone cannot be asked for it any more.
    values: HashTable<(u64, Weak<T>)>,
    hasher: ahash::RandomState,
    /// With so many it is worth looking for those that are gone.
    sweep_at: usize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        let values = HashTable::new();
        Self(Mutex::new(Table { values, hasher: ahash::RandomState::new(), sweep_at: 64 }))
    }
}

impl<T: Hash + Eq> Shared<T> {
    /// This value, or one that equals it and is there already.
    pub fn share(&self, value: T) -> Arc<T> {
        let table = &mut *self.0.lock();
        let hash = table.hasher.hash_one(&value);
        let known = table.values.find(hash, |(other, known)| {
            *other == hash && known.upgrade().is_some_and(|known| *known == value)
        });
        if let Some(known) = known.and_then(|(_, known)| known.upgrade()) {
            return known;
        }
        if table.values.len() >= table.sweep_at {
            table.values.retain(|(_, known)| known.strong_count() > 0);
            table.sweep_at = (2 * table.values.len()).max(64);
        }
        let value = Arc::new(value);
        table.values.insert_unique(hash, (hash, Arc::downgrade(&value)), |(hash, _)| *hash);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_kept_once_and_only_as_long_as_they_are_used() {
        let shared = Shared::default();
        let (a, b) = (shared.share("a".to_owned()), shared.share("b".to_owned()));
        assert!(Arc::ptr_eq(&a, &shared.share("a".to_owned())));
        assert!(!Arc::ptr_eq(&a, &b));
        for n in 0..1000 {
            shared.share(n.to_string());
        }
        let table = shared.0.lock();
        assert!(table.values.len() <= 64, "{}", table.values.len());
    }
}
