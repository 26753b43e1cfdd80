//! The byte side of a connection: what was read and not consumed, what is to be written, and the transport between.
//!
//! Sockets are edge-triggered and registered once. `readable` and `writable` are what is known of the edges: a short
//! read or write means drained, so that no system call is spent on hearing "would block".

use std::io::{self, IoSlice};
use std::ops::Range;

use super::socket::Socket;
use super::tls::session::{TlsFailure, TlsSession};
use crate::buffer::{BufferPool, Pending};

/// A connection's bytes. `input` and `output` are plaintext.
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
    /// Reading ended in an error: the peer reset the connection or cut it.
    pub is_broken: bool,
    /// Shut the write side down once `output` is empty.
    pub shutdown_after_flush: bool,
    /// The write side has been shut down.
    pub write_shut: bool,
    /// Plaintext bytes written since somebody last took this for statistics.
    pub sent: u64,
    /// TLS between the bytes and the socket.
    tls: Option<Box<Tls>>,
}

/// TLS at work.
#[derive(Debug)]
struct Tls {
    session: TlsSession,
    /// Records that the socket has not taken yet.
    sealed: Pending,
    /// Application bytes wait for the handshake.
    is_handshaking: bool,
    has_said_goodbye: bool,
    failure: Option<TlsFailure>,
}

/// Where reads land; a worker has one, and lends it to the connection at work.
#[derive(Debug, Default)]
pub struct ReadScratch {
    /// The place of the read at work, then that of the reads made ahead.
    socket: Vec<u8>,
    /// The most that one read takes, of records.
    size: usize,
    /// Where the next read ahead lands.
    ahead: usize,
    plaintext: Vec<u8>,
    replies: Vec<u8>,
}

impl ReadScratch {
    /// Room for one read of `size` bytes, and for as much again twice over that is read ahead. So many bytes of plaintext
    /// come in one read where they are sealed, too.
    pub fn new(size: usize) -> Self {
        let size = size + FRAMING;
        Self { socket: vec![0; 3 * size], size, ahead: size, ..Self::default() }
    }

    /// What was read ahead has been worked on: its place is free.
    pub fn forget_ahead(&mut self) {
        self.ahead = self.size;
    }
}

/// More than TLS and HTTP/2 add to the bytes of one read on their way from one proxy to the next.
const FRAMING: usize = 2 * 1024;

/// What the socket gave, unseen yet, and where in the scratch it lies.
#[derive(Debug)]
pub struct Landed {
    at: usize,
    room: usize,
    result: io::Result<usize>,
}

/// What a read came to.
#[derive(Debug)]
pub enum ReadResult<'s> {
    /// Some bytes.
    Data(&'s [u8]),
    /// Bytes that were the transport's own: there may be more.
    Nothing,
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
    /// The socket is full, or TLS is not ready; the poller will tell when to go on.
    Blocked,
    /// The connection is dead.
    Failed(io::Error),
}

