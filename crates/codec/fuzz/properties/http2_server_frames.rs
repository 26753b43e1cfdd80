//! Whatever frames a client sends: nothing panics, the decoder makes progress, each stream's events come in order, what is answered
//! is whole frames and not many more than came, and cutting the input in two changes nothing.

use std::collections::BTreeMap;

use crate::http2_program as program;
use codec::event::{Event, ResetCode, StreamId};
use codec::headers::{RequestHead, ResponseHead};
use codec::http2::{Options, ServerCodec};

/// The input is where to cut it, how streams are answered, and frames.
pub fn holds(data: &[u8]) {
    let [cut, answer, frames @ ..] = data else { return };
    let wire = program::wire(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", frames);
    let (first, second) = wire.split_at(usize::from(*cut) * 4 % (wire.len() + 1));
    assert_eq!(read(&[&wire], *answer), read(&[first, second], *answer));
}

/// How far a stream is, and the body bytes that it brought.
enum Stage {
    Open(Vec<u8>),
    /// The request is whole; the stream may still be reset.
    Whole,
    Over,
}

struct Reader {
    codec: ServerCodec,
    answer: u8,
    said: Vec<String>,
    stages: BTreeMap<StreamId, Stage>,
    out: Vec<u8>,
}

fn read(pieces: &[&[u8]], answer: u8) -> Vec<String> {
    let options = Options {
        max_head_bytes: 2048,
        max_fields: 16,
        max_concurrent_streams: 8,
        allow_connect: true,
        stream_error_on_invalid_http_message: answer & 0x80 != 0,
        ..Options::default()
    };
    let codec = ServerCodec::new(options);
    let (said, stages, out) = (Vec::new(), BTreeMap::new(), Vec::new());
    let mut reader = Reader { codec, answer, said, stages, out };
    let (mut pending, mut head) = (Vec::new(), RequestHead::new());
    for piece in pieces {
        pending.extend_from_slice(piece);
        while reader.step(&mut pending, &mut head) {}
        reader.codec.write_control(&mut reader.out);
        assert!(!reader.codec.has_control());
    }
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    let frames = program::check_frames(&reader.out);
    // Every frame has nine bytes at least and causes two answers at most; the SETTINGS and GOAWAY are ours.
    assert!(frames <= total / 9 * 3 + 8, "{frames} frames for {total} bytes");
    for (stream, stage) in &reader.stages {
        if let Stage::Open(body) = stage {
            reader.said.push(format!("{stream:?} is open after {body:02x?}"));
        }
    }
    reader.said
}

impl Reader {
    /// One event; false when more input is needed.
    fn step(&mut self, pending: &mut Vec<u8>, head: &mut RequestHead) -> bool {
        let decoded = self.codec.decode(pending, head);
        assert!(decoded.consumed <= pending.len());
        let goes_on = match &decoded.event {
            Event::NeedInput => false,
            Event::Blocked => panic!("HTTP/2 does not block"),
            Event::Head { stream, end_stream } => {
                self.said.push(format!("{stream:?} {head:?}"));
                let old = self.stages.insert(*stream, Stage::Open(Vec::new()));
                assert!(old.is_none(), "{stream:?} opened twice");
                if *end_stream {
                    self.end(*stream);
                }
                self.answer(*stream);
                true
            }
            Event::Data { stream, range, end_stream } => {
                let Some(Stage::Open(body)) = self.stages.get_mut(stream) else {
                    panic!("data of {stream:?}, which is not open");
                };
                body.extend_from_slice(&pending[range.clone()]);
                assert!(range.end <= decoded.consumed);
                self.codec.passed_on(*stream, range.len());
                if *end_stream {
                    self.end(*stream);
                }
                true
            }
            Event::Trailers { stream } => {
                self.said.push(format!("{stream:?} trailers {:?}", head.fields));
                self.end(*stream);
                true
            }
            Event::End { stream } => {
                self.end(*stream);
                true
            }
            Event::Reset { stream, .. } => {
                self.said.push(format!("{:?}", decoded.event));
                let stage = self.stages.insert(*stream, Stage::Over);
                assert!(matches!(stage, Some(Stage::Open(_) | Stage::Whole)), "reset of nothing");
                true
            }
            Event::Error(error) => {
                self.said.push(format!("{error:?}"));
                if let Some(stage) = self.stages.get_mut(&error.stream) {
                    *stage = Stage::Over;
                }
                !error.close
            }
            // Windows open on the way; only what comes of it counts.
            _ => true,
        };
        pending.drain(..decoded.consumed);
        goes_on
    }

    fn end(&mut self, stream: StreamId) {
        let stage = self.stages.insert(stream, Stage::Whole);
        let Some(Stage::Open(body)) = stage else { panic!("{stream:?} ended, which is not open") };
        self.said.push(format!("{stream:?} ended after {body:02x?}"));
    }

    /// Streams are answered at once, reset or left alone, as the input wants it.
    fn answer(&mut self, stream: StreamId) {
        match (self.answer >> (stream.0 / 2 % 4 * 2)) & 3 {
            0 => self.codec.encode_head(stream, &ResponseHead::new(204), true, &mut self.out),
            1 => {
                self.codec.encode_head(stream, &ResponseHead::new(200), false, &mut self.out);
                let room = self.codec.send_room(stream).min(20);
                self.codec.encode_data(stream, &[7; 20][..room], room == 20, &mut self.out);
            }
            2 => {
                self.codec.reset_with(stream, ResetCode::Cancel, &mut self.out);
                self.stages.insert(stream, Stage::Over);
            }
            _ => {}
        }
    }
}
