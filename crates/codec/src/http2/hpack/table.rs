//! The dynamic table (RFC 7541 §2.3.2): a queue of fields in one byte buffer.
//!
//! Entries lie one after the other as `name: value\r\n`, the way a head holds them, so that a field that is named by its index is
//! one copy. Evicted ones leave dead bytes at the front; they are cut off when room is needed and they are worth it, so each byte
//! is moved a bounded number of times. Nothing is allocated before the first entry, and never more than half again of the size
//! that was agreed on.

use std::collections::VecDeque;

use super::{DEFAULT_TABLE_SIZE, ENTRY_OVERHEAD, Pseudo};
use crate::headers::{KnownName, is_token_byte, names};

/// What a name means: settled when it enters a table and not again when it is named by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Pseudo(Pseudo),
    /// An ordinary one; `KnownName::NONE` where it has no number.
    Field(KnownName),
    /// It starts with a colon and means nothing.
    UnknownPseudo,
    /// Empty, not in lower case, or with bytes that no name has.
    Bad,
}

impl Name {
    /// What the bytes of a name mean.
    pub fn classify(bytes: &[u8]) -> Name {
        if bytes.first() == Some(&b':') {
            return Pseudo::from_bytes(bytes).map_or(Name::UnknownPseudo, Name::Pseudo);
        }
        let is_good = |byte: &u8| is_token_byte(*byte) && !byte.is_ascii_uppercase();
        if bytes.is_empty() || bytes.len() > usize::from(u16::MAX) || !bytes.iter().all(is_good) {
            return Name::Bad;
        }
        Name::Field(names::number(bytes))
    }
}

/// A field as a table holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    /// `name: value\r\n`
    pub bytes: &'a [u8],
    pub name_len: usize,
    pub name: Name,
    /// The value has no byte that a value must not have.
    pub is_good: bool,
}

impl<'a> Line<'a> {
    /// The name alone.
    pub fn name_bytes(&self) -> &'a [u8] {
        &self.bytes[..self.name_len]
    }

    /// The name and what stands between it and the value.
    pub fn name_with_colon(&self) -> &'a [u8] {
        &self.bytes[..self.name_len + 2]
    }

    /// The value alone.
    pub fn value(&self) -> &'a [u8] {
        &self.bytes[self.name_len + 2..self.bytes.len() - 2]
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Where it starts, counted over everything that was ever stored, modulo 2³².
    start: u32,
    name_len: u32,
    value_len: u32,
    name: Name,
    is_good: bool,
}

impl Entry {
    fn stored_len(&self) -> usize {
        self.name_len as usize + self.value_len as usize + 4
    }

    fn size(&self) -> usize {
        self.name_len as usize + self.value_len as usize + ENTRY_OVERHEAD
    }
}

/// The dynamic table of one direction of a connection.
#[derive(Clone, Debug)]
pub(super) struct Table {
    bytes: Vec<u8>,
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// Bytes at the front of `bytes` whose entries are gone.
    dead: usize,
    /// Where the first byte of `bytes` stands in the count that entries use.
    base: u32,
    /// As RFC 7541 §4.1 counts.
    size: usize,
    max_size: usize,
    /// Entries that were ever inserted, modulo 2³².
    inserted: u32,
}

impl Default for Table {
    fn default() -> Self {
        Table {
            bytes: Vec::new(),
            entries: VecDeque::new(),
            dead: 0,
            base: 0,
            size: 0,
            max_size: DEFAULT_TABLE_SIZE as usize,
            inserted: 0,
        }
    }
}

impl Table {
    /// The size that entries may take up.
    pub fn max_size(&self) -> usize {
        self.max_size
    }

    /// Evicts what does not fit any more. At 0 the memory is given back.
    pub fn set_max_size(&mut self, max_size: usize) {
        self.max_size = max_size;
        self.evict_until(max_size);
        if max_size == 0 {
            (self.bytes, self.entries, self.dead) = Default::default();
        }
    }

