//! GOAWAY from both ends, and signs of life.

use super::super::Options;
use super::super::frame::{ACK, END_STREAM, Kind};
use super::*;
use crate::event::StreamId;

fn drain(server: &mut Server) -> Vec<String> {
    let mut out = Vec::new();
    server.codec.start_drain(&mut out);
    frames(&out)
}

#[test]
fn a_server_leaves_in_two_steps() {
    let mut server = Server::greeted(Options::default());
    server.feed(Wire::default().get(1, END_STREAM));
    assert_eq!(drain(&mut server), ["GOAWAY 2147483647 0", "PING or.drain"]);
    // What was on its way is still served.
    let crossing = Wire::default().get(3, END_STREAM).frame(Kind::Ping, ACK, 0, b"or.drain");
    assert_eq!(server.feed(crossing), ["head 3 end"]);
    assert_eq!(server.sent(), ["GOAWAY 3 0"]);
    assert_eq!(server.feed(Wire::default().get(5, END_STREAM)), [""; 0]);
    assert_eq!(server.sent(), ["RST 5 7"]);
    assert_eq!(drain(&mut server), [""; 0], "it has said all");
    for id in [1, 3] {
        assert!(!server.codec.must_close());
        server.codec.encode_head(StreamId(id), &ResponseHead::new(200), true, &mut Vec::new());
    }
    assert!(server.codec.must_close());
    assert_eq!(server.codec.take_counts().map(|counts| counts.goaway_sent), Some(2));
}

#[test]
fn a_second_call_does_not_wait_for_the_answer() {
    let mut server = Server::greeted(Options::default());
    drain(&mut server);
    assert!(!server.codec.must_close());
    assert_eq!(drain(&mut server), ["GOAWAY 0 0"]);
    assert!(server.codec.must_close());
    let pong = Wire::default().frame(Kind::Ping, ACK, 0, b"or.drain");
    assert_eq!((server.feed(pong), server.sent()), (vec![], vec![]));
}

#[test]
fn a_client_is_told_which_streams_are_lost() {
    let mut client = Client::asking(Options::default(), 5);
    let said = client.feed(Wire::default().goaway(0x7fff_ffff, 0).goaway(5, 0));
    let refused = ["GoAway", "GoAway", "reset 7 Refused", "reset 9 Refused"];
    let mut sorted = said;
    sorted.sort();
    assert_eq!(sorted, refused);
    assert_eq!((client.codec.free_streams(), client.codec.must_close()), (0, false));
    let rest = Wire::default().ok(1, END_STREAM).ok(3, END_STREAM).ok(5, END_STREAM);
    assert_eq!(client.feed(rest).len(), 3);
    assert!(client.codec.must_close());
}

#[test]
fn a_client_that_leaves_is_still_answered() {
    let mut server = Server::greeted(Options::default());
    let said = server.feed(Wire::default().get(1, 0).goaway(0, 0).data(1, END_STREAM, b"x"));
    assert_eq!(said, ["head 1", "data 1 x", "end 1"]);
    assert!(!server.codec.must_close());
}

#[test]
fn signs_of_life() {
    let mut client = Client::asking(Options::default(), 1);
    let mut out = Vec::new();
    client.codec.ping(&mut out);
    assert_eq!(frames(&out), ["PING or.alive"]);
    let wire = Wire::default()
        .frame(Kind::Ping, ACK, 0, b"or.alive")
        .frame(Kind::Ping, ACK, 0, b"whatever")
        .frame(Kind::Ping, 0, 0, b"theirs..");
    assert_eq!(client.feed(wire), ["Pong"]);
    assert_eq!(client.sent(), ["PING ack"]);
}
