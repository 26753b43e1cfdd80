//! The server's end of an HTTP/1 connection.
//!
//! One request at a time: what the client sends ahead stays undecoded (`Event::Blocked`) until the response has been encoded
//! to its end, and for a request that asks for another protocol until it is known which one the connection speaks from there.

use super::body::{BodyDecoder, BodyEncoder, BodyPart, DataTail};
use super::encode::{self, Asked, ConnectionField};
use super::framing::{Framing, has_token};
use super::head::{self, Progress, Seen};
use super::{Options, Refusal};
use crate::event::{CodecError, Decoded, Event, ResetReason, StreamId};
use crate::headers::{Fields, Method, RequestHead, ResponseHead, Version, names};

/// Requests in, responses out.
#[derive(Debug)]
pub struct ServerCodec {
    options: Options,
    stream: StreamId,
    input: Input,
    output: Output,
    method: Method,
    version: Version,
    /// The client lets the connection go on after this response.
    keeps_alive: bool,
    is_draining: bool,
    must_close: bool,
}

#[derive(Clone, Copy, Debug)]
enum Input {
    /// Before or within a head.
    Head(Seen),
    Body(BodyDecoder),
    /// The request is whole; what follows waits for the response's end.
    Done,
    /// The request asked for a tunnel; what follows waits for the answer.
    TunnelAsked,
    Tunnel,
    /// Whatever comes is of no interest any more.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    /// No response has begun.
    Idle,
    Body(BodyEncoder),
    Done,
}

impl ServerCodec {
    /// For a new connection.
    pub fn new(options: Options) -> ServerCodec {
        ServerCodec {
            options,
            stream: StreamId(0),
            input: Input::Head(Seen::default()),
            output: Output::Idle,
            method: Method::Get,
            version: Version::Http11,
            keeps_alive: true,
            is_draining: false,
            must_close: false,
        }
    }

    /// The next event in `input`. `head` is filled when the event is `Head` or `Trailers`, and may be overwritten by others.
    pub fn decode(&mut self, input: &[u8], head: &mut RequestHead) -> Decoded {
        let result = match &mut self.input {
            Input::Head(_) => self.decode_head(input, head),
            Input::Body(body) => match body.decode(input, &self.options, &mut head.fields) {
                Ok((consumed, part)) => Ok(self.body_event(consumed, part)),
                Err(refusal) => Err((refusal, true)),
            },
            Input::Done | Input::TunnelAsked => {
                let event = if input.is_empty() { Event::NeedInput } else { Event::Blocked };
                Ok(Decoded { consumed: 0, event })
            }
            Input::Tunnel if input.is_empty() => {
                Ok(Decoded { consumed: 0, event: Event::NeedInput })
            }
            Input::Tunnel => {
                let event =
                    Event::Data { stream: self.stream, range: 0..input.len(), end_stream: false };
                Ok(Decoded { consumed: input.len(), event })
            }
            Input::Closed => Ok(Decoded { consumed: input.len(), event: Event::NeedInput }),
        };
        result.unwrap_or_else(|(refusal, after_head)| self.fail(refusal, after_head, input.len()))
    }

    fn decode_head(
        &mut self,
        input: &[u8],
        head: &mut RequestHead,
    ) -> Result<Decoded, (Refusal, bool)> {
        let Input::Head(seen) = &mut self.input else {
            return Ok(Decoded { consumed: 0, event: Event::NeedInput });
        };
        let skipped = leading_empty_lines(input);
        let rest = &input[skipped..];
        if rest.is_empty() || rest == b"\r" {
            return Ok(Decoded { consumed: skipped, event: Event::NeedInput });
        }
        match head::parse_request(rest, &self.options, seen, head)
            .map_err(|refusal| (refusal, false))?
        {
            Progress::Partial => Ok(Decoded { consumed: skipped, event: Event::NeedInput }),
            Progress::Complete(len) => {
                let event = self.begin(head).map_err(|refusal| (refusal, false))?;
                Ok(Decoded { consumed: skipped + len, event })
            }
        }
    }

    /// A head is whole: decides what follows it.
    fn begin(&mut self, head: &mut RequestHead) -> Result<Event, Refusal> {
        self.method = head.method_kind();
        self.version = head.version;
        let framing = Framing::of_request(&head.fields, head.version, self.method)?;
        self.keeps_alive = keeps_alive(&head.fields, head.version);
        head.is_upgrade = framing == Framing::None && asks_for_upgrade(head);
        let opens_tunnel = head.is_upgrade || self.method == Method::Connect;
        self.output = Output::Idle;
        self.input = match BodyDecoder::new(framing) {
            Some(body) => Input::Body(body),
            None if opens_tunnel => Input::TunnelAsked,
            None => Input::Done,
        };
        Ok(Event::Head { stream: self.stream, end_stream: matches!(self.input, Input::Done) })
    }

    fn body_event(&mut self, consumed: usize, part: BodyPart) -> Decoded {
        let (event, is_last) = part.into_event(self.stream);
        if is_last {
            self.input = Input::Done;
        }
        Decoded { consumed, event }
    }

    fn fail(&mut self, refusal: Refusal, after_head: bool, consumed: usize) -> Decoded {
        if !after_head {
            // The answer is that of a request without a body.
            self.output = Output::Idle;
            (self.method, self.version) = (Method::Get, Version::Http11);
        }
        self.input = Input::Closed;
        self.keeps_alive = false;
        if self.output == Output::Done {
            self.must_close = true;
        }
        let Refusal { status, details, reason } = refusal;
        let error =
            CodecError { stream: self.stream, after_head, status, details, reason, close: true };
        Decoded { consumed, event: Event::Error(error) }
    }

