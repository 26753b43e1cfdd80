//! Decoder and encoder together: the examples of RFC 7541, what must be refused, what must not grow, and round trips.

use proptest::prelude::*;

use super::{BlockError, Decoder, Encoder, Limits};
use crate::headers::{Fields, NameRef, NameSet, RequestHead, ResponseHead, names};

const LIMITS: Limits = Limits { max_bytes: 60 * 1024, max_fields: 100 };

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let text = String::from_utf8(digits).unwrap();
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap())
        .collect()
}

fn lines<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<String> {
    let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
    fields.map(|(name, value)| format!("{}: {}", text(name), text(value))).collect()
}

/// A literal that enters the table, by a new name.
fn entering(name: &str, value: &str) -> Vec<u8> {
    literal(0x40, name, value)
}

fn literal(flags: u8, name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![flags];
    for part in [name, value] {
        super::integer::encode(part.len(), 7, 0, &mut out);
        out.extend_from_slice(part.as_bytes());
    }
    out
}

const GET: &[u8] = &[0x82, 0x86, 0x84];

fn get_with(rest: &[Vec<u8>]) -> Vec<u8> {
    [GET.to_vec(), rest.concat()].concat()
}

fn request(block: &[u8]) -> Result<RequestHead, BlockError> {
    let mut head = RequestHead::new();
    Decoder::new().request(block, LIMITS, &mut head)?;
    Ok(head)
}

#[test]
fn requests_of_appendix_c3_and_c4() {
    let plain = [
        "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "8286 84be 5808 6e6f 2d63 6163 6865",
        "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
    ];
    let coded = [
        "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
        "8286 84be 5886 a8eb 1064 9cbf",
        "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
    ];
    let expected = [
        (vec![":method: GET", ":scheme: http", ":authority: www.example.com", ":path: /"], 57),
        (
            vec![
                ":method: GET",
                ":scheme: http",
                ":authority: www.example.com",
                ":path: /",
                "cache-control: no-cache",
            ],
            110,
        ),
        (
            vec![
                ":method: GET",
                ":scheme: https",
                ":authority: www.example.com",
                ":path: /index.html",
                "custom-key: custom-value",
            ],
            164,
        ),
    ];
    for blocks in [plain, coded] {
        let (mut decoder, mut head) = (Decoder::new(), RequestHead::new());
        for (block, (fields, size)) in blocks.into_iter().zip(&expected) {
            decoder.request(&bytes(block), LIMITS, &mut head).unwrap();
            assert_eq!(lines(head.iter()), *fields);
            assert_eq!(decoder.table().size_and_len().0, *size);
        }
    }
}

#[test]
fn responses_of_appendix_c5_and_c6_with_evictions() {
    let plain = [
        "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a \
         3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
        "4803 3330 37c1 c0bf",
        "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 \
         677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 \
         553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
    ];
    let coded = [
        "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e \
         919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        "4883 640e ffc1 c0bf",
        "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 \
         821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed \
         4ee5 b106 3d50 07",
    ];
    let date = "date: Mon, 21 Oct 2013 20:13:21 GMT";
    let location = "location: https://www.example.com";
    let cookie = "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1";
    let expected = [
        (302, vec!["cache-control: private", date, location], 222),
        (307, vec!["cache-control: private", date, location], 222),
        (
            200,
            vec![
                "cache-control: private",
                "date: Mon, 21 Oct 2013 20:13:22 GMT",
                location,
                "content-encoding: gzip",
                cookie,
            ],
            215,
        ),
    ];
    for blocks in [plain, coded] {
        let (mut decoder, mut head) = (Decoder::new(), ResponseHead::default());
        decoder.table().set_max_size(256);
        for (block, (status, fields, size)) in blocks.into_iter().zip(&expected) {
            decoder.response(&bytes(block), LIMITS, &mut head).unwrap();
            assert_eq!((head.status, lines(head.fields.iter())), (*status, to_owned(fields)));
            assert_eq!(decoder.table().size_and_len().0, *size);
        }
    }
}

