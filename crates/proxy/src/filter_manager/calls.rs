//! What filters wait for: calls, which are ordinary streams without a client, and timers. Both die with their stream.

use std::time::Duration;

use super::{CallId, FilterEvent, OutgoingRequest, TimerId};
use crate::arena::Key;
use crate::http::stream::Stream;
use crate::upstream::config::ClusterRef;
use crate::worker::Worker;

/// A timer of a filter.
#[derive(Debug, Clone, Copy)]
pub struct FilterTimer {
    /// Its id.
    pub id: TimerId,
    /// Whose, as configured.
    pub filter: usize,
    /// When.
    pub deadline_ns: u64,
}

/// A call in flight.
#[derive(Debug, Clone, Copy)]
pub struct FilterCall {
    /// Its id.
    pub id: CallId,
    /// The stream that makes it.
    pub stream: Key<Box<Stream>>,
}

/// On whose behalf a stream without a client exists.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// The stream whose filter called.
    pub stream: Key<Box<Stream>>,
    /// Which filter, as configured.
    pub filter: usize,
    /// The call.
    pub id: CallId,
}

impl Worker {
    /// A filter's request goes out.
    pub(super) fn begin_call(
        &mut self,
        key: Key<Box<Stream>>,
        filter: usize,
        id: CallId,
        cluster: ClusterRef,
        request: OutgoingRequest,
    ) {
        let call_key = self.open_call(Some(Caller { stream: key, filter, id }), cluster, request);
        if let Some(stream) = self.streams.get_mut(key) {
            stream.calls.push(FilterCall { id, stream: call_key });
        }
        self.begin_attempt(call_key);
        self.arm_stream(call_key);
    }

    /// A stream without a client, on behalf of a filter or of nobody; its attempt is not begun yet.
    pub(crate) fn open_call(
        &mut self,
        caller: Option<Caller>,
        cluster: ClusterRef,
        request: OutgoingRequest,
    ) -> Key<Box<Stream>> {
        let now = self.clock.now_ns();
        let stream_id = self.unique_id();
        let mut call = self.idle_streams.pop().unwrap_or_default();
        call.request = request.head;
        call.caller = caller;
        call.info.stream_id = stream_id;
        call.info.timings.start_ns = now;
        call.last_activity_ns = now;
        (call.request_done, call.request_ready) = (true, true);
        if !request.body.is_empty() {
            call.body.writer(&mut self.buffers).extend_from_slice(&request.body);
        }
        call.router.cluster = Some(cluster);
        call.router.timeout = request.timeout;
        self.streams.insert(call)
    }

    /// No event is wanted any more.
    pub(super) fn cancel_call(&mut self, key: Key<Box<Stream>>, id: CallId) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(position) = stream.calls.iter().position(|call| call.id == id) else { return };
        let call = stream.calls.swap_remove(position);
        self.drop_call(call.stream);
    }

    /// The stream has ended: so do its calls.
    pub(crate) fn drop_calls(&mut self, key: Key<Box<Stream>>) {
        while let Some(call) = self.streams.get_mut(key).and_then(|stream| stream.calls.pop()) {
            self.drop_call(call.stream);
        }
    }

    fn drop_call(&mut self, call: Key<Box<Stream>>) {
        if let Some(stream) = self.streams.get_mut(call) {
            stream.caller = None;
            self.end_stream(call);
        }
    }

    /// A call is over: its filter hears the answer, or why there is none.
    pub(crate) fn call_ended(&mut self, key: Key<Box<Stream>>, failure: Option<&'static str>) {
        let Some(call) = self.streams.get_mut(key) else { return };
        let Some(caller) = call.caller.take() else { return self.end_stream(key) };
        let head = std::mem::take(&mut call.response);
        let body = std::mem::take(&mut call.call_body);
        self.end_stream(key);
        if let Some(stream) = self.streams.get_mut(caller.stream) {
            stream.calls.retain(|other| other.id != caller.id);
            let event = match failure {
                None => FilterEvent::CallResponse { id: caller.id, head: &head, body: &body },
                Some(reason) => FilterEvent::CallFailed { id: caller.id, reason },
            };
            self.filter_event(caller.stream, caller.filter, event);
        }
    }

    pub(super) fn set_filter_timer(
        &mut self,
        key: Key<Box<Stream>>,
        filter: usize,
        id: TimerId,
        after: Duration,
    ) {
        let deadline_ns = self.clock.after(Some(after));
        if let Some(stream) = self.streams.get_mut(key) {
            stream.timers.push(FilterTimer { id, filter, deadline_ns });
            self.arm_stream(key);
        }
    }

    /// Fires filters' timers that are due.
    pub(crate) fn filter_timers(&mut self, key: Key<Box<Stream>>, now: u64) {
        while let Some(stream) = self.streams.get_mut(key)
            && let Some(position) = stream.timers.iter().position(|timer| timer.deadline_ns <= now)
        {
            let timer = stream.timers.swap_remove(position);
            self.filter_event(key, timer.filter, FilterEvent::Timer(timer.id));
        }
    }
}
