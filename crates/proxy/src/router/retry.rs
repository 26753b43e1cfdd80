//! Whether a failed attempt is made again, and when: Envoy's `retry_on` rules as one request's state.

use std::sync::Arc;
use std::time::Duration;

use codec::headers::{HeaderName, KnownName, ResponseHead, names};
use rand::Rng;
use smallvec::SmallVec;

use super::config::{RetryOn, RetryPolicy};
use codec::headers::RequestHead;

/// One request's retries. `None` in its place is a request that is never retried.
#[derive(Debug)]
pub struct RetryState {
    policy: Arc<RetryPolicy>,
    on: RetryOn,
    /// Codes that the request itself named, beside the policy's.
    header_codes: SmallVec<[u16; 4]>,
    /// Names of response headers that the request itself named.
    header_names: Vec<HeaderName>,
    remaining: u32,
    made: u32,
}

/// How an attempt ended without a response that could be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptFailure {
    /// No connection was had: refused, unreachable, timed out, TLS handshake failed.
    Connect,
    /// The connection or the stream ended before the response began.
    Reset {
        /// Some of the request had been sent.
        request_started: bool,
        /// The peer says it has done nothing (HTTP/2 `REFUSED_STREAM`).
        refused: bool,
    },
    /// The attempt's own time was over.
    PerTryTimeout,
    /// A circuit breaker said no: never retried.
    Overflow,
}

/// What follows from a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not one of the conditions: pass on what there is.
    No,
    /// It would be, but all retries are used (flag `URX`).
    LimitExceeded,
    /// Again, after the back-off.
    Retry,
}

impl RetryState {
    /// The retries of a request: by its route's policy and, where `honour_headers`, by its own `x-envoy-retry-on` and
    /// friends, which override the numbers and add to the conditions. Unknown words in headers are ignored, as in Envoy.
    pub fn new(
        policy: Option<&Arc<RetryPolicy>>,
        request: &RequestHead,
        honour_headers: bool,
    ) -> Option<Self> {
        // The policy may be for requests with certain headers alone.
        let is_meant = |policy: &&Arc<RetryPolicy>| {
            let wanted = &policy.retriable_request_headers;
            wanted.is_empty() || wanted.iter().any(|matcher| matcher.matches(request))
        };
        let mut on = policy.filter(is_meant).map_or(RetryOn::default(), |policy| policy.on);
        let mut remaining = policy.map_or(1, |policy| policy.num_retries);
        let (mut header_codes, mut header_names) = (SmallVec::new(), Vec::new());
        if honour_headers {
            for name in [names::X_ENVOY_RETRY_ON, names::X_ENVOY_RETRY_GRPC_ON] {
                if let Some(words) = header(request, name) {
                    on = on | RetryOn::parse(words).0;
                }
            }
            if let Some(number) =
                header(request, names::X_ENVOY_MAX_RETRIES).and_then(|text| text.parse().ok())
            {
                remaining = number;
            }
            if let Some(codes) = header(request, names::X_ENVOY_RETRIABLE_STATUS_CODES) {
                header_codes
                    .extend(codes.split(',').filter_map(|code| code.trim().parse::<u16>().ok()));
            }
            if let Some(named) = header(request, names::X_ENVOY_RETRIABLE_HEADER_NAMES) {
                header_names.extend(
                    named.split(',').filter_map(|name| HeaderName::parse(name.trim()).ok()),
                );
            }
        }
        if on.is_empty() {
            return None;
        }
        Some(Self {
            policy: policy.cloned().unwrap_or_default(),
            on,
            header_codes,
            header_names,
            remaining,
            made: 0,
        })
    }

    /// The policy in force.
    pub fn policy(&self) -> &RetryPolicy {
        &self.policy
    }

    /// Retries made so far.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// A response has begun: is it one to throw away and try again? A `Retry` is counted as made.
    pub fn on_response(&mut self, response: &ResponseHead) -> Verdict {
        let wanted = self.wants_response(response);
        self.take(wanted)
    }

    /// An attempt has failed before a response: try again? A `Retry` is counted as made.
    pub fn on_failure(&mut self, failure: AttemptFailure) -> Verdict {
        let wanted = self.wants_failure(failure);
        self.take(wanted)
    }

    /// How long to wait before the attempt that [`Verdict::Retry`] announced: anything up to `base × 2^n`, at most the
    /// maximum (Envoy's fully jittered exponential back-off; the first is below `base`).
    pub fn back_off(&self, rng: &mut impl Rng) -> Duration {
        let ceiling = 1_u32
            .checked_shl(self.made.saturating_sub(1))
            .and_then(|factor| self.policy.base_interval.checked_mul(factor))
            .unwrap_or(self.policy.max_interval)
            .min(self.policy.max_interval);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(rng.random_range(0..nanos.max(1)))
    }

    fn take(&mut self, wanted: bool) -> Verdict {
        if !wanted {
            return Verdict::No;
        }
        if self.remaining == 0 {
            return Verdict::LimitExceeded;
        }
        self.remaining -= 1;
        self.made += 1;
        Verdict::Retry
    }

