//! One test for each limit.

use super::super::Options;
use super::super::frame::{END_HEADERS, END_STREAM, Kind};
use super::super::limits::Counts;
use super::*;
use crate::event::{CodecError, StreamId};

/// Feeds frames one by one; the error, and how many it took.
fn until_refused(
    server: &mut Server,
    mut frame: impl FnMut(u32) -> Wire,
) -> Option<(CodecError, u32, Counts)> {
    for round in 0..100_000 {
        let mut input = frame(round).0;
        loop {
            let decoded = server.codec.decode(&input, &mut server.head);
            match decoded.event {
                Event::Error(error) if error.close => {
                    return Some((error, round, server.codec.take_counts().unwrap_or_default()));
                }
                Event::NeedInput => break,
                _ => {
                    input.drain(..decoded.consumed);
                }
            }
        }
    }
    None
}

#[test]
fn frames_without_payload() {
    let mut server = Server::greeted(Options::default());
    server.feed(Wire::default().get(1, 0));
    let refused = until_refused(&mut server, |_| Wire::default().data(1, 0, b""));
    let (error, rounds, counts) = refused.expect("a flood");
    assert_eq!((error.details, rounds), ("http2.inbound_empty_frames_flood", 1));
    assert_eq!(counts.inbound_empty_frames_flood, 1);
    assert_eq!(server.sent(), ["GOAWAY 1 11"]);

    let mut server = Server::greeted(Options::default());
    server.feed(Wire::default().get(1, 0));
    let mixed = until_refused(&mut server, |round| match round % 2 {
        _ if round > 2000 => Wire::default(),
        0 => Wire::default().data(1, 0, b""),
        _ => Wire::default().data(1, 0, b"x"),
    });
    assert_eq!(mixed.map(|(error, ..)| error.details), None);
}

#[test]
fn priorities() {
    let mut server = Server::greeted(Options::default());
    server.feed(Wire::default().get(1, 0));
    let refused =
        until_refused(&mut server, |_| Wire::default().frame(Kind::Priority, 0, 5, &[0; 5]));
    let (error, rounds, counts) = refused.expect("a flood");
    assert_eq!((error.details, rounds), ("http2.inbound_priority_frames_flood", 200));
    assert_eq!(counts.inbound_priority_frames_flood, 1);
}

#[test]
fn window_updates() {
    let mut server = Server::greeted(Options::default());
    server.feed(Wire::default().get(1, END_STREAM));
    let mut out = Vec::new();
    server.codec.encode_head(StreamId(1), &ResponseHead::new(200), false, &mut out);
    server.codec.encode_data(StreamId(1), b"x", false, &mut out);
    let refused = until_refused(&mut server, |_| Wire::default().window(1, 1));
    let (error, rounds, counts) = refused.expect("a flood");
    assert_eq!((error.details, rounds), ("http2.inbound_window_update_frames_flood", 5 + 2 * 11));
    assert_eq!(counts.inbound_window_update_frames_flood, 1);
}

/// What a peer makes us write and does not read.
#[test]
fn acknowledgements_that_nobody_reads() {
    let floods: [fn() -> Wire; 3] = [
        || Wire::default().frame(Kind::Ping, 0, 0, &[0; 8]),
        || Wire::default().settings(&[]),
        || Wire::default().settings(&[(4, 65_535)]),
    ];
    for flood in floods {
        let mut server = Server::greeted(Options::default());
        server.codec.observe(0, 0);
        let refused = until_refused(&mut server, |_| flood());
        let (error, rounds, counts) = refused.expect("a flood");
        assert_eq!((error.details, rounds), ("http2.outbound_control_frames_flood", 1000));
        assert_eq!(counts.outbound_control_flood, 1);

        let mut server = Server::greeted(Options::default());
        let mut out = Vec::new();
        for round in 0..5000 {
            server.codec.observe(round, 0);
            assert!(server.feed(flood()).is_empty());
            out.clear();
            server.codec.write_control(&mut out);
        }
    }
}

#[test]
fn refusals_that_nobody_reads() {
    let mut server = Server::greeted(Options { max_concurrent_streams: 0, ..Options::default() });
    let refused =
        until_refused(&mut server, |round| Wire::default().get(round * 2 + 1, END_STREAM));
    let (error, rounds, _) = refused.expect("a flood");
    assert!(error.details == "http2.outbound_control_frames_flood" && rounds <= 1000);
}

#[test]
fn answers_that_nobody_reads() {
    let options = Options { max_outbound_frames: 100, ..Options::default() };
    let mut server = Server::greeted(options);
    let mut out = b"unsent".to_vec();
    let mut details = None;
    for round in 0..200 {
        server.codec.observe(0, out.len());
        let mut input = Wire::default().get(round * 2 + 1, END_STREAM).0;
        let decoded = server.codec.decode(&input, &mut server.head);
        if let Event::Error(error) = decoded.event {
            details = Some((error.details, round));
            break;
        }
        input.clear();
        server.codec.encode_head(StreamId(round * 2 + 1), &ResponseHead::new(200), true, &mut out);
    }
    assert!(matches!(details, Some(("http2.outbound_frames_flood", 95..=105))), "{details:?}");
}

