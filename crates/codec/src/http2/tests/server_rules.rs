//! What a server makes of frames, rule by rule of RFC 9113.

use super::super::frame::{ACK, END_HEADERS, END_STREAM, ErrorCode, Kind, PADDED, PRIORITY};
use super::super::{Options, hpack};
use super::*;
use crate::event::{ResetCode, StreamId};
use crate::headers::{Fields, names};

const STREAM_ERRORS: fn() -> Options =
    || Options { stream_error_on_invalid_http_message: true, ..Options::default() };

/// Connection errors: the input, and the code of the GOAWAY.
#[test]
fn what_ends_the_connection() {
    use ErrorCode::{Compression, FlowControl, FrameSize, Protocol, StreamClosed};
    let hello = Wire::client;
    let open = || Wire::client().get(1, 0);
    let done = || Wire::client().get(1, END_STREAM);
    let huge = vec![0; 16_385];
    let table: Vec<(&str, Wire, ErrorCode)> = vec![
        ("no preface", Wire::default().raw(b"GET / HTTP/1.1\r\n"), Protocol),
        (
            "preface, then no SETTINGS",
            Wire(PREFACE.to_vec()).frame(Kind::Ping, 0, 0, &[0; 8]),
            Protocol,
        ),
        ("preface, then an ack", Wire(PREFACE.to_vec()).settings_ack(), Protocol),
        ("second ack", hello().settings_ack().settings_ack(), Protocol),
        ("frame too long", hello().data(1, 0, &huge), FrameSize),
        ("unknown frame too long", hello().raw(&[0, 0x40, 1, 0xaa, 0, 0, 0, 0, 0]), FrameSize),
        ("DATA on 0", open().data(0, 0, b"x"), Protocol),
        ("DATA on an idle stream", hello().data(1, 0, b"x"), Protocol),
        ("DATA on an even stream", open().data(2, 0, b"x"), Protocol),
        ("padding as long as the frame", open().data(1, PADDED, &[3, 0, 0]), Protocol),
        ("no room for padding", open().data(1, PADDED, &[]), FrameSize),
        ("HEADERS on 0", hello().get(0, END_STREAM), Protocol),
        ("HEADERS on an even stream", hello().get(2, END_STREAM), Protocol),
        ("HEADERS with a lower number", hello().get(5, 0).get(3, 0), Protocol),
        (
            "HEADERS padded too much",
            hello().frame(Kind::Headers, PADDED | END_HEADERS, 1, &[9, 0x82]),
            Protocol,
        ),
        (
            "HEADERS without room for padding",
            hello().frame(Kind::Headers, PADDED | END_HEADERS, 1, &[]),
            FrameSize,
        ),
        (
            "HEADERS without room for priority",
            hello().frame(Kind::Headers, PRIORITY | END_HEADERS, 1, &[0; 4]),
            FrameSize,
        ),
        (
            "HEADERS that depend on themselves",
            hello().frame(Kind::Headers, PRIORITY | END_HEADERS, 1, &[0, 0, 0, 1, 0]),
            Protocol,
        ),
        ("broken block", hello().frame(Kind::Headers, END_HEADERS, 1, &[0x80]), Compression),
        (
            "unfinished block, other frame",
            hello().frame(Kind::Headers, 0, 1, &[0x82]).frame(Kind::Ping, 0, 0, &[0; 8]),
            Protocol,
        ),
        (
            "unfinished block, other stream",
            hello().frame(Kind::Headers, 0, 1, &[0x82]).frame(
                Kind::Continuation,
                END_HEADERS,
                3,
                &[0x82],
            ),
            Protocol,
        ),
        (
            "unfinished block, unknown frame",
            hello().frame(Kind::Headers, 0, 1, &[0x82]).raw(&[0, 0, 0, 0xaa, 0, 0, 0, 0, 1]),
            Protocol,
        ),
        (
            "CONTINUATION of nothing",
            hello().frame(Kind::Continuation, END_HEADERS, 1, &[0x82]),
            Protocol,
        ),
        (
            "CONTINUATION after the end",
            open().frame(Kind::Continuation, END_HEADERS, 1, &[0x82]),
            Protocol,
        ),
        ("PRIORITY on 0", hello().frame(Kind::Priority, 0, 0, &[0; 5]), Protocol),
        ("PRIORITY of 4", hello().frame(Kind::Priority, 0, 1, &[0; 4]), FrameSize),
        ("PRIORITY on itself", hello().frame(Kind::Priority, 0, 1, &[0, 0, 0, 1, 0]), Protocol),
        ("RST_STREAM on 0", hello().rst(0, 8), Protocol),
        ("RST_STREAM on an idle stream", hello().rst(1, 8), Protocol),
        ("RST_STREAM of 3", open().frame(Kind::RstStream, 0, 1, &[0; 3]), FrameSize),
        ("SETTINGS on a stream", hello().frame(Kind::Settings, 0, 1, &[]), Protocol),
        ("SETTINGS ack with payload", hello().frame(Kind::Settings, ACK, 0, &[0; 6]), FrameSize),
        ("SETTINGS of 5", hello().frame(Kind::Settings, 0, 0, &[0; 5]), FrameSize),
        (
            "PUSH_PROMISE",
            open().frame(Kind::PushPromise, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]),
            Protocol,
        ),
        ("PING on a stream", hello().frame(Kind::Ping, 0, 1, &[0; 8]), Protocol),
        ("PING of 7", hello().frame(Kind::Ping, 0, 0, &[0; 7]), FrameSize),
        ("GOAWAY on a stream", hello().frame(Kind::GoAway, 0, 1, &[0; 8]), Protocol),
        ("GOAWAY of 7", hello().frame(Kind::GoAway, 0, 0, &[0; 7]), FrameSize),
        ("WINDOW_UPDATE of 3", hello().frame(Kind::WindowUpdate, 0, 0, &[0; 3]), FrameSize),
        ("WINDOW_UPDATE by 0", hello().window(0, 0), Protocol),
        ("WINDOW_UPDATE on an idle stream", hello().window(1, 1), Protocol),
        ("connection's window too large", hello().window(0, 0x7fff_ffff), FlowControl),
        (
            "stream's window too large by SETTINGS",
            open().window(1, 0x7000_0000).settings(&[(4, 0x7000_0000)]),
            FlowControl,
        ),
        (
            "no HTTP",
            hello().frame(Kind::Headers, END_HEADERS, 1, &block(&[(":method", "GET")])),
            Protocol,
        ),
        (
            "trailers that end nothing",
            open().frame(Kind::Headers, END_HEADERS, 1, &block(&[("a", "b")])),
            Protocol,
        ),
        ("closed by both", done(), StreamClosed),
    ];
    for (name, wire, code) in table {
        let mut server = Server::new(Options::default());
        let is_last_row = code == StreamClosed;
        let mut said = server.feed(wire);
        if is_last_row {
            let mut out = Vec::new();
            server.codec.encode_head(StreamId(1), &ResponseHead::new(200), true, &mut out);
            said = server.feed(Wire::default().data(1, 0, b"x"));
        }
        assert!(said.last().is_some_and(|last| last.starts_with("fail")), "{name}: {said:?}");
        let sent = server.sent();
        let wanted = format!(" {}", code as u32);
        assert!(
            sent.last().is_some_and(|last| last.starts_with("GOAWAY") && last.ends_with(&wanted)),
            "{name}: {sent:?}"
        );
        assert!(server.codec.must_close(), "{name}");
        assert_eq!(server.feed(Wire::default().get(99, 0)), [""; 0], "{name}: deaf");
    }
}