fn to_owned(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

#[test]
fn fields_of_appendix_c2() {
    let (mut decoder, mut fields) = (Decoder::new(), Fields::new());
    let block = bytes("400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572");
    decoder.trailers(&block, LIMITS, &mut fields).unwrap();
    assert_eq!(lines(fields.iter()), ["custom-key: custom-header"]);
    assert_eq!(decoder.table().size_and_len(), (55, 1));
    let block = bytes("1008 7061 7373 776f 7264 0673 6563 7265 74");
    decoder.trailers(&block, LIMITS, &mut fields).unwrap();
    assert_eq!(lines(fields.iter()), ["password: secret"]);
    assert_eq!(decoder.table().size_and_len(), (55, 1));
    // What came as never indexed goes on so.
    let mut out = Vec::new();
    Encoder::new(false, 4096).trailers(&fields, &mut out);
    assert_eq!(out, block);
    let head = request(&[GET[0], GET[1], 0x04, 0x02, b'/', b'x']).unwrap();
    assert_eq!(head.path(), b"/x");
}

#[test]
fn a_decoded_head_goes_to_an_http1_wire_in_one_run() {
    let block = get_with(&[
        entering("user-agent", "curl"),
        entering("cookie", "a=1"),
        entering("x-custom", " padded\t"),
        vec![0xbf],
        vec![0x41, 1, b'h'],
    ]);
    // A pseudo field at the end is out of place; without it all is well.
    assert!(matches!(request(&block), Err(BlockError::Malformed(_))));
    let head = request(&block[..block.len() - 3]).unwrap();
    let mut out = Vec::new();
    head.fields.write_lines(&mut out, NameSet::of(&[]));
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "user-agent: curl\r\ncookie: a=1; a=1\r\nx-custom: padded\r\n"
    );
    assert_eq!(head.get(names::COOKIE), Some(&b"a=1; a=1"[..]));
}

#[test]
fn host_stands_for_a_missing_authority_and_must_not_contradict_it() {
    let host = |value: &str| entering("host", value);
    let authority =
        |value: &str| [vec![0x41, value.len() as u8], value.as_bytes().to_vec()].concat();
    let head = request(&get_with(&[host("a.example")])).unwrap();
    assert_eq!((head.authority(), head.fields.len()), (&b"a.example"[..], 0));
    let head = request(&get_with(&[authority("A.example"), host("a.example")])).unwrap();
    assert_eq!((head.authority(), head.fields.len()), (&b"A.example"[..], 0));
    for bad in [
        vec![authority("a.example"), host("b.example")],
        vec![authority("a.example"), host("a.example"), host("b.example")],
        vec![host("a.example"), host("a.example")],
        vec![authority("a/b")],
        vec![authority("u@a")],
        vec![host("a b")],
    ] {
        assert!(matches!(request(&get_with(&bad)), Err(BlockError::Malformed(_))));
    }
}

