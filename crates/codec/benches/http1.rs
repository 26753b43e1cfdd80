//! Nanoseconds per head, decoded and encoded, on one core: `cargo bench -p codec`.
#![allow(missing_docs, clippy::print_stdout)]

use std::hint::black_box;

use codec::event::StreamId;
use codec::headers::{RequestHead, ResponseHead, names};
use codec::http1::{ClientCodec, Options, ServerCodec};

mod measure;

use measure::measure;

const SMALL: &[u8] =
    b"GET /index.html HTTP/1.1\r\nHost: localhost:8080\r\nUser-Agent: b\r\nAccept: */*\r\n\r\n";
const LARGE: &[u8] = b"GET /productpage?u=normal HTTP/1.1\r\nHost: bookinfo.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
Cookie: session=4d3f1c9a7b5e2a60; theme=dark; consent=yes\r\nConnection: keep-alive\r\n\
X-Forwarded-For: 10.1.2.3\r\nX-Request-Id: 3c5f4a0e-5c62-4b7a-9a5e-1d2f3b4c5d6e\r\n\r\n";

fn main() {
    for (name, input) in [("small", SMALL), ("large", LARGE)] {
        let mut head = RequestHead::new();
        let mut out = Vec::new();
        let no_content = ResponseHead::new(204);
        let mut server = ServerCodec::new(Options::default());
        measure(&format!("{name}: decode, answer 204 ({} B)", input.len()), || {
            black_box(server.decode(black_box(input), &mut head));
            out.clear();
            server.encode_head(StreamId(0), &no_content, true, &mut out);
        });
        measure(&format!("{name}: pass the head on"), || {
            out.clear();
            black_box(ClientCodec::new(Options::default()).encode_head(
                black_box(&head),
                true,
                &mut out,
            ));
        });
        let mut server = ServerCodec::new(Options::default());
        measure(&format!("{name}: decode, 4 edits, pass on, answer"), || {
            server.decode(black_box(input), &mut head);
            head.fields.set(names::X_REQUEST_ID, b"3c5f4a0e-5c62-4b7a-9a5e-1d2f3b4c5d6e");
            head.fields.append_to(names::X_FORWARDED_FOR, b",", b"127.0.0.1");
            head.fields.set(names::X_FORWARDED_PROTO, b"http");
            head.fields.remove(names::X_ENVOY_RETRY_ON);
            out.clear();
            ClientCodec::new(Options::default()).encode_head(&head, true, &mut out);
            server.encode_head(StreamId(0), &no_content, true, &mut out);
        });
    }
}