/// So much plaintext is made into records at a time: what the socket does not take stays plaintext.
const SEAL_AT_ONCE: usize = 64 * 1024;
/// The last part may be as long as this.
const SEAL_AT_MOST: usize = SEAL_AT_ONCE + 16 * 1024;

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
            is_broken: false,
            shutdown_after_flush: false,
            write_shut: false,
            sent: 0,
            tls: None,
        }
    }

    /// From here on the socket's bytes are TLS. What is in `input` already is taken for records.
    ///
    /// # Errors
    /// When the peer's first bytes are no handshake, or rustls cannot begin one.
    pub fn secure(&mut self, session: TlsSession, pool: &mut BufferPool) -> Result<(), TlsFailure> {
        let mut records = std::mem::take(&mut self.input);
        let tls = self.tls.insert(Box::new(Tls {
            session,
            sealed: Pending::default(),
            is_handshaking: true,
            has_said_goodbye: false,
            failure: None,
        }));
        let (mut plaintext, mut replies) = (Vec::new(), Vec::new());
        let mut first = records.as_slice().to_vec();
        let opened = tls.session.open(&mut first, &mut plaintext, &mut replies);
        records.clear(pool);
        if !replies.is_empty() {
            tls.sealed.writer(pool).extend_from_slice(&replies);
        }
        if !plaintext.is_empty() {
            self.input.writer(pool).extend_from_slice(&plaintext);
        }
        tls.failure = opened.clone().err();
        opened
    }

    /// The TLS session, if there is one.
    pub fn tls(&self) -> Option<&TlsSession> {
        self.tls.as_deref().map(|tls| &tls.session)
    }

    /// Why TLS failed, if it did.
    pub fn tls_failure(&self) -> Option<&TlsFailure> {
        self.tls.as_deref()?.failure.as_ref()
    }

    /// The handshake has ended since this was last asked.
    pub fn handshake_has_ended(&mut self) -> bool {
        match &mut self.tls {
            Some(tls) if tls.is_handshaking && !tls.session.is_handshaking() => {
                tls.is_handshaking = false;
                true
            }
            _ => false,
        }
    }

    /// The transport has something of its own to write.
    pub fn has_records(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| !tls.sealed.is_empty())
    }

    /// Takes bytes from the socket that `read` will look at later; `None` while there is no place for them.
    #[inline]
    pub fn read_ahead(&self, scratch: &mut ReadScratch) -> Option<Landed> {
        const LEAST_ROOM: usize = 32 * 1024;
        // The next read's bytes begin a line of their own in the processor's caches.
        const LINE: usize = 64;

        let (at, end) = (scratch.ahead, scratch.socket.len());
        let has_ended = self.tls.as_ref().is_some_and(|tls| tls.session.peer_has_closed());
        if end - at < LEAST_ROOM || has_ended {
            return None;
        }
        let landed = self.receive(scratch, at, self.read_size(scratch).min(end - at));
        let count = *landed.result.as_ref().unwrap_or(&0);
        scratch.ahead = (at + count).next_multiple_of(LINE).min(end);
        Some(landed)
    }

    fn read_size(&self, scratch: &ReadScratch) -> usize {
        let framing = if self.tls.is_some() { 0 } else { FRAMING };
        scratch.size.saturating_sub(framing)
    }

    fn receive(&self, scratch: &mut ReadScratch, at: usize, room: usize) -> Landed {
        loop {
            match self.socket.read(&mut scratch.socket[at..at + room]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => return Landed { at, room, result },
            }
        }
    }

    /// Reads, or goes on with what was read ahead.
    #[inline]
    pub fn read<'s>(
        &mut self,
        ahead: Option<Landed>,
        scratch: &'s mut ReadScratch,
        pool: &mut BufferPool,
    ) -> ReadResult<'s> {
        let landed = match (ahead, &self.tls) {
            (Some(landed), _) => landed,
            (None, Some(tls)) if tls.session.peer_has_closed() => {
                (self.readable, self.eof) = (false, true);
                return ReadResult::Eof;
            }
            (None, _) => self.receive(scratch, 0, self.read_size(scratch)),
        };
        match landed.result {
            Ok(0) => {
                (self.readable, self.eof) = (false, true);
                // Without a close_notify this is a truncation (RFC 8446 §6.1).
                self.is_broken = self.tls.is_some();
                match &self.tls {
                    Some(_) => ReadResult::Failed(io::ErrorKind::UnexpectedEof.into()),
                    None => ReadResult::Eof,
                }
            }
            Ok(count) => {
                self.readable = count == landed.room || self.fin_seen;
                let place = landed.at..landed.at + count;
                match self.tls {
                    None => ReadResult::Data(&scratch.socket[place]),
                    Some(_) => self.open(scratch, place, pool),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                ReadResult::WouldBlock
            }
            Err(error) => {
                (self.readable, self.eof, self.is_broken) = (false, true, true);
                ReadResult::Failed(error)
            }
        }
    }

    /// Takes the records in `place` of the scratch apart.
    fn open<'s>(
        &mut self,
        scratch: &'s mut ReadScratch,
        place: Range<usize>,
        pool: &mut BufferPool,
    ) -> ReadResult<'s> {
        let ReadScratch { socket, plaintext, replies, .. } = scratch;
        let Some(tls) = &mut self.tls else { return ReadResult::Nothing };
        plaintext.clear();
        replies.clear();
        let opened = tls.session.open(&mut socket[place], plaintext, replies);
        if !replies.is_empty() {
            tls.sealed.writer(pool).extend_from_slice(replies);
        }
        // The peer's end is told by the next read, socket or not.
        self.readable |= tls.session.peer_has_closed();
        if let Err(failure) = opened {
            (self.readable, self.eof, self.is_broken) = (false, true, true);
            let error = io::Error::other(failure.to_string());
            tls.failure = Some(failure);
            // Best effort: the alert tells the peer why.
            let _ = self.socket.write(tls.sealed.as_slice());
            tls.sealed.clear(pool);
            return ReadResult::Failed(error);
        }
        if plaintext.is_empty() { ReadResult::Nothing } else { ReadResult::Data(plaintext) }
    }

    /// Writes `output`.
    #[inline]
    pub fn flush(&mut self, pool: &mut BufferPool) -> FlushResult {
        if self.tls.is_some() {
            return self.flush_sealed(pool);
        }
        let before = self.output.len();
        let result = write_pending(&self.socket, &mut self.output, &mut self.writable, pool);
        self.sent += (before - self.output.len()) as u64;
        if matches!(result, FlushResult::Done) {
            self.shut_if_asked();
        }
        result
    }

    fn shut_if_asked(&mut self) {
        if self.shutdown_after_flush && !self.write_shut {
            self.write_shut = true;
            self.socket.shutdown_write();
        }
    }

    fn flush_sealed(&mut self, pool: &mut BufferPool) -> FlushResult {
        let Some(tls) = &mut self.tls else { return FlushResult::Done };
        loop {
            match write_pending(&self.socket, &mut tls.sealed, &mut self.writable, pool) {
                FlushResult::Done => {}
                other => return other,
            }
            if tls.session.is_handshaking() {
                return if self.output.is_empty() {
                    FlushResult::Done
                } else {
                    FlushResult::Blocked
                };
            }
            if self.output.is_empty() {
                if !self.shutdown_after_flush || tls.has_said_goodbye {
                    break;
                }
                tls.has_said_goodbye = true;
                tls.session.close(tls.sealed.writer(pool));
                continue;
            }
            let plaintext = self.output.as_slice();
            // A little more than that is not worth a system call of its own.
            let is_last = plaintext.len() <= SEAL_AT_MOST;
            let len = if is_last { plaintext.len() } else { SEAL_AT_ONCE };
            let plaintext = &plaintext[..len];
            let written = seal_and_write(&self.socket, tls, plaintext, &mut self.writable, pool);
            self.sent += plaintext.len() as u64;
            self.output.consume(plaintext.len(), pool);
            if let Err(error) = written {
                return FlushResult::Failed(error);
            }
        }
        self.shut_if_asked();
        FlushResult::Done
    }

    /// Writes what is pending, then `body`, then `tail`, in one system call; what does not fit becomes pending.
    pub fn write_through(
        &mut self,
        body: &[u8],
        tail: &[u8],
        pool: &mut BufferPool,
    ) -> FlushResult {
        if self.tls.is_some() {
            let writer = self.output.writer(pool);
            writer.extend_from_slice(body);
            writer.extend_from_slice(tail);
            return self.flush_sealed(pool);
        }
        while self.writable {
            let head = self.output.as_slice();
            let total = head.len() + body.len() + tail.len();
            let slices = [IoSlice::new(head), IoSlice::new(body), IoSlice::new(tail)];
            let parts =
                if head.is_empty() && tail.is_empty() { &slices[1..2] } else { &slices[..] };
            match self.socket.write_vectored(parts) {
                Ok(count) => {
                    self.writable = count == total;
                    self.sent += count as u64;
                    let from_head = count.min(head.len());
                    let from_body = (count - from_head).min(body.len());
                    let from_tail = count - from_head - from_body;
                    self.output.consume(from_head, pool);
                    return self.keep(&body[from_body..], &tail[from_tail..], pool);
                }
                Err(error) => {
                    if let Some(FlushResult::Failed(error)) =
                        write_failed(error, &mut self.writable)
                    {
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

    /// The connection is about to be closed: a TLS peer that can still hear is told that this is the end. Gives all
    /// memory back.
    pub fn release(&mut self, pool: &mut BufferPool) {
        if let Some(tls) = &mut self.tls {
            if !tls.has_said_goodbye && self.writable && tls.sealed.is_empty() {
                let mut goodbye = Vec::new();
                tls.session.close(&mut goodbye);
                // Best effort: the socket is closed next.
                let _ = self.socket.write(&goodbye);
            }
            tls.sealed.clear(pool);
        }
        self.input.clear(pool);
        self.output.clear(pool);
    }
}

/// Seals plaintext into the pool's scratch and writes from there; only what the socket does not take is kept.
fn seal_and_write(
    socket: &Socket,
    tls: &mut Tls,
    plaintext: &[u8],
    writable: &mut bool,
    pool: &mut BufferPool,
) -> io::Result<()> {
    let mut records = pool.take_records(TlsSession::sealed_len(SEAL_AT_MOST));
    let sealed = tls
        .session
        .seal(plaintext, &mut records)
        .map_err(|failure| io::Error::other(failure.to_string()));
    let result = sealed.and_then(|len| {
        let mut written = 0;
        while *writable && written < len {
            match socket.write(&records[written..len]) {
                Ok(count) => {
                    written += count;
                    *writable = written == len;
                }
                Err(error) => {
                    if let Some(FlushResult::Failed(error)) = write_failed(error, writable) {
                        return Err(error);
                    }
                }
            }
        }
        if written < len {
            tls.sealed.writer(pool).extend_from_slice(&records[written..len]);
        }
        Ok(())
    });
    pool.give_records(records);
    result
}

fn write_pending(
    socket: &Socket,
    pending: &mut Pending,
    writable: &mut bool,
    pool: &mut BufferPool,
) -> FlushResult {
    while !pending.is_empty() {
        if !*writable {
            return FlushResult::Blocked;
        }
        let bytes = pending.as_slice();
        match socket.write(bytes) {
            Ok(count) => {
                *writable = count == bytes.len();
                pending.consume(count, pool);
            }
            Err(error) => {
                if let Some(result) = write_failed(error, writable) {
                    return result;
                }
            }
        }
    }
    FlushResult::Done
}

/// `None` is "try again".
fn write_failed(error: io::Error, writable: &mut bool) -> Option<FlushResult> {
    match error.kind() {
        io::ErrorKind::Interrupted => None,
        io::ErrorKind::WouldBlock => {
            *writable = false;
            Some(FlushResult::Blocked)
        }
        _ => {
            *writable = false;
            Some(FlushResult::Failed(error))
        }
    }
}

#[cfg(test)]
mod tests;
