//! What a filter can see and ask for while it is called.

use std::time::Duration;

use codec::headers::{Fields, RequestHead, ResponseHead};
use telemetry::stats::Recorder;

use crate::route_table::RouteMatch;
use crate::stream_info::{ResponseFlags, StreamInfo};
use crate::upstream::config::ClusterRef;

/// A call to another service in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(pub u64);

/// A timer of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId(pub u32);

/// The worker a filter runs on.
pub struct WorkerContext {
    /// The worker's number, from 0.
    pub index: usize,
    /// Its statistics.
    pub recorder: Recorder,
}

/// A request that a filter sends on its own.
#[derive(Debug, Default)]
pub struct OutgoingRequest {
    /// The head: method, scheme, authority and path must be set.
    pub head: RequestHead,
    /// The whole body.
    pub body: Vec<u8>,
    /// Fail after this long; `None` waits as long as the stream lives.
    pub timeout: Option<Duration>,
}

/// A response made here.
#[derive(Debug, Clone, Default)]
pub struct LocalReply {
    /// The status.
    pub status: u16,
    /// The body; `content-type: text/plain` unless `headers` say otherwise.
    pub body: std::borrow::Cow<'static, str>,
    /// More response headers (lower-case names).
    pub headers: Vec<(Box<str>, Box<str>)>,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
    /// Flags to add.
    pub flags: ResponseFlags,
    /// What a gRPC client hears; `None` is what `status` stands for.
    pub grpc_status: Option<u8>,
}

/// What a filter asked for.
#[derive(Debug)]
pub enum Command {
    /// Answer and end the stream.
    LocalReply(LocalReply),
    /// Go on after the filter that asks, in the direction it stopped.
    ContinueDecoding,
    /// As above, for the response.
    ContinueEncoding,
    /// Look the route up again before the next filter.
    ClearRouteCache,
    /// Send a request.
    Call(CallId, ClusterRef, Box<OutgoingRequest>),
    /// Forget a call.
    CancelCall(CallId),
    /// Start a timer.
    SetTimer(TimerId, Duration),
    /// Forget a timer.
    CancelTimer(TimerId),
}

/// Everything a filter may touch while it is called.
pub struct FilterContext<'a> {
    /// The name the filter is configured under.
    pub name: &'a str,
    /// What has happened so far.
    pub info: &'a mut StreamInfo,
    /// The request head.
    pub request: &'a mut RequestHead,
    /// The response head; meaningful from `encode_headers` on.
    pub response: &'a mut ResponseHead,
    /// Request trailers, once they are there.
    pub request_trailers: Option<&'a mut Fields>,
    /// Response trailers, once they are there.
    pub response_trailers: Option<&'a mut Fields>,
    /// The worker.
    pub worker: &'a WorkerContext,
    /// Now, in monotonic nanoseconds of the worker's clock (constant within a loop turn).
    pub now_ns: u64,
    /// What takes the place of body bytes or trailers, if the filter answers so; empty when it is called.
    pub replacement: &'a mut Vec<u8>,
    pub(crate) commands: &'a mut Vec<Command>,
    pub(crate) next_id: &'a mut u64,
}

impl FilterContext<'_> {
    /// The route as found so far; `None` before routing or when none matches.
    pub fn route(&self) -> Option<&RouteMatch> {
        self.info.route.as_ref()
    }

    /// What the route says of this filter, if it is a `T`.
    pub fn route_config<T: 'static>(&self) -> Option<&T> {
        self.info.route.as_ref()?.filter_overrides().get(self.name)
    }

    /// Answers from here. The filter must then stop its iteration; the reply runs through the encode chain.
    pub fn send_local_reply(&mut self, reply: LocalReply) {
        self.commands.push(Command::LocalReply(reply));
    }

    /// Goes on with the request after this filter.
    pub fn continue_decoding(&mut self) {
        self.commands.push(Command::ContinueDecoding);
    }

    /// Goes on with the response after this filter.
    pub fn continue_encoding(&mut self) {
        self.commands.push(Command::ContinueEncoding);
    }

    /// The request has changed: look the route up again.
    pub fn clear_route_cache(&mut self) {
        self.commands.push(Command::ClearRouteCache);
    }

    /// Sends a request to a cluster; the answer comes as an event to this filter.
    pub fn call(&mut self, cluster: ClusterRef, request: OutgoingRequest) -> CallId {
        *self.next_id += 1;
        let id = CallId(*self.next_id);
        self.commands.push(Command::Call(id, cluster, Box::new(request)));
        id
    }

    /// Forgets a call; no event will come.
    pub fn cancel_call(&mut self, id: CallId) {
        self.commands.push(Command::CancelCall(id));
    }

    /// Starts a timer; it comes as an event to this filter.
    pub fn set_timer(&mut self, after: Duration) -> TimerId {
        *self.next_id += 1;
        let id = TimerId(*self.next_id as u32);
        self.commands.push(Command::SetTimer(id, after));
        id
    }

    /// Forgets a timer.
    pub fn cancel_timer(&mut self, id: TimerId) {
        self.commands.push(Command::CancelTimer(id));
    }
}