    /// The client will send nothing more.
    pub fn end_of_input(&mut self) -> Event {
        let event = match self.input {
            Input::Body(_) => {
                Event::Reset { stream: self.stream, reason: ResetReason::ConnectionClosed }
            }
            Input::Tunnel => Event::End { stream: self.stream },
            Input::Head(_) | Input::Done | Input::TunnelAsked | Input::Closed => Event::NeedInput,
        };
        self.keeps_alive = false;
        if !matches!(self.input, Input::Done | Input::TunnelAsked) {
            self.input = Input::Closed;
        }
        event
    }

    /// Writes a 1xx response other than 101. Clients of HTTP/1.0 do not know them and get none.
    pub fn encode_informational(
        &mut self,
        _stream: StreamId,
        head: &ResponseHead,
        out: &mut Vec<u8>,
    ) {
        if self.version != Version::Http10 && self.output == Output::Idle {
            encode::informational(head, out);
        }
    }

    /// Writes the final response's head, or 101.
    pub fn encode_head(
        &mut self,
        _stream: StreamId,
        head: &ResponseHead,
        end_stream: bool,
        out: &mut Vec<u8>,
    ) {
        let asked = Asked { method: self.method, version: self.version };
        let plan = encode::plan_response(head, asked, end_stream);
        let opens_tunnel = matches!(self.input, Input::TunnelAsked)
            && (head.status == 101
                || self.method == Method::Connect && matches!(head.status, 200..=299));
        // As Envoy: what is left of the request is not waited for.
        let precedes_request_end = !matches!(self.input, Input::Done | Input::TunnelAsked);
        if self.is_draining || precedes_request_end || encode::needs_close(head, asked, &plan) {
            self.keeps_alive = false;
        }
        let connection = match (opens_tunnel, self.keeps_alive, self.version) {
            (true, ..) if head.status == 101 => ConnectionField::Upgrade,
            (true, ..) => ConnectionField::Silent,
            (false, false, _) => ConnectionField::Close,
            (false, true, Version::Http10) => ConnectionField::KeepAlive,
            (false, true, _) => ConnectionField::Silent,
        };
        self.output = Output::Body(encode::response(head, asked, &plan, connection, out));
        if opens_tunnel {
            self.input = Input::Tunnel;
        }
        if end_stream {
            self.end_response();
        }
    }

    /// Writes body bytes.
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
        let Output::Body(body) = &mut self.output else {
            return BodyEncoder::None.begin(len, end_stream, out);
        };
        let tail = body.begin(len, end_stream, out);
        if end_stream {
            self.end_response();
        }
        tail
    }

    /// Writes trailers, where the message can carry them and they are enabled, and ends the response.
    pub fn encode_trailers(&mut self, _stream: StreamId, trailers: &Fields, out: &mut Vec<u8>) {
        if let Output::Body(body) = &self.output {
            body.end(trailers, &self.options, out);
        }
        self.end_response();
    }

    /// The stream is over before its time.
    pub fn reset(&mut self, _stream: StreamId, _out: &mut Vec<u8>) {
        self.close();
    }

    /// The next response head says `connection: close`.
    pub fn start_drain(&mut self, _out: &mut Vec<u8>) {
        self.is_draining = true;
        if self.is_idle() {
            self.must_close = true;
        }
    }

    /// The connection is to be closed once everything written is flushed.
    pub fn must_close(&self) -> bool {
        self.must_close
    }

    /// No request is in progress and no part of one has been seen.
    pub fn is_idle(&self) -> bool {
        matches!(self.input, Input::Head(seen) if seen == Seen::default())
    }

    /// The response is whole. If the request is too and nobody minds, the next one may come.
    fn end_response(&mut self) {
        let is_whole = match self.output {
            Output::Body(body) => body.may_end() && body != BodyEncoder::Raw,
            Output::Idle | Output::Done => false,
        };
        self.output = Output::Done;
        let request_is_whole = matches!(self.input, Input::Done | Input::TunnelAsked);
        if is_whole && request_is_whole && self.keeps_alive {
            self.input = Input::Head(Seen::default());
            self.stream = StreamId(self.stream.0.wrapping_add(1));
        } else {
            self.close();
        }
    }

    fn close(&mut self) {
        self.must_close = true;
        self.output = Output::Done;
        self.input = Input::Closed;
    }
}

/// RFC 9112 §2.2: empty lines before a request line are skipped.
fn leading_empty_lines(input: &[u8]) -> usize {
    input.chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2
}

/// RFC 9112 §9.3.
pub(super) fn keeps_alive(fields: &Fields, version: Version) -> bool {
    let says = |token: &[u8]| {
        has_token(fields, names::CONNECTION, token)
            || has_token(fields, names::PROXY_CONNECTION, token)
    };
    let stays = version != Version::Http10;
    if !fields.contains(names::CONNECTION) && !fields.contains(names::PROXY_CONNECTION) {
        return stays;
    }
    (stays || says(b"keep-alive")) && !says(b"close")
}

/// Upgrades to HTTP/2 over cleartext are not offered: RFC 9113 has dropped them.
fn asks_for_upgrade(head: &RequestHead) -> bool {
    head.version == Version::Http11
        && head.fields.contains(names::UPGRADE)
        && head.method_kind() != Method::Connect
        && has_token(&head.fields, names::CONNECTION, b"upgrade")
        && !head
            .fields
            .get_all(names::UPGRADE)
            .any(|protocol| protocol.eq_ignore_ascii_case(b"h2c"))
}
