//! The codecs against frames by hand, and against each other.

mod client_rules;
mod draining;
mod floods;
mod flow;
mod server_rules;
mod simulation;
mod splits;

use super::frame::{
    ACK, END_HEADERS, END_STREAM, FrameHead, HEAD_LEN, Kind, PREFACE, head_bytes, number,
};
use super::{ClientCodec, Options, ServerCodec};
use crate::event::{Decoded, Event};
use crate::headers::{RequestHead, ResponseHead};

/// Frames by hand.
#[derive(Clone, Debug, Default)]
struct Wire(Vec<u8>);

impl Wire {
    /// What a client says first.
    fn client() -> Wire {
        Wire(PREFACE.to_vec()).frame(Kind::Settings, 0, 0, &[])
    }

    /// What a server says first.
    fn server() -> Wire {
        Wire::default().frame(Kind::Settings, 0, 0, &[])
    }

    fn frame(mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Wire {
        self.0.extend_from_slice(&head_bytes(payload.len(), kind, flags, stream));
        self.0.extend_from_slice(payload);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Wire {
        self.0.extend_from_slice(bytes);
        self
    }

    fn get(self, stream: u32, flags: u8) -> Wire {
        self.frame(Kind::Headers, flags | END_HEADERS, stream, &request(&[]))
    }

    fn ok(self, stream: u32, flags: u8) -> Wire {
        self.frame(Kind::Headers, flags | END_HEADERS, stream, &block(&[(":status", "200")]))
    }

    fn data(self, stream: u32, flags: u8, payload: &[u8]) -> Wire {
        self.frame(Kind::Data, flags, stream, payload)
    }

    fn rst(self, stream: u32, code: u32) -> Wire {
        self.frame(Kind::RstStream, 0, stream, &code.to_be_bytes())
    }

    fn window(self, stream: u32, increment: u32) -> Wire {
        self.frame(Kind::WindowUpdate, 0, stream, &increment.to_be_bytes())
    }

    fn settings(self, entries: &[(u16, u32)]) -> Wire {
        let mut payload = Vec::new();
        for (id, value) in entries {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        self.frame(Kind::Settings, 0, 0, &payload)
    }

    fn settings_ack(self) -> Wire {
        self.frame(Kind::Settings, ACK, 0, &[])
    }

    fn goaway(self, last: u32, code: u32) -> Wire {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        self.frame(Kind::GoAway, 0, 0, &payload)
    }
}

/// Literal fields that leave the table alone.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for part in [name, value] {
            assert!(part.len() < 127);
            out.push(part.len() as u8);
            out.extend_from_slice(part.as_bytes());
        }
    }
    out
}

