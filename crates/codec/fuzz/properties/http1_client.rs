//! Whatever a server answers: nothing panics, the decoder makes progress, and cutting the input in two changes nothing.

use codec::event::Event;
use codec::headers::{RequestHead, ResponseHead};
use codec::http1::{ClientCodec, Options};

fn read(method: &[u8], pieces: &[&[u8]]) -> (Vec<String>, Vec<u8>, bool) {
    let mut codec =
        ClientCodec::new(Options { max_head_bytes: 2048, max_fields: 16, ..Options::default() });
    let mut request = RequestHead::new();
    request.set_method(method);
    request.set_path(b"/");
    request.set_authority(b"a:1");
    codec.encode_head(&request, true, &mut Vec::new());
    let (mut head, mut said, mut body) = (ResponseHead::default(), Vec::new(), Vec::new());
    let mut pending = Vec::new();
    for piece in pieces {
        pending.extend_from_slice(piece);
        loop {
            let decoded = codec.decode(&pending, &mut head);
            assert!(decoded.consumed <= pending.len());
            let waits = matches!(decoded.event, Event::NeedInput | Event::Blocked);
            match decoded.event {
                Event::NeedInput | Event::Blocked => {}
                Event::Data { range, .. } => body.extend_from_slice(&pending[range]),
                Event::Head { .. } | Event::Informational { .. } => {
                    said.push(format!("{} {head:?}", head.status))
                }
                other => said.push(format!("{other:?}")),
            }
            pending.drain(..decoded.consumed);
            if waits {
                break;
            }
        }
    }
    (said, body, codec.is_reusable())
}

pub fn holds(data: &[u8]) {
    let [cut, method, input @ ..] = data else { return };
    let method = [&b"GET"[..], b"HEAD", b"CONNECT", b"POST"][usize::from(*method) % 4];
    let (first, second) = input.split_at(usize::from(*cut) % (input.len() + 1));
    assert_eq!(read(method, &[input]), read(method, &[first, second]));
}
