//! Nothing takes a connection for one stream: streams share connections on both sides, and nothing else.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use codec::event::{Event, ResetCode, StreamId};
use proxy::filter_manager::{
    CallId, FilterChainFactory, FilterContext, FilterEvent, HeadersStatus, HttpFilter,
    HttpFilterFactory, OutgoingRequest, Phases, WorkerContext,
};
use proxy::router::config::{RetryOn, RetryPolicy, RoutePolicy};
use proxy::upstream::config::{ClusterConfig, ClusterRef, UpstreamProtocol};

use crate::engine::{Engine, PATIENCE};
use crate::peer::{Client, Host, host, request};
use crate::web::route;

/// Asks the cluster before it lets `/call` pass, and tells upstream what it heard.
#[derive(Debug)]
struct Ask(ClusterRef);

struct Asking {
    cluster: ClusterRef,
    call: Option<CallId>,
}

impl HttpFilterFactory for Ask {
    fn create(&self, _cx: &WorkerContext) -> Box<dyn HttpFilter> {
        Box::new(Asking { cluster: self.0, call: None })
    }
    fn phases(&self) -> Phases {
        Phases::HEADERS
    }
}

impl HttpFilter for Asking {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _end_stream: bool) -> HeadersStatus {
        if cx.request.path() != b"/call" {
            return HeadersStatus::Continue;
        }
        let head = request("GET", "/asked");
        self.call =
            Some(cx.call(self.cluster, OutgoingRequest { head, ..OutgoingRequest::default() }));
        HeadersStatus::StopIteration
    }
    fn on_event(&mut self, cx: &mut FilterContext<'_>, event: FilterEvent<'_>) {
        match event {
            FilterEvent::CallResponse { id, head, body } if Some(id) == self.call => {
                assert_eq!(head.status, 200);
                cx.request.fields.set("x-heard", body);
                cx.continue_decoding();
            }
            other => panic!("{other:?}"),
        }
    }
    fn reset(&mut self) {
        self.call = None;
    }
}

/// One listener in front of one host of HTTP/2. What is reset is tried once more.
fn engine(host: SocketAddr) -> (Engine, SocketAddr) {
    let engine = Engine::start();
    let mut config = ClusterConfig::new("c");
    config.http.protocol = UpstreamProtocol::Http2;
    let cluster = engine.cluster_of(config, &[host], None);
    let retry = RetryPolicy {
        on: RetryOn::parse("reset").0,
        base_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(1),
        ..RetryPolicy::default()
    };
    let policy = RoutePolicy { retry: Some(Arc::new(retry)), ..RoutePolicy::default() };
    let address = engine.serve_http(route(cluster, policy), |http| {
        http.filters = Arc::new(FilterChainFactory {
            filters: vec![("ask".into(), Arc::new(Ask(cluster)))],
            ..FilterChainFactory::default()
        });
    });
    (engine, address)
}

/// What the host saw: a request by connection, path and what was heard before, or a stream given up.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Request(usize, String, Option<String>),
    Reset(String),
}

fn requested(path: &str) -> Seen {
    Seen::Request(0, path.to_owned(), None)
}

/// A host that answers by path: `/stalled` not before `/release`, `/left` never, `/flaky` not at its first try.
fn host_by_path() -> (SocketAddr, Receiver<Seen>) {
    let (tell, seen) = channel();
    let tell = Mutex::new(tell);
    let address = host(move |number, host| {
        let tell = tell.lock().unwrap().clone();
        serve_by_path(number, host, &tell);
    });
    (address, seen)
}

fn serve_by_path(number: usize, host: &mut Host, tell: &Sender<Seen>) {
    let (mut open, mut flaky_before) = (Vec::<(StreamId, String)>::new(), false);
    while let Some((event, _)) = host.next() {
        match event {
            Event::Head { stream, .. } => {
                let path = String::from_utf8(host.head.path().to_vec()).unwrap();
                let heard = host.head.fields.get_str("x-heard").map(str::to_owned);
                tell.send(Seen::Request(number, path.clone(), heard)).unwrap();
                match path.as_str() {
                    "/stalled" | "/left" => {}
                    "/flaky" if !std::mem::replace(&mut flaky_before, true) => {
                        host.write(|codec, out| codec.reset_with(stream, ResetCode::Internal, out));
                    }
                    _ => host.answer(stream, 200, path.as_bytes()),
                }
                if path == "/release" {
                    for (stream, _) in open.iter().filter(|(_, path)| path == "/stalled") {
                        host.answer(*stream, 200, b"at last");
                    }
                }
                open.push((stream, path));
            }
            Event::Reset { stream, .. } => {
                let (_, path) = open.iter().find(|(id, _)| *id == stream).unwrap();
                tell.send(Seen::Reset(path.clone())).unwrap();
            }
            _ => {}
        }
    }
}

#[test]
fn streams_share_connections_and_nothing_else() {
    let (host, seen) = host_by_path();
    let next = || seen.recv_timeout(PATIENCE).unwrap();
    let (engine, address) = engine(host);
    let (mut a, mut b) = (Client::connect(address), Client::connect(address));

    // Two streams down, one of them stalled: the other is answered all the same.
    let stalled = a.get("/stalled");
    assert_eq!(next(), requested("/stalled"));
    let plain = a.get("/plain");
    assert_eq!(next(), requested("/plain"));
    assert_eq!(a.answer(plain).body, b"/plain");

    // Another client shares the upstream connection.
    let other = b.get("/other");
    assert_eq!(next(), requested("/other"));
    assert_eq!(b.answer(other).body, b"/other");

    // A stream that its client gives up is given up upstream; its neighbours are not.
    let left = b.get("/left");
    assert_eq!(next(), requested("/left"));
    b.peer.write(|codec, out| codec.reset(left, out));
    assert_eq!(next(), Seen::Reset("/left".into()));

    // A stream that the host resets is tried again, on the same connection.
    let flaky = b.get("/flaky");
    assert_eq!(next(), requested("/flaky"));
    assert_eq!(next(), requested("/flaky"));
    assert_eq!(b.answer(flaky).status, 200);
    assert_eq!(engine.counter("cluster.c.upstream_rq_retry"), 1);

    // A filter's call is a stream like the others, without a client.
    let call = a.get("/call");
    assert_eq!(next(), requested("/asked"));
    assert_eq!(next(), Seen::Request(0, "/call".into(), Some("/asked".into())));
    assert_eq!(a.answer(call).status, 200);

    // The stalled one is still there.
    let release = b.get("/release");
    assert_eq!(next(), requested("/release"));
    assert_eq!(b.answer(release).status, 200);
    assert_eq!(a.answer(stalled).body, b"at last");

    assert_eq!(engine.counter("cluster.c.upstream_cx_total"), 1);
    assert_eq!(engine.counter("http.web.downstream_cx_total"), 2);
}

#[test]
fn a_lost_connection_ends_each_of_its_streams_once() {
    // Every connection is lost when two requests have come.
    let address = host(|_, host| {
        let mut requests = 0;
        while requests < 2 {
            let Some((event, _)) = host.next() else { return };
            requests += usize::from(matches!(event, Event::Head { .. }));
        }
    });
    let (engine, address) = engine(address);
    let mut client = Client::connect(address);
    let streams = [client.get("/1"), client.get("/2")];
    // Both are tried again on the next connection, which is lost, too.
    for stream in streams {
        assert_eq!(client.answer(stream).status, 503);
    }
    assert_eq!(engine.counter("cluster.c.upstream_rq_retry_limit_exceeded"), 2);
    assert_eq!(engine.counter("cluster.c.upstream_cx_total"), 2);
}
