//! The client's end of a connection: requests out, responses in.

use crate::event::{Decoded, Event, ResetCode, StreamId};
use crate::headers::{Fields, RequestHead, ResponseHead, Version};
use crate::http1::{self, DataTail};
use crate::{http2, raw};

/// The codec of an upstream connection.
#[derive(Debug)]
pub enum ClientCodec {
    /// HTTP/1.1
    Http1(http1::ClientCodec),
    /// HTTP/2
    Http2(Box<http2::ClientCodec>),
    /// The bytes of one tunnel
    Raw(raw::ClientCodec),
}

macro_rules! dispatch {
    ($self:ident, $codec:ident => $call:expr) => {
        match $self {
            ClientCodec::Http1($codec) => $call,
            ClientCodec::Http2($codec) => $call,
            ClientCodec::Raw($codec) => $call,
        }
    };
}

crate::multiplexing::methods!(ClientCodec);

/// Every method means the same for every version; see [`http1::ClientCodec`] for the details.
impl ClientCodec {
    /// What the connection speaks.
    pub fn version(&self) -> Version {
        match self {
            ClientCodec::Http1(_) | ClientCodec::Raw(_) => Version::Http11,
            ClientCodec::Http2(_) => Version::Http2,
        }
    }

    /// How many more streams may be opened now: for HTTP/1 one, when the last response has ended and the connection stays.
    pub fn free_streams(&self) -> usize {
        match self {
            ClientCodec::Http1(codec) => usize::from(codec.is_reusable()),
            ClientCodec::Http2(codec) => codec.free_streams(),
            ClientCodec::Raw(codec) => codec.free_streams(),
        }
    }

    /// Opens a stream with its request's head. To be called only while `free_streams` is not 0.
    #[inline]
    pub fn encode_head(
        &mut self,
        head: &RequestHead,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) -> StreamId {
        dispatch!(self, codec => codec.encode_head(head, end_stream, out))
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

    /// Writes trailers and ends the request.
    pub fn encode_trailers(&mut self, stream: StreamId, trailers: &Fields, out: &mut Vec<u8>) {
        dispatch!(self, codec => codec.encode_trailers(stream, trailers, out))
    }

    /// Data may be written: false in HTTP/1 between the request for a tunnel (CONNECT, upgrade) and the answer that grants it.
    pub fn can_send_data(&self) -> bool {
        match self {
            ClientCodec::Http1(codec) => codec.can_send_data(),
            _ => true,
        }
    }

    /// The next event in `input`, which holds everything read and not consumed. `head` is filled when the event says so.
    #[inline]
    pub fn decode(&mut self, input: &[u8], head: &mut ResponseHead) -> Decoded {
        dispatch!(self, codec => codec.decode(input, head))
    }

    /// The peer will send nothing more, and `decode` has nothing more to say of what it sent. To be called until it says
    /// `NeedInput`: every stream that is cut off is named.
    pub fn end_of_input(&mut self) -> Event {
        dispatch!(self, codec => codec.end_of_input())
    }

    /// Gives up a stream. In HTTP/1 there is no word for it: the connection must close.
    pub fn reset(&mut self, stream: StreamId, out: &mut Vec<u8>) {
        dispatch!(self, codec => codec.reset(stream, out))
    }

    /// The connection is not to be used for another stream.
    pub fn must_close(&self) -> bool {
        dispatch!(self, codec => codec.must_close())
    }

    /// The server takes extended CONNECT (RFC 8441); HTTP/1 never does.
    pub fn takes_extended_connect(&self) -> bool {
        matches!(self, ClientCodec::Http2(codec) if codec.takes_extended_connect())
    }
}
