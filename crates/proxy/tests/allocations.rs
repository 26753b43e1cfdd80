//! A request that passes through allocates nothing once the worker is warm: with request id, statistics and access log on.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proxy::access_log::sink::{BufferOptions, Destination, Sinks};
use proxy::access_log::{Environment, Format, Layout as LogLayout, Log};
use proxy::http::config::{HttpConnectionManager, RouteSource};
use proxy::http::stats::HttpBlocks;
use proxy::listener::config::{FilterChain, ListenAddress, ListenerConfig, TerminalFilter};
use proxy::listener::filter_chain::FilterChainIndex;
use proxy::network::downstream::Downstream;
use proxy::route_table::config::{
    Criteria, PathMatch, RouteConfig, TableConfig, VirtualHostConfig,
};
use proxy::route_table::{Action, RouteAction, RouteTable, VirtualHost};
use proxy::router::config::ClusterChoice;
use proxy::stream_info::{AccessLogger, LogRecord};
use proxy::upstream::cluster::Cluster;
use proxy::upstream::config::{ClusterConfig, ClusterRef};
use proxy::upstream::connection::UpstreamConnection;
use proxy::upstream::host::{Host, HostAddress, HostOptions, HostSet};
use proxy::upstream::stats::ClusterBlocks;
use proxy::worker::{Change, ListenerId, Message, WorkerOptions, spawn};
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

#[test]
fn a_request_that_passes_through_allocates_nothing() {
    const LOG: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
        %RESPONSE_FLAGS% %BYTES_SENT% %DURATION% \"%REQ(X-REQUEST-ID)%\" \"%UPSTREAM_HOST%\"\n";
    let registry = Registry::new();
    let worker = spawn(WorkerOptions { index: 0, registry: registry.clone(), cpu: None }).unwrap();
    let at = ClusterRef { slot: 0, generation: 0 };
    let cluster = Cluster::new(ClusterConfig::new("c"), ClusterBlocks::new(&registry, "c"));
    let host = Arc::new(Host::new(HostAddress::Tcp(backend()), HostOptions::default()));
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

    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut buffer = vec![0; 8192];
    let mut get = || {
        client.write_all(b"GET /x?y=1 HTTP/1.1\r\nhost: a\r\nuser-agent: t\r\n\r\n").unwrap();
        let mut length = 0;
        // The body is the only part with so many in a row.
        while !buffer[..length].ends_with(&[b'x'; 1024]) {
            length += client.read(&mut buffer[length..]).unwrap();
        }
    };
    // Long enough for the log's buffers to have grown to what they are flushed at.
    (0..3000).for_each(|_| get());
    let before = ALLOCATOR.0.load(Ordering::Relaxed);
    (0..300).for_each(|_| get());
    assert_eq!(ALLOCATOR.0.load(Ordering::Relaxed) - before, 0);
    worker.mailbox.send(Message::Shutdown);
    worker.join();
}

#[test]
fn state_stays_small() {
    // An idle HTTP/1 connection is one of these, its `ConnectionInfo`, a codec and no buffer.
    assert!(size_of::<Downstream>() <= 512, "{}", size_of::<Downstream>());
    assert!(size_of::<UpstreamConnection>() <= 512, "{}", size_of::<UpstreamConnection>());
    let stream = size_of::<proxy::http::stream::Stream>();
    assert!(stream <= 2048, "{stream}");
}
