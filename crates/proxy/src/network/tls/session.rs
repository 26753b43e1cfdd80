//! TLS of one connection, without its socket: records in, plaintext out, and back. rustls's unbuffered interface: the
//! caller's buffers are worked on directly, so a connection that waits holds none.

use std::fmt;
use std::sync::Arc;

use codec::tls_client_hello::ClientHelloParser;
use identity::tls::PeerRefusal;
use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
    WriteTraffic,
};
use rustls::{ClientConfig, CommonState, ServerConfig};
use rustls_pki_types::ServerName;

/// One connection's TLS.
#[derive(Debug)]
pub struct TlsSession {
    side: Side,
    /// Part of a record, or of a handshake message over several.
    pending: Vec<u8>,
    peer_has_closed: bool,
    /// It is over: rustls must not be asked for anything any more.
    has_failed: bool,
    /// What the client asked for, once its hello is whole; rustls keeps it to itself.
    server_name: Option<String>,
    hello: ClientHelloParser,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server(_) => "Server",
            Self::Client(_) => "Client",
        })
    }
}

/// Why a connection's TLS came to its end. An alert for the peer, if there is one, is among the replies.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("TLS_error: {message}")]
pub struct TlsFailure {
    /// What happened.
    pub message: String,
    /// It is about the peer's certificate, and why that was refused.
    pub refusal: Option<PeerRefusal>,
}

impl TlsFailure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), refusal: None }
    }
}

/// The most plaintext in one record (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;

/// More than header, nonce, tag and content type of one record take, in any version and suite.
const RECORD_OVERHEAD: usize = 64;

impl TlsSession {
    /// The server's end: waits for a `ClientHello`.
    ///
    /// # Errors
    /// When rustls does not accept the configuration.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, TlsFailure> {
        let connection = UnbufferedServerConnection::new(config).map_err(failure)?;
        Ok(Self {
            side: Side::Server(connection),
            pending: Vec::new(),
            peer_has_closed: false,
            has_failed: false,
            server_name: None,
            hello: ClientHelloParser::new(),
        })
    }

    /// The client's end: `open` without input makes the `ClientHello`.
    ///
    /// # Errors
    /// When rustls does not accept the configuration for this name.
    pub fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, TlsFailure> {
        let connection = UnbufferedClientConnection::new(config, name).map_err(failure)?;
        Ok(Self {
            side: Side::Client(connection),
            pending: Vec::new(),
            peer_has_closed: false,
            has_failed: false,
            server_name: None,
            hello: ClientHelloParser::new(),
        })
    }

    /// Versions, suites, certificates; complete once the handshake is done.
    pub fn state(&self) -> &CommonState {
        match &self.side {
            Side::Server(connection) => connection,
            Side::Client(connection) => connection,
        }
    }

    /// The server's name that the client has sent, lower case (RFC 6066 §3). Servers only.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The handshake is not done yet: nothing can be sealed.
    pub fn is_handshaking(&self) -> bool {
        self.state().is_handshaking()
    }

    /// The peer has said `close_notify`: the end of its bytes is the end, no truncation.
    pub fn peer_has_closed(&self) -> bool {
        self.peer_has_closed
    }

    /// Works on what the socket gave: appends plaintext to `plaintext`, and to `replies` what must be sent as it is
    /// (handshake messages, alerts). Part of a record at the end is kept for the next call.
    ///
    /// # Errors
    /// When the peer broke the protocol or is not to be trusted. The connection is over once `replies` are sent.
    pub fn open(
        &mut self,
        records: &mut [u8],
        plaintext: &mut Vec<u8>,
        replies: &mut Vec<u8>,
    ) -> Result<(), TlsFailure> {
        if self.has_failed {
            return Err(TlsFailure::new("the connection has failed before"));
        }
        if self.pending.is_empty() {
            let (done, result) = self.work(records, plaintext, replies);
            self.pending.extend_from_slice(&records[done..]);
            return result;
        }
        let mut pending = std::mem::take(&mut self.pending);
        pending.extend_from_slice(records);
        let (done, result) = self.work(&mut pending, plaintext, replies);
        if done < pending.len() {
            pending.drain(..done);
            self.pending = pending;
        }
        result
    }

    /// Goes from state to state until only more input helps; says how many bytes of `records` are done with.
    fn work(
        &mut self,
        records: &mut [u8],
        plaintext: &mut Vec<u8>,
        replies: &mut Vec<u8>,
    ) -> (usize, Result<(), TlsFailure>) {
        if matches!(self.side, Side::Server(_))
            && self.server_name.is_none()
            && self.is_handshaking()
            && let Ok(Some(hello)) = self.hello.parse(records)
        {
            self.server_name = hello.server_name;
        }
        let mut done = 0;
        let mut failed = None;
        loop {
            let rest = &mut records[done..];
            let step = match &mut self.side {
                Side::Server(connection) => {
                    take(connection.process_tls_records(rest), plaintext, replies)
                }
                Side::Client(connection) => {
                    take(connection.process_tls_records(rest), plaintext, replies)
                }
            };
            done += step.discard;
            match step.next {
                Next::Again => {}
                Next::PeerHasClosed => self.peer_has_closed = true,
                Next::Rest => return (done, Ok(())),
                Next::Failed(failure) => failed = failed.or(Some(failure)),
            }
            // After a failure go on only to tell the peer: nothing more of what it sent is looked at.
            if let Some(failure) = failed.take_if(|_| !self.state().wants_write()) {
                self.has_failed = true;
                return (done, Err(failure));
            }
        }
    }

    /// So many bytes must `records` have for `seal` to take `plaintext` bytes.
    pub const fn sealed_len(plaintext: usize) -> usize {
        plaintext + (plaintext / RECORD + 1) * RECORD_OVERHEAD
    }

    /// Makes records of plaintext; says how many bytes of `records` they are.
    ///
    /// # Errors
    /// During the handshake, after we have closed, or when `records` is shorter than [`TlsSession::sealed_len`].
    pub fn seal(&mut self, plaintext: &[u8], records: &mut [u8]) -> Result<usize, TlsFailure> {
        self.write(|mut traffic| traffic.seal(plaintext, records))?
            .map_err(|error| TlsFailure::new(error.to_string()))
    }

    /// Appends a `close_notify` to `replies`, if the handshake is done and it was not said before.
    pub fn close(&mut self, replies: &mut Vec<u8>) {
        let at = replies.len();
        replies.resize(at + RECORD_OVERHEAD, 0);
        let len = match self.write(|mut traffic| traffic.close(&mut replies[at..])) {
            Ok(Ok(len)) => len,
            _ => 0,
        };
        replies.truncate(at + len);
    }

    /// Runs `act` on rustls's writing side. rustls wants to see the bytes that it has not taken yet at every call.
    fn write<T>(&mut self, act: impl FnOnce(Traffic<'_>) -> T) -> Result<T, TlsFailure> {
        // Asked again, rustls would look at the offending bytes again, and raise a second alert.
        if self.has_failed {
            return Err(TlsFailure::new("the connection has failed"));
        }
        macro_rules! write {
            ($connection:expr, $side:ident) => {{
                let status = $connection.process_tls_records(&mut self.pending);
                let discard = status.discard;
                let result = match status.state.map_err(failure)? {
                    ConnectionState::WriteTraffic(traffic) => act(Traffic::$side(traffic)),
                    _ => return Err(TlsFailure::new("the connection is not open")),
                };
                (discard, result)
            }};
        }
        let (discard, result) = match &mut self.side {
            Side::Server(connection) => write!(connection, Server),
            Side::Client(connection) => write!(connection, Client),
        };
        self.pending.drain(..discard);
        Ok(result)
    }
}

