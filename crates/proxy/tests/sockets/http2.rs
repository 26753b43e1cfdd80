//! HTTP/2 on either side of the engine, and on both: every pairing, windows, good-byes, refusals, tunnels.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use codec::event::{Event, ResetCode, ResetReason, StreamId};
use codec::headers::{Fields, RequestHead, ResponseHead};
use codec::http2;
use proxy::http::config::{Http2Keepalive, UpgradeConfig};
use proxy::route_table::config::PathMatch;
use proxy::router::config::{ConnectConfig, RoutePolicy};
use proxy::upstream::config::{ClusterConfig, ClusterRef, UpstreamProtocol};

use crate::engine::{Authority, Engine, PATIENCE, backend, connect};
use crate::peer::{Client, Host, host, host_with, request, serve_requests};
use crate::web::{Backend, read_message, route, route_for};

/// A cluster of that protocol.
fn cluster(engine: &Engine, protocol: UpstreamProtocol, host: SocketAddr) -> ClusterRef {
    cluster_of(engine, host, |config| config.http.protocol = protocol)
}

fn cluster_of(
    engine: &Engine,
    host: SocketAddr,
    adjust: impl FnOnce(&mut ClusterConfig),
) -> ClusterRef {
    let mut config = ClusterConfig::new("c");
    config.http.protocol = UpstreamProtocol::Http2;
    adjust(&mut config);
    engine.cluster_of(config, &[host], None)
}

/// An engine between a listener that takes every version and a host of HTTP/2.
fn to_http2(host: SocketAddr) -> (Engine, SocketAddr) {
    let engine = Engine::start();
    let cluster = cluster(&engine, UpstreamProtocol::Http2, host);
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    (engine, address)
}

/// Answers every request with what it was, and trailers where it had some.
fn echo(_: usize, host: &mut Host) {
    serve_requests(host, |host, stream, head, body, trailers| {
        let mut answer = ResponseHead::new(200);
        answer.fields.append("x-method", head.method());
        answer.fields.append("x-path", head.path());
        answer.fields.append("x-authority", head.authority());
        for (name, value) in head.fields.iter() {
            if name == b"cookie" || name == b"te" {
                answer.fields.append(&[b"x-", name].concat()[..], value);
            }
        }
        let is_head = head.method() == b"HEAD";
        host.write(|codec, out| codec.encode_head(stream, &answer, is_head, out));
        if is_head {
            return;
        }
        match trailers {
            None => host.send(stream, &body),
            Some(trailers) => host.write(|codec, out| {
                codec.encode_data(stream, &body, false, out);
                codec.encode_trailers(stream, &trailers, out);
            }),
        }
    });
}

#[test]
fn http2_to_http2_keeps_everything() {
    let (engine, address) = to_http2(host(echo));
    let mut client = Client::connect(address);
    let mut head = request("POST", "/a?b=c");
    head.fields.append("cookie", b"a=1; b=2");
    head.fields.append("te", b"trailers");
    let with_trailers = client.open(&head, false);
    let other = client.get("/other");
    let mut trailers = Fields::new();
    trailers.append("x-sum", b"42");
    client.peer.write(|codec, out| {
        codec.encode_data(with_trailers, b"hello", false, out);
        codec.encode_trailers(with_trailers, &trailers, out);
    });
    let answer = client.answer(with_trailers);
    assert_eq!((answer.status, &answer.body[..]), (200, &b"hello"[..]));
    let field = |name: &str| answer.fields.get_str(name).map(str::to_owned);
    assert_eq!(field("x-path").as_deref(), Some("/a?b=c"));
    assert_eq!(field("x-authority").as_deref(), Some("test"));
    assert_eq!(field("x-cookie").as_deref(), Some("a=1; b=2"));
    assert_eq!(field("x-te").as_deref(), Some("trailers"));
    assert_eq!(answer.trailers.unwrap().get_str("x-sum"), Some("42"));
    assert_eq!(client.answer(other).status, 200);
    let head_only = client.open(&request("HEAD", "/"), true);
    assert_eq!(client.answer(head_only).status, 200);
    assert_eq!(engine.counter("http.web.downstream_cx_http2_total"), 1);
    assert_eq!(engine.counter("http.web.downstream_rq_http2_total"), 3);
    assert_eq!(engine.counter("cluster.c.upstream_cx_http2_total"), 1);
    assert_eq!(engine.counter("cluster.c.upstream_rq_total"), 3);
}

