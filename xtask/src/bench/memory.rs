//! Idle memory: of the process after start, of a connection that has served one request and waits, of what is configured
//! and never used.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;

use super::Bench;
use super::load::{Backend, Block, END_STREAM, Frames, Load, kind};
use super::peers::{Idle, Peer, Running, Shape};
use super::process::pause;
use super::report::MemoryRow;

const CONNECTIONS: usize = 4000;
/// So many of each thing that is configured and never used.
const IDLE: usize = 1000;
/// Listeners have sockets, so there are fewer.
const LISTENERS: usize = 200;
const MANY_CLUSTERS: usize = 10_000;
const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nhost: bench\r\n\r\n";

/// Measures one proxy.
pub fn measure(bench: &Bench, peer: Peer) -> Result<MemoryRow> {
    let backend = Backend::http1(1)?;
    let backends = backend.addresses()?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| Load::new(backend)?.serve_until(&stop));
        let row = measure_before(bench, peer, &backends);
        stop.store(true, Ordering::Relaxed);
        serving.join().map_err(|_| anyhow::anyhow!("the backend's thread panicked"))??;
        row
    })
}

fn measure_before(bench: &Bench, peer: Peer, backends: &[SocketAddr]) -> Result<MemoryRow> {
    let start = |shape, http2, idle| {
        let mut setting = bench.setting(shape, backends.to_vec())?;
        setting.http2 = http2;
        setting.idle = idle;
        setting.realtime = false;
        peer.start(&bench.root, &setting)
    };
    let http = start(Shape::Http, false, Idle::default())?;
    let process = settled(&http);
    let per_http_connection =
        per_connection(&http, |address| http1_exchange(TcpStream::connect(address)?))?;
    drop(http);
    let tls_config = bench.certificates.client()?;
    let tls = start(Shape::Tls, false, Idle::default())?;
    let per_tls_connection = per_connection(&tls, |address| {
        let name = ServerName::try_from("bench.local").context("the server's name")?;
        let session = rustls::ClientConnection::new(Arc::clone(&tls_config), name)?;
        http1_exchange(rustls::StreamOwned::new(session, TcpStream::connect(address)?))
    })?;
    drop(tls);
    let http2 = start(Shape::Http, true, Idle::default())?;
    let per_http2_connection = per_connection(&http2, http2_exchange)?;
    drop(http2);
    let row = MemoryRow {
        proxy: peer.name(),
        process,
        per_http_connection,
        per_tls_connection,
        per_http2_connection,
        per_cluster: f64::NAN,
        per_endpoint: f64::NAN,
        per_listener: f64::NAN,
        per_virtual_host: f64::NAN,
        many_clusters_seconds: f64::NAN,
    };
    // The others' notions of a cluster, an endpoint, a listener are not these.
    if !matches!(peer, Peer::Outrigger | Peer::Envoy) {
        return Ok(row);
    }
    let each = |count: usize, idle: Idle| -> Result<f64> {
        Ok((settled(&start(Shape::Http, false, idle)?) - process) / count as f64)
    };
    let many = start(Shape::Http, false, Idle { clusters: MANY_CLUSTERS, ..Idle::default() })?;
    settled(&many);
    let cpu = many.processes.iter().map(|process| process.cpu_time().total as f64).sum::<f64>();
    Ok(MemoryRow {
        per_cluster: each(IDLE, Idle { clusters: IDLE, ..Idle::default() })?,
        per_endpoint: each(IDLE, Idle { endpoints: IDLE, ..Idle::default() })?,
        per_listener: each(LISTENERS, Idle { listeners: LISTENERS, ..Idle::default() })?,
        per_virtual_host: each(IDLE, Idle { virtual_hosts: IDLE, ..Idle::default() })?,
        many_clusters_seconds: cpu / 1e9,
        ..row
    })
}

/// Opens many connections, serves a request on each (which `exchange` does), and divides what that has added.
fn per_connection<S>(running: &Running, exchange: impl Fn(SocketAddr) -> Result<S>) -> Result<f64> {
    // The first ones pay for what the proxy makes once (pools, upstream connections).
    let mut warm = Vec::new();
    for _ in 0..CONNECTIONS / 10 {
        warm.push(exchange(running.entrance)?);
    }
    let before = settled(running);
    let mut kept = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        kept.push(exchange(running.entrance)?);
    }
    let after = settled(running);
    drop((warm, kept));
    Ok((after - before) / CONNECTIONS as f64)
}

fn http1_exchange<S: Read + Write>(mut stream: S) -> Result<S> {
    stream.write_all(REQUEST)?;
    stream.flush()?;
    let mut answer = Vec::with_capacity(2048);
    let mut chunk = [0; 4096];
    loop {
        let count = stream.read(&mut chunk).context("reading an answer")?;
        answer.extend_from_slice(&chunk[..count]);
        let head = answer.windows(4).position(|w| w == b"\r\n\r\n");
        if head.is_some_and(|end| answer.len() == end + 4 + 1024) {
            return Ok(stream);
        }
        if count == 0 || answer.len() > 4096 {
            bail!("not the answer that was asked for: {}", String::from_utf8_lossy(&answer));
        }
    }
}

fn http2_exchange(address: SocketAddr) -> Result<Frames> {
    let mut frames = Frames::client(TcpStream::connect(address)?);
    frames.headers(1, END_STREAM, &Block::get("/1k").first);
    let (mut body, mut has_ended) = (0, false);
    let mut scratch = [0; 8192];
    while !has_ended {
        frames.flush()?;
        frames.receive(&mut scratch, |_, frame| {
            if frame.kind == kind::DATA {
                body += frame.payload.len();
            }
            has_ended |= frame.stream == 1 && frame.flags & END_STREAM != 0;
            Ok(())
        })?;
    }
    // The acknowledgement of the proxy's settings, so that it waits for nothing.
    frames.flush()?;
    if body != 1024 {
        bail!("not the answer that was asked for: {body} bytes");
    }
    Ok(frames)
}

/// Resident bytes once they have stopped changing.
fn settled(running: &Running) -> f64 {
    let resident =
        || running.processes.iter().map(super::process::Process::resident_bytes).sum::<u64>();
    let mut last = resident();
    let mut since = Instant::now();
    let deadline = Instant::now() + Duration::from_secs(10);
    while since.elapsed() < Duration::from_millis(800) && Instant::now() < deadline {
        pause();
        let now = resident();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last as f64
}