/// rustls's writing side of either end.
enum Traffic<'c> {
    Server(WriteTraffic<'c, ServerConnectionData>),
    Client(WriteTraffic<'c, ClientConnectionData>),
}

impl Traffic<'_> {
    fn seal(&mut self, plaintext: &[u8], records: &mut [u8]) -> Result<usize, EncryptError> {
        match self {
            Self::Server(traffic) => traffic.encrypt(plaintext, records),
            Self::Client(traffic) => traffic.encrypt(plaintext, records),
        }
    }

    fn close(&mut self, records: &mut [u8]) -> Result<usize, EncryptError> {
        match self {
            Self::Server(traffic) => traffic.queue_close_notify(records),
            Self::Client(traffic) => traffic.queue_close_notify(records),
        }
    }
}

struct Step {
    discard: usize,
    next: Next,
}

enum Next {
    Again,
    PeerHasClosed,
    Rest,
    Failed(TlsFailure),
}

/// Does what one state asks for.
fn take<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plaintext: &mut Vec<u8>,
    replies: &mut Vec<u8>,
) -> Step {
    let discard = status.discard;
    let next = match status.state {
        Err(error) => Next::Failed(failure(error)),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => plaintext.extend_from_slice(record.payload),
                Some(Err(error)) => break Next::Failed(failure(error)),
                None => break Next::Again,
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let encoded = append(replies, |room| match data.encode(room) {
                Ok(len) => Ok(len),
                Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                    Err(required_size)
                }
                Err(EncodeError::AlreadyEncoded) => Ok(0),
            });
            if encoded {
                Next::Again
            } else {
                Next::Failed(TlsFailure::new("a message does not fit"))
            }
        }
        Ok(ConnectionState::TransmitTlsData(transmit)) => {
            transmit.done();
            Next::Again
        }
        Ok(ConnectionState::PeerClosed) => Next::PeerHasClosed,
        // Early data is never offered, so it cannot be there to read.
        Ok(ConnectionState::ReadEarlyData(_)) => {
            Next::Failed(TlsFailure::new("unexpected early data"))
        }
        Ok(_) => Next::Rest,
    };
    Step { discard, next }
}

/// Appends what `write` makes; it says how much room it needs if it was not given enough.
fn append(out: &mut Vec<u8>, mut write: impl FnMut(&mut [u8]) -> Result<usize, usize>) -> bool {
    let at = out.len();
    let mut room = 0;
    for _ in 0..2 {
        out.resize(at + room, 0);
        match write(&mut out[at..]) {
            Ok(len) => {
                out.truncate(at + len);
                return true;
            }
            Err(required) => room = required,
        }
    }
    out.truncate(at);
    false
}

fn failure(error: rustls::Error) -> TlsFailure {
    TlsFailure { refusal: PeerRefusal::of(&error), message: error.to_string() }
}

#[cfg(test)]
mod tests;
