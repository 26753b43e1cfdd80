//! Messages that two parsers could read in two ways, and what is too large.

use super::*;

const ERROR: &str = "http1.codec_error";
const URL: &str = "http1.invalid_url";

fn refused(input: &[u8]) -> Option<Said> {
    serve(&[input], Options::default()).into_iter().find(|said| matches!(said, Said::Error(..)))
}

#[test]
fn requests_that_smuggle() {
    let table: &[(&str, u16, &str)] = &[
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "http1.content_length_and_chunked_not_allowed",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            400,
            ERROR,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            400,
            ERROR,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", 400, ERROR),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", 400, ERROR),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", 400, ERROR),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", 400, ERROR),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n", 400, ERROR),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", 400, ERROR),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", 400, ERROR),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            501,
            "http1.invalid_transfer_encoding",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            501,
            "http1.invalid_transfer_encoding",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            501,
            "http1.invalid_transfer_encoding",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            501,
            "http1.invalid_transfer_encoding",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
            501,
            "http1.invalid_transfer_encoding",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n",
            501,
            "http1.invalid_transfer_encoding",
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", 400, ERROR),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "http1.transfer_encoding_not_allowed",
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "http1.transfer_encoding_not_allowed",
        ),
        (
            "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 3\r\n\r\n",
            400,
            "http1.content_length_not_allowed",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n folded\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\tfolded\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\nHost: a\n\n", 400, ERROR),
        ("GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\n", 400, ERROR),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400, ERROR),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\rY: 2\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\0: 1\r\n\r\n", 400, ERROR),
        ("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400, ERROR),
        ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400, ERROR),
        ("GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1\r\nHost: a\r\nX\u{fc}: 1\r\n\r\n", 400, ERROR),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, ERROR),
        ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400, ERROR),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, ERROR),
        ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, ERROR),
        ("GET /\r\n", 400, ERROR),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 426, "low_version"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 426, "low_version"),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", 400, ERROR),
        ("FOO / HTTP/1.1\r\nHost: a\r\n\r\n", 400, ERROR),
        ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 400, ERROR),
        ("\x16\x03\x01\x02", 400, ERROR),
        ("GET a/b HTTP/1.1\r\nHost: a\r\n\r\n", 400, URL),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400, URL),
        ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, URL),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400, URL),
        ("GET http://u@a/x HTTP/1.1\r\nHost: a\r\n\r\n", 400, URL),
        ("GET http://a\\b/x HTTP/1.1\r\nHost: a\r\n\r\n", 400, URL),
        ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", 400, URL),
        ("CONNECT a:b HTTP/1.1\r\nHost: a\r\n\r\n", 400, URL),
        ("CONNECT a:65536 HTTP/1.1\r\nHost: a\r\n\r\n", 400, URL),
        ("CONNECT ::1:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400, URL),
        ("CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n", 400, URL),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n",
            400,
            ERROR,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
            400,
            ERROR,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : 5\r\n\r\n",
            400,
            ERROR,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 5\n\r\n",
            400,
            ERROR,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n", 400, ERROR),
    ];
    for (input, status, details) in table {
        assert_eq!(refused(input.as_bytes()), Some(Said::Error(*status, details)), "{input:?}");
    }
}

#[test]
fn responses_that_smuggle() {
    let table = [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\nx: y\n\n",
        "HTTP/1.1 200 OK\r\nx: y\n\r\n",
        "HTTP/1.1 200 OK\r\nx: y\r\n folded\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx : y\r\n\r\n",
        "HTTP/1.1 099 Low\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n",
    ];
    for input in table {
        let (said, codec) = receive("GET", &[input.as_bytes()], Options::default());
        assert!(matches!(said[..], [Said::Error(502, _)]), "{input:?}: {said:?}");
        assert!(codec.must_close());
    }
    let endless = "HTTP/1.1 102 Processing\r\n\r\n".repeat(1000);
    let (said, _) = receive("GET", &[endless.as_bytes()], Options::default());
    assert!(matches!(said.last(), Some(Said::Error(502, _))));
}

#[test]
fn heads_are_bounded() {
    let head = |fields: usize, len: usize| {
        let mut head = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
        for number in 1..fields {
            head.extend_from_slice(format!("X-{number}: ").as_bytes());
            head.resize(head.len() + len, b'v');
            head.extend_from_slice(b"\r\n");
        }
        [&head[..], b"\r\n"].concat()
    };
    let large = Some(Said::Error(431, "http1.headers_too_large"));
    let many = Some(Said::Error(431, "http1.too_many_headers"));
    let table = [
        (head(100, 1), None),
        (head(101, 1), many.clone()),
        (head(2, 60_000), None),
        (head(2, 62 * 1024), large.clone()),
        (head(50, 2000), large),
        (head(200, 400), many),
    ];
    for (input, expected) in table {
        assert_eq!(refused(&input), expected);
        assert_eq!(
            serve(&input.chunks(1000).collect::<Vec<_>>(), Options::default()).pop(),
            serve(&[&input], Options::default()).pop()
        );
    }
}

#[test]
fn trailers_are_bounded() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n".to_vec();
    let large = [&head[..], b"X: ", &[b'v'; 62 * 1024], b"\r\n\r\n"].concat();
    assert_eq!(refused(&large), Some(Said::Error(431, "http1.trailers_too_large")));
    let many = [&head[..], &b"X: y\r\n".repeat(101), b"\r\n"].concat();
    assert_eq!(refused(&many), Some(Said::Error(431, "http1.too_many_headers")));
}

#[test]
fn an_error_is_answered_and_closes() {
    let (mut codec, mut head, mut out) =
        (ServerCodec::new(Options::default()), RequestHead::new(), Vec::new());
    let input = b"GET / HTTP/1.1\r\nHost : a\r\n\r\n";
    let Decoded { consumed, event: Event::Error(error) } = codec.decode(input, &mut head) else {
        panic!("no error")
    };
    assert_eq!((consumed, error.after_head, error.close), (input.len(), false, true));
    codec.encode_head(error.stream, &ResponseHead::new(error.status), true, &mut out);
    assert_eq!(out, b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert!(codec.must_close());
    assert_eq!(codec.decode(b"GET / HTTP/1.1\r\n\r\n", &mut head).event, Event::NeedInput);
}

#[test]
fn values_can_not_break_out_of_their_line() {
    let mut head = ResponseHead::new(200);
    head.fields.set("x", b"a\r\nset-cookie: b\0");
    head.fields.append_to("x", b",", b"\nc");
    assert_eq!(head.get("x"), Some(&b"a  set-cookie: b , c"[..]));
    assert_eq!(head.version, Version::Http11);
}
