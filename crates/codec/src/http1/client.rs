//! The client's end of an HTTP/1 connection: one request at a time, no pipelining.

use super::body::{BodyDecoder, BodyEncoder, BodyPart, DataTail};
use super::encode;
use super::framing::Framing;
use super::head::{self, Progress, Seen};
use super::server::keeps_alive;
use super::{Options, Refusal};
use crate::event::{CodecError, Decoded, Event, ResetReason, StreamId};
use crate::headers::{Fields, Method, RequestHead, ResponseHead, names};

/// More 1xx responses than this before a final one are an attack.
const MOST_INFORMATIONAL: u8 = 100;

/// Requests out, responses in.
#[derive(Debug)]
pub struct ClientCodec {
    options: Options,
    stream: StreamId,
    input: Input,
    output: Output,
    method: Method,
    is_upgrade: bool,
    informational: u8,
    keeps_alive: bool,
    must_close: bool,
}

#[derive(Clone, Copy, Debug)]
enum Input {
    /// No request is out: whatever comes is a breach.
    Idle,
    Head(Seen),
    Body(BodyDecoder),
    Tunnel,
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Done,
    Body(BodyEncoder),
    /// The request asked for a tunnel; nothing may be sent until it stands.
    TunnelAsked,
    Tunnel,
}

impl ClientCodec {
    /// For a new connection.
    pub fn new(options: Options) -> ClientCodec {
        ClientCodec {
            options,
            stream: StreamId(0),
            input: Input::Idle,
            output: Output::Done,
            method: Method::Get,
            is_upgrade: false,
            informational: 0,
            keeps_alive: true,
            must_close: false,
        }
    }

    /// Whether the next request may be encoded: the last exchange is whole both ways and the server keeps the connection.
    pub fn is_reusable(&self) -> bool {
        !self.must_close && matches!(self.input, Input::Idle) && self.output == Output::Done
    }

    /// The connection is not to be used for another request.
    pub fn must_close(&self) -> bool {
        self.must_close
    }

    /// Writes a request's head. To be called only when `is_reusable`.
    pub fn encode_head(
        &mut self,
        head: &RequestHead,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) -> StreamId {
        debug_assert!(self.is_reusable(), "one request at a time");
        self.stream = StreamId(self.stream.0.wrapping_add(1));
        self.method = head.method_kind();
        self.is_upgrade = head.is_upgrade;
        self.informational = 0;
        self.input = Input::Head(Seen::default());
        let body = encode::request(head, end_stream, out);
        let opens_tunnel = self.is_upgrade || self.method == Method::Connect;
        self.output = if opens_tunnel { Output::TunnelAsked } else { Output::Body(body) };
        if end_stream {
            self.end_request();
        }
        self.stream
    }

    /// Writes body bytes. Before a tunnel stands there is nowhere to write them: the caller keeps them until then.
    pub fn encode_data(
        &mut self,
        stream: StreamId,
        data: &[u8],
        end_stream: bool,
        out: &mut Vec<u8>,
    ) {
        self.begin_data(stream, data.len(), end_stream, out).write(data, out);
    }

    /// As `encode_data`, for a caller that writes the body bytes itself, from where they lie: writes what comes before `len`
    /// of them and says what must come after.
    pub fn begin_data(
        &mut self,
        _stream: StreamId,
        len: usize,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) -> DataTail {
        let tail = match &mut self.output {
            Output::Body(body) => body.begin(len, end_stream, out),
            Output::Tunnel => BodyEncoder::Raw.begin(len, end_stream, out),
            Output::Done | Output::TunnelAsked => BodyEncoder::None.begin(len, end_stream, out),
        };
        if end_stream {
            self.end_request();
        }
        tail
    }

    /// Writes trailers, where the message can carry them and they are enabled, and ends the request.
    pub fn encode_trailers(&mut self, _stream: StreamId, trailers: &Fields, out: &mut Vec<u8>) {
        if let Output::Body(body) = &self.output {
            body.end(trailers, &self.options, out);
        }
        self.end_request();
    }

    /// Data may be written: false between the request for a tunnel and its 101 or 2xx.
    pub fn can_send_data(&self) -> bool {
        matches!(self.output, Output::Body(_) | Output::Tunnel)
    }

    /// The stream is over before its time.
    pub fn reset(&mut self, _stream: StreamId, _out: &mut Vec<u8>) {
        self.close();
    }

