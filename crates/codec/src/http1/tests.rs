//! Tables of messages, tables of attacks, and the promise that the split of the input changes nothing.

use super::*;
use crate::event::{CodecError, Decoded, Event, ResetReason, StreamId};
use crate::headers::{Fields, Method, RequestHead, ResponseHead, Version, names};

mod attacks;
mod splits;

/// What a decoder said, with pieces of body joined.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Request { line: String, fields: Vec<(String, String)>, end: bool },
    Response { status: u16, fields: Vec<(String, String)>, end: bool },
    Informational(u16),
    Body(Vec<u8>),
    Trailers(Vec<(String, String)>),
    End,
    Reset(ResetReason),
    Error(u16, &'static str),
}

fn pairs(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|(name, value)| (text(name), text(value))).collect()
}

fn request_line(head: &RequestHead) -> String {
    let parts =
        [head.method(), head.scheme(), head.authority(), head.path()].map(String::from_utf8_lossy);
    format!("{} {}|{}|{} {}", parts[0], parts[1], parts[2], parts[3], head.version.as_str())
}

/// Adds an event; joins bodies; ends are said once, apart from the piece that they came with.
fn note(
    said: &mut Vec<Said>,
    event: Event,
    input: &[u8],
    head: impl FnOnce(bool) -> Said,
    fields: &Fields,
) {
    match event {
        Event::NeedInput | Event::Blocked => {}
        Event::Head { end_stream, .. } => said.push(head(end_stream)),
        Event::Informational { .. } => said.push(head(false)),
        Event::Data { range, end_stream, .. } => {
            match said.last_mut() {
                Some(Said::Body(body)) => body.extend_from_slice(&input[range]),
                _ => said.push(Said::Body(input[range].to_vec())),
            }
            if end_stream {
                said.push(Said::End);
            }
        }
        Event::Trailers { .. } => said.push(Said::Trailers(pairs(fields))),
        Event::End { .. } => said.push(Said::End),
        Event::Reset { reason, .. } => said.push(Said::Reset(reason)),
        Event::Error(CodecError { status, details, .. }) => said.push(Said::Error(status, details)),
        Event::Room { .. } | Event::PeerSettings | Event::GoAway | Event::Pong => {
            panic!("{event:?} in HTTP/1")
        }
    }
}

/// Feeds pieces of a stream to a server that answers each request as soon as it is whole.
fn serve(pieces: &[&[u8]], options: Options) -> Vec<Said> {
    let (mut codec, mut head, mut said) =
        (ServerCodec::new(options), RequestHead::new(), Vec::new());
    let mut pending = Vec::new();
    let mut out = Vec::new();
    for piece in pieces {
        pending.extend_from_slice(piece);
        loop {
            let Decoded { consumed, event } = codec.decode(&pending, &mut head);
            let is_over = matches!(
                event,
                Event::Head { end_stream: true, .. }
                    | Event::Data { end_stream: true, .. }
                    | Event::Trailers { .. }
                    | Event::End { .. }
            );
            let waits = matches!(event, Event::NeedInput | Event::Blocked);
            let request =
                |end| Said::Request { line: request_line(&head), fields: pairs(&head.fields), end };
            note(&mut said, event, &pending, request, &head.fields);
            pending.drain(..consumed);
            if is_over {
                codec.encode_head(StreamId(0), &ResponseHead::new(204), true, &mut out);
            }
            if waits {
                break;
            }
        }
    }
    let event = codec.end_of_input();
    note(&mut said, event, &[], |_| Said::End, &Fields::new());
    said
}

