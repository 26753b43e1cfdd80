//! The backend: answers `/0`, `/1k`, `/16k` and `/1m` with that many bytes, and `/bulk` with bytes without end.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;

use super::{BACKEND, LISTENER};

const SIZES: [(&str, usize); 4] =
    [("/0", 0), ("/1k", 1024), ("/16k", 16 * 1024), ("/1m", 1024 * 1024)];
const BULK_CHUNK: usize = 128 * 1024;
const BACKLOG: i32 = 4096;

/// Listeners, their connections, and the answers, encoded once.
pub struct Backend {
    listeners: Vec<TcpListener>,
    connections: Vec<Option<Connection>>,
    answers: Vec<(&'static str, Vec<u8>)>,
    bulk: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    /// A request that has not ended yet.
    partial: Vec<u8>,
    /// What is still to be sent: which answer, from which byte.
    sending: Option<(Answer, usize)>,
}

#[derive(Clone, Copy)]
enum Answer {
    Sized(usize),
    Bulk,
}

impl Backend {
    /// Listens on `listeners` free ports of 127.0.0.1.
    pub fn bind(listeners: usize) -> Result<Self> {
        let listeners = (0..listeners).map(|_| listen()).collect::<Result<Vec<_>>>()?;
        let answers = SIZES.iter().map(|(path, size)| (*path, answer(*size))).collect();
        Ok(Self { listeners, connections: Vec::new(), answers, bulk: vec![b'x'; BULK_CHUNK] })
    }

    pub fn addresses(&self) -> Result<Vec<SocketAddr>> {
        self.listeners
            .iter()
            .map(|listener| listener.local_addr().context("a listener's address"))
            .collect()
    }

    pub fn register(&self, epoll: &OwnedFd) -> Result<()> {
        for (index, listener) in self.listeners.iter().enumerate() {
            epoll::add(
                epoll,
                listener,
                EventData::new_u64(LISTENER | index as u64),
                EventFlags::IN,
            )?;
        }
        Ok(())
    }

    pub fn accept(&mut self, listener: usize, epoll: &OwnedFd) -> Result<()> {
        let Ok((stream, _)) = self.listeners[listener].accept() else { return Ok(()) };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let index =
            self.connections.iter().position(Option::is_none).unwrap_or(self.connections.len());
        epoll::add(epoll, &stream, EventData::new_u64(BACKEND | index as u64), EventFlags::IN)?;
        let connection = Connection { stream, partial: Vec::new(), sending: None };
        if index == self.connections.len() {
            self.connections.push(Some(connection));
        } else {
            self.connections[index] = Some(connection);
        }
        Ok(())
    }

    pub fn ready(&mut self, index: usize, epoll: &OwnedFd, scratch: &mut [u8]) {
        let Some(connection) = &mut self.connections[index] else { return };
        let sent_or_read = match connection.sending {
            Some(_) => connection.send(&self.answers, &self.bulk),
            None => connection.receive(&self.answers, &self.bulk, scratch),
        };
        let flags = if connection.sending.is_some() { EventFlags::OUT } else { EventFlags::IN };
        let token = EventData::new_u64(BACKEND | index as u64);
        let gone = match sent_or_read {
            Ok(Progress::Same) => false,
            Ok(Progress::Turned) => epoll::modify(epoll, &connection.stream, token, flags).is_err(),
            Err(Closed) => true,
        };
        if gone {
            self.connections[index] = None;
        }
    }
}

/// Whether the connection now waits for something else than before.
enum Progress {
    Same,
    Turned,
}

struct Closed;

impl Connection {
    fn receive(
        &mut self,
        answers: &[(&'static str, Vec<u8>)],
        bulk: &[u8],
        scratch: &mut [u8],
    ) -> Result<Progress, Closed> {
        let count = match self.stream.read(scratch) {
            Ok(0) => return Err(Closed),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Progress::Same),
            Err(_) => return Err(Closed),
        };
        let fresh = &scratch[..count];
        if !self.partial.is_empty() || !fresh.ends_with(b"\r\n\r\n") {
            self.partial.extend_from_slice(fresh);
            if !self.partial.ends_with(b"\r\n\r\n") {
                return Ok(Progress::Same);
            }
        }
        let request = if self.partial.is_empty() { fresh } else { &self.partial };
        let answer = choose(answers, request).ok_or(Closed)?;
        self.partial.clear();
        self.sending = Some((answer, 0));
        self.send(answers, bulk)?;
        Ok(if self.sending.is_some() { Progress::Turned } else { Progress::Same })
    }

    fn send(
        &mut self,
        answers: &[(&'static str, Vec<u8>)],
        bulk: &[u8],
    ) -> Result<Progress, Closed> {
        let Some((answer, from)) = self.sending else { return Ok(Progress::Same) };
        let bytes = match answer {
            Answer::Sized(index) => &answers[index].1[from..],
            Answer::Bulk => bulk,
        };
        let count = match self.stream.write(bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => return Err(Closed),
        };
        match answer {
            Answer::Bulk => {}
            Answer::Sized(_) if count == bytes.len() => self.sending = None,
            Answer::Sized(_) => self.sending = Some((answer, from + count)),
        }
        Ok(if self.sending.is_some() { Progress::Same } else { Progress::Turned })
    }
}

/// The length of what `path` is answered with.
pub(super) fn size_of(path: &str) -> Option<usize> {
    SIZES.iter().find(|(known, _)| *known == path).map(|(_, size)| *size)
}

fn choose(answers: &[(&'static str, Vec<u8>)], request: &[u8]) -> Option<Answer> {
    let path = request.strip_prefix(b"GET ")?.split(|b| *b == b' ').next()?;
    if path == b"/bulk" {
        return Some(Answer::Bulk);
    }
    answers.iter().position(|(known, _)| known.as_bytes() == path).map(Answer::Sized)
}

pub(super) fn listen() -> Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn answer(size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 128);
    let head =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {size}\r\n\r\n");
    bytes.extend_from_slice(head.as_bytes());
    bytes.resize(bytes.len() + size, b'x');
    bytes
}
