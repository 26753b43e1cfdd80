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

    /// Writes body bytes, no more of them than [`send_room`](ClientCodec::send_room) says.
    pub fn encode_data(
        &mut self,
        stream: StreamId,
        data: &[u8],
        end_stream: bool,
        out: &mut Vec<u8>,
    ) {
        self.connection.write_data(stream.0, data, end_stream, out);
    }

    /// As `encode_data`, for a caller that writes the body bytes itself, from where they lie: writes the head of one frame
    /// and says how many bytes must follow it. If those are not all, `begin_data` is to be called again for the rest.
    pub fn begin_data(
        &mut self,
        stream: StreamId,
        len: usize,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) -> DataTail {
        self.connection.begin_data(stream.0, len, end_stream, out)
    }

    /// Writes trailers and ends the request.
    pub fn encode_trailers(&mut self, stream: StreamId, trailers: &Fields, out: &mut Vec<u8>) {
        self.connection.write_trailers(stream.0, trailers, out);
    }

    /// The next event in `input`. `head` is filled when the event is `Head`, `Informational` or `Trailers`.
    /// What decoding has made necessary to say waits for [`write_control`](ClientCodec::write_control).
    #[inline]
    pub fn decode(&mut self, input: &[u8], head: &mut ResponseHead) -> Decoded {
        self.connection.decode(input, head, read_headers)
    }

    /// The server will send nothing more. To be called until it says `NeedInput`: every stream that is cut off is named.
    pub fn end_of_input(&mut self) -> Event {
        self.connection.end_of_input()
    }

    /// Gives up a stream: CANCEL.
    pub fn reset(&mut self, stream: StreamId, out: &mut Vec<u8>) {
        self.reset_with(stream, ResetCode::Cancel, out);
    }

    /// Gives up a stream and says why. One that is over already is let be.
    pub fn reset_with(&mut self, stream: StreamId, code: ResetCode, out: &mut Vec<u8>) {
        self.connection.write_reset(stream.0, code.into(), out);
    }

    /// The connection is not to be used for another stream, and there is none on it.
    pub fn must_close(&self) -> bool {
        let connection = &self.connection;
        let is_used_up = connection.peer_goes_away || connection.last_stream >= LAST_NUMBER - 1;
        connection.is_over() || is_used_up && connection.streams.is_empty()
    }

    /// The window between the server and a request's body: how many bytes `encode_data` may be given now.
    #[inline]
    pub fn send_room(&self, stream: StreamId) -> usize {
        self.connection.send_room(stream.0)
    }

    /// As `send_room`, for all streams together.
    pub fn connection_room(&self) -> usize {
        self.connection.output.window.max(0) as usize
    }

    /// So many body bytes of a stream have left on the other side, or were thrown away; see
    /// [`ServerCodec::passed_on`](super::ServerCodec::passed_on).
    #[inline]
    pub fn passed_on(&mut self, stream: StreamId, len: usize) {
        self.connection.passed_on(stream.0, len);
    }

    /// Something waits for `write_control`.
    #[inline]
    pub fn has_control(&self) -> bool {
        self.connection.output.due
    }

    /// Writes what decoding and passing on have made necessary: preface and SETTINGS, acknowledgements, resets, windows.
    #[inline]
    pub fn write_control(&mut self, out: &mut Vec<u8>) {
        self.connection.write_control(out);
    }

    /// Asks the server for a sign of life, which comes as [`Event::Pong`].
    pub fn ping(&mut self, out: &mut Vec<u8>) {
        self.connection.write_ping(out);
    }

    /// See [`ServerCodec::observe`](super::ServerCodec::observe).
    pub fn observe(&mut self, now_ns: u64, unsent: usize) {
        self.connection.observe(now_ns, unsent);
    }

    /// What is to be counted since the last call, if anything.
    #[inline]
    pub fn take_counts(&mut self) -> Option<Counts> {
        self.connection.take_counts()
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
