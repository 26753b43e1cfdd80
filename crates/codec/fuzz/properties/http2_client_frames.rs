//! Whatever frames a server sends: nothing panics, the decoder makes progress, each stream's events come in order, what is answered
//! is whole frames and not many more than came, and cutting the input in two changes nothing.

use std::collections::BTreeMap;

use crate::http2_program as program;
use codec::event::{Event, StreamId};
use codec::headers::{RequestHead, ResponseHead};
use codec::http2::{ClientCodec, Options};

/// The input is where to cut it, and frames. Three requests are on their way: a GET, a POST that goes on, a HEAD.
pub fn holds(data: &[u8]) {
    let [cut, frames @ ..] = data else { return };
    let wire = program::wire(b"\0\0\0\x04\0\0\0\0\0", frames);
    let (first, second) = wire.split_at(usize::from(*cut) * 4 % (wire.len() + 1));
    assert_eq!(read(&[&wire]), read(&[first, second]));
}

/// How far a response is.
enum Stage {
    Asked,
    Head(Vec<u8>),
    /// The response is whole; the stream may still be reset.
    Whole,
    Over,
}

struct Reader {
    codec: ClientCodec,
    said: Vec<String>,
    stages: BTreeMap<StreamId, Stage>,
}

fn read(pieces: &[&[u8]]) -> Vec<String> {
    let options = Options { max_head_bytes: 2048, max_fields: 16, ..Options::default() };
    let mut codec = ClientCodec::new(options);
    let mut out = Vec::new();
    let mut stages = BTreeMap::new();
    for (method, end_stream) in [(&b"GET"[..], true), (b"POST", false), (b"HEAD", true)] {
        let mut request = RequestHead::new();
        request.set_method(method);
        request.set_scheme(b"http");
        request.set_authority(b"a");
        request.set_path(b"/");
        let stream = codec.encode_head(&request, end_stream, &mut out);
        stages.insert(stream, Stage::Asked);
    }
    let mut reader = Reader { codec, said: Vec::new(), stages };
    let (mut pending, mut head) = (Vec::new(), ResponseHead::default());
    for piece in pieces {
        pending.extend_from_slice(piece);
        while reader.step(&mut pending, &mut head) {}
        reader.codec.write_control(&mut out);
        assert!(!reader.codec.has_control());
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frames = program::check_frames(out.strip_prefix(preface).expect("no preface"));
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    assert!(frames <= total / 9 * 3 + 12, "{frames} frames for {total} bytes");
    for (stream, stage) in &reader.stages {
        if let Stage::Head(body) = stage {
            reader.said.push(format!("{stream:?} is open after {body:02x?}"));
        }
    }
    reader.said
}

impl Reader {
    /// One event; false when more input is needed.
    fn step(&mut self, pending: &mut Vec<u8>, head: &mut ResponseHead) -> bool {
        let decoded = self.codec.decode(pending, head);
        assert!(decoded.consumed <= pending.len());
        let goes_on = match &decoded.event {
            Event::NeedInput => false,
            Event::Blocked => panic!("HTTP/2 does not block"),
            Event::Informational { stream } => {
                assert!(matches!(self.stages.get(stream), Some(Stage::Asked)));
                self.said.push(format!("{stream:?} {head:?}"));
                true
            }
            Event::Head { stream, end_stream } => {
                self.said.push(format!("{stream:?} {head:?}"));
                let old = self.stages.insert(*stream, Stage::Head(Vec::new()));
                assert!(matches!(old, Some(Stage::Asked)), "a response that nobody waits for");
                if *end_stream {
                    self.end(*stream);
                }
                true
            }
            Event::Data { stream, range, end_stream } => {
                let Some(Stage::Head(body)) = self.stages.get_mut(stream) else {
                    panic!("data of {stream:?}, which has no head");
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
                assert!(!matches!(stage, None | Some(Stage::Over)), "reset of nothing");
                true
            }
            Event::Error(error) => {
                self.said.push(format!("{error:?}"));
                self.stages.insert(error.stream, Stage::Over);
                !error.close
            }
            _ => true,
        };
        pending.drain(..decoded.consumed);
        goes_on
    }

    fn end(&mut self, stream: StreamId) {
        let stage = self.stages.insert(stream, Stage::Whole);
        let Some(Stage::Head(body)) = stage else { panic!("{stream:?} ended, which is not open") };
        self.said.push(format!("{stream:?} ended after {body:02x?}"));
    }
}
