//! A request that passes through allocates nothing once the worker is warm: with request id, statistics and access log on.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use codec::headers::{Fields, ResponseHead};
use identity::tls::{ClientOptions, ServerOptions};
use proxy::access_log::sink::{BufferOptions, Destination, Sinks};
use proxy::access_log::{Environment, Format, Layout as LogLayout, Log};
use proxy::network::downstream::Downstream;
use proxy::network::tls::session::TlsSession;
use proxy::router::config::RoutePolicy;
use proxy::stream_info::{AccessLogger, LogRecord};
use proxy::upstream::config::{ClusterConfig, UpstreamProtocol};
use proxy::upstream::connection::UpstreamConnection;

use crate::engine::{Authority, Engine, backend, connect};
use crate::peer::{Client, host, request, serve_requests};
use crate::web::{ok, route};

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

/// The workers of several of these tests would be counted together; those of other tests do not ask for it.
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

/// A worker that logs every request and passes it to a host; the folder has the log.
fn engine(host: SocketAddr, protocol: UpstreamProtocol) -> (Engine, SocketAddr, tempfile::TempDir) {
    const LOG: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
        %RESPONSE_FLAGS% %BYTES_SENT% %DURATION% \"%REQ(X-REQUEST-ID)%\" \"%UPSTREAM_HOST%\"\n";
    let engine = Engine::start();
    let mut config = ClusterConfig::new("c");
    config.http.protocol = protocol;
    let cluster = engine.cluster_of(config, &[host], None);
    let folder = tempfile::tempdir().unwrap();
    let sinks = Sinks::new(BufferOptions::default(), engine.registry.clone());
    let sink = sinks.open(&Destination::File(folder.path().join("access.log"))).unwrap();
    let layout = LogLayout::Text(Format::parse(LOG, &Environment::default()).unwrap());
    let log = Arc::new(Log { filter: None, layout, sink });
    let address = engine.serve_http(route(cluster, RoutePolicy::default()), |http| {
        http.access_loggers = vec![log, Arc::new(CountHere)];
    });
    (engine, address, folder)
}

/// What the worker allocates for 300 rounds, once it is warm: the least of several tries, since a log's buffer that its
/// thread was late to empty grows.
fn allocations_of(mut round: impl FnMut()) -> u64 {
    // Long enough for the log's buffers to have grown to what they are flushed at.
    (0..3000).for_each(|_| round());
    let mut least = u64::MAX;
    for _ in 0..10 {
        let before = ALLOCATOR.0.load(Ordering::Relaxed);
        (0..300).for_each(|_| round());
        least = least.min(ALLOCATOR.0.load(Ordering::Relaxed) - before);
        if least == 0 {
            break;
        }
    }
    least
}

/// Keeps the counts of tests apart.
fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn a_request_that_passes_through_allocates_nothing() {
    let _alone = alone();
    let host = backend(|mut stream| {
        let answer = ok(&"x".repeat(1024));
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).unwrap_or(0) > 0 {
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let (_engine, address, _folder) = engine(host, UpstreamProtocol::Http1);
    let mut client = connect(address);
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
}

#[test]
fn a_call_from_http2_to_http2_allocates_nothing() {
    let _alone = alone();
    let mut answer = ResponseHead::new(200);
    answer.fields.append("content-type", b"application/grpc");
    let mut trailers = Fields::new();
    trailers.append("grpc-status", b"0");
    let host = host(move |_, host| {
        serve_requests(host, |host, stream, _, body, _| {
            host.write(|codec, out| {
                codec.encode_head(stream, &answer, false, out);
                codec.encode_data(stream, &body, false, out);
                codec.encode_trailers(stream, &trailers, out);
            });
        });
    });
    let (_engine, address, _folder) = engine(host, UpstreamProtocol::Http2);
    let mut client = Client::connect(address);
    let mut head = request("POST", "/package.Service/Method");
    head.fields.append("content-type", b"application/grpc");
    head.fields.append("te", b"trailers");
    const AT_ONCE: usize = 8;
    let round = || {
        let streams = client.peer.write(|codec, out| {
            [(); AT_ONCE].map(|()| {
                let stream = codec.encode_head(&head, false, out);
                codec.encode_data(stream, &[7; 100], true, out);
                stream
            })
        });
        for stream in streams {
            let answer = client.answer(stream);
            assert!(answer.body.len() == 100 && answer.trailers.is_some(), "{answer:?}");
        }
    };
    assert_eq!(allocations_of(round), 0);
}

/// Two ends of TLS with the handshake behind them: the server's, and its client.
fn tls() -> (TlsSession, TlsSession) {
    let authority = Authority::new();
    let certificates = vec![authority.certificate("a.example")];
    let server = ServerOptions { certificates, ..ServerOptions::default() };
    let client = ClientOptions { validation: authority.validation(), ..ClientOptions::default() };
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
    let _alone = alone();
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
