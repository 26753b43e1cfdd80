//! How long a request and each of its attempts may take: the route's times, overridden by the request's own
//! `x-envoy-upstream-rq-timeout-ms` headers where those are honoured.

use std::time::Duration;

use codec::headers::{KnownName, RequestHead, names};

use super::config::{GrpcTimeout, RoutePolicy};
use crate::http::grpc;

/// A request's times; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeouts {
    /// From the end of the request to the end of the response, all attempts together.
    pub request: Option<Duration>,
    /// Each attempt.
    pub per_try: Option<Duration>,
    /// Each attempt's silence.
    pub per_try_idle: Option<Duration>,
}

impl Timeouts {
    /// Resolves the times of a request. Its timeout headers are taken out; with `envoy_headers` they count, and the
    /// upstream is told in `x-envoy-expected-rq-timeout-ms` how long it is waited for.
    pub fn resolve(policy: &RoutePolicy, request: &mut RequestHead, envoy_headers: bool) -> Self {
        let retry = policy.retry.as_deref();
        let by_client =
            policy.grpc_timeout.filter(|rule| rule.of_response && grpc::is_grpc(request));
        let mut timeouts = Self {
            request: match by_client {
                Some(rule) => grpc_response_timeout(rule, request),
                // As Envoy: who limits streams means that instead.
                None if policy.limits_streams() => None,
                None => policy.timeout,
            },
            per_try: retry.and_then(|retry| retry.per_try_timeout),
            per_try_idle: retry.and_then(|retry| retry.per_try_idle_timeout),
        };
        if envoy_headers {
            if let Some(asked) = take(request, names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS) {
                timeouts.request = asked;
            }
            if let Some(asked) = take(request, names::X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS) {
                timeouts.per_try = asked;
            }
        }
        // An attempt that may take as long as the whole needs no timer of its own.
        if let (Some(request), Some(per_try)) = (timeouts.request, timeouts.per_try)
            && per_try >= request
        {
            timeouts.per_try = None;
        }
        if envoy_headers && let Some(expected) = timeouts.per_try.or(timeouts.request) {
            let millis = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX);
            request.fields.set_number(names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, millis);
        }
        if by_client.is_some()
            && let Some(expected) = timeouts.per_try.or(timeouts.request)
        {
            grpc::set_timeout(&mut request.fields, expected);
        }
        timeouts
    }
}

/// Tells the upstream of a further attempt how long it is waited for, if it was told for the first: `per_try`, but no
/// longer than the `left` of the whole. Without any time left 1 ms, because 0 would be for ever.
pub fn tell_again(request: &mut RequestHead, per_try: Option<Duration>, left: Option<Duration>) {
    if !request.fields.contains(names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS) {
        return;
    }
    let Some(expected) = per_try.into_iter().chain(left).min() else { return };
    let millis = u64::try_from(expected.as_millis()).unwrap_or(u64::MAX).max(1);
    request.fields.set_number(names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, millis);
}

/// How long a stream may take in all, from its first byte: by its route (where zero is for ever), by what a gRPC client
/// says of its deadline as far as the route lets that count, else by the connection manager's `limit`. The upstream is
/// told the deadline that counts.
pub fn stream_limit(
    policy: &RoutePolicy,
    request: &mut RequestHead,
    limit: Option<Duration>,
) -> Option<Duration> {
    let deadline = policy
        .grpc_timeout
        .filter(|rule| !rule.of_response && request.fields.contains(names::GRPC_TIMEOUT))
        .and_then(|rule| Some((rule, grpc::timeout(&request.fields)?)));
    let Some((rule, asked)) = deadline else {
        return policy.max_stream_duration.unwrap_or(limit);
    };
    let mut deadline = rule.max.map_or(asked, |max| asked.min(max));
    if !deadline.is_zero() {
        deadline = deadline.saturating_sub(rule.offset);
    }
    grpc::set_timeout(&mut request.fields, deadline);
    Some(deadline)
}

/// The time for the response by the deprecated `max_grpc_timeout`: what the client says, where zero and nothing are for
/// ever, at most the maximum.
fn grpc_response_timeout(rule: GrpcTimeout, request: &RequestHead) -> Option<Duration> {
    let asked = grpc::timeout(&request.fields).filter(|asked| !asked.is_zero());
    // An offset that would leave nothing does not count.
    let asked = asked.map(|asked| if asked > rule.offset { asked - rule.offset } else { asked });
    match (asked, rule.max) {
        (Some(asked), Some(max)) => Some(asked.min(max)),
        (asked, max) => asked.or(max),
    }
}