    fn wants_response(&self, response: &ResponseHead) -> bool {
        let on = |conditions| self.on.intersects(conditions);
        if response.get(names::X_ENVOY_RATELIMITED).is_some() {
            return on(RetryOn::ENVOY_RATELIMITED);
        }
        match response.status {
            500.. if on(RetryOn::FIVE_XX) => return true,
            502..=504 if on(RetryOn::GATEWAY_ERROR) => return true,
            409 if on(RetryOn::RETRIABLE_4XX) => return true,
            _ => {}
        }
        let named = |codes: &[u16]| codes.contains(&response.status);
        if on(RetryOn::STATUS_CODES)
            && (named(&self.policy.retriable_status_codes) || named(&self.header_codes))
        {
            return true;
        }
        let has = |name: &HeaderName| response.fields.contains(name);
        if on(RetryOn::HEADERS)
            && (self.policy.retriable_headers.iter().any(|it| it.matches_response(response))
                || self.header_names.iter().any(has))
        {
            return true;
        }
        // A status in the head is a trailers-only gRPC response: it can still be thrown away.
        match response.get(names::GRPC_STATUS) {
            Some(b"1") => on(RetryOn::GRPC_CANCELLED),
            Some(b"4") => on(RetryOn::GRPC_DEADLINE_EXCEEDED),
            Some(b"8") => on(RetryOn::GRPC_RESOURCE_EXHAUSTED),
            Some(b"13") => on(RetryOn::GRPC_INTERNAL),
            Some(b"14") => on(RetryOn::GRPC_UNAVAILABLE),
            _ => false,
        }
    }

    fn wants_failure(&self, failure: AttemptFailure) -> bool {
        let on = |conditions| self.on.intersects(conditions);
        match failure {
            AttemptFailure::Overflow => false,
            AttemptFailure::PerTryTimeout => {
                on(RetryOn::FIVE_XX | RetryOn::GATEWAY_ERROR | RetryOn::RESET)
            }
            AttemptFailure::Connect => on(RetryOn::CONNECT_FAILURE
                | RetryOn::FIVE_XX
                | RetryOn::GATEWAY_ERROR
                | RetryOn::RESET
                | RetryOn::RESET_BEFORE_REQUEST),
            AttemptFailure::Reset { request_started, refused } => {
                on(RetryOn::RESET | RetryOn::FIVE_XX | RetryOn::GATEWAY_ERROR)
                    || (!request_started && on(RetryOn::RESET_BEFORE_REQUEST))
                    || (refused && on(RetryOn::REFUSED_STREAM))
            }
        }
    }
}

