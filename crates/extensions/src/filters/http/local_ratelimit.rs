//! `envoy.filters.http.local_ratelimit`: a bucket of tokens for the whole process, or for each connection; a request takes
//! one, and without one it is answered 429. A route may have a bucket of its own.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::envoy::config::core::v3::HeaderValueOption;
use api::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use api::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use api::envoy::r#type::v3::TokenBucket;
use api::text::Problem;
use codec::headers::{Fields, HeaderName};
use prost::Message;
use proxy::filter_manager::{
    FilterContext, HeadersStatus, HttpFilter, HttpFilterFactory, LocalReply, Phases, WorkerContext,
};
use proxy::http::grpc::RESOURCE_EXHAUSTED;
use proxy::route_table::config::Fraction;
use proxy::snapshot::registry::CompileContext;
use proxy::snapshot::values;
use proxy::stream_info::ResponseFlags;
use telemetry::stats::{Block, Scope};

use super::cors::fraction;

telemetry::stat_set! {
    /// `<stat_prefix>.http_local_rate_limit.*`.
    struct Limited {
        ENABLED = counter "http_local_rate_limit.enabled",
        ENFORCED = counter "http_local_rate_limit.enforced",
        RATE_LIMITED = counter "http_local_rate_limit.rate_limited",
        OK = counter "http_local_rate_limit.ok",
    }
}

/// The shortest `fill_interval`, as in Envoy.
const MIN_FILL_INTERVAL: Duration = Duration::from_millis(50);

/// Tokens that come back continuously. Workers share it: it is one number, the moment at which the bucket was, or would
/// have been, empty, in nanoseconds.
#[derive(Debug)]
struct Bucket {
    rate: Rate,
    empty_at_ns: AtomicU64,
}

/// What a bucket holds, and how fast it fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    /// How long one token takes to come back.
    token_ns: u64,
    /// How long an empty bucket takes to fill.
    full_ns: u64,
}

impl Bucket {
    /// A full bucket.
    fn new(rate: Rate) -> Self {
        Self { rate, empty_at_ns: AtomicU64::new(0) }
    }

    /// Takes a token, if there is one. `now_ns` is of any clock that does not go back, and far enough from its zero that
    /// the first bucket is full.
    fn take(&self, now_ns: u64) -> bool {
        let Rate { token_ns, full_ns } = self.rate;
        // Later than any bucket's time to fill, so that nothing is below zero.
        let now = now_ns.saturating_add(full_ns);
        let mut empty_at = self.empty_at_ns.load(Ordering::Relaxed);
        loop {
            let emptied = empty_at.max(now - full_ns).saturating_add(token_ns);
            if emptied > now {
                return false;
            }
            match self.empty_at_ns.compare_exchange_weak(
                empty_at,
                emptied,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(other) => empty_at = other,
            }
        }
    }
}

/// Buckets of one connection, by whose they are.
#[derive(Debug, Default)]
struct ConnectionBuckets(RefCell<Vec<(usize, Bucket)>>);

#[derive(Debug)]
struct Settings {
    stats: Block<Limited>,
    rate: Option<Rate>,
    bucket: Option<Bucket>,
    per_connection: bool,
    status: u16,
    enabled: Fraction,
    enforced: Fraction,
    request_headers: Headers,
    response_headers: Headers,
    grpc_status: Option<u8>,
}

/// Headers to add, each with whether it joins those that are there.
type Headers = Vec<(HeaderName, Box<str>, bool)>;

#[derive(Debug)]
struct Factory(Arc<Settings>);

/// One stream.
struct LocalLimit {
    settings: Arc<Settings>,
    /// The response gets the headers of a limited one.
    is_limited: bool,
}

/// Reads an encoded `LocalRateLimit` of a chain.
pub(super) fn compile(
    bytes: &[u8],
    cx: &CompileContext<'_>,
) -> Result<Arc<dyn HttpFilterFactory>, Vec<Problem>> {
    Ok(Arc::new(Factory(Arc::new(settings(bytes, cx)?))))
}

/// Reads an encoded `LocalRateLimit` of a route, which must have a bucket.
pub(super) fn compile_route(
    bytes: &[u8],
    cx: &CompileContext<'_>,
) -> Result<Arc<dyn Any + Send + Sync>, Vec<Problem>> {
    let settings = settings(bytes, cx)?;
    if settings.rate.is_none() {
        let message = "a route's limit needs a `token_bucket`";
        return Err(vec![Problem::new("token_bucket", message)]);
    }
    Ok(Arc::new(settings))
}

