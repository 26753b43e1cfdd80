//! Whatever a head holds, and whatever sizes the peer wants for the table: what is written is what is read.

use codec::headers::{Fields, HeaderName};
use codec::http2::hpack::{Decoder, Encoder, Limits};

const LIMITS: Limits = Limits { max_bytes: usize::MAX, max_fields: usize::MAX };

/// The input is options and then fields: the length of a name, that of a value, both strings. A name of no length ends a message,
/// and the byte after it may change the table's size.
pub fn holds(data: &[u8]) {
    let [options, most, fields @ ..] = data else { return };
    let mut data = fields;
    let mut encoder = Encoder::new(options & 1 != 0, u32::from(*most) * 32);
    let mut decoder = Decoder::new();
    let mut sent = Fields::new();
    while let [name_len, value_len, rest @ ..] = data {
        let name_len = usize::from(*name_len % 32).min(rest.len());
        let (name, rest) = rest.split_at(name_len);
        let (value, rest) = rest.split_at(usize::from(*value_len).min(rest.len()));
        data = rest;
        if let Some(name) = usable(name) {
            // A head has no control bytes, and no whitespace around values, whoever made it.
            let value: Vec<u8> =
                value.iter().map(|byte| byte.clamp(&b'!', &b'~')).copied().collect();
            sent.append(&name, &value);
            continue;
        }
        if value_len & 1 != 0 {
            let size = u32::from(*value_len) * 24;
            decoder.set_table_size(size);
            encoder.set_peer_table_size(size);
        }
        let (mut block, mut read) = (Vec::new(), Fields::new());
        encoder.trailers(&sent, &mut block);
        assert_eq!(decoder.trailers(&block, LIMITS, &mut read), Ok(()));
        assert!(sent.iter().eq(read.iter()), "{sent:?} became {read:?}");
        sent.clear();
    }
}

/// Names that go over the wire as they are.
fn usable(name: &[u8]) -> Option<HeaderName> {
    const LEFT_OUT: [&str; 10] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "host",
        "te",
        "trailer",
        "content-length",
    ];
    let name = HeaderName::parse(std::str::from_utf8(name).ok()?).ok()?;
    (!name.is_pseudo() && !LEFT_OUT.contains(&name.as_str())).then_some(name)
}
