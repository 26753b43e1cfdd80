//! The registry: which statistics exist, and the cells every thread writes for them.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hashbrown::HashTable;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::recorder::{Recorder, SharedRecorder};
use super::scope::Scope;
use super::template::{StatSet, Template};

/// The statistics of one process. Cheap to clone; clones are the same registry.
///
/// Writers never wait: each thread has a [`Recorder`] with cells of its own, allocated when the thread first touches a
/// set. A scrape adds the threads' cells up in place.
#[derive(Clone, Default)]
pub struct Registry {
    pub(super) inner: Arc<Inner>,
}

#[derive(Default)]
pub(super) struct Inner {
    tables: Mutex<Tables>,
    pub(super) kept: Mutex<Kept>,
    texts: Mutex<BTreeMap<String, String>>,
}

/// Every block, and their numbers. There are thousands (several a cluster), so that nothing is kept twice.
#[derive(Default)]
struct Tables {
    /// By the hash of scope and template.
    blocks: HashTable<Entry>,
    hasher: ahash::RandomState,
    /// Slots of dead blocks, free for others.
    free: Vec<u32>,
    /// How many slots there are, used or free.
    made: u32,
    /// Grows with every block made, so that a recorder sees when a slot has a new owner.
    generation: u32,
}

/// A block with its hash: what is dying cannot be asked for it any more.
struct Entry {
    hash: u64,
    block: Weak<BlockData>,
}

impl Tables {
    fn hash(&self, scope: &Scope, template: &'static Template) -> u64 {
        // A template is a static: its address tells which it is.
        self.hasher.hash_one((scope, std::ptr::from_ref(template) as usize))
    }

    fn find(
        &self,
        hash: u64,
        scope: &Scope,
        template: &'static Template,
    ) -> Option<Arc<BlockData>> {
        let mut found = None;
        self.blocks.find(hash, |entry| {
            let same = |data: &Arc<BlockData>| {
                data.scope == *scope && std::ptr::eq(data.template, template)
            };
            // What is not asked for is left alone: to hold it last here would be to free it under the lock.
            found = (entry.hash == hash).then(|| entry.block.upgrade()).flatten().filter(same);
            found.is_some()
        });
        found
    }

    /// A slot that no block has, and the generation of its next owner.
    fn place(&mut self) -> (u32, u32) {
        self.generation = self.generation.wrapping_add(1);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.made += 1;
            self.made - 1
        });
        (slot, self.generation)
    }
}

/// Blocks that outlive their users, and how many of them make it worth looking for those that can go.
#[derive(Default)]
pub(super) struct Kept {
    /// With the sum of all cells when last looked at.
    blocks: Vec<(Arc<BlockData>, u64)>,
    pub(super) sweep_at: usize,
}

/// So many kept blocks are not looked at for expiry.
const MIN_KEPT: usize = 4096;

/// One set of statistics in one scope. It exists as long as someone holds a `Block`; asking for the same set in the same
/// scope again gives the same one, so numbers survive config updates. Cheap to clone and to share between threads.
pub struct Block<S> {
    pub(super) data: Arc<BlockData>,
    set: PhantomData<fn() -> S>,
}

impl<S> Clone for Block<S> {
    fn clone(&self) -> Self {
        Self { data: Arc::clone(&self.data), set: PhantomData }
    }
}

impl<S> std::fmt::Debug for Block<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Block({:?})", self.data.scope)
    }
}

impl<S> PartialEq for Block<S> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.data, &other.data)
    }
}

impl<S> Eq for Block<S> {}

pub(super) struct BlockData {
    pub(super) scope: Scope,
    pub(super) template: &'static Template,
    pub(super) slot: u32,
    pub(super) generation: u32,
    /// `None` until a thread touches it.
    shards: Mutex<Option<Box<Shards>>>,
    registry: Weak<Inner>,
}

#[derive(Default)]
struct Shards {
    cells: SmallVec<[Arc<[AtomicU64]>; 1]>,
    /// What counters stood at when they were last reset.
    baseline: Option<Box<[u64]>>,
}

impl Drop for BlockData {
    fn drop(&mut self) {
        let Some(inner) = self.registry.upgrade() else { return };
        let mut tables = inner.tables.lock();
        let hash = tables.hash(&self.scope, self.template);
        let is_this = |entry: &Entry| std::ptr::eq(entry.block.as_ptr(), self);
        if let Ok(entry) = tables.blocks.find_entry(hash, is_this) {
            entry.remove();
        }
        tables.free.push(self.slot);
    }
}

impl BlockData {
    /// New cells, for a thread that touches this block for the first time.
    pub(super) fn new_cells(&self) -> Arc<[AtomicU64]> {
        let cells: Arc<[AtomicU64]> =
            (0..self.template.cells()).map(|_| AtomicU64::new(0)).collect();
        self.shards.lock().get_or_insert_default().cells.push(Arc::clone(&cells));
        cells
    }