fn settings(bytes: &[u8], cx: &CompileContext<'_>) -> Result<Settings, Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    let config =
        LocalRateLimit::decode(bytes).map_err(|error| one(Problem::new("", error.to_string())))?;
    let rate = config.token_bucket.as_ref().map(rate).transpose().map_err(one)?;
    let scope = Scope::new().tag("envoy.local_http_ratelimit_prefix", config.stat_prefix.as_str());
    let status = config.status.map_or(429, |status| status.code as u16);
    let list = |field: &str, options: &[HeaderValueOption]| {
        headers(options).map_err(|problem| one(problem.under(field)))
    };
    Ok(Settings {
        stats: cx.registry.block(&scope),
        rate,
        bucket: rate.map(Bucket::new),
        per_connection: config.local_rate_limit_per_downstream_connection,
        status: if status < 400 { 429 } else { status },
        enabled: fraction(config.filter_enabled.as_ref(), 0),
        enforced: fraction(config.filter_enforced.as_ref(), 0),
        request_headers: list(
            "request_headers_to_add_when_not_enforced",
            &config.request_headers_to_add_when_not_enforced,
        )?,
        response_headers: list("response_headers_to_add", &config.response_headers_to_add)?,
        grpc_status: config.rate_limited_as_resource_exhausted.then_some(RESOURCE_EXHAUSTED),
    })
}

fn rate(bucket: &TokenBucket) -> Result<Rate, Problem> {
    let interval = bucket.fill_interval.as_ref().map(values::duration).unwrap_or_default();
    if interval < MIN_FILL_INTERVAL {
        return Err(Problem::new("token_bucket.fill_interval", "must be 50 ms at least"));
    }
    let per_fill = bucket.tokens_per_fill.map_or(1, |tokens| tokens.value).max(1);
    let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    let token_ns = (interval / u64::from(per_fill)).max(1);
    Ok(Rate { token_ns, full_ns: token_ns.saturating_mul(bucket.max_tokens.into()) })
}

fn headers(options: &[HeaderValueOption]) -> Result<Headers, Problem> {
    let read = |(index, option): (usize, &HeaderValueOption)| {
        let problem =
            |field: &str, message: String| Problem::new(format!("[{index}].{field}"), message);
        let header = option.header.clone().unwrap_or_default();
        let name = HeaderName::parse(&header.key)
            .map_err(|error| problem("header.key", error.to_string()))?;
        if header.value.contains('%') {
            return Err(problem(
                "header.value",
                "formatters are not supported here yet".to_owned(),
            ));
        }
        let joins = match option.append_action() {
            HeaderAppendAction::AppendIfExistsOrAdd => true,
            HeaderAppendAction::OverwriteIfExistsOrAdd => false,
            _ => return Err(problem("append_action", "this is not supported here yet".to_owned())),
        };
        Ok((name, header.value.as_str().into(), joins))
    };
    options.iter().enumerate().map(read).collect()
}

impl Settings {
    fn take(&self, cx: &FilterContext<'_>) -> bool {
        let Some(connection) = cx.info.connection.as_ref().filter(|_| self.per_connection) else {
            return self.bucket.as_ref().is_none_or(|bucket| bucket.take(cx.now_ns));
        };
        let Some(rate) = self.rate else { return true };
        let mut state = connection.state.borrow_mut();
        if state.get::<ConnectionBuckets>().is_none() {
            state.set(ConnectionBuckets::default());
        }
        let Some(buckets) = state.get::<ConnectionBuckets>() else { return true };
        let mut buckets = buckets.0.borrow_mut();
        let owner = std::ptr::from_ref(self) as usize;
        let known = buckets.iter().position(|(of, bucket)| *of == owner && bucket.rate == rate);
        let at = known.unwrap_or_else(|| {
            buckets.push((owner, Bucket::new(rate)));
            buckets.len() - 1
        });
        buckets[at].1.take(cx.now_ns)
    }

    /// Limits a request: `true` if it must be answered here.
    fn limits(&self, cx: &mut FilterContext<'_>) -> bool {
        let draw = || rand::random::<u64>();
        if !self.enabled.admits(draw()) {
            return false;
        }
        let recorder = &cx.worker.recorder;
        recorder.inc(&self.stats, Limited::ENABLED);
        if self.take(cx) {
            recorder.inc(&self.stats, Limited::OK);
            return false;
        }
        recorder.inc(&self.stats, Limited::RATE_LIMITED);
        if !self.enforced.admits(draw()) {
            add(&self.request_headers, &mut cx.request.fields);
            return false;
        }
        recorder.inc(&self.stats, Limited::ENFORCED);
        true
    }
}