/// Stream errors: what is said, and the code of the RST_STREAM; the connection goes on.
#[test]
fn what_ends_a_stream() {
    use ErrorCode::{FlowControl, Internal, Protocol, StreamClosed};
    let open = || Wire::default().get(1, 0);
    let half = || Wire::default().get(1, END_STREAM);
    let headers = |flags: u8, block: &[u8]| {
        Wire::default().frame(Kind::Headers, flags | END_HEADERS, 1, block)
    };
    let upload = |length: &str| headers(0, &request(&[("content-length", length)]));
    let many: Vec<(&str, &str)> = vec![("a", "b"); 97];
    let table: Vec<(&str, Wire, ErrorCode)> = vec![
        ("DATA after the end", half().data(1, 0, b"x"), StreamClosed),
        (
            "HEADERS after the end",
            half().frame(Kind::Headers, END_HEADERS | END_STREAM, 1, &block(&[("a", "b")])),
            StreamClosed,
        ),
        ("WINDOW_UPDATE by 0", open().window(1, 0), Protocol),
        ("window too large", open().window(1, 0x7fff_ffff), FlowControl),
        (
            "a window overrun",
            open().data(1, 0, &[0; 16_384]).data(1, 0, &[0; 16_384]).data(1, 0, &[0; 16_384]).data(
                1,
                0,
                &[0; 16_384],
            ),
            FlowControl,
        ),
        (
            "trailers that end nothing",
            open().frame(Kind::Headers, END_HEADERS, 1, &block(&[("a", "b")])),
            Protocol,
        ),
        (
            "pseudo field in trailers",
            open().frame(Kind::Headers, END_HEADERS | END_STREAM, 1, &block(&[(":path", "b")])),
            Protocol,
        ),
        (
            "no path",
            headers(END_STREAM, &block(&[(":method", "GET"), (":scheme", "http")])),
            Protocol,
        ),
        ("upper case", headers(END_STREAM, &request(&[("Aa", "b")])), Protocol),
        ("connection field", headers(END_STREAM, &request(&[("connection", "close")])), Protocol),
        (
            "extended CONNECT",
            headers(
                0,
                &block(&[
                    (":method", "CONNECT"),
                    (":protocol", "websocket"),
                    (":scheme", "http"),
                    (":path", "/"),
                    (":authority", "a"),
                ]),
            ),
            Protocol,
        ),
        (
            "content-length and no body",
            headers(END_STREAM, &request(&[("content-length", "1")])),
            Protocol,
        ),
        ("odd content-length", upload("1x"), Protocol),
        (
            "two content-lengths",
            headers(0, &request(&[("content-length", "1"), ("content-length", "1")])),
            Protocol,
        ),
        ("more than content-length", upload("3").data(1, 0, b"ab").data(1, 0, b"cd"), Protocol),
        ("less than content-length", upload("3").data(1, END_STREAM, b"ab"), Protocol),
        (
            "less than content-length, trailers",
            upload("3").data(1, 0, b"ab").frame(
                Kind::Headers,
                END_HEADERS | END_STREAM,
                1,
                &block(&[("a", "b")]),
            ),
            Protocol,
        ),
        ("too many fields", headers(END_STREAM, &request(&many)), Internal),
    ];
    for (name, wire, code) in table {
        let mut server = Server::greeted(STREAM_ERRORS());
        let said = server.feed(wire);
        assert!(said.last().is_some_and(|last| last.starts_with("broken 1: ")), "{name}: {said:?}");
        assert_eq!(server.sent().last(), Some(&format!("RST 1 {}", code as u32)), "{name}");
        assert!(!server.codec.must_close() && server.codec.is_idle(), "{name}");
        assert_eq!(
            server.codec.send_room(StreamId(1)),
            usize::MAX,
            "{name}: what is sent is dropped"
        );

        // The rest of the stream that is under way is let be; the next stream is as ever.
        let late =
            Wire::default().data(1, END_STREAM, b"late").rst(1, 8).window(1, 5).get(3, END_STREAM);
        assert_eq!(server.feed(late), ["head 3 end"], "{name}");
        assert_eq!(server.sent(), [""; 0], "{name}");
    }
}