#[test]
fn http1_to_http2_and_back() {
    let (_engine, address) = to_http2(host(echo));
    let mut client = connect(address);
    client
        .write_all(b"POST /x HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        .unwrap();
    let answer = read_message(&mut client).unwrap();
    assert_eq!((answer.status(), &answer.body[..]), (200, &b"hello"[..]));
    // The connection stays.
    client.write_all(b"GET /y HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let answer = read_message(&mut client).unwrap();
    assert!(answer.head.contains("x-path: /y"), "{}", answer.head);
}

#[test]
fn many_streams_share_one_connection_up_to_what_the_host_allows() {
    let options = http2::Options { max_concurrent_streams: 10, ..http2::Options::default() };
    let (engine, address) = to_http2(host_with(options, echo));
    let mut client = Client::connect(address);
    let streams: Vec<_> = (0..500).map(|number| client.get(&format!("/{number}"))).collect();
    for stream in streams {
        assert_eq!(client.answer(stream).status, 200);
    }
    assert_eq!(engine.counter("cluster.c.upstream_rq_200"), 500);
    assert!(engine.counter("cluster.c.upstream_cx_total") <= 50);
}

#[test]
fn what_the_host_refuses_is_sent_to_another_connection() {
    let address = host(|connection, host| {
        serve_requests(host, |host, stream, head, _, _| match (connection, head.path()) {
            (0, b"/refused") => {
                host.write(|codec, out| codec.reset_with(stream, ResetCode::Refused, out))
            }
            (0, b"/broken") => {
                host.write(|codec, out| codec.reset_with(stream, ResetCode::Internal, out))
            }
            _ => host.answer(stream, 200, b"ok"),
        });
    });
    let (engine, address) = to_http2(address);
    let mut client = Client::connect(address);
    let broken = client.get("/broken");
    let answer = client.answer(broken);
    assert_eq!(answer.status, 503);
    // Once more is once more: the same host refuses it again, and then the client hears of it.
    let refused = client.get("/refused");
    assert_eq!(client.answer(refused).status, 503);
    assert_eq!(engine.counter("cluster.c.upstream_rq_total"), 3);
    assert_eq!(engine.counter("cluster.c.upstream_rq_rx_reset"), 3);
    let plain = client.get("/plain");
    assert_eq!(client.answer(plain).status, 200);
    assert_eq!(engine.counter("cluster.c.upstream_cx_total"), 1);
}

#[test]
fn a_host_that_says_goodbye_ends_what_it_has_and_gets_nothing_new() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let address = host(move |connection, host| {
        serve_requests(host, |host, stream, _, _, _| {
            tell.lock().unwrap().send(connection).unwrap();
            if connection == 0 {
                host.write(|codec, out| {
                    codec.start_drain(out);
                    codec.start_drain(out);
                });
            }
            host.answer(stream, 200, b"ok");
        });
    });
    let (engine, address) = to_http2(address);
    let mut client = Client::connect(address);
    for expected in [0, 1, 1] {
        let stream = client.get("/");
        assert_eq!(client.answer(stream).status, 200);
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), expected);
    }
    assert_eq!(engine.counter("cluster.c.upstream_cx_close_notify"), 1);
}

/// A body that no buffer holds by accident.
const LONG: usize = 8 << 20;

