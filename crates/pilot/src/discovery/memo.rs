//! What was translated already: a map from a translation's input to its encoded resource.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use ahash::RandomState;
use prost::{Message, Name};
use xds::Resource;

use super::origin::{Origined, Translated};
use crate::networking::encoding::encode;

/// Entries kept beyond those in use before the unused are looked for.
const SLACK: usize = 1024;

/// The encoded resources of one kind of key. The key is the very struct that the translation takes, so there is no
/// input that it could miss.
#[derive(Debug)]
pub struct Memo<K> {
    entries: HashMap<K, Option<Translated>, RandomState>,
    translations: u64,
    in_use_at_last_sweep: usize,
}

impl<K> Default for Memo<K> {
    fn default() -> Self {
        Self { entries: HashMap::default(), translations: 0, in_use_at_last_sweep: 0 }
    }
}

impl<K: Hash + Eq + Origined> Memo<K> {
    /// The resource of a key, translated and encoded at most once while anybody uses it.
    pub fn resource<M: Message + Name>(
        &mut self,
        key: K,
        translate: impl FnOnce(&K) -> Option<(Arc<str>, M)>,
    ) -> Option<Translated> {
        self.encoded(key, |key| {
            let (name, message) = translate(key)?;
            Some(Resource::new(name, &M::type_url(), encode(&message)))
        })
    }

    /// The resource of a key, made by `make` if there is none.
    pub fn encoded(
        &mut self,
        key: K,
        make: impl FnOnce(&K) -> Option<Resource>,
    ) -> Option<Translated> {
        if let Some(known) = self.entries.get(&key) {
            return known.clone();
        }
        self.translations += 1;
        let made =
            make(&key).map(|resource| Translated { resource, origins: key.origins().into() });
        self.entries.insert(key, made.clone());
        made
    }

    /// How often something was translated and encoded.
    pub fn translations(&self) -> u64 {
        self.translations
    }

    /// Forgets what nobody uses any more, once there is enough of it to be worth a walk.
    pub fn sweep(&mut self) {
        if self.entries.len() <= 2 * self.in_use_at_last_sweep + SLACK {
            return;
        }
        // A name is shared by all clones of its resource: one count is this entry's.
        self.entries.retain(|_, made| {
            made.as_ref().is_some_and(|made| Arc::strong_count(made.resource.name()) > 1)
        });
        self.in_use_at_last_sweep = self.entries.len();
    }
}
