//! Step 15: a worker's connections to one host. Streams take what is idle, or wait in line for what is being opened.

use std::collections::VecDeque;
use std::sync::Arc;

use telemetry::stats::Counter;
use telemetry::stats::sets::Cluster as ClusterStat;

use super::cluster::Cluster;
use super::config::{ClusterRef, UpstreamProtocol};
use super::connection::UpstreamConnection;
use super::host::Host;
use crate::arena::Key;
use crate::http::stream::Stream;
use crate::router::{Attempt, ResetReason};
use crate::stream_info::AlpnList;
use crate::worker::Worker;
use codec::headers::Version;

/// Connections to one host.
#[derive(Debug)]
pub struct Pool {
    /// The cluster's slot.
    pub at: ClusterRef,
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// The host.
    pub host: Arc<Host>,
    /// What its connections speak; `Auto` is what ALPN agrees on.
    pub protocol: UpstreamProtocol,
    /// With `Auto`: what the last connection came to.
    pub spoken: Option<Version>,
    /// What its connections offer by ALPN instead of the host's own protocols.
    pub alpn: Option<AlpnList>,
    /// What they offer where neither that nor the host says anything, so that its end knows what is spoken.
    pub fallback_alpn: Option<AlpnList>,
    /// Connections that can take a stream; the last one used is taken first, so that few are busy and the others may time
    /// out.
    pub available: Vec<Key<UpstreamConnection>>,
    /// Connections that are being opened.
    pub connecting: u32,
    /// All connections.
    pub connections: u32,
    /// Streams that wait, oldest first.
    pub waiting: VecDeque<Key<Box<Stream>>>,
    /// No new streams; connections are closed as they fall idle.
    pub is_draining: bool,
}

impl Pool {
    /// A pool without connections.
    pub fn new(
        at: ClusterRef,
        cluster: Arc<Cluster>,
        host: Arc<Host>,
        protocol: UpstreamProtocol,
        alpn: Option<AlpnList>,
    ) -> Self {
        let offered: &[&[u8]] = match protocol {
            UpstreamProtocol::Http2 => &[b"h2"],
            UpstreamProtocol::Auto => &[b"h2", b"http/1.1"],
            _ => &[],
        };
        let is_asked = host.tls.is_some() && !offered.is_empty();
        Self {
            fallback_alpn: is_asked.then(|| offered.iter().map(|name| name.to_vec()).collect()),
            at,
            cluster,
            host,
            protocol,
            spoken: None,
            alpn,
            available: Vec::new(),
            connecting: 0,
            connections: 0,
            waiting: VecDeque::new(),
            is_draining: false,
        }
    }
}

impl Pool {
    /// Do more streams wait than what is being opened can take?
    pub fn wants_connection(&self) -> bool {
        let each = match self.protocol {
            UpstreamProtocol::Http1 | UpstreamProtocol::Downstream | UpstreamProtocol::Raw => 1,
            UpstreamProtocol::Auto if self.spoken == Some(Version::Http11) => 1,
            // What a host allows is not known before it has said so; RFC 9113 §6.5.2 advises this at the least.
            _ => self.cluster.config.http.http2.max_concurrent_streams.clamp(1, 100) as usize,
        };
        (self.connecting as usize) * each < self.waiting.len()
    }
}

impl Worker {
    /// Gets a stream a connection: one that is there, or one to be opened.
    pub(crate) fn acquire(&mut self, stream_key: Key<Box<Stream>>, pool_key: Option<Key<Pool>>) {
        let Some(pool_key) = pool_key else {
            return self.attempt_failed(stream_key, ResetReason::ConnectionFailure, None);
        };
        let (Some(stream), Some(pool)) =
            (self.streams.get_mut(stream_key), self.upstreams.pools.get_mut(pool_key))
        else {
            return;
        };
        stream.info.upstream_host = Some(Arc::clone(&pool.host));
        let (thresholds, breakers) = pool.cluster.priority(stream.router.priority);
        if breakers.requests.is_exhausted(thresholds.max_requests) {
            return self.overflowed(
                stream_key,
                pool_key,
                ClusterStat::UPSTREAM_RQ_PENDING_OVERFLOW,
            );
        }
        let now = self.clock.now_ns();
        while let Some(key) = pool.available.pop() {
            let Some(connection) = self.ups.get_mut(key) else { continue };
            connection.is_available = false;
            if connection.can_take(now) {
                return self.attach(stream_key, key);
            }
        }
        if !breakers.pending.try_acquire(thresholds.max_pending_requests) {
            return self.overflowed(
                stream_key,
                pool_key,
                ClusterStat::UPSTREAM_RQ_PENDING_OVERFLOW,
            );
        }
        pool.waiting.push_back(stream_key);
        stream.router.attempt = Attempt::Waiting(pool_key);
        let may_open =
            pool.connections == 0 || !breakers.connections.is_exhausted(thresholds.max_connections);
        let (at, wants_one) = (pool.at, pool.wants_connection());
        if let Some(cluster) = self.upstreams.get(at) {
            cluster.cells.counters.inc(ClusterStat::UPSTREAM_RQ_PENDING_TOTAL);
            cluster.cells.counters.gauge_add(ClusterStat::UPSTREAM_RQ_PENDING_ACTIVE, 1);
            if !may_open {
                cluster.cells.counters.inc(ClusterStat::UPSTREAM_CX_OVERFLOW);
            }
        }
        if may_open && wants_one {
            self.connect_upstream(pool_key);
        }
    }

