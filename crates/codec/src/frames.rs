//! A small multiplexing protocol, for tests of whatever must not take a connection for one stream. Never for the wire.
//!
//! A frame is a stream's number (u32, big-endian), a kind, an end-of-stream flag, a length (u32) and a payload. Heads and
//! trailers are the text of HTTP/1 heads. Streams are numbered by the client: 1, 3, 5 and so on.

use crate::event::{CodecError, Decoded, Event, ResetReason, StreamId};
use crate::headers::{Fields, NameSet, RequestHead, ResponseHead, names};
use crate::http1::encode::{OURS, OURS_IN_UPGRADES};
use crate::http1::head::{self, Progress, Seen};
use crate::http1::{DataTail, Options, Refusal};

/// So many streams may be open at a time.
pub const MOST_STREAMS: usize = 100;

const FRAME_HEAD: usize = 10;
const LONGEST_HEAD: usize = 64 * 1024;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Head,
    Data,
    Trailers,
    Reset,
    Informational,
    GoAway,
}

impl Kind {
    const ALL: [Kind; 6] =
        [Kind::Head, Kind::Data, Kind::Trailers, Kind::Reset, Kind::Informational, Kind::GoAway];
}

/// A stream that has begun and not ended both ways.
#[derive(Clone, Copy, Debug)]
struct Open {
    id: StreamId,
    sent_all: bool,
    received_all: bool,
}

/// Body bytes of a data frame that are still to come.
#[derive(Clone, Copy, Debug)]
struct Rest {
    id: StreamId,
    len: usize,
    end_stream: bool,
}

/// What both ends have in common.
#[derive(Debug, Default)]
struct Connection {
    open: Vec<Open>,
    rest: Option<Rest>,
    is_draining: bool,
    is_closed: bool,
    /// This is the client's end: heads belong to streams that it has opened.
    expects_response: bool,
}

/// One whole frame, or the front of a data frame.
struct Frame<'i> {
    id: StreamId,
    kind: Kind,
    end_stream: bool,
    payload: &'i [u8],
    len: usize,
}

const BROKEN: Refusal = Refusal::codec_error("broken frame");

