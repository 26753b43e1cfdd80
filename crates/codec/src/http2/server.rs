//! The server's end of an HTTP/2 connection.

use super::connection::{Connection, Fault, Headers, declared_length};
use super::frame::ErrorCode;
use super::output::Drain;
use super::streams::{ANY_LENGTH, Stream};
use super::{Counts, Options};
use crate::event::{Decoded, Event, ResetCode, StreamId};
use crate::headers::{Fields, Method, RequestHead, ResponseHead, Version};
use crate::http1::DataTail;

/// Requests in, responses out.
#[derive(Debug)]
pub struct ServerCodec {
    connection: Connection,
}

super::both_ends::methods!(ServerCodec);

impl ServerCodec {
    /// For a new connection.
    pub fn new(options: Options) -> ServerCodec {
        ServerCodec { connection: Connection::new(options, true) }
    }

    /// The next event in `input`. `head` is filled when the event is `Head` or `Trailers`, and may be overwritten by others.
    /// What decoding has made necessary to say waits for [`write_control`](ServerCodec::write_control).
    #[inline]
    pub fn decode(&mut self, input: &[u8], head: &mut RequestHead) -> Decoded {
        self.connection.decode(input, head, read_headers)
    }

    /// Writes a 1xx response other than 101.
    pub fn encode_informational(
        &mut self,
        stream: StreamId,
        head: &ResponseHead,
        out: &mut Vec<u8>,
    ) {
        if self.connection.streams.get(stream.0).is_some_and(|stream| !stream.sent_all) {
            self.connection
                .write_block(stream.0, false, out, |encoder, out| encoder.response(head, out));
        }
    }

    /// Writes the final response's head. A response that cannot have a body ends with it.
    pub fn encode_head(
        &mut self,
        stream: StreamId,
        head: &ResponseHead,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) {
        let Some(Stream { is_head, is_answered, sent_all: false, .. }) =
            self.connection.streams.get_mut(stream.0)
        else {
            return;
        };
        *is_answered = true;
        let end_stream = end_stream || *is_head || matches!(head.status, 204 | 304);
        self.connection
            .write_block(stream.0, end_stream, out, |encoder, out| encoder.response(head, out));
        if end_stream {
            self.connection.sent_all(stream.0, out);
        }
    }

    /// Gives up a stream: NO_ERROR if the response is whole, INTERNAL_ERROR if it was cut off.
    pub fn reset(&mut self, stream: StreamId, out: &mut Vec<u8>) {
        let is_whole = self.connection.streams.get(stream.0).is_some_and(|stream| stream.sent_all);
        let code = if is_whole { ResetCode::NoError } else { ResetCode::Internal };
        self.reset_with(stream, code, out);
    }

    /// The first call tells the client to open no more streams. The second, or the client's answer to the first if it comes
    /// earlier, names the last stream that is served; from then on new ones are refused.
    pub fn start_drain(&mut self, out: &mut Vec<u8>) {
        self.connection.write_drain(out);
    }

    /// The connection is to be closed once everything written is flushed.
    pub fn must_close(&self) -> bool {
        self.connection.is_over()
    }

    /// No stream is open and no part of a request has been seen.
    pub fn is_idle(&self) -> bool {
        self.connection.streams.is_empty() && !self.connection.is_in_head()
    }

    /// Part of a request's head has come.
    pub fn is_in_head(&self) -> bool {
        self.connection.is_in_head()
    }
}

/// A whole block has come.
fn read_headers(
    connection: &mut Connection,
    headers: &Headers,
    block: &[u8],
    head: &mut RequestHead,
) -> Result<Option<Event>, Fault> {
    let id = headers.stream;
    if let Some(stream) = connection.streams.get(id) {
        if stream.received_all {
            return connection.headers_after_end_stream(id, block).map(Some);
        }
        return connection.read_trailers(headers, block, &mut head.fields).map(Some);
    }
    if id.is_multiple_of(2) {
        return Err(Fault::protocol("a client's stream with an even number"));
    }
    if id <= connection.last_stream {
        return connection.headers_after_the_end(id, block).map(|()| None);
    }
    connection.last_stream = id;
    connection.limits.streams += 1;
    let is_full = connection.streams.len() >= connection.options.max_concurrent_streams as usize;
    if is_full || connection.output.drain == Drain::Final {
        connection.skip_block(block)?;
        connection.discard(id, ErrorCode::RefusedStream);
        connection.count(|counts| counts.stream_refused_errors += 1);
        connection.limits.check_outbound(&connection.options, &mut connection.counts)?;
        return Ok(None);
    }
    let limits = connection.hpack_limits();
    if let Err(error) = connection.decoder.request(block, limits, head) {
        return connection.block_error(id, false, error).map(Some);
    }
    head.version = Version::Http2;
    begin_stream(connection, headers, head).map(Some)
}

/// A request's head is whole: decides what may follow.
fn begin_stream(
    connection: &mut Connection,
    headers: &Headers,
    head: &RequestHead,
) -> Result<Event, Fault> {
    let Headers { stream: id, end_stream, .. } = *headers;
    if !head.protocol().is_empty() && !connection.options.allow_connect {
        return connection.malformed(id, "extended CONNECT is not enabled");
    }
    let method = head.method_kind();
    let is_tunnel = method == Method::Connect;
    let declared = declared_length(&head.fields);
    let left = match declared {
        Err(reason) => return connection.malformed(id, reason),
        _ if is_tunnel => ANY_LENGTH,
        Ok(declared) => declared,
    };
    if end_stream && left != ANY_LENGTH && left > 0 {
        return connection.malformed(id, "no body, but a content-length");
    }
    let stream = Stream {
        id,
        receive: connection.new_receive_window(),
        send_window: connection.peer.initial_window as i32,
        left,
        received_head: true,
        received_all: end_stream,
        sent_all: false,
        is_head: method == Method::Head,
        is_tunnel,
        is_due: false,
        is_answered: false,
        informational: 0,
        opened_ms: connection.limits.now_ms(),
    };
    connection.streams.insert(stream);
    Ok(Event::Head { stream: StreamId(id), end_stream })
}
