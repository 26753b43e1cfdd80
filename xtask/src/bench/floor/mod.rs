//! The floor: the cheapest relay that one can write, which no proxy of the same shape can go below.
//!
//! It reads no HTTP, chooses nothing and counts nothing: each client's connection gets an upstream connection of its own,
//! and what comes on one goes out on the other, from the buffer it was read into. One thread, one edge-triggered poller,
//! one read and one write for each message, no allocation (but rustls's, where it terminates or originates TLS).
//! What a proxy costs beyond this, on the machine and in the hour of the measurement, is its own.

mod end;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustls::pki_types::ServerName;

use super::certificates::Certificates;
use super::load::connect;
use end::{End, Received};

/// What the relay is told on its command line.
#[derive(clap::Args)]
pub struct Options {
    listen: SocketAddr,
    /// Clients' connections go to these in turn.
    #[arg(required = true)]
    upstreams: Vec<SocketAddr>,
    /// Whose certificates TLS uses.
    #[arg(long)]
    certificates: PathBuf,
    /// Clients speak TLS.
    #[arg(long)]
    accept_tls: bool,
    /// Clients speak TLS and have a certificate.
    #[arg(long)]
    accept_mutual_tls: bool,
    /// Upstreams speak TLS and want a certificate.
    #[arg(long)]
    connect_mutual_tls: bool,
}

/// Relays until the process is ended; returns only with an error.
pub fn run(options: &Options) -> Result<()> {
    let mut relay = Relay::new(options)?;
    let nothing = epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
    let mut events = vec![nothing; 512];
    loop {
        let count = match epoll::wait(&relay.epoll, events.as_mut_slice(), None) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error).context("epoll_wait"),
        };
        for event in &events[..count] {
            match event.data.u64() {
                LISTENER => relay.accept()?,
                token => relay.ready(token, event.flags),
            }
        }
    }
}

/// Of the listener; a pair's ends have twice the pair's index and one more.
const LISTENER: u64 = u64::MAX;
const CLIENT: usize = 0;
const UPSTREAM: usize = 1;
const READ_SIZE: usize = 64 * 1024;

struct Relay {
    epoll: OwnedFd,
    listener: TcpListener,
    upstreams: Vec<SocketAddr>,
    next_upstream: usize,
    server: Option<Arc<rustls::ServerConfig>>,
    client: Option<Arc<rustls::ClientConfig>>,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    scratch: Box<[u8]>,
}

/// A client and its upstream.
struct Pair([End; 2]);

impl Relay {
    fn new(options: &Options) -> Result<Self> {
        let certificates = Certificates::in_folder(&options.certificates)?;
        let server = match (options.accept_tls, options.accept_mutual_tls) {
            (_, true) => Some(certificates.server(true)?),
            (true, false) => Some(certificates.server(false)?),
            (false, false) => None,
        };
        let client =
            options.connect_mutual_tls.then(|| certificates.mutual_client()).transpose()?;
        let listener = TcpListener::bind(options.listen).context("listening")?;
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll_create")?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Self {
            epoll,
            listener,
            upstreams: options.upstreams.clone(),
            next_upstream: 0,
            server,
            client,
            pairs: Vec::new(),
            free: Vec::new(),
            scratch: vec![0; READ_SIZE].into_boxed_slice(),
        })
    }

    fn accept(&mut self) -> Result<()> {
        let Ok((socket, _)) = self.listener.accept() else { return Ok(()) };
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let accepted = |config| rustls::ServerConnection::new(config).map(Into::into);
        let client = End::new(socket, self.server.clone().map(accepted).transpose()?);
        self.next_upstream = (self.next_upstream + 1) % self.upstreams.len();
        let name = ServerName::try_from("bench.local").context("the upstream's name")?;
        let connecting = |config| rustls::ClientConnection::new(config, name).map(Into::into);
        let socket = connect(self.upstreams[self.next_upstream], None)?;
        let upstream = End::new(socket, self.client.clone().map(connecting).transpose()?);
        let index = self.free.pop().unwrap_or(self.pairs.len());
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        for (side, end) in [(CLIENT, &client), (UPSTREAM, &upstream)] {
            let token = EventData::new_u64((2 * index + side) as u64);
            epoll::add(&self.epoll, &end.socket, token, flags)?;
        }
        let pair = Some(Pair([client, upstream]));
        match self.pairs.get_mut(index) {
            Some(place) => *place = pair,
            None => self.pairs.push(pair),
        }
        Ok(())
    }

    /// An event of a pair that has gone meanwhile is nobody's; one for its successor does no harm.
    fn ready(&mut self, token: u64, flags: EventFlags) {
        let (index, side) = (token as usize / 2, token as usize % 2);
        let Some(pair) = self.pairs.get_mut(index).and_then(Option::as_mut) else { return };
        if !matches!(pair.ready(side, flags, &mut self.scratch), Ok(Going::On)) {
            self.pairs[index] = None;
            self.free.push(index);
        }
    }
}

/// Whether a pair goes on.
enum Going {
    On,
    Ended,
}

impl Pair {
    fn ready(&mut self, side: usize, flags: EventFlags, scratch: &mut [u8]) -> Result<Going> {
        let ends = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let end = &mut self.0[side];
        end.is_readable |= ends || flags.contains(EventFlags::IN);
        end.is_ending |= ends;
        if flags.contains(EventFlags::OUT) && end.has_unsent() {
            end.flush()?;
            self.pass_on(1 - side, scratch)?;
        }
        self.pass_on(side, scratch)?;
        let [client, upstream] = &self.0;
        Ok(if client.has_ended && upstream.has_ended { Going::Ended } else { Going::On })
    }

    /// From one side to the other, until there is no more or the other takes no more.
    fn pass_on(&mut self, from: usize, scratch: &mut [u8]) -> Result<()> {
        let [client, upstream] = &mut self.0;
        let (from, to) = if from == CLIENT { (client, upstream) } else { (upstream, client) };
        while from.is_readable && !from.has_ended && !to.has_unsent() {
            match from.receive(scratch)? {
                Received::Bytes(count) => to.send(&scratch[..count])?,
                Received::Nothing => {}
                Received::End => to.finish()?,
            }
        }
        Ok(())
    }
}