    /// Adds up all threads' cells into `out` (cleared first); `false` when no thread ever touched the block, and `out` is
    /// then zeros. Gauges keep their mark of use (see [`super::recorder`]) in the lowest bit.
    pub(super) fn read(&self, out: &mut Vec<u64>) -> bool {
        out.clear();
        out.resize(self.template.cells(), 0);
        let shards = self.shards.lock();
        let Some(shards) = &*shards else { return false };
        let mut at = 0;
        for field in self.template.fields {
            let range = at..at + field.cells();
            at = range.end;
            for cells in &shards.cells {
                for (sum, cell) in out[range.clone()].iter_mut().zip(&cells[range.clone()]) {
                    let value = cell.load(Ordering::Relaxed);
                    *sum = match field.kind {
                        super::Kind::Gauge | super::Kind::LazyGauge => {
                            (*sum & !1).wrapping_add(value & !1) | (*sum | value) & 1
                        }
                        _ => sum.wrapping_add(value),
                    };
                }
            }
        }
        if let Some(baseline) = &shards.baseline {
            for (value, base) in out.iter_mut().zip(baseline) {
                *value = value.wrapping_sub(*base);
            }
        }
        !shards.cells.is_empty()
    }

    fn reset_counters(&self) {
        let mut now = Vec::new();
        match &mut *self.shards.lock() {
            Some(shards) => shards.baseline = None,
            None => return,
        }
        self.read(&mut now);
        let mut at = 0;
        for field in self.template.fields {
            let range = at..at + field.cells();
            at = range.end;
            if matches!(
                field.kind,
                super::Kind::Gauge | super::Kind::LazyGauge | super::Kind::Histogram(_)
            ) {
                now[range].fill(0);
            }
        }
        self.shards.lock().get_or_insert_default().baseline = Some(now.into());
    }
}

impl Kept {
    /// Takes out what nobody holds and nothing changed.
    fn sweep(&mut self) -> Vec<Arc<BlockData>> {
        let mut scratch = Vec::new();
        let mut expired = Vec::new();
        self.blocks.retain_mut(|(data, before)| {
            data.read(&mut scratch);
            let now = scratch.iter().fold(0_u64, |sum, cell| sum.wrapping_add(*cell));
            let idle = Arc::strong_count(data) == 1 && now == std::mem::replace(before, now);
            if idle {
                expired.push(Arc::clone(data));
            }
            !idle
        });
        expired
    }
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// The set `S` in `scope`, made if it is not there.
    pub fn block<S: StatSet>(&self, scope: &Scope) -> Block<S> {
        Block { data: self.block_data(scope, S::TEMPLATE), set: PhantomData }
    }

    fn block_data(&self, scope: &Scope, template: &'static Template) -> Arc<BlockData> {
        let mut tables = self.inner.tables.lock();
        let hash = tables.hash(scope, template);
        if let Some(data) = tables.find(hash, scope, template) {
            return data;
        }
        let (slot, generation) = tables.place();
        let data = Arc::new(BlockData {
            scope: scope.clone(),
            template,
            slot,
            generation,
            shards: Mutex::default(),
            registry: Arc::downgrade(&self.inner),
        });
        let entry = Entry { hash, block: Arc::downgrade(&data) };
        tables.blocks.insert_unique(hash, entry, |entry| entry.hash);
        data
    }

    /// A recorder for the calling thread; one per worker.
    pub fn recorder(&self) -> Recorder {
        Recorder::new()
    }

    /// A recorder that several threads may use; it locks, so it is for the main thread and its tasks.
    pub fn shared_recorder(&self) -> SharedRecorder {
        SharedRecorder::default()
    }

    /// Sets a text statistic such as `cluster_manager.cds.version_text`.
    pub fn set_text(&self, scope: &Scope, leaf: &str, value: &str) {
        let mut name = String::new();
        scope.write_name(leaf, &mut name);
        self.inner.texts.lock().insert(name, value.to_owned());
    }

    /// Keeps a block although nobody holds it: label sets that connections come back to. When there are many, those that
    /// nobody holds and that did not change since the last look are let go.
    pub fn keep<S>(&self, block: &Block<S>) {
        let mut expired = Vec::new();
        let mut kept = self.inner.kept.lock();
        if kept.blocks.iter().any(|(data, _)| Arc::ptr_eq(data, &block.data)) {
            return;
        }
        if kept.blocks.len() >= kept.sweep_at.max(MIN_KEPT) {
            expired = kept.sweep();
            kept.sweep_at = kept.blocks.len() * 2;
        }
        kept.blocks.push((Arc::clone(&block.data), 0));
        drop(kept);
        // Freed outside the lock.
        drop(expired);
    }

    /// Starts all counters at zero again, as `POST /reset_counters` does; gauges and histograms stay.
    pub fn reset_counters(&self) {
        for block in self.blocks() {
            block.reset_counters();
        }
    }

    /// Every block alive now.
    pub(super) fn blocks(&self) -> Vec<Arc<BlockData>> {
        self.inner.tables.lock().blocks.iter().filter_map(|entry| entry.block.upgrade()).collect()
    }

    /// Every text statistic.
    pub(super) fn texts(&self) -> BTreeMap<String, String> {
        self.inner.texts.lock().clone()
    }
}