#[test]
fn a_slow_client_slows_its_host() {
    let (progress, sent) = channel();
    let progress = Mutex::new(progress);
    let address = host(move |_, host| {
        serve_requests(host, |host, stream, head, _, _| {
            if head.path() != b"/long" {
                return host.answer(stream, 200, b"ok");
            }
            let answer = ResponseHead::new(200);
            host.write(|codec, out| codec.encode_head(stream, &answer, false, out));
            let mut left = LONG;
            while left > 0 {
                let room = host.codec.send_room(stream).min(left);
                host.write(|codec, out| {
                    codec.encode_data(stream, &vec![b'x'; room], room == left, out)
                });
                left -= room;
                progress.lock().unwrap().send(room).unwrap();
                while left > 0 && host.codec.send_room(stream) == 0 {
                    match host.next() {
                        Some((Event::Head { stream, .. }, _)) => host.answer(stream, 200, b"ok"),
                        Some(_) => {}
                        None => return,
                    }
                }
            }
        });
    });
    let (_engine, address) = to_http2(address);
    let mut client = Client::connect(address);
    client.peer.reads_on = false;
    let long = client.get("/long");
    client.wait_for(long, http2::RFC_WINDOW as usize);
    // Its neighbours are not held up.
    let other = client.get("/other");
    assert_eq!(client.answer(other).status, 200);
    let before: usize = sent.try_iter().sum();
    assert!(before < 512 * 1024, "{before} bytes for a client that has read 64 KiB");
    client.peer.reads_on = true;
    client.peer.write(|codec, _| codec.passed_on(long, http2::RFC_WINDOW as usize));
    assert_eq!(client.answer(long).body.len(), LONG);
}

#[test]
fn a_slow_host_slows_its_client() {
    let (go, may_go) = channel::<()>();
    let may_go: Arc<Mutex<Receiver<()>>> = Arc::new(Mutex::new(may_go));
    let address = host(move |_, host| {
        host.reads_on = false;
        let mut received = 0;
        let mut id = StreamId(0);
        while let Some((event, data)) = host.next() {
            let ends = match event {
                Event::Head { stream, end_stream } => {
                    id = stream;
                    end_stream
                }
                Event::Data { end_stream, .. } => end_stream,
                _ => continue,
            };
            received += data.len();
            if received >= http2::RFC_WINDOW as usize && !host.reads_on {
                may_go.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                host.reads_on = true;
                host.write(|codec, _| codec.passed_on(id, received));
            }
            if ends {
                host.answer(id, 200, received.to_string().as_bytes());
            }
        }
    });
    let (_engine, address) = to_http2(address);
    // A client of HTTP/2 runs out of window.
    let mut client = Client::connect(address);
    let long = client.open(&request("POST", "/long"), false);
    let mut sent = 0;
    while client.peer.codec.send_room(long) > 0 {
        let room = client.peer.codec.send_room(long);
        client.peer.write(|codec, out| codec.encode_data(long, &vec![b'x'; room], false, out));
        sent += room;
        // Time for the window to be opened again, if anybody would.
        client.peer.socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        while client.peer.next().is_some() {}
        client.peer.socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    assert!(sent < 512 * 1024, "{sent} bytes for a host that has read 64 KiB");
    go.send(()).unwrap();
    client.peer.send(long, &vec![b'x'; LONG - sent]);
    assert_eq!(client.answer(long).body, LONG.to_string().as_bytes());
}

#[test]
fn a_listener_that_drains_says_goodbye_in_two_steps() {
    let (go, may_go) = channel::<()>();
    let may_go = Arc::new(Mutex::new(may_go));
    let address = host(move |_, host| {
        serve_requests(host, |host, stream, _, _, _| {
            may_go.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            host.answer(stream, 200, b"ok");
        });
    });
    let (engine, address) = to_http2(address);
    let mut client = Client::connect(address);
    let stream = client.get("/");
    let mut events = Vec::new();
    while !matches!(events.last(), Some(Event::PeerSettings)) {
        events.push(client.peer.next().unwrap().0);
    }
    engine.drain();
    while !matches!(events.last(), Some(Event::GoAway)) {
        events.push(client.peer.next().unwrap().0);
    }
    go.send(()).unwrap();
    assert_eq!(client.answer(stream).status, 200, "what was begun is ended");
    while client.peer.next().is_some() {}
    assert!(engine.counter("http2.goaway_sent") >= 1);
}

#[test]
fn a_host_that_does_not_answer_pings_is_given_up() {
    let address = backend(|mut socket| {
        // Speaks no word.
        let mut buffer = [0; 4096];
        while socket.read(&mut buffer).unwrap_or(0) > 0 {}
    });
    let engine = Engine::start();
    let keepalive = Http2Keepalive {
        interval: Some(Duration::from_millis(20)),
        timeout: Duration::from_millis(50),
        jitter_percent: 0,
        idle_interval: None,
    };
    let cluster = cluster_of(&engine, address, |config| {
        Arc::make_mut(&mut config.http.http2).keepalive = Some(keepalive);
    });
    let listener = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::connect(listener);
    let stream = client.get("/");
    let answer = client.answer(stream);
    assert_eq!(answer.status, 503, "{answer:?}");
}

#[test]
fn a_client_that_gives_up_a_stream_gives_it_up_upstream() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let address = host(move |_, host| {
        while let Some((event, _)) = host.next() {
            if let Event::Head { .. } | Event::Reset { .. } = event {
                tell.lock().unwrap().send(event).unwrap();
            }
        }
    });
    let (_engine, address) = to_http2(address);
    let mut client = Client::connect(address);
    let stream = client.get("/");
    assert!(matches!(told.recv_timeout(PATIENCE).unwrap(), Event::Head { .. }));
    client.peer.write(|codec, out| codec.reset(stream, out));
    let reset = told.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(reset, Event::Reset { reason: ResetReason::Remote, .. }), "{reset:?}");
}

