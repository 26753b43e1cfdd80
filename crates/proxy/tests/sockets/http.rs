//! HTTP/1 end to end: connections kept on both sides, failures told as Envoy tells them.

use std::io::{Read, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use proxy::router::config::{RetryOn, RetryPolicy, RoutePolicy};
use proxy::upstream::config::{ClusterConfig, OutlierConfig};

use crate::engine::{Engine, backend, nobody, read_all, wait_until};
use crate::web::{Backend, Client, ok, read_message, route, status};

fn retrying(on: &str, retries: u32) -> RoutePolicy {
    let policy = RetryPolicy {
        on: RetryOn::parse(on).0,
        num_retries: retries,
        base_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(2),
        ..RetryPolicy::default()
    };
    RoutePolicy {
        retry: Some(Arc::new(policy)),
        include_attempt_count_in_response: true,
        include_attempt_count_in_request: true,
        ..RoutePolicy::default()
    }
}

#[test]
fn connections_are_kept_on_both_sides() {
    let engine = Engine::start();
    let backend = Backend::echo();
    let cluster = engine.cluster(&[backend.address], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    for _ in 0..2 {
        let mut client = Client::new(address);
        for path in ["/a", "/b", "/c"] {
            let answer = client.get(path);
            assert_eq!(answer.status(), 200);
            assert_eq!(answer.header("server"), Some("envoy"));
            assert!(answer.header("x-envoy-upstream-service-time").is_some());
            let seen = answer.text();
            assert!(seen.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{seen}");
            assert!(seen.contains("x-forwarded-proto: http\r\n"), "{seen}");
            assert!(seen.contains("x-envoy-expected-rq-timeout-ms: 15000"), "{seen}");
            assert!(seen.contains("x-request-id: "), "{seen}");
        }
    }
    assert_eq!(backend.connections.load(Ordering::SeqCst), 1);
    assert_eq!(engine.counter("http.web.downstream_rq_2xx"), 6);
    assert_eq!(engine.counter("cluster.c0.upstream_rq_200"), 6);
}

#[test]
fn a_pipeline_is_answered_in_order() {
    let engine = Engine::start();
    let backend = Backend::new(|_, request| Some(ok(request.head.split(' ').nth(1).unwrap())));
    let cluster = engine.cluster(&[backend.address], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::new(address);
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    client.send(&(one("/1") + &one("/2") + &one("/3")));
    for path in ["/1", "/2", "/3"] {
        assert_eq!(client.read().text(), path);
    }
}

#[test]
fn a_refused_connect_is_a_503_uf() {
    let engine = Engine::start();
    let cluster = engine.cluster(&[nobody()], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::new(address);
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!(answer.status(), 503);
        let expected = "upstream connect error or disconnect/reset before headers. reset reason: ";
        assert!(answer.text().starts_with(expected), "{}", answer.text());
        assert!(answer.text().contains("remote connection failure"), "{}", answer.text());
    }
}

#[test]
fn no_hosts_is_a_503_uh() {
    let engine = Engine::start();
    let cluster = engine.cluster(&[], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let answer = Client::new(address).get("/");
    assert_eq!((answer.status(), answer.text()), (503, "no healthy upstream"));
}

#[test]
fn a_response_that_does_not_come_is_a_504() {
    let engine = Engine::start();
    let (gone, is_gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let silent = backend(move |mut stream| {
        assert!(read_message(&mut stream).is_some());
        // The attempt is given up: its connection ends.
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        gone.lock().unwrap().send(()).unwrap();
    });
    let cluster = engine.cluster(&[silent], None);
    let policy =
        RoutePolicy { timeout: Some(Duration::from_millis(400)), ..RoutePolicy::default() };
    let address = engine.serve_http(route(cluster, policy), |_| {});
    let mut client = Client::new(address);
    let answer = client.get("/");
    assert_eq!((answer.status(), answer.text()), (504, "upstream request timeout"));
    is_gone.recv_timeout(crate::engine::PATIENCE).unwrap();
    // The client's connection goes on.
    assert_eq!(client.get("/").status(), 504);
}

#[test]
fn what_can_be_retried_is() {
    let engine = Engine::start();
    let backend = Backend::new(|number, request| match number {
        0 => None,
        1 => Some(status(503)),
        _ => Some(ok(&format!("{}\n{}", request.head, String::from_utf8_lossy(&request.body)))),
    });
    let cluster = engine.cluster(&[backend.address], None);
    let address = engine.serve_http(route(cluster, retrying("5xx", 3)), |_| {});
    let mut client = Client::new(address);
    client.send("POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello");
    let answer = client.read();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.header("x-envoy-attempt-count"), Some("3"));
    assert!(answer.text().contains("x-envoy-attempt-count: 3"), "{}", answer.text());
    assert!(answer.text().ends_with("\nhello"), "{}", answer.text());
    assert_eq!(engine.counter("cluster.c0.upstream_rq_retry"), 2);
    assert_eq!(engine.counter("cluster.c0.upstream_rq_retry_success"), 1);
}

#[test]
fn retries_end() {
    let engine = Engine::start();
    let backend = Backend::new(|_, _| Some(status(500)));
    let cluster = engine.cluster(&[backend.address], None);
    let address = engine.serve_http(route(cluster, retrying("5xx", 2)), |_| {});
    assert_eq!(Client::new(address).get("/").status(), 500);
    assert_eq!(backend.requests.load(Ordering::SeqCst), 3);
    assert_eq!(engine.counter("cluster.c0.upstream_rq_retry_limit_exceeded"), 1);
}

#[test]
fn a_full_breaker_answers_at_once() {
    let engine = Engine::start();
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let slow = Backend::new(move |_, _| {
        held.lock().unwrap().recv().unwrap();
        Some(ok("late"))
    });
    let mut config = ClusterConfig::new("c0");
    config.breakers[0].max_requests = 1;
    let cluster = engine.cluster_of(config, &[slow.address], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut first = Client::new(address);
    first.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    while slow.requests.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    let answer = Client::new(address).get("/");
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.header("x-envoy-overloaded"), Some("true"));
    assert!(answer.text().ends_with("reset reason: overflow"), "{}", answer.text());
    release.send(()).unwrap();
    assert_eq!(first.read().text(), "late");
    release.send(()).unwrap();
    assert_eq!(Client::new(address).get("/").status(), 200);
}

#[test]
fn a_host_that_closed_its_connection_costs_no_request() {
    let engine = Engine::start();
    // Every connection serves one request and then closes without a word.
    let (closed, is_closed) = mpsc::channel();
    let closed = Mutex::new(closed);
    let once = backend(move |mut stream| {
        if read_message(&mut stream).is_some() {
            stream.write_all(ok("x").as_bytes()).unwrap();
        }
        drop(stream);
        closed.lock().unwrap().send(()).unwrap();
    });
    let cluster = engine.cluster(&[once], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::new(address);
    for _ in 0..20 {
        assert_eq!(client.get("/").status(), 200);
        is_closed.recv_timeout(crate::engine::PATIENCE).unwrap();
    }
}

#[test]
fn failing_hosts_are_ejected_and_tried_hosts_avoided() {
    let engine = Engine::start();
    let (bad, good) = (Backend::new(|_, _| Some(status(500))), Backend::echo());
    let mut config = ClusterConfig::new("c0");
    let outlier = OutlierConfig { max_ejection_percent: 50, ..OutlierConfig::default() };
    config.outlier = Some(Box::new(outlier));
    config.healthy_panic_threshold = 0.0;
    let cluster = engine.cluster_of(config, &[bad.address, good.address], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::new(address);
    let failed = (0..40).filter(|_| client.get("/").status() == 500).count();
    assert_eq!(failed, 5);
    assert_eq!(
        engine.counter("cluster.c0.outlier_detection.ejections_enforced_consecutive_5xx"),
        1
    );
}

#[test]
fn a_slow_client_holds_a_fast_host_back() {
    const SIZE: usize = 16 << 20;
    let engine = Engine::start();
    let written = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let progress = Arc::clone(&written);
    let big = backend(move |mut stream| {
        while read_message(&mut stream).is_some() {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let chunk = vec![b'x'; 64 << 10];
            for _ in 0..SIZE / chunk.len() {
                stream.write_all(&chunk).unwrap();
                progress.fetch_add(chunk.len(), Ordering::SeqCst);
            }
        }
    });
    let cluster = engine.cluster(&[big], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::new(address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    // The kernel's buffers and the engine's limit take some of it, by far not all.
    let paused = || engine.counter("cluster.c0.upstream_flow_control_paused_reading_total") > 0;
    while !paused() {
        std::thread::yield_now();
    }
    assert!(written.load(Ordering::SeqCst) < SIZE);
    let answer = client.read();
    assert_eq!(answer.body.len(), SIZE);
    assert!(answer.body.iter().all(|byte| *byte == b'x'));
    assert_eq!(client.get("/").body.len(), SIZE);
}

#[test]
fn bodies_go_both_ways_in_chunks() {
    let engine = Engine::start();
    let backend = Backend::new(|_, request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        Some(format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        ))
    });
    let cluster = engine.cluster(&[backend.address], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::new(address);
    let body: String = (0..200_000).map(|n: u32| char::from(b'a' + (n % 26) as u8)).collect();
    for _ in 0..2 {
        client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        for chunk in body.as_bytes().chunks(7_001) {
            client.send(&format!("{:x}\r\n", chunk.len()));
            client.0.write_all(chunk).unwrap();
            client.send("\r\n");
        }
        client.send("0\r\n\r\n");
        let answer = client.read();
        assert_eq!(answer.status(), 200);
        assert!(answer.text() == body, "the body has changed");
    }
}

#[test]
fn a_client_that_leaves_frees_the_host() {
    let engine = Engine::start();
    let (gone, is_gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let silent = backend(move |mut stream| {
        assert!(read_message(&mut stream).is_some());
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
        gone.lock().unwrap().send(()).unwrap();
    });
    let cluster = engine.cluster(&[silent], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::new(address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    while engine.counter("cluster.c0.upstream_rq_total") == 0 {
        std::thread::yield_now();
    }
    drop(client);
    is_gone.recv_timeout(crate::engine::PATIENCE).unwrap();
}

#[test]
fn a_cut_response_is_cut_for_the_client() {
    let engine = Engine::start();
    let cut = backend(|mut stream| {
        assert!(read_message(&mut stream).is_some());
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").unwrap();
    });
    let cluster = engine.cluster(&[cut], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::new(address);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let all = String::from_utf8(read_all(&client.0)).unwrap();
    assert!(all.starts_with("HTTP/1.1 200") && all.ends_with("half"), "{all}");
}

#[test]
fn heads_that_do_not_end_are_timed_out() {
    let engine = Engine::start();
    let backend = Backend::echo();
    let cluster = engine.cluster(&[backend.address], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |http| {
        http.timeouts.request_headers = Some(Duration::from_millis(20));
    });
    let mut client = Client::new(address);
    assert_eq!(client.get("/").status(), 200);
    client.send("GET / HTTP/1.1\r\nho");
    let answer = client.read();
    assert_eq!(answer.status(), 408);
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(read_message(&mut client.0).is_none());
}

#[test]
fn draining_says_so_before_it_closes() {
    let engine = Engine::start();
    let backend = Backend::echo();
    let cluster = engine.cluster(&[backend.address], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let (mut kept, mut fresh) = (Client::new(address), Client::new(address));
    assert_eq!(kept.get("/").header("connection"), None);
    engine.drain();
    let answer = kept.get("/");
    assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")));
    assert!(read_message(&mut kept.0).is_none());
    engine.stop_listening();
    assert_eq!(fresh.get("/").header("connection"), Some("close"));
}

#[test]
fn a_kept_connection_ends_when_it_is_old_enough() {
    let host = Backend::echo();
    let engine = Engine::start();
    let mut config = ClusterConfig::new("c");
    config.http.max_connection_duration = Some(Duration::from_millis(50));
    let cluster = engine.cluster_of(config, &[host.address], None);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    assert_eq!(Client::new(address).get("/").status(), 200);
    // Nobody asks for it any more.
    wait_until(|| engine.counter("cluster.c.upstream_cx_max_duration_reached") == 1);
}
