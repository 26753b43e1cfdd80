//! One timer wheel per worker: hierarchical, with a resolution of a millisecond.
//!
//! Owners keep their deadlines as fields and one [`TimerHandle`]. They re-arm lazily: a timer that is due no later than
//! the new deadline is left alone, and whoever is woken early looks at its fields and arms again. So a deadline that
//! moves with every request costs a comparison.

/// Slots per level.
const SLOTS: usize = 64;
/// 64 ms, 4 s, 4.4 min, 4.7 h; what is farther waits in the last level.
const LEVELS: usize = 4;
const NONE: u32 = u32::MAX;

/// An owner's timer; the default is "not armed".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimerHandle(u32);

impl Default for TimerHandle {
    fn default() -> Self {
        Self(NONE)
    }
}

#[derive(Debug, Clone, Copy)]
struct Node {
    prev: u32,
    next: u32,
    /// `level * SLOTS + slot`; where its list's head is.
    place: u32,
    /// When it is due, in ticks.
    tick: u64,
    /// Whom it wakes.
    target: u64,
}

/// The wheel.
#[derive(Debug)]
pub struct TimerWheel {
    nodes: Vec<Node>,
    free: u32,
    heads: [u32; SLOTS * LEVELS],
    occupied: [u64; LEVELS],
    /// All ticks up to this one have fired.
    now: u64,
}

/// Nanoseconds of a tick.
const TICK_NS: u64 = 1_000_000;

impl TimerWheel {
    /// A wheel that begins at `now_ns`.
    pub fn new(now_ns: u64) -> Self {
        Self {
            nodes: Vec::new(),
            free: NONE,
            heads: [NONE; SLOTS * LEVELS],
            occupied: [0; LEVELS],
            now: now_ns / TICK_NS,
        }
    }

    /// Makes sure `target` is woken no later than `deadline_ns` (rounded up to a tick). Does nothing when the handle's
    /// timer is due early enough.
    #[inline]
    pub fn arm(&mut self, handle: &mut TimerHandle, target: u64, deadline_ns: u64) {
        let tick = (deadline_ns.div_ceil(TICK_NS)).max(self.now + 1);
        if handle.0 != NONE {
            if self.nodes[handle.0 as usize].tick <= tick {
                return;
            }
            self.unlink(handle.0);
            self.release(handle.0);
        }
        handle.0 = self.allocate(tick, target);
        self.link(handle.0);
    }

    /// Takes a timer out.
    pub fn cancel(&mut self, handle: &mut TimerHandle) {
        if handle.0 != NONE {
            self.unlink(handle.0);
            self.release(handle.0);
            handle.0 = NONE;
        }
    }

