//! Outlier detection: hosts that fail several times in a row are left out for a while.
//!
//! Counting is per process, in the host itself; whoever sees the last straw ejects. Times are milliseconds of the
//! process's monotonic clock, so that any worker can compare them.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use telemetry::stats::Counter;
use telemetry::stats::sets::Outliers;

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

/// Why a host may be ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ejection {
    /// 502, 503, 504 in a row.
    ConsecutiveGatewayFailure,
    /// 5xx in a row.
    Consecutive5xx,
    /// Local failures in a row.
    ConsecutiveLocalOriginFailure,
}

impl Ejection {
    /// How many percent of such detections eject.
    pub fn enforcing(self, config: &OutlierConfig) -> u32 {
        match self {
            Self::ConsecutiveGatewayFailure => config.enforcing_consecutive_gateway_failure,
            Self::Consecutive5xx => config.enforcing_consecutive_5xx,
            Self::ConsecutiveLocalOriginFailure => {
                config.enforcing_consecutive_local_origin_failure
            }
        }
    }

    /// What counts its detections, and its ejections.
    pub fn counters(self) -> (Counter<Outliers>, Counter<Outliers>) {
        match self {
            Self::ConsecutiveGatewayFailure => (
                Outliers::EJECTIONS_DETECTED_CONSECUTIVE_GATEWAY_FAILURE,
                Outliers::EJECTIONS_ENFORCED_CONSECUTIVE_GATEWAY_FAILURE,
            ),
            Self::Consecutive5xx => (
                Outliers::EJECTIONS_DETECTED_CONSECUTIVE_5XX,
                Outliers::EJECTIONS_ENFORCED_CONSECUTIVE_5XX,
            ),
            Self::ConsecutiveLocalOriginFailure => (
                Outliers::EJECTIONS_DETECTED_CONSECUTIVE_LOCAL_ORIGIN_FAILURE,
                Outliers::EJECTIONS_ENFORCED_CONSECUTIVE_LOCAL_ORIGIN_FAILURE,
            ),
        }
    }
}

/// What one outcome was the last straw of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Detected {
    gateway_failure: bool,
    five_xx: bool,
    local_origin_failure: bool,
}

impl Detected {
    /// In the order in which Envoy looks at them.
    pub fn kinds(self) -> impl Iterator<Item = Ejection> {
        [
            (self.gateway_failure, Ejection::ConsecutiveGatewayFailure),
            (self.five_xx, Ejection::Consecutive5xx),
            (self.local_origin_failure, Ejection::ConsecutiveLocalOriginFailure),
        ]
        .into_iter()
        .filter_map(|(is_detected, kind)| is_detected.then_some(kind))
    }
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

    /// Counts an outcome; says what has been detected with it. The common case, a good answer from a host without errors,
    /// writes nothing.
    pub fn record(&self, config: &OutlierConfig, outcome: Outcome) -> Detected {
        match outcome {
            Outcome::Status(status) if status >= 500 => {
                let is_gateway = matches!(status, 502..=504);
                if !is_gateway {
                    clear(&self.consecutive_gateway);
                }
                Detected {
                    gateway_failure: is_gateway
                        && reached(&self.consecutive_gateway, config.consecutive_gateway_failure),
                    five_xx: reached(&self.consecutive_5xx, config.consecutive_5xx),
                    local_origin_failure: false,
                }
            }
            Outcome::Status(_) => {
                clear(&self.consecutive_5xx);
                clear(&self.consecutive_gateway);
                Detected::default()
            }
            Outcome::LocalFailure if config.split_local_origin => Detected {
                local_origin_failure: reached(
                    &self.consecutive_local,
                    config.consecutive_local_origin_failure,
                ),
                ..Detected::default()
            },
            // Not told apart: as Envoy, a local failure counts as a 503.
            Outcome::LocalFailure => self.record(config, Outcome::Status(503)),
            Outcome::LocalSuccess => {
                clear(&self.consecutive_local);
                Detected::default()
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
    // As Envoy: with this one the percentage must not be passed, so that 10 % of two hosts is none.
    total > 0 && (ejected + 1) * 100 <= total * config.max_ejection_percent as usize
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

    fn detected(host: &HostOutlier, config: &OutlierConfig, outcome: Outcome) -> Vec<Ejection> {
        host.record(config, outcome).kinds().collect()
    }

    #[test]
    fn five_in_a_row_eject_and_time_takes_back() {
        let config = OutlierConfig::default();
        let host = HostOutlier::default();
        let record = |outcome| detected(&host, &config, outcome);
        for _ in 0..4 {
            assert_eq!(record(Outcome::Status(500)), []);
        }
        assert_eq!(record(Outcome::Status(200)), []);
        assert_eq!(record(Outcome::Status(500)), []);
        for _ in 0..3 {
            assert_eq!(record(Outcome::LocalFailure), []);
        }
        assert_eq!(record(Outcome::Status(503)), [Ejection::Consecutive5xx]);
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
    fn gateway_failures_are_told_apart_from_other_5xx() {
        let config = OutlierConfig {
            consecutive_gateway_failure: Some(2),
            consecutive_5xx: Some(4),
            ..OutlierConfig::default()
        };
        let host = HostOutlier::default();
        let record = |status| detected(&host, &config, Outcome::Status(status));
        assert_eq!(record(502), []);
        assert_eq!(record(500), [], "not a gateway's failure: they begin anew");
        assert_eq!(record(503), []);
        assert_eq!(
            record(504),
            [Ejection::ConsecutiveGatewayFailure, Ejection::Consecutive5xx],
            "the second of the one and the fourth of the other"
        );
        assert_eq!(Ejection::ConsecutiveGatewayFailure.enforcing(&config), 0, "unless asked for");
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
        let record = |outcome| detected(&host, &config, outcome);
        assert_eq!(record(Outcome::LocalFailure), []);
        assert_eq!(record(Outcome::LocalSuccess), []);
        assert_eq!(record(Outcome::LocalFailure), []);
        assert_eq!(record(Outcome::LocalFailure), [Ejection::ConsecutiveLocalOriginFailure]);
    }

    #[test]
    fn percentage_limits_ejection() {
        let of = |max_ejection_percent| OutlierConfig {
            max_ejection_percent,
            ..OutlierConfig::default()
        };
        // (percent, ejected, hosts, one more?), as Envoy 1.40 decides.
        let table = [
            (10, 0, 1, false),
            (10, 0, 2, false),
            (49, 0, 2, false),
            (50, 0, 2, true),
            (50, 1, 2, false),
            (25, 0, 4, true),
            (10, 1, 20, true),
            (10, 2, 20, false),
            (100, 1, 2, true),
            (0, 0, 1000, false),
        ];
        for (percent, ejected, hosts, expected) in table {
            assert_eq!(
                may_eject(&of(percent), ejected, hosts),
                expected,
                "{percent} {ejected} {hosts}"
            );
        }
        let always = OutlierConfig { always_eject_one_host: true, ..of(0) };
        assert!(may_eject(&always, 0, 2));
        assert!(!may_eject(&always, 1, 2));
    }
}
