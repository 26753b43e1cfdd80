//! A raw HTTP/1 client: sends exactly the bytes it is given, and reads what comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::upstream::Received;

/// A peer that says nothing for so long says nothing.
pub const SILENCE: Duration = Duration::from_secs(20);

/// A connection, plain or TLS.
pub struct Connection<S = TcpStream> {
    stream: S,
    /// Received, but not yet part of a response.
    ahead: Vec<u8>,
}

/// A response, whole.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// The body, chunks joined.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Connection {
    /// Connects to `address`.
    ///
    /// # Errors
    /// If nothing listens there.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// The socket, for what only sockets can do.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }
}

impl<S: Read + Write> Connection<S> {
    /// A connection over any stream.
    pub fn over(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// If the peer has gone.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.stream.write_all(bytes.as_ref()).context("sending")?;
        self.stream.flush().context("sending")
    }

    /// Sends a GET and reads the response.
    ///
    /// # Errors
    /// If the peer goes away or answers nonsense.
    pub fn get(&mut self, authority: &str, path: &str) -> Result<Response> {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\n\r\n"))?;
        self.response()
    }

    /// Reads the response to a request that was not HEAD.
    ///
    /// # Errors
    /// If the peer goes away or answers nonsense.
    pub fn response(&mut self) -> Result<Response> {
        let (status, headers) = self.head()?;
        let mut response = Response { status, headers, body: Vec::new() };
        let chunked =
            response.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        response.body = if matches!(status, 100..200 | 204 | 304) {
            Vec::new()
        } else if chunked {
            self.chunked_body()?
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().with_context(|| format!("content-length: {length}"))?;
            self.take(length)?
        } else {
            self.until_end()?
        };
        Ok(response)
    }

    /// Reads a head and nothing after it.
    ///
    /// # Errors
    /// If the peer goes away or answers nonsense.
    pub fn head(&mut self) -> Result<(u16, Vec<(String, String)>)> {
        let end = loop {
            if let Some(end) = self.ahead.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            if self.receive()? == 0 {
                bail!("closed before a whole head: {:?}", String::from_utf8_lossy(&self.ahead));
            }
        };
        let head: Vec<u8> = self.ahead.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.with_context(|| format!("not a status line: {status_line}"))?;
        let field = |line: &str| {
            let (name, value) =
                line.split_once(':').with_context(|| format!("not a header: {line}"))?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        let headers = lines.filter(|line| !line.is_empty()).map(field).collect::<Result<_>>()?;
        Ok((status, headers))
    }

    /// Reads a request, as an upstream does; `None` when the peer closes before one begins.
    pub(crate) fn request(&mut self) -> Result<Option<Received>> {
        let end = loop {
            if let Some(end) = self.ahead.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            if self.receive()? == 0 {
                return Ok(None);
            }
        };
        let head: Vec<u8> = self.ahead.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head[..end]).into_owned();
        let mut request = Received { head, body: Vec::new() };
        if request.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            request.body = self.chunked_body()?;
        } else if let Some(length) = request.header("content-length") {
            let length = length.parse().with_context(|| format!("content-length: {length}"))?;
            request.body = self.take(length)?;
        }
        Ok(Some(request))
    }

    /// Everything until the peer closes. A reset counts as an end.
    ///
    /// # Errors
    /// If the peer stays silent without closing.
    pub fn until_end(&mut self) -> Result<Vec<u8>> {
        while self.receive()? > 0 {}
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Whether the peer has closed, reading away nothing but the end.
    ///
    /// # Errors
    /// If it says something instead.
    pub fn expect_end(&mut self) -> Result<()> {
        let rest = self.until_end()?;
        if !rest.is_empty() {
            bail!("said more: {:?}", String::from_utf8_lossy(&rest));
        }
        Ok(())
    }

    fn chunked_body(&mut self) -> Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim().to_owned();
            let size =
                usize::from_str_radix(&size, 16).with_context(|| format!("chunk size {size}"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(size)?);
            self.take(2)?;
        }
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.ahead.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.receive()? == 0 {
                bail!("closed within a line");
            }
        }
    }

    /// The next bytes, so many, as they come.
    ///
    /// # Errors
    /// If the peer closes before.
    pub fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.ahead.len() < length {
            if self.receive()? == 0 {
                bail!("closed after {} of {length} bytes", self.ahead.len());
            }
        }
        Ok(self.ahead.drain(..length).collect())
    }

    fn receive(&mut self) -> Result<usize> {
        let mut chunk = [0; 16 * 1024];
        let count = match self.stream.read(&mut chunk) {
            Ok(count) => count,
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
            {
                0
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!(
                    "silent for {} s, after {:?}",
                    SILENCE.as_secs(),
                    String::from_utf8_lossy(&self.ahead)
                )
            }
            Err(error) => return Err(error).context("receiving"),
        };
        self.ahead.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

/// One GET on a connection of its own.
///
/// # Errors
/// If the peer cannot be reached or answers nonsense.
pub fn get(address: SocketAddr, authority: &str, path: &str) -> Result<Response> {
    let mut connection = Connection::open(address)?;
    connection
        .send(format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n"))?;
    connection.response()
}
