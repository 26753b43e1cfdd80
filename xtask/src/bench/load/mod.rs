//! The load generator and the backend behind the proxies: one thread, one epoll loop, no allocation per request.
//!
//! Both ends run on the one core that is not the proxy's, so that nothing but the proxy runs on its own.

mod backend;
mod client;
mod http2;
mod response;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::time::Timespec;

pub(super) use client::connect;
pub use http2::{Block, END_STREAM, Frames, Multiplexed, kind};

/// What the clients do with their connections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// One request after the other on each connection.
    KeepAlive,
    /// A connection for each request.
    NewConnection,
    /// One request, then bytes without end.
    Bulk,
}

/// The load of one measurement.
#[derive(Clone)]
pub struct Plan {
    pub target: SocketAddr,
    pub connections: usize,
    pub path: &'static str,
    pub pattern: Pattern,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// HTTP/2 instead of HTTP/1.1, and how.
    pub http2: Option<Multiplexed>,
}

/// What came of a stretch of load.
#[derive(Default)]
pub struct Tally {
    pub responses: u64,
    /// Body and head bytes received (of plaintext, below TLS: of records).
    pub bytes: u64,
    pub errors: u64,
    /// The first thing that went wrong, in words.
    pub first_error: Option<String>,
    /// One entry per response, in microseconds.
    pub latencies: Vec<u32>,
}

impl Tally {
    fn error(&mut self, what: impl std::fmt::Display) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| what.to_string());
    }

    /// The latency that `share` of the responses stayed within, in microseconds.
    pub fn percentile(&mut self, share: f64) -> u32 {
        self.latencies.sort_unstable();
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * share) as usize).copied().unwrap_or(0)
    }
}

/// Which of the loop's tables an event belongs to; the low half of the token is the index in it.
const CLIENT: u64 = 0;
const BACKEND: u64 = 1 << 32;
const LISTENER: u64 = 2 << 32;

/// What answers behind the proxies.
pub enum Backend {
    Http1(backend::Backend),
    /// One gRPC method over HTTP/2.
    Grpc(http2::Backend),
}

impl Backend {
    /// HTTP/1 on so many free ports of 127.0.0.1.
    pub fn http1(listeners: usize) -> Result<Self> {
        Ok(Self::Http1(backend::Backend::bind(listeners)?))
    }

    /// gRPC on a free port of 127.0.0.1.
    pub fn grpc() -> Result<Self> {
        Ok(Self::Grpc(http2::Backend::bind()?))
    }

    pub fn addresses(&self) -> Result<Vec<SocketAddr>> {
        match self {
            Self::Http1(backend) => backend.addresses(),
            Self::Grpc(backend) => backend.addresses(),
        }
    }
}

enum Clients {
    Http1(client::Clients),
    Http2(http2::Clients),
}

/// The loop: a backend, and the clients of the current plan.
pub struct Load {
    epoll: OwnedFd,
    backend: Backend,
    clients: Option<Clients>,
    events: Vec<epoll::Event>,
    scratch: Box<[u8]>,
}

impl Load {
    pub fn new(backend: Backend) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll_create")?;
        match &backend {
            Backend::Http1(backend) => backend.register(&epoll)?,
            Backend::Grpc(backend) => backend.register(&epoll)?,
        }
        let event =
            epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let scratch = vec![0; 256 * 1024].into_boxed_slice();
        Ok(Self { epoll, backend, clients: None, events: vec![event; 256], scratch })
    }

    /// Opens the plan's connections; those of the plan before are closed.
    pub fn begin(&mut self, plan: &Plan) -> Result<()> {
        self.clients = None;
        self.clients = Some(match plan.http2 {
            None => Clients::Http1(client::Clients::open(plan, &self.epoll)?),
            Some(load) => Clients::Http2(http2::Clients::open(plan, load, &self.epoll)?),
        });
        Ok(())
    }

    /// Closes the clients' connections.
    pub fn end(&mut self) {
        self.clients = None;
    }

    /// Runs the plan for a while, polling without ever sleeping, and tells what came of it.
    pub fn run(&mut self, stretch: Duration) -> Result<Tally> {
        let mut tally = Tally { latencies: Vec::with_capacity(1 << 20), ..Tally::default() };
        let began = Instant::now();
        while began.elapsed() < stretch {
            self.turn(&mut tally, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        }
        Ok(tally)
    }

    /// Serves as a backend only, asleep between events, until told to stop.
    pub fn serve_until(&mut self, stop: &std::sync::atomic::AtomicBool) -> Result<()> {
        let mut tally = Tally::default();
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            self.turn(&mut tally, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 }))?;
        }
        Ok(())
    }

    fn turn(&mut self, tally: &mut Tally, timeout: Option<&Timespec>) -> Result<()> {
        let count = match epoll::wait(&self.epoll, self.events.as_mut_slice(), timeout) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(error) => return Err(error).context("epoll_wait"),
        };
        for event in &self.events[..count] {
            let token = event.data.u64();
            let index = (token & 0xffff_ffff) as usize;
            match token & !0xffff_ffff {
                LISTENER => match &mut self.backend {
                    Backend::Http1(backend) => backend.accept(index, &self.epoll)?,
                    Backend::Grpc(backend) => backend.accept(&self.epoll)?,
                },
                BACKEND => match &mut self.backend {
                    Backend::Http1(backend) => backend.ready(index, &self.epoll, &mut self.scratch),
                    Backend::Grpc(backend) => backend.ready(index, &self.epoll, &mut self.scratch),
                },
                _ => match &mut self.clients {
                    None => {}
                    Some(Clients::Http1(clients)) => {
                        clients.ready(index, &self.epoll, &mut self.scratch, tally)?;
                    }
                    Some(Clients::Http2(clients)) => {
                        clients.ready(index, &self.epoll, &mut self.scratch, tally)?;
                    }
                },
            }
        }
        Ok(())
    }
}
