//! HTTP/2 clients and hosts that show every event, and do nothing that they are not told to.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use codec::client::ClientCodec;
use codec::event::{Decoded, Event, ResetReason, StreamId};
use codec::headers::{Fields, RequestHead, ResponseHead};
use codec::http2;
use codec::server::ServerCodec;

use crate::engine::{backend, connect};

/// One end of a connection.
pub trait End {
    type Head: Default;
    fn decode(&mut self, input: &[u8], head: &mut Self::Head) -> Decoded;
    fn write_control(&mut self, out: &mut Vec<u8>);
    fn passed_on(&mut self, stream: StreamId, len: usize);
    fn send_room(&self, stream: StreamId) -> usize;
    fn encode_data(&mut self, stream: StreamId, data: &[u8], end: bool, out: &mut Vec<u8>);
}

macro_rules! end {
    ($codec:ty, $head:ty) => {
        impl End for $codec {
            type Head = $head;
            fn decode(&mut self, input: &[u8], head: &mut $head) -> Decoded {
                self.decode(input, head)
            }
            fn write_control(&mut self, out: &mut Vec<u8>) {
                self.write_control(out)
            }
            fn passed_on(&mut self, stream: StreamId, len: usize) {
                self.passed_on(stream, len)
            }
            fn send_room(&self, stream: StreamId) -> usize {
                self.send_room(stream)
            }
            fn encode_data(&mut self, stream: StreamId, data: &[u8], end: bool, out: &mut Vec<u8>) {
                self.encode_data(stream, data, end, out)
            }
        }
    };
}
end!(ClientCodec, ResponseHead);
end!(ServerCodec, RequestHead);

/// A connection with what was read and not decoded.
pub struct Peer<E: End> {
    pub socket: TcpStream,
    pub codec: E,
    /// The head, or the trailers, of the last event that has any.
    pub head: E::Head,
    /// Opens windows again for what arrives.
    pub reads_on: bool,
    input: Vec<u8>,
}

impl<E: End> Peer<E> {
    fn new(socket: TcpStream, codec: E) -> Self {
        // What is written in several pieces does not wait for acknowledgements.
        socket.set_nodelay(true).unwrap();
        let mut peer =
            Self { socket, codec, head: E::Head::default(), reads_on: true, input: Vec::new() };
        peer.write(|_, _| ());
        peer
    }

    /// Writes what `encode` encodes, and what the codec has to say for itself.
    pub fn write<T>(&mut self, encode: impl FnOnce(&mut E, &mut Vec<u8>) -> T) -> T {
        let mut out = Vec::new();
        let result = encode(&mut self.codec, &mut out);
        self.codec.write_control(&mut out);
        // The other end may have closed: what it said before is still to be read.
        let _ = self.socket.write_all(&out);
        result
    }

    /// The next event, with the body bytes it brings; `None` at the end of the connection.
    pub fn next(&mut self) -> Option<(Event, Vec<u8>)> {
        loop {
            let decoded = self.codec.decode(&self.input, &mut self.head);
            let mut data = Vec::new();
            if let Event::Data { stream, range, .. } = &decoded.event {
                data = self.input[range.clone()].to_vec();
                if self.reads_on {
                    self.codec.passed_on(*stream, data.len());
                }
            }
            self.input.drain(..decoded.consumed);
            self.write(|_, _| ());
            if decoded.event != Event::NeedInput {
                return Some((decoded.event, data));
            }
            let mut buffer = [0; 16 * 1024];
            match self.socket.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// Sends a body as the other end has room for it, then ends the stream.
    pub fn send(&mut self, stream: StreamId, mut data: &[u8]) {
        loop {
            let len = data.len().min(self.codec.send_room(stream));
            let (now, later) = data.split_at(len);
            let ends = later.is_empty();
            self.write(|codec, out| codec.encode_data(stream, now, ends, out));
            data = later;
            if ends {
                return;
            }
            if len == 0 {
                self.next().expect("room, some day");
            }
        }
    }
}

/// A client of the engine.
pub struct Client {
    pub peer: Peer<ClientCodec>,
    /// How often it was told to go.
    pub goodbyes: usize,
    answers: HashMap<StreamId, Answer>,
}

/// What came of a stream.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub informational: Vec<u16>,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Option<Fields>,
    pub reset: Option<ResetReason>,
    is_whole: bool,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::with(address, http2::Options::default())
    }

    pub fn with(address: SocketAddr, options: http2::Options) -> Self {
        let codec = ClientCodec::Http2(Box::new(http2::ClientCodec::new(options)));
        Self { peer: Peer::new(connect(address), codec), goodbyes: 0, answers: HashMap::new() }
    }

    pub fn get(&mut self, path: &str) -> StreamId {
        self.open(&request("GET", path), true)
    }

    pub fn open(&mut self, head: &RequestHead, ends: bool) -> StreamId {
        while self.peer.codec.free_streams() == 0 {
            let event = self.peer.next().expect("the connection goes on");
            self.take(event);
        }
        self.peer.write(|codec, out| codec.encode_head(head, ends, out))
    }

