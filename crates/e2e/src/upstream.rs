//! Fake upstreams: each request is recorded and then dealt with as the test says.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};

use crate::http1::Connection;

/// What an upstream does with a request.
#[derive(Clone)]
pub enum Act {
    /// Answers with this status and body, and keeps the connection.
    Answer(u16, String),
    /// Sends these bytes as they are, and keeps the connection.
    Send(Vec<u8>),
    /// Sends these bytes and closes.
    SendAndClose(Vec<u8>),
    /// Sends these bytes and resets.
    SendAndReset(Vec<u8>),
    /// Says nothing and keeps the connection open.
    Stall,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The request line and headers, as sent.
    pub head: String,
    /// The body, chunks joined.
    pub body: Vec<u8>,
}

impl Received {
    /// The first header of that name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.split("\r\n").skip(1);
        let fields = lines.filter_map(|line| line.split_once(':'));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()).next()
    }

    /// The request target.
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }
}

/// A listening fake; stops when dropped.
pub struct Upstream {
    address: SocketAddr,
    state: Arc<State>,
}

struct State {
    act: Box<dyn Fn(&Received) -> Act + Send + Sync>,
    received: Mutex<Vec<Received>>,
    connections: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
}

impl Upstream {
    /// Answers every request with 200 and this body.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn saying(body: &str) -> Result<Self> {
        let body = body.to_owned();
        Self::doing(move |_| Act::Answer(200, body.clone()))
    }

    /// Does what `act` says with each request.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn doing(act: impl Fn(&Received) -> Act + Send + Sync + 'static) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("a fake upstream")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            act: Box::new(act),
            received: Mutex::default(),
            connections: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&state);
        thread::spawn(move || accept(&listener, &accepting));
        Ok(Self { address, state })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port of 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The requests so far.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes every connection, as a restart would.
    pub fn close_connections(&self) {
        let mut connections = self.state.connections.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in connections.drain(..) {
            connection.shutdown(Shutdown::Both).ok();
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::Relaxed);
        // Wakes the accepting thread, so that it sees the flag.
        TcpStream::connect(self.address).ok();
        self.close_connections();
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for stream in listener.incoming() {
        if state.stopped.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let state = Arc::clone(state);
        thread::spawn(move || {
            if let Ok(kept) = stream.try_clone() {
                state.connections.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
            }
            // A client that goes away in the middle is part of many tests.
            serve(stream, &state).ok();
        });
    }
}

fn serve(stream: TcpStream, state: &State) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut connection = Connection::over(stream);
    while let Some(request) = connection.request()? {
        let act = (state.act)(&request);
        state.received.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        match act {
            Act::Answer(status, body) => {
                let length = body.len();
                write!(writer, "HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}")?;
            }
            Act::Send(bytes) => writer.write_all(&bytes)?,
            Act::SendAndClose(bytes) => {
                writer.write_all(&bytes)?;
                writer.shutdown(Shutdown::Both)?;
                return Ok(());
            }
            Act::SendAndReset(bytes) => {
                writer.write_all(&bytes)?;
                rustix::net::sockopt::set_socket_linger(&writer, Some(std::time::Duration::ZERO))?;
                // Every copy of the socket must go for the reset to be sent.
                state
                    .connections
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .retain(|kept| kept.peer_addr().ok() != writer.peer_addr().ok());
                return Ok(());
            }
            Act::Stall => {}
        }
    }
    Ok(())
}
