//! A client and a server with everything at random: sizes, windows, cuts, paces, resets. Nothing may be lost, overrun,
//! mixed up or stuck.

use std::collections::{BTreeMap, VecDeque};

use super::super::{Options, RFC_WINDOW};
use super::*;
use crate::event::StreamId;
use crate::headers::Fields;

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % most.max(1)
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

enum Codec {
    Client(Box<Client>),
    Server(Box<Server>),
}

macro_rules! either {
    ($self:expr, $end:ident => $call:expr) => {
        match $self {
            Codec::Client($end) => $call,
            Codec::Server($end) => $call,
        }
    };
}

/// One direction of a stream at the end that sends it, and the other direction as it arrives.
#[derive(Debug, Default)]
struct Exchange {
    sent: usize,
    total: usize,
    has_trailers: bool,
    sent_all: bool,
    received: usize,
    received_all: bool,
    /// Received and not passed on.
    held: usize,
}

struct Peer {
    codec: Codec,
    streams: BTreeMap<u32, Exchange>,
    /// Written, and not yet at the other end.
    wire: VecDeque<u8>,
    pending: Vec<u8>,
    finished: usize,
    reset: usize,
}

fn pattern(stream: u32, at: usize, from_client: bool) -> u8 {
    (stream as usize * 31 + at * 7 + at / 251 + usize::from(from_client)) as u8
}

impl Peer {
    fn new(codec: Codec) -> Peer {
        let (streams, wire, pending) = Default::default();
        Peer { codec, streams, wire, pending, finished: 0, reset: 0 }
    }

    fn is_client(&self) -> bool {
        matches!(self.codec, Codec::Client(_))
    }

    fn write(&mut self, write: impl FnOnce(&mut Codec, &mut Vec<u8>)) {
        let mut out = vec![];
        write(&mut self.codec, &mut out);
        self.wire.extend(out);
    }

    fn open(&mut self, random: &mut Random) {
        let Codec::Client(client) = &mut self.codec else { return };
        if client.codec.free_streams() == 0 {
            return;
        }
        let exchange = Exchange::planned(random);
        let is_all = exchange.total == 0 && !exchange.has_trailers;
        let mut head = RequestHead::new();
        head.set_method(b"POST");
        head.set_scheme(b"http");
        head.set_authority(b"a");
        head.set_path(b"/");
        head.fields.set_number("content-length", exchange.total as u64);
        head.fields.append("x-odd", &vec![b'o'; random.below(300)]);
        let mut out = vec![];
        let id = client.codec.encode_head(&head, is_all, &mut out).0;
        self.wire.extend(out);
        self.streams.insert(id, Exchange { sent_all: is_all, ..exchange });
    }

    /// Sends some more of one stream.
    fn send(&mut self, id: u32, random: &mut Random) {
        let from_client = self.is_client();
        let Some(exchange) = self.streams.get_mut(&id).filter(|exchange| !exchange.sent_all) else {
            return;
        };
        let stream = StreamId(id);
        let room = either!(&self.codec, end => end.codec.send_room(stream));
        let wanted = (exchange.total - exchange.sent).min(1 + random.below(40_000));
        let len = wanted.min(room);
        let data: Vec<u8> =
            (exchange.sent..exchange.sent + len).map(|at| pattern(id, at, from_client)).collect();
        exchange.sent += len;
        let is_last = exchange.sent == exchange.total;
        let ends = is_last && !exchange.has_trailers;
        exchange.sent_all = is_last;
        let has_trailers = is_last && exchange.has_trailers;
        let by_hand = random.one_in(2);
        self.write(|codec, out| {
            if by_hand {
                send_by_hand(codec, stream, &data, ends, out);
            } else {
                either!(codec, end => end.codec.encode_data(stream, &data, ends, out));
            }
            if has_trailers {
                let mut trailers = Fields::new();
                trailers.set_number("x-sum", data.len() as u64);
                either!(codec, end => end.codec.encode_trailers(stream, &trailers, out));
            }
        });
        self.settle(id);
    }

    /// What has arrived is decoded and checked.
    fn decode(&mut self, random: &mut Random) {
        loop {
            let decoded = match &mut self.codec {
                Codec::Client(end) => end.codec.decode(&self.pending, &mut end.head),
                Codec::Server(end) => end.codec.decode(&self.pending, &mut end.head),
            };
            let is_server = !self.is_client();
            match decoded.event {
                Event::NeedInput => {
                    self.pending.drain(..decoded.consumed);
                    return;
                }
                Event::Head { stream, end_stream } if is_server => {
                    let exchange =
                        Exchange { received_all: end_stream, ..Exchange::planned(random) };
                    let mut head = ResponseHead::new(200);
                    head.fields.set_number("content-length", exchange.total as u64);
                    self.streams.insert(stream.0, exchange);
                    self.write(|codec, out| {
                        if let Codec::Server(end) = codec {
                            end.codec.encode_informational(stream, &ResponseHead::new(103), out);
                            end.codec.encode_head(stream, &head, false, out);
                        }
                    });
                }
                Event::Head { stream, end_stream } => {
                    assert!(!end_stream);
                    assert!(self.streams.contains_key(&stream.0));
                }
                Event::Data { stream, range, end_stream } => {
                    let exchange = self.streams.get_mut(&stream.0).expect("a stream of ours");
                    for (at, byte) in self.pending[range.clone()].iter().enumerate() {
                        assert_eq!(*byte, pattern(stream.0, exchange.received + at, is_server));
                    }
                    exchange.received += range.len();
                    exchange.held += range.len();
                    exchange.received_all |= end_stream;
                    self.settle(stream.0);
                }
                Event::End { stream } | Event::Trailers { stream } => {
                    self.streams.get_mut(&stream.0).expect("a stream of ours").received_all = true;
                    self.settle(stream.0);
                }
                Event::Reset { stream, .. } => {
                    self.streams.remove(&stream.0).expect("a stream of ours");
                    self.reset += 1;
                }
                Event::Informational { .. } | Event::Room { .. } | Event::PeerSettings => {}
                other => panic!("{other:?}"),
            }
            self.pending.drain(..decoded.consumed);
        }
    }

