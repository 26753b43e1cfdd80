//! Flow control of what arrives (RFC 9113 §5.2).
//!
//! A window has a target: what the peer may send beyond what has been passed on. It is opened again when half of the target
//! has been passed on, never on arrival. The target grows while the window is what holds the peer up (see [`Probe`]) and
//! falls back while bytes pile up here because whoever should take them is slow.

use super::MAX_WINDOW;

/// What the peer may send on a stream, or on the whole connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReceiveWindow {
    /// Bytes that the peer may still send. Negative after we have lowered the initial window.
    credit: i32,
    /// Bytes that have arrived and have not been passed on.
    held: u32,
    target: u32,
}

impl ReceiveWindow {
    pub fn new(credit: u32, target: u32) -> ReceiveWindow {
        ReceiveWindow { credit: credit as i32, held: 0, target }
    }

    /// Bytes have arrived; false if they were more than the peer was allowed.
    #[inline]
    #[must_use]
    pub fn take(&mut self, len: u32) -> bool {
        if i64::from(len) > i64::from(self.credit) {
            return false;
        }
        self.credit -= len as i32;
        self.held += len;
        true
    }

    /// Bytes have been passed on; says how many of them had been held.
    #[inline]
    pub fn pass(&mut self, len: u32) -> u32 {
        let passed = len.min(self.held);
        self.held -= passed;
        passed
    }

    /// As `pass`, for the window of a stream, whose target falls back towards `least` while its reader is slow.
    pub fn pass_at_readers_pace(&mut self, len: u32, least: u32) -> u32 {
        while self.held > self.target / 2 && self.target > least {
            self.target = (self.target / 2).max(least);
        }
        self.pass(len)
    }

    /// It is worth a frame to open the window again.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.missing() >= i64::from(self.target.div_ceil(2)).max(1)
    }

    /// Opens the window as far as the target says; 0 if it is that far open.
    pub fn grant(&mut self) -> u32 {
        let increment = self.missing().clamp(0, i64::from(MAX_WINDOW)) as u32;
        self.credit += increment as i32;
        increment
    }

    fn missing(&self) -> i64 {
        i64::from(self.target) - i64::from(self.credit) - i64::from(self.held)
    }

    /// The peer has learnt that windows start lower.
    pub fn lower(&mut self, by: u32) {
        self.credit -= by as i32;
    }

    pub fn credit(&self) -> i32 {
        self.credit
    }

    pub fn held(&self) -> u32 {
        self.held
    }

    pub fn target(&self) -> u32 {
        self.target
    }

    /// Raises the target; says whether it was lower.
    pub fn grow_to(&mut self, target: u32) -> bool {
        let grows = target > self.target;
        self.target = self.target.max(target);
        grows
    }

    /// What arrives leaves: at most a quarter of the window waits here.
    pub fn drains(&self) -> bool {
        self.held <= self.target / 4
    }
}

/// Finds out whether a window is too small for the way to the peer: a PING goes out just before a window is opened, and all
/// that arrives until its answer was sent within the old credit. If that was used up, the peer has waited for us. How far a
/// window may grow follows from how long the answer took: on a short way a small one is enough for any throughput, and what
/// a reader who turns out to be slow leaves lying here is small, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Probe {
    /// 0 while no PING is on its way.
    pub stream: u32,
    stream_credit: u32,
    connection_credit: u32,
    stream_used: u32,
    connection_used: u32,
    started_ns: u64,
    /// The least time that an answer has taken; 0 before the first.
    way_ns: u64,
    /// Openings of a window to let pass before the next try: doubled whenever one helps nothing.
    pause: u8,
    passes: u8,
}

/// A stream is not to need more than its window at this throughput, in bytes a millisecond.
const PACE: u64 = 512 * 1024;

const LONGEST_PAUSE: u8 = 64;

/// What a probe has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub stream: u32,
    pub stream_is_narrow: bool,
    pub connection_is_narrow: bool,
    /// More than this a stream's window need not be, for the length of the way.
    pub enough: u32,
}

impl Probe {
    /// Whether a PING is to be sent before this stream's window is opened.
    pub fn start(
        &mut self,
        stream: u32,
        window: &ReceiveWindow,
        connection: &ReceiveWindow,
        now_ns: u64,
    ) -> bool {
        if self.stream != 0 {
            return false;
        }
        if self.passes < self.pause {
            self.passes += 1;
            return false;
        }
        let credit = |window: &ReceiveWindow| window.credit().max(0) as u32;
        *self = Probe {
            stream,
            stream_credit: credit(window),
            connection_credit: credit(connection),
            started_ns: now_ns,
            way_ns: self.way_ns,
            pause: self.pause,
            ..Probe::default()
        };
        true
    }