/// Feeds pieces of a response to a client that has sent one request.
fn receive(method: &str, pieces: &[&[u8]], options: Options) -> (Vec<Said>, ClientCodec) {
    let (mut codec, mut head, mut said) =
        (ClientCodec::new(options), ResponseHead::default(), Vec::new());
    let mut request = RequestHead::new();
    request.set_method(method.as_bytes());
    request.set_path(b"/");
    request.set_authority(b"a");
    codec.encode_head(&request, true, &mut Vec::new());
    let mut pending = Vec::new();
    for piece in pieces {
        pending.extend_from_slice(piece);
        loop {
            let Decoded { consumed, event } = codec.decode(&pending, &mut head);
            let waits = matches!(event, Event::NeedInput | Event::Blocked | Event::Error(_));
            let is_final = matches!(event, Event::Head { .. });
            let response = |end| match is_final {
                true => Said::Response { status: head.status, fields: pairs(&head.fields), end },
                false => Said::Informational(head.status),
            };
            note(&mut said, event, &pending, response, &head.fields);
            pending.drain(..consumed);
            if waits {
                break;
            }
        }
    }
    (said, codec)
}

fn fields(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn request(line: &str, list: &[(&str, &str)], end: bool) -> Said {
    Said::Request { line: line.to_owned(), fields: fields(list), end }
}

fn response(status: u16, list: &[(&str, &str)], end: bool) -> Said {
    Said::Response { status, fields: fields(list), end }
}

fn body(bytes: &str) -> Said {
    Said::Body(bytes.as_bytes().to_vec())
}

#[test]
fn requests() {
    let table: &[(&str, &str, Vec<Said>)] = &[
        (
            "a plain one",
            "GET /a?b HTTP/1.1\r\nHost: x.example\r\nAccept: */*\r\n\r\n",
            vec![request("GET |x.example|/a?b HTTP/1.1", &[("accept", "*/*")], true)],
        ),
        (
            "a pipeline, with empty lines before",
            "\r\n\r\nGET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
            vec![
                request("GET |a|/1 HTTP/1.1", &[], true),
                request("GET |a|/2 HTTP/1.1", &[], true),
            ],
        ),
        (
            "a length",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            vec![
                request("POST |a|/ HTTP/1.1", &[("content-length", "5")], false),
                body("hello"),
                Said::End,
                request("GET |a|/ HTTP/1.1", &[], true),
            ],
        ),
        (
            "a length of 0",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            vec![request("POST |a|/ HTTP/1.1", &[("content-length", "0")], true)],
        ),
        (
            "chunks, with an extension, and trailers that are dropped",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-A: b\r\n\r\n",
            vec![
                request("POST |a|/ HTTP/1.1", &[("transfer-encoding", "Chunked")], false),
                body("hello!"),
                Said::End,
            ],
        ),
        (
            "absolute form overrides Host",
            "GET HTTP://B.example:80/x HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n",
            vec![request("GET http|B.example:80|/x HTTP/1.1", &[("x", "y")], true)],
        ),
        (
            "absolute form without a path",
            "GET https://b HTTP/1.1\r\nHost: a\r\n\r\n",
            vec![request("GET https|b|/ HTTP/1.1", &[], true)],
        ),
        (
            "asterisk form",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            vec![request("OPTIONS |a|* HTTP/1.1", &[], true)],
        ),
        (
            "spaces around values, empty values, repeated fields",
            "GET / HTTP/1.1\r\nHost:  a \r\nX-A:b\t \r\nX-B: \r\nX-A: c\r\n\r\n",
            vec![request("GET |a|/ HTTP/1.1", &[("x-a", "b"), ("x-b", ""), ("x-a", "c")], true)],
        ),
        (
            "no Host: for others to judge",
            "GET / HTTP/1.1\r\n\r\n",
            vec![request("GET ||/ HTTP/1.1", &[], true)],
        ),
        (
            "HTTP/1.0 does not stay",
            "GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n",
            vec![request("GET ||/ HTTP/1.0", &[], true)],
        ),
        (
            "HTTP/1.0 stays on request",
            "GET /1 HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
            vec![
                request("GET ||/1 HTTP/1.0", &[("connection", "Keep-Alive")], true),
                request("GET ||/2 HTTP/1.0", &[], true),
            ],
        ),
        (
            "nothing is read after connection: close",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            vec![request("GET |a|/ HTTP/1.1", &[("connection", "foo, Close")], true)],
        ),
        (
            "a body cut off",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel",
            vec![
                request("POST |a|/ HTTP/1.1", &[("content-length", "5")], false),
                body("hel"),
                Said::Reset(ResetReason::ConnectionClosed),
            ],
        ),
        (
            "h2c is not offered: an ordinary request",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
            vec![request(
                "GET |a|/ HTTP/1.1",
                &[("connection", "upgrade"), ("upgrade", "h2c")],
                true,
            )],
        ),
    ];
    for (what, input, expected) in table {
        assert_eq!(serve(&[input.as_bytes()], Options::default()), *expected, "{what}");
    }
}

#[test]
fn trailers_are_given_out_where_they_are_enabled() {
    let options = Options { enable_trailers: true, ..Options::default() };
    let input = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n!\r\n0\r\nX-A: b\r\nX-B: c\r\n\r\n";
    let said = serve(&[input], options);
    assert_eq!(said[1..], [body("!"), Said::Trailers(fields(&[("x-a", "b"), ("x-b", "c")]))]);
}

#[test]
fn responses() {
    let table: &[(&str, &str, &str, Vec<Said>, bool)] = &[
        (
            "a length",
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            vec![response(200, &[("content-length", "2")], false), body("hi"), Said::End],
            true,
        ),
        (
            "chunks",
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            vec![response(200, &[("transfer-encoding", "chunked")], false), body("hi"), Said::End],
            true,
        ),
        (
            "no reason phrase",
            "GET",
            "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
            vec![response(200, &[("content-length", "0")], true)],
            true,
        ),
        (
            "informational first",
            "GET",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            vec![Said::Informational(100), Said::Informational(103), response(204, &[], true)],
            true,
        ),
        (
            "no body to HEAD, whatever its length",
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
            vec![response(200, &[("content-length", "9")], true)],
            true,
        ),
        (
            "no body with 304",
            "GET",
            "HTTP/1.1 304 Not Modified\r\n\r\n",
            vec![response(304, &[], true)],
            true,
        ),
        (
            "the server closes",
            "GET",
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            vec![response(200, &[("connection", "close"), ("content-length", "0")], true)],
            false,
        ),
        (
            "HTTP/1.0 closes",
            "GET",
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            vec![response(200, &[("content-length", "0")], true)],
            false,
        ),
        (
            "until the connection closes",
            "GET",
            "HTTP/1.1 200 OK\r\n\r\nsome",
            vec![response(200, &[], false), body("some")],
            false,
        ),
        (
            "bytes after the response",
            "GET",
            "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            vec![response(204, &[], true), Said::Error(502, "http1.codec_error")],
            false,
        ),
        (
            "101 that nobody asked for",
            "GET",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            vec![Said::Error(502, "http1.codec_error")],
            false,
        ),
    ];
    for (what, method, input, expected, is_reusable) in table {
        let (said, codec) = receive(method, &[input.as_bytes()], Options::default());
        assert_eq!(said, *expected, "{what}");
        assert_eq!(codec.is_reusable(), *is_reusable, "{what}");
    }
}

#[test]
fn what_the_end_of_a_connection_means() {
    let cut_off = |after_head| {
        let (details, reason) = ("http1.codec_error", "the connection ended within a message");
        let stream = StreamId(1);
        Event::Error(CodecError { stream, after_head, status: 502, details, reason, close: true })
    };
    let table: &[(&str, Event)] = &[
        ("", Event::Reset { stream: StreamId(1), reason: ResetReason::ConnectionClosed }),
        (
            "HTTP/1.1 103 Early Hints\r\n\r\n",
            Event::Reset { stream: StreamId(1), reason: ResetReason::ConnectionClosed },
        ),
        ("HTTP/1.1 200 OK\r\n\r\nsome", Event::End { stream: StreamId(1) }),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome", cut_off(true)),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n", cut_off(true)),
        ("HTTP/1.1 200 OK\r\n", cut_off(false)),
        ("HTTP/1", cut_off(false)),
        ("HTTP/1.1 204 No Content\r\n\r\n", Event::NeedInput),
    ];
    for (input, expected) in table {
        let (_, mut codec) = receive("GET", &[input.as_bytes()], Options::default());
        assert_eq!(codec.end_of_input(), *expected, "{input:?}");
        assert!(!codec.is_reusable());
    }
}