/// Takes a header of milliseconds out of the request. Zero is no limit; what is not a number does not count.
fn take(request: &mut RequestHead, name: KnownName) -> Option<Option<Duration>> {
    let value = request.fields.get(name)?;
    let millis = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
    request.fields.remove(name);
    millis.map(|millis| (millis > 0).then(|| Duration::from_millis(millis)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::router::config::RetryPolicy;

    const fn ms(millis: u64) -> Option<Duration> {
        Some(Duration::from_millis(millis))
    }

    fn resolve(
        route: Option<Duration>,
        per_try: Option<Duration>,
        headers: &[(&str, &str)],
        envoy_headers: bool,
    ) -> (Timeouts, RequestHead) {
        let retry = Arc::new(RetryPolicy { per_try_timeout: per_try, ..RetryPolicy::default() });
        let policy = RoutePolicy { timeout: route, retry: Some(retry), ..RoutePolicy::default() };
        let mut request = RequestHead::new();
        for (name, value) in headers {
            request.fields.append(*name, value.as_bytes());
        }
        (Timeouts::resolve(&policy, &mut request, envoy_headers), request)
    }

    #[test]
    fn times_and_what_the_upstream_is_told() {
        let whole = "x-envoy-upstream-rq-timeout-ms";
        let each = "x-envoy-upstream-rq-per-try-timeout-ms";
        type Case<'a> = (
            Option<Duration>,
            Option<Duration>,
            &'a [(&'a str, &'a str)],
            Timeouts,
            Option<&'a str>,
        );
        let times = |request, per_try| Timeouts { request, per_try, per_try_idle: None };
        let cases: &[Case<'_>] = &[
            (ms(15_000), None, &[], times(ms(15_000), None), Some("15000")),
            (None, None, &[], times(None, None), None),
            (ms(1_000), ms(100), &[], times(ms(1_000), ms(100)), Some("100")),
            (ms(1_000), ms(1_000), &[], times(ms(1_000), None), Some("1000")),
            (None, ms(100), &[], times(None, ms(100)), Some("100")),
            (ms(1_000), None, &[(whole, "70")], times(ms(70), None), Some("70")),
            (ms(1_000), None, &[(whole, "0")], times(None, None), None),
            (ms(1_000), None, &[(whole, "soon")], times(ms(1_000), None), Some("1000")),
            (ms(1_000), None, &[(each, "70")], times(ms(1_000), ms(70)), Some("70")),
        ];
        for (route, per_try, headers, expected, told) in cases {
            let (timeouts, request) = resolve(*route, *per_try, headers, true);
            assert_eq!(timeouts, *expected, "{route:?} {per_try:?} {headers:?}");
            let header =
                request.get(names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS).map(|value| value.to_vec());
            assert_eq!(header, told.map(|text| text.as_bytes().to_vec()), "{route:?} {headers:?}");
            assert!(request.get(whole).is_none() && request.get(each).is_none());
        }
    }

    #[test]
    fn streams_end_by_route_by_deadline_or_by_manager() {
        let rule = |max: Option<Duration>, offset: u64| GrpcTimeout {
            max,
            offset: Duration::from_millis(offset),
            of_response: false,
        };
        type Case<'a> = (
            Option<Option<Duration>>,
            Option<GrpcTimeout>,
            Option<&'a str>,
            Option<Duration>,
            Option<&'a str>,
        );
        let cases: &[Case<'_>] = &[
            (None, None, None, ms(9_000), None),
            (Some(ms(70)), None, None, ms(70), None),
            (Some(None), None, None, None, None),
            // Without `grpc_timeout_header_max` the header is only passed on.
            (None, None, Some("1S"), ms(9_000), Some("1S")),
            (Some(ms(70)), Some(rule(None, 0)), Some("1S"), ms(1_000), Some("1000m")),
            (Some(ms(70)), Some(rule(None, 0)), None, ms(70), None),
            (Some(ms(70)), Some(rule(None, 0)), Some("soon"), ms(70), Some("soon")),
            (None, Some(rule(ms(500), 0)), Some("1S"), ms(500), Some("500m")),
            (None, Some(rule(ms(500), 100)), Some("1S"), ms(400), Some("400m")),
            (None, Some(rule(None, 100)), Some("50m"), ms(0), Some("0m")),
            (None, Some(rule(None, 0)), Some("0m"), ms(0), Some("0m")),
        ];
        for (max_stream_duration, grpc_timeout, header, expected, told) in cases {
            let policy = RoutePolicy {
                max_stream_duration: *max_stream_duration,
                grpc_timeout: *grpc_timeout,
                ..RoutePolicy::default()
            };
            let mut request = RequestHead::new();
            if let Some(header) = header {
                request.fields.set(names::GRPC_TIMEOUT, header.as_bytes());
            }
            let limit = stream_limit(&policy, &mut request, ms(9_000));
            assert_eq!(limit, *expected, "{max_stream_duration:?} {grpc_timeout:?} {header:?}");
            assert_eq!(request.fields.get_str(names::GRPC_TIMEOUT), *told);
        }
    }

    #[test]
    fn the_deprecated_deadline_bounds_the_response() {
        let resolve = |max: Option<Duration>, offset: u64, header: &str| {
            let rule =
                GrpcTimeout { max, offset: Duration::from_millis(offset), of_response: true };
            let policy = RoutePolicy { grpc_timeout: Some(rule), ..RoutePolicy::default() };
            let mut request = RequestHead::new();
            request.fields.set(names::CONTENT_TYPE, b"application/grpc");
            request.fields.set(names::GRPC_TIMEOUT, header.as_bytes());
            let timeouts = Timeouts::resolve(&policy, &mut request, true);
            (timeouts.request, request.fields.get_str(names::GRPC_TIMEOUT).map(str::to_owned))
        };
        assert_eq!(resolve(ms(500), 0, "1S"), (ms(500), Some("500m".to_owned())));
        assert_eq!(resolve(None, 100, "1S"), (ms(900), Some("900m".to_owned())));
        assert_eq!(resolve(ms(500), 100, "50m"), (ms(50), Some("50m".to_owned())));
        assert_eq!(resolve(None, 0, "0m"), (None, Some("0m".to_owned())));
        assert_eq!(resolve(ms(500), 0, "0m").0, ms(500));
    }

    #[test]
    fn another_attempt_is_told_what_is_left() {
        let told = |first: Option<&str>, per_try, left| {
            let mut request = RequestHead::new();
            if let Some(first) = first {
                request.fields.set(names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, first.as_bytes());
            }
            tell_again(&mut request, per_try, left);
            let header = request.fields.get_str(names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS);
            header.map(str::to_owned)
        };
        assert_eq!(told(Some("15000"), None, ms(14_970)).as_deref(), Some("14970"));
        assert_eq!(told(Some("300"), ms(300), ms(14_970)).as_deref(), Some("300"));
        assert_eq!(told(Some("300"), ms(300), ms(120)).as_deref(), Some("120"));
        assert_eq!(told(Some("300"), ms(300), None).as_deref(), Some("300"));
        assert_eq!(told(Some("300"), None, ms(0)).as_deref(), Some("1"), "0 would be for ever");
        assert_eq!(told(None, None, ms(10)), None, "the first was not told either");
    }

    #[test]
    fn a_limit_of_streams_replaces_the_timeout() {
        let policy = RoutePolicy {
            timeout: ms(1_000),
            max_stream_duration: Some(ms(500)),
            ..RoutePolicy::default()
        };
        let mut request = RequestHead::new();
        assert_eq!(Timeouts::resolve(&policy, &mut request, true), Timeouts::default());
        assert!(!request.fields.contains(names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS));
        request.fields.set(names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS, b"70");
        assert_eq!(Timeouts::resolve(&policy, &mut request, true).request, ms(70));
    }

    #[test]
    fn suppressed_headers_neither_count_nor_are_told() {
        let header = [("x-envoy-upstream-rq-timeout-ms", "70")];
        let (timeouts, request) = resolve(ms(1_000), None, &header, false);
        assert_eq!(timeouts.request, ms(1_000));
        assert!(request.get(names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS).is_none());
    }
}
