//! One end of a pair: a socket, TLS or not, and what it has not taken yet.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use anyhow::Result;
use rustls::Connection;

pub struct End {
    pub socket: TcpStream,
    tls: Option<Box<Connection>>,
    /// Without TLS: what the socket did not take. With it, rustls keeps that.
    unsent: Vec<u8>,
    pub is_readable: bool,
    /// The peer hangs up: a short read does not mean that the socket is drained.
    pub is_ending: bool,
    /// Everything that comes has come.
    pub has_ended: bool,
}

/// What a read came to.
pub enum Received {
    /// So many bytes, at the front of the buffer.
    Bytes(usize),
    Nothing,
    End,
}

impl End {
    pub fn new(socket: TcpStream, tls: Option<Connection>) -> Self {
        Self {
            socket,
            tls: tls.map(Box::new),
            unsent: Vec::new(),
            is_readable: true,
            is_ending: false,
            has_ended: false,
        }
    }

    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Reads into `buffer`; under TLS it is left with plaintext.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<Received> {
        let count = match self.socket.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_readable = false;
                return Ok(Received::Nothing);
            }
            Err(error) => return Err(error.into()),
        };
        // A short read has drained the socket, but for a FIN behind it.
        self.is_readable = count == buffer.len() || self.is_ending;
        self.has_ended = count == 0;
        match count {
            0 => Ok(Received::End),
            _ if self.tls.is_some() => self.open(buffer, count),
            _ => Ok(Received::Bytes(count)),
        }
    }

    /// Takes apart the records in the first `count` bytes of `buffer`, whose place their plaintext takes.
    fn open(&mut self, buffer: &mut [u8], count: usize) -> Result<Received> {
        let Some(tls) = &mut self.tls else { return Ok(Received::Nothing) };
        let (mut taken, mut plaintext) = (0, 0);
        while taken < count {
            taken += tls.read_tls(&mut &buffer[taken..count])?;
            let available = tls.process_new_packets()?.plaintext_bytes_to_read();
            // Plaintext is shorter than its records, so this overwrites only what rustls has taken.
            tls.reader().read_exact(&mut buffer[plaintext..plaintext + available])?;
            plaintext += available;
        }
        self.flush()?;
        Ok(if plaintext == 0 { Received::Nothing } else { Received::Bytes(plaintext) })
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.writer().write_all(bytes)?;
            return self.flush();
        }
        let count = match self.socket.write(bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error.into()),
        };
        self.unsent.extend_from_slice(&bytes[count..]);
        Ok(())
    }

    /// Writes what waits, as far as the socket takes it.
    pub fn flush(&mut self) -> Result<()> {
        let written = match &mut self.tls {
            Some(tls) if tls.wants_write() => tls.write_tls(&mut self.socket).map(|_| ()),
            None if !self.unsent.is_empty() => self.socket.write(&self.unsent).map(|count| {
                self.unsent.drain(..count);
            }),
            _ => Ok(()),
        };
        match written {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            written => Ok(written?),
        }
    }

    /// Nothing more will be sent.
    pub fn finish(&mut self) -> Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            self.flush()?;
        }
        Ok(self.socket.shutdown(Shutdown::Write)?)
    }
}