#[test]
fn a_kept_connection_that_ends_under_a_request_costs_nobody_anything() {
    let address = backend(|mut socket| {
        let mut buffer = [0; 4096];
        // Answers once, then hangs up on whatever comes next.
        let _ = socket.read(&mut buffer);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let _ = socket.read(&mut buffer);
    });
    let engine = Engine::start();
    let cluster = cluster(&engine, UpstreamProtocol::Http1, address);
    let listener = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = connect(listener);
    for _ in 0..3 {
        client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        assert_eq!(read_message(&mut client).unwrap().status(), 200);
    }
    // What may have been done is not done twice.
    client.write_all(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\nhi").unwrap();
    assert_eq!(read_message(&mut client).unwrap().status(), 503);
}

/// Lets a tunnel of that type through.
fn allows(upgrade: &str) -> Vec<UpgradeConfig> {
    vec![UpgradeConfig { upgrade_type: upgrade.into(), enabled: true }]
}

/// A host of HTTP/1.1 that takes every upgrade and echoes in capitals.
fn echoing_websocket() -> SocketAddr {
    backend(|mut socket| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if socket.read(&mut byte).unwrap_or(0) == 0 {
                return;
            }
            head.push(byte[0]);
        }
        let text = String::from_utf8(head).unwrap().to_lowercase();
        assert!(text.contains("upgrade: websocket") && text.contains("sec-websocket-key: "));
        socket
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
                  connection: upgrade\r\nsec-websocket-accept: x\r\n\r\n",
            )
            .unwrap();
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = socket.read(&mut buffer) {
            socket.write_all(&buffer[..count].to_ascii_uppercase()).unwrap();
        }
    })
}

/// The same of HTTP/2.
fn echoing_extended_connect(_: usize, host: &mut Host) {
    while let Some((event, data)) = host.next() {
        match event {
            Event::Head { stream, .. } => {
                assert_eq!(host.head.protocol(), b"websocket");
                assert_eq!(host.head.method(), b"CONNECT");
                let answer = ResponseHead::new(200);
                host.write(|codec, out| codec.encode_head(stream, &answer, false, out));
            }
            Event::Data { stream, end_stream, .. } => host.write(|codec, out| {
                codec.encode_data(stream, &data.to_ascii_uppercase(), end_stream, out)
            }),
            _ => {}
        }
    }
}

