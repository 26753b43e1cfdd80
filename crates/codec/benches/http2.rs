//! Nanoseconds of HTTP/2 per exchange, both ends or a proxy's, on one core: `cargo bench -p codec --bench http2`.
#![allow(missing_docs, clippy::print_stdout)]

use std::hint::black_box;

use codec::event::{Event, StreamId};
use codec::headers::{Fields, RequestHead, ResponseHead, names};
use codec::http2::{ClientCodec, Options, ServerCodec};

mod measure;

use measure::measure;

/// As [`measure`], of so many bytes of data.
fn measure_data(what: &str, bytes: usize, work: impl FnMut()) {
    let median = measure(what, work);
    println!("{:<56} {:>8.2} GB/s", "", bytes as f64 / median);
}

/// A client and a server with nothing between them, and what they are filled with.
struct Pair {
    client: ClientCodec,
    server: ServerCodec,
    request: RequestHead,
    response: ResponseHead,
    up: Vec<u8>,
    down: Vec<u8>,
    data: Vec<u8>,
}

impl Pair {
    fn new() -> Pair {
        let mut pair = Pair {
            client: ClientCodec::new(Options::default()),
            server: ServerCodec::new(Options::default()),
            request: RequestHead::new(),
            response: ResponseHead::default(),
            up: Vec::new(),
            down: Vec::new(),
            data: vec![7; 16_384],
        };
        pair.server.write_control(&mut pair.down);
        pair.client.write_control(&mut pair.up);
        pair.at_server();
        pair.at_client();
        pair
    }

    /// Decodes what the client has written; the streams that have ended.
    fn at_server(&mut self) -> Option<StreamId> {
        let (mut used, mut ended) = (0, None);
        loop {
            let decoded = self.server.decode(&self.up[used..], &mut self.request);
            used += decoded.consumed;
            match decoded.event {
                Event::NeedInput => break,
                Event::Head { stream, end_stream: true } | Event::End { stream } => {
                    ended = Some(stream);
                }
                Event::Data { stream, range, end_stream } => {
                    self.server.passed_on(stream, range.len());
                    ended = end_stream.then_some(stream).or(ended);
                }
                Event::Error(error) => panic!("{error}"),
                _ => {}
            }
        }
        assert_eq!(used, self.up.len());
        self.up.clear();
        self.server.write_control(&mut self.down);
        ended
    }

    fn at_client(&mut self) {
        let mut used = 0;
        loop {
            let decoded = self.client.decode(&self.down[used..], &mut self.response);
            used += decoded.consumed;
            match decoded.event {
                Event::NeedInput => break,
                Event::Data { stream, range, .. } => self.client.passed_on(stream, range.len()),
                Event::Error(error) => panic!("{error}"),
                _ => {}
            }
        }
        assert_eq!(used, self.down.len());
        self.down.clear();
        self.client.write_control(&mut self.up);
    }
}

fn grpc_request() -> RequestHead {
    let mut head = RequestHead::new();
    head.set_method(b"POST");
    head.set_scheme(b"http");
    head.set_authority(b"greeter.default.svc.cluster.local:50051");
    head.set_path(b"/helloworld.Greeter/SayHello");
    for (name, value) in [
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "grpc-go/1.66.0"),
        ("grpc-timeout", "998m"),
        ("x-request-id", "3c5f4a0e-5c62-4b7a-9a5e-1d2f3b4c5d6e"),
    ] {
        head.fields.append(name, value.as_bytes());
    }
    head
}

fn main() {
    let (request, mut response, mut trailers) =
        (grpc_request(), ResponseHead::new(200), Fields::new());
    response.fields.append("content-type", b"application/grpc");
    trailers.append(names::GRPC_STATUS, b"0");
    trailers.append(names::GRPC_MESSAGE, b"");

    let mut pair = Pair::new();
    measure("gRPC unary, both ends: heads, 2 x 100 B, trailers", || {
        let stream = pair.client.encode_head(&request, false, &mut pair.up);
        pair.client.encode_data(stream, &pair.data[..100], true, &mut pair.up);
        let stream = pair.at_server().unwrap_or_default();
        pair.server.encode_head(stream, &response, false, &mut pair.down);
        pair.server.encode_data(stream, &pair.data[..100], false, &mut pair.down);
        pair.server.encode_trailers(stream, &trailers, &mut pair.down);
        pair.at_client();
    });

    let mut get = RequestHead::new();
    get.set_method(b"GET");
    get.set_scheme(b"http");
    get.set_authority(b"localhost:8080");
    get.set_path(b"/index.html");
    get.fields.append("user-agent", b"b");
    get.fields.append("accept", b"*/*");
    let mut pair = Pair::new();
    let no_content = ResponseHead::new(204);
    measure("small GET answered 204, both ends", || {
        pair.client.encode_head(&get, true, &mut pair.up);
        let stream = pair.at_server().unwrap_or_default();
        pair.server.encode_head(stream, &no_content, true, &mut pair.down);
        pair.at_client();
    });

    let mut pair = Pair::new();
    for _ in 0..90 {
        pair.client.encode_head(&request, false, &mut pair.up);
    }
    pair.at_server();
    measure("the same beside 90 other streams", || {
        pair.client.encode_head(&get, true, &mut pair.up);
        let stream = pair.at_server().unwrap_or_default();
        pair.server.encode_head(stream, &no_content, true, &mut pair.down);
        pair.at_client();
    });

    let mut pair = Pair::new();
    let stream = pair.client.encode_head(&request, false, &mut pair.up);
    pair.at_server();
    measure_data("16 KiB of DATA, both ends, copied into the output", 16_384, || {
        let room = pair.client.send_room(stream).min(pair.data.len());
        pair.client.encode_data(stream, &pair.data[..room], false, &mut pair.up);
        black_box(pair.at_server());
        pair.at_client();
    });
    measure_data("16 KiB of DATA, both ends, bytes left where they are", 16_384, || {
        let tail = pair.client.begin_data(stream, pair.data.len(), false, &mut pair.up);
        let head = std::mem::take(&mut pair.up);
        // The decoder is given the head, then the bytes: never copied together.
        let mut used = 0;
        for mut input in [&head[..], &pair.data[..tail.len]] {
            while !input.is_empty() {
                let decoded = pair.server.decode(input, &mut pair.request);
                input = &input[decoded.consumed..];
                used += decoded.consumed;
                match decoded.event {
                    Event::Data { stream, range, .. } => pair.server.passed_on(stream, range.len()),
                    Event::NeedInput => break,
                    _ => {}
                }
            }
        }
        assert_eq!(used, head.len() + tail.len);
        pair.up = head;
        pair.up.clear();
        pair.server.write_control(&mut pair.down);
        pair.at_client();
        pair.server_hears();
    });
}

impl Pair {
    /// What the client has written besides.
    fn server_hears(&mut self) {
        if !self.up.is_empty() {
            self.at_server();
        }
    }
}