    /// Reads until a stream has its answer.
    pub fn answer(&mut self, stream: StreamId) -> Answer {
        while !self.answers.get(&stream).is_some_and(|answer| answer.is_whole) {
            let event = self.peer.next().expect("the connection goes on");
            self.take(event);
        }
        self.answers.remove(&stream).unwrap()
    }

    /// Reads until a stream has so much of its body, or its head for none.
    pub fn wait_for(&mut self, stream: StreamId, bytes: usize) -> &Answer {
        while !self
            .answers
            .get(&stream)
            .is_some_and(|answer| answer.status != 0 && answer.body.len() >= bytes)
        {
            let event = self.peer.next().expect("the connection goes on");
            self.take(event);
        }
        &self.answers[&stream]
    }

    /// Reads one event.
    pub fn read_one(&mut self) {
        let event = self.peer.next().expect("the connection goes on");
        self.take(event);
    }

    /// Reads until the connection ends.
    pub fn read_to_end(&mut self) {
        while let Some(event) = self.peer.next() {
            self.take(event);
        }
    }

    /// Body bytes of a stream that have come so far.
    pub fn received(&self, stream: StreamId) -> usize {
        self.answers.get(&stream).map_or(0, |answer| answer.body.len())
    }

    fn take(&mut self, (event, data): (Event, Vec<u8>)) {
        let id = match event {
            Event::Head { stream, .. }
            | Event::Informational { stream }
            | Event::Data { stream, .. }
            | Event::Trailers { stream }
            | Event::End { stream }
            | Event::Reset { stream, .. } => stream,
            Event::GoAway => {
                self.goodbyes += 1;
                return;
            }
            Event::Error(error) => panic!("{error}"),
            _ => return,
        };
        let answer = self.answers.entry(id).or_default();
        let head = &mut self.peer.head;
        match event {
            Event::Head { end_stream, .. } => {
                answer.status = head.status;
                answer.fields = head.fields.clone();
                answer.is_whole = end_stream;
            }
            Event::Informational { .. } => answer.informational.push(head.status),
            Event::Data { end_stream, .. } => {
                answer.body.extend(data);
                answer.is_whole = end_stream;
            }
            Event::Trailers { .. } => {
                answer.trailers = Some(head.fields.clone());
                answer.is_whole = true;
            }
            Event::Reset { reason, .. } => {
                answer.reset = Some(reason);
                answer.is_whole = true;
            }
            _ => answer.is_whole = true,
        }
    }
}

/// A request's head.
pub fn request(method: &str, path: &str) -> RequestHead {
    let mut head = RequestHead::new();
    head.set_method(method.as_bytes());
    head.set_scheme(b"http");
    head.set_authority(b"test");
    head.set_path(path.as_bytes());
    head
}

/// A connection of the engine to a host.
pub type Host = Peer<ServerCodec>;

impl Host {
    /// Answers with a body.
    pub fn answer(&mut self, stream: StreamId, status: u16, body: &[u8]) {
        let head = ResponseHead::new(status);
        self.write(|codec, out| codec.encode_head(stream, &head, false, out));
        self.send(stream, body);
    }
}

/// A host that serves each connection, numbered from 0, with `serve`.
pub fn host(serve: impl Fn(usize, &mut Host) + Send + Sync + 'static) -> SocketAddr {
    host_with(http2::Options::default(), serve)
}

/// As `host`, with limits and windows.
pub fn host_with(
    options: http2::Options,
    serve: impl Fn(usize, &mut Host) + Send + Sync + 'static,
) -> SocketAddr {
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    backend(move |socket| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let codec = ServerCodec::Http2(Box::new(http2::ServerCodec::new(options)));
        serve(number, &mut Peer::new(socket, codec));
    })
}

/// Calls `on_request` for every request that is whole, with its head, body and trailers.
pub fn serve_requests(
    host: &mut Host,
    mut on_request: impl FnMut(&mut Host, StreamId, &RequestHead, Vec<u8>, Option<Fields>),
) {
    let mut open: Vec<(StreamId, RequestHead, Vec<u8>)> = Vec::new();
    while let Some((event, data)) = host.next() {
        let (id, trailers) = match event {
            Event::Head { stream, end_stream } => {
                open.push((stream, host.head.clone(), Vec::new()));
                if !end_stream {
                    continue;
                }
                (stream, None)
            }
            Event::Data { stream, end_stream, .. } => {
                if let Some(entry) = open.iter_mut().find(|(id, ..)| *id == stream) {
                    entry.2.extend(data);
                }
                if !end_stream {
                    continue;
                }
                (stream, None)
            }
            Event::Trailers { stream } => (stream, Some(host.head.fields.clone())),
            Event::End { stream } => (stream, None),
            _ => continue,
        };
        if let Some(at) = open.iter().position(|(open, ..)| *open == id) {
            let (stream, head, body) = open.swap_remove(at);
            on_request(host, stream, &head, body, trailers);
        }
    }
}
