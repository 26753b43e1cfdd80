//! A connection whose bytes are a tunnel's payload and nothing else: what a CONNECT that ends at the proxy leads to.
//!
//! Its one stream begins with a request that is not written, and with an answer that the connection's being there is.

use crate::event::{Decoded, Event, StreamId};
use crate::headers::{Fields, RequestHead, ResponseHead};
use crate::http1::DataTail;

const STREAM: StreamId = StreamId(1);

/// The client's end.
#[derive(Debug, Default)]
pub struct ClientCodec {
    has_begun: bool,
    has_ended: bool,
}

/// See [`crate::client::ClientCodec`].
impl ClientCodec {
    /// For a new connection.
    pub fn new() -> ClientCodec {
        ClientCodec::default()
    }

    /// One stream, once.
    pub fn free_streams(&self) -> usize {
        usize::from(!self.has_begun)
    }

    /// The stream begins. Nothing is written.
    pub fn encode_head(&mut self, _: &RequestHead, _: bool, _: &mut Vec<u8>) -> StreamId {
        self.has_begun = true;
        STREAM
    }

    /// Bytes are written as they are.
    pub fn encode_data(&mut self, _: StreamId, data: &[u8], _: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(data);
    }

    /// Nothing comes before them or after them.
    pub fn begin_data(&mut self, _: StreamId, len: usize, _: bool, _: &mut Vec<u8>) -> DataTail {
        DataTail { len, suffix: b"" }
    }

    /// There is no place for them.
    pub fn encode_trailers(&mut self, _: StreamId, _: &Fields, _: &mut Vec<u8>) {}

    /// All input is the tunnel's.
    pub fn decode(&mut self, input: &[u8], _: &mut ResponseHead) -> Decoded {
        let event = match self.has_begun && !input.is_empty() {
            true => Event::Data { stream: STREAM, range: 0..input.len(), end_stream: false },
            false => Event::NeedInput,
        };
        Decoded { consumed: input.len() * usize::from(self.has_begun), event }
    }

    /// The host has said all: so has the tunnel.
    pub fn end_of_input(&mut self) -> Event {
        let ends = self.has_begun && !std::mem::replace(&mut self.has_ended, true);
        if ends { Event::End { stream: STREAM } } else { Event::NeedInput }
    }

    /// The connection does not outlive its stream.
    pub fn reset(&mut self, _: StreamId, _: &mut Vec<u8>) {
        self.has_ended = true;
    }

    /// It is for one stream.
    pub fn must_close(&self) -> bool {
        self.has_begun
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_through_as_they_are() {
        let (mut codec, mut head, mut out) =
            (ClientCodec::new(), ResponseHead::default(), Vec::new());
        assert_eq!(codec.free_streams(), 1);
        let early = codec.decode(b"hello", &mut head);
        assert_eq!((early.consumed, early.event), (0, Event::NeedInput), "heard once it is asked");
        let stream = codec.encode_head(&RequestHead::new(), false, &mut out);
        let decoded = codec.decode(b"hello", &mut head);
        assert_eq!(decoded.consumed, 5);
        assert_eq!(decoded.event, Event::Data { stream, range: 0..5, end_stream: false });
        codec.encode_data(stream, b"hi", true, &mut out);
        assert_eq!(out, b"hi");
        assert_eq!(codec.end_of_input(), Event::End { stream });
        assert_eq!(codec.end_of_input(), Event::NeedInput);
        assert!(codec.must_close() && codec.free_streams() == 0);
    }
}