#[test]
fn websockets_in_every_pairing() {
    let options = http2::Options { allow_connect: true, ..http2::Options::default() };
    let hosts = [
        (UpstreamProtocol::Http1, echoing_websocket()),
        (UpstreamProtocol::Http2, host_with(options, echoing_extended_connect)),
    ];
    for (protocol, address) in hosts {
        let engine = Engine::start();
        let cluster = cluster(&engine, protocol, address);
        let listener = engine.serve_http(route(cluster, RoutePolicy::default()), |http| {
            http.upgrades = allows("websocket");
            http.http2.allow_connect = true;
        });
        let mut client = connect(listener);
        client
            .write_all(
                b"GET /chat HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                  sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n",
            )
            .unwrap();
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"\r\n\r\n") {
            assert_eq!(client.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
            text.push(byte[0]);
        }
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("HTTP/1.1 101 "), "{protocol:?}: {text}");
        assert!(text.contains("sec-websocket-accept: "), "{text}");
        client.write_all(b"hello").unwrap();
        let mut echo = [0; 5];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"HELLO");

        let mut client = Client::connect(listener);
        while !client.peer.codec.takes_extended_connect() {
            client.peer.next().unwrap();
        }
        let mut head = request("CONNECT", "/chat");
        head.set_protocol(b"websocket");
        let stream = client.open(&head, false);
        assert_eq!(client.wait_for(stream, 0).status, 200, "{protocol:?}");
        client.peer.write(|codec, out| codec.encode_data(stream, b"hello", false, out));
        assert_eq!(client.wait_for(stream, 5).body, b"HELLO");
    }
}

#[test]
fn connect_ends_here_or_goes_on() {
    let address = backend(|mut socket| {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = socket.read(&mut buffer) {
            socket.write_all(&buffer[..count].to_ascii_uppercase()).unwrap();
        }
    });
    let engine = Engine::start();
    let cluster = cluster(&engine, UpstreamProtocol::Http1, address);
    let connect_here = Some(ConnectConfig { allow_post: true });
    let policy = RoutePolicy { connect: connect_here, ..RoutePolicy::default() };
    let listener = engine.serve_http(route_for(PathMatch::Connect, cluster, policy), |http| {
        http.upgrades = allows("CONNECT");
    });
    let mut client = connect(listener);
    client.write_all(b"CONNECT test:443 HTTP/1.1\r\nhost: test:443\r\n\r\n").unwrap();
    let mut text = Vec::new();
    let mut byte = [0];
    while !text.ends_with(b"\r\n\r\n") {
        assert_eq!(client.read(&mut byte).unwrap(), 1);
        text.push(byte[0]);
    }
    assert!(text.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&text));
    client.write_all(b"hello").unwrap();
    let mut echo = [0; 5];
    client.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"HELLO");

    let mut client = Client::connect(listener);
    let mut head = RequestHead::new();
    head.set_method(b"CONNECT");
    head.set_authority(b"test:443");
    let stream = client.open(&head, false);
    client.peer.write(|codec, out| codec.encode_data(stream, b"early ", false, out));
    assert_eq!(client.wait_for(stream, 0).status, 200);
    client.peer.write(|codec, out| codec.encode_data(stream, b"late", true, out));
    assert_eq!(client.answer(stream).body, b"EARLY LATE");
}

#[test]
fn connections_end_politely_after_so_many_requests_or_so_long_a_rest() {
    let engine = Engine::start();
    let cluster = cluster_of(&engine, host(echo), |config| {
        config.http.max_requests_per_connection = Some(1);
    });
    let listener = engine.serve_http(route(cluster, RoutePolicy::default()), |http| {
        http.limits.max_requests_per_connection = Some(2);
        http.timeouts.drain = Duration::from_millis(20);
    });
    let mut client = Client::connect(listener);
    for _ in 0..2 {
        let stream = client.get("/");
        assert_eq!(client.answer(stream).status, 200);
    }
    client.read_to_end();
    assert!(client.goodbyes > 0);
    assert_eq!(engine.counter("http.web.downstream_cx_max_requests_reached"), 1);
    assert_eq!(engine.counter("cluster.c.upstream_cx_total"), 2);
    assert_eq!(engine.counter("cluster.c.upstream_cx_max_requests"), 2);

    let restless = engine.serve_http(route(cluster, RoutePolicy::default()), |http| {
        http.timeouts.idle = Some(Duration::from_millis(300));
        http.timeouts.drain = Duration::from_millis(20);
    });
    let mut client = Client::connect(restless);
    let stream = client.get("/");
    assert_eq!(client.answer(stream).status, 200);
    client.read_to_end();
    assert!(client.goodbyes > 0);
    assert_eq!(engine.counter("http.web.downstream_cx_idle_timeout"), 1);
}

