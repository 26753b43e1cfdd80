//! The streams of a connection.

use super::window::ReceiveWindow;

/// A stream that has begun and not ended both ways.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// Never 0.
    pub id: u32,
    pub receive: ReceiveWindow,
    /// Bytes that we may send: negative after the peer has lowered its initial window.
    pub send_window: i32,
    /// Body bytes that are still to come by `content-length`; `ANY_LENGTH` if nobody has said.
    pub left: u64,
    /// The message's head has come: of a response the final one.
    pub received_head: bool,
    pub received_all: bool,
    pub sent_all: bool,
    /// The request's method was HEAD.
    pub is_head: bool,
    /// CONNECT, plain or extended: the two directions end on their own.
    pub is_tunnel: bool,
    /// It is in the list of streams whose window is to be opened.
    pub is_due: bool,
    /// A final response's head has been sent.
    pub is_answered: bool,
    /// 1xx heads so far.
    pub informational: u8,
    /// When it began, on the clock of `Limits`; it wraps around.
    pub opened_ms: u32,
}

/// No `content-length`.
pub(super) const ANY_LENGTH: u64 = u64::MAX;

/// Streams by id: one array with open addressing, each as near to its home as the others' nearness allows (Robin Hood).
#[derive(Debug, Default)]
pub(super) struct StreamTable {
    /// A power of two of slots, or none; `None` is free.
    slots: Vec<Option<Stream>>,
    len: usize,
}

const FEWEST_SLOTS: usize = 8;
/// More than this are given back when no stream is left.
const MOST_IDLE_SLOTS: usize = 64;

impl StreamTable {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub fn get(&self, id: u32) -> Option<&Stream> {
        self.slots[self.find(id)?].as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        let slot = self.find(id)?;
        self.slots[slot].as_mut()
    }

