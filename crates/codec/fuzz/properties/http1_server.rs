//! Whatever a client sends: nothing panics, the decoder makes progress, and cutting the input in two changes nothing.
//! What was accepted is encoded for an upstream and must be accepted again, as one request with the same parts.

use codec::event::{Event, StreamId};
use codec::headers::{RequestHead, ResponseHead};
use codec::http1::{ClientCodec, Options, ServerCodec};

/// Heads, then bodies, as text; an answer follows each request.
fn read(pieces: &[&[u8]]) -> Vec<String> {
    let mut codec =
        ServerCodec::new(Options { max_head_bytes: 2048, max_fields: 16, ..Options::default() });
    let (mut head, mut said, mut body) = (RequestHead::new(), Vec::new(), Vec::new());
    let mut pending = Vec::new();
    for piece in pieces {
        pending.extend_from_slice(piece);
        loop {
            let decoded = codec.decode(&pending, &mut head);
            assert!(decoded.consumed <= pending.len());
            let mut ends = false;
            match decoded.event {
                Event::NeedInput | Event::Blocked => {
                    pending.drain(..decoded.consumed);
                    break;
                }
                Event::Head { end_stream, .. } => {
                    said.push(format!("{head:?}"));
                    check_forwarding(&head, end_stream);
                    ends = end_stream;
                }
                Event::Data { range, end_stream, .. } => {
                    body.extend_from_slice(&pending[range]);
                    ends = end_stream;
                }
                Event::Trailers { .. } | Event::End { .. } => ends = true,
                other => said.push(format!("{other:?}")),
            }
            pending.drain(..decoded.consumed);
            if ends {
                said.push(format!("{:?}", std::mem::take(&mut body)));
                codec.encode_head(StreamId(0), &ResponseHead::new(204), true, &mut Vec::new());
            }
        }
    }
    said
}

fn check_forwarding(head: &RequestHead, end_stream: bool) {
    if matches!(head.path(), [b'?' | b'#', ..]) {
        // `http://host?query`: its path is for the connection manager to refuse.
        return;
    }
    let mut wire = Vec::new();
    ClientCodec::new(Options::default()).encode_head(head, end_stream, &mut wire);
    let mut again = RequestHead::new();
    let decoded = ServerCodec::new(Options::default()).decode(&wire, &mut again);
    assert!(matches!(decoded.event, Event::Head { .. }), "refused what was forwarded: {decoded:?}");
    assert_eq!(decoded.consumed, wire.len());
    assert_eq!(
        (again.method(), again.authority(), again.path()),
        (head.method(), head.authority(), head.path())
    );
}

pub fn holds(data: &[u8]) {
    let Some((cut, input)) = data.split_first() else { return };
    let (first, second) = input.split_at(usize::from(*cut) % (input.len() + 1));
    assert_eq!(read(&[input]), read(&[first, second]));
}
