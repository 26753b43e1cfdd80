//! `envoy.filters.http.fault`: delays and aborts requests, so that it shows how others bear it. Which, how and how many is
//! the chain's configuration, or the route's, or asked for by the request's own headers where the configuration lets it.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use api::envoy::extensions::filters::common::fault::v3::FaultDelay;
use api::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier as DelayKind;
use api::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use api::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault};
use api::envoy::r#type::v3::FractionalPercent;
use api::text::Problem;
use codec::headers::{RequestHead, names};
use prost::Message;
use proxy::filter_manager::{
    FilterContext, FilterEvent, HeadersStatus, HttpFilter, HttpFilterFactory, LocalReply, Phases,
    WorkerContext,
};
use proxy::route_table::config::{Fraction, HeaderMatcher};
use proxy::snapshot::registry::CompileContext;
use proxy::snapshot::values;
use proxy::stream_info::ResponseFlags;
use telemetry::stats::{Block, Scope};

telemetry::stat_set! {
    /// `http.<prefix>.fault.*`.
    struct Faults {
        DELAYS_INJECTED = counter "fault.delays_injected",
        ABORTS_INJECTED = counter "fault.aborts_injected",
        FAULTS_OVERFLOW = counter "fault.faults_overflow",
        ACTIVE_FAULTS = gauge "fault.active_faults",
    }
}

