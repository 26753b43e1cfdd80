//! A worker's clock: read once a loop turn, so that asking for the time costs nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Monotonic and wall time of this loop turn.
#[derive(Debug)]
pub struct Clock {
    now_ns: u64,
    /// Wall time minus monotonic time.
    wall_offset_ns: u64,
    /// When the offset is looked at again.
    next_sync_ns: u64,
    /// `date` header text and the second it is for.
    date: String,
    date_second: u64,
}

/// Wall-clock steps are noticed within this.
const SYNC_NS: u64 = 500_000_000;

impl Clock {
    /// A clock that shows now.
    pub fn new() -> Self {
        let mut clock = Self {
            now_ns: 0,
            wall_offset_ns: 0,
            next_sync_ns: 0,
            date: String::new(),
            date_second: u64::MAX,
        };
        clock.update();
        clock
    }

    /// Reads the system's clock.
    #[inline]
    pub fn update(&mut self) {
        let time = clock_gettime(ClockId::Monotonic);
        self.now_ns = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
        if self.now_ns >= self.next_sync_ns {
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.wall_offset_ns = (wall.as_nanos() as u64).wrapping_sub(self.now_ns);
            self.next_sync_ns = self.now_ns + SYNC_NS;
        }
    }

    /// Monotonic nanoseconds.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// Nanoseconds since the Unix epoch.
    #[inline]
    pub fn wall_ns(&self) -> u64 {
        self.now_ns.wrapping_add(self.wall_offset_ns)
    }

    /// The deadline that lies `after` from now; `u64::MAX` for none.
    #[inline]
    pub fn after(&self, after: Option<Duration>) -> u64 {
        after.map_or(u64::MAX, |after| {
            self.now_ns.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX))
        })
    }

    /// The time as `date` headers say it (RFC 9110 §5.6.7).
    pub fn http_date(&mut self) -> &str {
        let second = self.wall_ns() / 1_000_000_000;
        if second != self.date_second {
            self.date_second = second;
            self.date.clear();
            if let Ok(time) = jiff::Timestamp::from_second(second as i64) {
                self.date = time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            }
        }
        &self.date
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_imf_fixdate() {
        let mut clock =
            Clock { now_ns: 0, wall_offset_ns: 784_111_777_000_000_000, ..Clock::new() };
        clock.date_second = u64::MAX;
        assert_eq!(clock.http_date(), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
