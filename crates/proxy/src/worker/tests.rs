//! The shape that HTTP/2 needs, proved with a protocol of tests: one downstream connection carries many streams, one
//! upstream connection serves several downstream ones, and what happens to a stream happens to that stream alone.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use codec::event::{Event, StreamId};
use codec::frames;
use codec::headers::{RequestHead, ResponseHead};
use telemetry::stats::{Registry, Scope};

use super::{Change, ListenerId, Message, WorkerHandle, WorkerOptions, spawn};
use crate::filter_manager::{
    CallId, FilterChainFactory, FilterContext, FilterEvent, HeadersStatus, HttpFilter,
    HttpFilterFactory, OutgoingRequest, Phases, WorkerContext,
};
use crate::http::config::{CodecType, HttpConnectionManager, RouteSource};
use crate::http::stats::HttpBlocks;
use crate::listener::config::{FilterChain, ListenAddress, ListenerConfig, TerminalFilter};
use crate::listener::filter_chain::FilterChainIndex;
use crate::route_table::config::{
    Criteria, PathMatch, RouteConfig, TableConfig, VirtualHostConfig,
};
use crate::route_table::{Action, RouteAction, RouteTable, VirtualHost};
use crate::router::config::{ClusterChoice, RetryOn, RetryPolicy, RoutePolicy};
use crate::upstream::cluster::Cluster;
use crate::upstream::config::{ClusterConfig, ClusterRef, UpstreamProtocol};
use crate::upstream::host::{Host, HostAddress, HostOptions, HostSet};
use crate::upstream::stats::ClusterBlocks;

const PATIENCE: Duration = Duration::from_secs(20);
const CLUSTER: ClusterRef = ClusterRef { slot: 0, generation: 0 };

/// Asks the cluster before it lets `/call` pass, and tells upstream what it heard.
#[derive(Debug)]
struct Ask;

#[derive(Default)]
struct Asking(Option<CallId>);

impl HttpFilterFactory for Ask {
    fn create(&self, _cx: &WorkerContext) -> Box<dyn HttpFilter> {
        Box::<Asking>::default()
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
        let mut request = OutgoingRequest::default();
        request.head.set_method(b"GET");
        request.head.set_scheme(b"http");
        request.head.set_authority(b"asked");
        request.head.set_path(b"/asked");
        self.0 = Some(cx.call(CLUSTER, request));
        HeadersStatus::StopIteration
    }
    fn on_event(&mut self, cx: &mut FilterContext<'_>, event: FilterEvent<'_>) {
        match event {
            FilterEvent::CallResponse { id, head, body } if Some(id) == self.0 => {
                assert_eq!(head.status, 200);
                cx.request.fields.set("x-heard", body);
                cx.continue_decoding();
            }
            other => panic!("{other:?}"),
        }
    }
    fn reset(&mut self) {
        self.0 = None;
    }
}

/// One worker, one listener and one host, all speaking the protocol of tests.
fn engine(host: SocketAddr) -> (WorkerHandle, Registry, SocketAddr) {
    let registry = Registry::new();
    let worker = spawn(WorkerOptions { index: 0, registry: registry.clone(), cpu: None }).unwrap();
    let mut config = ClusterConfig::new("c");
    config.http.protocol = UpstreamProtocol::Frames;
    let cluster = Arc::new(Cluster::new(config, ClusterBlocks::new(&registry, "c")));
    let host = Arc::new(Host::new(HostAddress::Tcp(host), HostOptions::default()));
    let changes = [
        Change::Cluster(CLUSTER, Some(cluster)),
        Change::Hosts(CLUSTER, Arc::new(HostSet::new(vec![host]))),
    ];
    worker.mailbox.send(Message::Commit { changes: changes.into(), ack: None });

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut http = HttpConnectionManager::new("t", HttpBlocks::new(&registry, "l", "t"), routes());
    http.codec = CodecType::Frames;
    http.filters = Arc::new(FilterChainFactory {
        filters: vec![("ask".into(), Arc::new(Ask))],
        ..FilterChainFactory::default()
    });
    let chains = vec![Arc::new(FilterChain {
        name: "".into(),
        criteria: Default::default(),
        fingerprint: 0,
        tls: None,
        transport_socket_connect_timeout: None,
        terminal: TerminalFilter::Http(Arc::new(http)),
    })];
    let config = ListenerConfig {
        name: "l".into(),
        stat_prefix: "l".into(),
        stats: registry.block(&Scope::listener("l")),
        tls_stats: None,
        address: ListenAddress::Tcp(address),
        index: FilterChainIndex::build(&chains).unwrap(),
        filter_chains: chains,
        default_filter_chain: None,
        listener_filters: Vec::new(),
        listener_filters_timeout: None,
        continue_on_listener_filters_timeout: false,
        per_connection_buffer_limit: 1 << 20,
        connection_limit: None,
        traffic_direction: Default::default(),
        access_loggers: Vec::new(),
        max_accepts_per_turn: 8,
    };
    let socket = Some(listener.into());
    worker.mailbox.send(Message::AddListener {
        id: ListenerId(1),
        config: Arc::new(config),
        socket,
        ack: None,
    });
    (worker, registry, address)
}

