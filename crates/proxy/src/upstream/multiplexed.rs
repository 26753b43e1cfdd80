//! What an HTTP/2 connection has beyond an HTTP/1 one, on the host's side.

use codec::client::ClientCodec;
use codec::headers::Version;
use codec::http2;
use telemetry::stats::Local;
use telemetry::stats::sets::{Cluster as ClusterStat, Http2 as Http2Stat};

use super::config::UpstreamProtocol;
use super::connection::UpstreamConnection;
use crate::arena::Key;
use crate::http::config::Http2Keepalive;
use crate::http::keepalive::{Due, Keepalive};
use crate::http::protocol;
use crate::router::ResetReason;
use crate::worker::Worker;

/// The part of a connection that only many streams need.
pub struct Multiplexed {
    /// `cluster.<name>.http2.*`, where the cluster has them.
    pub cells: Option<Local<Http2Stat>>,
    keepalive: Option<Keepalive>,
    /// The host has said goodbye.
    is_leaving: bool,
}

impl std::fmt::Debug for Multiplexed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Multiplexed").field("keepalive", &self.keepalive).finish_non_exhaustive()
    }
}

impl Multiplexed {
    /// When it must be looked at.
    pub fn deadline(&self) -> u64 {
        self.keepalive.as_ref().map_or(u64::MAX, Keepalive::deadline)
    }
}

impl UpstreamConnection {
    /// Does it carry many streams, each with a window of its own?
    #[inline]
    pub fn is_multiplexed(&self) -> bool {
        self.multiplexed.is_some()
    }

    /// What the codec has counted goes to the statistics.
    pub(super) fn count_frames(&mut self) {
        if let Some(counts) = self.codec.take_counts()
            && let Some(Multiplexed { cells: Some(cells), .. }) = self.multiplexed.as_deref()
        {
            crate::http::stats::count_frames(cells, &counts);
        }
    }

    /// `by` more streams are open.
    pub(super) fn count_streams(&self, by: i64) {
        if let Some(Multiplexed { cells: Some(cells), .. }) = self.multiplexed.as_deref() {
            cells.gauge_add(Http2Stat::STREAMS_ACTIVE, by);
        }
    }

    fn keepalive(&mut self) -> Option<(Http2Keepalive, &mut Keepalive)> {
        let config = self.cluster.config.http.http2.keepalive?;
        Some((config, self.multiplexed.as_mut()?.keepalive.as_mut()?))
    }
}

impl Worker {
    /// The connection is open, and what it speaks is known: by configuration, or by what ALPN agreed on.
    pub(super) fn begin_upstream_protocol(&mut self, key: Key<UpstreamConnection>) {
        let now = self.clock.now_ns();
        let Some(connection) = self.ups.get_mut(key) else { return };
        let Some(pool) = self.upstreams.pools.get_mut(connection.pool) else { return };
        let alpn = connection.info.tls.as_ref().map_or(&[][..], |tls| &tls.alpn);
        let version = match pool.protocol {
            UpstreamProtocol::Auto if alpn == b"h2" => Version::Http2,
            protocol => protocol.version().unwrap_or_default(),
        };
        if pool.protocol == UpstreamProtocol::Auto {
            pool.spoken = Some(version);
            connection.count_protocol(version);
        }
        if version != Version::Http2 {
            return;
        }
        let config = &connection.cluster.config.http;
        let codec = http2::ClientCodec::new(protocol::http2_to(config));
        connection.codec = ClientCodec::Http2(Box::new(codec));
        let keepalive = config.http2.keepalive.as_ref();
        let keepalive = keepalive.map(|config| Keepalive::new(config, now, &mut self.random));
        let block = connection.cluster.stats.http2.as_ref();
        let cells = block.map(|block| self.cx.recorder.local(block));
        connection.multiplexed =
            Some(Box::new(Multiplexed { cells, keepalive, is_leaving: false }));
        self.arm_upstream(key);
    }

    /// A read has been decoded: the host lives; what decoding made necessary is written; perhaps that was the end.
    pub(super) fn host_frames_read(&mut self, key: Key<UpstreamConnection>) {
        let now = self.clock.now_ns();
        let Some(connection) = self.ups.get_mut(key) else { return };
        if let Some(config) = &connection.cluster.config.http.http2.keepalive
            && let Some(multiplexed) = &mut connection.multiplexed
            && let Some(keepalive) = &mut multiplexed.keepalive
        {
            keepalive.heard(config, now, &mut self.random);
        }
        if connection.streams.is_empty() && connection.codec.must_close() {
            self.close_upstream(key, ResetReason::ConnectionTermination, false);
        } else if connection.codec.has_control() {
            self.mark_upstream(key);
        }
    }

    /// The host takes no new streams on this connection; those that it has not looked at have been given back already.
    pub(super) fn host_says_goodbye(&mut self, key: Key<UpstreamConnection>) {
        let Some(connection) = self.ups.get_mut(key) else { return };
        let Some(multiplexed) = &mut connection.multiplexed else { return };
        // A host that is polite says it twice.
        let is_news = !std::mem::replace(&mut multiplexed.is_leaving, true);
        let pool = connection.pool;
        if is_news {
            self.count_upstream(key, ClusterStat::UPSTREAM_CX_CLOSE_NOTIFY);
        }
        self.open_for_waiting(pool);
    }

    /// A stream is put on a connection that may have died unnoticed: a PING goes along.
    pub(super) fn ping_if_silent(&mut self, key: Key<UpstreamConnection>) {
        let now = self.clock.now_ns();
        let Some(connection) = self.ups.get_mut(key) else { return };
        let silent_for = now.saturating_sub(connection.idle_since_ns);
        let Some((config, keepalive)) = connection.keepalive() else { return };
        let is_silent =
            config.idle_interval.is_some_and(|most| u128::from(silent_for) >= most.as_nanos());
        if is_silent && keepalive.sent(&config, now) {
            connection.codec.ping(connection.io.output.writer(&mut self.buffers));
            self.arm_upstream(key);
        }
    }

    /// Does what is due for the connection as such; true when that has ended it.
    pub(super) fn host_keepalive(&mut self, key: Key<UpstreamConnection>, now: u64) -> bool {
        let Some(connection) = self.ups.get_mut(key) else { return true };
        let Some((config, keepalive)) = connection.keepalive() else { return false };
        match keepalive.due(&config, now) {
            Due::Nothing => false,
            Due::Ping => {
                connection.codec.ping(connection.io.output.writer(&mut self.buffers));
                self.mark_upstream(key);
                false
            }
            Due::Dead => {
                if let Some(Multiplexed { cells: Some(cells), .. }) =
                    connection.multiplexed.as_deref()
                {
                    cells.inc(Http2Stat::KEEPALIVE_TIMEOUT);
                }
                self.close_upstream(key, ResetReason::ConnectionTermination, true);
                true
            }
        }
    }
}