impl Connection {
    fn write(&self, id: StreamId, kind: Kind, end_stream: bool, len: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&id.0.to_be_bytes());
        out.extend_from_slice(&[kind as u8, u8::from(end_stream)]);
        out.extend_from_slice(&(len as u32).to_be_bytes());
    }

    /// Writes a frame whose payload `fill` appends.
    fn write_with(
        &mut self,
        id: StreamId,
        kind: Kind,
        end_stream: bool,
        out: &mut Vec<u8>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = out.len();
        self.write(id, kind, end_stream, 0, out);
        fill(out);
        let len = (out.len() - start - FRAME_HEAD) as u32;
        out[start + 6..start + FRAME_HEAD].copy_from_slice(&len.to_be_bytes());
        if end_stream {
            self.mark(id, |open| open.sent_all = true);
        }
    }

    fn begin_data(
        &mut self,
        id: StreamId,
        len: usize,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) -> DataTail {
        if !self.open.iter().any(|open| open.id == id && !open.sent_all) {
            return DataTail { len: 0, suffix: b"" };
        }
        self.write(id, Kind::Data, end_stream, len, out);
        if end_stream {
            self.mark(id, |open| open.sent_all = true);
        }
        DataTail { len, suffix: b"" }
    }

    fn trailers(&mut self, id: StreamId, trailers: &Fields, out: &mut Vec<u8>) {
        self.write_with(id, Kind::Trailers, true, out, |out| {
            trailers.write_lines(out, OURS);
            out.extend_from_slice(b"\r\n");
        });
    }

    fn reset(&mut self, id: StreamId, out: &mut Vec<u8>) {
        if self.open.iter().any(|open| open.id == id) {
            self.write(id, Kind::Reset, true, 0, out);
            self.open.retain(|open| open.id != id);
        }
    }

    fn mark(&mut self, id: StreamId, how: impl FnOnce(&mut Open)) {
        if let Some(open) = self.open.iter_mut().find(|open| open.id == id) {
            how(open);
        }
        self.open.retain(|open| !(open.sent_all && open.received_all));
    }

    fn must_close(&self) -> bool {
        self.is_closed || self.is_draining && self.open.is_empty()
    }

    fn end_of_input(&mut self) -> Event {
        self.is_closed = true;
        match self.open.pop() {
            Some(open) => Event::Reset { stream: open.id, reason: ResetReason::ConnectionClosed },
            None => Event::NeedInput,
        }
    }

    /// The next event. `head` parses heads and trailers and says what they are.
    fn decode(
        &mut self,
        input: &[u8],
        mut head: impl FnMut(&mut Connection, &Frame<'_>) -> Result<Event, Refusal>,
    ) -> Decoded {
        if self.is_closed {
            return Decoded { consumed: input.len(), event: Event::NeedInput };
        }
        let mut at = 0;
        loop {
            let (consumed, event) = match self.rest {
                Some(rest) => self.decode_data(&input[at..], rest, 0),
                None => self.decode_frame(&input[at..], &mut head),
            };
            let event = match event {
                Some(Event::Data { stream, range, end_stream }) => {
                    Event::Data { stream, range: range.start + at..range.end + at, end_stream }
                }
                Some(event) => event,
                None => {
                    at += consumed;
                    continue;
                }
            };
            return Decoded { consumed: at + consumed, event };
        }
    }

    /// Bytes taken, and what they mean, if they mean anything.
    fn decode_frame(
        &mut self,
        input: &[u8],
        head: &mut impl FnMut(&mut Connection, &Frame<'_>) -> Result<Event, Refusal>,
    ) -> (usize, Option<Event>) {
        let frame = match read_frame(input) {
            Ok(Some(frame)) => frame,
            Ok(None) => return (0, Some(Event::NeedInput)),
            Err(refusal) => return self.fail(StreamId(0), refusal, input.len()),
        };
        let consumed = FRAME_HEAD + frame.len;
        let stream = frame.id;
        let is_new = frame.kind == Kind::Head && !self.expects_response;
        let reset = frame.kind == Kind::Reset;
        // A stream may be reset after its message is whole: its answer is not wanted any more.
        let is_known =
            self.open.iter().any(|open| open.id == stream && (reset || !open.received_all));
        let event = match frame.kind {
            Kind::GoAway => {
                self.is_draining = true;
                return (consumed, None);
            }
            // The peer has not heard yet that the stream was reset here.
            Kind::Head | Kind::Trailers | Kind::Informational | Kind::Reset
                if !is_known && !is_new =>
            {
                return (consumed, None);
            }
            Kind::Data => {
                let rest = Rest { id: stream, len: frame.len, end_stream: frame.end_stream };
                return self.decode_data(input, rest, FRAME_HEAD);
            }
            Kind::Reset => {
                self.open.retain(|open| open.id != stream);
                Event::Reset { stream, reason: ResetReason::Remote }
            }
            Kind::Head | Kind::Trailers | Kind::Informational => match head(self, &frame) {
                Ok(event) => event,
                Err(refusal) => return self.fail(stream, refusal, input.len()),
            },
        };
        if frame.end_stream {
            self.mark(stream, |open| open.received_all = true);
        }
        (consumed, Some(event))
    }

    fn decode_data(&mut self, input: &[u8], rest: Rest, at: usize) -> (usize, Option<Event>) {
        let len = rest.len.min(input.len() - at);
        let left = rest.len - len;
        self.rest = (left > 0).then_some(Rest { len: left, ..rest });
        if len == 0 && left > 0 {
            return (at, Some(Event::NeedInput));
        }
        let consumed = at + len;
        if !self.open.iter().any(|open| open.id == rest.id && !open.received_all) {
            return (consumed, None);
        }
        let end_stream = rest.end_stream && left == 0;
        if end_stream {
            self.mark(rest.id, |open| open.received_all = true);
        }
        (consumed, Some(Event::Data { stream: rest.id, range: at..consumed, end_stream }))
    }

    fn fail(
        &mut self,
        stream: StreamId,
        refusal: Refusal,
        consumed: usize,
    ) -> (usize, Option<Event>) {
        let Refusal { status, details, reason } = refusal;
        self.is_closed = true;
        let error = CodecError { stream, after_head: false, status, details, reason, close: true };
        (consumed, Some(Event::Error(error)))
    }
}

/// `None` until a frame is whole; of a data frame its head is enough.
fn read_frame(input: &[u8]) -> Result<Option<Frame<'_>>, Refusal> {
    let Some((frame, payload)) = input.split_at_checked(FRAME_HEAD) else {
        return Ok(None);
    };
    let number =
        |bytes: &[u8]| bytes.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte));
    let kind = *Kind::ALL.get(usize::from(frame[4])).ok_or(BROKEN)?;
    let len = number(&frame[6..]) as usize;
    if kind != Kind::Data && len > LONGEST_HEAD {
        return Err(BROKEN);
    }
    if kind != Kind::Data && payload.len() < len {
        return Ok(None);
    }
    let payload = &payload[..len.min(payload.len())];
    Ok(Some(Frame {
        id: StreamId(number(&frame[..4])),
        kind,
        end_stream: frame[5] != 0,
        payload,
        len,
    }))
}

