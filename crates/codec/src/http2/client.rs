//! The client's end of an HTTP/2 connection.

use super::connection::{Connection, Fault, Headers, declared_length};
use super::streams::{ANY_LENGTH, Stream};
use super::{Counts, Options};
use crate::event::{Decoded, Event, ResetCode, StreamId};
use crate::headers::{Fields, Method, RequestHead, ResponseHead, Version};
use crate::http1::DataTail;

/// More 1xx responses than this before a final one are an attack.
const MOST_INFORMATIONAL: u8 = 100;
/// Streams that we open before the server has said how many it takes.
const BEFORE_SETTINGS: usize = 100;
/// The numbers that a client can give its streams end here.
const LAST_NUMBER: u32 = 0x7fff_ffff;

/// Requests out, responses in.
#[derive(Debug)]
pub struct ClientCodec {
    connection: Connection,
}

super::both_ends::methods!(ClientCodec);

impl ClientCodec {
    /// For a new connection.
    pub fn new(options: Options) -> ClientCodec {
        ClientCodec { connection: Connection::new(options, false) }
    }

    /// How many more streams may be opened now.
    #[inline]
    pub fn free_streams(&self) -> usize {
        let connection = &self.connection;
        let numbers = (LAST_NUMBER - connection.last_stream) as usize / 2;
        if connection.peer_goes_away || connection.is_closed() || connection.peer_is_gone {
            return 0;
        }
        let theirs = match connection.is_greeted {
            true => connection.peer.max_concurrent_streams as usize,
            false => BEFORE_SETTINGS,
        };
        let most = theirs.min(connection.options.max_concurrent_streams as usize);
        most.saturating_sub(connection.streams.len()).min(numbers)
    }

    /// The server takes extended CONNECT (RFC 8441); not known before the first [`Event::PeerSettings`].
    pub fn takes_extended_connect(&self) -> bool {
        self.connection.peer.enable_connect_protocol
    }

    /// Opens a stream with its request's head. To be called only while `free_streams` is not 0.
    pub fn encode_head(
        &mut self,
        head: &RequestHead,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) -> StreamId {
        debug_assert!(self.free_streams() > 0, "no more streams than allowed");
        let connection = &mut self.connection;
        let id = connection.last_stream + if connection.last_stream == 0 { 1 } else { 2 };
        connection.last_stream = id;
        connection.limits.streams += 1;
        let method = head.method_kind();
        connection.streams.insert(Stream {
            id,
            receive: connection.new_receive_window(),
            send_window: connection.peer.initial_window as i32,
            left: ANY_LENGTH,
            received_head: false,
            received_all: false,
            sent_all: end_stream,
            is_head: method == Method::Head,
            is_tunnel: method == Method::Connect,
            is_due: false,
            is_answered: false,
            informational: 0,
            opened_ms: connection.limits.now_ms(),
        });
        connection.write_block(id, end_stream, out, |encoder, out| encoder.request(head, out));
        StreamId(id)
    }

    /// The next event in `input`. `head` is filled when the event is `Head`, `Informational` or `Trailers`.
    /// What decoding has made necessary to say waits for [`write_control`](ClientCodec::write_control).
    #[inline]
    pub fn decode(&mut self, input: &[u8], head: &mut ResponseHead) -> Decoded {
        self.connection.decode(input, head, read_headers)
    }

    /// Gives up a stream: CANCEL.
    pub fn reset(&mut self, stream: StreamId, out: &mut Vec<u8>) {
        self.reset_with(stream, ResetCode::Cancel, out);
    }

    /// The connection is not to be used for another stream, and there is none on it.
    pub fn must_close(&self) -> bool {
        let connection = &self.connection;
        let is_used_up = connection.peer_goes_away || connection.last_stream >= LAST_NUMBER - 1;
        connection.is_over() || is_used_up && connection.streams.is_empty()
    }

    #[cfg(test)]
    pub(super) fn pretend_last_stream(&mut self, id: u32) {
        self.connection.last_stream = id;
    }
}

/// A whole block has come.
fn read_headers(
    connection: &mut Connection,
    headers: &Headers,
    block: &[u8],
    head: &mut ResponseHead,
) -> Result<Option<Event>, Fault> {
    let id = headers.stream;
    if connection.is_idle_stream(id) {
        return Err(Fault::protocol("HEADERS on a stream that has not begun"));
    }
    let Some(stream) = connection.streams.get(id) else {
        return connection.headers_after_the_end(id, block).map(|()| None);
    };
    if stream.received_all {
        return connection.headers_after_end_stream(id, block).map(Some);
    }
    if stream.received_head {
        return connection.read_trailers(headers, block, &mut head.fields).map(Some);
    }
    let limits = connection.hpack_limits();
    if let Err(error) = connection.decoder.response(block, limits, head) {
        return connection.block_error(id, false, error).map(Some);
    }
    head.version = Version::Http2;
    match head.status {
        101 => connection.malformed(id, "101 in HTTP/2").map(Some),
        100..=199 => informational(connection, headers).map(Some),
        _ => begin_response(connection, headers, head).map(Some),
    }
}

fn informational(connection: &mut Connection, headers: &Headers) -> Result<Event, Fault> {
    let id = headers.stream;
    if headers.end_stream {
        return connection.malformed(id, "1xx at the end");
    }
    let Some(stream) = connection.streams.get_mut(id) else { return Ok(Event::NeedInput) };
    stream.informational += 1;
    if stream.informational > MOST_INFORMATIONAL {
        return connection.malformed(id, "too many 1xx responses");
    }
    Ok(Event::Informational { stream: StreamId(id) })
}

/// A final head is whole: decides what may follow.
fn begin_response(
    connection: &mut Connection,
    headers: &Headers,
    head: &ResponseHead,
) -> Result<Event, Fault> {
    let Headers { stream: id, end_stream, .. } = *headers;
    let declared = match declared_length(&head.fields) {
        Ok(declared) => declared,
        Err(reason) => return connection.malformed(id, reason),
    };
    let Some(stream) = connection.streams.get_mut(id) else { return Ok(Event::NeedInput) };
    stream.received_head = true;
    stream.left = match head.status {
        200..=299 if stream.is_tunnel => ANY_LENGTH,
        204 | 304 => 0,
        _ if stream.is_head => 0,
        _ => declared,
    };
    if end_stream && stream.left != ANY_LENGTH && stream.left > 0 {
        return connection.malformed(id, "no body, but a content-length");
    }
    if end_stream {
        connection.received_all(id);
    }
    Ok(Event::Head { stream: StreamId(id), end_stream })
}