    #[inline]
    pub fn arrived(&mut self, stream: u32, len: u32) {
        if self.stream != 0 {
            self.connection_used = self.connection_used.saturating_add(len);
            if self.stream == stream {
                self.stream_used = self.stream_used.saturating_add(len);
            }
        }
    }

    /// The answer is there.
    pub fn finish(&mut self, now_ns: u64) -> Option<Verdict> {
        let stream = std::mem::take(&mut self.stream);
        if stream == 0 {
            return None;
        }
        let took_ns = now_ns.saturating_sub(self.started_ns).max(1);
        self.way_ns = if self.way_ns == 0 { took_ns } else { self.way_ns.min(took_ns) };
        let enough = self.way_ns.saturating_mul(PACE) / 1_000_000;
        let is_narrow = |used: u32, credit: u32| used >= credit - credit / 8;
        let verdict = Verdict {
            stream,
            stream_is_narrow: is_narrow(self.stream_used, self.stream_credit),
            connection_is_narrow: is_narrow(self.connection_used, self.connection_credit),
            enough: u32::try_from(enough).unwrap_or(u32::MAX),
        };
        self.pause = (self.pause * 2 + 1).min(LONGEST_PAUSE);
        self.passes = 0;
        Some(verdict)
    }

    /// Something has grown: the next try may come at once.
    pub fn has_helped(&mut self) {
        self.pause = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_again_only_for_what_was_passed_on() {
        let mut window = ReceiveWindow::new(100, 100);
        assert!(window.take(60) && !window.take(41) && window.take(40));
        assert!(!window.is_due() && window.grant() == 0);
        assert_eq!(window.pass(49), 49);
        assert!(!window.is_due());
        assert_eq!(window.pass(1), 1);
        assert!(window.is_due());
        assert_eq!((window.grant(), window.credit(), window.held()), (50, 50, 50));
        assert_eq!(window.pass(1000), 50, "never more than had come");
        assert_eq!((window.grant(), window.credit()), (50, 100));
    }

    #[test]
    fn a_lowered_window_is_worked_off_first() {
        let mut window = ReceiveWindow::new(100, 30);
        assert!(window.take(90));
        window.lower(70);
        assert!(!window.take(1) && window.credit() == -60);
        assert_eq!((window.pass(90), window.is_due()), (90, true));
        assert_eq!((window.grant(), window.credit()), (90, 30));
    }

    #[test]
    fn the_target_follows_the_reader() {
        let mut window = ReceiveWindow::new(100, 100);
        assert!(window.grow_to(400));
        assert_eq!(window.grant(), 300);
        assert!(window.take(390) && !window.drains());
        assert_eq!(window.pass_at_readers_pace(10, 100), 10);
        assert_eq!((window.target(), window.is_due()), (100, false), "it is slow");
        assert_eq!(window.pass_at_readers_pace(380, 100), 380);
        assert_eq!((window.grant(), window.credit()), (90, 100));
        assert!(!window.grow_to(50) && window.target() == 100);
    }

    #[test]
    fn a_probe_tells_a_long_way_from_a_slow_sender() {
        let (mut probe, narrow) = (Probe::default(), ReceiveWindow::new(100, 200));
        let connection = ReceiveWindow::new(10_000, 10_000);
        const MS: u64 = 1_000_000;
        assert!(probe.start(3, &narrow, &connection, MS));
        assert!(!probe.start(3, &narrow, &connection, MS), "one at a time");
        probe.arrived(3, 95);
        probe.arrived(5, 1000);
        let enough = 2 * 512 * 1024;
        let verdict =
            Verdict { stream: 3, stream_is_narrow: true, connection_is_narrow: false, enough };
        assert_eq!(probe.finish(3 * MS), Some(verdict));
        assert_eq!(probe.finish(4 * MS), None, "an answer that nobody waits for");
        probe.has_helped();

        assert!(probe.start(3, &narrow, &connection, 5 * MS));
        probe.arrived(3, 50);
        let verdict = probe.finish(1000 * MS);
        assert!(
            verdict.is_some_and(|verdict| !verdict.stream_is_narrow && verdict.enough == enough)
        );
        assert!(!probe.start(3, &narrow, &connection, 0), "not again at once");
        assert!(probe.start(3, &narrow, &connection, 0));
    }
}
