//! Step 12: the terminal filter of every HTTP chain: cluster choice, timeouts, attempts, retries.

pub mod config;
pub mod mirror;
pub mod replay;
pub mod reply;
pub mod retry;
pub mod timeouts;

use std::sync::Arc;
use std::time::Duration;

use codec::event::StreamId;
use codec::headers::{Method, NameSet, RequestHead, names};
use smallvec::SmallVec;
use telemetry::stats::sets::{Cluster as ClusterStat, HttpConnManager as Stat};

use crate::arena::Key;
use crate::filter_manager::LocalReply;
use crate::http::config::HttpConnectionManager;
use crate::http::conn_manager::after;
use crate::http::header_mutation::MutationContext;
use crate::http::stream::Stream;
use crate::http::{flow, tunnel};
use crate::route_table::{Action, ApplyOptions, RouteMatch};
use crate::stream_info::{ResponseFlags, UpstreamAlpn};
use crate::upstream::config::{ClusterRef, UpstreamProtocol};
use crate::upstream::connection::UpstreamConnection;
use crate::upstream::host::Host;
use crate::upstream::pool::Pool;
use crate::worker::Worker;
use config::RoutePolicy;
use retry::{AttemptFailure, RetryState, Verdict};
use timeouts::Timeouts;

/// What a stream's attempts need to know.
#[derive(Debug, Default)]
pub struct RouterState {
    /// The cluster chosen.
    pub cluster: Option<ClusterRef>,
    /// Whose breakers count: 0 default, 1 high.
    pub priority: usize,
    /// Where the attempt is.
    pub attempt: Attempt,
    /// Retries, if any condition is set.
    pub retry: Option<Box<RetryState>>,
    /// A retry of the breakers is held.
    pub holds_retry: bool,
    /// Bytes of `stream.body` that the attempt has passed on.
    pub body_sent: usize,
    /// The body is kept for another attempt.
    pub keeps_body: bool,
    /// CONNECT ends here: the host gets the tunnel's bytes alone.
    pub ends_tunnel: bool,
    /// It is in its connection's line of those that wait for the host's window.
    pub awaits_host: bool,
    /// The attempt's connection has answered others before.
    pub on_kept_connection: bool,
    /// How many bytes that connection had before the request's first.
    pub request_at: u64,
    /// The request was sent again without a policy's word.
    pub was_replayed: bool,
    /// The attempt has the whole request.
    pub request_sent: bool,
    /// Hosts tried before, for the `previous_hosts` predicate.
    pub tried: SmallVec<[Arc<Host>; 2]>,
    /// Overrides the connection manager's stream idle timeout.
    pub idle_timeout: Option<Option<Duration>>,
    /// The status when the response is to say how many attempts there were.
    pub tells_attempts: bool,
    /// The request wants 204 for an answer if the response does not come in time.
    pub timeout_is_no_content: bool,
    /// The whole response within this of the request's end.
    pub timeout: Option<Duration>,
    /// Each attempt within this.
    pub per_try_timeout: Option<Duration>,
    /// Each attempt's silence within this.
    pub per_try_idle: Option<Duration>,
    /// The route timeout's deadline, once the request is whole; 0 before.
    timeout_at_ns: u64,
    /// The attempt's; 0 for none.
    try_deadline_ns: u64,
    /// When the whole stream must be over; 0 for never.
    stream_ends_ns: u64,
    /// Copies for other clusters that wait for the rest of the request.
    mirroring: Option<Box<mirror::Mirroring>>,
}

/// Where a stream's attempt is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// Nowhere: not begun, or over.
    #[default]
    None,
    /// In a pool's queue.
    Waiting(Key<Pool>),
    /// On a connection.
    Active(Key<UpstreamConnection>, StreamId),
    /// Between attempts, until then.
    BackOff(u64),
}

/// Why an attempt ended before its response was whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetReason {
    /// No connection: refused, unreachable, TLS.
    ConnectionFailure,
    /// No connection in time.
    ConnectionTimeout,
    /// The connection was closed.
    ConnectionTermination,
    /// The stream was reset.
    Remote,
    /// The stream was refused unseen.
    Refused,
    /// The host does not speak the protocol.
    Protocol,
    /// A circuit breaker said no.
    Overflow,
}

