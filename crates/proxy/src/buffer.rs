//! A worker's buffers. Idle connections hold none: they take one when bytes arrive and give it back when it is empty.

/// What a fresh buffer can hold.
pub const BUFFER_SIZE: usize = 16 * 1024;
/// Buffers that have grown beyond this are not kept.
const MAX_KEPT: usize = 128 * 1024;
/// So many idle buffers are kept at most.
const MAX_IDLE: usize = 256;

/// Idle buffers of one worker.
#[derive(Debug, Default)]
pub struct BufferPool {
    idle: Vec<Vec<u8>>,
    /// Where TLS records are made; lent to one connection at a time.
    records: Vec<u8>,
}

impl BufferPool {
    /// An empty buffer with some room.
    #[inline]
    pub fn take(&mut self) -> Vec<u8> {
        self.idle.pop().unwrap_or_else(|| Vec::with_capacity(BUFFER_SIZE))
    }

    /// Gives a buffer back; one without memory is dropped for free.
    #[inline]
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if (1..=MAX_KEPT).contains(&buffer.capacity()) && self.idle.len() < MAX_IDLE {
            buffer.clear();
            self.idle.push(buffer);
        }
    }

    /// Room for records of at least `len` bytes.
    #[inline]
    pub fn take_records(&mut self, len: usize) -> Vec<u8> {
        let mut records = std::mem::take(&mut self.records);
        if records.len() < len {
            records.resize(len, 0);
        }
        records
    }

    /// Gives that room back.
    #[inline]
    pub fn give_records(&mut self, records: Vec<u8>) {
        self.records = records;
    }
}

/// Bytes that wait: appended at the end, taken from the front. Empty it holds no memory.
#[derive(Debug, Default)]
pub struct Pending {
    bytes: Vec<u8>,
    start: usize,
}

impl Pending {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// None.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == self.start
    }

    /// The vector to append to; its memory comes from the pool.
    #[inline]
    pub fn writer(&mut self, pool: &mut BufferPool) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = pool.take();
        }
        &mut self.bytes
    }

    /// Takes `count` bytes off the front; gives the memory back when nothing is left.
    #[inline]
    pub fn consume(&mut self, count: usize, pool: &mut BufferPool) {
        self.start += count;
        debug_assert!(self.start <= self.bytes.len());
        if self.is_empty() {
            self.clear(pool);
        } else if self.start > BUFFER_SIZE && self.start * 2 > self.bytes.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// Drops all bytes and gives the memory back.
    pub fn clear(&mut self, pool: &mut BufferPool) {
        pool.give(std::mem::take(&mut self.bytes));
        self.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_pending_bytes_hold_no_memory() {
        let mut pool = BufferPool::default();
        let mut pending = Pending::default();
        pending.writer(&mut pool).extend_from_slice(b"hello");
        pending.consume(2, &mut pool);
        assert_eq!(pending.as_slice(), b"llo");
        pending.consume(3, &mut pool);
        assert!(pending.is_empty() && pending.bytes.capacity() == 0);
        assert_eq!(pool.idle.len(), 1);
    }
}
