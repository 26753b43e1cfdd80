//! A request that passes through allocates nothing once the worker is warm: with request id, statistics and access log on.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use codec::event::{Decoded, Event};
use codec::headers::{Fields, RequestHead, ResponseHead};
use codec::http2;
use identity::chain::TrustRoots;
use identity::tls::{Certificate, ClientOptions, ServerOptions, Validation};
use identity::{CertificateAuthority, CertificateRequest, PrivateKey};
use proxy::access_log::sink::{BufferOptions, Destination, Sinks};
use proxy::access_log::{Environment, Format, Layout as LogLayout, Log};
use proxy::http::config::{HttpConnectionManager, RouteSource};
use proxy::http::stats::HttpBlocks;
use proxy::listener::config::{FilterChain, ListenAddress, ListenerConfig, TerminalFilter};
use proxy::listener::filter_chain::FilterChainIndex;
use proxy::network::downstream::Downstream;
use proxy::network::tls::session::TlsSession;
use proxy::route_table::config::{
    Criteria, PathMatch, RouteConfig, TableConfig, VirtualHostConfig,
};
use proxy::route_table::{Action, RouteAction, RouteTable, VirtualHost};
use proxy::router::config::ClusterChoice;
use proxy::stream_info::{AccessLogger, LogRecord};
use proxy::upstream::cluster::Cluster;
use proxy::upstream::config::{ClusterConfig, ClusterRef, UpstreamProtocol};
use proxy::upstream::connection::UpstreamConnection;
use proxy::upstream::host::{Host, HostAddress, HostOptions, HostSet};
use proxy::upstream::stats::ClusterBlocks;
use proxy::worker::{Change, ListenerId, Message, WorkerHandle, WorkerOptions, spawn};
use telemetry::stats::{Registry, Scope};

thread_local! {
    static COUNTS_HERE: Cell<bool> = const { Cell::new(false) };
}

/// Counts what threads allocate that have asked for it.
struct Counting(AtomicU64);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS_HERE.with(Cell::get) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Other tests' workers would be counted, too.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[global_allocator]
static ALLOCATOR: Counting = Counting(AtomicU64::new(0));

/// Runs on the worker's thread, and makes it count.
#[derive(Debug)]
struct CountHere;

impl AccessLogger for CountHere {
    fn log(&self, _record: &LogRecord<'_>) {
        COUNTS_HERE.with(|here| here.set(true));
    }
}

