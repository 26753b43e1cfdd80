//! A connection's streams by their number: one for HTTP/1, thousands for HTTP/2.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use codec::event::StreamId;
use smallvec::SmallVec;

use super::stream::Stream;
use crate::arena::Key;

/// So many are looked through one by one; more are hashed.
const FEW: usize = 4;
/// A table without streams gives back what it took for more than this.
const MOST_KEPT: usize = 128;

/// Streams by their number.
#[derive(Debug)]
pub struct StreamTable(Streams);

#[derive(Debug)]
enum Streams {
    Few(SmallVec<[(StreamId, Key<Box<Stream>>); 1]>),
    Many(Box<ById>),
}

type ById = HashMap<StreamId, Key<Box<Stream>>, BuildHasherDefault<IdHasher>>;

impl Default for StreamTable {
    fn default() -> Self {
        Self(Streams::Few(SmallVec::new()))
    }
}

impl StreamTable {
    /// Adds a stream.
    #[inline]
    pub fn insert(&mut self, id: StreamId, key: Key<Box<Stream>>) {
        match &mut self.0 {
            Streams::Few(few) if few.len() < FEW => few.push((id, key)),
            Streams::Few(few) => {
                let mut many: Box<ById> = Box::new(few.drain(..).collect());
                many.insert(id, key);
                self.0 = Streams::Many(many);
            }
            Streams::Many(many) => {
                many.insert(id, key);
            }
        }
    }

    /// The stream of that number.
    #[inline]
    pub fn get(&self, id: StreamId) -> Option<Key<Box<Stream>>> {
        match &self.0 {
            Streams::Few(few) => few.iter().find(|(other, _)| *other == id).map(|(_, key)| *key),
            Streams::Many(many) => many.get(&id).copied(),
        }
    }

    /// Forgets a stream.
    #[inline]
    pub fn remove(&mut self, id: StreamId) {
        match &mut self.0 {
            Streams::Few(few) => {
                if let Some(position) = few.iter().position(|(other, _)| *other == id) {
                    few.swap_remove(position);
                }
            }
            Streams::Many(many) => {
                many.remove(&id);
                if many.is_empty() && many.capacity() > MOST_KEPT {
                    self.0 = Streams::Few(SmallVec::new());
                }
            }
        }
    }

    /// Every stream now: a copy, as they may end while they are walked through.
    pub fn keys(&self) -> SmallVec<[Key<Box<Stream>>; 4]> {
        match &self.0 {
            Streams::Few(few) => few.iter().map(|(_, key)| *key).collect(),
            Streams::Many(many) => many.values().copied().collect(),
        }
    }

    /// No stream.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Streams::Few(few) => few.len(),
            Streams::Many(many) => many.len(),
        }
    }
}

/// Numbers of streams go up by twos: a multiplication spreads them.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        // 2^64 divided by the golden ratio; the table takes its bits from the top and from the bottom.
        let spread = (self.0 ^ u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ spread >> 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_or_many_streams_are_found_and_forgotten() {
        let mut table = StreamTable::default();
        let key = |number: u32| Key::from_parts(number, 0);
        for count in [1_u32, 4, 5, 1000] {
            for number in 0..count {
                table.insert(StreamId(number * 2 + 1), key(number));
            }
            assert_eq!((table.len(), table.keys().len()), (count as usize, count as usize));
            for number in (0..count).rev() {
                assert_eq!(table.get(StreamId(number * 2 + 1)), Some(key(number)));
                table.remove(StreamId(number * 2 + 1));
                assert_eq!(table.get(StreamId(number * 2 + 1)), None);
            }
            assert!(table.is_empty());
        }
        assert!(matches!(table.0, Streams::Few(_)), "the memory of many is given back");
    }
}