/// A head must fill its frame.
fn whole(progress: Progress, frame: &Frame<'_>) -> Result<(), Refusal> {
    if progress == Progress::Complete(frame.payload.len()) { Ok(()) } else { Err(BROKEN) }
}

fn read_trailers(frame: &Frame<'_>, fields: &mut Fields) -> Result<Event, Refusal> {
    let options = Options::default();
    if frame.payload == b"\r\n" {
        fields.clear();
    } else {
        whole(head::parse_trailers(frame.payload, &options, &mut Seen::default(), fields)?, frame)?;
    }
    Ok(Event::Trailers { stream: frame.id })
}

/// The server's end.
#[derive(Debug, Default)]
pub struct ServerCodec {
    connection: Connection,
    last: u32,
}

/// See [`crate::server::ServerCodec`].
#[allow(missing_docs)]
impl ServerCodec {
    pub fn new() -> ServerCodec {
        ServerCodec::default()
    }

    pub fn decode(&mut self, input: &[u8], into: &mut RequestHead) -> Decoded {
        let last = &mut self.last;
        self.connection.decode(input, |connection, frame| match frame.kind {
            Kind::Head => {
                if frame.id.0 % 2 == 0
                    || frame.id.0 <= *last
                    || connection.open.len() == MOST_STREAMS
                {
                    return Err(BROKEN);
                }
                let (options, mut seen) = (Options::default(), Seen::default());
                whole(head::parse_request(frame.payload, &options, &mut seen, into)?, frame)?;
                *last = frame.id.0;
                connection.open.push(Open { id: frame.id, sent_all: false, received_all: false });
                Ok(Event::Head { stream: frame.id, end_stream: frame.end_stream })
            }
            Kind::Trailers => read_trailers(frame, &mut into.fields),
            _ => Err(BROKEN),
        })
    }

    pub fn end_of_input(&mut self) -> Event {
        self.connection.end_of_input()
    }

    pub fn encode_informational(&mut self, id: StreamId, head: &ResponseHead, out: &mut Vec<u8>) {
        self.connection
            .write_with(id, Kind::Informational, false, out, |out| write_response(head, out));
    }

    pub fn encode_head(
        &mut self,
        id: StreamId,
        head: &ResponseHead,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) {
        self.connection
            .write_with(id, Kind::Head, end_stream, out, |out| write_response(head, out));
    }

    pub fn encode_data(&mut self, id: StreamId, data: &[u8], end_stream: bool, out: &mut Vec<u8>) {
        let tail = self.begin_data(id, data.len(), end_stream, out);
        out.extend_from_slice(&data[..tail.len]);
    }

    pub fn begin_data(
        &mut self,
        id: StreamId,
        len: usize,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) -> DataTail {
        self.connection.begin_data(id, len, end_stream, out)
    }

    pub fn encode_trailers(&mut self, id: StreamId, trailers: &Fields, out: &mut Vec<u8>) {
        self.connection.trailers(id, trailers, out);
    }

    pub fn reset(&mut self, id: StreamId, out: &mut Vec<u8>) {
        self.connection.reset(id, out);
    }