/// Answers every request with 1 KiB.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1024\r\n\r\n{}", "x".repeat(1024));
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).unwrap_or(0) > 0 {
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

fn routes(at: ClusterRef) -> RouteSource {
    let action = RouteAction::new(ClusterChoice::Cluster(at));
    let criteria = Criteria::path(PathMatch::Prefix("/".into()));
    let host = VirtualHost::compile(VirtualHostConfig {
        name: "all".into(),
        domains: vec!["*".into()],
        routes: vec![RouteConfig::new(criteria, Action::Route(Box::new(action)))],
        ..VirtualHostConfig::default()
    });
    let table = RouteTable::new(TableConfig::default(), vec![host.unwrap()]).unwrap();
    RouteSource::Inline(Arc::new(table))
}

fn listener(
    registry: &Registry,
    address: SocketAddr,
    http: HttpConnectionManager,
) -> Arc<ListenerConfig> {
    let chains = vec![Arc::new(FilterChain {
        name: "".into(),
        criteria: Default::default(),
        fingerprint: 0,
        tls: None,
        transport_socket_connect_timeout: None,
        terminal: TerminalFilter::Http(Arc::new(http)),
    })];
    Arc::new(ListenerConfig {
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
    })
}

/// A worker that logs every request and passes it to a host.
fn engine(
    host: SocketAddr,
    adjust: impl FnOnce(&mut ClusterConfig),
) -> (WorkerHandle, SocketAddr, tempfile::TempDir) {
    const LOG: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
        %RESPONSE_FLAGS% %BYTES_SENT% %DURATION% \"%REQ(X-REQUEST-ID)%\" \"%UPSTREAM_HOST%\"\n";
    let registry = Registry::new();
    let worker = spawn(WorkerOptions { index: 0, registry: registry.clone(), cpu: None }).unwrap();
    let at = ClusterRef { slot: 0, generation: 0 };
    let mut config = ClusterConfig::new("c");
    adjust(&mut config);
    let blocks = ClusterBlocks::new(&registry, "c").with_http2(&registry, "c");
    let cluster = Cluster::new(config, blocks);
    let host = Arc::new(Host::new(HostAddress::Tcp(host), HostOptions::default()));
    let changes = [
        Change::Cluster(at, Some(Arc::new(cluster))),
        Change::Hosts(at, Arc::new(HostSet::new(vec![host]))),
    ];
    worker.mailbox.send(Message::Commit { changes: changes.into(), ack: None });

    let folder = tempfile::tempdir().unwrap();
    let sinks = Sinks::new(BufferOptions::default(), registry.clone());
    let sink = sinks.open(&Destination::File(folder.path().join("access.log"))).unwrap();
    let layout = LogLayout::Text(Format::parse(LOG, &Environment::default()).unwrap());
    let mut http =
        HttpConnectionManager::new("t", HttpBlocks::new(&registry, "l", "t"), routes(at));
    http.access_loggers = vec![Arc::new(Log { filter: None, layout, sink }), Arc::new(CountHere)];
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let config = listener(&registry, address, http);
    let socket = Some(socket.into());
    worker.mailbox.send(Message::AddListener { id: ListenerId(1), config, socket, ack: None });
    (worker, address, folder)
}

/// What the worker allocates for 300 rounds, once it is warm.
fn allocations_of(mut round: impl FnMut()) -> u64 {
    // Long enough for the log's buffers to have grown to what they are flushed at.
    (0..3000).for_each(|_| round());
    let before = ALLOCATOR.0.load(Ordering::Relaxed);
    (0..300).for_each(|_| round());
    ALLOCATOR.0.load(Ordering::Relaxed) - before
}

#[test]
fn a_request_that_passes_through_allocates_nothing() {
    let _one_at_a_time = ONE_AT_A_TIME.lock().unwrap();
    let (worker, address, _folder) = engine(backend(), |_| {});
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut buffer = vec![0; 8192];
    let get = || {
        client.write_all(b"GET /x?y=1 HTTP/1.1\r\nhost: a\r\nuser-agent: t\r\n\r\n").unwrap();
        let mut length = 0;
        // The body is the only part with so many in a row.
        while !buffer[..length].ends_with(&[b'x'; 1024]) {
            length += client.read(&mut buffer[length..]).unwrap();
        }
    };
    assert_eq!(allocations_of(get), 0);
    worker.mailbox.send(Message::Shutdown);
    worker.join();
}

/// Reads what comes until `on_event` has had enough, then writes what it has written.
fn converse<H>(
    socket: &mut TcpStream,
    input: &mut Vec<u8>,
    head: &mut H,
    mut decode: impl FnMut(&[u8], &mut H) -> Decoded,
    mut on_event: impl FnMut(&Event, &mut H) -> bool,
) -> bool {
    let mut buffer = [0; 16 * 1024];
    loop {
        let decoded = decode(input, head);
        input.drain(..decoded.consumed);
        if decoded.event != Event::NeedInput {
            if on_event(&decoded.event, head) {
                return true;
            }
            continue;
        }
        match socket.read(&mut buffer) {
            Ok(count @ 1..) => input.extend_from_slice(&buffer[..count]),
            _ => return false,
        }
    }
}

/// A host of HTTP/2 that answers every request with a head, a message and trailers.
fn http2_backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_nodelay(true).unwrap();
        let codec = RefCell::new(http2::ServerCodec::new(http2::Options::default()));
        let (mut input, mut head) = (Vec::new(), RequestHead::new());
        let mut answer = ResponseHead::new(200);
        answer.fields.append("content-type", b"application/grpc");
        let mut trailers = Fields::new();
        trailers.append("grpc-status", b"0");
        let mut out = Vec::new();
        loop {
            codec.borrow_mut().write_control(&mut out);
            socket.write_all(&out).unwrap();
            out.clear();
            let decode =
                |input: &[u8], head: &mut RequestHead| codec.borrow_mut().decode(input, head);
            let goes_on = converse(&mut socket, &mut input, &mut head, decode, |event, _| {
                let Event::Data { stream, range, end_stream } = event else { return false };
                let mut codec = codec.borrow_mut();
                codec.passed_on(*stream, range.len());
                if *end_stream {
                    codec.encode_head(*stream, &answer, false, &mut out);
                    codec.encode_data(*stream, &[7; 100], false, &mut out);
                    codec.encode_trailers(*stream, &trailers, &mut out);
                }
                *end_stream
            });
            if !goes_on {
                return;
            }
        }
    });
    address
}