#[test]
fn rapid_resets() {
    let options = || Options { premature_reset_total_stream_count: u32::MAX, ..Options::default() };
    let mut server = Server::greeted(options());
    let refused = until_refused(&mut server, |round| {
        let id = round * 2 + 1;
        Wire::default().get(id, END_STREAM).rst(id, 8)
    });
    let (error, rounds, counts) = refused.expect("a flood");
    assert_eq!((error.details, rounds), ("http2.stream_reset_flood", 1000));
    assert_eq!(counts.rx_reset, 1001);

    // Thirty a second are what happens.
    let mut server = Server::greeted(options());
    for round in 0..5000u32 {
        server.codec.observe(u64::from(round) * 33_000_000, 0);
        let id = round * 2 + 1;
        assert_eq!(server.feed(Wire::default().get(id, END_STREAM).rst(id, 8)).len(), 2);
    }
}

#[test]
fn requests_taken_back_before_they_are_answered() {
    let back = |round: u32| {
        let id = round * 2 + 1;
        Wire::default().get(id, END_STREAM).rst(id, 8)
    };
    let mut server = Server::greeted(Options::default());
    let refused = until_refused(&mut server, back);
    let (error, rounds, counts) = refused.expect("a flood");
    assert_eq!((error.details, rounds), ("too_many_premature_resets", 249));
    assert_eq!(counts.too_many_premature_resets, 1);

    // Not so those that have waited for a second, those that were answered, or fewer than half.
    for (waits, answered, every) in [(1_000, false, 1), (0, true, 1), (0, false, 3)] {
        let mut server = Server::greeted(Options::default());
        let mut now_ns = 0;
        for round in 0..900 {
            let id = round * 2 + 1;
            server.codec.observe(now_ns, 0);
            assert_eq!(
                server.feed(Wire::default().get(id, END_STREAM)),
                [format!("head {id} end")]
            );
            let is_done = round % every != 0;
            if answered || is_done {
                let head = ResponseHead::new(200);
                server.codec.encode_head(StreamId(id), &head, is_done, &mut Vec::new());
            }
            now_ns += waits * 1_000_000;
            server.codec.observe(now_ns, 0);
            assert!(server.feed(Wire::default().rst(id, 8)).len() <= 1);
            assert!(!server.codec.must_close(), "{round} of {waits} {answered} {every}");
        }
    }
}

#[test]
fn continuations() {
    let mut server = Server::greeted(Options::default());
    server.feed(Wire::default().frame(Kind::Headers, 0, 1, &request(&[])));
    let part = block(&[("a", "b")]);
    let refused =
        until_refused(&mut server, |_| Wire::default().frame(Kind::Continuation, 0, 1, &part));
    let (error, rounds, _) = refused.expect("a flood");
    assert_eq!((error.details, rounds), ("http2.continuation_flood", 64));

    let mut server = Server::greeted(Options::default());
    server.feed(Wire::default().frame(Kind::Headers, 0, 1, &request(&[])));
    let big = vec![0x82; 16_384];
    let refused =
        until_refused(&mut server, |_| Wire::default().frame(Kind::Continuation, 0, 1, &big));
    let (error, rounds, counts) = refused.expect("a block without an end");
    assert_eq!((error.details, rounds, counts.header_overflow), ("http2.headers_too_large", 7, 1));
}

/// A small block that decodes to a big head: fields that refer to one entry of the table, cookies above all.
#[test]
fn hpack_bombs() {
    for (name, field) in [("cookie", "c".repeat(100)), ("x-something", "v".repeat(4000))] {
        let mut server = Server::greeted(Options::default());
        let mut bomb = request(&[]);
        // A literal with indexing, then references to it.
        bomb.push(0x40);
        bomb.push(name.len() as u8);
        bomb.extend_from_slice(name.as_bytes());
        let len = field.len();
        if len < 127 {
            bomb.push(len as u8);
        } else {
            bomb.extend_from_slice(&[
                127,
                ((len - 127) % 128) as u8 | 128,
                ((len - 127) / 128) as u8,
            ]);
        }
        bomb.extend_from_slice(field.as_bytes());
        bomb.resize(bomb.len() + 10_000, 0xbe);
        let wire = Wire::default().frame(Kind::Headers, END_HEADERS | END_STREAM, 1, &bomb);
        let decoded = server.codec.decode(&wire.0, &mut server.head);
        let Event::Error(error) = decoded.event else { panic!("{name}: a bomb goes through") };
        assert!(!error.close && error.status == 431, "{name}: {error:?}");
        assert!(server.head.fields.capacity() < 200 * 1024, "{name}");
        assert_eq!(server.sent(), ["RST 1 2"]);
        assert_eq!(server.codec.take_counts().map(|counts| counts.header_overflow), Some(1));
        assert_eq!(server.feed(Wire::default().get(3, END_STREAM)), ["head 3 end"]);
    }
}

#[test]
fn settings_with_too_much_in_them() {
    let mut server = Server::greeted(Options::default());
    let refused = until_refused(&mut server, |_| Wire::default().settings(&[(0xaaaa, 1); 33]));
    assert_eq!(refused.map(|(error, ..)| error.details), Some("http2.settings_flood"));
}

#[test]
fn streams_at_a_time() {
    let mut server = Server::greeted(Options { max_concurrent_streams: 2, ..Options::default() });
    let said = server.feed(Wire::default().get(1, 0).get(3, 0).get(5, 0).rst(1, 8).get(7, 0));
    assert_eq!(said, ["head 1", "head 3", "reset 1 Remote", "head 7"]);
    assert_eq!(server.sent(), ["RST 5 7"]);
}