/// Each is refused, the message alone, and the table has taken what it had to.
#[test]
fn malformed_messages() {
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("upper case", get_with(&[entering("X-Foo", "1")])),
        ("empty name", get_with(&[entering("", "1")])),
        ("space in a name", get_with(&[entering("a b", "1")])),
        ("colon in a name", get_with(&[entering("a:b", "1")])),
        ("byte above ASCII in a name", get_with(&[entering("\u{e9}", "1")])),
        ("NUL in a value", get_with(&[entering("a", "1\0")])),
        ("LF in a value", get_with(&[entering("a", "1\n2: 3")])),
        ("CR in a value", get_with(&[entering("a", "1\r")])),
        ("DEL in a value", get_with(&[entering("a", "\x7f")])),
        ("connection", get_with(&[entering("connection", "close")])),
        ("keep-alive", get_with(&[entering("keep-alive", "1")])),
        ("proxy-connection", get_with(&[entering("proxy-connection", "close")])),
        ("transfer-encoding", get_with(&[entering("transfer-encoding", "chunked")])),
        ("upgrade", get_with(&[entering("upgrade", "h2c")])),
        ("te: gzip", get_with(&[entering("te", "gzip")])),
        ("te: trailers, gzip", get_with(&[entering("te", "trailers, gzip")])),
        ("unknown pseudo", get_with(&[entering(":foo", "1")])),
        ("bare colon", get_with(&[entering(":", "1")])),
        (":status", get_with(&[vec![0x88]])),
        (":method twice", get_with(&[vec![0x82]])),
        (":path twice", get_with(&[vec![0x84]])),
        ("no :method", vec![0x86, 0x84]),
        ("no :scheme", vec![0x82, 0x84]),
        ("no :path", vec![0x82, 0x86]),
        ("nothing", vec![]),
        ("empty :path", vec![0x82, 0x86, 0x04, 0x00]),
        ("relative :path", vec![0x82, 0x86, 0x04, 0x01, b'a']),
        ("space in :path", vec![0x82, 0x86, 0x04, 0x03, b'/', b' ', b'a']),
        ("byte above ASCII in :path", vec![0x82, 0x86, 0x04, 0x02, b'/', 0xe9]),
        ("* with GET", vec![0x82, 0x86, 0x04, 0x01, b'*']),
        ("space in :method", [literal(0, ":method", "G T"), vec![0x86, 0x84]].concat()),
        (":method in lower case", [literal(0, ":method", "delete"), vec![0x86, 0x84]].concat()),
        ("empty :method", [literal(0, ":method", ""), vec![0x86, 0x84]].concat()),
        ("bad :scheme", [vec![0x82, 0x84], literal(0, ":scheme", "1:")].concat()),
        (":protocol with GET", [GET.to_vec(), literal(0, ":protocol", "websocket")].concat()),
        ("CONNECT alone", literal(0, ":method", "CONNECT")),
        ("CONNECT with :path", {
            let authority = literal(0, ":authority", "a:1");
            [literal(0, ":method", "CONNECT"), authority, vec![0x84]].concat()
        }),
        ("pseudo after a field", [vec![0x82, 0x86], entering("a", "1"), vec![0x84]].concat()),
    ];
    for (what, block) in cases {
        let (mut decoder, mut head) = (Decoder::new(), RequestHead::new());
        let done = decoder.request(&block, LIMITS, &mut head);
        assert!(matches!(done, Err(BlockError::Malformed(_))), "{what}: {done:?}");
        assert!(head.method().is_empty() && head.fields.is_empty(), "{what}: the head is empty");
        let mut twin = Decoder::new();
        assert_eq!(twin.skip(&block), Ok(()));
        assert_eq!(twin.table().size_and_len(), decoder.table().size_and_len(), "{what}");
        // And the connection goes on.
        assert_eq!(decoder.request(GET, LIMITS, &mut head), Ok(()), "{what}");
    }
}

#[test]
fn malformed_responses_and_trailers() {
    let (mut decoder, mut head) = (Decoder::new(), ResponseHead::default());
    for block in [
        vec![],
        vec![0x88, 0x88],
        vec![0x82],
        vec![0x88, 0x84],
        literal(0, ":status", "20"),
        literal(0, ":status", "2000"),
        literal(0, ":status", "099"),
        literal(0, ":status", "2x0"),
        [entering("a", "1"), vec![0x88]].concat(),
    ] {
        let done = decoder.response(&block, LIMITS, &mut head);
        assert!(matches!(done, Err(BlockError::Malformed(_))), "{block:x?}: {done:?}");
        assert_eq!(head.status, 0);
    }
    let mut fields = Fields::new();
    for block in [
        vec![0x88],
        vec![0x82],
        entering("content-length", "3"),
        entering("host", "a"),
        entering("trailer", "a"),
        entering("connection", "close"),
    ] {
        let done = decoder.trailers(&block, LIMITS, &mut fields);
        assert!(matches!(done, Err(BlockError::Malformed(_))), "{block:x?}: {done:?}");
    }
    assert_eq!(decoder.trailers(&[], LIMITS, &mut fields), Ok(()));
}