#[test]
fn a_call_from_http2_to_http2_allocates_nothing() {
    let _one_at_a_time = ONE_AT_A_TIME.lock().unwrap();
    let (worker, address, _folder) =
        engine(http2_backend(), |config| config.http.protocol = UpstreamProtocol::Http2);
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let codec = RefCell::new(http2::ClientCodec::new(http2::Options::default()));
    let (mut input, mut answer) = (Vec::new(), ResponseHead::default());
    let mut head = RequestHead::new();
    head.set_method(b"POST");
    head.set_scheme(b"http");
    head.set_authority(b"test");
    head.set_path(b"/package.Service/Method");
    head.fields.append("content-type", b"application/grpc");
    head.fields.append("te", b"trailers");
    const AT_ONCE: usize = 8;
    let round = || {
        let mut out = Vec::new();
        for _ in 0..AT_ONCE {
            let mut codec = codec.borrow_mut();
            let stream = codec.encode_head(&head, false, &mut out);
            codec.encode_data(stream, &[7; 100], true, &mut out);
            codec.write_control(&mut out);
        }
        socket.write_all(&out).unwrap();
        let mut ended = 0;
        let decode = |input: &[u8], head: &mut ResponseHead| codec.borrow_mut().decode(input, head);
        let all = converse(&mut socket, &mut input, &mut answer, decode, |event, _| {
            match event {
                Event::Data { stream, range, .. } => {
                    codec.borrow_mut().passed_on(*stream, range.len())
                }
                Event::Trailers { .. } => ended += 1,
                Event::Reset { .. } | Event::Error(_) => panic!("{event:?}"),
                _ => {}
            }
            ended == AT_ONCE
        });
        assert!(all, "the connection goes on");
    };
    assert_eq!(allocations_of(round), 0);
    worker.mailbox.send(Message::Shutdown);
    worker.join();
}

/// Two ends of TLS with the handshake behind them: the server's, and its client.
fn tls() -> (TlsSession, TlsSession) {
    let now = SystemTime::now();
    let ca = CertificateAuthority::self_signed("test", now).unwrap();
    let key = PrivateKey::generate().unwrap();
    let request = CertificateRequest::of_own_key(&key).unwrap();
    let issued = ca.issue_server(&request, &["a.example"], Duration::from_secs(60), now).unwrap();
    let certificate = Certificate::from_pem(&issued.certificates.concat(), &key.to_pem()).unwrap();
    let server = ServerOptions { certificates: vec![certificate], ..ServerOptions::default() };
    let roots = Some(TrustRoots::from_pem(ca.root_pem()).unwrap());
    let validation = Validation { roots, ..Validation::default() };
    let client = ClientOptions { validation, ..ClientOptions::default() };
    let mut server = TlsSession::server(identity::tls::server_config(&server).unwrap()).unwrap();
    let client = identity::tls::client_config(&client).unwrap();
    let mut client = TlsSession::client(client, "a.example".try_into().unwrap()).unwrap();
    let (mut to_server, mut to_client, mut heard) = (Vec::new(), Vec::new(), Vec::new());
    client.open(&mut [], &mut heard, &mut to_server).unwrap();
    while !to_server.is_empty() || !to_client.is_empty() {
        server.open(&mut std::mem::take(&mut to_server), &mut heard, &mut to_client).unwrap();
        client.open(&mut std::mem::take(&mut to_client), &mut heard, &mut to_server).unwrap();
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    (server, client)
}

/// What rustls allocates for a record: one that comes in, and one that it makes before it is copied to where it is wanted.
const TLS_ALLOCATIONS: (u64, u64) = (1, 1);

#[test]
fn a_request_and_its_answer_by_tls_allocate_what_rustls_needs() {
    let _one_at_a_time = ONE_AT_A_TIME.lock().unwrap();
    let (mut server, mut client) = tls();
    let mut records = vec![0; TlsSession::sealed_len(1024)];
    let (mut plaintext, mut replies) = (Vec::new(), Vec::new());
    let counted = |act: &mut dyn FnMut()| {
        let before = ALLOCATOR.0.load(Ordering::Relaxed);
        COUNTS_HERE.with(|here| here.set(true));
        act();
        COUNTS_HERE.with(|here| here.set(false));
        ALLOCATOR.0.load(Ordering::Relaxed) - before
    };
    for round in 0..300 {
        let len = client.seal(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", &mut records).unwrap();
        plaintext.clear();
        let opening = counted(&mut || {
            server.open(&mut records[..len], &mut plaintext, &mut replies).unwrap();
        });
        let mut len = 0;
        let sealing = counted(&mut || len = server.seal(&[b'x'; 1024], &mut records).unwrap());
        plaintext.clear();
        client.open(&mut records[..len], &mut plaintext, &mut replies).unwrap();
        assert!(plaintext.len() == 1024 && replies.is_empty());
        assert!(round < 100 || (opening, sealing) == TLS_ALLOCATIONS, "{opening}, {sealing}");
    }
}

#[test]
fn state_stays_small() {
    // An idle HTTP/1 connection is one of these, its `ConnectionInfo`, a codec and no buffer.
    assert!(size_of::<Downstream>() <= 512, "{}", size_of::<Downstream>());
    assert!(size_of::<UpstreamConnection>() <= 512, "{}", size_of::<UpstreamConnection>());
    let stream = size_of::<proxy::http::stream::Stream>();
    assert!(stream <= 2048, "{stream}");
}
