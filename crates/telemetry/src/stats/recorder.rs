//! The writing side: cells that one thread owns.
//!
//! A cell has one writer, so an increment is a load, an add and a store, all relaxed. A gauge's cell holds twice its
//! value and, in the lowest bit, whether it was ever written, so that `usedonly` knows a gauge that went back to zero.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::histogram::{self, bump};
use super::registry::Block;
use super::template::{Counter, Family, Gauge, Histogram};

/// One thread's view of all statistics. Neither `Send` to another thread while in use nor shared: the cells have a single
/// writer. Statistics touched often are better bound once with [`Recorder::local`].
#[derive(Default)]
pub struct Recorder {
    /// By slot of the block: those that this thread has touched.
    entries: RefCell<ahash::HashMap<u32, Entry>>,
}

struct Entry {
    generation: u32,
    cells: Arc<[AtomicU64]>,
}

impl Recorder {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// This thread's cells of a block, for structures that live as long as the thread works on that cluster, listener or
    /// connection manager. Allocates when the thread meets the block for the first time.
    pub fn local<S>(&self, block: &Block<S>) -> Local<S> {
        Local { cells: self.with(block, Arc::clone), set: PhantomData }
    }

    /// Adds one to a counter.
    pub fn inc<S>(&self, block: &Block<S>, counter: Counter<S>) {
        self.add(block, counter, 1);
    }

    /// Adds to a counter.
    pub fn add<S>(&self, block: &Block<S>, counter: Counter<S>, by: u64) {
        self.with(block, |cells| bump(&cells[counter.cell as usize], by));
    }

    /// Adds to (or takes from) a gauge.
    pub fn gauge_add<S>(&self, block: &Block<S>, gauge: Gauge<S>, by: i64) {
        self.with(block, |cells| gauge_add(&cells[gauge.cell as usize], by));
    }

    /// Sets this thread's share of a gauge; the sum over threads is what shows, so one thread alone should set it.
    pub fn gauge_set<S>(&self, block: &Block<S>, gauge: Gauge<S>, value: i64) {
        self.with(block, |cells| gauge_set(&cells[gauge.cell as usize], value));
    }

    /// Adds a value, in the histogram's unit.
    pub fn record<S>(&self, block: &Block<S>, histogram: Histogram<S>, value: u64) {
        self.with(block, |cells| histogram::record(&cells[histogram.cell as usize..], value));
    }

    fn with<S, R>(&self, block: &Block<S>, then: impl FnOnce(&Arc<[AtomicU64]>) -> R) -> R {
        let data = &block.data;
        if let Some(entry) = self.entries.borrow().get(&data.slot)
            && entry.generation == data.generation
        {
            return then(&entry.cells);
        }
        let cells = data.new_cells();
        let result = then(&cells);
        let entry = Entry { generation: data.generation, cells };
        self.entries.borrow_mut().insert(data.slot, entry);
        result
    }
}

fn gauge_add(cell: &AtomicU64, by: i64) {
    let value = cell.load(Ordering::Relaxed).wrapping_add((by as u64) << 1) | 1;
    cell.store(value, Ordering::Relaxed);
}

fn gauge_set(cell: &AtomicU64, value: i64) {
    cell.store((value as u64) << 1 | 1, Ordering::Relaxed);
}

/// The value in a gauge's summed cells.
pub(super) fn gauge_value(cell: u64) -> i64 {
    cell as i64 >> 1
}

/// One thread's cells of one block; what the hot path holds. It does not keep the block alive: hold the [`Block`] too.
pub struct Local<S> {
    cells: Arc<[AtomicU64]>,
    /// Not `Send`: a cell has one writer.
    set: PhantomData<Rc<S>>,
}

impl<S> Clone for Local<S> {
    fn clone(&self) -> Self {
        Self { cells: Arc::clone(&self.cells), set: PhantomData }
    }
}

impl<S> std::fmt::Debug for Local<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Local")
    }
}

impl<S> Local<S> {
    /// Adds one to a counter.
    pub fn inc(&self, counter: Counter<S>) {
        bump(&self.cells[counter.cell as usize], 1);
    }

    /// Adds to a counter.
    pub fn add(&self, counter: Counter<S>, by: u64) {
        bump(&self.cells[counter.cell as usize], by);
    }

    /// Adds one to the counter of a family at `index` of its values.
    pub fn inc_member(&self, family: Family<S>, index: usize) {
        bump(&self.cells[family.cell as usize + index], 1);
    }

    /// Adds to (or takes from) a gauge.
    pub fn gauge_add(&self, gauge: Gauge<S>, by: i64) {
        gauge_add(&self.cells[gauge.cell as usize], by);
    }

    /// Sets this thread's share of a gauge.
    pub fn gauge_set(&self, gauge: Gauge<S>, value: i64) {
        gauge_set(&self.cells[gauge.cell as usize], value);
    }

    /// Adds a value, in the histogram's unit.
    pub fn record(&self, histogram: Histogram<S>, value: u64) {
        histogram::record(&self.cells[histogram.cell as usize..], value);
    }
}

/// A recorder behind a lock, for the main thread's tasks, which move between threads. Cheap to clone.
#[derive(Clone, Default)]
pub struct SharedRecorder {
    recorder: Arc<Mutex<Recorder>>,
}

impl SharedRecorder {
    /// Adds one to a counter.
    pub fn inc<S>(&self, block: &Block<S>, counter: Counter<S>) {
        self.recorder.lock().inc(block, counter);
    }

    /// Adds to a counter.
    pub fn add<S>(&self, block: &Block<S>, counter: Counter<S>, by: u64) {
        self.recorder.lock().add(block, counter, by);
    }

    /// Adds to (or takes from) a gauge.
    pub fn gauge_add<S>(&self, block: &Block<S>, gauge: Gauge<S>, by: i64) {
        self.recorder.lock().gauge_add(block, gauge, by);
    }

    /// Sets a gauge that only this recorder writes.
    pub fn gauge_set<S>(&self, block: &Block<S>, gauge: Gauge<S>, value: i64) {
        self.recorder.lock().gauge_set(block, gauge, value);
    }

    /// Adds a value, in the histogram's unit.
    pub fn record<S>(&self, block: &Block<S>, histogram: Histogram<S>, value: u64) {
        self.recorder.lock().record(block, histogram, value);
    }
}