/// Milliseconds that a request wants to be delayed.
const DELAY_REQUEST: &str = "x-envoy-fault-delay-request";
/// At most so many percent (of the configured denominator) of such requests.
const DELAY_PERCENTAGE: &str = "x-envoy-fault-delay-request-percentage";
/// The HTTP status that a request wants to be aborted with.
const ABORT_REQUEST: &str = "x-envoy-fault-abort-request";
/// The gRPC status that it wants.
const ABORT_GRPC_REQUEST: &str = "x-envoy-fault-abort-grpc-request";
/// As `DELAY_PERCENTAGE`, of aborts.
const ABORT_PERCENTAGE: &str = "x-envoy-fault-abort-request-percentage";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delay {
    Fixed(Duration),
    /// What the request asks for.
    ByHeader,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Abort {
    Http(u16),
    Grpc(u8),
    /// What the request asks for.
    ByHeader,
}

#[derive(Debug)]
struct Settings {
    delay: Option<(Delay, Fraction)>,
    abort: Option<(Abort, Fraction)>,
    /// What an abort says.
    abort_body: Cow<'static, str>,
    /// Requests that have all of these.
    headers: Vec<HeaderMatcher>,
    /// Requests from these nodes, by their `x-envoy-downstream-service-node`; of none, from all.
    nodes: HashSet<Box<str>>,
    max_active: Option<u32>,
}

/// A chain's filter.
#[derive(Debug)]
struct Factory(Arc<Chain>);

#[derive(Debug)]
struct Chain {
    settings: Arc<Settings>,
    /// Faults of routes are counted here, too.
    stats: Block<Faults>,
    /// Streams with a fault now, of all workers.
    active: AtomicU32,
}

/// One stream.
struct Fault {
    chain: Arc<Chain>,
    /// Whose fault the stream has, from its injection to its end.
    injected: Option<Arc<Settings>>,
}

/// What a route says of it.
#[derive(Debug)]
struct OfRoute(Arc<Settings>);

/// Reads an encoded `HTTPFault` of a chain.
pub(super) fn compile(
    bytes: &[u8],
    cx: &CompileContext<'_>,
) -> Result<Arc<dyn HttpFilterFactory>, Vec<Problem>> {
    Ok(Arc::new(Factory(Arc::new(Chain {
        settings: Arc::new(settings(bytes)?),
        stats: cx.registry.block(&Scope::http(cx.stat_prefix)),
        active: AtomicU32::new(0),
    }))))
}

/// Reads an encoded `HTTPFault` of a route, which replaces the chain's.
pub(super) fn compile_route(
    bytes: &[u8],
    _: &CompileContext<'_>,
) -> Result<Arc<dyn Any + Send + Sync>, Vec<Problem>> {
    Ok(Arc::new(OfRoute(Arc::new(settings(bytes)?))))
}

fn settings(bytes: &[u8]) -> Result<Settings, Vec<Problem>> {
    let one = |problem: Problem| vec![problem];
    let config =
        HttpFault::decode(bytes).map_err(|error| one(Problem::new("", error.to_string())))?;
    let header = |(index, matcher)| {
        values::read_header_matcher(matcher)
            .map_err(|problem| one(problem.under(&format!("headers[{index}]"))))
    };
    Ok(Settings {
        delay: config.delay.as_ref().and_then(delay),
        abort: config.abort.as_ref().and_then(abort),
        abort_body: match config.abort.map(|abort| abort.response_body) {
            Some(body) if !body.is_empty() => body.into(),
            _ => "fault filter abort".into(),
        },
        headers: config.headers.iter().enumerate().map(header).collect::<Result<_, _>>()?,
        nodes: config.downstream_nodes.iter().map(|node| node.as_str().into()).collect(),
        max_active: config.max_active_faults.map(|most| most.value),
    })
}

/// Of how many; of none where nothing is said.
fn share(percent: Option<&FractionalPercent>) -> Fraction {
    percent.map_or(Fraction { numerator: 0, denominator: 100 }, values::fraction)
}

fn delay(config: &FaultDelay) -> Option<(Delay, Fraction)> {
    let kind = match config.fault_delay_secifier.as_ref()? {
        DelayKind::FixedDelay(fixed) => Delay::Fixed(values::duration(fixed)),
        DelayKind::HeaderDelay(_) => Delay::ByHeader,
    };
    Some((kind, share(config.percentage.as_ref())))
}

fn abort(config: &FaultAbort) -> Option<(Abort, Fraction)> {
    let kind = match config.error_type.as_ref()? {
        ErrorType::HttpStatus(status) => Abort::Http(u16::try_from(*status).ok()?),
        ErrorType::GrpcStatus(status) => Abort::Grpc(u8::try_from(*status).unwrap_or(2)),
        ErrorType::HeaderAbort(_) => Abort::ByHeader,
    };
    Some((kind, share(config.percentage.as_ref())))
}

/// A number in a header of the request.
fn number<T: std::str::FromStr>(request: &RequestHead, name: &str) -> Option<T> {
    std::str::from_utf8(request.get(name)?).ok()?.trim().parse().ok()
}

/// What is configured, or less, if the request wants so.
fn limited(fraction: Fraction, request: &RequestHead, name: &str) -> Fraction {
    let wanted = number::<u32>(request, name).unwrap_or(fraction.numerator);
    Fraction { numerator: wanted.min(fraction.numerator), ..fraction }
}

impl Settings {
    /// Is this about the request at all?
    fn is_about(&self, request: &RequestHead) -> bool {
        let node = || {
            let name = request.get(names::X_ENVOY_DOWNSTREAM_SERVICE_NODE)?;
            std::str::from_utf8(name).ok()
        };
        (self.nodes.is_empty() || node().is_some_and(|node| self.nodes.contains(node)))
            && self.headers.iter().all(|matcher| matcher.matches(request))
    }

    /// How long the request is to wait; `draw` decides whether it is one of those that are.
    fn delay_of(&self, request: &RequestHead, draw: u64) -> Option<Duration> {
        let (kind, fraction) = self.delay?;
        let (delay, fraction) = match kind {
            Delay::Fixed(delay) => (delay, fraction),
            Delay::ByHeader => (
                Duration::from_millis(number(request, DELAY_REQUEST)?),
                limited(fraction, request, DELAY_PERCENTAGE),
            ),
        };
        (!delay.is_zero() && fraction.admits(draw)).then_some(delay)
    }

    /// What the request is to be answered.
    fn abort_of(&self, request: &RequestHead, draw: u64) -> Option<LocalReply> {
        let (kind, fraction) = self.abort?;
        let (kind, fraction) = match kind {
            Abort::ByHeader => {
                let http = number(request, ABORT_REQUEST).filter(|it| (200..600).contains(it));
                let grpc = || number(request, ABORT_GRPC_REQUEST).map(Abort::Grpc);
                let asked = http.map(Abort::Http).or_else(grpc)?;
                (asked, limited(fraction, request, ABORT_PERCENTAGE))
            }
            configured => (configured, fraction),
        };
        if !fraction.admits(draw) {
            return None;
        }
        let (status, grpc_status) = match kind {
            Abort::Http(status) => (status, None),
            // As Envoy: who does not speak gRPC hears 200.
            Abort::Grpc(status) => (200, Some(status)),
            Abort::ByHeader => return None,
        };
        Some(LocalReply {
            status,
            body: self.abort_body.clone(),
            details: "fault_filter_abort",
            flags: ResponseFlags::FAULT_INJECTED,
            grpc_status,
            ..LocalReply::default()
        })
    }
}

impl Chain {
    /// May one more stream have a fault?
    fn enter(&self, settings: &Settings, cx: &FilterContext<'_>) -> bool {
        let most = settings.max_active.unwrap_or(u32::MAX);
        let enter = |active: u32| (active < most).then(|| active + 1);
        let entered = self.active.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).is_ok();
        let recorder = &cx.worker.recorder;
        match entered {
            true => recorder.gauge_add(&self.stats, Faults::ACTIVE_FAULTS, 1),
            false => recorder.inc(&self.stats, Faults::FAULTS_OVERFLOW),
        }
        entered
    }

    fn leave(&self, cx: &FilterContext<'_>) {
        self.active.fetch_sub(1, Ordering::Relaxed);
        cx.worker.recorder.gauge_add(&self.stats, Faults::ACTIVE_FAULTS, -1);
    }
}

