//! A connection as a source and a sink of frames. SETTINGS, PING and windows are dealt with here.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use anyhow::{Result, bail};

use super::{ACK, END_HEADERS, kind};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
/// The most that a window can be, and what a connection's is before anybody says so.
const WIDEST: u32 = (1 << 31) - 1;
const INITIAL: u32 = 65_535;
const INITIAL_WINDOW_SIZE: u16 = 4;

pub struct Frames {
    pub socket: TcpStream,
    /// The beginning of a frame that has not come whole.
    partial: Vec<u8>,
    out: Vec<u8>,
    /// How much of `out` has gone.
    gone: usize,
    /// What may be sent on all streams together. The messages are smaller than any stream's own window.
    room: i64,
    /// DATA received that has not been granted again.
    owed: u32,
    /// A client's preface is still to come.
    preface_due: bool,
}

/// A frame as received.
pub struct Frame<'a> {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: &'a [u8],
}

impl Frames {
    /// The client's end; its preface is ready to be flushed.
    pub fn client(socket: TcpStream) -> Self {
        let mut frames = Self::new(socket, false);
        frames.out.extend_from_slice(PREFACE);
        frames.settings();
        frames
    }

    /// The server's end.
    pub fn server(socket: TcpStream) -> Self {
        let mut frames = Self::new(socket, true);
        frames.settings();
        frames
    }

    fn new(socket: TcpStream, preface_due: bool) -> Self {
        let (partial, out, room) = (Vec::new(), Vec::with_capacity(16 * 1024), INITIAL.into());
        Self { socket, partial, out, gone: 0, room, owed: 0, preface_due }
    }

    /// Windows as wide as can be: the load never holds up a proxy.
    fn settings(&mut self) {
        let mut payload = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
        payload.extend_from_slice(&WIDEST.to_be_bytes());
        self.frame(kind::SETTINGS, 0, 0, &payload);
        self.frame(kind::WINDOW_UPDATE, 0, 0, &(WIDEST - INITIAL).to_be_bytes());
    }

    pub fn headers(&mut self, stream: u32, flags: u8, block: &[u8]) {
        self.frame(kind::HEADERS, flags | END_HEADERS, stream, block);
    }

    /// Only what [`Self::room`] has.
    pub fn data(&mut self, stream: u32, flags: u8, payload: &[u8]) {
        self.room -= payload.len() as i64;
        self.frame(kind::DATA, flags, stream, payload);
    }

    pub fn room(&self) -> i64 {
        self.room
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.out.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
        self.out.extend_from_slice(&[kind, flags]);
        self.out.extend_from_slice(&stream.to_be_bytes());
        self.out.extend_from_slice(payload);
    }

    /// Sends what is ready; whether all of it has gone.
    pub fn flush(&mut self) -> Result<bool> {
        while self.gone < self.out.len() {
            match self.socket.write(&self.out[self.gone..]) {
                Ok(count) => self.gone += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        self.gone = 0;
        Ok(true)
    }

    /// Reads once and shows each frame that has come whole; the bytes read.
    ///
    /// # Errors
    /// If the peer closes, says good-bye, or says what is no frame.
    pub fn receive(
        &mut self,
        scratch: &mut [u8],
        mut show: impl FnMut(&mut Self, &Frame<'_>) -> Result<()>,
    ) -> Result<usize> {
        let count = match self.socket.read(scratch) {
            Ok(0) => bail!("the peer closed the connection"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error.into()),
        };
        let mut joined = std::mem::take(&mut self.partial);
        let bytes: &[u8] = if joined.is_empty() {
            &scratch[..count]
        } else {
            joined.extend_from_slice(&scratch[..count]);
            &joined
        };
        let mut rest = bytes;
        if self.preface_due && rest.len() >= PREFACE.len() {
            rest = &rest[PREFACE.len()..];
            self.preface_due = false;
        }
        while !self.preface_due && rest.len() >= HEAD {
            let length =
                usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
            if rest.len() < HEAD + length {
                break;
            }
            let stream = u32::from_be_bytes([rest[5] & 0x7f, rest[6], rest[7], rest[8]]);
            let payload = &rest[HEAD..HEAD + length];
            let frame = Frame { kind: rest[3], flags: rest[4], stream, payload };
            self.housekeeping(&frame)?;
            show(self, &frame)?;
            rest = &rest[HEAD + length..];
        }
        self.partial = rest.to_vec();
        Ok(count)
    }

    fn housekeeping(&mut self, frame: &Frame<'_>) -> Result<()> {
        match frame.kind {
            kind::SETTINGS if frame.flags & ACK == 0 => self.frame(kind::SETTINGS, ACK, 0, &[]),
            kind::PING if frame.flags & ACK == 0 => self.frame(kind::PING, ACK, 0, frame.payload),
            kind::WINDOW_UPDATE if frame.stream == 0 => {
                let increment = frame.payload.try_into().map_or(0, u32::from_be_bytes);
                self.room += i64::from(increment);
            }
            kind::DATA => {
                self.owed += frame.payload.len() as u32;
                if self.owed > WIDEST / 4 {
                    let owed = std::mem::take(&mut self.owed);
                    self.frame(kind::WINDOW_UPDATE, 0, 0, &owed.to_be_bytes());
                }
            }
            kind::GOAWAY => bail!("the peer said good-bye: {:?}", frame.payload),
            _ => {}
        }
        Ok(())
    }
}
