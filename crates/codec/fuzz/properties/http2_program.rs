//! Frames out of fuzzed bytes, so that most of what is tried is not refused for its framing alone; and a look at what comes of them.

use std::collections::BTreeMap;
use std::fmt::Debug;

use codec::event::{Decoded, Event, StreamId};
use codec::headers::Fields;

/// One frame, or bytes as they are, for each step of the input: kind, flags, stream, length, so many bytes.
pub fn wire(preface: &[u8], mut data: &[u8]) -> Vec<u8> {
    let mut out = preface.to_vec();
    while let [kind, flags, stream, len, rest @ ..] = data {
        let (payload, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        data = rest;
        if *kind == 0xff {
            out.extend_from_slice(payload);
            continue;
        }
        let stream = if *stream == 0xff { 0x7fff_ffff } else { u32::from(*stream) };
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        // Frames that mean something come oftener than they would by chance.
        out.extend_from_slice(&[kind % 12, *flags]);
        out.extend_from_slice(&stream.to_be_bytes());
        out.extend_from_slice(payload);
    }
    out
}

/// What was written is whole frames of a legal size; says how many.
pub fn check_frames(mut wire: &[u8]) -> usize {
    let mut frames = 0;
    while let Some((head, rest)) = wire.split_first_chunk::<9>() {
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        assert!(len <= 16_384 && head[3] <= 9, "a frame of kind {} with {len} bytes", head[3]);
        wire = rest.get(len..).expect("a frame is cut off");
        frames += 1;
    }
    assert!(wire.is_empty(), "the head of a frame is cut off");
    frames
}

/// How far the peer's message on a stream is, and the body bytes that it brought.
pub enum Stage {
    /// A response that is waited for.
    Asked,
    Open(Vec<u8>),
    /// The message is whole; the stream may still be reset.
    Whole,
    Over,
}

/// What a codec has said, each stream's events in their order.
#[derive(Default)]
pub struct Journal {
    pub said: Vec<String>,
    pub stages: BTreeMap<StreamId, Stage>,
    /// Streams begin here, so no head may come that was not asked for.
    pub is_client: bool,
}

impl Journal {
    /// Notes an event; false when more input is needed, or none any more.
    pub fn note(
        &mut self,
        decoded: &Decoded,
        input: &[u8],
        head: &dyn Debug,
        fields: &Fields,
    ) -> bool {
        assert!(decoded.consumed <= input.len());
        match &decoded.event {
            Event::NeedInput => return false,
            Event::Blocked => panic!("HTTP/2 does not block"),
            Event::Informational { stream } => {
                assert!(matches!(self.stages.get(stream), Some(Stage::Asked)));
                self.said.push(format!("{stream:?} {head:?}"));
            }
            Event::Head { stream, end_stream } => {
                self.said.push(format!("{stream:?} {head:?}"));
                let old = self.stages.insert(*stream, Stage::Open(Vec::new()));
                let is_asked = matches!(old, Some(Stage::Asked));
                assert!(if self.is_client { is_asked } else { old.is_none() }, "begun twice");
                self.end_if(*stream, *end_stream);
            }
            Event::Data { stream, range, end_stream } => {
                let Some(Stage::Open(body)) = self.stages.get_mut(stream) else {
                    panic!("data of {stream:?}, which is not open");
                };
                assert!(range.end <= decoded.consumed);
                body.extend_from_slice(&input[range.clone()]);
                self.end_if(*stream, *end_stream);
            }
            Event::Trailers { stream } => {
                self.said.push(format!("{stream:?} trailers {fields:?}"));
                self.end_if(*stream, true);
            }
            Event::End { stream } => self.end_if(*stream, true),
            Event::Reset { stream, .. } => {
                self.said.push(format!("{:?}", decoded.event));
                let stage = self.stages.insert(*stream, Stage::Over);
                assert!(!matches!(stage, None | Some(Stage::Over)), "reset of nothing");
            }
            Event::Error(error) => {
                self.said.push(format!("{error:?}"));
                if let Some(stage) = self.stages.get_mut(&error.stream) {
                    *stage = Stage::Over;
                }
                return !error.close;
            }
            // Windows open on the way; only what comes of it counts.
            _ => {}
        }
        true
    }

    fn end_if(&mut self, stream: StreamId, ends: bool) {
        if ends {
            let stage = self.stages.insert(stream, Stage::Whole);
            let Some(Stage::Open(body)) = stage else {
                panic!("{stream:?} ended, which is not open")
            };
            self.said.push(format!("{stream:?} ended after {body:02x?}"));
        }
    }

    /// All that was said, and what of bodies had come where nothing more did.
    pub fn finish(mut self) -> Vec<String> {
        for (stream, stage) in &self.stages {
            if let Stage::Open(body) = stage {
                self.said.push(format!("{stream:?} is open after {body:02x?}"));
            }
        }
        self.said
    }
}