fn routes() -> RouteSource {
    let retry = RetryPolicy {
        on: RetryOn::parse("reset").0,
        base_interval: Duration::from_millis(1),
        max_interval: Duration::from_millis(1),
        ..RetryPolicy::default()
    };
    let policy = RoutePolicy { retry: Some(Arc::new(retry)), ..RoutePolicy::default() };
    let action = RouteAction { policy, ..RouteAction::new(ClusterChoice::Cluster(CLUSTER)) };
    let criteria = Criteria::path(PathMatch::Prefix("/".into()));
    let host = VirtualHost::compile(VirtualHostConfig {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: vec![RouteConfig::new(criteria, Action::Route(Box::new(action)))],
        ..VirtualHostConfig::default()
    });
    RouteSource::Inline(Arc::new(
        RouteTable::new(TableConfig::default(), vec![host.unwrap()]).unwrap(),
    ))
}

/// What the host saw: a request by connection, stream and path, or a stream given up.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Request(usize, String, Option<String>),
    Reset(String),
}

/// A host that answers by path; `/stalled` only once told to, `/flaky` not at its first try.
struct TestHost {
    address: SocketAddr,
    seen: Receiver<Seen>,
    release: Sender<()>,
}

impl TestHost {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, seen) = channel();
        let (release, released) = channel();
        let released = Arc::new(Mutex::new(released));
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (tell, released) = (tell.clone(), Arc::clone(&released));
                std::thread::spawn(move || serve(number, stream.unwrap(), &tell, &released));
            }
        });
        Self { address, seen, release }
    }

    fn next(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).unwrap()
    }
}

fn serve(number: usize, stream: TcpStream, tell: &Sender<Seen>, released: &Mutex<Receiver<()>>) {
    let mut codec = frames::ServerCodec::new();
    let mut peer = Peer::new(stream);
    let (mut open, mut flaky_before) = (Vec::<(StreamId, String)>::new(), false);
    let mut head = RequestHead::new();
    while let Some(event) = peer.next(|input| {
        let decoded = codec.decode(input, &mut head);
        (decoded.consumed, decoded.event)
    }) {
        let mut out = Vec::new();
        match event {
            Event::Head { stream, .. } => {
                let path = String::from_utf8(head.path().to_vec()).unwrap();
                let heard = head.fields.get_str("x-heard").map(str::to_owned);
                tell.send(Seen::Request(number, path.clone(), heard)).unwrap();
                match path.as_str() {
                    "/stalled" | "/left" => {}
                    "/flaky" if !std::mem::replace(&mut flaky_before, true) => {
                        codec.reset(stream, &mut out)
                    }
                    _ => answer(&mut codec, stream, &path, &mut out),
                }
                if path == "/release" {
                    released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                    for (stream, path) in open.drain(..).filter(|(_, path)| path == "/stalled") {
                        answer(&mut codec, stream, &path, &mut out);
                    }
                }
                open.push((stream, path));
            }
            Event::Reset { stream, .. } => {
                let path = open.iter().find(|(id, _)| *id == stream).map(|(_, path)| path.clone());
                tell.send(Seen::Reset(path.unwrap())).unwrap();
            }
            _ => {}
        }
        peer.stream.write_all(&out).unwrap();
    }
}

fn answer(codec: &mut frames::ServerCodec, stream: StreamId, body: &str, out: &mut Vec<u8>) {
    codec.encode_head(stream, &ResponseHead::new(200), false, out);
    codec.encode_data(stream, body.as_bytes(), true, out);
}