impl From<codec::event::ResetReason> for ResetReason {
    fn from(reason: codec::event::ResetReason) -> Self {
        match reason {
            codec::event::ResetReason::ConnectionClosed => Self::ConnectionTermination,
            codec::event::ResetReason::Refused => Self::Refused,
            codec::event::ResetReason::Remote | codec::event::ResetReason::Local => Self::Remote,
        }
    }
}

/// What did not come in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// The whole response.
    Response,
    /// One attempt's.
    Attempt,
    /// Anything at all in one attempt.
    AttemptIdle,
}

impl RouterState {
    /// The next deadline.
    pub fn deadline(&self) -> u64 {
        let at = |ns: u64| if ns == 0 { u64::MAX } else { ns };
        let back_off = if let Attempt::BackOff(until) = self.attempt { until } else { u64::MAX };
        at(self.timeout_at_ns).min(at(self.try_deadline_ns)).min(back_off)
    }
}

impl Worker {
    /// The request has passed the filters: its route's action is carried out.
    pub(crate) fn send_upstream(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(http) = stream.http.clone() else { return };
        let counters = &http.cells.counters;
        // Taken out while its parts are borrowed, and put back.
        let Some(route) = stream.info.route.take() else {
            counters.inc(Stat::NO_ROUTE);
            if stream.request.method_kind() == Method::Connect {
                // What follows is not HTTP.
                self.answer_is_last(key);
            }
            return self.local_reply(key, reply::no_route());
        };
        counters.inc(Stat::RQ_TOTAL);
        let answer = match route.action() {
            Action::Route(action)
                if !allows_upgrade(&stream.request, &http.config, &action.policy) =>
            {
                counters.inc(Stat::DOWNSTREAM_RQ_WS_ON_NON_WS_ROUTE);
                Some(reply::upgrade_refused())
            }
            Action::Route(action) => {
                let found = self.upstreams.find(&route, action, &stream.request);
                match found {
                    Some(cluster) => {
                        let suppress = http.config.router.suppress_envoy_headers;
                        stream.begin_routing(cluster, &action.policy, suppress);
                        None
                    }
                    None => {
                        counters.inc(Stat::NO_CLUSTER);
                        Some(reply::no_cluster(action.policy.cluster_not_found_status))
                    }
                }
            }
            Action::Redirect(redirect) => {
                // Envoy counts a redirect as the direct response that it is.
                counters.inc(Stat::RQ_DIRECT_RESPONSE);
                counters.inc(Stat::RQ_REDIRECT);
                Some(reply::redirect(redirect.status, &route.location(redirect, &stream.request)))
            }
            Action::Direct(direct) => {
                counters.inc(Stat::RQ_DIRECT_RESPONSE);
                Some(reply::direct_response(direct))
            }
        };
        if let Some(stream) = self.streams.get_mut(key) {
            stream.info.route = Some(route);
        }
        if answer.as_ref().is_some_and(|reply| reply.details == reply::UPGRADE_FAILED) {
            self.answer_is_last(key);
        }
        match answer {
            None => self.begin_first_attempt(key),
            Some(reply) => self.local_reply(key, reply),
        }
    }

    fn begin_first_attempt(&mut self, key: Key<Box<Stream>>) {
        self.apply_route(key);
        self.begin_mirroring(key);
        self.begin_attempt(key);
    }

    /// What the route does to the request; formats see the route, too.
    fn apply_route(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let stream = &mut **stream;
        let (Some(route), Some(http)) = (&stream.info.route, &stream.http) else { return };
        let cx = MutationContext {
            worker: self.cx.index,
            now_ns: self.clock.now_ns(),
            info: &stream.info,
        };
        let options = ApplyOptions { keeps_originals: !http.config.router.suppress_envoy_headers };
        route.apply_request(&mut stream.request, options, cx, &mut self.mutation_scratch);
    }