/// Each leaves the two ends with different tables, so the connection cannot go on.
#[test]
fn broken_compression() {
    for (what, block) in [
        ("index 0", &[0x80][..]),
        ("index of no entry", &[0xbe]),
        ("name of no entry", &[0x7e, 0x01, b'a']),
        ("index cut off", &[0xff]),
        ("index without end", &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00]),
        ("huge index", &[0xff, 0xff, 0xff, 0xff, 0x7f]),
        ("no name", &[0x40]),
        ("name cut off", &[0x40, 0x05, b'a']),
        ("no value", &[0x40, 0x01, b'a']),
        ("value cut off", &[0x40, 0x01, b'a', 0x02, b'b']),
        ("huge length", &[0x40, 0x7f, 0xff, 0xff, 0xff, 0x7f]),
        ("Huffman EOS", &[0x40, 0x01, b'a', 0x84, 0xff, 0xff, 0xff, 0xff]),
        ("Huffman padding of zeros", &[0x40, 0x01, b'a', 0x81, 0x00]),
        ("Huffman padding of a byte", &[0x40, 0x01, b'a', 0x82, 0x07, 0xff]),
        ("table larger than allowed", &[0x3f, 0xe2, 0x1f]),
        ("size after a field", &[0x82, 0x20]),
    ] {
        let mut head = RequestHead::new();
        let done = Decoder::new().request(block, LIMITS, &mut head);
        assert!(matches!(done, Err(BlockError::Compression(_))), "{what}: {done:?}");
        assert!(Decoder::new().skip(block).is_err(), "{what}");
        // After a fault of the message, too.
        let mut block = block.to_vec();
        if what != "table larger than allowed" {
            block.splice(0..0, [0x00, 0x01, b'U', 0x00]);
            let done = Decoder::new().request(&block, LIMITS, &mut head);
            assert!(matches!(done, Err(BlockError::Compression(_))), "{what}, later: {done:?}");
        }
    }
}

#[test]
fn table_sizes_change_at_the_start_of_a_block_and_within_what_was_agreed() {
    let (mut decoder, mut fields) = (Decoder::new(), Fields::new());
    let mut take =
        |decoder: &mut Decoder, block: &[u8]| decoder.trailers(block, LIMITS, &mut fields);
    take(&mut decoder, &entering("a", "1")).unwrap();
    assert_eq!(decoder.table().size_and_len(), (34, 1));
    // Down to nothing and up again in one block: what was there is gone.
    take(&mut decoder, &[0x20, 0x3f, 0xe1, 0x1f]).unwrap();
    assert_eq!(decoder.table().size_and_len(), (0, 0));
    assert!(take(&mut decoder, &[0xbe]).is_err());
    // A lower limit must be heeded by the next block, and by no more than it says.
    decoder.set_table_size(1024);
    assert!(take(&mut decoder, &entering("a", "1")).is_err());
    assert!(take(&mut decoder, &[0x3f, 0xe2, 0x07]).is_err());
    take(&mut decoder, &[0x3f, 0xe1, 0x07]).unwrap();
    take(&mut decoder, &entering("a", "1")).unwrap();
    // A higher limit may be ignored.
    decoder.set_table_size(1 << 20);
    take(&mut decoder, &[0xbe]).unwrap();
    take(&mut decoder, &[0x3f, 0xe1, 0xff, 0x3f, 0xbe]).unwrap();
    assert_eq!(decoder.table().max_size(), 1 << 20);
}

/// CVE-2026-47774: crumbs of cookies named by index were not counted, and made 5700 bytes of each byte.
#[test]
fn indexed_fields_do_not_multiply_beyond_the_limits() {
    for name in ["cookie", "x-filler"] {
        let (mut decoder, mut head) = (Decoder::new(), RequestHead::new());
        let filler = "x".repeat(4000);
        let block = [get_with(&[entering(name, &filler)]), vec![0xbe; 16_000]].concat();
        let many = Limits { max_fields: usize::MAX, ..LIMITS };
        assert_eq!(decoder.request(&block, many, &mut head), Err(BlockError::TooLarge));
        assert!(head.fields.capacity() < 4 * LIMITS.max_bytes, "{}", head.fields.capacity());
        // Fields of next to nothing are limited by number, and by the 32 bytes that each counts.
        let block = [get_with(&[entering(name, "")]), vec![0xbe; 16_000]].concat();
        assert_eq!(decoder.request(&block, LIMITS, &mut head), Err(BlockError::TooMany));
        assert_eq!(decoder.request(&block, many, &mut head), Err(BlockError::TooLarge));
        assert!(head.fields.capacity() < 4 * LIMITS.max_bytes, "{}", head.fields.capacity());
        assert_eq!(decoder.request(GET, LIMITS, &mut head), Ok(()));
    }
}

