//! One worker = one thread, one `mio` event loop, one timer wheel, one mailbox. The only file that knows the poller.

pub mod mailbox;

use std::sync::Arc;
use std::thread::JoinHandle;

pub use mailbox::{Ack, Change, ListenerId, Mailbox, Message, WorkerGauges};

/// What a worker is started with.
#[derive(Clone)]
pub struct WorkerOptions {
    /// Its number, from 0.
    pub index: usize,
    /// Where its statistics are.
    pub registry: telemetry::stats::Registry,
    /// Pin the thread to this CPU.
    pub cpu: Option<usize>,
}

/// A running worker.
#[derive(Debug)]
pub struct WorkerHandle {
    /// How to talk to it.
    pub mailbox: Mailbox,
    /// What it tells.
    pub gauges: Arc<WorkerGauges>,
    thread: Option<JoinHandle<()>>,
}

impl WorkerHandle {
    /// Waits until the worker has ended (send [`Message::Shutdown`] first).
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker panicked");
        }
    }
}

/// Starts a worker.
///
/// # Errors
/// When the poller or the thread cannot be made.
pub fn spawn(options: WorkerOptions) -> std::io::Result<WorkerHandle> {
    let poll = mio::Poll::new()?;
    let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(usize::MAX))?);
    let mailbox = Mailbox { queue: Arc::default(), waker };
    let gauges = Arc::new(WorkerGauges::default());
    let thread = {
        let (_mailbox, _gauges) = (mailbox.clone(), Arc::clone(&gauges));
        std::thread::Builder::new().name(format!("worker-{}", options.index)).spawn(move || drop(poll))?
    };
    Ok(WorkerHandle { mailbox, gauges, thread: Some(thread) })
}