    /// Step 16: one attempt begins: a host is chosen and a connection asked for.
    pub(crate) fn begin_attempt(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let (recorder, random) = (&self.cx.recorder, &mut self.random);
        let Some(cluster) =
            stream.router.cluster.and_then(|at| self.upstreams.take_up(at, recorder, random))
        else {
            return self.local_reply(key, reply::no_cluster(503));
        };
        if stream.request_ready {
            stream.router.request_complete(self.clock.now_ns());
        }
        stream.info.cluster = Some(Arc::clone(&cluster.cluster));
        stream.info.attempt_count += 1;
        let tried = &stream.router.tried;
        let avoid = stream
            .router
            .retry
            .as_ref()
            .filter(|retry| retry.policy().avoid_previous_hosts && !tried.is_empty());
        let picked = match avoid {
            None => cluster.balancer.pick(&mut self.random),
            Some(retry) => {
                let attempts = retry.policy().host_selection_attempts;
                let was_tried =
                    |host: &Arc<Host>| tried.iter().any(|other| Arc::ptr_eq(other, host));
                cluster.balancer.pick_avoiding(&mut self.random, attempts, was_tried)
            }
        };
        if cluster.balancer.is_panicking() {
            cluster.cells.counters.inc(ClusterStat::LB_HEALTHY_PANIC);
        }
        let Some(index) = picked else {
            cluster.cells.counters.inc(ClusterStat::UPSTREAM_CX_NONE_HEALTHY);
            return self.fail_upstream(key, reply::no_healthy_upstream());
        };
        let protocol = match stream.router.ends_tunnel {
            true => UpstreamProtocol::Raw,
            false => cluster.cluster.config.http.protocol.resolve(stream.info.protocol),
        };
        let alpn = stream.info.filter_state.get::<UpstreamAlpn>();
        let alpn = alpn.and_then(|alpn| alpn.for_cluster(protocol, &cluster.cluster));
        let at = stream.router.cluster.unwrap_or(ClusterRef::NONE);
        let pool = self.upstreams.pool_of(at, index, protocol, alpn);
        stream.router.try_deadline_ns = match stream.router.per_try_timeout {
            Some(timeout) => self.clock.after(Some(timeout)),
            None => 0,
        };
        self.acquire(key, pool);
    }

    /// More of the request has come: it is passed on, or kept until it can be.
    pub(crate) fn upstream_request_data(&mut self, key: Key<Box<Stream>>, data: &[u8]) {
        let now = self.clock.now_ns();
        if self.streams.get(key).is_some_and(|stream| stream.router.mirroring.is_some()) {
            self.mirror_data(key, data);
        }
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.request_ready && stream.router.timeout_at_ns == 0 {
            stream.router.timeout_at_ns =
                stream.router.timeout.map_or(0, |timeout| after(now, Some(timeout)));
        }
        let is_active = match stream.router.attempt {
            _ if stream.awaits_tunnel() => false,
            Attempt::Active(key, _) => self.ups.get(key).is_some_and(|up| up.codec.can_send_data()),
            _ => false,
        };
        if is_active
            && !stream.router.keeps_body
            && stream.body.is_empty()
            && data.len() <= self.host_room(key)
        {
            return self.encode_request_data(key, data, true);
        }
        let Some(stream) = self.streams.get_mut(key) else { return };
        if !data.is_empty() {
            stream.body.writer(&mut self.buffers).extend_from_slice(data);
        }
        if is_active {
            self.send_kept_body(key, usize::MAX);
        }
        self.limit_kept_body(key);
    }

    /// What the attempt's host has room for now.
    #[inline]
    fn host_room(&self, key: Key<Box<Stream>>) -> usize {
        match self.streams.get(key).map(|stream| stream.router.attempt) {
            Some(Attempt::Active(on, id)) => {
                self.ups.get(on).map_or(0, |connection| connection.codec.send_room(id))
            }
            _ => 0,
        }
    }

    /// Passes on what was kept of the body and has not been passed on, as far as the host's window and `most` go. Says how
    /// much that was. What has no room waits for it.
    pub(crate) fn send_kept_body(&mut self, key: Key<Box<Stream>>, most: usize) -> usize {
        let room = self.host_room(key).min(most);
        let Some(stream) = self.streams.get_mut(key) else { return 0 };
        if stream.router.request_sent {
            return 0;
        }
        let mut body = std::mem::take(&mut stream.body);
        let (sent, keeps) = (stream.router.body_sent, stream.router.keeps_body);
        let len = room.min(body.len() - sent);
        let is_last = sent + len == body.len();
        if len > 0 || is_last && stream.request_ready {
            self.encode_request_data(key, &body.as_slice()[sent..sent + len], is_last);
        }
        let Some(stream) = self.streams.get_mut(key) else {
            body.clear(&mut self.buffers);
            return len;
        };
        if keeps {
            stream.router.body_sent = sent + len;
        } else {
            stream.router.body_sent = 0;
            body.consume(sent + len, &mut self.buffers);
        }
        stream.body = body;
        if !is_last {
            self.wait_for_host(key);
        }
        len
    }

