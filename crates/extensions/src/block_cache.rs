//! Statistics that are named by what requests say: found again by a key, kept by the registry, expired when nobody uses
//! them.

use parking_lot::Mutex;
use telemetry::stats::{Block, Registry, StatSet};

/// Blocks by key. Looking one up copies nothing but the key into a buffer.
pub struct BlockCache<S> {
    registry: Registry,
    shards: Box<[Mutex<Shard<S>>]>,
}

struct Shard<S> {
    blocks: ahash::HashMap<Box<[u8]>, Block<S>>,
    key: Vec<u8>,
}

impl<S> Default for Shard<S> {
    fn default() -> Self {
        Self { blocks: ahash::HashMap::default(), key: Vec::new() }
    }
}

impl<S> std::fmt::Debug for BlockCache<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlockCache({} shards)", self.shards.len())
    }
}

/// Workers share a shard only when there are more of them.
const SHARDS: usize = 16;

/// A shard forgets its table beyond this: the registry still has what is in use.
const MAX_PER_SHARD: usize = 4096;

impl<S: StatSet> BlockCache<S> {
    /// An empty cache.
    pub fn new(registry: &Registry) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { registry: registry.clone(), shards }
    }

    /// The block under the key that `write_key` writes; `make` makes it where it is not known.
    pub fn find(
        &self,
        worker: usize,
        write_key: impl FnOnce(&mut Vec<u8>),
        make: impl FnOnce(&Registry) -> Block<S>,
    ) -> Block<S> {
        let mut shard = self.shards[worker % SHARDS].lock();
        let Shard { blocks, key } = &mut *shard;
        key.clear();
        write_key(key);
        if let Some(block) = blocks.get(key.as_slice()) {
            return block.clone();
        }
        let block = make(&self.registry);
        self.registry.keep(&block);
        if blocks.len() >= MAX_PER_SHARD {
            blocks.clear();
        }
        blocks.insert(key.as_slice().into(), block.clone());
        block
    }
}