#[test]
fn malformed_messages_cost_the_connection_unless_told_otherwise() {
    let mut server = Server::greeted(Options::default());
    let mut input = Wire::default()
        .frame(Kind::Headers, END_HEADERS, 1, &request(&[]))
        .frame(Kind::Headers, END_HEADERS | END_STREAM, 1, &block(&[(":path", "/")]))
        .0;
    let first = server.codec.decode(&input, &mut server.head);
    assert!(matches!(first.event, Event::Head { .. }));
    input.drain(..first.consumed);
    let Event::Error(error) = server.codec.decode(&input, &mut server.head).event else {
        panic!("a pseudo field in trailers");
    };
    assert_eq!(
        (error.stream, error.after_head, error.status, error.close),
        (StreamId(1), true, 400, true)
    );
    assert_eq!(error.details, "http2.violation.of.messaging.rule");
    let counts =
        server.codec.take_counts().map(|counts| (counts.rx_messaging_error, counts.goaway_sent));
    assert_eq!((counts, server.codec.take_counts()), (Some((1, 1)), None));
}

#[test]
fn a_body_of_a_wrong_length_costs_its_stream_in_any_case() {
    let mut server = Server::greeted(Options::default());
    let upload = Wire::default()
        .frame(Kind::Headers, END_HEADERS, 1, &request(&[("content-length", "1")]))
        .data(1, 0, b"ab");
    let said = server.feed(upload);
    assert!(said.last().is_some_and(|last| last.starts_with("broken 1: ")), "{said:?}");
    assert_eq!(server.sent().last().map(String::as_str), Some("RST 1 1"));
    assert!(!server.codec.must_close());
}

