//! Steps 10 and 11: HTTP filters and the order in which they see a stream.
//!
//! A filter is synchronous. It is called with the stream's heads and a context; it answers with a status; whatever else
//! it wants (a local reply, a call to another service, a timer, to go on later) it tells the context, and the stream
//! carries it out after the filter has returned. Calls and timers die with the stream.
//!
//! Filter objects are made once per worker and chain and then reused: a stream borrows an instance of its chain and gives
//! it back after [`HttpFilter::reset`], so that a stream allocates nothing.

pub mod calls;
pub mod chain;
pub mod context;
pub mod iterate;

use std::fmt;
use std::sync::Arc;

pub use chain::{ChainInstance, ChainPool};
pub use context::{
    CallId, Command, FilterContext, LocalReply, OutgoingRequest, TimerId, WorkerContext,
};

use codec::headers::ResponseHead;

/// What becomes of a head (Envoy's `FilterHeadersStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadersStatus {
    /// Go on to the next filter.
    Continue,
    /// Stop here; body and trailers still come to this filter.
    StopIteration,
    /// Stop here; buffer body and trailers (413 or 500 beyond the limit) until the filter continues.
    StopAllAndBuffer,
    /// Stop here; buffer, and push back on the sender beyond the limit, until the filter continues.
    StopAllAndWatermark,
}

/// What becomes of body bytes (Envoy's `FilterDataStatus`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataStatus {
    /// Go on to the next filter (with what was buffered, if anything).
    Continue,
    /// Keep them; beyond the buffer limit the stream is answered 413 (or reset).
    StopAndBuffer,
    /// Keep them; beyond the buffer limit the sender is paused.
    StopAndWatermark,
    /// Drop them.
    StopNoBuffer,
    /// Go on with what the filter has written to [`FilterContext::replacement`] in their place.
    Replace,
}

/// What becomes of trailers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrailersStatus {
    /// Go on.
    Continue,
    /// Wait until the filter continues.
    StopIteration,
    /// Go on with what the filter has written to [`FilterContext::replacement`] as the last bytes of the body, and
    /// without trailers.
    Replace,
}

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Request.
    Decode,
    /// Response.
    Encode,
}

/// What a filter waited for.
#[derive(Debug)]
pub enum FilterEvent<'a> {
    /// A call was answered in full.
    CallResponse {
        /// Which call.
        id: CallId,
        /// The answer's head.
        head: &'a ResponseHead,
        /// Its whole body.
        body: &'a [u8],
    },
    /// A call got no answer.
    CallFailed {
        /// Which call.
        id: CallId,
        /// Why.
        reason: &'static str,
    },
    /// A timer is due.
    Timer(TimerId),
}

/// One HTTP filter's state in one stream. Every method has a default that lets things pass.
pub trait HttpFilter {
    /// The request head. `end_stream` when no body follows.
    fn decode_headers(&mut self, _cx: &mut FilterContext<'_>, _end_stream: bool) -> HeadersStatus {
        HeadersStatus::Continue
    }
    /// Request body bytes.
    fn decode_data(
        &mut self,
        _cx: &mut FilterContext<'_>,
        _data: &[u8],
        _end_stream: bool,
    ) -> DataStatus {
        DataStatus::Continue
    }
    /// Request trailers (see [`FilterContext::request_trailers`]).
    fn decode_trailers(&mut self, _cx: &mut FilterContext<'_>) -> TrailersStatus {
        TrailersStatus::Continue
    }
    /// The response head. Called for local replies too.
    fn encode_headers(&mut self, _cx: &mut FilterContext<'_>, _end_stream: bool) -> HeadersStatus {
        HeadersStatus::Continue
    }
    /// Response body bytes.
    fn encode_data(
        &mut self,
        _cx: &mut FilterContext<'_>,
        _data: &[u8],
        _end_stream: bool,
    ) -> DataStatus {
        DataStatus::Continue
    }
    /// Response trailers.
    fn encode_trailers(&mut self, _cx: &mut FilterContext<'_>) -> TrailersStatus {
        TrailersStatus::Continue
    }
    /// A call or a timer of this filter.
    fn on_event(&mut self, _cx: &mut FilterContext<'_>, _event: FilterEvent<'_>) {}
    /// The stream has ended; called before access loggers, also for streams that were reset.
    fn on_stream_complete(&mut self, _cx: &mut FilterContext<'_>) {}
    /// Back to the state of a new object; memory may be kept. Called before the object serves another stream.
    fn reset(&mut self);
}

/// Compiled configuration of one filter: makes its per-stream state.
pub trait HttpFilterFactory: Send + Sync + fmt::Debug {
    /// A new object. Called on the worker that will use it; `cx` gives its recorder and index.
    fn create(&self, cx: &WorkerContext) -> Box<dyn HttpFilter>;
    /// Which of the filter's methods do anything: the chain calls no other.
    fn phases(&self) -> Phases;
}

/// Which methods of a filter are to be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Phases {
    /// `decode_headers`.
    pub decode_headers: bool,
    /// `decode_data`, `decode_trailers`.
    pub decode_body: bool,
    /// `encode_headers`.
    pub encode_headers: bool,
    /// `encode_data`, `encode_trailers`.
    pub encode_body: bool,
    /// `on_stream_complete`.
    pub complete: bool,
}

impl Phases {
    /// Everything.
    pub const ALL: Self = Self {
        decode_headers: true,
        decode_body: true,
        encode_headers: true,
        encode_body: true,
        complete: true,
    };
    /// Heads both ways.
    pub const HEADERS: Self = Self {
        decode_headers: true,
        decode_body: false,
        encode_headers: true,
        encode_body: false,
        complete: false,
    };
}

/// A compiled filter chain (without the router).
#[derive(Debug, Default)]
pub struct FilterChainFactory {
    /// Filters in order, with the name they are configured under (per-route overrides use it).
    pub filters: Vec<(Arc<str>, Arc<dyn HttpFilterFactory>)>,
    /// Those that are left out unless a route takes them in, a bit each.
    pub disabled: u64,
}

/// The longest chain: as many filters as a set of them has bits.
pub const MAX_FILTERS: usize = u64::BITS as usize;
