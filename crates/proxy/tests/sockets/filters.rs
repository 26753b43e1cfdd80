//! What a filter may do with a message: hold it, let it go later, look its route up again, wait for calls and timers.

use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use codec::event::{Event, StreamId};
use proxy::filter_manager::{
    DataStatus, FilterChainFactory, FilterContext, FilterEvent, HeadersStatus, HttpFilter,
    HttpFilterFactory, LocalReply, OutgoingRequest, Phases, TrailersStatus, WorkerContext,
};
use proxy::http::config::RouteSource;
use proxy::route_table::config::PathMatch;
use proxy::router::config::{RetryOn, RetryPolicy, RoutePolicy};
use proxy::upstream::config::{ClusterConfig, ClusterRef};

use crate::engine::{Engine, PATIENCE, read_all, wait_until};
use crate::peer::{Client as Http2Client, request};
use crate::web::{Backend, Client, ok, route, route_for};

/// Long enough to be noticed, short enough to be waited for.
const SOON: Duration = Duration::from_millis(20);

/// A filter made of what a test gives; the rest lets things pass.
#[derive(Clone, Copy)]
struct Script {
    head: fn(&mut FilterContext<'_>) -> HeadersStatus,
    data: fn(&mut FilterContext<'_>, bool) -> DataStatus,
    trailers: fn(&mut FilterContext<'_>) -> TrailersStatus,
    response_head: fn(&mut FilterContext<'_>) -> HeadersStatus,
    response_data: fn(&mut FilterContext<'_>, bool) -> DataStatus,
    event: fn(&mut FilterContext<'_>, FilterEvent<'_>),
}

impl Default for Script {
    fn default() -> Self {
        Self {
            head: |_| HeadersStatus::Continue,
            data: |_, _| DataStatus::Continue,
            trailers: |_| TrailersStatus::Continue,
            response_head: |_| HeadersStatus::Continue,
            response_data: |_, _| DataStatus::Continue,
            event: |_, _| {},
        }
    }
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Script")
    }
}

impl HttpFilterFactory for Script {
    fn create(&self, _cx: &WorkerContext) -> Box<dyn HttpFilter> {
        Box::new(*self)
    }
    fn phases(&self) -> Phases {
        Phases::ALL
    }
}

impl HttpFilter for Script {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _end: bool) -> HeadersStatus {
        (self.head)(cx)
    }
    fn decode_data(&mut self, cx: &mut FilterContext<'_>, _data: &[u8], end: bool) -> DataStatus {
        (self.data)(cx, end)
    }
    fn decode_trailers(&mut self, cx: &mut FilterContext<'_>) -> TrailersStatus {
        (self.trailers)(cx)
    }
    fn encode_headers(&mut self, cx: &mut FilterContext<'_>, _end: bool) -> HeadersStatus {
        (self.response_head)(cx)
    }
    fn encode_data(&mut self, cx: &mut FilterContext<'_>, _data: &[u8], end: bool) -> DataStatus {
        (self.response_data)(cx, end)
    }
    fn on_event(&mut self, cx: &mut FilterContext<'_>, event: FilterEvent<'_>) {
        (self.event)(cx, event)
    }
    fn reset(&mut self) {}
}

/// A listener with these filters in front of a host.
fn engine(host: SocketAddr, scripts: &[Script]) -> (Engine, SocketAddr) {
    let engine = Engine::start();
    let cluster = engine.cluster(&[host], None);
    let address = listen(&engine, route(cluster, RoutePolicy::default()), scripts);
    (engine, address)
}

fn listen(engine: &Engine, routes: RouteSource, scripts: &[Script]) -> SocketAddr {
    let filters = scripts
        .iter()
        .map(|script| ("script".into(), Arc::new(*script) as Arc<dyn HttpFilterFactory>))
        .collect();
    engine.serve_http(routes, |http| {
        http.filters = Arc::new(FilterChainFactory { filters, ..FilterChainFactory::default() });
    })
}

/// A request with a body of so many bytes, whole.
fn post(path: &str, len: usize) -> String {
    let body = "b".repeat(len);
    format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {len}\r\n\r\n{body}")
}

/// Answers with the length of each request's body.
fn lengths() -> Backend {
    Backend::new(|_, request| Some(ok(&request.body.len().to_string())))
}

fn later(cx: &mut FilterContext<'_>, status: HeadersStatus) -> HeadersStatus {
    cx.set_timer(SOON);
    status
}

#[test]
fn a_request_that_is_held_goes_on_whole_and_in_order() {
    let held = Script {
        head: |cx| {
            cx.request.fields.append("x-seen", b"held");
            later(cx, HeadersStatus::StopAllAndBuffer)
        },
        event: |cx, event| {
            assert!(matches!(event, FilterEvent::Timer(_)), "{event:?}");
            cx.continue_decoding();
        },
        ..Script::default()
    };
    // Whoever comes after it sees the head before the body, and only once it was let go of.
    let after = Script {
        head: |cx| {
            assert_eq!(cx.request.fields.get("x-seen"), Some(&b"held"[..]));
            cx.request.fields.append("x-seen", b"after");
            HeadersStatus::Continue
        },
        ..Script::default()
    };
    let host = lengths();
    for scripts in [&[held][..], &[held, after], &[held, held, after]] {
        let (_engine, address) = engine(host.address, scripts);
        let mut client = Client::new(address);
        for len in [0, 10, 60_000] {
            client.send(&post("/", len));
            assert_eq!(client.read().text(), len.to_string());
        }
    }
}

#[test]
fn what_is_held_is_bounded() {
    let holds = Script { head: |_| HeadersStatus::StopAllAndBuffer, ..Script::default() };
    let collects = Script { data: |_, _| DataStatus::StopAndBuffer, ..Script::default() };
    let collects_answers = Script {
        response_head: |_| HeadersStatus::StopIteration,
        response_data: |_, _| DataStatus::StopAndBuffer,
        ..Script::default()
    };
    let long = Backend::new(|_, _| Some(ok(&"a".repeat(100_000))));
    for (script, status) in [(holds, 413), (collects, 413), (collects_answers, 500)] {
        let (_engine, address) = engine(long.address, &[script]);
        let mut client = Client::new(address);
        client.send(&post("/", if status == 413 { 100_000 } else { 0 }));
        assert_eq!(client.read().status(), status);
    }
    // What has begun can only be cut.
    let too_late = Script { response_head: |_| HeadersStatus::Continue, ..collects_answers };
    let (_engine, address) = engine(long.address, &[too_late]);
    let mut client = Client::new(address);
    client.send(&post("/", 0));
    let answer = String::from_utf8(read_all(client.0)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && !answer.contains("aaa"), "{answer}");
}

#[test]
fn an_answer_in_the_place_of_another_is_not_shown_to_filters_again() {
    let replies = Script {
        response_head: |cx| {
            assert_ne!(cx.response.status, 599, "it has had its say");
            let body = "another".into();
            cx.send_local_reply(LocalReply { status: 599, body, ..LocalReply::default() });
            HeadersStatus::StopIteration
        },
        ..Script::default()
    };
    let host = Backend::echo();
    let (_engine, address) = engine(host.address, &[replies, replies]);
    let mut client = Client::new(address);
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!((answer.status(), answer.text()), (599, "another"));
    }
}

#[test]
fn what_is_collected_goes_on_with_the_end_or_the_trailers() {
    let collects = Script {
        data: |_, end| if end { DataStatus::Continue } else { DataStatus::StopAndBuffer },
        response_data: |_, end| if end { DataStatus::Continue } else { DataStatus::StopAndBuffer },
        ..Script::default()
    };
    let host = lengths();
    let (_engine, address) = engine(host.address, &[collects, collects]);
    let mut client = Client::new(address);
    for ending in ["0\r\n\r\n", "0\r\nx: y\r\n\r\n"] {
        client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
        for _ in 0..5 {
            client.send("3\r\nabc\r\n");
        }
        client.send(ending);
        assert_eq!(client.read().text(), "15");
    }
}

#[test]
fn an_answer_that_is_held_comes_whole() {
    let held = Script {
        response_head: |cx| later(cx, HeadersStatus::StopAllAndBuffer),
        event: |cx, _| cx.continue_encoding(),
        ..Script::default()
    };
    let host = Backend::echo();
    let (_engine, address) = engine(host.address, &[held, held]);
    let mut client = Client::new(address);
    for _ in 0..3 {
        let answer = client.get("/held");
        assert_eq!(answer.status(), 200);
        assert!(answer.text().starts_with("GET /held "), "{answer:?}");
    }
}

#[test]
fn a_sender_rests_while_a_filter_holds_more_than_the_limit() {
    const LEN: usize = 1 << 20;
    let asks = Script {
        head: |cx| {
            let cluster = ClusterRef { slot: 0, generation: 0 };
            let head = request("GET", "/may-it-pass");
            cx.call(cluster, OutgoingRequest { head, ..OutgoingRequest::default() });
            HeadersStatus::StopAllAndWatermark
        },
        event: |cx, event| {
            assert!(matches!(event, FilterEvent::CallResponse { .. }), "{event:?}");
            cx.continue_decoding();
        },
        ..Script::default()
    };
    let (go, may_go) = channel::<()>();
    let may_go = Mutex::new(may_go);
    let host = Backend::new(move |_, request| {
        if request.head.starts_with("GET /may-it-pass") {
            may_go.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        Some(ok(&request.body.len().to_string()))
    });
    let (engine, address) = engine(host.address, &[asks]);

    let mut client = Client::new(address);
    let sender = std::thread::spawn(move || {
        client.send(&post("/", LEN));
        client.read().text().to_owned()
    });
    wait_until(|| engine.counter("http.web.downstream_flow_control_paused_reading_total") == 1);
    go.send(()).unwrap();
    assert_eq!(sender.join().unwrap(), LEN.to_string());

    let mut client = Http2Client::connect(address);
    let stream = client.open(&request("POST", "/"), false);
    let sent = send_what_fits(&mut client, stream, LEN);
    assert!(sent <= 256 * 1024, "{sent} bytes that nobody has asked for");
    go.send(()).unwrap();
    client.peer.send(stream, &vec![b'b'; LEN - sent]);
    assert_eq!(client.answer(stream).body, LEN.to_string().into_bytes());
}

/// Sends until the other end gives no more room, and says how much that was.
fn send_what_fits(client: &mut Http2Client, stream: StreamId, most: usize) -> usize {
    let mut sent = 0;
    loop {
        let room = client.peer.codec.send_room(stream).min(most - sent);
        client.peer.write(|codec, out| {
            codec.encode_data(stream, &vec![b'b'; room], false, out);
            codec.ping(out);
        });
        sent += room;
        // Whatever was to be said of the bytes before it is said before the answer to a PING.
        while client.peer.next().expect("the connection goes on").0 != Event::Pong {}
        if room == 0 || sent == most {
            return sent;
        }
    }
}

#[test]
fn a_host_rests_while_a_filter_holds_its_answer() {
    const LEN: usize = 4 << 20;
    let held = Script {
        response_head: |cx| {
            cx.set_timer(Duration::from_millis(300));
            HeadersStatus::StopAllAndWatermark
        },
        event: |cx, _| cx.continue_encoding(),
        ..Script::default()
    };
    let host = Backend::new(|_, _| Some(ok(&"a".repeat(LEN))));
    let (engine, address) = engine(host.address, &[held]);
    assert_eq!(Client::new(address).get("/").body.len(), LEN);
    assert!(engine.counter("cluster.c0.upstream_flow_control_paused_reading_total") >= 1);
}

#[test]
fn a_changed_request_may_take_another_route() {
    let rewrites = Script {
        head: |cx| {
            cx.request.set_path(b"/b");
            cx.clear_route_cache();
            HeadersStatus::Continue
        },
        ..Script::default()
    };
    let host = Backend::echo();
    let engine = Engine::start();
    let cluster = engine.cluster(&[host.address], None);
    let only_b = || route_for(PathMatch::Exact("/b".into()), cluster, RoutePolicy::default());
    let address = listen(&engine, only_b(), &[rewrites]);
    assert_eq!(Client::new(address).get("/a").status(), 200);
    // Without the change there is no route.
    let address = listen(&engine, only_b(), &[Script::default()]);
    assert_eq!(Client::new(address).get("/a").status(), 404);
}

#[test]
fn what_is_cancelled_does_not_come() {
    let cancels = Script {
        head: |cx| {
            let cluster = ClusterRef { slot: 0, generation: 0 };
            let head = request("GET", "/cancelled");
            let call = cx.call(cluster, OutgoingRequest { head, ..OutgoingRequest::default() });
            cx.cancel_call(call);
            let timer = cx.set_timer(Duration::from_millis(1));
            cx.cancel_timer(timer);
            cx.request.fields.set("x-timer", timer.0.to_string().as_bytes());
            later(cx, HeadersStatus::StopIteration)
        },
        event: |cx, event| {
            let FilterEvent::Timer(timer) = event else { panic!("{event:?}") };
            assert_ne!(cx.request.fields.get_str("x-timer"), Some(&*timer.0.to_string()));
            cx.send_local_reply(LocalReply { status: 299, ..LocalReply::default() });
        },
        ..Script::default()
    };
    let host = Backend::echo();
    let (_engine, address) = engine(host.address, &[cancels]);
    assert_eq!(Client::new(address).get("/").status(), 299);
}

#[test]
fn a_body_beyond_its_routes_limit_is_not_kept_for_a_retry() {
    let retry = Some(Arc::new(RetryPolicy {
        on: RetryOn::parse("5xx").0,
        base_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(1),
        ..RetryPolicy::default()
    }));
    let policy =
        RoutePolicy { retry, request_body_buffer_limit: Some(1000), ..RoutePolicy::default() };
    for (len, attempts) in [(1000, 2), (1001, 1)] {
        let (tell, told): (Sender<usize>, _) = channel();
        let tell = Mutex::new(tell);
        let host = Backend::new(move |_, request| {
            tell.lock().unwrap().send(request.body.len()).unwrap();
            Some(crate::web::status(503))
        });
        let engine = Engine::start();
        let cluster = engine.cluster_of(ClusterConfig::new("c"), &[host.address], None);
        let address = listen(&engine, route(cluster, policy.clone()), &[]);
        let mut client = Client::new(address);
        client.send(&post("/", len));
        assert_eq!(client.read().status(), 503);
        assert_eq!(told.try_iter().collect::<Vec<_>>(), vec![len; attempts]);
    }
}