    fn overflowed(
        &mut self,
        stream: Key<Box<Stream>>,
        pool: Key<Pool>,
        stat: Counter<ClusterStat>,
    ) {
        self.count_pool(pool, stat);
        self.attempt_failed(stream, ResetReason::Overflow, None);
    }

    pub(super) fn count_pool(&self, pool: Key<Pool>, stat: Counter<ClusterStat>) {
        if let Some(pool) = self.upstreams.pools.get(pool)
            && let Some(cluster) = self.upstreams.get(pool.at)
        {
            cluster.cells.counters.inc(stat);
        }
    }

    /// A stream does not wait any more (it was given a connection, or gave up).
    pub(crate) fn left_queue(&mut self, pool_key: Key<Pool>, priority: usize) {
        let Some(pool) = self.upstreams.pools.get(pool_key) else { return };
        pool.cluster.priority(priority).1.pending.release();
        if let Some(cluster) = self.upstreams.get(pool.at) {
            cluster.cells.counters.gauge_add(ClusterStat::UPSTREAM_RQ_PENDING_ACTIVE, -1);
        }
    }

    /// A connection can take streams: those that wait longest, then it is at hand in the pool.
    pub(crate) fn connection_available(&mut self, key: Key<UpstreamConnection>) {
        let now = self.clock.now_ns();
        while let Some(connection) = self.ups.get(key)
            && connection.can_take(now)
            && let Some(stream) = self.next_waiting(connection.pool)
        {
            self.attach(stream, key);
        }
        let Some(connection) = self.ups.get_mut(key) else { return };
        let is_idle = connection.streams.is_empty();
        if is_idle {
            connection.idle_since_ns = now;
        }
        let Some(pool) = self.upstreams.pools.get_mut(connection.pool) else { return };
        if pool.is_draining {
            if is_idle {
                self.close_upstream(key, ResetReason::ConnectionTermination, true);
            }
            return;
        }
        if !connection.is_available && connection.can_take(now) {
            connection.is_available = true;
            pool.available.push(key);
        }
        if is_idle {
            self.arm_upstream(key);
        }
    }

    /// Takes the stream that has waited longest out of the line.
    fn next_waiting(&mut self, pool_key: Key<Pool>) -> Option<Key<Box<Stream>>> {
        loop {
            let stream_key = self.upstreams.pools.get_mut(pool_key)?.waiting.pop_front()?;
            // Streams that gave up left the line; a stale key costs nothing.
            if let Some(stream) = self.streams.get(stream_key)
                && stream.router.attempt == Attempt::Waiting(pool_key)
            {
                let priority = stream.router.priority;
                self.left_queue(pool_key, priority);
                return Some(stream_key);
            }
        }
    }

    /// A connection could not be opened: everyone who waits hears of it (Envoy fails the whole line, too).
    pub(crate) fn fail_waiting(
        &mut self,
        pool_key: Key<Pool>,
        reason: ResetReason,
        detail: Option<&str>,
    ) {
        let Some(pool) = self.upstreams.pools.get_mut(pool_key) else { return };
        let waiting = std::mem::take(&mut pool.waiting);
        for stream_key in waiting {
            if let Some(stream) = self.streams.get(stream_key)
                && stream.router.attempt == Attempt::Waiting(pool_key)
            {
                let priority = stream.router.priority;
                self.left_queue(pool_key, priority);
                self.count_pool(pool_key, ClusterStat::UPSTREAM_RQ_PENDING_FAILURE_EJECT);
                self.note_outcome(stream_key, super::outlier::Outcome::LocalFailure);
                self.attempt_failed(stream_key, reason, detail);
            }
        }
    }

    /// A pool takes no new streams: what is idle is closed, the rest as it falls idle; who waits goes elsewhere.
    pub(crate) fn drain_pool(&mut self, pool_key: Key<Pool>) {
        let Some(pool) = self.upstreams.pools.get_mut(pool_key) else { return };
        pool.is_draining = true;
        let idle = std::mem::take(&mut pool.available);
        let waiting = std::mem::take(&mut pool.waiting);
        for key in idle {
            self.close_upstream(key, ResetReason::ConnectionTermination, true);
        }
        for stream_key in waiting {
            if let Some(stream) = self.streams.get_mut(stream_key)
                && stream.router.attempt == Attempt::Waiting(pool_key)
            {
                stream.router.attempt = Attempt::None;
                let priority = stream.router.priority;
                self.left_queue(pool_key, priority);
                self.begin_attempt(stream_key);
            }
        }
        self.forget_empty_pool(pool_key);
    }

    pub(crate) fn forget_empty_pool(&mut self, pool_key: Key<Pool>) {
        if self
            .upstreams
            .pools
            .get(pool_key)
            .is_some_and(|pool| pool.is_draining && pool.connections == 0)
        {
            self.upstreams.pools.remove(pool_key);
        }
    }
}
