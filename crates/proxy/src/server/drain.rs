//! The end of a server in order: nobody who was accepted is cut off before the drain time is up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Server;
use super::control::{Control, Done};
use crate::listener::config::TrafficDirection;
use crate::worker::{ListenerId, Message};

/// How often it is looked whether the last connection has ended.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long the last lines of access logs may take to be written.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

impl Server {
    /// Ends the server: listeners stay open for the grace, in which every answer says `Connection: close`; then they are
    /// closed, and what was accepted has the drain time to end.
    pub async fn stop(mut self) {
        self.control.draining.store(true, Ordering::Relaxed);
        self.sync = None;
        self.control.start_drain(None);
        tokio::time::sleep(self.options.grace).await;
        self.control.stop_listening().await;
        let deadline = Instant::now() + self.options.drain_time;
        while self.control.connections() > 0 && Instant::now() < deadline {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.stop_now().await;
    }

    /// Ends the server at once; connections are closed as they are.
    pub async fn stop_now(mut self) {
        self.sync = None;
        if let Some(admin) = self.admin.take() {
            admin.shutdown().await;
        }
        self.control.core.lock().sockets.close_all();
        self.end_workers();
        self.sinks.flush(FLUSH_LIMIT);
    }
}

impl Control {
    /// From now on answers of these listeners (all, when `None`) say `Connection: close`.
    pub(super) fn start_drain(&self, listeners: Option<Vec<ListenerId>>) {
        self.broadcast(|| Message::StartDrain { listeners: listeners.clone() });
    }

    /// Closes every listener once what waits in its backlog is accepted.
    async fn stop_listening(&self) {
        self.close_listeners(None).wait().await;
    }

    /// Closes these listeners (all, when `None`); connections go on.
    pub(super) fn close_listeners(&self, listeners: Option<Vec<ListenerId>>) -> Done {
        let (ack, done) = Done::new();
        let mut core = self.core.lock();
        let count = listeners.as_ref().map_or_else(|| core.snapshot.listeners().count(), Vec::len);
        self.counters.stopped(count as u64);
        match &listeners {
            None => core.sockets.close_all(),
            Some(ids) => ids.iter().for_each(|id| core.sockets.close(*id)),
        }
        for mailbox in &core.mailboxes {
            mailbox.send(Message::StopListening {
                listeners: listeners.clone(),
                ack: Some(Arc::clone(&ack)),
            });
        }
        done
    }

    /// Downstream connections of all workers.
    pub(super) fn connections(&self) -> usize {
        self.gauges.iter().map(|gauges| gauges.connections()).sum()
    }

    /// The listeners that serve inbound traffic.
    pub(super) fn inbound_listeners(&self) -> Vec<ListenerId> {
        let core = self.core.lock();
        let inbound = core
            .snapshot
            .listeners()
            .filter(|(_, listener)| listener.config.traffic_direction == TrafficDirection::Inbound);
        inbound.map(|(_, listener)| listener.id).collect()
    }
}
