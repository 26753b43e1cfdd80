//! `connection_keepalive`: PINGs that find out whether an HTTP/2 peer is still there, on either side of the proxy.

use rand::Rng;

use super::config::Http2Keepalive;
use super::conn_manager::after;

/// When to send the next PING, and when to stop waiting for the answer to the last.
#[derive(Debug, Clone, Copy)]
pub struct Keepalive {
    next_ns: u64,
    dead_ns: u64,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Nothing,
    /// A PING.
    Ping,
    /// The peer has not answered: the connection is given up.
    Dead,
}

impl Keepalive {
    /// For a new connection. The first PING comes after one interval.
    pub fn new(config: &Http2Keepalive, now_ns: u64, random: &mut impl Rng) -> Self {
        Self { next_ns: next(config, now_ns, random), dead_ns: u64::MAX }
    }

    /// When to look.
    pub fn deadline(&self) -> u64 {
        self.next_ns.min(self.dead_ns)
    }

    /// What is due; a PING is taken for sent.
    pub fn due(&mut self, config: &Http2Keepalive, now_ns: u64) -> Due {
        if self.dead_ns <= now_ns {
            return Due::Dead;
        }
        if self.next_ns > now_ns {
            return Due::Nothing;
        }
        self.sent(config, now_ns);
        Due::Ping
    }

    /// A PING goes out now, whoever asked for it. False when one is under way already.
    pub fn sent(&mut self, config: &Http2Keepalive, now_ns: u64) -> bool {
        if self.dead_ns != u64::MAX {
            return false;
        }
        self.next_ns = u64::MAX;
        self.dead_ns = after(now_ns, Some(config.timeout));
        true
    }

    /// The peer has been heard: it lives. Any byte of it will do, as in Envoy.
    pub fn heard(&mut self, config: &Http2Keepalive, now_ns: u64, random: &mut impl Rng) {
        if self.dead_ns != u64::MAX {
            *self = Self::new(config, now_ns, random);
        }
    }
}

fn next(config: &Http2Keepalive, now_ns: u64, random: &mut impl Rng) -> u64 {
    let Some(interval) = config.interval else { return u64::MAX };
    let most = interval.as_nanos() as u64 / 100 * u64::from(config.jitter_percent);
    after(now_ns, Some(interval)).saturating_add(random.random_range(0..=most))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    #[test]
    fn a_ping_is_answered_or_the_connection_is_dead() {
        let config = Http2Keepalive {
            interval: Some(Duration::from_nanos(1000)),
            timeout: Duration::from_nanos(500),
            jitter_percent: 0,
            idle_interval: None,
        };
        let mut random = SmallRng::seed_from_u64(1);
        let mut keepalive = Keepalive::new(&config, 0, &mut random);
        assert_eq!((keepalive.deadline(), keepalive.due(&config, 999)), (1000, Due::Nothing));
        assert_eq!(keepalive.due(&config, 1000), Due::Ping);
        assert_eq!((keepalive.deadline(), keepalive.due(&config, 1499)), (1500, Due::Nothing));
        assert!(!keepalive.sent(&config, 1499), "one at a time");
        keepalive.heard(&config, 1499, &mut random);
        assert_eq!((keepalive.deadline(), keepalive.due(&config, 1500)), (2499, Due::Nothing));
        assert_eq!(keepalive.due(&config, 2499), Due::Ping);
        assert_eq!(keepalive.due(&config, 2999), Due::Dead);
    }
}
