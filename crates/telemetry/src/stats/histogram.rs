//! Histograms with fixed buckets, and the quantiles Envoy's text output shows.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds (inclusive) of Envoy's default buckets, in the unit of the histogram; the last bucket has no bound.
pub const BOUNDS: [f64; 19] = [
    0.5, 1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10000.0, 30000.0,
    60000.0, 300000.0, 600000.0, 1800000.0, 3600000.0,
];

/// Largest integer of each bucket that has a bound.
const LIMITS: [u64; 19] = [
    0, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000,
    1800000, 3600000,
];

/// Buckets, the unbounded one included.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// Cells of a histogram: its buckets, then the sum of the values.
pub(super) const CELLS: usize = BUCKETS + 1;

/// The quantiles of Envoy's text output.
pub const QUANTILES: [f64; 10] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

/// Adds one value to the cells of a histogram; single writer.
pub(super) fn record(cells: &[AtomicU64], value: u64) {
    // Most times are below a millisecond: the first bucket.
    let bucket =
        if value <= LIMITS[0] { 0 } else { LIMITS.partition_point(|limit| *limit < value) };
    bump(&cells[bucket], 1);
    bump(&cells[BUCKETS], value);
}

pub(super) fn bump(cell: &AtomicU64, by: u64) {
    cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// A histogram's contents at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Values per bucket (not cumulative).
    pub buckets: [u64; BUCKETS],
    /// Sum of the values.
    pub sum: u64,
}

impl Distribution {
    /// Reads summed cells.
    pub(super) fn from_cells(cells: &[u64]) -> Self {
        let mut buckets = [0; BUCKETS];
        buckets.copy_from_slice(&cells[..BUCKETS]);
        Self { buckets, sum: cells[BUCKETS] }
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Values at most as large as each bound, and all of them last.
    pub fn cumulative(&self) -> [u64; BUCKETS] {
        let mut sum = 0;
        self.buckets.map(|count| {
            sum += count;
            sum
        })
    }

    /// The `q`-quantile (0 to 1), interpolated between the integers that its bucket can hold; `None` without values.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = q * count as f64;
        let mut below = 0;
        for (i, inside) in
            self.buckets.iter().copied().enumerate().filter(|(_, inside)| *inside > 0)
        {
            if rank <= (below + inside) as f64 {
                let low = if i == 0 { 0 } else { LIMITS[i - 1] + 1 };
                let high = LIMITS.get(i).copied().unwrap_or(low);
                let within = ((rank - below as f64) / inside as f64).clamp(0.0, 1.0);
                return Some(low as f64 + (high - low) as f64 * within);
            }
            below += inside;
        }
        None
    }
}
