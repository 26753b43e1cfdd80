//! What a client makes of frames.

use super::super::frame::{END_HEADERS, END_STREAM, ErrorCode, Kind};
use super::super::{Options, RFC_WINDOW};
use super::*;
use crate::event::StreamId;

fn status(code: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields = vec![(":status", code)];
    fields.extend_from_slice(more);
    block(&fields)
}

fn head(stream: u32, flags: u8, block: &[u8]) -> Wire {
    Wire::default().frame(Kind::Headers, flags | END_HEADERS, stream, block)
}

#[test]
fn what_ends_the_connection() {
    use ErrorCode::{FrameSize, Protocol};
    let table: Vec<(&str, Wire, ErrorCode)> = vec![
        ("HEADERS on an idle stream", Wire::default().ok(3, 0), Protocol),
        ("HEADERS on an even stream", Wire::default().ok(2, 0), Protocol),
        ("DATA on an idle stream", Wire::default().data(3, 0, b"x"), Protocol),
        (
            "PUSH_PROMISE",
            Wire::default().frame(Kind::PushPromise, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]),
            Protocol,
        ),
        ("ENABLE_PUSH", Wire::default().settings(&[(2, 1)]), Protocol),
        ("no HTTP", head(1, 0, &status("20", &[])), Protocol),
        ("GOAWAY of 4", Wire::default().frame(Kind::GoAway, 0, 0, &[0; 4]), FrameSize),
    ];
    for (name, wire, code) in table {
        let mut client = Client::asking(Options::default(), 1);
        let said = client.feed(wire);
        assert!(said.last().is_some_and(|last| last.starts_with("fail")), "{name}: {said:?}");
        assert_eq!(client.sent(), [format!("GOAWAY 0 {}", code as u32)], "{name}");
        assert!(client.codec.must_close() && client.codec.free_streams() == 0, "{name}");
    }
}

#[test]
fn what_ends_a_stream() {
    let length = [("content-length", "2")];
    let table: Vec<(&str, &str, Wire)> = vec![
        ("DATA before the head", "GET", Wire::default().data(1, 0, b"x")),
        ("1xx at the end", "GET", head(1, END_STREAM, &status("103", &[]))),
        ("101", "GET", head(1, 0, &status("101", &[]))),
        ("no body", "GET", head(1, END_STREAM, &status("200", &length))),
        ("short body", "GET", head(1, 0, &status("200", &length)).data(1, END_STREAM, b"x")),
        ("long body", "GET", head(1, 0, &status("200", &length)).data(1, 0, b"xxx")),
        ("body of HEAD", "HEAD", head(1, 0, &status("200", &length)).data(1, 0, b"xx")),
        ("body of 204", "GET", head(1, 0, &status("204", &[])).data(1, 0, b"xx")),
        ("body of 304", "GET", head(1, 0, &status("304", &length)).data(1, 0, b"xx")),
        ("two heads", "GET", Wire::default().ok(1, 0).ok(1, END_STREAM)),
    ];
    for (name, method, wire) in table {
        let options = Options { stream_error_on_invalid_http_message: true, ..Options::default() };
        let mut client = Client::asking(options, 0);
        client.ask(method, true);
        let said = client.feed(wire);
        assert!(said.last().is_some_and(|last| last.starts_with("broken 1: ")), "{name}: {said:?}");
        assert_eq!(client.sent(), ["RST 1 1"], "{name}");
        assert!(!client.codec.must_close() && client.codec.free_streams() > 0, "{name}");
    }
    let mut wire = Wire::default();
    for _ in 0..101 {
        wire = wire.frame(Kind::Headers, END_HEADERS, 1, &status("103", &[]));
    }
    let mut client = Client::asking(Options::default(), 1);
    assert!(client.feed(wire).last().is_some_and(|last| last.starts_with("fail")));
}