#[test]
fn a_connection_that_breaks_the_protocol_takes_its_streams_along() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let address = host(move |_, host| {
        while let Some((event, _)) = host.next() {
            tell.lock().unwrap().send(event).unwrap();
        }
    });
    let (engine, address) = to_http2(address);
    let mut client = Client::connect(address);
    client.get("/");
    while !matches!(told.recv_timeout(PATIENCE).unwrap(), Event::Head { .. }) {}
    // DATA on stream 0.
    client.peer.socket.write_all(&[0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    while client.peer.next().is_some() {}
    while !matches!(told.recv_timeout(PATIENCE).unwrap(), Event::Reset { .. }) {}
    assert_eq!(engine.counter("http.web.downstream_cx_protocol_error"), 1);
    assert_eq!(engine.counter("http.web.downstream_rq_active"), 0);
}

#[test]
fn a_client_whose_window_is_shut_does_not_hold_up_another() {
    let address = host(|_, host| {
        serve_requests(host, |host, stream, head, _, _| {
            let answer = ResponseHead::new(200);
            let len = if head.path() == b"/long" { http2::RFC_WINDOW as usize } else { 10 };
            host.write(|codec, out| {
                codec.encode_head(stream, &answer, false, out);
                codec.encode_data(stream, &vec![b'x'; len], true, out);
            });
        });
    });
    let (engine, address) = to_http2(address);
    let options =
        http2::Options { initial_connection_window: http2::RFC_WINDOW, ..Default::default() };
    let mut stuck = Client::with(address, options);
    stuck.peer.reads_on = false;
    let (first, second) = (stuck.get("/long"), stuck.get("/long"));
    stuck.wait_for(first, http2::RFC_WINDOW as usize / 4);
    let mut other = Client::connect(address);
    for _ in 0..50 {
        let stream = other.get("/short");
        assert_eq!(other.answer(stream).body.len(), 10);
    }
    assert_eq!(engine.counter("cluster.c.upstream_cx_total"), 1);
    // Once it reads, it gets all.
    stuck.peer.reads_on = true;
    stuck.wait_for(second, 0);
    for stream in [first, second] {
        let got = stuck.received(stream);
        stuck.peer.write(|codec, _| codec.passed_on(stream, got));
    }
    for stream in [first, second] {
        assert_eq!(stuck.answer(stream).body.len(), http2::RFC_WINDOW as usize);
    }
}

#[test]
fn alpn_says_what_is_spoken() {
    let authority = Authority::new();
    let last = Engine::start();
    let echo = cluster(&last, UpstreamProtocol::Http2, host(echo));
    // What the host's end agrees to, what is spoken to it, and by which version it is heard.
    let table = [
        (&["h2", "http/1.1"][..], UpstreamProtocol::Auto, 2),
        (&["http/1.1"], UpstreamProtocol::Auto, 1),
        (&[], UpstreamProtocol::Auto, 1),
        (&["h2"], UpstreamProtocol::Http2, 2),
    ];
    let [mut http1, mut http2] = [0; 2];
    for (agrees_to, protocol, version) in table {
        let tls = Some(authority.server_speaking(agrees_to, &["b.example"]));
        let address = last.serve_https(tls, route(echo, RoutePolicy::default()), |_| {});
        let first = Engine::start();
        let mut config = ClusterConfig::new("c");
        config.http.protocol = protocol;
        let tls = Some(authority.client("b.example"));
        let cluster = first.cluster_of(config, &[address], tls);
        let listener = first.serve_http(route(cluster, RoutePolicy::default()), |_| {});
        let mut client = Client::connect(listener);
        for path in ["/1", "/2"] {
            let stream = client.get(path);
            assert_eq!(client.answer(stream).status, 200, "{agrees_to:?} {protocol:?}");
        }
        if version == 2 {
            http2 += 1
        } else {
            http1 += 1
        }
        assert_eq!(last.counter("http.web.downstream_cx_http1_total"), http1);
        assert_eq!(last.counter("http.web.downstream_cx_http2_total"), http2);
        let spoken = format!("cluster.c.upstream_cx_http{version}_total");
        assert_eq!(first.counter(&spoken), 1, "{agrees_to:?} {protocol:?}");
    }
}

#[test]
fn who_waited_for_a_shared_connection_gets_one_of_his_own_where_http1_is_agreed_on() {
    const AT_ONCE: usize = 5;
    let authority = Authority::new();
    let last = Engine::start();
    // Nobody is answered before everybody has asked.
    let together = host(|_, host| {
        let mut asked = Vec::new();
        serve_requests(host, |host, stream, _, _, _| {
            asked.push(stream);
            if asked.len() == AT_ONCE {
                asked.iter().for_each(|stream| host.answer(*stream, 200, b"ok"));
            }
        });
    });
    let together = cluster(&last, UpstreamProtocol::Http2, together);
    let tls = Some(authority.server_speaking(&["http/1.1"], &["b.example"]));
    let address = last.serve_https(tls, route(together, RoutePolicy::default()), |_| {});
    let first = Engine::start();
    let mut config = ClusterConfig::new("c");
    config.http.protocol = UpstreamProtocol::Auto;
    let cluster = first.cluster_of(config, &[address], Some(authority.client("b.example")));
    let listener = first.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::connect(listener);
    let streams: Vec<_> = (0..AT_ONCE).map(|number| client.get(&format!("/{number}"))).collect();
    for stream in streams {
        assert_eq!(client.answer(stream).status, 200);
    }
    assert_eq!(first.counter("cluster.c.upstream_cx_http1_total"), AT_ONCE as u64);
}

#[test]
fn nothing_is_agreed_on_without_tls() {
    let engine = Engine::start();
    let cluster = cluster(&engine, UpstreamProtocol::Auto, Backend::echo().address);
    let listener = engine.serve_http(route(cluster, RoutePolicy::default()), |_| {});
    let mut client = Client::connect(listener);
    let stream = client.get("/");
    assert_eq!(client.answer(stream).status, 200);
    assert_eq!(engine.counter("cluster.c.upstream_cx_http1_total"), 1);
}

/// Sends bodies of these lengths on their streams, each in turn as far as its window goes.
fn upload_in_turns(client: &mut Client, mut left: Vec<(StreamId, usize)>) {
    while !left.is_empty() {
        let mut moved = 0;
        for (stream, len) in &mut left {
            let now = client.peer.codec.send_room(*stream).min(*len).min(10_000);
            *len -= now;
            moved += now;
            let ends = *len == 0;
            client.peer.write(|codec, out| codec.encode_data(*stream, &vec![b'x'; now], ends, out));
        }
        left.retain(|(_, len)| *len > 0);
        if moved == 0 {
            client.read_one();
        }
    }
}

#[test]
fn uploads_that_wait_for_a_window_end_once() {
    // What they wait for: the connection's window, which they share, or each for its own.
    for initial_connection_window in [http2::RFC_WINDOW, 1 << 20] {
        let options = http2::Options { initial_connection_window, ..http2::Options::default() };
        let (engine, address) = to_http2(host_with(options, |_, host| {
            serve_requests(host, |host, stream, _, body, _| {
                host.answer(stream, 200, body.len().to_string().as_bytes());
            });
        }));
        let mut client = Client::connect(address);
        let bodies: Vec<_> = (0..8)
            .map(|number| (client.open(&request("POST", "/upload"), false), 300_000 + number))
            .collect();
        upload_in_turns(&mut client, bodies.clone());
        for (stream, len) in bodies {
            let answer = client.answer(stream);
            assert_eq!((answer.status, answer.reset), (200, None));
            assert_eq!(answer.body, len.to_string().as_bytes());
        }
        assert_eq!(engine.counter("cluster.c.upstream_cx_total"), 1);
        assert_eq!(engine.counter("cluster.c.upstream_cx_protocol_error"), 0);
        assert_eq!(engine.counter("cluster.c.upstream_rq_200"), 8);
    }
}