/// A block of `GET / HTTP/2` with more fields.
fn request(more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields =
        vec![(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    fields.extend_from_slice(more);
    block(&fields)
}

/// Frames in a few words each.
fn frames(bytes: &[u8]) -> Vec<String> {
    let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    let mut said = Vec::new();
    while let Some(head) = FrameHead::read(rest) {
        let payload = &rest[HEAD_LEN..HEAD_LEN + head.len];
        rest = &rest[HEAD_LEN + head.len..];
        let (stream, word) = (head.stream, |at: usize| number(&payload[at..]));
        let end = if head.has(END_STREAM) { " end" } else { "" };
        said.push(match head.kind {
            Kind::Settings if head.has(ACK) => "SETTINGS ack".to_owned(),
            Kind::Settings => "SETTINGS".to_owned(),
            Kind::Ping if head.has(ACK) => "PING ack".to_owned(),
            Kind::Ping => format!("PING {}", String::from_utf8_lossy(payload)),
            Kind::RstStream => format!("RST {stream} {}", word(0)),
            Kind::GoAway => format!("GOAWAY {} {}", word(0), word(4)),
            Kind::WindowUpdate => format!("WINDOW {stream} {}", word(0)),
            Kind::Data => format!("DATA {stream} {}{end}", head.len),
            Kind::Headers => format!("HEADERS {stream}{end}"),
            other => format!("{other:?} {stream}"),
        });
    }
    assert!(rest.is_empty(), "half a frame: {rest:?}");
    said
}

/// Events in a few words each; body bytes of a stream in a row are one.
fn note(event: &Event, input: &[u8], said: &mut Vec<String>) {
    let text = match event {
        Event::NeedInput => return,
        Event::Head { stream, end_stream } => {
            format!("head {}{}", stream.0, if *end_stream { " end" } else { "" })
        }
        Event::Informational { stream } => format!("informational {}", stream.0),
        Event::Data { stream, range, end_stream } => {
            let label = format!("data {} ", stream.0);
            let text = String::from_utf8_lossy(&input[range.clone()]).into_owned();
            match said.last_mut().filter(|last| last.starts_with(&label)) {
                Some(last) => last.push_str(&text),
                None => said.push(label + &text),
            }
            if *end_stream {
                said.push(format!("end {}", stream.0));
            }
            return;
        }
        Event::Trailers { stream } => format!("trailers {}", stream.0),
        Event::End { stream } => format!("end {}", stream.0),
        Event::Reset { stream, reason } => format!("reset {} {reason:?}", stream.0),
        Event::Error(error) if error.close => format!("fail {}: {}", error.stream.0, error.reason),
        Event::Error(error) => format!("broken {}: {}", error.stream.0, error.reason),
        Event::Room { stream } => format!("room {}", stream.map_or(0, |stream| stream.0)),
        other => format!("{other:?}"),
    };
    said.push(text);
}

/// Gives all of `input` to a decoder, in pieces, as a connection does.
fn feed(mut decode: impl FnMut(&[u8]) -> Decoded, input: &[u8], piece: usize) -> Vec<String> {
    let (mut pending, mut said) = (Vec::new(), Vec::new());
    for part in input.chunks(piece.max(1)) {
        pending.extend_from_slice(part);
        loop {
            let Decoded { consumed, event } = decode(&pending);
            note(&event, &pending, &mut said);
            pending.drain(..consumed);
            if event == Event::NeedInput {
                break;
            }
        }
    }
    said
}

/// One end with what it needs.
struct End<C, H> {
    codec: C,
    head: H,
}

type Server = End<ServerCodec, RequestHead>;
type Client = End<ClientCodec, ResponseHead>;

/// `SETTINGS` and the opening of the connection's window: the first words of both ends.
const FIRST_WORDS: [&str; 2] = ["SETTINGS", "WINDOW 0 983041"];

impl Server {
    fn new(options: Options) -> Server {
        End { codec: ServerCodec::new(options), head: RequestHead::new() }
    }

    /// One that has greeted its client and been acknowledged.
    fn greeted(options: Options) -> Server {
        let mut server = Server::new(options);
        assert_eq!(server.feed(Wire::client().settings_ack()), ["PeerSettings"]);
        server.sent();
        server
    }

    fn feed(&mut self, wire: Wire) -> Vec<String> {
        feed(|input| self.codec.decode(input, &mut self.head), &wire.0, usize::MAX)
    }

    /// What waits to be written.
    fn sent(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        self.codec.write_control(&mut out);
        assert!(!self.codec.has_control());
        frames(&out)
    }
}

impl Client {
    fn new(options: Options) -> Client {
        End { codec: ClientCodec::new(options), head: ResponseHead::default() }
    }

    /// One that has been greeted, with GET requests on streams 1, 3, ...
    fn asking(options: Options, streams: usize) -> Client {
        let mut client = Client::new(options);
        for _ in 0..streams {
            client.ask("GET", true);
        }
        assert_eq!(client.feed(Wire::server().settings_ack()), ["PeerSettings"]);
        client.sent();
        client
    }

    fn ask(&mut self, method: &str, end_stream: bool) -> u32 {
        let mut head = RequestHead::new();
        head.set_method(method.as_bytes());
        head.set_scheme(b"http");
        head.set_authority(b"a");
        head.set_path(b"/");
        self.codec.encode_head(&head, end_stream, &mut Vec::new()).0
    }

    fn feed(&mut self, wire: Wire) -> Vec<String> {
        feed(|input| self.codec.decode(input, &mut self.head), &wire.0, usize::MAX)
    }

    fn sent(&mut self) -> Vec<String> {
        let mut out = Vec::new();
        self.codec.write_control(&mut out);
        frames(&out)
    }
}
