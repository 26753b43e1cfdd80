//! Pauses between attempts: each at random below a bound that doubles, so that a thousand proxies do not come back at
//! once when a control plane does.

use std::time::Duration;

use rand::Rng;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);
/// Never less: a server that refuses at once is not hammered.
const SHORTEST: Duration = Duration::from_millis(20);

/// The state of a series of attempts.
#[derive(Debug)]
pub(super) struct Backoff {
    bound: Duration,
}

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff { bound: FIRST }
    }

    /// An attempt worked: the next pause is short again.
    pub(super) fn reset(&mut self) {
        self.bound = FIRST;
    }

    /// Whether nothing has failed since an attempt last worked.
    pub(super) fn is_fresh(&self) -> bool {
        self.bound == FIRST
    }

    /// The pause before the next attempt.
    pub(super) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let bound = self.bound;
        self.bound = (bound * 2).min(LONGEST);
        rng.random_range(SHORTEST..=bound)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_differ_and_start_over() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut backoff = Backoff::new();
        let first: Vec<Duration> = (0..20).map(|_| backoff.next(&mut rng)).collect();
        assert!(first.iter().all(|pause| (SHORTEST..=LONGEST).contains(pause)));
        assert!(first[0] <= FIRST);
        assert!(!backoff.is_fresh());
        assert!(first[10..].iter().any(|pause| *pause > FIRST * 4));
        assert_ne!(first[10], first[11]);
        backoff.reset();
        assert!(backoff.is_fresh());
        assert!(backoff.next(&mut rng) <= FIRST);
    }
}