    /// Too much to keep: either the attempt under way must do (no retries any more), or the client waits.
    fn limit_kept_body(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(down_key) = stream.downstream else { return };
        let Some(down) = self.downs.get(down_key) else { return };
        let on = match stream.router.attempt {
            Attempt::Active(on, _) => Some(on),
            _ => None,
        };
        let route = stream.info.route.as_ref().and_then(|route| route.route_action());
        let limit = match (stream.router.keeps_body, on) {
            (true, _) => route.map_or(down.buffer_limit, |action| {
                action.policy.most_kept_of_body(down.buffer_limit)
            }),
            (false, None) => down.buffer_limit,
            (false, Some(_)) => down.buffer_limit.min(flow::PAUSE_ABOVE),
        };
        if stream.body.len() <= limit {
            return;
        }
        if stream.router.keeps_body {
            stream.router.keeps_body = false;
            stream.router.retry = None;
            if let Some(cluster) = stream.router.cluster.and_then(|at| self.upstreams.get(at)) {
                cluster.cells.counters.inc(ClusterStat::RETRY_OR_SHADOW_ABANDONED);
            }
            if on.is_some() && stream.router.body_sent == stream.body.len() {
                stream.body.clear(&mut self.buffers);
                stream.router.body_sent = 0;
                return;
            }
        }
        if let Some(connection) = on.and_then(|on| self.ups.get_mut(on)) {
            connection.above_high_watermark = true;
        }
        if let Some(http) = self.http_of(down_key) {
            http.pause_reading();
        }
    }