    fn settle(&mut self, id: u32) {
        let is_client = self.is_client();
        // A server that has answered wants no more of the request.
        let is_over =
            |exchange: &Exchange| exchange.sent_all && (exchange.received_all || !is_client);
        if self.streams.get(&id).is_some_and(is_over) {
            self.streams.remove(&id);
            self.finished += 1;
        }
    }

    fn pass_on(&mut self, id: u32, random: &mut Random) {
        let Some(exchange) = self.streams.get_mut(&id) else { return };
        let len = random.below(exchange.held + 1);
        exchange.held -= len;
        either!(&mut self.codec, end => end.codec.passed_on(StreamId(id), len));
    }

    fn reset(&mut self, id: u32) {
        self.streams.remove(&id);
        self.reset += 1;
        self.write(|codec, out| either!(codec, end => end.codec.reset(StreamId(id), out)));
    }

    fn any_stream(&self, random: &mut Random) -> Option<u32> {
        self.streams.keys().nth(random.below(self.streams.len())).copied()
    }
}

/// As a caller does who writes body bytes from where they lie.
fn send_by_hand(codec: &mut Codec, stream: StreamId, data: &[u8], ends: bool, out: &mut Vec<u8>) {
    let mut rest = data;
    loop {
        let tail = either!(codec, end => end.codec.begin_data(stream, rest.len(), ends, out));
        out.extend_from_slice(&rest[..tail.len]);
        rest = &rest[tail.len..];
        if rest.is_empty() {
            return;
        }
    }
}

impl Exchange {
    fn planned(random: &mut Random) -> Exchange {
        let total = match random.below(4) {
            0 => 0,
            1 => random.below(100),
            2 => random.below(20_000),
            _ => random.below(150_000),
        };
        Exchange { total, has_trailers: random.one_in(3), ..Exchange::default() }
    }
}

fn options(random: &mut Random) -> Options {
    let small = [RFC_WINDOW, 500, 5000, 16_384, 200_000];
    Options {
        initial_stream_window: small[random.below(small.len())],
        initial_connection_window: [RFC_WINDOW, 1 << 20][random.below(2)],
        max_concurrent_streams: 1 + random.below(40) as u32,
        header_table_size: [0, 200, 4096, 10_000][random.below(4)],
        huffman: random.one_in(2),
        ..Options::default()
    }
}

fn deliver(from: &mut Peer, to: &mut Peer, now_ns: u64, random: &mut Random) {
    let len = random.below(70_000).min(from.wire.len());
    to.pending.extend(from.wire.drain(..len));
    let unsent = from.wire.len();
    either!(&mut from.codec, end => end.codec.observe(now_ns, unsent));
    to.decode(random);
}

fn simulate(seed: u64) {
    const STREAMS: usize = 60;

    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let client = Codec::Client(Box::new(Client::new(options(&mut random))));
    let server = Codec::Server(Box::new(Server::new(options(&mut random))));
    let mut peers = [Peer::new(client), Peer::new(server)];
    let resets = random.one_in(2);
    for step in 0..400_000 {
        let now_ns = step * 100_000;
        let [client, server] = &mut peers;
        let opened = client.finished + client.reset + client.streams.len();
        if opened >= STREAMS && client.streams.is_empty() && server.streams.is_empty() {
            check_the_end(peers);
            return;
        }
        if opened < STREAMS && random.one_in(8) {
            client.open(&mut random);
        }
        deliver(client, server, now_ns, &mut random);
        deliver(server, client, now_ns, &mut random);
        let peer = &mut peers[random.below(2)];
        if let Some(id) = peer.any_stream(&mut random) {
            match random.below(300) {
                0 if resets => peer.reset(id),
                1..150 => peer.send(id, &mut random),
                _ => peer.pass_on(id, &mut random),
            }
        }
        if random.one_in(3) {
            peer.write(|codec, out| either!(codec, end => end.codec.write_control(out)));
        }
    }
    let left: Vec<_> = peers.iter().map(|peer| &peer.streams).collect();
    panic!("seed {seed} is stuck: {left:?}");
}

/// No stream is left at either end, and no part of a connection's window is lost.
fn check_the_end(mut peers: [Peer; 2]) {
    let mut random = Random(1);
    for _ in 0..20 {
        let [client, server] = &mut peers;
        for peer in [&mut *client, &mut *server] {
            peer.write(|codec, out| either!(codec, end => end.codec.write_control(out)));
        }
        deliver(client, server, u64::MAX, &mut random);
        deliver(server, client, u64::MAX, &mut random);
    }
    for peer in &peers {
        assert!(peer.wire.is_empty() && peer.pending.is_empty());
        let room = either!(&peer.codec, end => end.codec.connection_room());
        assert!(room >= RFC_WINDOW as usize / 2, "{room}");
        match &peer.codec {
            Codec::Server(end) => assert!(end.codec.is_idle()),
            Codec::Client(end) => assert!(end.codec.free_streams() > 0),
        }
    }
}

#[test]
fn nothing_is_lost_or_stuck() {
    (1..=16).for_each(simulate);
}
