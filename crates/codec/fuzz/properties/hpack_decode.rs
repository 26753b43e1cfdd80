//! Whatever blocks arrive: nothing panics, limits hold, the table is in step whether a block was wanted or not, what was taken
//! survives being written again, and what goes on to an HTTP/1 upstream is one request there with the same parts.

use codec::event::Event;
use codec::headers::{Fields, Method, RequestHead, ResponseHead};
use codec::http1;
use codec::http2::hpack::{BlockError, Decoder, Encoder, Limits};

const LIMITS: Limits = Limits { max_bytes: 2048, max_fields: 24 };

/// The input is blocks: a byte for the kind, one for the length, so many bytes.
pub fn holds(mut data: &[u8]) {
    let (mut decoder, mut twin) = (Decoder::new(), Decoder::new());
    let mut encoder = Encoder::new(true, 256);
    let mut again = Decoder::new();
    while let [kind, len, rest @ ..] = data {
        let (block, rest) = rest.split_at(usize::from(*len).min(rest.len()));
        data = rest;
        let done = match kind % 4 {
            0 | 1 => request(&mut decoder, &mut encoder, &mut again, block),
            2 => response(&mut decoder, block),
            _ => trailers(&mut decoder, block),
        };
        let is_broken = matches!(done, Err(BlockError::Compression(_)));
        assert_eq!(is_broken, twin.skip(block).is_err());
        if is_broken {
            return;
        }
        if kind & 0x80 != 0 {
            for decoder in [&mut decoder, &mut twin] {
                decoder.set_table_size(u32::from(*kind) * 20);
            }
        }
        same_table(&mut decoder.clone(), &mut twin.clone());
    }
}

/// Every entry of the one is there in the other.
fn same_table(one: &mut Decoder, other: &mut Decoder) {
    for index in 62..=90u8 {
        // The index alone: it is taken as trailers, or refused for what it names, or there is no such entry.
        let (mut left, mut right) = (Fields::new(), Fields::new());
        let block = [0x80 | index];
        let done = one.trailers(&block, LIMITS, &mut left);
        assert_eq!(done, other.trailers(&block, LIMITS, &mut right));
        assert!(left.iter().eq(right.iter()));
        if matches!(done, Err(BlockError::Compression(_))) {
            return;
        }
    }
}

fn request(
    decoder: &mut Decoder,
    encoder: &mut Encoder,
    again: &mut Decoder,
    block: &[u8],
) -> Result<(), BlockError> {
    let mut head = RequestHead::new();
    decoder.request(block, LIMITS, &mut head)?;
    assert!(head.byte_size() <= LIMITS.max_bytes + "; ".len() * LIMITS.max_fields);
    let (mut written, mut same) = (Vec::new(), RequestHead::new());
    encoder.request(&head, &mut written);
    let limits = Limits { max_bytes: usize::MAX, max_fields: usize::MAX };
    assert_eq!(again.request(&written, limits, &mut same), Ok(()));
    assert!(head.iter().eq(same.iter()), "{head:?} became {same:?}");
    check_forwarding(&head);
    Ok(())
}

fn check_forwarding(head: &RequestHead) {
    if head.method_kind() == Method::Other
        || !head.protocol().is_empty()
        || head.authority().is_empty()
    {
        // Other methods, upgrades and the missing authority are for the connection manager to judge.
        return;
    }
    if head.method_kind() == Method::Connect || head.path().contains(&b'#') {
        return;
    }
    let options = http1::Options { max_fields: 200, ..http1::Options::default() };
    let mut wire = Vec::new();
    http1::ClientCodec::new(options).encode_head(head, true, &mut wire);
    let mut arrived = RequestHead::new();
    let decoded = http1::ServerCodec::new(options).decode(&wire, &mut arrived);
    match decoded.event {
        Event::Head { .. } => {}
        // The length that a request states is compared with its body by the connection, not here.
        Event::Error(_) if head.fields.contains("content-length") => return,
        other => {
            panic!("refused what was forwarded: {other:?} {:?}", String::from_utf8_lossy(&wire))
        }
    }
    let parts = |head: &RequestHead| {
        [head.method(), head.authority(), head.path()].map(|part| part.to_vec())
    };
    assert_eq!(parts(&arrived), parts(head));
    if !head.fields.contains("content-length") {
        assert_eq!(decoded.consumed, wire.len());
    }
}

fn response(decoder: &mut Decoder, block: &[u8]) -> Result<(), BlockError> {
    let mut head = ResponseHead::default();
    decoder.response(block, LIMITS, &mut head)?;
    assert!((100..1000).contains(&head.status) && head.byte_size() <= LIMITS.max_bytes);
    Ok(())
}

fn trailers(decoder: &mut Decoder, block: &[u8]) -> Result<(), BlockError> {
    let mut fields = Fields::new();
    decoder.trailers(block, LIMITS, &mut fields)?;
    assert!(fields.len() <= LIMITS.max_fields && fields.byte_size() <= LIMITS.max_bytes);
    Ok(())
}
