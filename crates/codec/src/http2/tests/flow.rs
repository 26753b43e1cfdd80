//! Flow control, both ways.

use super::super::frame::{ACK, END_STREAM, Kind, PADDED};
use super::super::{Options, RFC_WINDOW};
use super::*;
use crate::event::StreamId;

const ONE: StreamId = StreamId(1);
const FULL: [u8; 16_384] = [0; 16_384];

/// A stream with a body under way.
fn uploading(options: Options) -> Server {
    let mut server = Server::greeted(options);
    assert_eq!(server.feed(Wire::default().get(1, 0)), ["head 1"]);
    server
}

fn arrive(server: &mut Server, mut bytes: usize) {
    while bytes > 0 {
        let len = bytes.min(FULL.len());
        let said = server.feed(Wire::default().data(1, 0, &FULL[..len]));
        assert_eq!(said.len(), 1, "{said:?}");
        bytes -= len;
    }
}

#[test]
fn a_window_opens_for_what_was_passed_on() {
    let fixed = Options { max_stream_window: RFC_WINDOW, ..Options::default() };
    let mut server = uploading(fixed);
    arrive(&mut server, 65_535);
    assert_eq!(server.sent(), [""; 0], "nothing on arrival");
    server.codec.passed_on(ONE, 32_767);
    assert!(!server.codec.has_control(), "not worth a frame yet");
    server.codec.passed_on(ONE, 1);
    assert_eq!(server.sent(), ["WINDOW 1 32768"]);
    arrive(&mut server, 32_768);
    server.codec.passed_on(ONE, 100_000);
    assert_eq!(server.sent(), ["WINDOW 1 65535"], "no more than had come");
    let over = Wire::default().data(1, END_STREAM, &FULL).get(3, END_STREAM);
    server.feed(over);
    server.codec.passed_on(ONE, FULL.len());
    assert_eq!(server.sent(), [""; 0], "an ended message needs no room");
}

#[test]
fn padding_is_passed_on_at_once() {
    let fixed = Options { max_stream_window: RFC_WINDOW, ..Options::default() };
    let mut server = uploading(fixed);
    for _ in 0..130 {
        let mut padded = vec![0; 257];
        (padded[0], padded[1]) = (255, b'x');
        server.feed(Wire::default().data(1, PADDED, &padded));
    }
    let sent = server.sent();
    assert!(matches!(&sent[..], [update] if update.starts_with("WINDOW 1 ")), "{sent:?}");
}

#[test]
fn bytes_of_streams_that_are_over_do_not_use_up_the_connection() {
    let small = Options { initial_connection_window: RFC_WINDOW, ..Options::default() };
    let mut server = Server::greeted(small);
    let mut opened = 0u64;
    for round in 0..20 {
        let id = round * 2 + 1;
        server.feed(Wire::default().get(id, 0).data(id, 0, &FULL));
        server.codec.reset(StreamId(id), &mut Vec::new());
        server.codec.passed_on(StreamId(id), FULL.len());
        let said = server.feed(Wire::default().data(id, END_STREAM, &FULL));
        assert!(said.is_empty(), "{said:?}");
        for update in server.sent() {
            let increment = update.strip_prefix("WINDOW 0 ").and_then(|text| text.parse().ok());
            opened += increment.unwrap_or(0u64);
        }
    }
    assert!((20 * 32_768 - 32_768..=20 * 32_768).contains(&opened), "{opened}");
}

#[test]
fn a_lower_window_holds_once_the_peer_knows() {
    let low = Options { initial_stream_window: 10, ..Options::default() };
    let mut server = Server::new(low);
    let said = server.feed(Wire::client().get(1, 0).data(1, 0, &[b'x'; 20]));
    assert_eq!(said.len(), 3, "it has not heard yet: {said:?}");
    let said = server.feed(Wire::default().settings_ack().get(3, 0).data(3, 0, &[b'x'; 11]));
    assert_eq!(said, ["head 3", "broken 3: a window is overrun"]);
    server.sent();
    server.codec.passed_on(ONE, 20);
    assert_eq!(server.sent(), ["PING or.probe", "WINDOW 1 20"]);
}

#[test]
fn what_may_be_sent() {
    let mut server = Server::greeted(Options::default());
    server.feed(Wire::default().settings(&[(4, 100)]).get(1, END_STREAM).get(3, END_STREAM));
    assert_eq!((server.codec.send_room(ONE), server.codec.connection_room()), (100, 65_535));
    let mut out = Vec::new();
    server.codec.encode_head(ONE, &ResponseHead::new(200), false, &mut out);
    let tail = server.codec.begin_data(ONE, 150, true, &mut out);
    assert_eq!((tail.len, server.codec.send_room(ONE)), (100, 0), "it did not fit, nor end");
    assert_eq!(server.codec.begin_data(ONE, 50, true, &mut out).len, 0);
    let before = out.len();
    server.codec.encode_data(ONE, b"", false, &mut out);
    assert_eq!(out.len(), before, "nothing to say");

    assert_eq!(server.feed(Wire::default().window(1, 20).window(3, 1)), ["room 1", "room 3"]);
    assert_eq!((server.codec.send_room(ONE), server.codec.send_room(StreamId(3))), (20, 101));
    server.feed(Wire::default().settings(&[(4, 0)]));
    assert_eq!(server.codec.send_room(ONE), 0, "80 less than nothing");
    server.feed(Wire::default().window(1, 81));
    assert_eq!(server.codec.send_room(ONE), 1);
    server.sent();
    out.clear();
    server.codec.encode_data(ONE, b"x", false, &mut out);
    assert_eq!((frames(&out), server.codec.send_room(ONE)), (vec!["DATA 1 1".to_owned()], 0));
    server.codec.encode_data(ONE, b"", true, &mut out);
    assert_eq!(frames(&out)[1], "DATA 1 0 end", "an end needs no room");
}