fn add(headers: &Headers, fields: &mut Fields) {
    for (name, value, joins) in headers {
        if *joins {
            fields.append(name, value.as_bytes());
        } else {
            fields.set(name, value.as_bytes());
        }
    }
}

impl HttpFilterFactory for Factory {
    fn create(&self, _: &WorkerContext) -> Box<dyn HttpFilter> {
        Box::new(LocalLimit { settings: Arc::clone(&self.0), is_limited: false })
    }

    fn phases(&self) -> Phases {
        Phases::HEADERS
    }
}

/// The settings of the stream's route, or else the chain's.
fn in_force<'a>(cx: &'a FilterContext<'_>, chain: &'a Settings) -> &'a Settings {
    cx.route_config::<Settings>().unwrap_or(chain)
}

impl HttpFilter for LocalLimit {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _: bool) -> HeadersStatus {
        // The route is pinned by the stream; taken out so that the rest of the stream can be changed meanwhile.
        let route = cx.info.route.take();
        let own = route.as_ref().and_then(|it| it.filter_overrides().get::<Settings>(cx.name));
        let settings = own.unwrap_or(&self.settings);
        self.is_limited = settings.limits(cx);
        let reply = self.is_limited.then(|| LocalReply {
            status: settings.status,
            body: "local_rate_limited".into(),
            details: "local_rate_limited",
            flags: ResponseFlags::RATE_LIMITED,
            grpc_status: settings.grpc_status,
            ..LocalReply::default()
        });
        cx.info.route = route;
        match reply {
            None => HeadersStatus::Continue,
            Some(reply) => {
                cx.send_local_reply(reply);
                HeadersStatus::StopIteration
            }
        }
    }

    fn encode_headers(&mut self, cx: &mut FilterContext<'_>, _: bool) -> HeadersStatus {
        if self.is_limited {
            let headers = in_force(cx, &self.settings).response_headers.clone();
            add(&headers, &mut cx.response.fields);
        }
        HeadersStatus::Continue
    }

    fn reset(&mut self) {
        self.is_limited = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn seconds(duration: Duration) -> api::google::protobuf::Duration {
        let (seconds, nanos) = (duration.as_secs() as i64, duration.subsec_nanos() as i32);
        api::google::protobuf::Duration { seconds, nanos }
    }

    fn bucket(max: u32, per_fill: u32, interval: Duration) -> Bucket {
        let bucket = TokenBucket {
            max_tokens: max,
            tokens_per_fill: Some(api::google::protobuf::UInt32Value { value: per_fill }),
            fill_interval: Some(seconds(interval)),
        };
        Bucket::new(rate(&bucket).unwrap())
    }

    #[test]
    fn a_bucket_gives_what_it_has_and_fills_with_time() {
        let bucket = bucket(3, 1, Duration::from_secs(1));
        let now = 7 * SECOND;
        assert_eq!([0; 5].map(|_| bucket.take(now)), [true, true, true, false, false]);
        assert!(!bucket.take(now + SECOND - 1));
        assert!(bucket.take(now + SECOND));
        assert!(!bucket.take(now + SECOND));
        // It never holds more than it holds.
        let later = now + 100 * SECOND;
        assert_eq!([0; 4].map(|_| bucket.take(later)), [true, true, true, false]);
    }

    #[test]
    fn at_the_beginning_of_time_a_bucket_is_full() {
        let bucket = bucket(2, 2, Duration::from_secs(60));
        assert_eq!([0; 3].map(|_| bucket.take(0)), [true, true, false]);
        assert!(bucket.take(30 * SECOND));
    }

    #[test]
    fn workers_never_take_more_than_there_is() {
        let bucket = bucket(1000, 1, Duration::from_secs(3600));
        let taken: usize = std::thread::scope(|scope| {
            let take = || (0..1000).filter(|_| bucket.take(5)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }

    #[test]
    fn intervals_below_envoys_are_refused() {
        let bucket = TokenBucket {
            max_tokens: 1,
            fill_interval: Some(seconds(Duration::from_millis(49))),
            ..TokenBucket::default()
        };
        assert_eq!(rate(&bucket).unwrap_err().path, "token_bucket.fill_interval");
    }
}
