//! How messages and connections end when they do not end as planned: said as Envoy says it, and nobody mistakes a part for
//! the whole.

use std::io::Write;
use std::time::Duration;

use proxy::router::config::RoutePolicy;
use proxy::worker::Message;

use crate::engine::{Engine, backend, read_all};
use crate::web::{Backend, Client, ok, read_message, route};

/// A backend that reads a request's head, says `answer` and closes.
fn says(answer: &'static str) -> std::net::SocketAddr {
    backend(move |mut stream| {
        if read_message(&mut stream).is_some() {
            stream.write_all(answer.as_bytes()).unwrap();
        }
    })
}

#[test]
fn a_response_that_is_cut_off_is_the_hosts_breach_of_the_protocol() {
    let engine = Engine::start();
    let cluster = engine.cluster(&[says("HTTP/1.1 200 OK\r\ncontent-le")], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let answer = Client::new(address).get("/");
    assert_eq!(answer.status(), 502);
    assert!(answer.text().ends_with("reset reason: protocol error"), "{}", answer.text());
    assert_eq!(engine.counter("cluster.c0.upstream_cx_protocol_error"), 1);

    let cluster = engine.cluster(&[says("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart")], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::new(address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let all = String::from_utf8(read_all(&client.0)).unwrap();
    assert!(all.contains("content-length: 9\r\n") && all.ends_with("\r\n\r\npart"), "{all}");
    assert_eq!(engine.counter("cluster.c1.upstream_cx_protocol_error"), 1);

    // Who says nothing at all has not broken it.
    let cluster = engine.cluster(&[says("")], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let answer = Client::new(address).get("/");
    assert!(answer.text().ends_with("reset reason: connection termination"), "{}", answer.text());
    assert_eq!(answer.status(), 503);
}

#[test]
fn an_answer_before_the_requests_end_says_that_it_is_the_last() {
    let engine = Engine::start();
    let hasty = backend(|mut stream| {
        // The head is all it wants to see.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if std::io::Read::read(&mut stream, &mut byte).unwrap() == 0 {
                return;
            }
            head.push(byte[0]);
        }
        stream.write_all(ok("enough").as_bytes()).unwrap();
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let cluster = engine.cluster(&[hasty], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::new(address);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\npart");
    let answer = client.read();
    assert_eq!((answer.status(), answer.text()), (200, "enough"));
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(read_all(&client.0), b"");
}

#[test]
fn a_client_hears_100_once() {
    let engine = Engine::start();
    let eager = backend(|mut stream| {
        while read_message(&mut stream).is_some() {
            let answer = format!("HTTP/1.1 100 Continue\r\n\r\n{}", ok("x"));
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let cluster = engine.cluster(&[eager], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::new(address);
    client.send(
        "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\n",
    );
    assert_eq!(client.read().status(), 100);
    client.send("hi");
    let rest = String::from_utf8(read_all(&client.0)).unwrap();
    assert!(rest.starts_with("HTTP/1.1 200 OK\r\n"), "{rest}");
}

#[test]
fn a_stream_that_lasts_too_long_is_a_504_once_its_request_is_whole() {
    let engine = Engine::start();
    let silent = backend(|mut stream| drop(read_all(&mut stream)));
    let cluster = engine.cluster(&[silent], None);
    let policy = RoutePolicy {
        max_stream_duration: Some(Some(Duration::from_millis(50))),
        ..RoutePolicy::default()
    };
    let address = engine.serve_http(route(cluster, policy), |_| {});
    let answer = Client::new(address).get("/");
    assert_eq!((answer.status(), answer.text()), (504, "downstream duration timeout"));
    let mut client = Client::new(address);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\npart");
    assert_eq!(client.read().status(), 408);
}

#[test]
fn who_fails_health_checks_keeps_no_connection() {
    let engine = Engine::start();
    let cluster = engine.cluster(&[Backend::echo().address], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::new(address);
    assert_eq!(client.get("/").header("connection"), None);
    engine.send(Message::FailHealthChecks(true));
    engine.settle();
    assert_eq!(client.get("/").header("connection"), Some("close"));
    assert_eq!(read_all(&client.0), b"");
    engine.send(Message::FailHealthChecks(false));
    engine.settle();
    assert_eq!(Client::new(address).get("/").header("connection"), None);
}