    /// An attempt has come to nothing: another, or the client hears of it.
    pub(crate) fn attempt_failed(
        &mut self,
        key: Key<Box<Stream>>,
        reason: ResetReason,
        detail: Option<&str>,
    ) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.router.attempt = Attempt::None;
        if let Some(detail) = detail {
            stream.info.upstream_transport_failure_reason = Some(detail.into());
        }
        if stream.response_started {
            stream.info.flags.insert(reply::flags_of(reason));
            stream.info.response_code_details = reply::cut_short(reason);
            if let Some(http) = &stream.http {
                http.cells.counters.inc(Stat::RQ_RESET_AFTER_DOWNSTREAM_RESPONSE_STARTED);
            }
            return self.cut_off(key);
        }
        let failure = match reason {
            ResetReason::ConnectionFailure | ResetReason::ConnectionTimeout => {
                AttemptFailure::Connect
            }
            ResetReason::Overflow => AttemptFailure::Overflow,
            _ => AttemptFailure::Reset {
                request_started: stream.info.timings.upstream_first_tx_ns != 0,
                refused: reason == ResetReason::Refused,
            },
        };
        if self.try_again(key, failure) {
            return;
        }
        let Some(stream) = self.streams.get_mut(key) else { return };
        let reply = reply::upstream_failure(
            reason,
            stream.info.upstream_transport_failure_reason.as_deref(),
            stream.info.attempt_count,
        );
        self.fail_upstream(key, reply);
    }

    /// Answers in the place of a host, whose cluster gets the blame.
    fn fail_upstream(&mut self, key: Key<Box<Stream>>, reply: LocalReply) {
        if self.streams.get(key).is_some_and(|stream| !stream.response_started) {
            self.count_status(key, reply.status);
        }
        self.local_reply(key, reply);
    }

    fn try_again(&mut self, key: Key<Box<Stream>>, failure: AttemptFailure) -> bool {
        let Some(stream) = self.streams.get_mut(key) else { return false };
        let verdict =
            stream.router.retry.as_mut().map_or(Verdict::No, |retry| retry.on_failure(failure));
        self.follow(key, verdict)
    }

    /// Carries a verdict out: `true` when another attempt will be made.
    pub(crate) fn follow(&mut self, key: Key<Box<Stream>>, verdict: Verdict) -> bool {
        let Some(stream) = self.streams.get_mut(key) else { return false };
        let Some(cluster) = stream.router.cluster.and_then(|cluster| self.upstreams.get(cluster))
        else {
            return false;
        };
        let counters = &cluster.cells.counters;
        match verdict {
            Verdict::No => return false,
            Verdict::LimitExceeded => {
                stream.info.flags.insert(ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED);
                counters.inc(ClusterStat::UPSTREAM_RQ_RETRY_LIMIT_EXCEEDED);
                return false;
            }
            Verdict::Retry => {}
        }
        let (thresholds, breakers) = cluster.cluster.priority(stream.router.priority);
        if !stream.router.holds_retry && !breakers.retries.try_acquire(thresholds.max_retries) {
            counters.inc(ClusterStat::UPSTREAM_RQ_RETRY_OVERFLOW);
            stream.info.flags.insert(ResponseFlags::UPSTREAM_OVERFLOW);
            return false;
        }
        stream.router.holds_retry = true;
        counters.inc(ClusterStat::UPSTREAM_RQ_RETRY);
        counters.inc(ClusterStat::UPSTREAM_RQ_RETRY_BACKOFF_EXPONENTIAL);
        if let Some(host) = stream.info.upstream_host.clone() {
            stream.router.tried.push(host);
        }
        let wait = stream
            .router
            .retry
            .as_ref()
            .map_or(Duration::ZERO, |retry| retry.back_off(&mut self.random));
        stream.router.attempt = Attempt::BackOff(self.clock.after(Some(wait)));
        stream.router.try_deadline_ns = 0;
        (stream.router.body_sent, stream.router.request_sent) = (0, false);
        stream.info.timings.upstream_first_tx_ns = 0;
        self.arm_stream(key);
        true
    }

    /// Does what is due for the router.
    pub(crate) fn router_deadlines(&mut self, key: Key<Box<Stream>>, now: u64) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let router = &mut stream.router;
        let is_due = |at: u64| at != 0 && at <= now;
        if is_due(router.timeout_at_ns) {
            return self.timed_out(key, Overdue::Response);
        }
        if is_due(router.try_deadline_ns) {
            return self.timed_out(key, Overdue::Attempt);
        }
        if stream.silence_ends_ns() <= now {
            return self.timed_out(key, Overdue::AttemptIdle);
        }
        let router = &mut stream.router;
        if let Attempt::BackOff(until) = router.attempt
            && until <= now
        {
            router.attempt = Attempt::None;
            let left = router.timeout.map(|_| router.timeout_at_ns.saturating_sub(now));
            timeouts::tell_again(
                &mut stream.request,
                router.per_try_timeout,
                left.map(Duration::from_nanos),
            );
            self.begin_attempt(key);
        }
    }

    fn timed_out(&mut self, key: Key<Box<Stream>>, overdue: Overdue) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if let Some(host) = &stream.info.upstream_host {
            host.counters.rq_timeout.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        stream.router.try_deadline_ns = 0;
        if let Some(cluster) = stream.router.cluster.and_then(|cluster| self.upstreams.get(cluster))
        {
            cluster.cells.counters.inc(match overdue {
                Overdue::Response => ClusterStat::UPSTREAM_RQ_TIMEOUT,
                Overdue::Attempt => ClusterStat::UPSTREAM_RQ_PER_TRY_TIMEOUT,
                Overdue::AttemptIdle => ClusterStat::UPSTREAM_RQ_PER_TRY_IDLE_TIMEOUT,
            });
        }
        if !stream.response_started {
            self.note_outcome(key, crate::upstream::outlier::Outcome::Status(504));
        }
        self.abandon_attempt(key);
        let Some(stream) = self.streams.get_mut(key) else { return };
        let may_retry = overdue != Overdue::Response && !stream.response_started;
        if may_retry && self.try_again(key, AttemptFailure::PerTryTimeout) {
            return;
        }
        let alternative =
            self.streams.get(key).is_some_and(|stream| stream.router.timeout_is_no_content);
        self.fail_upstream(key, reply::timeout(overdue, alternative));
    }
}