#[test]
fn limits_are_exact() {
    let size = |name: &str, value: &str| name.len() + value.len() + 32;
    let bytes =
        size(":method", "GET") + size(":scheme", "http") + size(":path", "/") + size("a", "1");
    let block = get_with(&[entering("a", "1")]);
    let mut head = RequestHead::new();
    for (max_bytes, max_fields, expected) in [
        (bytes, 4, Ok(())),
        (bytes - 1, 4, Err(BlockError::TooLarge)),
        (bytes, 3, Err(BlockError::TooMany)),
    ] {
        let limits = Limits { max_bytes, max_fields };
        assert_eq!(Decoder::new().request(&block, limits, &mut head), expected);
    }
}

#[test]
fn idle_ends_hold_no_memory() {
    assert_eq!(Decoder::new().table().capacity(), 0);
    let mut encoder = Encoder::new(true, 4096);
    assert_eq!(encoder.table().capacity(), 0);
    // One message does not fill the table either.
    let mut head = ResponseHead::new(200);
    head.fields.append(names::SERVER, b"envoy");
    encoder.response(&head, &mut Vec::new());
    assert_eq!(encoder.table().capacity(), 0);
    assert!(size_of::<Decoder>() <= 112, "{}", size_of::<Decoder>());
    assert!(size_of::<Encoder>() <= 184, "{}", size_of::<Encoder>());
}

fn sample() -> RequestHead {
    let mut head = RequestHead::new();
    head.set_method(b"POST");
    head.set_scheme(b"https");
    head.set_authority(b"shop.example:8443");
    head.set_path(b"/shop.Cart/Add");
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("user-agent", "grpc-rust"),
        ("authorization", "Bearer secret"),
        ("connection", "keep-alive"),
        ("transfer-encoding", "chunked"),
    ] {
        head.fields.append(name, value.as_bytes());
    }
    head
}

#[test]
fn fields_that_repeat_shrink_to_an_index_and_secrets_never_do() {
    let (mut encoder, mut decoder) = (Encoder::new(false, 4096), Decoder::new());
    let mut lens = Vec::new();
    for round in 0..20 {
        let mut head = sample();
        head.fields.append(names::X_REQUEST_ID, format!("{round:08}-4b7a-9a5e").as_bytes());
        let (mut block, mut again) = (Vec::new(), RequestHead::new());
        encoder.request(&head, &mut block);
        decoder.request(&block, LIMITS, &mut again).unwrap();
        for name in ["connection", "transfer-encoding"] {
            head.fields.remove(name);
        }
        assert_eq!(lines(again.iter()), lines(head.iter()));
        assert_eq!(encoder.table().size_and_len(), decoder.table().size_and_len());
        let secret = b"Bearer secret";
        let at = block.windows(secret.len()).position(|part| part == secret).unwrap();
        assert_eq!(block[at - 3..at], [0b0001_1111, 8, 13], "index 23, never to be indexed");
        lens.push(block.len());
    }
    // First in full; second into the table; from then on an index each but for the secret and the id.
    assert!(lens[0] > 120, "{lens:?}");
    let rest = 7 + 3 + "Bearer secret".len() + 3 + "00000000-4b7a-9a5e".len();
    assert!(lens[2..].iter().all(|len| *len <= rest), "{lens:?} {rest}");
}

#[test]
fn size_updates_are_said_once_and_the_smallest_first() {
    let (mut encoder, mut out) = (Encoder::new(false, 4096), Vec::new());
    encoder.set_peer_table_size(65_536);
    encoder.trailers(&Fields::new(), &mut out);
    assert!(out.is_empty(), "our own bound holds: nothing has changed");
    encoder.set_peer_table_size(0);
    encoder.set_peer_table_size(100);
    encoder.trailers(&Fields::new(), &mut out);
    encoder.trailers(&Fields::new(), &mut out);
    assert_eq!(out, [0x20, 0x3f, 0x45]);
    out.clear();
    Encoder::new(false, 0).trailers(&Fields::new(), &mut out);
    assert_eq!(out, [0x20]);
}