/// Decodes one request on a fresh server codec.
fn served(input: &str) -> (ServerCodec, RequestHead) {
    let (mut codec, mut head) = (ServerCodec::new(Options::default()), RequestHead::new());
    let decoded = codec.decode(input.as_bytes(), &mut head);
    assert!(matches!(decoded.event, Event::Head { .. }), "{decoded:?}");
    (codec, head)
}

fn response_head(status: u16, list: &[(&str, &str)]) -> ResponseHead {
    let mut head = ResponseHead::new(status);
    for (name, value) in list {
        head.fields.append(*name, value.as_bytes());
    }
    head
}

#[test]
fn response_heads_on_the_wire() {
    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let table: &[(&str, &str, ResponseHead, bool, &str, bool)] = &[
        (
            "length",
            GET,
            response_head(200, &[("content-length", "2")]),
            false,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
            false,
        ),
        (
            "chunked",
            GET,
            response_head(200, &[("x", "y")]),
            false,
            "HTTP/1.1 200 OK\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n",
            false,
        ),
        (
            "empty",
            GET,
            response_head(404, &[]),
            true,
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            false,
        ),
        (
            "204",
            GET,
            response_head(204, &[("content-length", "0")]),
            true,
            "HTTP/1.1 204 No Content\r\n\r\n",
            false,
        ),
        (
            "304",
            GET,
            response_head(304, &[("content-length", "7")]),
            true,
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n",
            false,
        ),
        (
            "the connection's fields are the codec's",
            GET,
            response_head(
                200,
                &[
                    ("connection", "x"),
                    ("transfer-encoding", "gzip"),
                    ("keep-alive", "1"),
                    ("upgrade", "h3"),
                ],
            ),
            true,
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            false,
        ),
        (
            "HEAD",
            "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
            response_head(200, &[("content-length", "7")]),
            true,
            "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n",
            false,
        ),
        (
            "close asked",
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            response_head(200, &[]),
            true,
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            true,
        ),
        (
            "HTTP/1.0 knows no chunks",
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            response_head(200, &[]),
            false,
            "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n",
            false,
        ),
        (
            "HTTP/1.0 kept alive",
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            response_head(200, &[("content-length", "0")]),
            true,
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n",
            false,
        ),
        (
            "before the request's end the connection cannot stay",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
            response_head(413, &[]),
            true,
            "HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            true,
        ),
    ];
    for (what, input, head, end, expected, must_close) in table {
        let (mut codec, _) = served(input);
        let mut out = Vec::new();
        codec.encode_head(StreamId(0), head, *end, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), *expected, "{what}");
        assert_eq!(codec.must_close(), *must_close, "{what}");
    }
}

