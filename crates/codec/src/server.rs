//! The server's end of a connection: requests in, responses out.

use crate::event::{Decoded, Event, ResetCode, StreamId};
use crate::headers::{Fields, RequestHead, ResponseHead, Version};
use crate::http1::{self, DataTail};
use crate::http2;

/// The codec of a downstream connection.
#[derive(Debug)]
pub enum ServerCodec {
    /// HTTP/1.0 and HTTP/1.1
    Http1(http1::ServerCodec),
    /// HTTP/2
    Http2(Box<http2::ServerCodec>),
}

macro_rules! dispatch {
    ($self:ident, $codec:ident => $call:expr) => {
        match $self {
            ServerCodec::Http1($codec) => $call,
            ServerCodec::Http2($codec) => $call,
        }
    };
}

crate::multiplexing::methods!(ServerCodec);

/// Every method means the same for every version; see [`http1::ServerCodec`] for the details.
impl ServerCodec {
    /// What the connection speaks. For HTTP/1 the version of a request is in its head.
    pub fn version(&self) -> Version {
        match self {
            ServerCodec::Http1(_) => Version::Http11,
            ServerCodec::Http2(_) => Version::Http2,
        }
    }

    /// The next event in `input`, which holds everything read and not consumed. `head` is filled when the event says so.
    #[inline]
    pub fn decode(&mut self, input: &[u8], head: &mut RequestHead) -> Decoded {
        dispatch!(self, codec => codec.decode(input, head))
    }

    /// The peer will send nothing more, and `decode` has nothing more to say of what it sent. To be called until it says
    /// `NeedInput`: every stream that is cut off is named.
    pub fn end_of_input(&mut self) -> Event {
        dispatch!(self, codec => codec.end_of_input())
    }

    /// Writes a 1xx response other than 101.
    pub fn encode_informational(
        &mut self,
        stream: StreamId,
        head: &ResponseHead,
        out: &mut Vec<u8>,
    ) {
        dispatch!(self, codec => codec.encode_informational(stream, head, out))
    }

    /// Writes the final response's head.
    #[inline]
    pub fn encode_head(
        &mut self,
        stream: StreamId,
        head: &ResponseHead,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) {
        dispatch!(self, codec => codec.encode_head(stream, head, end_stream, out))
    }

    /// Writes body bytes.
    pub fn encode_data(
        &mut self,
        stream: StreamId,
        data: &[u8],
        end_stream: bool,
        out: &mut Vec<u8>,
    ) {
        dispatch!(self, codec => codec.encode_data(stream, data, end_stream, out))
    }

    /// As `encode_data`, for a caller that writes the body bytes itself, from where they lie: writes what comes before `len`
    /// of them and says what must come after. HTTP/2 begins one frame: if not all of the bytes go into it, `begin_data` is
    /// to be called again for the rest.
    pub fn begin_data(
        &mut self,
        stream: StreamId,
        len: usize,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) -> DataTail {
        dispatch!(self, codec => codec.begin_data(stream, len, end_stream, out))
    }

    /// Writes trailers and ends the stream.
    pub fn encode_trailers(&mut self, stream: StreamId, trailers: &Fields, out: &mut Vec<u8>) {
        dispatch!(self, codec => codec.encode_trailers(stream, trailers, out))
    }

    /// Gives up a stream. In HTTP/1 there is no word for it: the connection must close.
    pub fn reset(&mut self, stream: StreamId, out: &mut Vec<u8>) {
        dispatch!(self, codec => codec.reset(stream, out))
    }

    /// No new streams: HTTP/1 says `connection: close` with the next response head, HTTP/2 sends GOAWAY.
    pub fn start_drain(&mut self, out: &mut Vec<u8>) {
        dispatch!(self, codec => codec.start_drain(out))
    }

    /// The connection is to be closed once everything written is flushed.
    pub fn must_close(&self) -> bool {
        dispatch!(self, codec => codec.must_close())
    }

    /// No stream is open and no part of a request has been seen.
    pub fn is_idle(&self) -> bool {
        dispatch!(self, codec => codec.is_idle())
    }

    /// Part of a request's head has come, and no stream has begun with it yet.
    pub fn is_in_head(&self) -> bool {
        match self {
            ServerCodec::Http2(codec) => codec.is_in_head(),
            _ => !self.is_idle(),
        }
    }
}
