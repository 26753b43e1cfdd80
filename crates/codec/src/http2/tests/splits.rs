//! The same bytes mean the same, however they are cut.

use super::super::Options;
use super::super::frame::{ACK, END_HEADERS, END_STREAM, Kind, PADDED, PRIORITY};
use super::*;

fn server_inputs() -> Vec<Wire> {
    let padded_head =
        [&[3, 0, 0, 0, 5, 1][..], &request(&[("content-length", "6")]), &[0; 3]].concat();
    let everything = Wire::client()
        .frame(Kind::Headers, PADDED | PRIORITY | END_HEADERS, 1, &padded_head)
        .data(1, PADDED, b"\x04abc\0\0\0\0")
        .frame(Kind::Ping, 0, 0, b"12345678")
        .frame(Kind::Headers, 0, 3, &request(&[])[..5])
        .frame(Kind::Continuation, 0, 3, &request(&[])[5..9])
        .frame(Kind::Continuation, END_HEADERS, 3, &request(&[])[9..])
        .raw(&[0, 0, 5, 0x77, 0xff, 0, 0, 0, 1, 1, 2, 3, 4, 5])
        .settings(&[(4, 1000), (3, 7)])
        .data(1, 0, b"def")
        .data(1, PADDED | END_STREAM, b"\x01\0")
        .settings_ack()
        .window(3, 7)
        .window(0, 9)
        .frame(Kind::Priority, 0, 3, &[0; 5])
        .data(3, 0, b"zz")
        .frame(Kind::Headers, END_HEADERS | END_STREAM, 3, &block(&[("t", "1")]))
        .get(5, 0)
        .rst(5, 8)
        .frame(Kind::Ping, ACK, 0, b"or.alive")
        .goaway(0, 0);
    let broken = [
        everything.clone().data(9, 0, b"idle"),
        everything.clone().frame(
            Kind::Headers,
            END_HEADERS | END_STREAM,
            7,
            &block(&[(":method", "GET")]),
        ),
        everything.clone().frame(Kind::Settings, 0, 0, &[0; 7]),
        Wire::default().raw(b"PRI * HTTP/2.0\r\n\r\nSN"),
    ];
    broken.into_iter().chain([everything]).collect()
}

#[test]
fn however_a_servers_input_is_cut() {
    for (number, wire) in server_inputs().into_iter().enumerate() {
        let run = |piece: usize| {
            let mut server = Server::new(Options {
                stream_error_on_invalid_http_message: number == 1,
                ..Options::default()
            });
            let said = feed(|input| server.codec.decode(input, &mut server.head), &wire.0, piece);
            (said, server.sent(), server.codec.take_counts())
        };
        let whole = run(usize::MAX);
        assert!(!whole.0.is_empty());
        for piece in (1..30).chain([100, 200]) {
            assert_eq!(run(piece), whole, "input {number} in pieces of {piece}");
        }
    }
}

#[test]
fn wherever_one_cut_falls() {
    let wire = server_inputs().pop().expect("the last");
    let run = |cut: usize| {
        let mut server = Server::new(Options::default());
        let (first, second) = wire.0.split_at(cut);
        let mut pending = first.to_vec();
        let mut said = Vec::new();
        for more in [second, b""] {
            loop {
                let decoded = server.codec.decode(&pending, &mut server.head);
                note(&decoded.event, &pending, &mut said);
                pending.drain(..decoded.consumed);
                if decoded.event == Event::NeedInput {
                    break;
                }
            }
            pending.extend_from_slice(more);
        }
        (said, server.sent())
    };
    let whole = run(0);
    for cut in 0..=wire.0.len() {
        assert_eq!(run(cut), whole, "cut at {cut}");
    }
}

#[test]
fn however_a_clients_input_is_cut() {
    let wire = Wire::server()
        .frame(Kind::Headers, END_HEADERS, 1, &block(&[(":status", "103"), ("link", "x")]))
        .frame(Kind::Headers, 0, 1, &block(&[(":status", "200")]))
        .frame(Kind::Continuation, END_HEADERS, 1, &block(&[("a", "b")]))
        .settings_ack()
        .data(1, PADDED, b"\x02hello\0\0")
        .ok(3, 0)
        .data(3, 0, b"abc")
        .data(1, 0, b" world")
        .frame(Kind::Headers, END_HEADERS | END_STREAM, 1, &block(&[("grpc-status", "0")]))
        .goaway(3, 0)
        .rst(3, 2);
    let run = |piece: usize| {
        let mut client = Client::new(Options::default());
        for _ in 0..4 {
            client.ask("GET", true);
        }
        let mut said = feed(|input| client.codec.decode(input, &mut client.head), &wire.0, piece);
        said.sort();
        (said, client.sent(), client.codec.free_streams(), client.codec.must_close())
    };
    let whole = run(usize::MAX);
    assert_eq!(whole.0.len(), 12, "{:?}", whole.0);
    for piece in 1..40 {
        assert_eq!(run(piece), whole, "in pieces of {piece}");
    }
}
