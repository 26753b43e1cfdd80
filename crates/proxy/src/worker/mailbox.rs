//! What the main thread tells a worker, and how.
//!
//! Messages are commits: whatever may fail was done before. A worker applies them between events, so a stream sees
//! either the old or the new, never half.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_queue::SegQueue;

use crate::http::config::RouteTableRef;
use crate::listener::config::ListenerConfig;
use crate::route_table::RouteTable;
use crate::upstream::cluster::Cluster;
use crate::upstream::config::ClusterRef;
use crate::upstream::host::{Host, HostSet};

/// A listener for the life of its name; updates keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub u64);

/// One message.
#[derive(Debug)]
pub enum Message {
    /// Serve a new listener on this worker's own socket (bound, listening, non-blocking).
    AddListener {
        /// Its id.
        id: ListenerId,
        /// Its configuration.
        config: Arc<ListenerConfig>,
        /// This worker's socket; `None` where the listener is not bound (connections come by `Adopt`).
        socket: Option<OwnedFd>,
        /// Dropped when done.
        ack: Option<Arc<Ack>>,
    },
    /// New configuration for a listener. Connections of unchanged filter chains are rebound to it, others drain.
    UpdateListener {
        /// Which.
        id: ListenerId,
        /// Its new configuration.
        config: Arc<ListenerConfig>,
        /// How long connections of changed chains may go on.
        drain: Duration,
        /// Dropped when done.
        ack: Option<Arc<Ack>>,
    },
    /// Accept what is in the backlog, close the socket, drain the connections.
    RemoveListener {
        /// Which.
        id: ListenerId,
        /// How long its connections may go on.
        drain: Duration,
        /// Dropped when the socket is closed.
        ack: Option<Arc<Ack>>,
    },
    /// Clusters, endpoints and route tables, all at once.
    Commit {
        /// What changes, in order.
        changes: Arc<[Change]>,
        /// Dropped when done.
        ack: Option<Arc<Ack>>,
    },
    /// Close every connection to a host: it has failed its checks.
    CloseHost(Arc<Host>),
    /// Whether this proxy says to health checkers that it fails: while it does, every answer is its connection's last.
    FailHealthChecks(bool),
    /// Serve a connection that was accepted elsewhere.
    Adopt {
        /// The listener it belongs to.
        listener: ListenerId,
        /// The connection.
        socket: OwnedFd,
    },
    /// From now on every answer of these listeners says `connection: close`; idle connections are closed gently.
    StartDrain {
        /// Which; `None` is all.
        listeners: Option<Vec<ListenerId>>,
    },
    /// Accept what is in the backlogs, then close the sockets of these listeners; connections go on.
    StopListening {
        /// Which; `None` is all.
        listeners: Option<Vec<ListenerId>>,
        /// Dropped when they are closed.
        ack: Option<Arc<Ack>>,
    },
    /// End: close everything and return from the thread.
    Shutdown,
}

/// One change of a commit.
#[derive(Debug, Clone)]
pub enum Change {
    /// A cluster comes, changes or (with `None`) goes. Pools of a changed cluster drain.
    Cluster(ClusterRef, Option<Arc<Cluster>>),
    /// A cluster's endpoints.
    Hosts(ClusterRef, Arc<HostSet>),
    /// A route table comes, changes or goes.
    RouteTable(RouteTableRef, Option<Arc<RouteTable>>),
}

/// Runs its callback when the last holder lets go: how the main thread learns that every worker has committed.
pub struct Ack(Option<Box<dyn FnOnce() + Send + Sync>>);

impl Ack {
    /// Calls `done` when dropped. It runs on whichever thread was last, so it must be short (send on a channel).
    pub fn new(done: impl FnOnce() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self(Some(Box::new(done))))
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done();
        }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ack")
    }
}

/// The sending end of a worker's mailbox. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mailbox {
    pub(super) queue: Arc<SegQueue<Message>>,
    pub(super) waker: Arc<mio::Waker>,
}

impl Mailbox {
    /// Puts a message and wakes the worker. A worker that has ended takes no more; its `Ack`s drop with the mailbox.
    pub fn send(&self, message: Message) {
        self.queue.push(message);
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a worker cannot be woken");
        }
    }
}

/// What a worker tells about itself, readable from any thread.
#[derive(Debug, Default)]
pub struct WorkerGauges {
    /// Downstream connections.
    pub connections: AtomicUsize,
    /// HTTP streams and L4 sessions.
    pub streams: AtomicUsize,
    /// Loop turns so far: a watchdog sees whether it moves.
    pub turns: AtomicU64,
    panicked: AtomicBool,
    has_panicked: tokio::sync::Notify,
}

/// Lives on a worker's thread, and tells if that ends in a panic.
pub(super) struct PanicWatch(pub(super) Arc<WorkerGauges>);

impl Drop for PanicWatch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panicked.store(true, Ordering::Relaxed);
            self.0.has_panicked.notify_one();
        }
    }
}

impl WorkerGauges {
    /// Waits until the worker has panicked.
    pub async fn wait_for_panic(&self) {
        while !self.has_panicked() {
            self.has_panicked.notified().await;
        }
    }

    /// The worker has panicked: what is sent to it stays unread, and its connections are gone.
    pub fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Relaxed)
    }

    /// Downstream connections now.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_told() {
        let gauges = Arc::new(WorkerGauges::default());
        let watched = Arc::clone(&gauges);
        let ended = std::thread::spawn(move || {
            let _watch = PanicWatch(watched);
            panic!("as a bug would");
        });
        gauges.wait_for_panic().await;
        assert!(ended.join().is_err() && gauges.has_panicked());

        let calm = Arc::new(WorkerGauges::default());
        drop(PanicWatch(Arc::clone(&calm)));
        assert!(!calm.has_panicked());
    }
}
