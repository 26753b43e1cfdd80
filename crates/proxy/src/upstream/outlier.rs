//! Outlier detection: hosts that fail several times in a row are left out for a while.
//!
//! Counting is per process, in the host itself; whoever sees the last straw ejects. Times are milliseconds of the
//! process's monotonic clock, so that any worker can compare them.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::upstream::config::OutlierConfig;

/// A host's errors and its ejection.
#[derive(Debug, Default)]
pub struct HostOutlier {
    consecutive_5xx: AtomicU32,
    consecutive_gateway: AtomicU32,
    consecutive_local: AtomicU32,
    ejected: AtomicBool,
    /// When it was ejected, in monotonic milliseconds.
    ejected_at_ms: AtomicU64,
    /// How often it was; sinks by one for each interval without ejection.
    ejections: AtomicU32,
}

/// What a request to a host came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A response with this status.
    Status(u16),
    /// Connect failure, reset or timeout: never got a response.
    LocalFailure,
    /// A connection was made (tells local-origin success where it is split).
    LocalSuccess,
}

/// Why a host was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ejection {
    /// 5xx in a row.
    Consecutive5xx,
    /// Gateway failures in a row.
    ConsecutiveGatewayFailure,
    /// Local failures in a row.
    ConsecutiveLocalOriginFailure,
}

impl HostOutlier {
    /// Is the host left out now?
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// How often it has been ejected lately.
    pub fn ejections(&self) -> u32 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// Counts an outcome; says whether it is the one that calls for ejection. The common case, a good answer from a
    /// host without errors, writes nothing.
    pub fn record(&self, config: &OutlierConfig, outcome: Outcome) -> Option<Ejection> {
        match outcome {
            Outcome::Status(status) if status >= 500 => {
                let gateway = matches!(status, 502..=504);
                if gateway {
                    if reached(&self.consecutive_gateway, config.consecutive_gateway_failure)
                        && config.enforcing_consecutive_gateway_failure > 0
                    {
                        return Some(Ejection::ConsecutiveGatewayFailure);
                    }
                } else {
                    clear(&self.consecutive_gateway);
                }
                reached(&self.consecutive_5xx, config.consecutive_5xx)
                    .then_some(Ejection::Consecutive5xx)
                    .filter(|_| config.enforcing_consecutive_5xx > 0)
            }
            Outcome::Status(_) => {
                clear(&self.consecutive_5xx);
                clear(&self.consecutive_gateway);
                None
            }
            Outcome::LocalFailure if config.split_local_origin => {
                reached(&self.consecutive_local, config.consecutive_local_origin_failure)
                    .then_some(Ejection::ConsecutiveLocalOriginFailure)
                    .filter(|_| config.enforcing_consecutive_local_origin_failure > 0)
            }
            // Not told apart: as Envoy, a local failure counts as a 503.
            Outcome::LocalFailure => self.record(config, Outcome::Status(503)),
            Outcome::LocalSuccess => {
                clear(&self.consecutive_local);
                None
            }
        }
    }

    /// Leaves the host out from `now_ms` on; `false` if it already was.
    pub fn eject(&self, now_ms: u64) -> bool {
        if self.ejected.swap(true, Ordering::Relaxed) {
            return false;
        }
        self.ejected_at_ms.store(now_ms, Ordering::Relaxed);
        self.ejections.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Every interval: takes the host back once its time is over. Says whether it did.
    pub fn tick(&self, config: &OutlierConfig, now_ms: u64) -> bool {
        if !self.is_ejected() {
            let _ = self
                .ejections
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            return false;
        }
        let base = u64::try_from(config.base_ejection_time.as_millis()).unwrap_or(u64::MAX);
        let max =
            u64::try_from(config.max_ejection_time.max(config.base_ejection_time).as_millis())
                .unwrap_or(u64::MAX);
        let time = base.saturating_mul(u64::from(self.ejections())).min(max);
        if now_ms < self.ejected_at_ms.load(Ordering::Relaxed).saturating_add(time) {
            return false;
        }
        clear(&self.consecutive_5xx);
        clear(&self.consecutive_gateway);
        clear(&self.consecutive_local);
        self.ejected.store(false, Ordering::Relaxed);
        true
    }
}

/// May one more of `total` hosts be ejected when `ejected` already are?
pub fn may_eject(config: &OutlierConfig, ejected: usize, total: usize) -> bool {
    if ejected == 0 && config.always_eject_one_host {
        return true;
    }
    // As Envoy: the percentage is of what is out already, so that one host of a few may always go when it is not 0.
    total > 0 && (ejected * 100) as f64 / (total as f64) < f64::from(config.max_ejection_percent)
}

fn reached(counter: &AtomicU32, threshold: Option<u32>) -> bool {
    let Some(threshold) = threshold else { return false };
    let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
    if count >= threshold {
        counter.store(0, Ordering::Relaxed);
        return true;
    }
    false
}

fn clear(counter: &AtomicU32) {
    if counter.load(Ordering::Relaxed) != 0 {
        counter.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn five_in_a_row_eject_and_time_takes_back() {
        let config = OutlierConfig::default();
        let host = HostOutlier::default();
        for _ in 0..4 {
            assert_eq!(host.record(&config, Outcome::Status(500)), None);
        }
        assert_eq!(host.record(&config, Outcome::Status(200)), None);
        for _ in 0..4 {
            assert_eq!(host.record(&config, Outcome::LocalFailure), None);
        }
        assert_eq!(host.record(&config, Outcome::Status(503)), Some(Ejection::Consecutive5xx));
        assert!(host.eject(1_000));
        assert!(!host.eject(1_000));
        assert!(!host.tick(&config, 30_999));
        assert!(host.tick(&config, 31_000));
        assert!(!host.is_ejected());
        // The second time lasts twice as long.
        assert!(host.eject(40_000));
        assert!(!host.tick(&config, 99_999));
        assert!(host.tick(&config, 100_000));
    }

    #[test]
    fn split_local_failures_count_apart() {
        let config = OutlierConfig {
            split_local_origin: true,
            consecutive_local_origin_failure: Some(2),
            base_ejection_time: Duration::from_secs(1),
            ..OutlierConfig::default()
        };
        let host = HostOutlier::default();
        assert_eq!(host.record(&config, Outcome::LocalFailure), None);
        assert_eq!(host.record(&config, Outcome::LocalSuccess), None);
        assert_eq!(host.record(&config, Outcome::LocalFailure), None);
        assert_eq!(
            host.record(&config, Outcome::LocalFailure),
            Some(Ejection::ConsecutiveLocalOriginFailure)
        );
    }

    #[test]
    fn percentage_limits_ejection() {
        let config = OutlierConfig::default();
        assert!(may_eject(&config, 0, 2));
        assert!(!may_eject(&config, 1, 2));
        assert!(may_eject(&config, 1, 20));
        let none = OutlierConfig { max_ejection_percent: 0, ..OutlierConfig::default() };
        assert!(!may_eject(&none, 0, 2));
        assert!(may_eject(&OutlierConfig { always_eject_one_host: true, ..none }, 0, 2));
    }
}