    /// Adds a stream that is not there yet.
    pub fn insert(&mut self, stream: Stream) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        self.len += 1;
        self.place(stream);
    }

    pub fn remove(&mut self, id: u32) -> Option<Stream> {
        let mut hole = self.find(id)?;
        let removed = self.slots[hole].take();
        self.len -= 1;
        if self.len == 0 && self.slots.len() > MOST_IDLE_SLOTS {
            self.slots = Vec::new();
            return removed;
        }
        // Those who were pushed away from their homes move up by one.
        let mask = self.slots.len() - 1;
        loop {
            let next = (hole + 1) & mask;
            match &self.slots[next] {
                Some(stream) if self.home(stream.id) != next => {}
                _ => return removed,
            }
            self.slots[hole] = self.slots[next].take();
            hole = next;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.slots.iter().flatten()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.slots.iter_mut().flatten()
    }

    /// Numbers in sequence are spread evenly (by the golden ratio), so that old streams do not lie together in the way of
    /// new ones.
    fn home(&self, id: u32) -> usize {
        let spread = u64::from(id >> 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        spread as usize & (self.slots.len() - 1)
    }

    /// How far from its home a stream in this slot is.
    fn distance(&self, id: u32, at: usize) -> usize {
        at.wrapping_sub(self.home(id)) & (self.slots.len() - 1)
    }

    #[inline]
    fn find(&self, id: u32) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.home(id);
        for distance in 0.. {
            match &self.slots[at] {
                Some(stream) if stream.id == id => return Some(at),
                Some(stream) if self.distance(stream.id, at) >= distance => {}
                _ => return None,
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        None
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(FEWEST_SLOTS);
        let old = std::mem::replace(&mut self.slots, vec![None; slots]);
        old.into_iter().flatten().for_each(|stream| self.place(stream));
    }

    /// Whoever is nearer to home makes room, so that nobody is far from it.
    fn place(&mut self, mut stream: Stream) {
        let mask = self.slots.len() - 1;
        let mut at = self.home(stream.id);
        let mut distance = 0;
        while let Some(other) = self.slots[at] {
            let theirs = self.distance(other.id, at);
            if theirs < distance {
                self.slots[at] = Some(std::mem::replace(&mut stream, other));
                distance = theirs;
            }
            at = (at + 1) & mask;
            distance += 1;
        }
        self.slots[at] = Some(stream);
    }
}

/// Who has reset a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResetBy {
    Us,
    Peer,
}

/// Streams that were reset lately: their peer may not have heard of it yet.
#[derive(Debug, Default)]
pub(super) struct Resets {
    /// A ring.
    recent: Vec<(u32, ResetBy)>,
    next: usize,
    /// The highest id that has fallen out of the ring.
    forgotten: u32,
}

const REMEMBERED: usize = 64;

impl Resets {
    pub fn add(&mut self, id: u32, by: ResetBy) {
        if self.recent.len() < REMEMBERED {
            self.recent.push((id, by));
            return;
        }
        let (oldest, _) = std::mem::replace(&mut self.recent[self.next], (id, by));
        self.forgotten = self.forgotten.max(oldest);
        self.next = (self.next + 1) % REMEMBERED;
    }

    /// We have answered the peer's reset with our own.
    pub fn take_over(&mut self, id: u32) {
        if let Some((_, by)) = self.recent.iter_mut().find(|(other, _)| *other == id) {
            *by = ResetBy::Us;
        }
    }

    /// Who has reset this stream, if anybody has. Of what is too long ago to be known we take the blame.
    pub fn who(&self, id: u32) -> Option<ResetBy> {
        match self.recent.iter().find(|(other, _)| *other == id) {
            Some((_, by)) => Some(*by),
            None => (id <= self.forgotten).then_some(ResetBy::Us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn stream(id: u32, left: u64) -> Stream {
        Stream {
            id,
            receive: ReceiveWindow::new(0, 0),
            send_window: 0,
            left,
            received_head: false,
            received_all: false,
            sent_all: false,
            is_head: false,
            is_tunnel: false,
            is_due: false,
            is_answered: false,
            informational: 0,
            opened_ms: 0,
        }
    }

    #[test]
    fn the_table_is_a_map() {
        let (mut table, mut model) = (StreamTable::default(), BTreeMap::new());
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        for step in 0..20_000u64 {
            // Far apart and close together, so that homes collide.
            let id = (next() % 300 * (1 + 2048 * (step % 2))) as u32 * 2 + 1;
            if next() % 2 == 0 && !model.contains_key(&id) {
                table.insert(stream(id, step));
                model.insert(id, step);
            } else {
                assert_eq!(table.remove(id).map(|stream| stream.left), model.remove(&id));
            }
            let probe = (next() % 300) as u32 * 2 + 1;
            assert_eq!(table.get(probe).map(|stream| stream.left), model.get(&probe).copied());
            assert_eq!(table.len(), model.len());
        }
        assert_eq!(table.iter().count(), model.len());
        for id in model.into_keys() {
            assert!(table.remove(id).is_some());
        }
        assert!(
            table.is_empty() && table.slots.is_empty(),
            "an idle connection holds no big table"
        );
    }

    #[test]
    fn a_stream_is_small() {
        assert!(size_of::<Option<Stream>>() <= 48, "{}", size_of::<Option<Stream>>());
    }

    #[test]
    fn resets_are_remembered_for_a_while() {
        let mut resets = Resets::default();
        assert_eq!(resets.who(1), None);
        resets.add(1, ResetBy::Peer);
        assert_eq!(resets.who(1), Some(ResetBy::Peer));
        (2..100).for_each(|id| resets.add(id * 2 + 1, ResetBy::Us));
        assert_eq!((resets.who(1), resets.who(99)), (Some(ResetBy::Us), Some(ResetBy::Us)));
        assert_eq!(resets.who(197), Some(ResetBy::Us));
        assert_eq!(resets.who(201), None);
        assert!(resets.recent.len() == REMEMBERED);
    }
}