fn header(request: &RequestHead, name: KnownName) -> Option<&str> {
    request.get(name).and_then(|value| std::str::from_utf8(value).ok())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn policy(retry_on: &str) -> Arc<RetryPolicy> {
        let (on, unknown) = RetryOn::parse(retry_on);
        assert!(unknown.is_empty(), "{unknown:?}");
        Arc::new(RetryPolicy {
            on,
            retriable_status_codes: vec![418],
            num_retries: 9,
            ..RetryPolicy::default()
        })
    }

    fn state(retry_on: &str) -> RetryState {
        RetryState::new(Some(&policy(retry_on)), &RequestHead::new(), true).expect("a condition")
    }

    fn response(status: u16, headers: &[(&str, &str)]) -> ResponseHead {
        let mut head = ResponseHead::new(status);
        for (name, value) in headers {
            head.fields.append(*name, value.as_bytes());
        }
        head
    }

    #[test]
    fn responses() {
        let cases: &[(&str, u16, &[(&str, &str)], bool)] = &[
            ("5xx", 500, &[], true),
            ("5xx", 499, &[], false),
            ("gateway-error", 500, &[], false),
            ("gateway-error", 503, &[], true),
            ("retriable-4xx", 409, &[], true),
            ("retriable-4xx", 404, &[], false),
            ("retriable-status-codes", 418, &[], true),
            ("5xx", 418, &[], false),
            ("unavailable", 200, &[("grpc-status", "14")], true),
            ("unavailable", 200, &[("grpc-status", "13")], false),
            ("cancelled,internal", 200, &[("grpc-status", "13")], true),
            ("connect-failure,reset", 503, &[], false),
            ("5xx", 503, &[("x-envoy-overloaded", "true")], true),
            ("5xx", 503, &[("x-envoy-ratelimited", "true")], false),
            ("envoy-ratelimited", 429, &[("x-envoy-ratelimited", "true")], true),
        ];
        for (retry_on, status, headers, wanted) in cases {
            let expected = if *wanted { Verdict::Retry } else { Verdict::No };
            assert_eq!(
                state(retry_on).on_response(&response(*status, headers)),
                expected,
                "{retry_on} {status} {headers:?}"
            );
        }
    }

    #[test]
    fn responses_by_header() {
        use crate::route_table::config::{HeaderMatcher, ValueMatch};
        use crate::string_matcher::StringMatcher;
        let matcher = |name: &str, value| HeaderMatcher {
            name: HeaderName::parse(name).expect("a name"),
            value: ValueMatch::String(StringMatcher::exact(value)),
            invert: false,
            treat_missing_as_empty: false,
        };
        let policy = Arc::new(RetryPolicy {
            on: RetryOn::parse("retriable-headers").0,
            num_retries: 9,
            retriable_headers: vec![matcher("x-retry", "1"), matcher(":status", "418")],
            retriable_request_headers: vec![matcher("x-may", "yes"), matcher(":method", "PUT")],
            ..RetryPolicy::default()
        });
        let mut request = RequestHead::new();
        assert!(RetryState::new(Some(&policy), &request, true).is_none(), "not meant");
        request.fields.append("x-may", b"yes");
        let mut state = RetryState::new(Some(&policy), &request, true).expect("meant");
        let cases: &[(u16, &[(&str, &str)], bool)] = &[
            (200, &[("x-retry", "1")], true),
            (200, &[("x-retry", "2")], false),
            (418, &[], true),
            (500, &[("x-other", "1")], false),
        ];
        for (status, headers, wanted) in cases {
            let verdict = state.on_response(&response(*status, headers));
            assert_eq!(verdict == Verdict::Retry, *wanted, "{status} {headers:?}");
        }
        // By the request itself.
        request.fields.append("x-envoy-retry-on", b"retriable-headers");
        request.fields.append("x-envoy-retriable-header-names", b"x-one, X-Two");
        let mut state = RetryState::new(None, &request, true).expect("asked for");
        assert_eq!(state.on_response(&response(200, &[("x-one-more", "")])), Verdict::No);
        assert_eq!(state.on_response(&response(200, &[("x-two", "")])), Verdict::Retry);
    }

    #[test]
    fn failures() {
        use AttemptFailure::{Connect, Overflow, PerTryTimeout, Reset};
        let started = Reset { request_started: true, refused: false };
        let before = Reset { request_started: false, refused: false };
        let refused = Reset { request_started: true, refused: true };
        let cases = [
            ("connect-failure", Connect, true),
            ("connect-failure", started, false),
            ("5xx", Connect, true),
            ("5xx", started, true),
            ("5xx", PerTryTimeout, true),
            ("reset", started, true),
            ("reset-before-request", started, false),
            ("reset-before-request", before, true),
            ("refused-stream", started, false),
            ("refused-stream", refused, true),
            ("5xx,reset,connect-failure", Overflow, false),
            ("unavailable", Connect, false),
        ];
        for (retry_on, failure, wanted) in cases {
            let expected = if wanted { Verdict::Retry } else { Verdict::No };
            assert_eq!(state(retry_on).on_failure(failure), expected, "{retry_on} {failure:?}");
        }
    }

    #[test]
    fn retries_are_counted_down() {
        let (on, _) = RetryOn::parse("5xx");
        let policy = Arc::new(RetryPolicy { on, num_retries: 2, ..RetryPolicy::default() });
        let mut state = RetryState::new(Some(&policy), &RequestHead::new(), true).expect("on");
        assert_eq!(state.on_response(&response(503, &[])), Verdict::Retry);
        assert_eq!(state.on_failure(AttemptFailure::Connect), Verdict::Retry);
        assert_eq!(state.made(), 2);
        assert_eq!(state.on_response(&response(503, &[])), Verdict::LimitExceeded);
        assert_eq!(state.on_response(&response(200, &[])), Verdict::No);
    }

    #[test]
    fn the_request_may_ask_for_retries_where_that_is_honoured() {
        let mut request = RequestHead::new();
        request.fields.append("x-envoy-retry-on", b"retriable-status-codes, nonsense");
        request.fields.append("x-envoy-max-retries", b"3");
        request.fields.append("x-envoy-retriable-status-codes", b"404, 405");
        assert!(RetryState::new(None, &request, false).is_none());
        let mut state = RetryState::new(None, &request, true).expect("asked for");
        assert_eq!(state.on_response(&response(500, &[])), Verdict::No);
        for _ in 0..3 {
            assert_eq!(state.on_response(&response(405, &[])), Verdict::Retry);
        }
        assert_eq!(state.on_response(&response(405, &[])), Verdict::LimitExceeded);
        assert!(
            RetryState::new(Some(&Arc::default()), &RequestHead::new(), true).is_none(),
            "no condition, no retry"
        );
    }

    #[test]
    fn back_off_grows_to_its_limit_with_full_jitter() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut state = state("5xx");
        for ceiling in [25, 50, 100, 200, 250, 250, 250] {
            assert_eq!(state.on_response(&response(500, &[])), Verdict::Retry);
            let samples: Vec<_> = (0..200).map(|_| state.back_off(&mut rng)).collect();
            assert!(samples.iter().all(|wait| *wait < Duration::from_millis(ceiling)));
            assert!(
                samples.iter().any(|wait| *wait > Duration::from_millis(ceiling * 3 / 4)),
                "{ceiling}"
            );
            assert!(
                samples.iter().any(|wait| *wait < Duration::from_millis(ceiling / 4)),
                "{ceiling}"
            );
        }
    }
}
