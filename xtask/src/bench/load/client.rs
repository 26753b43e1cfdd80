//! The clients: closed-loop connections, plain or TLS, kept or opened anew for each request.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};

use super::response::{Reading, ResponseReader};
use super::{CLIENT, Pattern, Plan, Tally};

/// A connection for each request uses up the ports of an address quickly: take turns over so many.
const SOURCE_ADDRESSES: u8 = 64;

/// The clients of one plan.
pub struct Clients {
    plan: Plan,
    request: Vec<u8>,
    connections: Vec<Client>,
    next_source: u8,
}

struct Client {
    stream: TcpStream,
    tls: Option<Box<rustls::ClientConnection>>,
    reader: ResponseReader,
    sent_at: Instant,
    /// The request waits for the connection (and, under TLS, the handshake).
    request_pending: bool,
}

impl Clients {
    pub fn open(plan: &Plan, epoll: &OwnedFd) -> Result<Self> {
        let request = format!(
            "GET {} HTTP/1.1\r\nhost: bench\r\nuser-agent: bench\r\naccept: */*\r\n\r\n",
            plan.path
        );
        let mut clients = Self {
            plan: plan.clone(),
            request: request.into_bytes(),
            connections: Vec::with_capacity(plan.connections),
            next_source: 0,
        };
        for index in 0..plan.connections {
            let client = clients.connect(index, epoll)?;
            clients.connections.push(client);
        }
        Ok(clients)
    }

    pub fn ready(
        &mut self,
        index: usize,
        epoll: &OwnedFd,
        scratch: &mut [u8],
        tally: &mut Tally,
    ) -> Result<()> {
        let client = &mut self.connections[index];
        let outcome = if client.request_pending && client.tls.is_none() {
            client.send_request(&self.request).map(|()| Reading::More)
        } else if self.plan.pattern == Pattern::Bulk {
            client.stream.read(scratch).map_err(Into::into).map(|count| {
                tally.bytes += count as u64;
                if count == 0 { Reading::Broken } else { Reading::More }
            })
        } else {
            client.receive(&self.request, scratch, tally)
        };
        match outcome {
            Ok(Reading::More) => self.listen_only(index, epoll),
            Ok(Reading::Done { ok }) => self.complete(index, ok, epoll, tally),
            Ok(Reading::Broken) => self.replace(index, "the response is not one", epoll, tally),
            Err(error) if would_block(&error) => Ok(()),
            Err(error) => self.replace(index, &format!("{error:#}"), epoll, tally),
        }
    }

    /// A response has ended: count it and ask again.
    fn complete(
        &mut self,
        index: usize,
        ok: bool,
        epoll: &OwnedFd,
        tally: &mut Tally,
    ) -> Result<()> {
        let client = &mut self.connections[index];
        let now = Instant::now();
        if ok {
            tally.responses += 1;
            tally.latencies.push((now - client.sent_at).as_micros() as u32);
        } else {
            tally.error("a response that is not a 200");
        }
        if self.plan.pattern == Pattern::NewConnection {
            self.connections[index] = self.connect(index, epoll)?;
            return Ok(());
        }
        client.sent_at = now;
        match client.send_request(&self.request) {
            Ok(()) => Ok(()),
            Err(error) => self.replace(index, &format!("{error:#}"), epoll, tally),
        }
    }

    fn replace(
        &mut self,
        index: usize,
        why: &str,
        epoll: &OwnedFd,
        tally: &mut Tally,
    ) -> Result<()> {
        tally.error(why);
        if tally.errors > 1000 && tally.responses == 0 {
            bail!("nothing but errors, the first: {}", tally.first_error.as_deref().unwrap_or(why));
        }
        self.connections[index] = self.connect(index, epoll)?;
        Ok(())
    }

    /// Once the request is out there is no need to hear that the socket is writable.
    fn listen_only(&mut self, index: usize, epoll: &OwnedFd) -> Result<()> {
        let client = &mut self.connections[index];
        let handshaking = client.tls_is_handshaking();
        let was_connecting = std::mem::replace(&mut client.request_pending, handshaking);
        if was_connecting {
            epoll::modify(
                epoll,
                &client.stream,
                EventData::new_u64(CLIENT | index as u64),
                EventFlags::IN,
            )?;
        }
        Ok(())
    }

    fn connect(&mut self, index: usize, epoll: &OwnedFd) -> Result<Client> {
        let source = (self.plan.pattern == Pattern::NewConnection).then(|| {
            self.next_source = (self.next_source + 1) % SOURCE_ADDRESSES;
            Ipv4Addr::new(127, 0, 1, self.next_source + 1)
        });
        let stream = connect(self.plan.target, source)?;
        let tls = self.plan.tls.clone().map(|config| {
            let name = ServerName::try_from("bench.local").context("the server's name")?;
            Ok::<_, anyhow::Error>(Box::new(rustls::ClientConnection::new(config, name)?))
        });
        let flags = EventFlags::IN | EventFlags::OUT;
        epoll::add(epoll, &stream, EventData::new_u64(CLIENT | index as u64), flags)?;
        let (reader, sent_at) = (ResponseReader::default(), Instant::now());
        Ok(Client { stream, tls: tls.transpose()?, reader, sent_at, request_pending: true })
    }
}

/// A socket that connects, from `source` if it matters, without waiting for it.
pub fn connect(target: SocketAddr, source: Option<Ipv4Addr>) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
    }
    let in_progress = rustix::io::Errno::INPROGRESS.raw_os_error();
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(in_progress) => {
            Err(error).with_context(|| format!("connecting to {target}"))
        }
        _ => Ok(socket.into()),
    }
}

impl Client {
    fn tls_is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    fn send_request(&mut self, request: &[u8]) -> Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(request)?;
            return self.flush_tls();
        }
        match self.stream.write(request)? {
            count if count == request.len() => Ok(()),
            _ => bail!("the socket took only a part of a request"),
        }
    }

    fn receive(
        &mut self,
        request: &[u8],
        scratch: &mut [u8],
        tally: &mut Tally,
    ) -> Result<Reading> {
        if self.tls.is_some() {
            return self.receive_tls(request, scratch, tally);
        }
        let count = self.stream.read(scratch)?;
        if count == 0 {
            bail!("the proxy closed the connection");
        }
        tally.bytes += count as u64;
        Ok(self.reader.feed(&scratch[..count]))
    }

    fn receive_tls(
        &mut self,
        request: &[u8],
        scratch: &mut [u8],
        tally: &mut Tally,
    ) -> Result<Reading> {
        let Some(tls) = &mut self.tls else { return Ok(Reading::Broken) };
        let was_handshaking = tls.is_handshaking();
        match tls.read_tls(&mut self.stream) {
            Ok(0) => bail!("the proxy closed the connection"),
            Ok(count) => tally.bytes += count as u64,
            Err(error) if was_handshaking && error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        let state = tls.process_new_packets()?;
        let mut reading = Reading::More;
        if state.plaintext_bytes_to_read() > 0 {
            let count = tls.reader().read(scratch)?;
            reading = self.reader.feed(&scratch[..count]);
        }
        if was_handshaking {
            if !tls.is_handshaking() {
                tls.writer().write_all(request)?;
            }
            self.flush_tls()?;
        }
        Ok(reading)
    }

    fn flush_tls(&mut self) -> Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            tls.write_tls(&mut self.stream)?;
        }
        Ok(())
    }
}

fn would_block(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::WouldBlock)
}