    /// The next event in `input`. `head` is filled when the event is `Head`, `Informational` or `Trailers`.
    pub fn decode(&mut self, input: &[u8], head: &mut ResponseHead) -> Decoded {
        if input.is_empty() {
            return Decoded { consumed: 0, event: Event::NeedInput };
        }
        let result = match &mut self.input {
            Input::Idle => {
                Err((Refusal::codec_error("bytes from the server without a request"), false))
            }
            Input::Head(seen) => match head::parse_response(input, &self.options, seen, head) {
                Ok(Progress::Partial) => Ok(Decoded { consumed: 0, event: Event::NeedInput }),
                Ok(Progress::Complete(len)) => self
                    .begin(head)
                    .map(|event| Decoded { consumed: len, event })
                    .map_err(|refusal| (refusal, false)),
                Err(refusal) => Err((refusal, false)),
            },
            Input::Body(body) => match body.decode(input, &self.options, &mut head.fields) {
                Ok((consumed, part)) => Ok(self.body_event(consumed, part)),
                Err(refusal) => Err((refusal, true)),
            },
            Input::Tunnel => {
                let event =
                    Event::Data { stream: self.stream, range: 0..input.len(), end_stream: false };
                Ok(Decoded { consumed: input.len(), event })
            }
            Input::Closed => Ok(Decoded { consumed: input.len(), event: Event::NeedInput }),
        };
        result.unwrap_or_else(|(refusal, after_head)| self.fail(refusal, after_head, input.len()))
    }

    /// A head is whole: decides what follows it.
    fn begin(&mut self, head: &ResponseHead) -> Result<Event, Refusal> {
        let stream = self.stream;
        self.keeps_alive = keeps_alive(&head.fields, head.version);
        let opens_tunnel = match head.status {
            101 if self.is_upgrade && head.fields.contains(names::UPGRADE) => true,
            101 => return Err(Refusal::codec_error("101 that was not asked for")),
            100..=199 => {
                self.input = Input::Head(Seen::default());
                self.informational += 1;
                if self.informational > MOST_INFORMATIONAL {
                    return Err(Refusal::codec_error("too many 1xx responses"));
                }
                return Ok(Event::Informational { stream });
            }
            200..=299 => self.method == Method::Connect,
            _ => false,
        };
        if opens_tunnel {
            (self.input, self.output) = (Input::Tunnel, Output::Tunnel);
            return Ok(Event::Head { stream, end_stream: false });
        }
        if self.output == Output::TunnelAsked {
            // The answer to an upgrade was an ordinary response: nothing may be tunnelled, nor the connection used again.
            self.output = Output::Done;
            self.keeps_alive = false;
        }
        let framing = Framing::of_response(&head.fields, head.version, head.status, self.method)?;
        match BodyDecoder::new(framing) {
            Some(body) => self.input = Input::Body(body),
            None => self.end_response(),
        }
        Ok(Event::Head { stream, end_stream: framing == Framing::None })
    }

    fn body_event(&mut self, consumed: usize, part: BodyPart) -> Decoded {
        let (event, is_last) = part.into_event(self.stream);
        if is_last {
            self.end_response();
        }
        Decoded { consumed, event }
    }

    fn fail(&mut self, refusal: Refusal, after_head: bool, consumed: usize) -> Decoded {
        self.close();
        let Refusal { details, reason, .. } = refusal;
        let error = CodecError {
            stream: self.stream,
            after_head,
            status: 502,
            details,
            reason,
            close: true,
        };
        Decoded { consumed, event: Event::Error(error) }
    }

    /// The server will send nothing more: the end of a body that is delimited by it, of a connection that has not answered,
    /// or, in the middle of a message, a breach of the protocol.
    pub fn end_of_input(&mut self) -> Event {
        let stream = self.stream;
        let event = match self.input {
            Input::Idle | Input::Closed => Event::NeedInput,
            Input::Body(BodyDecoder::UntilClose) | Input::Tunnel => Event::End { stream },
            Input::Head(seen) if !seen.has_begun() => {
                Event::Reset { stream, reason: ResetReason::ConnectionClosed }
            }
            Input::Head(_) | Input::Body(_) => {
                let cut_off = Refusal::codec_error("the connection ended within a message");
                self.fail(cut_off, matches!(self.input, Input::Body(_)), 0).event
            }
        };
        self.must_close = true;
        self.input = Input::Closed;
        event
    }

    fn end_request(&mut self) {
        match self.output {
            Output::Body(body) if !body.may_end() => self.close(),
            Output::Tunnel => self.output = Output::Done,
            Output::Body(_) => self.output = Output::Done,
            Output::TunnelAsked | Output::Done => {}
        }
    }

    /// The response is whole. An answer before the request's end leaves the connection in no state to go on.
    fn end_response(&mut self) {
        self.input = Input::Idle;
        if !self.keeps_alive || self.output != Output::Done {
            self.must_close = true;
        }
    }

    fn close(&mut self) {
        self.must_close = true;
        self.output = Output::Done;
        self.input = Input::Closed;
    }
}
