use super::*;

const SNI_ALPN: &[u8] = include_bytes!("openssl_sni_alpn.bin");
const TLS13_ONLY: &[u8] = include_bytes!("openssl_tls13_only.bin");
const TLS12_ONLY: &[u8] = include_bytes!("openssl_tls12_only.bin");

fn parse_in_pieces(input: &[u8], piece: usize) -> Result<Option<ClientHello>, HelloError> {
    let mut parser = ClientHelloParser::new();
    for end in (piece..input.len()).step_by(piece) {
        if let Some(hello) = parser.parse(&input[..end])? {
            return Ok(Some(hello));
        }
    }
    parser.parse(input)
}

fn vec16(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), vec16(data)].concat()
}

/// A hello with these extensions, in records of at most `record` bytes.
fn hello(extensions: &[Vec<u8>], record: usize) -> Vec<u8> {
    let mut body = [&[3, 3][..], &[7; 32], &[0], &vec16(&[0x13, 0x01]), &[1, 0]].concat();
    body.extend(vec16(&extensions.concat()));
    let message = [&[1, 0][..], &vec16(&body)].concat();
    message.chunks(record).flat_map(|fragment| [vec![22, 3, 1], vec16(fragment)].concat()).collect()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &vec16(&[&[0][..], &vec16(name)].concat()))
}

#[test]
fn hellos_of_openssl_in_any_pieces() {
    for piece in [1, 2, 3, 5, 64, 10_000] {
        let full = parse_in_pieces(SNI_ALPN, piece).unwrap().unwrap();
        assert_eq!(full.server_name.as_deref(), Some("reviews.default.svc"));
        assert_eq!(full.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(full.versions, [TLS13, TLS12]);

        let new = parse_in_pieces(TLS13_ONLY, piece).unwrap().unwrap();
        assert_eq!((new.server_name, new.alpn, new.versions), (None, vec![], vec![TLS13]));

        let old = parse_in_pieces(TLS12_ONLY, piece).unwrap().unwrap();
        assert_eq!((old.server_name.as_deref(), old.versions), (Some("old.example"), vec![TLS12]));
    }
}

#[test]
fn a_hello_may_span_records() {
    let extensions = [server_name(b"a.example"), extension(43, &[4, 0x1a, 0x1a, 3, 4])];
    for record in [1, 3, 4, 5, 40, 1000] {
        let input = hello(&extensions, record);
        for piece in [1, 7, input.len()] {
            let parsed = parse_in_pieces(&input, piece).unwrap().unwrap();
            assert_eq!(
                (parsed.server_name.as_deref(), parsed.versions),
                (Some("a.example"), vec![TLS13])
            );
        }
    }
}

#[test]
fn what_is_not_a_hello_is_refused() {
    let malformed = |extensions: &[Vec<u8>]| hello(extensions, 1000);
    let table: &[(&str, Vec<u8>)] = &[
        ("http", b"GET / HTTP/1.1\r\n".to_vec()),
        ("another major version", vec![22, 2, 1, 0, 5, 1]),
        ("empty record", vec![22, 3, 1, 0, 0]),
        ("record too long", vec![22, 3, 1, 0x40, 1]),
        ("server hello", vec![22, 3, 1, 0, 5, 2, 0, 0, 1, 0]),
        ("message too long", vec![22, 3, 1, 0, 5, 1, 1, 0, 0, 0]),
        ("alert in the middle", [&hello(&[], 10)[..15], &[21, 3, 3, 0, 2]].concat()),
        ("two server names", malformed(&[server_name(b"a"), server_name(b"b")])),
        ("newline in the name", malformed(&[server_name(b"a\nb")])),
        ("nul in the name", malformed(&[server_name(b"a\0b")])),
        ("empty name", malformed(&[server_name(b"")])),
        ("name too long", malformed(&[server_name(&[b'a'; 256])])),
        ("name cut short", malformed(&[extension(0, &[0, 9, 0])])),
        ("empty protocol", malformed(&[extension(16, &[0, 1, 0])])),
        ("odd versions", malformed(&[extension(43, &[3, 3, 4, 3])])),
    ];
    for (what, input) in table {
        assert!(parse_in_pieces(input, input.len()).is_err(), "{what}");
        assert_eq!(
            parse_in_pieces(input, 1),
            parse_in_pieces(input, input.len()),
            "{what}, byte by byte"
        );
    }
}

#[test]
fn a_hello_is_bounded() {
    let long = hello(&[extension(21, &[0; 60_000])], 1 << 14);
    assert!(parse_in_pieces(&long, long.len()).unwrap().is_some());
    let endless: Vec<u8> = [vec![22, 3, 1, 0, 1, 1], [22, 3, 1, 0, 1, 0].repeat(20_000)].concat();
    assert!(parse_in_pieces(&endless, 1000).is_err());
    let longer = hello(&[extension(21, &[0; 65_480])], 1 << 14);
    assert_eq!(parse_in_pieces(&longer, 1 << 14), Err(HelloError::TooLarge));
    assert_eq!(parse_in_pieces(&longer, longer.len()), Err(HelloError::TooLarge));
}
