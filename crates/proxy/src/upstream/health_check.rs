//! Active health checks: what is asked of a host, how often, and what its answers make of it. The main thread asks
//! (`server::health`); workers see the result in the host itself.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};

use crate::string_matcher::StringMatcher;

/// `HealthCheck`; the defaults are Envoy's.
#[derive(Debug, Clone)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// The answer within this.
    pub timeout: Duration,
    /// Before the first check: anything up to this.
    pub initial_jitter: Duration,
    /// Added to every wait: anything up to this,
    pub interval_jitter: Duration,
    /// and anything up to so many percent of it.
    pub interval_jitter_percent: u32,
    /// Failures in a row that make a host unhealthy.
    pub unhealthy_threshold: u32,
    /// Successes in a row that make it healthy again.
    pub healthy_threshold: u32,
    /// Between checks.
    pub intervals: Intervals,
    /// Keep the connection between checks (true).
    pub reuse_connection: bool,
}

/// How long to wait before the next check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// Of a healthy host.
    pub healthy: Duration,
    /// Of a host that answered well but is not taken back yet.
    pub healthy_edge: Duration,
    /// Of an unhealthy host.
    pub unhealthy: Duration,
    /// Of a host that answered badly but is not given up yet.
    pub unhealthy_edge: Duration,
    /// Of an unhealthy host, as long as nothing was ever sent to the cluster (60 s).
    pub no_traffic: Duration,
    /// Of a healthy host, likewise (the same).
    pub no_traffic_healthy: Duration,
}

/// What is asked of a host.
#[derive(Debug, Clone)]
pub enum Probe {
    /// A request.
    Http(HttpProbe),
    /// A connection, and maybe an exchange of bytes on it.
    Tcp(TcpProbe),
    /// `grpc.health.v1.Health/Check`.
    Grpc(GrpcProbe),
}

/// `HttpHealthCheck`.
#[derive(Debug, Clone)]
pub struct HttpProbe {
    /// The method.
    pub method: Method,
    /// The host asked for, unless the endpoint has one of its own.
    pub host: Arc<str>,
    /// The path.
    pub path: Arc<str>,
    /// More headers.
    pub headers: HeaderMap,
    /// The request's body.
    pub send: Bytes,
    /// Pieces that the answer's body must have, in this order.
    pub receive: Vec<Bytes>,
    /// So many bytes of it are looked at; 0 is all.
    pub response_buffer: usize,
    /// Good statuses.
    pub expected: Vec<Range<u16>>,
    /// Bad ones that count towards the threshold; others give a host up at once.
    pub retriable: Vec<Range<u16>>,
    /// HTTP/2 by prior knowledge or ALPN, rather than HTTP/1.1.
    pub http2: bool,
    /// What `x-envoy-upstream-healthchecked-cluster` must say.
    pub service: Option<StringMatcher>,
}

/// `TcpHealthCheck`.
#[derive(Debug, Clone)]
pub struct TcpProbe {
    /// What is sent.
    pub send: Bytes,
    /// Pieces that must come back, in this order; nothing is waited for where there are none.
    pub receive: Vec<Bytes>,
}

/// `GrpcHealthCheck`.
#[derive(Debug, Clone)]
pub struct GrpcProbe {
    /// `:authority`, unless the endpoint has a name of its own.
    pub authority: Arc<str>,
    /// More headers.
    pub headers: HeaderMap,
    /// The request's message with its prefix.
    pub message: Bytes,
}

/// Where an endpoint is checked, if not where requests go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckTarget {
    /// Another port.
    pub port: Option<u16>,
    /// Another address.
    pub address: Option<std::net::SocketAddr>,
    /// The name to ask for.
    pub hostname: Arc<str>,
    /// It is not checked.
    pub disabled: bool,
}

/// What one check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The answer was good.
    Success,
    /// It was bad.
    Failure,
    /// It was bad, in a way that may pass.
    Retriable,
    /// There was none: no connection, not in time, cut off.
    Network,
}

/// What a check changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Nothing.
    Unchanged,
    /// Nothing yet: the threshold is not reached.
    Pending,
    /// The host is healthy now and was not, or the other way round.
    Changed,
}

/// One host's answers in a row.
#[derive(Debug, Default)]
pub struct Streak {
    answered: bool,
    successes: u32,
    failures: u32,
}

