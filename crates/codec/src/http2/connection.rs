//! What arrives on a connection, the same for both ends: frames are taken apart, judged and counted here; what blocks of
//! header fields mean is for [`server`](super::server) and [`client`](super::client) to say.
//!
//! A frame's flow control and its stream's state are dealt with when its head has come, whole frames or not: body bytes are
//! then given out as they arrive.

mod blocks;
mod control;
mod data;
mod endings;

use std::ops::Range;

pub(super) use blocks::declared_length;

use super::frame::{
    ACK, DEFAULT_MAX_FRAME_SIZE, ErrorCode, FrameHead, HEAD_LEN, Kind, MAX_FRAME_SIZE_OF_SERVERS,
    PREFACE,
};
use super::limits::{Counts, Limits};
use super::output::Output;
use super::settings::PeerSettings;
use super::streams::{Resets, StreamTable};
use super::window::{Probe, ReceiveWindow};
use super::{MAX_WINDOW, Options, RFC_WINDOW, hpack};
use crate::event::{Decoded, Event};

/// What ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub code: ErrorCode,
    /// Whose message it was, or 0.
    pub stream: u32,
    pub after_head: bool,
    pub details: &'static str,
    pub reason: &'static str,
}

impl Fault {
    pub const fn new(code: ErrorCode, reason: &'static str) -> Fault {
        let details = "http2.protocol_error";
        Fault { code, stream: 0, after_head: false, details, reason }
    }

    pub const fn protocol(reason: &'static str) -> Fault {
        Fault::new(ErrorCode::Protocol, reason)
    }

    pub const fn flood(details: &'static str, reason: &'static str) -> Fault {
        Fault { details, ..Fault::new(ErrorCode::EnhanceYourCalm, reason) }
    }
}

/// What the front of the input has come to.
#[derive(Debug)]
enum Step {
    NeedInput,
    Event(Event),
    Headers(Headers),
}

/// A whole block of header fields.
#[derive(Clone, Debug)]
pub(super) struct Headers {
    pub stream: u32,
    pub end_stream: bool,
    /// Where in the input the block is; `None` if it was gathered from several frames.
    pub range: Option<Range<usize>>,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug)]
enum Input {
    /// The client's first words.
    Preface,
    Frame,
    Body(Body),
    Skip(usize),
    /// Whatever comes is of no interest any more.
    Closed,
}

/// The rest of a DATA frame.
#[derive(Clone, Copy, Debug)]
struct Body {
    stream: u32,
    left: usize,
    padding: usize,
    end_stream: bool,
    /// False after the stream was reset.
    is_wanted: bool,
}

/// What becomes of a DATA frame.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Wanted,
    /// Its stream is over, which is nobody's fault.
    Ignored,
    BreaksStream(Event),
}

/// A block that goes on in CONTINUATION frames.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    stream: u32,
    end_stream: bool,
    frames: u32,
}

/// One end of a connection, but for the meaning of header fields.
#[derive(Debug)]
pub(super) struct Connection {
    pub options: Options,
    pub is_server: bool,
    pub streams: StreamTable,
    pub resets: Resets,
    pub peer: PeerSettings,
    pub decoder: hpack::Decoder,
    pub output: Output,
    pub limits: Limits,
    /// What happened and has not been told yet; `is_counted` says whether there is anything.
    pub counts: Counts,
    pub is_counted: bool,
    pub receive: ReceiveWindow,
    pub probe: Probe,
    /// The highest stream that the client has opened.
    pub last_stream: u32,
    /// A client's server takes no more streams.
    pub peer_goes_away: bool,
    pub peer_is_gone: bool,
    /// A connection error: nothing is sent but what waits.
    pub has_failed: bool,
    input: Input,
    /// The peer's SETTINGS have come.
    pub is_greeted: bool,
    /// The peer has acknowledged our SETTINGS.
    is_acknowledged: bool,
    unfinished: Option<Unfinished>,
    block: Vec<u8>,
    /// The last call ended in the middle of a HEADERS frame.
    waits_for_head: bool,
}

/// Bytes of the frame that are done with, its head included, and what they mean; `None` waits for more.
type Taken = Option<(usize, Option<Step>)>;

impl Connection {
    pub fn new(options: Options, is_server: bool) -> Connection {
        let window = options.initial_connection_window.clamp(RFC_WINDOW, MAX_WINDOW);
        Connection {
            options,
            is_server,
            streams: StreamTable::default(),
            resets: Resets::default(),
            peer: PeerSettings::default(),
            decoder: hpack::Decoder::new(),
            output: Output::new(&options),
            limits: Limits::default(),
            counts: Counts::default(),
            is_counted: false,
            receive: ReceiveWindow::new(RFC_WINDOW, window),
            probe: Probe::default(),
            last_stream: 0,
            peer_goes_away: false,
            peer_is_gone: false,
            has_failed: false,
            input: if is_server { Input::Preface } else { Input::Frame },
            is_greeted: false,
            is_acknowledged: false,
            unfinished: None,
            block: Vec::new(),
            waits_for_head: false,
        }
    }

    pub fn hpack_limits(&self) -> hpack::Limits {
        hpack::Limits {
            max_bytes: self.options.max_head_bytes,
            max_fields: self.options.max_fields,
        }
    }