    /// The entry at a position, 0 being the newest.
    #[inline]
    pub fn get(&self, position: usize) -> Option<Line<'_>> {
        let place = self.entries.len().checked_sub(position + 1)?;
        let entry = self.entries.get(place)?;
        let start = entry.start.wrapping_sub(self.base) as usize;
        Some(Line {
            bytes: &self.bytes[start..start + entry.stored_len()],
            name_len: entry.name_len as usize,
            name: entry.name,
            is_good: entry.is_good,
        })
    }

    /// The number that the next entry will have.
    pub fn next_number(&self) -> u32 {
        self.inserted
    }

    /// The position of the entry that was inserted under this number; it may have been evicted.
    pub fn position(&self, number: u32) -> usize {
        self.inserted.wrapping_sub(number).wrapping_sub(1) as usize
    }

    /// Adds a field, evicting old ones until it fits. One that is larger than the table empties it.
    pub fn insert(&mut self, name: Name, name_bytes: &[u8], value: &[u8], is_good: bool) {
        let size = name_bytes.len() + value.len() + ENTRY_OVERHEAD;
        if size > self.max_size {
            self.evict_until(0);
            return;
        }
        self.evict_until(self.max_size - size);
        self.make_room(name_bytes.len() + value.len() + 4);
        let entry = Entry {
            start: self.base.wrapping_add(self.bytes.len() as u32),
            name_len: name_bytes.len() as u32,
            value_len: value.len() as u32,
            name,
            is_good,
        };
        for part in [name_bytes, b": ", value, b"\r\n"] {
            self.bytes.extend_from_slice(part);
        }
        self.size += size;
        self.entries.push_back(entry);
        self.inserted = self.inserted.wrapping_add(1);
    }

    fn evict_until(&mut self, size: usize) {
        while self.size > size {
            let Some(entry) = self.entries.pop_front() else {
                return;
            };
            self.size -= entry.size();
            self.dead += entry.stored_len();
        }
    }

    fn make_room(&mut self, needed: usize) {
        let most = self.max_size + self.max_size / 2;
        let full = self.bytes.len() + needed;
        if full <= self.bytes.capacity() {
            return;
        }
        if self.dead * 3 >= self.bytes.len() || full > most {
            self.bytes.copy_within(self.dead.., 0);
            self.bytes.truncate(self.bytes.len() - self.dead);
            self.base = self.base.wrapping_add(self.dead as u32);
            self.dead = 0;
        }
        let full = self.bytes.len() + needed;
        if full > self.bytes.capacity() {
            let wanted = (full * 2).max(256).min(most.max(full));
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    /// The size of the entries, as RFC 7541 §4.1 counts, and their number.
    #[cfg(test)]
    pub fn size_and_len(&self) -> (usize, usize) {
        (self.size, self.entries.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_unused_table_has_no_memory_and_one_of_size_0_gives_it_back() {
        let mut table = Table::default();
        assert_eq!(table.capacity(), 0);
        table.insert(Name::Bad, b"a", b"b", true);
        assert!(table.capacity() > 0);
        table.set_max_size(0);
        assert_eq!((table.capacity(), table.size_and_len()), (0, (0, 0)));
        table.insert(Name::Bad, b"", b"", true);
        assert_eq!(table.size_and_len(), (0, 0));
    }

    #[test]
    fn an_entry_larger_than_the_table_empties_it() {
        let mut table = Table::default();
        table.insert(Name::Bad, b"a", b"b", true);
        table.insert(Name::Bad, b"a", &[b'x'; 4096], true);
        assert_eq!(table.size_and_len(), (0, 0));
        table.insert(Name::Bad, b"a", &[b'x'; 4096 - 33], true);
        assert_eq!(table.size_and_len(), (4096, 1));
    }

    proptest! {
        /// Against the plainest model there is: a list.
        #[test]
        fn it_behaves_as_a_list_and_stays_within_its_memory(
            max_size in 64usize..600,
            steps in prop::collection::vec((0usize..20, 0usize..200, 0u8..20), 1..200),
        ) {
            let mut table = Table::default();
            table.set_max_size(max_size);
            let mut max_size = max_size;
            let mut model: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            let size = |model: &[(Vec<u8>, Vec<u8>)]| -> usize {
                model.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
            };
            for (step, (name_len, value_len, dice)) in steps.into_iter().enumerate() {
                if dice == 0 {
                    max_size = value_len * 3;
                    table.set_max_size(max_size);
                } else {
                    let (name, value) = (vec![step as u8; name_len], vec![!step as u8; value_len]);
                    table.insert(Name::Bad, &name, &value, true);
                    model.insert(0, (name, value));
                }
                while size(&model) > max_size {
                    model.pop();
                }
                prop_assert_eq!(table.size_and_len(), (size(&model), model.len()));
                for (position, (name, value)) in model.iter().enumerate() {
                    let line = table.get(position).unwrap();
                    prop_assert_eq!((line.name_bytes(), line.value()), (&name[..], &value[..]));
                    let number = table.next_number().wrapping_sub(position as u32 + 1);
                    prop_assert_eq!(table.position(number), position);
                }
                prop_assert!(table.get(model.len()).is_none());
                prop_assert!(table.bytes.capacity() <= 600 * 3 / 2 + 256);
            }
        }
    }
}