/// A connection with what was read and not decoded.
struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, input: Vec::new() }
    }

    /// The next event; `None` at the end of the connection.
    fn next(&mut self, mut decode: impl FnMut(&[u8]) -> (usize, Event)) -> Option<Event> {
        loop {
            let (consumed, event) = decode(&self.input);
            if event != Event::NeedInput {
                self.input.drain(..consumed);
                return Some(event);
            }
            self.input.drain(..consumed);
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

/// A client of the engine.
struct Client {
    peer: Peer,
    codec: frames::ClientCodec,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        Self {
            peer: Peer::new(TcpStream::connect(address).unwrap()),
            codec: frames::ClientCodec::new(),
        }
    }

    fn get(&mut self, path: &str) -> StreamId {
        let mut head = RequestHead::new();
        head.set_method(b"GET");
        head.set_authority(b"test");
        head.set_path(path.as_bytes());
        let mut out = Vec::new();
        let stream = self.codec.encode_head(&head, true, &mut out);
        self.peer.stream.write_all(&out).unwrap();
        stream
    }

    fn reset(&mut self, stream: StreamId) {
        let mut out = Vec::new();
        self.codec.reset(stream, &mut out);
        self.peer.stream.write_all(&out).unwrap();
    }

    /// Reads until a stream's answer is whole: which stream, and its status.
    fn answer(&mut self) -> (StreamId, u16) {
        let mut head = ResponseHead::default();
        let mut status = 0;
        loop {
            let codec = &mut self.codec;
            let event = self.peer.next(|input| {
                let decoded = codec.decode(input, &mut head);
                (decoded.consumed, decoded.event)
            });
            match event.expect("the connection goes on") {
                Event::Head { stream, end_stream } => {
                    status = head.status;
                    if end_stream {
                        return (stream, status);
                    }
                }
                Event::Data { stream, end_stream: true, .. } | Event::End { stream } => {
                    return (stream, status);
                }
                Event::Data { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn request(connection: usize, path: &str) -> Seen {
    Seen::Request(connection, path.to_owned(), None)
}

#[test]
fn streams_share_connections_and_nothing_else() {
    let host = TestHost::start();
    let (worker, registry, address) = engine(host.address);
    let (mut a, mut b) = (Client::connect(address), Client::connect(address));

    // Two streams down, one of them stalled: the other is answered all the same.
    let stalled = a.get("/stalled");
    assert_eq!(host.next(), request(0, "/stalled"));
    let plain = a.get("/plain");
    assert_eq!(host.next(), request(0, "/plain"));
    assert_eq!(a.answer(), (plain, 200));

    // Another client shares the upstream connection.
    let other = b.get("/other");
    assert_eq!(host.next(), request(0, "/other"));
    assert_eq!(b.answer(), (other, 200));

    // A stream that its client gives up is given up upstream; its neighbours are not.
    let left = b.get("/left");
    assert_eq!(host.next(), request(0, "/left"));
    b.reset(left);
    assert_eq!(host.next(), Seen::Reset("/left".into()));

    // A stream that the host resets is tried again, on the same connection.
    let flaky = b.get("/flaky");
    assert_eq!(host.next(), request(0, "/flaky"));
    assert_eq!(host.next(), request(0, "/flaky"));
    assert_eq!(b.answer(), (flaky, 200));
    assert_eq!(registry.counter_value("cluster.c.upstream_rq_retry"), Some(1));

    // A filter's call is a stream like the others, without a client.
    let call = a.get("/call");
    assert_eq!(host.next(), request(0, "/asked"));
    assert_eq!(host.next(), Seen::Request(0, "/call".into(), Some("/asked".into())));
    assert_eq!(a.answer(), (call, 200));

    // The stalled one is still there.
    host.release.send(()).unwrap();
    let release = b.get("/release");
    assert_eq!(host.next(), request(0, "/release"));
    assert_eq!(b.answer(), (release, 200));
    assert_eq!(a.answer(), (stalled, 200));

    assert_eq!(registry.counter_value("cluster.c.upstream_cx_total"), Some(1));
    assert_eq!(registry.counter_value("http.t.downstream_cx_total"), Some(2));
    worker.mailbox.send(Message::Shutdown);
    worker.join();
}

#[test]
fn a_lost_connection_ends_each_of_its_streams_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (worker, registry, address) = engine(listener.local_addr().unwrap());
    let mut client = Client::connect(address);
    let streams = [client.get("/1"), client.get("/2")];
    let accept = |requests: usize| {
        let mut peer = Peer::new(listener.accept().unwrap().0);
        let mut codec = frames::ServerCodec::new();
        let mut head = RequestHead::new();
        for _ in 0..requests {
            peer.next(|input| {
                let decoded = codec.decode(input, &mut head);
                (decoded.consumed, decoded.event)
            });
        }
    };
    // Both are tried again on the next connection, which is lost, too.
    accept(2);
    accept(2);
    let mut answers = [client.answer(), client.answer()];
    answers.sort_by_key(|(stream, _)| stream.0);
    assert_eq!(answers, streams.map(|stream| (stream, 503)));
    assert_eq!(registry.counter_value("cluster.c.upstream_rq_retry_limit_exceeded"), Some(2));
    worker.mailbox.send(Message::Shutdown);
    worker.join();
}
