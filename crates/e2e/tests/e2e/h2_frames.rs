//! HTTP/2 in the raw: a client, and a server to be an upstream, that send whatever frames a test wants, legal or not.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A peer that says nothing for so long says nothing, and one that takes nothing for so long takes nothing.
const SILENCE: Duration = Duration::from_secs(20);

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

/// SETTINGS with these values.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let entry = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &values.iter().flat_map(entry).collect::<Vec<u8>>())
}

/// WINDOW_UPDATE.
pub fn window_update(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// RST_STREAM with CANCEL.
pub fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

/// A field that enters no table, its strings as they are.
pub fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    literal(0x00, name, value)
}

/// A field that enters the table; the newest entry has the index byte 0xbe.
pub fn indexed_field(name: &[u8], value: &[u8]) -> Vec<u8> {
    literal(0x40, name, value)
}

fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    for string in [name, value] {
        if string.len() < 127 {
            out.push(string.len() as u8);
        } else {
            let rest = string.len() - 127;
            assert!(rest < 1 << 21, "a longer string than any test needs");
            out.extend_from_slice(&[0x7f, rest as u8 | 0x80, (rest >> 7) as u8 | 0x80]);
            out.push((rest >> 14) as u8);
        }
        out.extend_from_slice(string);
    }
    out
}

/// The header block of a GET (or another method) for `http://a<path>`.
pub fn block(method: &str, path: &str) -> Vec<u8> {
    let fields = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)];
    fields.iter().flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes())).collect()
}

/// A whole GET.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block("GET", path))
}

/// The head of a POST whose body is to follow.
pub fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block("POST", path))
}

/// A frame that has come.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM or GOAWAY.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(*self.payload.get(at..)?.first_chunk()?))
    }

    /// The `:status` of HEADERS: it comes first, and we allow no dynamic table.
    pub fn status(&self) -> Option<u16> {
        let block = match self.payload.as_slice() {
            // The size of the table.
            [0x20..=0x3f, rest @ ..] => rest,
            whole => whole,
        };
        match block {
            [indexed @ 0x88..=0x8e, ..] => {
                Some([200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)])
            }
            [0x08 | 0x18 | 0x48, 3, digits @ ..] => {
                std::str::from_utf8(digits.get(..3)?).ok()?.parse().ok()
            }
            [0x08 | 0x18 | 0x48, coded @ 0x82..=0x83, bits @ ..] => {
                huffman_digits(bits.get(..usize::from(coded - 0x80))?)
            }
            _ => None,
        }
    }

    /// Whether it ends its stream.
    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// Three digits in the code of RFC 7541: 0, 1 and 2 have five bits, the others six.
fn huffman_digits(bytes: &[u8]) -> Option<u16> {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1));
    let mut take =
        |count: u32| (0..count).try_fold(0u16, |word, _| Some(word << 1 | u16::from(bits.next()?)));
    let mut status = 0;
    for _ in 0..3 {
        let short = take(5)?;
        let digit = if short <= 2 { short } else { (short << 1 | take(1)?) - 0b011001 + 3 };
        status = status * 10 + digit;
    }
    Some(status)
}

/// How a stream, or its connection, came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// A response with this status.
    Status(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    GoAway(u32),
    /// A close without either.
    Closed,
    /// Nothing, and the connection lives.
    Nothing,
}

/// What is said of a peer that says nothing.
const SILENT: &str = "nothing came";

/// One end of a connection.
pub struct Peer {
    socket: TcpStream,
    ahead: Vec<u8>,
}

impl Peer {
    /// A client that has said its preface, allows no dynamic table, and has the default windows.
    pub fn open(address: SocketAddr) -> Result<Self> {
        Self::open_with(address, &[(1, 0)])
    }

    /// A client that begins with these settings.
    pub fn open_with(address: SocketAddr, values: &[(u16, u32)]) -> Result<Self> {
        let mut peer = Self::open_silent(address)?;
        peer.send(&[PREFACE, &settings(values)].concat())?;
        Ok(peer)
    }

    /// A client that reads nothing, and has little room for what it does not read.
    pub fn open_deaf(address: SocketAddr) -> Result<Self> {
        let peer = Self::open(address)?;
        rustix::net::sockopt::set_socket_recv_buffer_size(&peer.socket, 4096)?;
        Ok(peer)
    }

    /// A client that has said nothing.
    pub fn open_silent(address: SocketAddr) -> Result<Self> {
        let socket =
            TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        Self::over(socket)
    }

    /// A server's end; the preface is still to be read.
    pub fn accept(listener: &TcpListener) -> Result<Self> {
        Self::over(listener.accept()?.0)
    }