#[test]
fn a_request_with_everything() {
    let mut server = Server::new(Options::default());
    let wire = Wire::client()
        .frame(Kind::Priority, 0, 9, &[0, 0, 0, 3, 7])
        .frame(
            Kind::Headers,
            PADDED | PRIORITY,
            1,
            &[&[2, 0x80, 0, 0, 3, 9][..], &[0x83, 0x86], &[0; 2]].concat(),
        )
        .frame(Kind::Continuation, 0, 1, &[0x84])
        .frame(
            Kind::Continuation,
            END_HEADERS,
            1,
            &block(&[(":authority", "a"), ("content-length", "10")]),
        )
        .raw(&[0, 0, 3, 0xee, 0xff, 0, 0, 0, 0, 1, 2, 3])
        .data(1, PADDED, b"\x02hello\0\0")
        .data(1, 0, b"worl")
        .frame(Kind::Ping, 0, 0, b"12345678")
        .data(1, PADDED, b"\x01d\0")
        .frame(Kind::Headers, END_HEADERS | END_STREAM, 1, &block(&[("a", "b")]));
    let said = server.feed(wire);
    assert_eq!(said, ["PeerSettings", "head 1", "data 1 helloworld", "trailers 1"]);
    assert_eq!(server.head.fields.get("a"), Some(&b"b"[..]));
    assert_eq!(server.sent(), ["SETTINGS", "SETTINGS ack", "PING ack", "WINDOW 0 983046"]);
    assert!(!server.codec.is_idle());

    let mut out = Vec::new();
    let mut head = ResponseHead::new(103);
    server.codec.encode_informational(StreamId(1), &head, &mut out);
    head.status = 200;
    server.codec.encode_head(StreamId(1), &head, false, &mut out);
    server.codec.encode_data(StreamId(1), &[b'x'; 20_000], false, &mut out);
    let mut trailers = Fields::new();
    trailers.set(names::GRPC_STATUS, b"0");
    server.codec.encode_trailers(StreamId(1), &trailers, &mut out);
    assert_eq!(
        frames(&out),
        ["HEADERS 1", "HEADERS 1", "DATA 1 16384", "DATA 1 3616", "HEADERS 1 end"]
    );
    assert!(server.codec.is_idle() && !server.codec.must_close());
    out.clear();
    server.codec.encode_data(StreamId(1), b"x", true, &mut out);
    server.codec.reset(StreamId(1), &mut out);
    assert!(out.is_empty(), "it is over");
}

#[test]
fn answers_without_a_body_end_with_their_heads() {
    let head_of = |method: &str| {
        let fields =
            [(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "a")];
        Wire::default().frame(Kind::Headers, END_HEADERS | END_STREAM, 1, &block(&fields))
    };
    for (method, status, wanted) in
        [("HEAD", 200, "HEADERS 1 end"), ("GET", 204, "HEADERS 1 end"), ("GET", 200, "HEADERS 1")]
    {
        let mut server = Server::greeted(Options::default());
        server.feed(head_of(method));
        let mut out = Vec::new();
        server.codec.encode_head(StreamId(1), &ResponseHead::new(status), false, &mut out);
        server.codec.encode_data(StreamId(1), b"body", true, &mut out);
        assert_eq!(frames(&out)[0], wanted, "{method} {status}");
        assert_eq!(frames(&out).len(), if status == 200 && method == "GET" { 2 } else { 1 });
    }
}

#[test]
fn an_answer_before_the_end_of_the_request_cuts_it_short() {
    let mut server = Server::greeted(Options::default());
    assert_eq!(server.feed(Wire::default().get(1, 0).get(3, 0).get(5, 0)).len(), 3);
    let mut out = Vec::new();
    server.codec.encode_head(StreamId(1), &ResponseHead::new(413), true, &mut out);
    assert_eq!(frames(&out), ["HEADERS 1 end", "RST 1 0"]);
    server.codec.encode_head(StreamId(3), &ResponseHead::new(200), false, &mut out);
    out.clear();
    let tail = server.codec.begin_data(StreamId(3), 2, true, &mut out);
    out.extend_from_slice(&b"ab"[..tail.len]);
    server.codec.write_control(&mut out);
    assert_eq!(frames(&out), ["DATA 3 2 end", "RST 3 0"], "after the bytes that the caller writes");
    out.clear();
    server.codec.reset_with(StreamId(5), ResetCode::Refused, &mut out);
    assert_eq!(frames(&out), ["RST 5 7"]);
    let late =
        Wire::default().data(1, 0, b"x").get(3, END_STREAM).data(5, END_STREAM, b"x").get(7, 0);
    assert_eq!(server.feed(late), ["head 7"]);
    assert_eq!(server.codec.take_counts().map(|counts| counts.tx_reset), Some(3));
}

