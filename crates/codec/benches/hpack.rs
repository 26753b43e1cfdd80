//! Nanoseconds per block of header fields, decoded and encoded, on one core: `cargo bench -p codec --bench hpack`.
#![allow(missing_docs, clippy::print_stdout)]

use std::hint::black_box;

use codec::headers::{RequestHead, ResponseHead};
use codec::http2::hpack::{Decoder, Encoder, Limits};

mod measure;

use measure::measure;

const LIMITS: Limits = Limits { max_bytes: 60 * 1024, max_fields: 100 };

/// A unary gRPC call as a sidecar sees it.
fn grpc() -> RequestHead {
    head(
        "POST",
        "/bookinfo.Reviews/Get",
        &[
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "grpc-go/1.76.0"),
            ("grpc-timeout", "999m"),
            ("x-request-id", "3c5f4a0e-5c62-4b7a-9a5e-1d2f3b4c5d6e"),
        ],
    )
}

/// What a browser asks for a page with.
fn browser() -> RequestHead {
    head(
        "GET",
        "/productpage?u=normal",
        &[
            (
                "user-agent",
                "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
            ),
            (
                "accept",
                "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
            ),
            ("accept-language", "en-US,en;q=0.5"),
            ("accept-encoding", "gzip, deflate, br, zstd"),
            ("cookie", "session=4d3f1c9a7b5e2a60"),
            ("cookie", "theme=dark"),
            ("cookie", "consent=yes"),
            ("x-request-id", "3c5f4a0e-5c62-4b7a-9a5e-1d2f3b4c5d6e"),
        ],
    )
}

fn head(method: &str, path: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::new();
    head.set_method(method.as_bytes());
    head.set_scheme(b"https");
    head.set_authority(b"reviews.default.svc.cluster.local:9080");
    head.set_path(path.as_bytes());
    for (name, value) in fields {
        head.fields.append(*name, value.as_bytes());
    }
    head
}

fn main() {
    for (name, request) in [("gRPC call", grpc()), ("browser", browser())] {
        for (kind, huffman) in [("plain", false), ("Huffman", true)] {
            requests(&format!("{name}, {kind}"), &request, huffman);
        }
    }
    let mut response = ResponseHead::new(200);
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("date", "Sat, 21 Nov 2026 18:00:00 GMT"),
        ("server", "envoy"),
        ("x-envoy-upstream-service-time", "3"),
    ] {
        response.fields.append(name, value.as_bytes());
    }
    let (mut encoder, mut out) = (Encoder::new(true, 4096), Vec::new());
    measure("response: encode, all by index", || {
        out.clear();
        encoder.response(black_box(&response), &mut out);
    });
}

fn requests(name: &str, request: &RequestHead, huffman: bool) {
    // The first block of a connection spells everything out, from the third on all that repeats is an index.
    let mut out = Vec::new();
    measure(&format!("{name}: encode, first of a connection"), || {
        out.clear();
        Encoder::new(huffman, 4096).request(black_box(request), &mut out);
    });
    let (first, mut head) = (out.clone(), RequestHead::new());
    measure(&format!("{name}: decode, first ({} B)", first.len()), || {
        black_box(Decoder::new().request(black_box(&first), LIMITS, &mut head)).ok();
    });
    let (mut encoder, mut decoder) = (Encoder::new(huffman, 4096), Decoder::new());
    measure(&format!("{name}: encode, later"), || {
        out.clear();
        encoder.request(black_box(request), &mut out);
    });
    let mut encoder = Encoder::new(huffman, 4096);
    for _ in 0..3 {
        out.clear();
        encoder.request(request, &mut out);
        decoder.request(&out, LIMITS, &mut head).ok();
    }
    measure(&format!("{name}: decode, later ({} B)", out.len()), || {
        black_box(decoder.request(black_box(&out), LIMITS, &mut head)).ok();
    });
}