    fn over(socket: TcpStream) -> Result<Self> {
        socket.set_read_timeout(Some(SILENCE))?;
        socket.set_write_timeout(Some(SILENCE))?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, ahead: Vec::new() })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.write_all(bytes).context("sending")
    }

    /// Sends the same bytes again and again until so many times are reached or the peer takes no more. Says how many were sent.
    pub fn flood(&mut self, times: usize, mut bytes: impl FnMut(usize) -> Vec<u8>) -> usize {
        let mut batch = Vec::new();
        for round in 0..times {
            batch.extend_from_slice(&bytes(round));
            if batch.len() > 32 * 1024 || round + 1 == times {
                if self.socket.write_all(&batch).is_err() {
                    return round;
                }
                batch.clear();
            }
        }
        times
    }

    /// The next frame; `None` at the end of the connection.
    pub fn next(&mut self) -> Result<Option<Frame>> {
        if !self.fill(9)? {
            return Ok(None);
        }
        let len = u32::from_be_bytes([0, self.ahead[0], self.ahead[1], self.ahead[2]]) as usize;
        if !self.fill(9 + len)? {
            return Ok(None);
        }
        let rest = self.ahead.split_off(9 + len);
        let whole = std::mem::replace(&mut self.ahead, rest);
        let stream = u32::from_be_bytes([whole[5], whole[6], whole[7], whole[8]]) & 0x7fff_ffff;
        Ok(Some(Frame { kind: whole[3], flags: whole[4], stream, payload: whole[9..].to_vec() }))
    }

    /// Reads the client's preface.
    pub fn preface(&mut self) -> Result<()> {
        if !self.fill(PREFACE.len())? || !self.ahead.starts_with(PREFACE) {
            bail!("no preface");
        }
        self.ahead.drain(..PREFACE.len());
        Ok(())
    }

    fn fill(&mut self, len: usize) -> Result<bool> {
        let mut buffer = [0; 16 * 1024];
        while self.ahead.len() < len {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Ok(false),
                Ok(read) => self.ahead.extend_from_slice(&buffer[..read]),
                Err(error) if is_end(error.kind()) => return Ok(false),
                Err(error) if error.kind() == ErrorKind::WouldBlock => bail!(SILENT),
                Err(error) => return Err(error).context("reading frames"),
            }
        }
        Ok(true)
    }

    /// What becomes of a stream: the first of its status, its reset, the connection's end. SETTINGS are acknowledged on the way.
    pub fn told(&mut self, stream: u32) -> Result<Told> {
        loop {
            let next = match self.next() {
                Ok(Some(next)) => next,
                Ok(None) => return Ok(Told::Closed),
                Err(error) if error.to_string() == SILENT => return Ok(Told::Nothing),
                Err(error) => return Err(error),
            };
            match next.kind {
                // The probe of `told_soon` has come back.
                PING if next.flags & ACK != 0 => {
                    self.socket.set_read_timeout(Some(Duration::from_millis(300)))?;
                }
                HEADERS if next.stream == stream => match next.status() {
                    Some(status) if status >= 200 => return Ok(Told::Status(status)),
                    Some(_) => {}
                    None => bail!("no status in {next:?}"),
                },
                RST_STREAM if next.stream == stream => {
                    return Ok(Told::Reset(next.code().context("a reset without a code")?));
                }
                GOAWAY if next.code() != Some(0) => {
                    return Ok(Told::GoAway(next.code().context("GOAWAY without a code")?));
                }
                SETTINGS if next.flags & ACK == 0 => {
                    self.send(&frame(SETTINGS, ACK, 0, &[])).ok();
                }
                _ => {}
            }
        }
    }

    /// As `told`, for what is expected to be nothing: does not wait long after the peer has answered a PING.
    pub fn told_soon(&mut self, stream: u32) -> Result<Told> {
        self.send(&frame(PING, 0, 0, &[0; 8])).ok();
        self.told(stream)
    }

    /// How the connection ends: reads until GOAWAY with an error, or the close.
    pub fn end(&mut self) -> Result<Told> {
        self.told(0)
    }

    /// Bytes of a stream's body up to its end, with windows opened as they come.
    pub fn body(&mut self, stream: u32) -> Result<usize> {
        let mut len = 0;
        loop {
            let next = self.next()?.context("closed within a body")?;
            if next.kind == DATA && next.stream == stream {
                len += next.payload.len();
                let by = next.payload.len() as u32;
                if by > 0 {
                    self.send(&[window_update(0, by), window_update(stream, by)].concat())?;
                }
            }
            if next.stream == stream && next.ends_stream() {
                return Ok(len);
            }
            if next.stream == stream && next.kind == RST_STREAM {
                bail!("reset within a body: {:?}", next.code());
            }
        }
    }
}

fn is_end(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted
    )
}

#[test]
fn statuses_are_read_however_they_are_written() {
    let status = |block: &[u8]| {
        Frame { kind: HEADERS, flags: 0, stream: 1, payload: block.to_vec() }.status()
    };
    assert_eq!(status(&[0x8d]), Some(404));
    assert_eq!(status(&[0x20, 0x08, 3, b'5', b'0', b'3']), Some(503));
    // RFC 7541 C.6: 302 and 307
    assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
    assert_eq!(status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), Some(307));
}