#[test]
fn resets_of_the_peer() {
    let mut server = Server::greeted(Options::default());
    let wire =
        Wire::default().get(1, 0).data(1, 0, b"x").rst(1, 8).get(3, END_STREAM).rst(3, 7).rst(3, 8);
    let said = server.feed(wire);
    assert_eq!(said, ["head 1", "data 1 x", "reset 1 Remote", "head 3 end", "reset 3 Refused"]);
    assert!(server.codec.is_idle() && server.sent().is_empty());
    assert_eq!(server.codec.take_counts().map(|counts| counts.rx_reset), Some(3));

    // Whoever resets a stream and goes on with it is told; the connection goes on.
    let late = Wire::default().data(1, 0, b"x").data(1, 0, b"y").get(3, 0).get(5, 0);
    assert_eq!(server.feed(late), ["head 5"]);
    assert_eq!(server.sent(), ["RST 1 5", "RST 3 5"]);
}

#[test]
fn the_table_is_kept_in_step_by_blocks_of_no_interest() {
    let mut server = Server::greeted(Options { max_concurrent_streams: 1, ..STREAM_ERRORS() });
    let mut encoder = hpack::Encoder::new(true, 4096);
    let mut client_head = RequestHead::new();
    let mut get = |wire: Wire, id: u32, value: &str| {
        client_head.clear();
        client_head.set_method(b"GET");
        client_head.set_scheme(b"http");
        client_head.set_authority(b"a");
        client_head.set_path(b"/");
        client_head.fields.append("custom", value.as_bytes());
        let mut block = Vec::new();
        encoder.request(&client_head, &mut block);
        wire.frame(Kind::Headers, END_HEADERS | END_STREAM, id, &block)
    };
    let mut wire = Wire::default();
    for round in 0..6u32 {
        wire = get(wire, round * 4 + 1, "first");
        wire = get(wire, round * 4 + 3, "refused");
        wire = wire.rst(round * 4 + 1, 8);
    }
    wire = get(wire, 99, "first");
    let said = server.feed(wire);
    assert_eq!(said.iter().filter(|event| event.starts_with("head")).count(), 7);
    assert_eq!(server.head.fields.get("custom"), Some(&b"first"[..]));
    assert_eq!(server.sent().iter().filter(|frame| frame.ends_with(" 7")).count(), 6);
    assert_eq!(server.codec.take_counts().map(|counts| counts.stream_refused_errors), Some(6));
}

#[test]
fn extended_connect() {
    let options = Options { allow_connect: true, ..Options::default() };
    let mut server = Server::new(options);
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/chat"),
        (":authority", "a"),
    ];
    let wire = Wire::client().frame(Kind::Headers, END_HEADERS, 1, &block(&fields));
    assert_eq!(server.feed(wire), ["PeerSettings", "head 1"]);
    assert_eq!(server.head.protocol(), b"websocket");
    let mut out = Vec::new();
    server.codec.encode_head(StreamId(1), &ResponseHead::new(200), false, &mut out);
    server.codec.encode_data(StreamId(1), b"down", true, &mut out);
    let said = server.feed(Wire::default().data(1, 0, b"up").data(1, END_STREAM, b""));
    assert_eq!(said, ["data 1 up", "end 1"], "each direction ends on its own");
    assert!(server.codec.is_idle());
}

#[test]
fn the_end_of_input_cuts_requests_off() {
    let mut server = Server::greeted(Options::default());
    server.feed(Wire::default().get(1, 0).get(3, END_STREAM).get(5, 0));
    let mut said = Vec::new();
    loop {
        let event = server.codec.end_of_input();
        if event == Event::NeedInput {
            break;
        }
        note(&event, &[], &mut said);
    }
    said.sort();
    assert_eq!(said, ["reset 1 ConnectionClosed", "reset 5 ConnectionClosed"]);
    assert!(!server.codec.must_close(), "one is still to be answered");
    let mut out = Vec::new();
    server.codec.encode_head(StreamId(3), &ResponseHead::new(200), true, &mut out);
    assert_eq!((frames(&out), server.codec.must_close()), (vec!["HEADERS 3 end".to_owned()], true));
}

#[test]
fn an_idle_connection_is_small() {
    let mut server = Server::greeted(Options::default());
    server.feed(Wire::default().get(1, END_STREAM));
    server.codec.encode_head(StreamId(1), &ResponseHead::new(200), true, &mut Vec::new());
    assert!(size_of::<ServerCodec>() <= 1024, "{}", size_of::<ServerCodec>());
    assert!(size_of::<ClientCodec>() <= 1024, "{}", size_of::<ClientCodec>());
}