#[test]
fn the_connection_is_shared() {
    let mut server = Server::greeted(Options::default());
    let wire = Wire::default()
        .settings(&[(4, 100_000), (5, 50_000)])
        .get(1, END_STREAM)
        .get(3, END_STREAM);
    server.feed(wire);
    let mut out = Vec::new();
    server.codec.encode_head(ONE, &ResponseHead::new(200), false, &mut out);
    out.clear();
    server.codec.encode_data(ONE, &[0; 65_535], false, &mut out);
    assert_eq!(frames(&out), ["DATA 1 50000", "DATA 1 15535"]);
    assert_eq!((server.codec.send_room(ONE), server.codec.send_room(StreamId(3))), (0, 0));
    assert_eq!(server.feed(Wire::default().window(0, 7)), ["room 0"]);
    assert_eq!((server.codec.send_room(ONE), server.codec.connection_room()), (7, 7));
    assert_eq!(server.feed(Wire::default().window(0, 100_000)), ["room 0"]);
    assert_eq!(server.feed(Wire::default().window(0, 1)), [""; 0], "nobody has waited for it");
}

/// A bulk stream over a way that takes time: everything allowed is sent before an opening arrives.
fn grown_over_a_way_of(way_ns: u64) -> (usize, usize) {
    let mut server = uploading(Options::default());
    let mut credit = 65_535;
    let mut connection_credit = 1 << 20;
    let mut most_held = 0;
    for round in 0..200 {
        server.codec.observe(round * way_ns, 0);
        // All that the client may send is under way when the first of it is passed on.
        let burst = credit.min(connection_credit);
        let mut left = burst;
        let mut opened = Vec::new();
        while left > 0 {
            let len = left.min(FULL.len());
            arrive(&mut server, len);
            left -= len;
            most_held = most_held.max(len);
            server.codec.passed_on(ONE, len);
            opened.extend(server.sent());
        }
        (credit, connection_credit) = (credit - burst, connection_credit - burst);
        for frame in opened {
            let mut words = frame.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("WINDOW"), Some("1"), Some(by)) => credit += by.parse().unwrap_or(0),
                (Some("WINDOW"), Some("0"), Some(by)) => {
                    connection_credit += by.parse().unwrap_or(0)
                }
                (Some("PING"), ..) => {
                    server.codec.observe((round + 1) * way_ns, 0);
                    server.feed(Wire::default().frame(Kind::Ping, ACK, 0, b"or.probe"));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    (credit, connection_credit)
}

#[test]
fn windows_grow_while_they_are_what_holds_the_peer_up() {
    let (stream, connection) = grown_over_a_way_of(20_000_000);
    assert!((2 << 20..=4 << 20).contains(&stream), "{stream}");
    assert!((4 << 20..=16 << 20).contains(&connection), "{connection}");
    // On a short way a small window is as fast.
    let (stream, connection) = grown_over_a_way_of(300_000);
    assert!((70_000..=157_286).contains(&stream), "{stream}");
    assert!((1 << 19..=1 << 20).contains(&connection), "{connection}");
}

/// The same way, and a reader that takes what it takes: the window stays as it was.
#[test]
fn a_slow_reader_gets_no_more() {
    let mut server = uploading(Options::default());
    let mut credit = 65_535usize;
    for round in 0..500 {
        server.codec.observe(round * 20_000_000, 0);
        arrive(&mut server, credit);
        credit = 0;
        server.codec.passed_on(ONE, 4_000);
        for frame in server.sent() {
            match frame.strip_prefix("WINDOW 1 ") {
                Some(by) => credit += by.parse::<usize>().unwrap_or(0),
                None => {
                    server.feed(Wire::default().frame(Kind::Ping, ACK, 0, b"or.probe"));
                }
            }
        }
        assert!(credit <= 65_535);
    }
}

#[test]
fn streams_that_nobody_reads_do_not_hold_up_the_others() {
    let mut server = Server::greeted(Options::default());
    let mut wire = Wire::default();
    // Fifteen of sixteen shares of the connection's window are stuck.
    for id in (1..30).step_by(2) {
        wire = wire.get(id, 0);
        for _ in 0..3 {
            wire = wire.data(id, 0, &FULL);
        }
        wire = wire.data(id, 0, &FULL[..16_000]);
    }
    server.feed(wire);
    server.feed(Wire::default().get(31, 0));
    let mut opened = 0;
    for _ in 0..100 {
        let said = server.feed(Wire::default().data(31, 0, &FULL));
        assert_eq!(said.len(), 1, "{said:?}");
        server.codec.passed_on(StreamId(31), FULL.len());
        opened += server.sent().iter().filter(|frame| frame.starts_with("WINDOW 0")).count();
    }
    assert!(opened > 0);
}

#[test]
fn long_heads_follow_the_peers_frame_size() {
    let mut server = Server::greeted(Options::default());
    server.feed(Wire::default().get(1, END_STREAM));
    let mut head = ResponseHead::new(200);
    head.fields.append("a", &[b'\\'; 40_000]);
    let mut out = Vec::new();
    server.codec.encode_head(ONE, &head, true, &mut out);
    let (first, rest) = (frames(&out)[0].clone(), frames(&out)[1..].to_vec());
    assert_eq!(first, "HEADERS 1 end");
    assert!(rest.len() >= 2 && rest.iter().all(|frame| frame == "Continuation 1"), "{rest:?}");
    let mut client = Client::asking(Options::default(), 1);
    assert_eq!(client.feed(Wire(out)), ["head 1 end"]);
    assert_eq!(client.head.fields.get("a").map(<[u8]>::len), Some(40_000));
}
