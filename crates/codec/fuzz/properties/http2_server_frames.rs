//! Whatever frames a client sends: nothing panics, the decoder makes progress, each stream's events come in order, what is answered
//! is whole frames and not many more than came, and cutting the input in two changes nothing.

use codec::event::{Event, ResetCode, StreamId};
use codec::headers::{RequestHead, ResponseHead};
use codec::http2::{Options, ServerCodec};

use crate::http2_program::{self as program, Journal, Stage};

/// The input is where to cut it, how streams are answered, and frames.
pub fn holds(data: &[u8]) {
    let [cut, answer, frames @ ..] = data else { return };
    let wire = program::wire(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", frames);
    let (first, second) = wire.split_at(usize::from(*cut) * 4 % (wire.len() + 1));
    assert_eq!(read(&[&wire], *answer), read(&[first, second], *answer));
}

fn read(pieces: &[&[u8]], answer: u8) -> Vec<String> {
    let mut codec = ServerCodec::new(Options {
        max_head_bytes: 2048,
        max_fields: 16,
        max_concurrent_streams: 8,
        allow_connect: true,
        stream_error_on_invalid_http_message: answer & 0x80 != 0,
        ..Options::default()
    });
    let (mut journal, mut out) = (Journal::default(), Vec::new());
    let (mut pending, mut head) = (Vec::new(), RequestHead::new());
    for piece in pieces {
        pending.extend_from_slice(piece);
        loop {
            let decoded = codec.decode(&pending, &mut head);
            if !journal.note(&decoded, &pending, &head, &head.fields) {
                pending.drain(..decoded.consumed);
                break;
            }
            match &decoded.event {
                Event::Head { stream, .. } if reply(&mut codec, *stream, answer, &mut out) => {
                    journal.stages.insert(*stream, Stage::Over);
                }
                Event::Data { stream, range, .. } => codec.passed_on(*stream, range.len()),
                _ => {}
            }
            pending.drain(..decoded.consumed);
        }
        codec.write_control(&mut out);
        assert!(!codec.has_control());
    }
    let total: usize = pieces.iter().map(|piece| piece.len()).sum();
    let frames = program::check_frames(&out);
    // Every frame has nine bytes at least and causes two answers at most; the SETTINGS and GOAWAY are ours.
    assert!(frames <= total / 9 * 3 + 8, "{frames} frames for {total} bytes");
    journal.finish()
}

/// Streams are answered at once, reset or left alone, as the input wants it. Says whether it was reset.
fn reply(codec: &mut ServerCodec, stream: StreamId, answer: u8, out: &mut Vec<u8>) -> bool {
    match (answer >> (stream.0 / 2 % 4 * 2)) & 3 {
        0 => codec.encode_head(stream, &ResponseHead::new(204), true, out),
        1 => {
            codec.encode_head(stream, &ResponseHead::new(200), false, out);
            let room = codec.send_room(stream).min(20);
            codec.encode_data(stream, &[7; 20][..room], room == 20, out);
        }
        2 => {
            codec.reset_with(stream, ResetCode::Cancel, out);
            return true;
        }
        _ => {}
    }
    false
}
