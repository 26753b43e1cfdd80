//! What clients and upstreams may send that is odd or hostile: what is answered, what is passed on, who is hung up on.

use std::io::Write;
use std::sync::atomic::Ordering;

use proxy::router::config::RoutePolicy;

use crate::engine::{Engine, backend, read_all};
use crate::web::{Backend, Client, read_message, route};

/// After these the client is answered and hung up on, and nothing reaches the upstream.
const REFUSED: &[(&str, u16)] = &[
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n", 501),
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a/b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost : a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n folded\r\n\r\n", 400),
    ("GET / HTTP/1.1\nhost: a\n\n", 400),
    ("GET / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n", 400),
    ("GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("FOO / HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ("GET / HTTP/1.0\r\nhost: a\r\n\r\n", 426),
    ("GET / HTTP/2.0\r\nhost: a\r\n\r\n", 426),
    ("\x16\x03\x01\x02\0\x01", 400),
];

#[test]
fn hostile_requests_are_answered_and_hung_up_on() {
    let engine = Engine::start();
    let backend = Backend::echo();
    let cluster = engine.cluster(&[backend.address], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let many: String = (0..101).map(|number| format!("x-{number}: y\r\n")).collect();
    let large = "v".repeat(62 * 1024);
    let limits = [
        (format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nhost: a\r\nx: {large}\r\n\r\n"), 431),
    ];
    let table = REFUSED.iter().map(|(input, status)| (input.to_string(), *status));
    for (input, status) in table.chain(limits) {
        let mut client = Client::new(address);
        // What is smuggled behind it must not be read as a request.
        client.send(&(input.clone() + "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"));
        let shown = &input[..input.len().min(80)];
        let answer = client.read();
        assert_eq!(answer.status(), status, "{shown:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{shown:?}");
        assert_eq!(read_all(&mut client.0), b"", "{shown:?}");
    }
    assert_eq!(backend.requests.load(Ordering::SeqCst), 0);
    assert_eq!(Client::new(address).get("/").status(), 200);
}

#[test]
fn odd_requests_are_passed_on_in_one_spelling() {
    let engine = Engine::start();
    let backend = Backend::echo();
    let cluster = engine.cluster(&[backend.address], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let table: &[(&str, &[&str], &[&str])] = &[
        (
            "GET HTTP://B.example/x?y HTTP/1.1\r\nHost: a\r\n\r\n",
            &["GET /x?y HTTP/1.1\r\n", "host: B.example\r\n"],
            &["host: a"],
        ),
        (
            "\r\n\r\nGET / HTTP/1.1\r\nHOST:a\r\nX-A:  1 \t\r\nX-A: 2\r\nX-E:\r\n\r\n",
            &["host: a\r\n", "x-a: 1\r\nx-a: 2\r\nx-e: \r\n"],
            &["HOST"],
        ),
        (
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: X-Hop, keep-alive\r\nx-hop: 1\r\nkeep-alive: 5\r\nte: gzip\r\n\r\n",
            &["host: a\r\n"],
            &["x-hop", "keep-alive", "te: ", "connection"],
        ),
        (
            "GET / HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: x\r\n\r\n",
            &["host: a\r\n"],
            &["upgrade", "http2-settings"],
        ),
        (
            "GET / HTTP/1.1\r\nhost: a\r\nx-envoy-retry-on: 5xx\r\nx-envoy-internal: true\r\n\r\n",
            &["host: a\r\n"],
            &["x-envoy-retry-on", "x-envoy-internal"],
        ),
    ];
    for (input, present, absent) in table {
        let mut client = Client::new(address);
        client.send(input);
        let answer = client.read();
        let seen = answer.text();
        assert_eq!(answer.status(), 200, "{input:?}");
        assert!(present.iter().all(|part| seen.contains(part)), "{input:?} became {seen:?}");
        assert!(!absent.iter().any(|part| seen.contains(part)), "{input:?} became {seen:?}");
        // The connection goes on.
        assert_eq!(client.get("/next").status(), 200, "{input:?}");
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let engine = Engine::start();
    let backend = Backend::new(|_, request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        Some(crate::web::ok(&body))
    });
    let cluster = engine.cluster(&[backend.address], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::new(address);
    client.0.set_nodelay(true).unwrap();
    let input = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nx: y\r\n\r\n";
    for byte in input.as_bytes() {
        client.0.write_all(&[*byte]).unwrap();
    }
    assert_eq!(client.read().text(), "hello!");
    assert_eq!(client.get("/").status(), 200);
}

#[test]
fn hostile_responses_are_no_responses() {
    let answers = [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: y\r\n folded\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        "not HTTP at all\r\n\r\n",
    ];
    for answer in answers {
        let engine = Engine::start();
        let address = backend(move |mut stream| {
            while read_message(&mut stream).is_some() {
                // The engine may have hung up already.
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let cluster = engine.cluster(&[address], None);
        let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
        let mut client = Client::new(address);
        let status = client.get("/").status();
        assert!((502..=503).contains(&status), "{status} after {answer:?}");
        let status = client.get("/").status();
        assert!((502..=503).contains(&status), "{status} after {answer:?}, again");
    }
}