    /// When the loop must look again, in nanoseconds from the wheel's origin; `None` when nothing is armed. May be
    /// earlier than the next timer, when a coarser slot has to be spread out first.
    pub fn next_ns(&self) -> Option<u64> {
        let mut next: Option<u64> = None;
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let shift = 6 * level as u32;
            let position = (self.now >> shift) % SLOTS as u64;
            // Slots after the current one come first; the current one itself is a full turn away.
            let rotated = self.occupied[level].rotate_right((position as u32 + 1) % 64);
            let ahead = u64::from(rotated.trailing_zeros()) + 1;
            let tick = ((self.now >> shift) + ahead) << shift;
            next = Some(next.map_or(tick, |other| other.min(tick)));
        }
        next.map(|tick| tick * TICK_NS)
    }

    /// Moves to `now_ns`; pushes the targets of all that are due. Their handles are to be reset by [`Self::fired`].
    pub fn advance(&mut self, now_ns: u64, due: &mut Vec<u64>) {
        let target = now_ns / TICK_NS;
        while self.now < target {
            let Some(next) = self.next_ns() else {
                self.now = target;
                return;
            };
            let next = next / TICK_NS;
            if next > target {
                self.now = target;
                return;
            }
            self.now = next;
            self.cascade();
            self.fire(due);
        }
    }

    /// An owner was woken: its handle is not armed any more.
    pub fn fired(handle: &mut TimerHandle) {
        handle.0 = NONE;
    }

    /// Spreads out the coarser slots that begin now.
    fn cascade(&mut self) {
        for level in (1..LEVELS).rev() {
            let shift = 6 * level as u32;
            if self.now & ((1 << shift) - 1) != 0 {
                continue;
            }
            let place = level * SLOTS + ((self.now >> shift) % SLOTS as u64) as usize;
            let mut index = self.take_list(place);
            while index != NONE {
                let next = self.nodes[index as usize].next;
                self.link(index);
                index = next;
            }
        }
    }

    fn fire(&mut self, due: &mut Vec<u64>) {
        let mut index = self.take_list((self.now % SLOTS as u64) as usize);
        while index != NONE {
            let node = self.nodes[index as usize];
            due.push(node.target);
            self.release(index);
            index = node.next;
        }
    }

    fn take_list(&mut self, place: usize) -> u32 {
        self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
        std::mem::replace(&mut self.heads[place], NONE)
    }

    fn link(&mut self, index: u32) {
        let tick = self.nodes[index as usize].tick;
        // A node due now (possible while cascading) belongs to the slot that fires next.
        let delta = tick.saturating_sub(self.now);
        let level = (0..LEVELS).find(|level| delta < 1 << (6 * (level + 1))).unwrap_or(LEVELS - 1);
        // Beyond the last level: as far as it goes, and again from there.
        let reach = tick.min(self.now + (1 << (6 * LEVELS as u32)) - 1);
        let place = level * SLOTS + ((reach >> (6 * level as u32)) % SLOTS as u64) as usize;
        let head = self.heads[place];
        let node = &mut self.nodes[index as usize];
        (node.prev, node.next, node.place) = (NONE, head, place as u32);
        if head != NONE {
            self.nodes[head as usize].prev = index;
        }
        self.heads[place] = index;
        self.occupied[level] |= 1 << (place % SLOTS);
    }

    fn unlink(&mut self, index: u32) {
        let node = self.nodes[index as usize];
        if node.next != NONE {
            self.nodes[node.next as usize].prev = node.prev;
        }
        if node.prev != NONE {
            self.nodes[node.prev as usize].next = node.next;
            return;
        }
        let place = node.place as usize;
        self.heads[place] = node.next;
        if node.next == NONE {
            self.occupied[place / SLOTS] &= !(1 << (place % SLOTS));
        }
    }

    fn allocate(&mut self, tick: u64, target: u64) -> u32 {
        let node = Node { prev: NONE, next: NONE, place: 0, tick, target };
        if self.free == NONE {
            self.nodes.push(node);
            return (self.nodes.len() - 1) as u32;
        }
        let index = self.free;
        self.free = self.nodes[index as usize].next;
        self.nodes[index as usize] = node;
        index
    }

    fn release(&mut self, index: u32) {
        self.nodes[index as usize].next = self.free;
        self.free = index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn due_at(wheel: &mut TimerWheel, ms: u64) -> Vec<u64> {
        let mut due = Vec::new();
        wheel.advance(ms * MS, &mut due);
        due.sort_unstable();
        due
    }

    #[test]
    fn fires_at_its_time_on_every_level() {
        for start in [0, 17, 63, 64, 4_095, 1_000_003] {
            for delay in [
                1, 2, 63, 64, 65, 127, 128, 4_095, 4_096, 4_097, 15_000, 300_000, 3_600_000,
                20_000_000,
            ] {
                let mut wheel = TimerWheel::new(start * MS);
                let mut handle = TimerHandle::default();
                wheel.arm(&mut handle, 7, (start + delay) * MS);
                // Follow the wheel's own advice about when to look.
                let mut turns = 0;
                loop {
                    let next = wheel.next_ns().unwrap() / MS;
                    assert!(next <= start + delay, "start {start} delay {delay}: woken at {next}");
                    let due = due_at(&mut wheel, next);
                    if next == start + delay {
                        assert_eq!(due, [7], "start {start} delay {delay}");
                        break;
                    }
                    assert!(due.is_empty(), "start {start} delay {delay}: fired early at {next}");
                    turns += 1;
                    assert!(turns < 300, "too many turns");
                }
                assert_eq!(wheel.next_ns(), None);
            }
        }
    }

    #[test]
    fn a_long_sleep_fires_all_that_passed() {
        let mut wheel = TimerWheel::new(0);
        for target in 0..1000_u64 {
            wheel.arm(&mut TimerHandle::default(), target, (target * 37 + 1) * MS);
        }
        assert_eq!(due_at(&mut wheel, 40_000), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn arming_later_is_lazy_and_earlier_moves() {
        let mut wheel = TimerWheel::new(0);
        let mut handle = TimerHandle::default();
        wheel.arm(&mut handle, 1, 50 * MS);
        wheel.arm(&mut handle, 1, 90 * MS);
        assert_eq!(wheel.next_ns(), Some(50 * MS));
        wheel.arm(&mut handle, 1, 20 * MS);
        assert_eq!(due_at(&mut wheel, 20), [1]);
        TimerWheel::fired(&mut handle);
        assert_eq!(due_at(&mut wheel, 100), Vec::<u64>::new());
    }

    #[test]
    fn cancelled_timers_do_not_fire() {
        let mut wheel = TimerWheel::new(0);
        let mut handles = [TimerHandle::default(); 3];
        for (target, handle) in handles.iter_mut().enumerate() {
            wheel.arm(handle, target as u64, 10 * MS);
        }
        wheel.cancel(&mut handles[1]);
        assert_eq!(due_at(&mut wheel, 10), [0, 2]);
        wheel.cancel(&mut handles[1]);
        assert_eq!(wheel.next_ns(), None);
    }
}
