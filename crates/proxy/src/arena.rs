//! Slabs whose keys carry a generation: a key to what is gone finds nothing, and never finds a successor.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

/// Names an entry of an [`Arena`].
pub struct Key<T> {
    index: u32,
    generation: u32,
    of: PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    /// The index: small and dense, for tokens.
    pub fn index(self) -> u32 {
        self.index
    }

    /// The generation: 28 bits.
    pub fn generation(self) -> u32 {
        self.generation
    }

    /// The key of those parts.
    pub fn from_parts(index: u32, generation: u32) -> Self {
        Self { index, generation, of: PhantomData }
    }
}

impl<T> Clone for Key<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Key<T> {}
impl<T> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.index == other.index && self.generation == other.generation
    }
}
impl<T> Eq for Key<T> {}
impl<T> Hash for Key<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.index, self.generation).hash(state);
    }
}
impl<T> fmt::Debug for Key<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.index, self.generation)
    }
}

/// Generations wrap at this, so that a key and a kind fit a 64-bit token.
const GENERATIONS: u32 = 1 << 28;

struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

/// A slab. Memory is kept; entries are reused last-in first-out, so hot ones stay in cache.
pub struct Arena<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Arena<T> {
    /// Puts a value.
    pub fn insert(&mut self, value: T) -> Key<T> {
        if let Some(index) = self.free.pop() {
            let entry = &mut self.entries[index as usize];
            entry.value = Some(value);
            return Key::from_parts(index, entry.generation);
        }
        self.entries.push(Entry { generation: 0, value: Some(value) });
        Key::from_parts((self.entries.len() - 1) as u32, 0)
    }

    /// The key that the next `insert` will give.
    pub fn next_key(&self) -> Key<T> {
        match self.free.last() {
            Some(index) => Key::from_parts(*index, self.entries[*index as usize].generation),
            None => Key::from_parts(self.entries.len() as u32, 0),
        }
    }

    /// The value, if it is still there.
    #[inline]
    pub fn get(&self, key: Key<T>) -> Option<&T> {
        let entry = self.entries.get(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        entry.value.as_ref()
    }

    /// The value, if it is still there.
    #[inline]
    pub fn get_mut(&mut self, key: Key<T>) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        entry.value.as_mut()
    }

    /// Takes the value out; the key finds nothing from now on.
    pub fn remove(&mut self, key: Key<T>) -> Option<T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take()?;
        entry.generation = (entry.generation + 1) % GENERATIONS;
        self.free.push(key.index);
        Some(value)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// None is there.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every entry.
    pub fn iter(&self) -> impl Iterator<Item = (Key<T>, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            Some((Key::from_parts(index as u32, entry.generation), entry.value.as_ref()?))
        })
    }

    /// Every key.
    pub fn keys(&self) -> Vec<Key<T>> {
        self.iter().map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut arena = Arena::default();
        let expected = arena.next_key();
        let a = arena.insert("a");
        assert_eq!(a, expected);
        assert_eq!(arena.remove(a), Some("a"));
        let expected = arena.next_key();
        let b = arena.insert("b");
        assert_eq!(b, expected);
        assert_eq!(a.index(), b.index());
        assert_eq!(arena.get(a), None);
        assert_eq!(arena.remove(a), None);
        assert_eq!(arena.get(b), Some(&"b"));
        assert_eq!(arena.len(), 1);
    }
}
