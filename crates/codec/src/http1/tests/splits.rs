//! However a stream of bytes is cut, the decoder says the same.

use proptest::prelude::*;

use super::*;

/// Cuts `input` at these places, each taken modulo its length.
fn cut<'a>(input: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (input.len() + 1)).collect();
    places.sort_unstable();
    let starts = std::iter::once(0).chain(places.iter().copied());
    let ends = places.iter().copied().chain([input.len()]);
    starts.zip(ends).map(|(start, end)| &input[start..end]).collect()
}

fn whitespace() -> impl Strategy<Value = &'static str> {
    prop_oneof![8 => Just(" "), 1 => Just(""), 1 => Just("  "), 1 => Just("\t")]
}

fn line_end() -> impl Strategy<Value = &'static str> {
    prop_oneof![60 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\n ")]
}

fn field() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        10 => "[A-Za-z-]{1,12}",
        2 => Just("Connection".to_owned()),
        1 => Just("Host".to_owned()),
        1 => Just("Content-Length".to_owned()),
        1 => Just("X ".to_owned()),
    ];
    let value = prop_oneof![10 => "[ -~]{0,20}", 2 => Just("keep-alive".to_owned()), 1 => "[\\x00-\\xff]{0,6}"];
    (name, whitespace(), value, line_end())
        .prop_map(|(name, space, value, end)| format!("{name}:{space}{value}{end}"))
}

fn chunked_body() -> impl Strategy<Value = String> {
    let chunk = (
        "[a-z\\r\\n]{1,40}",
        prop_oneof![5 => Just(""), 1 => Just(";x=y"), 1 => Just(" ")],
        line_end(),
    )
        .prop_map(|(data, extension, end)| format!("{:x}{extension}{end}{data}\r\n", data.len()));
    let trailers = prop::collection::vec(field(), 0..3).prop_map(|fields| fields.concat());
    (prop::collection::vec(chunk, 0..4), trailers)
        .prop_map(|(chunks, trailers)| format!("{}0\r\n{trailers}\r\n", chunks.concat()))
}

fn request() -> impl Strategy<Value = String> {
    let method = prop_oneof![4 => Just("GET"), 3 => Just("POST"), 1 => Just("HEAD"), 1 => Just("OPTIONS"), 1 => Just("B\u{1}D")];
    let target = prop_oneof![
        5 => "/[a-z0-9/?=&%]{0,20}",
        1 => Just("http://h.example/x".to_owned()),
        1 => Just("*".to_owned()),
        1 => "[ -~]{1,8}",
    ];
    let body = prop_oneof![
        3 => Just(String::new()),
        2 => "[a-z\\r\\n]{0,40}".prop_map(|body| format!("Content-Length: {}\r\n\r\n{body}", body.len())),
        2 => chunked_body().prop_map(|body| format!("Transfer-Encoding: chunked\r\n\r\n{body}")),
    ];
    (method, target, prop::collection::vec(field(), 0..5), body).prop_map(
        |(method, target, fields, body)| {
            let rest = if body.is_empty() { "\r\n".to_owned() } else { body };
            format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{}{rest}", fields.concat())
        },
    )
}

fn response() -> impl Strategy<Value = String> {
    let informational = prop_oneof![4 => Just(""), 1 => Just("HTTP/1.1 100 Continue\r\n\r\n")];
    let status = prop_oneof![4 => Just("200 OK"), 1 => Just("204 No Content"), 1 => Just("404"), 1 => Just("20 Bad")];
    let body = prop_oneof![
        1 => "[a-z\\r\\n]{0,20}".prop_map(|body| format!("\r\n{body}")),
        2 => "[a-z\\r\\n]{0,40}".prop_map(|body| format!("Content-Length: {}\r\n\r\n{body}", body.len())),
        2 => chunked_body().prop_map(|body| format!("Transfer-Encoding: chunked\r\n\r\n{body}")),
    ];
    (informational, status, prop::collection::vec(field(), 0..5), body).prop_map(
        |(first, status, fields, body)| {
            format!("{first}HTTP/1.1 {status}\r\n{}{body}", fields.concat())
        },
    )
}

#[test]
fn a_bad_method_is_refused_before_its_line_ends() {
    let bad = Said::Error(400, "http1.codec_error");
    for pieces in [&[&b"CON\x88"[..]][..], &[b"CON", b"\x88"], &[b"C", b"ON", b"\x88x"]] {
        assert_eq!(serve(pieces, Options::default()), std::slice::from_ref(&bad));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_read_alike(messages in prop::collection::vec(request(), 1..4), places in prop::collection::vec(0usize..10_000, 0..8)) {
        let input = messages.concat().into_bytes();
        let options = Options { enable_trailers: places.len() % 2 == 0, ..Options::default() };
        let whole = serve(&[&input], options);
        prop_assert_eq!(&serve(&cut(&input, &places), options), &whole);
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        prop_assert_eq!(&serve(&bytes, options), &whole);
    }

    #[test]
    fn requests_read_alike_within_small_limits(message in request(), places in prop::collection::vec(0usize..10_000, 0..8)) {
        let input = message.into_bytes();
        let options = Options { max_head_bytes: 80, max_fields: 4, ..Options::default() };
        prop_assert_eq!(serve(&cut(&input, &places), options), serve(&[&input], options));
    }

    #[test]
    fn responses_read_alike(message in response(), places in prop::collection::vec(0usize..10_000, 0..8), method in prop_oneof![Just("GET"), Just("HEAD")]) {
        let input = message.into_bytes();
        let (whole, _) = receive(method, &[&input], Options::default());
        let (pieces, _) = receive(method, &cut(&input, &places), Options::default());
        prop_assert_eq!(pieces, whole);
    }

    #[test]
    fn arbitrary_bytes_read_alike(input in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), any::<u8>()], 0..60), places in prop::collection::vec(0usize..100, 0..4)) {
        let input = [b"GET / HTTP/1.1\r\n".to_vec(), input].concat();
        prop_assert_eq!(serve(&cut(&input, &places), Options::default()), serve(&[&input], Options::default()));
    }
}