#[test]
fn response_bodies_on_the_wire() {
    let (mut codec, _) = served("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut out = Vec::new();
    codec.encode_head(StreamId(0), &ResponseHead::new(200), false, &mut out);
    out.clear();
    codec.encode_data(StreamId(0), b"hello", false, &mut out);
    codec.encode_data(StreamId(0), b"", false, &mut out);
    codec.encode_data(StreamId(0), b"!", true, &mut out);
    assert_eq!(out, b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n");
    assert!(codec.is_idle());

    // A body shorter than its length: only the end of the connection tells the client.
    let (mut codec, _) = served("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    codec.encode_head(
        StreamId(0),
        &response_head(200, &[("content-length", "5")]),
        false,
        &mut out,
    );
    codec.encode_data(StreamId(0), b"abc", true, &mut out);
    assert!(codec.must_close());

    // One longer than its length is cut.
    let (mut codec, _) = served("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    codec.encode_head(
        StreamId(0),
        &response_head(200, &[("content-length", "2")]),
        false,
        &mut out,
    );
    out.clear();
    codec.encode_data(StreamId(0), b"abc", true, &mut out);
    assert_eq!((&out[..], codec.must_close()), (&b"ab"[..], false));
}

#[test]
fn a_request_passes_through_as_it_came() {
    let input = "GET /p HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nX-A:  1\r\nConnection: keep-alive\r\nX-B: 2\r\nX-C: 3\r\n\r\n";
    let (_, mut head) = served(input);
    let encode = |head: &RequestHead| {
        let mut out = Vec::new();
        ClientCodec::new(Options::default()).encode_head(head, true, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(
        encode(&head),
        "GET /p HTTP/1.1\r\nhost: a\r\naccept: */*\r\nx-a: 1\r\nx-b: 2\r\nx-c: 3\r\n\r\n"
    );

    head.set_path(b"/q");
    head.set_authority(b"b:1");
    head.fields.set(names::ACCEPT, b"text/\r\nplain");
    head.fields.remove("x-b");
    head.fields.append("x-d", b"4");
    head.fields.append_to("x-d", b", ", b"5");
    assert_eq!(
        encode(&head),
        "GET /q HTTP/1.1\r\nhost: b:1\r\naccept: text/  plain\r\nx-a: 1\r\nx-c: 3\r\nx-d: 4, 5\r\n\r\n"
    );
}

#[test]
fn request_bodies_on_the_wire() {
    let table: &[(&str, &str, bool, &str)] = &[
        ("GET", "", true, ""),
        ("POST", "", true, "content-length: 0\r\n"),
        ("OPTIONS", "", true, "content-length: 0\r\n"),
        ("DELETE", "", true, ""),
        ("POST", "", false, "transfer-encoding: chunked\r\n"),
        ("GET", "", false, "transfer-encoding: chunked\r\n"),
        ("POST", "5", false, "content-length: 5\r\n"),
    ];
    for (method, length, end, expected) in table {
        let mut head = RequestHead::new();
        head.set_method(method.as_bytes());
        head.set_path(b"/");
        head.set_authority(b"a");
        if !length.is_empty() {
            head.fields.set(names::CONTENT_LENGTH, length.as_bytes());
        }
        let mut out = Vec::new();
        ClientCodec::new(Options::default()).encode_head(&head, *end, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!("{method} / HTTP/1.1\r\nhost: a\r\n{expected}\r\n")
        );
    }
}

#[test]
fn an_upgrade_opens_a_tunnel_only_with_101() {
    const ASK: &str =
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let (mut server, mut head) = served(ASK);
    assert!(head.is_upgrade);
    // What the client sends before the answer waits.
    assert_eq!(server.decode(b"early", &mut head).event, Event::Blocked);

    let mut client = ClientCodec::new(Options::default());
    let (mut out, mut answer) = (Vec::new(), ResponseHead::default());
    let stream = client.encode_head(&head, false, &mut out);
    assert_eq!(
        out,
        b"GET /chat HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    );
    assert!(!client.can_send_data());
    let granted =
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(
        client.decode(granted, &mut answer).event,
        Event::Head { stream, end_stream: false }
    );
    assert!(client.can_send_data());
    assert_eq!(
        client.decode(b"raw", &mut answer).event,
        Event::Data { stream, range: 0..3, end_stream: false }
    );

    out.clear();
    server.encode_head(StreamId(0), &answer, false, &mut out);
    assert_eq!(
        out,
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    );
    let early = server.decode(b"early", &mut head);
    assert_eq!(early.event, Event::Data { stream: StreamId(0), range: 0..5, end_stream: false });
    out.clear();
    server.encode_data(StreamId(0), b"raw", false, &mut out);
    assert_eq!(out, b"raw");
    assert_eq!(server.end_of_input(), Event::End { stream: StreamId(0) });
}

#[test]
fn an_upgrade_that_is_answered_otherwise_is_no_tunnel() {
    let (mut server, mut head) =
        served("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let mut client = ClientCodec::new(Options::default());
    let (mut out, mut answer) = (Vec::new(), ResponseHead::default());
    client.encode_head(&head, false, &mut out);
    let refused = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    assert!(matches!(
        client.decode(refused, &mut answer).event,
        Event::Head { end_stream: true, .. }
    ));
    assert!(!client.can_send_data() && !client.is_reusable());

    out.clear();
    server.encode_head(StreamId(0), &answer, true, &mut out);
    assert_eq!(out, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    // What came early is the next request.
    let next = server.decode(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n", &mut head);
    assert_eq!(next.event, Event::Head { stream: StreamId(1), end_stream: true });
}

#[test]
fn connect_opens_a_tunnel_only_with_2xx() {
    let ask = "CONNECT db.example:5432 HTTP/1.1\r\nHost: other\r\n\r\n";
    let (mut server, mut head) = served(ask);
    assert_eq!(
        (head.method_kind(), head.authority(), head.path()),
        (Method::Connect, &b"db.example:5432"[..], &b""[..])
    );
    let mut client = ClientCodec::new(Options::default());
    let (mut out, mut answer) = (Vec::new(), ResponseHead::default());
    client.encode_head(&head, false, &mut out);
    assert_eq!(out, b"CONNECT db.example:5432 HTTP/1.1\r\nhost: db.example:5432\r\n\r\n");
    let granted = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nraw";
    let decoded = client.decode(granted, &mut answer);
    assert!(matches!(decoded.event, Event::Head { end_stream: false, .. }));
    assert!(matches!(
        client.decode(&granted[decoded.consumed..], &mut answer).event,
        Event::Data { .. }
    ));
    out.clear();
    server.encode_head(StreamId(0), &answer, false, &mut out);
    assert_eq!(out, b"HTTP/1.1 200 OK\r\n\r\n");
    assert!(matches!(server.decode(b"x", &mut head).event, Event::Data { .. }));

    let (mut server, mut head) = served(ask);
    out.clear();
    server.encode_head(StreamId(0), &ResponseHead::new(404), true, &mut out);
    assert_eq!(out, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(server.decode(b"", &mut head).event, Event::NeedInput);
}

#[test]
fn draining_says_close_with_the_next_response() {
    let (mut codec, _) = served("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut out = Vec::new();
    codec.start_drain(&mut out);
    assert!(!codec.must_close());
    codec.encode_head(StreamId(0), &ResponseHead::new(200), true, &mut out);
    assert_eq!(out, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    assert!(codec.must_close());

    let mut idle = ServerCodec::new(Options::default());
    idle.start_drain(&mut out);
    assert!(idle.must_close());
}

#[test]
fn an_answer_before_the_requests_end_is_the_last() {
    let (mut codec, _) = served("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
    let mut out = Vec::new();
    codec.encode_head(
        StreamId(0),
        &response_head(200, &[("content-length", "2")]),
        false,
        &mut out,
    );
    assert_eq!(out, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n");
    codec.encode_data(StreamId(0), b"ok", true, &mut out);
    assert!(codec.must_close());
}

#[test]
fn informational_responses_on_the_wire() {
    let (mut codec, _) =
        served("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    let mut out = Vec::new();
    codec.encode_informational(StreamId(0), &ResponseHead::new(100), &mut out);
    codec.encode_informational(StreamId(0), &response_head(103, &[("link", "</x>")]), &mut out);
    assert_eq!(out, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n");
}

#[test]
fn a_warm_head_does_not_grow() {
    let input = b"GET /p HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nX-A: 1\r\n\r\n";
    let (mut codec, mut head, mut out) =
        (ServerCodec::new(Options::default()), RequestHead::new(), Vec::new());
    let mut sizes = Vec::new();
    for _ in 0..3 {
        codec.decode(input, &mut head);
        head.fields.set("x-new", b"value");
        out.clear();
        codec.encode_head(StreamId(0), &ResponseHead::new(204), true, &mut out);
        sizes.push((head.fields.capacity(), out.capacity()));
    }
    assert_eq!(sizes[1], sizes[2]);
}