    pub fn start_drain(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.connection.is_draining, true) {
            self.connection.write(StreamId(0), Kind::GoAway, false, 0, out);
        }
    }

    pub fn must_close(&self) -> bool {
        self.connection.must_close()
    }

    pub fn is_idle(&self) -> bool {
        self.connection.open.is_empty() && self.connection.rest.is_none()
    }
}

/// The client's end.
#[derive(Debug)]
pub struct ClientCodec {
    connection: Connection,
    last: u32,
}

/// See [`crate::client::ClientCodec`].
#[allow(missing_docs)]
impl ClientCodec {
    #[allow(clippy::new_without_default)]
    pub fn new() -> ClientCodec {
        ClientCodec {
            connection: Connection { expects_response: true, ..Connection::default() },
            last: 0,
        }
    }

    pub fn free_streams(&self) -> usize {
        if self.connection.is_draining || self.connection.is_closed {
            return 0;
        }
        MOST_STREAMS - self.connection.open.len()
    }

    pub fn encode_head(
        &mut self,
        head: &RequestHead,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) -> StreamId {
        self.last += if self.last == 0 { 1 } else { 2 };
        let id = StreamId(self.last);
        self.connection.open.push(Open { id, sent_all: false, received_all: false });
        self.connection.write_with(id, Kind::Head, end_stream, out, |out| {
            for part in [head.method(), b" ", head.path(), b" HTTP/1.1\r\n"] {
                out.extend_from_slice(part);
            }
            head.write_lines(out, OURS);
            out.extend_from_slice(b"\r\n");
        });
        id
    }

    pub fn encode_data(&mut self, id: StreamId, data: &[u8], end_stream: bool, out: &mut Vec<u8>) {
        let tail = self.begin_data(id, data.len(), end_stream, out);
        out.extend_from_slice(&data[..tail.len]);
    }

    pub fn begin_data(
        &mut self,
        id: StreamId,
        len: usize,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) -> DataTail {
        self.connection.begin_data(id, len, end_stream, out)
    }

    pub fn encode_trailers(&mut self, id: StreamId, trailers: &Fields, out: &mut Vec<u8>) {
        self.connection.trailers(id, trailers, out);
    }

    pub fn can_send_data(&self) -> bool {
        true
    }

    pub fn decode(&mut self, input: &[u8], into: &mut ResponseHead) -> Decoded {
        self.connection.decode(input, |_, frame| match frame.kind {
            Kind::Head | Kind::Informational => {
                let (options, mut seen) = (Options::default(), Seen::default());
                whole(head::parse_response(frame.payload, &options, &mut seen, into)?, frame)?;
                Ok(match frame.kind {
                    Kind::Head => Event::Head { stream: frame.id, end_stream: frame.end_stream },
                    _ => Event::Informational { stream: frame.id },
                })
            }
            _ => read_trailers(frame, &mut into.fields),
        })
    }

    pub fn end_of_input(&mut self) -> Event {
        self.connection.end_of_input()
    }

    pub fn reset(&mut self, id: StreamId, out: &mut Vec<u8>) {
        self.connection.reset(id, out);
    }

    pub fn must_close(&self) -> bool {
        self.connection.must_close()
    }
}

