//! Whatever frames a server sends: nothing panics, the decoder makes progress, each stream's events come in order, what is answered
//! is whole frames and not many more than came, and cutting the input in two changes nothing.

use codec::event::Event;
use codec::headers::{RequestHead, ResponseHead};
use codec::http2::{ClientCodec, Options};

use crate::http2_program::{self as program, Journal, Stage};

/// The input is where to cut it, and frames. Three requests are on their way: a GET, a POST that goes on, a HEAD.
pub fn holds(data: &[u8]) {
    let [cut, frames @ ..] = data else { return };
    let wire = program::wire(b"\0\0\0\x04\0\0\0\0\0", frames);
    let (first, second) = wire.split_at(usize::from(*cut) * 4 % (wire.len() + 1));
    assert_eq!(read(&[&wire]), read(&[first, second]));
}

fn read(pieces: &[&[u8]]) -> Vec<String> {
    let options = Options { max_head_bytes: 2048, max_fields: 16, ..Options::default() };
    let mut codec = ClientCodec::new(options);
    let (mut journal, mut out) = (Journal { is_client: true, ..Journal::default() }, Vec::new());
    for (method, end_stream) in [(&b"GET"[..], true), (b"POST", false), (b"HEAD", true)] {
        let stream = codec.encode_head(&request(method), end_stream, &mut out);
        journal.stages.insert(stream, Stage::Asked);
    }
    let (mut pending, mut head) = (Vec::new(), ResponseHead::default());
    for piece in pieces {
        pending.extend_from_slice(piece);
        loop {
            let decoded = codec.decode(&pending, &mut head);
            let goes_on = journal.note(&decoded, &pending, &head, &head.fields);
            if let Event::Data { stream, range, .. } = &decoded.event {
                codec.passed_on(*stream, range.len());
            }
            pending.drain(..decoded.consumed);
            if !goes_on {
                break;
            }
        }
        codec.write_control(&mut out);
        assert!(!codec.has_control());
    }
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frames = program::check_frames(out.strip_prefix(preface).expect("no preface"));
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    assert!(frames <= total / 9 * 3 + 12, "{frames} frames for {total} bytes");
    journal.finish()
}

fn request(method: &[u8]) -> RequestHead {
    let mut request = RequestHead::new();
    request.set_method(method);
    request.set_scheme(b"http");
    request.set_authority(b"a");
    request.set_path(b"/");
    request
}
