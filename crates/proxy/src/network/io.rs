//! The byte side of a connection: what was read and not consumed, what is to be written, and the transport between.
//!
//! Sockets are edge-triggered and registered once. `readable` and `writable` are what is known of the edges: a short
//! read or write means drained, so that no system call is spent on hearing "would block".

use std::io::{self, IoSlice};

use super::socket::Socket;
use crate::buffer::{BufferPool, Pending};

/// A connection's bytes.
#[derive(Debug)]
pub struct Io {
    /// The socket.
    pub socket: Socket,
    /// Read and not consumed yet.
    pub input: Pending,
    /// Encoded and not written yet.
    pub output: Pending,
    /// There may be bytes to read.
    pub readable: bool,
    /// Bytes can be written, as far as is known.
    pub writable: bool,
    /// The poller has seen the peer's FIN: a short read does not mean drained.
    pub fin_seen: bool,
    /// Everything the peer sent has been read.
    pub eof: bool,
    /// Shut the write side down once `output` is empty.
    pub shutdown_after_flush: bool,
    /// The write side has been shut down.
    pub write_shut: bool,
}

/// What a read came to.
#[derive(Debug)]
pub enum ReadResult {
    /// So many bytes.
    Data(usize),
    /// Nothing for now.
    WouldBlock,
    /// The peer has finished in an orderly way.
    Eof,
    /// It has not.
    Failed(io::Error),
}

/// What a flush came to.
#[derive(Debug)]
pub enum FlushResult {
    /// Everything is written.
    Done,
    /// The socket is full; the poller will tell when it is not.
    Blocked,
    /// The connection is dead.
    Failed(io::Error),
}

impl Io {
    /// A connection; `connected` sockets may be read and written at once.
    pub fn new(socket: Socket, connected: bool) -> Self {
        Self {
            socket,
            input: Pending::default(),
            output: Pending::default(),
            readable: connected,
            writable: connected,
            fin_seen: false,
            eof: false,
            shutdown_after_flush: false,
            write_shut: false,
        }
    }

    /// Reads into `buffer`.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> ReadResult {
        loop {
            return match self.socket.read(buffer) {
                Ok(0) => {
                    self.readable = false;
                    self.eof = true;
                    ReadResult::Eof
                }
                Ok(count) => {
                    self.readable = count == buffer.len() || self.fin_seen;
                    ReadResult::Data(count)
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    ReadResult::WouldBlock
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.readable = false;
                    self.eof = true;
                    ReadResult::Failed(error)
                }
            };
        }
    }

    /// Writes `output`.
    #[inline]
    pub fn flush(&mut self, pool: &mut BufferPool) -> FlushResult {
        while !self.output.is_empty() {
            if !self.writable {
                return FlushResult::Blocked;
            }
            let pending = self.output.as_slice();
            match self.socket.write(pending) {
                Ok(count) => {
                    self.writable = count == pending.len();
                    self.output.consume(count, pool);
                }
                Err(error) => {
                    if let Some(result) = self.write_failed(error) {
                        return result;
                    }
                }
            }
        }
        if self.shutdown_after_flush && !self.write_shut {
            self.write_shut = true;
            self.socket.shutdown_write();
        }
        FlushResult::Done
    }

    /// Writes what is pending, then `body`, then `tail`, in one system call; what does not fit becomes pending.
    pub fn write_through(&mut self, body: &[u8], tail: &[u8], pool: &mut BufferPool) -> FlushResult {
        while self.writable {
            let head = self.output.as_slice();
            let total = head.len() + body.len() + tail.len();
            let slices = [IoSlice::new(head), IoSlice::new(body), IoSlice::new(tail)];
            match self.socket.write_vectored(&slices) {
                Ok(count) => {
                    self.writable = count == total;
                    let from_head = count.min(head.len());
                    let from_body = (count - from_head).min(body.len());
                    let from_tail = count - from_head - from_body;
                    self.output.consume(from_head, pool);
                    return self.keep(&body[from_body..], &tail[from_tail..], pool);
                }
                Err(error) => {
                    if let Some(FlushResult::Failed(error)) = self.write_failed(error) {
                        return FlushResult::Failed(error);
                    }
                }
            }
        }
        self.keep(body, tail, pool)
    }

    fn keep(&mut self, body: &[u8], tail: &[u8], pool: &mut BufferPool) -> FlushResult {
        if body.is_empty() && tail.is_empty() {
            return if self.output.is_empty() { FlushResult::Done } else { FlushResult::Blocked };
        }
        let writer = self.output.writer(pool);
        writer.extend_from_slice(body);
        writer.extend_from_slice(tail);
        FlushResult::Blocked
    }

    /// `None` is "try again".
    fn write_failed(&mut self, error: io::Error) -> Option<FlushResult> {
        match error.kind() {
            io::ErrorKind::Interrupted => None,
            io::ErrorKind::WouldBlock => {
                self.writable = false;
                Some(FlushResult::Blocked)
            }
            _ => {
                self.writable = false;
                Some(FlushResult::Failed(error))
            }
        }
    }

    /// Gives all memory back.
    pub fn release(&mut self, pool: &mut BufferPool) {
        self.input.clear(pool);
        self.output.clear(pool);
    }
}