#[test]
fn an_extended_connect_and_a_plain_one_survive() {
    let mut head = RequestHead::new();
    head.set_method(b"CONNECT");
    head.set_authority(b"a.example:443");
    for protocol in [&b""[..], b"websocket"] {
        let is_extended = !protocol.is_empty();
        head.set_protocol(protocol);
        head.set_scheme(b"https");
        head.set_path(b"/chat");
        let mut block = Vec::new();
        Encoder::new(true, 4096).request(&head, &mut block);
        let again = request(&block).unwrap();
        assert_eq!(again.protocol(), protocol);
        assert_eq!(again.path(), if is_extended { &b"/chat"[..] } else { b"" });
        assert_eq!(again.authority(), b"a.example:443");
    }
}

/// Names and values that repeat, and some that do not.
fn field() -> impl Strategy<Value = (String, Vec<u8>)> {
    let name = prop_oneof![
        prop::sample::select(vec!["server", "x-a", "x-request-id", "cookie", "age", "grpc-status"])
            .prop_map(str::to_owned),
        "[a-z][a-z0-9-]{0,30}",
    ];
    let value = prop_oneof![
        prop::sample::select(vec!["", "0", "envoy", "gzip, deflate", "application/grpc"])
            .prop_map(|value| value.as_bytes().to_vec()),
        prop::collection::vec(prop_oneof![b'!'..=b'~', 0x80..=0xffu8], 0..60),
        prop::collection::vec(b'a'..=b'z', 400..700),
    ];
    let is_ordinary = |name: &str| {
        !matches!(
            name,
            "te" | "host" | "connection" | "upgrade" | "keep-alive" | "trailer" | "content-length"
        )
    };
    (name, value).prop_filter("names that mean something", move |(name, _)| is_ordinary(name))
}

proptest! {
    /// Whatever sizes either side wants for the table, and whenever: what was sent is what arrives, and the tables agree.
    #[test]
    fn heads_survive(
        huffman: bool,
        most in prop_oneof![Just(0u32), 0u32..300, Just(4096)],
        messages in prop::collection::vec(
            (prop::collection::vec(field(), 0..12), prop::option::weighted(0.2, 0u32..5000)),
            1..30,
        ),
    ) {
        let (mut encoder, mut decoder) = (Encoder::new(huffman, most), Decoder::new());
        for (fields, size) in messages {
            if let Some(size) = size {
                decoder.set_table_size(size);
                encoder.set_peer_table_size(size);
            }
            let mut sent = ResponseHead::new(200);
            for (name, value) in &fields {
                sent.fields.append(name.as_str(), value);
            }
            let (mut block, mut arrived) = (Vec::new(), ResponseHead::default());
            encoder.response(&sent, &mut block);
            let limits = Limits { max_bytes: usize::MAX, max_fields: usize::MAX };
            prop_assert_eq!(decoder.response(&block, limits, &mut arrived), Ok(()));
            prop_assert_eq!(lines(arrived.fields.iter()), lines(sent.fields.iter()));
            for ((name, _), (known, _)) in sent.fields.iter().zip(arrived.fields.iter_names()) {
                prop_assert_eq!(NameRef::from(name), known);
            }
            prop_assert_eq!(encoder.table().size_and_len(), decoder.table().size_and_len());
        }
    }

    /// Whatever arrives, in whatever kind of message: no panic, memory within the limits, and the table is the same whether the
    /// block was wanted or not.
    #[test]
    fn any_bytes_are_taken_or_refused(blocks in prop::collection::vec(block(), 1..8)) {
        let (mut decoder, mut twin) = (Decoder::new(), Decoder::new());
        let limits = Limits { max_bytes: 2000, max_fields: 20 };
        let mut head = RequestHead::new();
        for block in blocks {
            let done = decoder.request(&block, limits, &mut head);
            let is_broken = matches!(done, Err(BlockError::Compression(_)));
            prop_assert_eq!(is_broken, twin.skip(&block).is_err());
            if is_broken {
                break;
            }
            prop_assert_eq!(decoder.table().size_and_len(), twin.table().size_and_len());
            prop_assert!(head.byte_size() <= limits.max_bytes);
        }
    }
}

/// Bytes that have a chance of being a block.
fn block() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(GET.to_vec()),
        (1u8..70).prop_map(|index| vec![0x80 | index]),
        field().prop_map(|(name, value)| entering(&name, &String::from_utf8_lossy(&value))),
        prop::collection::vec(any::<u8>(), 1..6),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}
