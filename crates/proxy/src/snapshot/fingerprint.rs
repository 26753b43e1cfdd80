//! Hashes by which identical configuration is known.

use std::hash::{BuildHasher, Hash, Hasher};

/// A hash wide enough that two different configurations never meet in it. It is good for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub u128);

/// Takes in what makes configurations differ.
#[derive(Debug, Clone)]
pub struct Print {
    low: ahash::AHasher,
    high: ahash::AHasher,
}

impl Default for Print {
    fn default() -> Self {
        let hasher = |seed| ahash::RandomState::with_seeds(seed, 2, 3, 4).build_hasher();
        Self { low: hasher(1), high: hasher(5) }
    }
}

impl Print {
    /// Takes in another value.
    pub fn add(&mut self, value: impl Hash) {
        value.hash(&mut self.low);
        value.hash(&mut self.high);
    }

    /// The hash of all that was taken in.
    pub fn finish(&self) -> Fingerprint {
        Fingerprint(u128::from(self.high.finish()) << 64 | u128::from(self.low.finish()))
    }
}

/// The fingerprint of one value.
pub fn of(value: impl Hash) -> Fingerprint {
    let mut print = Print::default();
    print.add(value);
    print.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_equal_fingerprints_and_others_do_not() {
        assert_eq!(of(b"abc"), of(b"abc"));
        assert_ne!(of(b"abc"), of(b"abd"));
        assert_ne!(of((b"a", b"bc")), of((b"ab", b"c")));
        let print = of(b"abc").0;
        assert_ne!(print as u64, (print >> 64) as u64, "the halves are independent");
    }
}