#[test]
fn responses_of_all_kinds() {
    let mut client = Client::new(Options::default());
    let ids = [client.ask("GET", true), client.ask("HEAD", true), client.ask("POST", false)];
    assert_eq!(ids, [1, 3, 5]);
    let wire = Wire::server()
        .frame(Kind::Headers, END_HEADERS, 1, &status("103", &[]))
        .frame(Kind::Headers, END_HEADERS, 1, &status("200", &[("content-length", "3")]))
        .frame(
            Kind::Headers,
            END_HEADERS | END_STREAM,
            3,
            &status("200", &[("content-length", "3")]),
        )
        .data(1, 0, b"ab")
        .ok(5, END_STREAM)
        .data(1, END_STREAM, b"c");
    let said = client.feed(wire);
    assert_eq!(
        said,
        [
            "PeerSettings",
            "informational 1",
            "head 1",
            "head 3 end",
            "data 1 ab",
            "head 5 end",
            "data 1 c",
            "end 1"
        ]
    );
    // The request of 5 is still under way: whoever wants it no more says so.
    let mut out = Vec::new();
    client.codec.encode_data(StreamId(5), b"x", false, &mut out);
    client.codec.reset(StreamId(5), &mut out);
    client.codec.reset(StreamId(1), &mut out);
    assert_eq!(frames(&out), ["SETTINGS ack", "DATA 5 1", "RST 5 8"]);
    assert_eq!(client.codec.free_streams(), 1024);
}

#[test]
fn what_arrives_after_a_cancellation_is_let_be() {
    let mut client = Client::asking(Options::default(), 2);
    client.codec.reset(StreamId(1), &mut Vec::new());
    let late =
        Wire::default().ok(1, 0).data(1, 0, b"late").rst(1, 0).window(1, 9).ok(3, END_STREAM);
    assert_eq!(client.feed(late), ["head 3 end"]);
    assert!(client.sent().is_empty());
}

#[test]
fn the_server_says_how_many_streams() {
    let mut client = Client::new(Options::default());
    assert_eq!(client.codec.free_streams(), 100, "until it has said");
    assert_eq!(client.feed(Wire::default().settings(&[(3, 2)])), ["PeerSettings"]);
    assert_eq!(client.codec.free_streams(), 2);
    client.ask("GET", true);
    client.ask("GET", true);
    assert_eq!(client.codec.free_streams(), 0);
    assert_eq!(client.feed(Wire::default().settings(&[(3, 1)])), ["PeerSettings"]);
    assert_eq!(client.feed(Wire::default().ok(1, END_STREAM)), ["head 1 end"]);
    assert_eq!(client.codec.free_streams(), 0, "one is open, and one is allowed");
    let raised = Wire::default().settings(&[(3, 5)]).settings(&[(3, 5)]);
    assert_eq!(client.feed(raised), ["PeerSettings"], "what changes nothing is not told");
    assert_eq!(client.codec.free_streams(), 4);
    assert!(!client.codec.takes_extended_connect());
    client.feed(Wire::default().settings(&[(8, 1)]));
    assert!(client.codec.takes_extended_connect());
}

#[test]
fn the_first_words_come_first() {
    let mut client = Client::new(Options::default());
    assert!(client.codec.has_control());
    let (mut head, mut out) = (RequestHead::new(), Vec::new());
    head.set_method(b"GET");
    head.set_path(b"/");
    client.codec.encode_head(&head, true, &mut out);
    assert!(out.starts_with(PREFACE) && !client.codec.has_control());
    assert_eq!(frames(&out), [&FIRST_WORDS[..], &["HEADERS 1 end"]].concat());
    let small = Options { initial_connection_window: RFC_WINDOW, ..Options::default() };
    assert_eq!(Client::new(small).sent(), ["SETTINGS"]);
}

#[test]
fn numbers_run_out() {
    let mut client = Client::asking(Options::default(), 1);
    client.codec.pretend_last_stream(0x7fff_fffd);
    assert_eq!(client.codec.free_streams(), 1);
    assert_eq!(client.ask("GET", true), 0x7fff_ffff);
    assert_eq!((client.codec.free_streams(), client.codec.must_close()), (0, false));
    let said = client.feed(Wire::default().ok(0x7fff_ffff, END_STREAM).ok(1, END_STREAM));
    assert_eq!((said.len(), client.codec.must_close()), (2, true));
}
