//! A gRPC server that gives each call the same answer, over HTTP/2 without TLS.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context, Result};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;

use super::super::{BACKEND, LISTENER, backend};
use super::{Block, END_STREAM, Frames, kind, message};

pub struct Backend {
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    answer: Block,
    message: Vec<u8>,
    trailers: Block,
}

struct Connection {
    frames: Frames,
    has_answered: bool,
    /// Calls that wait for the connection's window.
    waiting: Vec<u32>,
    wants_to_write: bool,
}

impl Backend {
    pub fn bind() -> Result<Self> {
        let (answer, trailers) = (Block::answer(), Block::trailers());
        let listener = backend::listen()?;
        Ok(Self { listener, connections: Vec::new(), answer, message: message(), trailers })
    }

    pub fn addresses(&self) -> Result<Vec<SocketAddr>> {
        Ok(vec![self.listener.local_addr().context("a listener's address")?])
    }

    pub fn register(&self, epoll: &OwnedFd) -> Result<()> {
        Ok(epoll::add(epoll, &self.listener, EventData::new_u64(LISTENER), EventFlags::IN)?)
    }

    pub fn accept(&mut self, epoll: &OwnedFd) -> Result<()> {
        let Ok((stream, _)) = self.listener.accept() else { return Ok(()) };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let index =
            self.connections.iter().position(Option::is_none).unwrap_or(self.connections.len());
        epoll::add(epoll, &stream, EventData::new_u64(BACKEND | index as u64), EventFlags::IN)?;
        let (frames, waiting) = (Frames::server(stream), Vec::new());
        let mut connection =
            Connection { frames, has_answered: false, waiting, wants_to_write: false };
        connection.frames.flush()?;
        if index == self.connections.len() {
            self.connections.push(Some(connection));
        } else {
            self.connections[index] = Some(connection);
        }
        Ok(())
    }

    pub fn ready(&mut self, index: usize, epoll: &OwnedFd, scratch: &mut [u8]) {
        let Self { connections, answer, message, trailers, .. } = self;
        let Some(connection) = &mut connections[index] else { return };
        // A connection that ends is the proxy's affair.
        if connection.serve(index, epoll, scratch, answer, message, trailers).is_err() {
            connections[index] = None;
        }
    }
}

impl Connection {
    fn serve(
        &mut self,
        index: usize,
        epoll: &OwnedFd,
        scratch: &mut [u8],
        answer: &Block,
        message: &[u8],
        trailers: &Block,
    ) -> Result<()> {
        let waiting = &mut self.waiting;
        self.frames.receive(scratch, |_, frame| {
            let ends = matches!(frame.kind, kind::HEADERS | kind::DATA);
            if ends && frame.flags & END_STREAM != 0 {
                waiting.push(frame.stream);
            }
            Ok(())
        })?;
        let mut answered = 0;
        for stream in &self.waiting {
            if self.frames.room() < message.len() as i64 {
                break;
            }
            let is_first = !std::mem::replace(&mut self.has_answered, true);
            self.frames.headers(*stream, 0, answer.at(is_first));
            self.frames.data(*stream, 0, message);
            self.frames.headers(*stream, END_STREAM, trailers.at(is_first));
            answered += 1;
        }
        self.waiting.drain(..answered);
        let wants_to_write = !self.frames.flush()?;
        if wants_to_write != self.wants_to_write {
            let flags =
                if wants_to_write { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(
                epoll,
                &self.frames.socket,
                EventData::new_u64(BACKEND | index as u64),
                flags,
            )?;
            self.wants_to_write = wants_to_write;
        }
        Ok(())
    }
}