    /// The next event. `read_headers` says what a block of header fields is, and fills the head with it.
    #[inline]
    pub fn decode<H>(
        &mut self,
        input: &[u8],
        head: &mut H,
        read_headers: fn(&mut Connection, &Headers, &[u8], &mut H) -> Result<Option<Event>, Fault>,
    ) -> Decoded {
        let mut consumed = 0;
        loop {
            let event = match self.next(input, &mut consumed) {
                Ok(Step::NeedInput) => Ok(Some(Event::NeedInput)),
                Ok(Step::Event(event)) => Ok(Some(event)),
                Ok(Step::Headers(headers)) => self.with_block(&headers, input, |it, block| {
                    read_headers(it, &headers, block, head)
                }),
                Err(fault) => Err(fault),
            };
            match event {
                Ok(Some(event)) => return Decoded { consumed, event },
                Ok(None) => {}
                Err(fault) => return Decoded { consumed: input.len(), event: self.fail(fault) },
            }
        }
    }

    /// Goes on from `at`, as far as the next thing worth saying.
    #[inline]
    fn next(&mut self, input: &[u8], at: &mut usize) -> Result<Step, Fault> {
        loop {
            let rest = &input[*at..];
            match self.input {
                Input::Frame => {
                    let Some(head) = FrameHead::read(rest) else { return Ok(Step::NeedInput) };
                    let payload = &rest[HEAD_LEN..];
                    let Some((used, step)) = self.frame(head, payload, *at + HEAD_LEN)? else {
                        return Ok(Step::NeedInput);
                    };
                    *at += used;
                    if let Some(step) = step {
                        return Ok(step);
                    }
                }
                Input::Body(body) => {
                    let Some((used, event)) = self.body(body, rest.len(), *at) else {
                        return Ok(Step::NeedInput);
                    };
                    *at += used;
                    if let Some(event) = event {
                        return Ok(Step::Event(event));
                    }
                }
                Input::Skip(left) => {
                    let skipped = left.min(rest.len());
                    *at += skipped;
                    if skipped < left {
                        self.input = Input::Skip(left - skipped);
                        return Ok(Step::NeedInput);
                    }
                    self.input = Input::Frame;
                }
                Input::Preface => {
                    let known = rest.len().min(PREFACE.len());
                    if rest[..known] != PREFACE[..known] {
                        return Err(Fault::protocol("not the preface of HTTP/2"));
                    }
                    if known < PREFACE.len() {
                        return Ok(Step::NeedInput);
                    }
                    *at += PREFACE.len();
                    self.input = Input::Frame;
                }
                Input::Closed => {
                    *at = input.len();
                    return Ok(Step::NeedInput);
                }
            }
        }
    }

    fn frame(&mut self, head: FrameHead, payload: &[u8], begin: usize) -> Result<Taken, Fault> {
        self.judge_frame(&head)?;
        if head.kind == Kind::Data {
            return self.data(&head, payload);
        }
        if head.kind == Kind::Unknown {
            self.input = Input::Skip(head.len);
            return Ok(Some((HEAD_LEN, None)));
        }
        let whole = HEAD_LEN + head.len;
        let Some(payload) = payload.get(..head.len) else {
            self.waits_for_head = head.kind == Kind::Headers;
            return Ok(None);
        };
        self.waits_for_head = false;
        let event = match head.kind {
            Kind::Headers => {
                let step = self.headers(&head, payload, begin)?;
                return Ok(Some((whole, step)));
            }
            Kind::Continuation => {
                let step = self.continuation(&head, payload)?;
                return Ok(Some((whole, step)));
            }
            Kind::GoAway => return self.go_away(payload),
            Kind::Priority => self.priority(&head, payload)?,
            Kind::RstStream => self.rst_stream(&head, payload)?,
            Kind::Settings => self.settings(&head, payload)?,
            Kind::Ping => self.ping(&head, payload),
            Kind::WindowUpdate => self.window_update(&head, payload)?,
            Kind::PushPromise | Kind::Data | Kind::Unknown => {
                return Err(Fault::protocol("PUSH_PROMISE that nobody may send"));
            }
        };
        self.limits.check_outbound(&self.options, &mut self.counts)?;
        Ok(Some((whole, event.map(Step::Event))))
    }

    /// What can be said of a frame by its head alone.
    #[inline]
    fn judge_frame(&self, head: &FrameHead) -> Result<(), Fault> {
        let most = if self.is_server { DEFAULT_MAX_FRAME_SIZE } else { MAX_FRAME_SIZE_OF_SERVERS };
        if head.len > most as usize {
            return Err(Fault::new(ErrorCode::FrameSize, "frame is too long"));
        }
        if let Some(unfinished) = &self.unfinished {
            if head.kind != Kind::Continuation || head.stream != unfinished.stream {
                return Err(Fault::protocol("a block of header fields was not finished"));
            }
        } else if head.kind == Kind::Continuation {
            return Err(Fault::protocol("CONTINUATION of nothing"));
        }
        if !self.is_greeted && head.kind != Kind::Settings {
            return Err(Fault::protocol("the first frame was not SETTINGS"));
        }
        let (is_length_good, wants_stream) = match head.kind {
            Kind::Data | Kind::Headers | Kind::Continuation => (true, Some(true)),
            Kind::Priority => (head.len == 5, Some(true)),
            Kind::RstStream => (head.len == 4, Some(true)),
            Kind::Settings => (head.len == 0 || !head.has(ACK), Some(false)),
            Kind::Ping => (head.len == 8, Some(false)),
            Kind::GoAway => (head.len >= 8, Some(false)),
            Kind::WindowUpdate => (head.len == 4, None),
            Kind::PushPromise | Kind::Unknown => (true, None),
        };
        if !is_length_good {
            return Err(Fault::new(ErrorCode::FrameSize, "frame of a wrong length"));
        }
        match wants_stream {
            Some(wants) if wants != (head.stream != 0) => {
                Err(Fault::protocol("frame on a wrong stream"))
            }
            _ => Ok(()),
        }
    }

    /// No stream of this number has begun.
    pub fn is_idle_stream(&self, id: u32) -> bool {
        id.is_multiple_of(2) || id > self.last_stream
    }
}
