//! How long something takes that takes nanoseconds.

use std::time::Instant;

/// The median of rounds in nanoseconds, printed and returned, so that a neighbour's burst does not count.
pub fn measure(what: &str, mut work: impl FnMut()) -> f64 {
    const PER_ROUND: u32 = 20_000;
    let mut rounds: Vec<f64> = (0..31)
        .map(|_| {
            let start = Instant::now();
            (0..PER_ROUND).for_each(|_| work());
            start.elapsed().as_nanos() as f64 / f64::from(PER_ROUND)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    let (median, least) = (rounds[rounds.len() / 2], rounds[0]);
    println!("{what:<56} {median:>8.1} ns (least {least:.1})");
    median
}