/// What a caller says of retries is for us.
const RETRY_HEADERS: NameSet = NameSet::of(&[
    names::X_ENVOY_RETRY_ON,
    names::X_ENVOY_RETRY_GRPC_ON,
    names::X_ENVOY_MAX_RETRIES,
    names::X_ENVOY_RETRIABLE_STATUS_CODES,
    names::X_ENVOY_RETRIABLE_HEADER_NAMES,
]);

/// May this request pass as what it is? An upgrade must be allowed by the route, or else by the connection manager.
fn allows_upgrade(
    request: &RequestHead,
    config: &HttpConnectionManager,
    policy: &RoutePolicy,
) -> bool {
    let Some(asked) = tunnel::asked_for(request) else { return true };
    let is_asked = |name: &str| name.as_bytes().eq_ignore_ascii_case(asked);
    let by_route =
        policy.upgrades.iter().find(|(name, _)| is_asked(name)).map(|(_, enabled)| *enabled);
    let by_manager = config.upgrades.iter().find(|upgrade| is_asked(&upgrade.upgrade_type));
    by_route.unwrap_or(by_manager.is_some_and(|upgrade| upgrade.enabled))
}

impl Stream {
    /// When the attempt under way will have been silent for too long.
    pub fn silence_ends_ns(&self) -> u64 {
        match (self.router.per_try_idle, self.router.attempt) {
            (Some(idle), Attempt::Active(..)) => {
                let since = self.last_activity_ns.max(self.info.timings.upstream_first_tx_ns);
                after(since, Some(idle))
            }
            _ => u64::MAX,
        }
    }

    /// A route was taken: what it and the request say of timeouts and retries.
    fn begin_routing(&mut self, cluster: ClusterRef, policy: &RoutePolicy, suppress_headers: bool) {
        let router = &mut self.router;
        router.cluster = Some(cluster);
        router.priority = policy.priority;
        router.idle_timeout = policy.idle_timeout;
        router.ends_tunnel = policy.connect.is_some_and(|connect| {
            let method = self.request.method_kind();
            method == Method::Connect || connect.allow_post && method == Method::Post
        });
        router.tells_attempts = policy.include_attempt_count_in_response;
        router.retry =
            RetryState::new(policy.retry.as_ref(), &self.request, !suppress_headers).map(Box::new);
        self.request.fields.remove_any(RETRY_HEADERS);
        let timeouts = Timeouts::resolve(policy, &mut self.request, !suppress_headers);
        (router.timeout, router.per_try_timeout) = (timeouts.request, timeouts.per_try);
        router.per_try_idle = timeouts.per_try_idle;
        // A body that may be needed again is kept from the beginning.
        router.keeps_body = router.retry.is_some();
        router.timeout_is_no_content = !suppress_headers
            && self.request.fields.remove(names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE);
        if policy.include_attempt_count_in_request {
            self.request.fields.set(names::X_ENVOY_ATTEMPT_COUNT, b"1");
        }
    }
}

impl RouterState {
    /// Notes when the stream must be over, now that its route is known.
    pub fn limit_stream(
        &mut self,
        route: Option<&RouteMatch>,
        request: &mut RequestHead,
        limit: Option<Duration>,
        start_ns: u64,
    ) {
        let limit = match route.and_then(RouteMatch::route_action) {
            Some(action) => timeouts::stream_limit(&action.policy, request, limit),
            None => limit,
        };
        self.stream_ends_ns = limit.map_or(0, |limit| after(start_ns, Some(limit)));
    }

    /// What follows the head is a tunnel's payload.
    pub fn is_tunnel(&self, request: &RequestHead) -> bool {
        self.ends_tunnel || tunnel::asks_for_tunnel(request)
    }

    /// The response is whole: how long the client takes to read it is not the route's business.
    pub fn response_complete(&mut self) {
        (self.timeout, self.timeout_at_ns, self.try_deadline_ns) = (None, 0, 0);
    }

    /// When the whole stream must be over.
    pub fn stream_ends_ns(&self) -> u64 {
        if self.stream_ends_ns == 0 { u64::MAX } else { self.stream_ends_ns }
    }

    /// The request is whole: the route timeout runs from here.
    pub fn request_complete(&mut self, now_ns: u64) {
        if self.timeout_at_ns == 0 {
            self.timeout_at_ns = self.timeout.map_or(0, |timeout| after(now_ns, Some(timeout)));
        }
    }
}
