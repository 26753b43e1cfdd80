//! Bytes that were received on one connection and lie in the output of another: what the sender may be told only once
//! they have left (WINDOW_UPDATE), so that a slow reader slows its writer.

use codec::event::StreamId;

use crate::arena::Key;

/// What the connections that the bytes came from (`T`) are to be told.
#[derive(Debug)]
pub struct Credits<T>(Vec<Credit<T>>);

/// Bytes of one stream.
#[derive(Debug)]
pub struct Credit<T> {
    /// The connection that they came from.
    pub from: Key<T>,
    /// Their stream there.
    pub stream: StreamId,
    /// How many.
    pub len: usize,
}

/// So many of the latest entries are looked at for one that can take more.
const LATEST: usize = 8;

impl<T> Default for Credits<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Credits<T> {
    /// Notes bytes.
    pub fn add(&mut self, from: Key<T>, stream: StreamId, len: usize) {
        let known = self
            .0
            .iter_mut()
            .rev()
            .take(LATEST)
            .find(|credit| credit.from == from && credit.stream == stream);
        match known {
            Some(credit) => credit.len += len,
            None => self.0.push(Credit { from, stream, len }),
        }
    }

    /// Nothing is noted.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes one out, any.
    pub fn pop(&mut self) -> Option<Credit<T>> {
        let credit = self.0.pop();
        // Between bursts a connection holds no memory for this.
        if self.0.is_empty() && self.0.capacity() > 4 * LATEST {
            self.0 = Vec::new();
        }
        credit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_stream_add_up() {
        let mut credits = Credits::<()>::default();
        let key = |index| Key::from_parts(index, 0);
        credits.add(key(1), StreamId(1), 10);
        credits.add(key(1), StreamId(3), 5);
        credits.add(key(1), StreamId(1), 7);
        credits.add(key(2), StreamId(1), 1);
        let mut said = Vec::new();
        while let Some(credit) = credits.pop() {
            said.push((credit.from.index(), credit.stream.0, credit.len));
        }
        assert_eq!(said, [(2, 1, 1), (1, 3, 5), (1, 1, 17)]);
    }
}
