//! Which fields an encoder has written before, and where in the table they are.
//!
//! A field earns its place in the table by coming twice, so that what is different in every message (a request id, say) pushes
//! nothing out. The memory is a small set of slots by hash; a slot that points to an entry gives way only when two others want it
//! between two uses. A slot is a hint: the entry is compared before its index is written.

/// Slots of one recollection, a power of two.
const SLOTS: usize = 64;

/// What a hash stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recall {
    /// It was entered into the table under this number.
    Entered(u32),
    /// It came before.
    Seen,
    /// It has not come before, or not lately.
    New,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Empty,
    Seen,
    Entered,
    /// Entered, and another hash has asked for the slot since the last use.
    Challenged,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    number: u32,
    state: State,
}

/// The hashes that came lately. Allocates on first use.
#[derive(Debug, Default)]
pub(super) struct Recollection {
    slots: Vec<Slot>,
}

impl Recollection {
    /// Says what is known of the hash, and remembers it.
    #[inline]
    pub fn recall(&mut self, hash: u32) -> Recall {
        if self.slots.is_empty() {
            let empty = Slot { hash: 0, number: 0, state: State::Empty };
            self.slots = vec![empty; SLOTS];
        }
        let slot = &mut self.slots[hash as usize % SLOTS];
        if slot.hash == hash && slot.state != State::Empty {
            return match slot.state {
                State::Entered | State::Challenged => {
                    slot.state = State::Entered;
                    Recall::Entered(slot.number)
                }
                _ => Recall::Seen,
            };
        }
        if slot.state == State::Entered {
            slot.state = State::Challenged;
        } else {
            *slot = Slot { hash, number: 0, state: State::Seen };
        }
        Recall::New
    }

    /// The hash was entered into the table under this number.
    pub fn enter(&mut self, hash: u32, number: u32) {
        if let Some(slot) = self.slots.get_mut(hash as usize % SLOTS) {
            *slot = Slot { hash, number, state: State::Entered };
        }
    }
}

/// A quick hash: nothing but compression depends on it.
#[inline]
pub(super) fn hash(seed: u32, bytes: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

    let mix = |state: u64, word: u64| (state.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut state = mix(u64::from(seed), bytes.len() as u64);
    for word in words {
        state = mix(state, u64::from_le_bytes(*word));
    }
    let last = rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    state = mix(state, last);
    (state >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_in_use_outlives_passers_by() {
        let mut recollection = Recollection::default();
        let (steady, passing) = (5, |round: u32| 5 + 64 * (round + 1));
        assert_eq!(recollection.recall(steady), Recall::New);
        assert_eq!(recollection.recall(steady), Recall::Seen);
        recollection.enter(steady, 7);
        for round in 0..10 {
            assert_eq!(recollection.recall(passing(round)), Recall::New);
            assert_eq!(recollection.recall(steady), Recall::Entered(7));
        }
        // Two in a row, and the place is another's.
        assert_eq!(recollection.recall(passing(0)), Recall::New);
        assert_eq!(recollection.recall(passing(0)), Recall::New);
        assert_eq!(recollection.recall(passing(0)), Recall::Seen);
        assert_eq!(recollection.recall(steady), Recall::New);
    }
}