impl Fault {
    /// Aborts the request, if it is one to be aborted. A delay may have been before it.
    fn aborts(&mut self, settings: &Arc<Settings>, cx: &mut FilterContext<'_>) -> bool {
        let Some(reply) = settings.abort_of(cx.request, rand::random()) else { return false };
        if self.injected.is_none() {
            if !self.chain.enter(settings, cx) {
                return false;
            }
            self.injected = Some(Arc::clone(settings));
        }
        cx.worker.recorder.inc(&self.chain.stats, Faults::ABORTS_INJECTED);
        cx.send_local_reply(reply);
        true
    }
}

impl HttpFilterFactory for Factory {
    fn create(&self, _: &WorkerContext) -> Box<dyn HttpFilter> {
        Box::new(Fault { chain: Arc::clone(&self.0), injected: None })
    }

    fn phases(&self) -> Phases {
        Phases { decode_headers: true, complete: true, ..Phases::default() }
    }
}

impl HttpFilter for Fault {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _: bool) -> HeadersStatus {
        let of_route = cx.route_config::<OfRoute>().map(|route| Arc::clone(&route.0));
        let settings = of_route.unwrap_or_else(|| Arc::clone(&self.chain.settings));
        if !settings.is_about(cx.request) {
            return HeadersStatus::Continue;
        }
        if let Some(delay) = settings.delay_of(cx.request, rand::random()) {
            if !self.chain.enter(&settings, cx) {
                return HeadersStatus::Continue;
            }
            cx.worker.recorder.inc(&self.chain.stats, Faults::DELAYS_INJECTED);
            cx.info.flags.insert(ResponseFlags::DELAY_INJECTED);
            cx.set_timer(delay);
            self.injected = Some(settings);
            return HeadersStatus::StopAllAndWatermark;
        }
        match self.aborts(&settings, cx) {
            true => HeadersStatus::StopIteration,
            false => HeadersStatus::Continue,
        }
    }

    fn on_event(&mut self, cx: &mut FilterContext<'_>, event: FilterEvent<'_>) {
        let FilterEvent::Timer(_) = event else { return };
        let Some(settings) = self.injected.clone() else { return };
        if !self.aborts(&settings, cx) {
            cx.continue_decoding();
        }
    }

    fn on_stream_complete(&mut self, cx: &mut FilterContext<'_>) {
        if self.injected.take().is_some() {
            self.chain.leave(cx);
        }
    }

    fn reset(&mut self) {
        self.injected = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy::route_table::config::ValueMatch;
    use proxy::string_matcher::StringMatcher;

    const ALWAYS: Fraction = Fraction { numerator: 100, denominator: 100 };
    const NEVER: Fraction = Fraction { numerator: 0, denominator: 100 };

    fn settings() -> Settings {
        Settings {
            delay: None,
            abort: None,
            abort_body: "x".into(),
            headers: Vec::new(),
            nodes: HashSet::new(),
            max_active: None,
        }
    }

    fn request(headers: &[(&str, &str)]) -> RequestHead {
        let mut head = RequestHead::new();
        for (name, value) in headers {
            head.fields.append(*name, value.as_bytes());
        }
        head
    }

    #[test]
    fn delays_are_configured_or_asked_for() {
        let of = |delay, fraction| Settings { delay: Some((delay, fraction)), ..settings() };
        let fixed = Delay::Fixed(Duration::from_secs(7));
        let asked = [(DELAY_REQUEST, "30")];
        let never = [(DELAY_REQUEST, "30"), (DELAY_PERCENTAGE, "0")];
        let ms = |millis| Some(Duration::from_millis(millis));
        let table: &[(Settings, &[(&str, &str)], Option<Duration>)] = &[
            (settings(), &asked, None),
            (of(fixed, ALWAYS), &[], ms(7000)),
            (of(fixed, ALWAYS), &never, ms(7000)),
            (of(fixed, NEVER), &[], None),
            (of(Delay::ByHeader, ALWAYS), &[], None),
            (of(Delay::ByHeader, ALWAYS), &asked, ms(30)),
            (of(Delay::ByHeader, ALWAYS), &never, None),
            (of(Delay::ByHeader, NEVER), &[(DELAY_REQUEST, "9"), (DELAY_PERCENTAGE, "100")], None),
            (of(Delay::ByHeader, ALWAYS), &[(DELAY_REQUEST, "soon")], None),
            (of(Delay::ByHeader, ALWAYS), &[(DELAY_REQUEST, "0")], None),
        ];
        for (settings, headers, expected) in table {
            assert_eq!(
                settings.delay_of(&request(headers), 0),
                *expected,
                "{settings:?} {headers:?}"
            );
        }
    }

    #[test]
    fn aborts_are_configured_or_asked_for() {
        let of = |abort, fraction| Settings { abort: Some((abort, fraction)), ..settings() };
        let table: &[(Settings, &[(&str, &str)], Option<(u16, Option<u8>)>)] = &[
            (settings(), &[(ABORT_REQUEST, "503")], None),
            (of(Abort::Http(418), ALWAYS), &[], Some((418, None))),
            (of(Abort::Http(418), NEVER), &[], None),
            (of(Abort::Grpc(14), ALWAYS), &[], Some((200, Some(14)))),
            (of(Abort::ByHeader, ALWAYS), &[], None),
            (of(Abort::ByHeader, ALWAYS), &[(ABORT_REQUEST, "429")], Some((429, None))),
            (of(Abort::ByHeader, ALWAYS), &[(ABORT_REQUEST, "99")], None),
            (of(Abort::ByHeader, ALWAYS), &[(ABORT_GRPC_REQUEST, "5")], Some((200, Some(5)))),
            (of(Abort::ByHeader, ALWAYS), &[(ABORT_REQUEST, "429"), (ABORT_PERCENTAGE, "0")], None),
        ];
        for (settings, headers, expected) in table {
            let reply = settings.abort_of(&request(headers), 0);
            let said = reply.map(|reply| (reply.status, reply.grpc_status));
            assert_eq!(said, *expected, "{settings:?} {headers:?}");
        }
    }

    #[test]
    fn it_is_about_requests_with_headers_and_from_nodes() {
        let end_user = HeaderMatcher {
            name: codec::headers::HeaderName::parse("end-user").unwrap(),
            value: ValueMatch::String(StringMatcher::exact("jason")),
            invert: false,
            treat_missing_as_empty: false,
        };
        let nodes = HashSet::from(["n1".into()]);
        let settings = Settings { headers: vec![end_user], nodes, ..settings() };
        let node = "x-envoy-downstream-service-node";
        assert!(settings.is_about(&request(&[("end-user", "jason"), (node, "n1")])));
        assert!(!settings.is_about(&request(&[("end-user", "jason"), (node, "n2")])));
        assert!(!settings.is_about(&request(&[("end-user", "jason")])));
        assert!(!settings.is_about(&request(&[(node, "n1")])));
    }
}
