//! What a decoder says. One shape for HTTP/1, where a connection has one stream at a time, and for HTTP/2.

use std::ops::Range;

/// A request and its response, numbered by the codec of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// One event and how many bytes of the input led to it.
///
/// Those bytes are done with as soon as the event has been dealt with: a `Data` range lies within them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes at the front of the input that the next call must not see again.
    pub consumed: usize,
    /// What they mean.
    pub event: Event,
}

/// What has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing more in this input: read more, then call again with what was not consumed and the new bytes.
    NeedInput,
    /// The peer has sent ahead (the next request of a pipeline, bytes after an upgrade request). They are decoded after the
    /// stream in progress ends or is upgraded: call again then, and do not read more until then.
    Blocked,
    /// A request's or a final response's head is in the head that was passed in.
    Head {
        /// Whose.
        stream: StreamId,
        /// Nothing follows.
        end_stream: bool,
    },
    /// A 1xx response other than 101 is in the head that was passed in; the final one is still to come.
    Informational {
        /// Whose.
        stream: StreamId,
    },
    /// Body bytes.
    Data {
        /// Whose.
        stream: StreamId,
        /// Where in the input.
        range: Range<usize>,
        /// Nothing follows.
        end_stream: bool,
    },
    /// Trailers are in the fields of the head that was passed in. Nothing follows.
    Trailers {
        /// Whose.
        stream: StreamId,
    },
    /// The message ends here: nothing was said of it earlier because nobody knew.
    End {
        /// Whose.
        stream: StreamId,
    },
    /// The peer has given up one stream (HTTP/2), or the connection ended in the middle of its message.
    Reset {
        /// Whose.
        stream: StreamId,
        /// Why.
        reason: ResetReason,
    },
    /// The peer has opened a window (HTTP/2): look at `send_room` again.
    Room {
        /// Whose; `None` for every stream's.
        stream: Option<StreamId>,
    },
    /// The peer's settings have come or changed (HTTP/2): there may be more room on every stream, and for more streams.
    PeerSettings,
    /// The server takes no more streams (HTTP/2). Those that it will not look at were named before, as `Reset`.
    GoAway,
    /// The peer's answer to `ping`.
    Pong,
    /// A breach of protocol: the end of one stream, or of the connection, of which then nothing more is decoded.
    Error(CodecError),
}

/// Why a stream ended before its message did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetReason {
    /// The peer closed the connection in the middle of a message.
    ConnectionClosed,
    /// The peer reset the stream.
    Remote,
    /// The peer refused the stream before looking at it: it is safe to retry.
    Refused,
    /// We reset it.
    Local,
}

/// What is said of a stream that is given up; HTTP/1 has no word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetCode {
    /// Nothing went wrong; the rest is not needed.
    NoError,
    /// The peer broke the protocol.
    Protocol,
    /// What was being sent cannot be finished.
    Internal,
    /// It was not looked at: it is safe to retry.
    Refused,
    /// Nobody waits for it any more.
    Cancel,
}

/// A breach of protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{details}: {reason}")]
pub struct CodecError {
    /// The stream at fault; for HTTP/2, 0 if it is none in particular. An HTTP/1 server may answer it with `encode_head` as
    /// long as it has not begun to; HTTP/2 has reset it already, or is about to end the connection.
    pub stream: StreamId,
    /// Whether the head of that stream has been given out before.
    pub after_head: bool,
    /// What a server answers before it closes; a client takes its stream as reset by a protocol error.
    pub status: u16,
    /// Envoy's response code details, such as `http1.codec_error`.
    pub details: &'static str,
    /// For people: what was wrong with the bytes.
    pub reason: &'static str,
    /// Whether the connection is to be closed after the answer. For HTTP/1 always; for HTTP/2 only the stream is over
    /// otherwise.
    pub close: bool,
}