fn write_response(head: &ResponseHead, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(head.status).as_bytes());
    out.extend_from_slice(b" \r\n");
    head.fields.write_lines(out, OURS_IN_UPGRADES.and(NameSet::of(&[names::HTTP2_SETTINGS])));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str) -> RequestHead {
        let mut head = RequestHead::new();
        head.set_method(b"POST");
        head.set_authority(b"a");
        head.set_path(path.as_bytes());
        head
    }

    /// Every event of `input`, given in pieces; ranges as text.
    fn events(mut decode: impl FnMut(&[u8]) -> Decoded, input: &[u8], piece: usize) -> Vec<String> {
        let (mut pending, mut said) = (Vec::new(), Vec::<String>::new());
        for part in input.chunks(piece) {
            pending.extend_from_slice(part);
            loop {
                let decoded = decode(&pending);
                match &decoded.event {
                    Event::NeedInput => {}
                    Event::Data { stream, range, end_stream } => {
                        let text = String::from_utf8_lossy(&pending[range.clone()]).into_owned();
                        let label = format!("{} data ", stream.0);
                        match said.last_mut().filter(|last| last.starts_with(&label)) {
                            Some(last) => last.push_str(&text),
                            None => said.push(label + &text),
                        }
                        if *end_stream {
                            said.push(format!("{} end", stream.0));
                        }
                    }
                    other => said.push(format!("{other:?}")),
                }
                pending.drain(..decoded.consumed);
                if decoded.event == Event::NeedInput {
                    break;
                }
            }
        }
        said
    }

    #[test]
    fn streams_interleave_in_any_pieces() {
        let (mut client, mut wire) = (ClientCodec::new(), Vec::new());
        let one = client.encode_head(&request("/1"), false, &mut wire);
        let two = client.encode_head(&request("/2"), true, &mut wire);
        client.encode_data(one, b"he", false, &mut wire);
        let three = client.encode_head(&request("/3"), false, &mut wire);
        client.reset(three, &mut wire);
        client.encode_data(one, b"llo", true, &mut wire);
        assert_eq!(
            (one, two, three, client.free_streams()),
            (StreamId(1), StreamId(3), StreamId(5), 98)
        );
        for piece in [1, 3, 7, wire.len()] {
            let (mut server, mut head) = (ServerCodec::new(), RequestHead::new());
            let said = events(|input| server.decode(input, &mut head), &wire, piece);
            assert_eq!(
                said,
                [
                    "Head { stream: StreamId(1), end_stream: false }",
                    "Head { stream: StreamId(3), end_stream: true }",
                    "1 data he",
                    "Head { stream: StreamId(5), end_stream: false }",
                    "Reset { stream: StreamId(5), reason: Remote }",
                    "1 data llo",
                    "1 end",
                ]
            );
            assert!(!server.is_idle() && !server.must_close());
        }
    }

    #[test]
    fn answers_come_in_any_order_and_a_drain_lets_them_end() {
        let (mut client, mut server) = (ClientCodec::new(), ServerCodec::new());
        let (mut up, mut down) = (Vec::new(), Vec::new());
        for path in ["/1", "/2", "/3"] {
            client.encode_head(&request(path), true, &mut up);
        }
        let mut head = RequestHead::new();
        events(|input| server.decode(input, &mut head), &up, 1000);
        server.encode_informational(StreamId(5), &ResponseHead::new(103), &mut down);
        server.encode_head(StreamId(5), &ResponseHead::new(200), false, &mut down);
        server.start_drain(&mut down);
        server.encode_head(StreamId(1), &ResponseHead::new(204), true, &mut down);
        let mut trailers = Fields::new();
        trailers.set("x", b"y");
        server.encode_trailers(StreamId(5), &trailers, &mut down);
        assert!(!server.must_close());
        server.reset(StreamId(3), &mut down);
        assert!(server.must_close() && server.is_idle());

        // What the client has reset is not heard of again.
        client.reset(StreamId(1), &mut up);
        let mut answer = ResponseHead::default();
        let said = events(|input| client.decode(input, &mut answer), &down, 5);
        assert_eq!(
            said,
            [
                "Informational { stream: StreamId(5) }",
                "Head { stream: StreamId(5), end_stream: false }",
                "Trailers { stream: StreamId(5) }",
                "Reset { stream: StreamId(3), reason: Remote }",
            ]
        );
        assert_eq!(answer.fields.get("x"), Some(&b"y"[..]));
        assert!(client.must_close() && client.free_streams() == 0);
    }

    #[test]
    fn an_end_cuts_every_stream_off() {
        let (mut client, mut wire) = (ClientCodec::new(), Vec::new());
        client.encode_head(&request("/1"), true, &mut wire);
        client.encode_head(&request("/2"), true, &mut wire);
        let cut =
            |event| matches!(event, Event::Reset { reason: ResetReason::ConnectionClosed, .. });
        assert!(cut(client.end_of_input()) && cut(client.end_of_input()));
        assert_eq!(client.end_of_input(), Event::NeedInput);
        let mut server = ServerCodec::new();
        let broken = server.decode(&[0, 0, 0, 2, 0, 1, 0, 0, 0, 0], &mut RequestHead::new());
        assert!(matches!(broken.event, Event::Error(_)) && server.must_close());
    }
}