impl Streak {
    /// Takes an outcome in; `failed` is what the host counts as until now.
    pub fn take(&mut self, check: &HealthCheck, failed: bool, outcome: Outcome) -> Transition {
        let first = !std::mem::replace(&mut self.answered, true);
        if outcome == Outcome::Success {
            self.failures = 0;
            if !failed {
                return Transition::Unchanged;
            }
            self.successes += 1;
            // The first answer ever counts at once, so that start-up is quick.
            let enough = first || self.successes >= check.healthy_threshold;
            return if enough { Transition::Changed } else { Transition::Pending };
        }
        self.successes = 0;
        if failed {
            return Transition::Unchanged;
        }
        self.failures += 1;
        let enough = outcome == Outcome::Failure || self.failures >= check.unhealthy_threshold;
        if enough { Transition::Changed } else { Transition::Pending }
    }
}

impl Intervals {
    /// How long to wait after a check, without jitter.
    pub fn after(&self, succeeded: bool, transition: Transition, had_traffic: bool) -> Duration {
        let edge = transition == Transition::Pending;
        match (had_traffic, succeeded, edge) {
            (false, true, _) => self.no_traffic_healthy,
            (false, false, _) => self.no_traffic,
            (true, true, false) => self.healthy,
            (true, true, true) => self.healthy_edge,
            (true, false, false) => self.unhealthy,
            (true, false, true) => self.unhealthy_edge,
        }
    }
}

impl HttpProbe {
    /// What an answer with this status, before anything else is looked at, comes to.
    pub fn judge_status(&self, status: u16) -> Outcome {
        let within = |ranges: &[Range<u16>]| ranges.iter().any(|range| range.contains(&status));
        if within(&self.expected) {
            Outcome::Success
        } else if within(&self.retriable) {
            Outcome::Retriable
        } else {
            Outcome::Failure
        }
    }
}

/// Are the pieces there, one after the other?
pub fn has_pieces(mut bytes: &[u8], pieces: &[Bytes]) -> bool {
    pieces.iter().all(|piece| match memchr::memmem::find(bytes, piece) {
        Some(at) => {
            bytes = &bytes[at + piece.len()..];
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(unhealthy_threshold: u32, healthy_threshold: u32) -> HealthCheck {
        let second = Duration::from_secs(1);
        HealthCheck {
            probe: Probe::Tcp(TcpProbe { send: Bytes::new(), receive: Vec::new() }),
            timeout: second,
            initial_jitter: Duration::ZERO,
            interval_jitter: Duration::ZERO,
            interval_jitter_percent: 0,
            unhealthy_threshold,
            healthy_threshold,
            intervals: Intervals {
                healthy: second,
                healthy_edge: second * 2,
                unhealthy: second * 3,
                unhealthy_edge: second * 4,
                no_traffic: second * 60,
                no_traffic_healthy: second * 50,
            },
            reuse_connection: true,
        }
    }

    /// The host's health after each outcome.
    fn run(check: &HealthCheck, outcomes: &[Outcome]) -> Vec<bool> {
        let (mut streak, mut failed) = (Streak::default(), true);
        let step = |outcome: &Outcome| {
            if streak.take(check, failed, *outcome) == Transition::Changed {
                failed = !failed;
            }
            !failed
        };
        outcomes.iter().map(step).collect()
    }

    #[test]
    fn thresholds() {
        use Outcome::{Failure, Network, Retriable, Success};
        let cases: &[(&[Outcome], &[bool])] = &[
            // The first answer counts at once, later ones by the thresholds.
            (&[Success], &[true]),
            (&[Failure, Success, Success], &[false, false, true]),
            (&[Network, Success, Network, Success, Success], &[false, false, false, false, true]),
            (&[Success, Network, Network, Network], &[true, true, true, false]),
            (&[Success, Retriable, Retriable, Success, Retriable], &[true, true, true, true, true]),
            // A bad answer gives a host up at once.
            (&[Success, Failure], &[true, false]),
        ];
        for (outcomes, expected) in cases {
            assert_eq!(run(&check(3, 2), outcomes), *expected, "{outcomes:?}");
        }
    }

    #[test]
    fn waits() {
        let intervals = check(1, 1).intervals;
        let cases = [
            (true, Transition::Unchanged, true, 1),
            (true, Transition::Pending, true, 2),
            (false, Transition::Changed, true, 3),
            (false, Transition::Pending, true, 4),
            (false, Transition::Pending, false, 60),
            (true, Transition::Changed, false, 50),
        ];
        for (succeeded, transition, traffic, seconds) in cases {
            let wait = intervals.after(succeeded, transition, traffic);
            assert_eq!(wait.as_secs(), seconds, "{succeeded} {transition:?} {traffic}");
        }
    }

    #[test]
    fn pieces_come_in_order_but_not_necessarily_together() {
        let pieces = [Bytes::from_static(b"OK"), Bytes::from_static(b"ready")];
        assert!(has_pieces(b"200 OK, and ready.", &pieces));
        assert!(!has_pieces(b"ready? OK", &pieces));
        assert!(!has_pieces(b"OK", &pieces));
        assert!(has_pieces(b"", &[]));
    }
}
