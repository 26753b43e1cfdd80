//! Steady load from a few threads, for tests that change something underneath it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::Result;

use crate::http1::Connection;
use crate::wait::wait_until;

/// Threads that ask for one path over and over on kept connections.
pub struct Load {
    threads: Vec<JoinHandle<()>>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    responses: AtomicU64,
    failures: Mutex<Vec<String>>,
}

/// What came of a load.
#[derive(Debug)]
pub struct Outcome {
    /// Responses with status 200.
    pub responses: u64,
    /// Everything else, in words.
    pub failures: Vec<String>,
}

impl Load {
    /// Starts `threads` connections to `address` that GET `path`.
    ///
    /// A response that says `Connection: close` is a reason to open a new connection, not a failure; so is a kept connection that
    /// is closed before any byte of a request was sent on it. A connection that cannot be opened is a failure only if
    /// `address_must_stay`.
    pub fn start(
        threads: usize,
        address: SocketAddr,
        authority: &str,
        path: &str,
        address_must_stay: bool,
    ) -> Self {
        let state = Arc::new(State::default());
        let request = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
        let threads = (0..threads)
            .map(|_| {
                let (state, request) = (Arc::clone(&state), request.clone());
                thread::spawn(move || state.ask(address, &request, address_must_stay))
            })
            .collect();
        Self { threads, state }
    }

    /// Responses so far.
    pub fn responses(&self) -> u64 {
        self.state.responses.load(Ordering::Relaxed)
    }

    /// Waits until so many more responses have come.
    ///
    /// # Errors
    /// If they do not come.
    pub fn wait_for_more(&self, count: u64) -> Result<()> {
        let enough = self.responses() + count;
        wait_until("responses under load", || Ok((self.responses() >= enough).then_some(())))
    }

    /// Ends the load and says what came of it.
    pub fn stop(self) -> Outcome {
        self.state.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().ok();
        }
        let failures = self.state.failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Outcome { responses: self.state.responses.load(Ordering::Relaxed), failures }
    }
}

impl State {
    fn ask(&self, address: SocketAddr, request: &str, address_must_stay: bool) {
        while !self.stop.load(Ordering::Relaxed) {
            match Connection::open(address) {
                Ok(mut connection) => {
                    if let Err(error) = self.ask_on(&mut connection, request) {
                        self.fail(format!("{error:#}"));
                    }
                }
                Err(error) if address_must_stay => self.fail(format!("{error:#}")),
                Err(_) => return,
            }
        }
    }

    fn ask_on(&self, connection: &mut Connection, request: &str) -> Result<()> {
        while !self.stop.load(Ordering::Relaxed) {
            connection.send(request)?;
            let response = connection.response()?;
            if response.status == 200 {
                self.responses.fetch_add(1, Ordering::Relaxed);
            } else {
                self.fail(format!("{}: {}", response.status, response.text()));
            }
            if response
                .header("connection")
                .is_some_and(|value| value.eq_ignore_ascii_case("close"))
            {
                return Ok(());
            }
        }
        Ok(())
    }

    fn fail(&self, what: String) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}
