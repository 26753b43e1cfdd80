//! Step 16: one attempt: a stream on a pooled connection, from its request's first byte to its response's last.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use codec::client::ClientCodec;
use codec::event::StreamId;
use codec::headers::{RequestHead, names};
use telemetry::stats::sets::{Cluster as ClusterStat, ClusterTimes, Outliers};

use super::cluster::Cluster;
use super::config::ClusterRef;
use super::connection::UpstreamConnection;
use super::host::Host;
use super::outlier::{Outcome, may_eject};
use crate::arena::Key;
use crate::buffer::BufferPool;
use crate::http::flow::Owed;
use crate::http::stream::Stream;
use crate::http::{grpc, tunnel};
use crate::network::io::FlushResult;
use crate::router::replay::Loss;
use crate::router::{Attempt, ResetReason};
use crate::worker::Worker;
use crate::worker::random::Random;

/// Request bodies at least this long are written from where they were read.
const WRITE_THROUGH: usize = 4 * 1024;

impl Worker {
    /// Puts a stream on a connection: its request goes out.
    pub(crate) fn attach(&mut self, stream_key: Key<Box<Stream>>, key: Key<UpstreamConnection>) {
        let now = self.clock.now_ns();
        if self.ups.get(key).is_some_and(|it| it.is_multiplexed() && it.streams.is_empty()) {
            self.ping_if_silent(key);
        }
        let (Some(stream), Some(connection)) =
            (self.streams.get_mut(stream_key), self.ups.get_mut(key))
        else {
            return;
        };
        let host = &connection.host;
        connection.cluster.breakers[stream.router.priority.min(1)].requests.acquire();
        host.counters.rq_active.fetch_add(1, Ordering::Relaxed);
        host.counters.rq_total.fetch_add(1, Ordering::Relaxed);
        stream.router.on_kept_connection = connection.has_answered;
        stream.router.request_at = connection.written() + connection.io.output.len() as u64;
        connection.requests += 1;
        connection.count_request();
        if stream.info.attempt_count > 1
            && stream.request.fields.contains(names::X_ENVOY_ATTEMPT_COUNT)
        {
            stream
                .request
                .fields
                .set_number(names::X_ENVOY_ATTEMPT_COUNT, u64::from(stream.info.attempt_count));
        }
        let info = &mut stream.info;
        info.upstream_connection = Some(Rc::clone(&connection.info));
        let is_raw = matches!(connection.codec, ClientCodec::Raw(_));
        info.upstream_protocol = (!is_raw).then(|| connection.codec.version());
        (info.timings.upstream_first_tx_ns, info.timings.upstream_first_rx_ns) = (now, 0);
        (info.upstream_bytes_sent, info.upstream_bytes_received) = (0, 0);
        let ends = stream.request_ready && stream.body.is_empty() && !stream.trailers_ready;
        let request = &mut stream.request;
        let id = encode_head(request, ends, connection, &mut self.random, &mut self.buffers);
        connection.streams.insert(id, stream_key);
        stream.router.attempt = Attempt::Active(key, id);
        stream.router.awaits_host = false;
        stream.response_owed = Owed::default();
        if connection.is_multiplexed() {
            stream.response_owed.begin(key, id);
            connection.count_streams(1);
        }
        if ends {
            stream.router.request_sent = true;
            stream.info.timings.upstream_last_tx_ns = now;
        }
        if !connection.is_available
            && connection.can_take(now)
            && let Some(pool) = self.upstreams.pools.get_mut(connection.pool)
        {
            connection.is_available = true;
            pool.available.push(key);
        }
        let has_more = !ends && (!stream.body.is_empty() || stream.request_ready);
        let watches_silence = stream.router.per_try_idle.is_some();
        self.mark_upstream(key);
        if watches_silence {
            self.arm_stream(stream_key);
        }
        if is_raw {
            return self.tunnel_stands(stream_key, key);
        }
        // What goes through a tunnel waits until it stands.
        if has_more && !self.streams.get(stream_key).is_some_and(|it| it.awaits_tunnel()) {
            self.send_kept_body(stream_key, usize::MAX);
            self.resume_request(stream_key);
        }
    }

    /// The connection that a tunnel leads to is open: that is its answer.
    fn tunnel_stands(&mut self, stream_key: Key<Box<Stream>>, key: Key<UpstreamConnection>) {
        self.spare_response.clear();
        self.spare_response.status = 200;
        self.upstream_head(stream_key, key, false);
        self.upstream_request_data(stream_key, &[]);
        self.resume_request(stream_key);
    }

    /// Body bytes go out on the attempt's connection; the end, too, when the request is whole and these are the last.
    pub(crate) fn encode_request_data(
        &mut self,
        stream_key: Key<Box<Stream>>,
        data: &[u8],
        is_last: bool,
    ) {
        let Some(stream) = self.streams.get_mut(stream_key) else { return };
        let Attempt::Active(key, id) = stream.router.attempt else { return };
        let Some(connection) = self.ups.get_mut(key) else { return };
        let is_whole = is_last && stream.request_ready;
        let ends = is_whole && !stream.trailers_ready;
        stream.info.upstream_bytes_sent += data.len() as u64;
        let is_multiplexed = connection.is_multiplexed();
        let out = connection.io.output.writer(&mut self.buffers);
        // What many streams have to say goes out together.
        if data.len() < WRITE_THROUGH || is_multiplexed {
            connection.codec.encode_data(id, data, ends, out);
        } else {
            let tail = connection.codec.begin_data(id, data.len(), ends, out);
            // A failure shows in the next flush or read: the response may be there already.
            let _: FlushResult =
                connection.io.write_through(&data[..tail.len], tail.suffix, &mut self.buffers);
        }
        if is_whole && stream.trailers_ready {
            let out = connection.io.output.writer(&mut self.buffers);
            connection.codec.encode_trailers(id, &stream.request_trailers, out);
        }
        // A tunnel's end is the end of what its host hears.
        connection.io.shutdown_after_flush |=
            is_whole && !is_multiplexed && stream.router.is_tunnel(&stream.request);
        if is_whole {
            stream.router.request_sent = true;
            stream.info.timings.upstream_last_tx_ns = self.clock.now_ns();
        }
        let is_full = connection.io.output.len() > connection.high_watermark();
        // A client with a window of its own is held back by that.
        let rests = is_full && !stream.request_owed.has_window();
        connection.above_high_watermark |= rests;
        self.mark_upstream(key);
        self.owe_client(stream_key, data.len());
        if rests {
            self.pause_request(stream_key);
        }
    }

    /// More of a request has come than goes on: reading from its client rests.
    pub(crate) fn pause_request(&mut self, stream_key: Key<Box<Stream>>) {
        if let Some(down) = self.streams.get(stream_key).and_then(|stream| stream.downstream)
            && let Some(http) = self.http_of(down)
        {
            http.pause_reading();
        }
    }

    /// The connection takes bytes again: clients that were paused for it go on.
    pub(crate) fn upstream_has_room(&mut self, key: Key<UpstreamConnection>) {
        let Some(connection) = self.ups.get_mut(key) else { return };
        if connection.io.output.len() > connection.high_watermark() / 2 {
            return;
        }
        let somebody_rests = std::mem::take(&mut connection.above_high_watermark);
        if !connection.credits.is_empty() {
            self.credit_clients(key);
        }
        let Some(connection) = self.ups.get(key).filter(|_| somebody_rests) else { return };
        for stream in connection.streams.keys() {
            self.resume_request(stream);
        }
    }

    /// The client may send again.
    pub(crate) fn resume_request(&mut self, stream_key: Key<Box<Stream>>) {
        let Some(down) = self.streams.get(stream_key).and_then(|stream| stream.downstream) else {
            return;
        };
        if let Some(http) = self.http_of(down)
            && http.resume_reading()
        {
            self.wake_downstream(down);
        }
    }

    /// The client is slower than the host: reading from the host rests.
    pub(crate) fn pause_response(&mut self, stream_key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get(stream_key) else { return };
        // Where many streams share a connection their own windows hold them back.
        if let Attempt::Active(key, _) = stream.router.attempt
            && let Some(connection) = self.ups.get_mut(key)
            && !connection.read_paused
            && !connection.is_multiplexed()
        {
            connection.read_paused = true;
            self.count_upstream(key, ClusterStat::UPSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL);
        }
    }

    /// The client takes bytes again.
    pub(crate) fn resume_response(&mut self, stream_key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get(stream_key) else { return };
        if let Attempt::Active(key, _) = stream.router.attempt
            && let Some(connection) = self.ups.get_mut(key)
            && connection.read_paused
        {
            connection.read_paused = false;
            self.count_upstream(key, ClusterStat::UPSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL);
            self.wake_upstream(key);
        }
    }

    /// A response's head is in `spare_response`.
    pub(crate) fn upstream_head(
        &mut self,
        stream_key: Key<Box<Stream>>,
        key: Key<UpstreamConnection>,
        end_stream: bool,
    ) {
        let now = self.clock.now_ns();
        let Some(stream) = self.streams.get_mut(stream_key) else { return };
        std::mem::swap(&mut stream.response, &mut self.spare_response);
        stream.info.timings.upstream_first_rx_ns = now;
        if let Some(connection) = self.ups.get_mut(key) {
            connection.has_answered = true;
            if connection.is_multiplexed() {
                tunnel::from_extended_response(&stream.request, &mut stream.response);
            }
        }
        let status = stream.response.status;
        let outcome = grpc::outcome(&stream.request, &stream.response);
        self.note_outcome(stream_key, Outcome::Status(outcome));
        self.count_response(stream_key, status, outcome, now);
        if self.retry_response(stream_key, end_stream) {
            return;
        }
        let Some(stream) = self.streams.get_mut(stream_key) else { return };
        let suppress =
            stream.http.as_ref().is_none_or(|http| http.config.router.suppress_envoy_headers);
        let fields = &mut stream.response.fields;
        if !suppress {
            let ms = (now - stream.info.timings.upstream_first_tx_ns) / 1_000_000;
            fields.set_number(names::X_ENVOY_UPSTREAM_SERVICE_TIME, ms);
        }
        if stream.router.tells_attempts {
            fields.set_number(names::X_ENVOY_ATTEMPT_COUNT, u64::from(stream.info.attempt_count));
        }
        stream.info.response_code_details = "via_upstream";
        let grants_tunnel = tunnel::is_granted(&stream.request, &stream.response);
        if end_stream {
            self.response_complete(stream_key, key);
        }
        self.respond_head(stream_key, end_stream);
        if grants_tunnel {
            self.upstream_request_data(stream_key, &[]);
        }
    }

    /// Is this a response to throw away and try again?
    fn retry_response(&mut self, stream_key: Key<Box<Stream>>, end_stream: bool) -> bool {
        let Some(stream) = self.streams.get_mut(stream_key) else { return false };
        let Some(retry) = &mut stream.router.retry else { return false };
        let verdict = retry.on_response(&stream.response);
        let attempt = stream.router.attempt;
        if !self.follow(stream_key, verdict) {
            return false;
        }
        // The attempt is over, whatever else its response has.
        let back_off = self.streams.get(stream_key).map(|stream| stream.router.attempt);
        if let (Some(stream), Attempt::Active(key, _)) = (self.streams.get_mut(stream_key), attempt)
        {
            stream.router.attempt = attempt;
            if end_stream {
                self.response_complete(stream_key, key);
            } else {
                self.abandon_attempt(stream_key);
            }
        }
        if let (Some(stream), Some(back_off)) = (self.streams.get_mut(stream_key), back_off) {
            stream.router.attempt = back_off;
        }
        true
    }

    /// Response body bytes, perhaps the last.
    pub(crate) fn upstream_data(
        &mut self,
        stream_key: Key<Box<Stream>>,
        key: Key<UpstreamConnection>,
        data: &[u8],
        end_stream: bool,
    ) {
        let Some(stream) = self.streams.get_mut(stream_key) else { return };
        stream.info.upstream_bytes_received += data.len() as u64;
        stream.response_owed.arrived(data.len());
        if end_stream {
            self.response_complete(stream_key, key);
        }
        self.respond_data(stream_key, data, end_stream);
        self.settle_response(stream_key);
    }

    /// The response's trailers are in the fields of `spare_response`.
    pub(crate) fn upstream_trailers(
        &mut self,
        stream_key: Key<Box<Stream>>,
        key: Key<UpstreamConnection>,
    ) {
        let Some(stream) = self.streams.get_mut(stream_key) else { return };
        std::mem::swap(&mut stream.response_trailers, &mut self.spare_response.fields);
        stream.has_response_trailers = true;
        if let Some(host) = &stream.info.upstream_host
            && grpc::tells_in_trailers(&stream.request, &stream.response)
        {
            let status = grpc::status_in(&stream.response_trailers);
            host.counters.count(status.map_or(500, grpc::http_of_status));
        }
        self.response_complete(stream_key, key);
        self.respond_trailers(stream_key);
    }

    /// The response is whole: the connection is free for others (or of no more use).
    fn response_complete(&mut self, stream_key: Key<Box<Stream>>, key: Key<UpstreamConnection>) {
        let now = self.clock.now_ns();
        let Some(stream) = self.streams.get_mut(stream_key) else { return };
        stream.info.timings.upstream_last_rx_ns = now;
        stream.router.response_complete();
        // A host that has answered before it had the request does not want the rest of it.
        if !stream.router.request_sent
            && let Attempt::Active(_, id) = stream.router.attempt
            && let Some(connection) = self.ups.get_mut(key)
            && connection.is_multiplexed()
        {
            connection.codec.reset(id, connection.io.output.writer(&mut self.buffers));
            self.mark_upstream(key);
        }
        self.detach(stream_key);
        self.stream_off(key, now);
    }

    /// A stream has left a connection, which goes on to the next, or ends if it was the last.
    fn stream_off(&mut self, key: Key<UpstreamConnection>, now: u64) {
        let Some(connection) = self.ups.get(key) else { return };
        if connection.can_take(now) {
            self.connection_available(key);
        } else if connection.streams.is_empty() {
            connection.count_why_over(now);
            self.close_upstream(key, ResetReason::ConnectionTermination, true);
        }
    }

    /// The stream is not on its connection any more: what it held is given back.
    fn detach(&mut self, stream_key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(stream_key) else { return };
        let Attempt::Active(key, id) = std::mem::take(&mut stream.router.attempt) else { return };
        let (priority, holds_retry) =
            (stream.router.priority, std::mem::take(&mut stream.router.holds_retry));
        let Some(connection) = self.ups.get_mut(key) else { return };
        connection.streams.remove(id);
        connection.count_streams(-1);
        connection.read_paused = false;
        let pool = connection.pool;
        release(connection, priority, holds_retry);
        self.count_inactive(pool);
    }

    fn count_inactive(&mut self, pool: Key<super::pool::Pool>) {
        if let Some(pool) = self.upstreams.pools.get(pool)
            && let Some(cluster) = self.upstreams.get(pool.at)
        {
            cluster.cells.counters.gauge_add(ClusterStat::UPSTREAM_RQ_ACTIVE, -1);
        }
    }

    /// The host gave up the stream.
    pub(crate) fn upstream_reset(
        &mut self,
        stream_key: Key<Box<Stream>>,
        key: Key<UpstreamConnection>,
        reason: ResetReason,
    ) {
        self.count_upstream(key, ClusterStat::UPSTREAM_RQ_RX_RESET);
        let (Some(stream), Some(connection)) = (self.streams.get(stream_key), self.ups.get(key))
        else {
            return;
        };
        let loss = Loss::new(reason, stream, connection);
        self.detach(stream_key);
        if self.ups.get(key).is_some_and(|connection| !connection.io.eof) {
            self.stream_off(key, self.clock.now_ns());
        }
        self.attempt_lost(stream_key, loss);
    }

    /// An attempt was lost with its connection, or given back: again, or it has failed.
    fn attempt_lost(&mut self, stream_key: Key<Box<Stream>>, loss: Loss) {
        if !self.replay(stream_key, loss) {
            self.note_outcome(stream_key, Outcome::LocalFailure);
            self.attempt_failed(stream_key, loss.reason, None);
        }
    }

    /// The stream's connection is gone (and out of the arena already).
    pub(crate) fn connection_lost(
        &mut self,
        stream_key: Key<Box<Stream>>,
        connection: &UpstreamConnection,
        reason: ResetReason,
    ) {
        let Some(stream) = self.streams.get_mut(stream_key) else { return };
        stream.router.attempt = Attempt::None;
        connection.count_streams(-1);
        release(connection, stream.router.priority, std::mem::take(&mut stream.router.holds_retry));
        let loss = Loss::new(reason, stream, connection);
        self.count_inactive(connection.pool);
        self.attempt_lost(stream_key, loss);
    }

    /// Nobody wants this attempt any more.
    pub(crate) fn abandon_attempt(&mut self, stream_key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(stream_key) else { return };
        match stream.router.attempt {
            Attempt::None => {}
            Attempt::BackOff(_) => stream.router.attempt = Attempt::None,
            Attempt::Waiting(pool) => {
                stream.router.attempt = Attempt::None;
                let priority = stream.router.priority;
                self.left_queue(pool, priority);
                self.count_pool(pool, ClusterStat::UPSTREAM_RQ_CANCELLED);
            }
            Attempt::Active(key, id) => {
                if self.ups.get(key).is_some_and(UpstreamConnection::is_multiplexed) {
                    self.count_upstream(key, ClusterStat::UPSTREAM_RQ_TX_RESET);
                } else {
                    // Without streams of its own the connection ends with the request.
                    self.count_upstream(key, ClusterStat::UPSTREAM_CX_DESTROY_WITH_ACTIVE_RQ);
                    self.count_upstream(key, ClusterStat::UPSTREAM_CX_DESTROY_LOCAL_WITH_ACTIVE_RQ);
                }
                self.detach(stream_key);
                let Some(connection) = self.ups.get_mut(key) else { return };
                connection.codec.reset(id, connection.io.output.writer(&mut self.buffers));
                if connection.codec.must_close() && connection.streams.is_empty() {
                    self.close_upstream(key, ResetReason::ConnectionTermination, true);
                } else {
                    self.mark_upstream(key);
                    self.stream_off(key, self.clock.now_ns());
                }
            }
        }
        self.release_retry(stream_key);
    }

    /// A retry that was counted and will not be made.
    fn release_retry(&mut self, stream_key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(stream_key) else { return };
        if std::mem::take(&mut stream.router.holds_retry)
            && let Some(cluster) = &stream.info.cluster
        {
            cluster.priority(stream.router.priority).1.retries.release();
        }
    }

    /// Counts a response: by its status, and for its host by its outcome, unless trailers will tell that.
    fn count_response(
        &mut self,
        stream_key: Key<Box<Stream>>,
        status: u16,
        outcome: u16,
        now: u64,
    ) {
        let Some(stream) = self.streams.get(stream_key) else { return };
        if let Some(host) = &stream.info.upstream_host
            && !grpc::tells_in_trailers(&stream.request, &stream.response)
        {
            host.counters.count(outcome);
        }
        self.count_status(stream_key, status);
        let Some(cluster) = stream.router.cluster.and_then(|cluster| self.upstreams.get(cluster))
        else {
            return;
        };
        let ms = (now - stream.info.timings.upstream_first_tx_ns) / 1_000_000;
        cluster.cells.times.record(ClusterTimes::UPSTREAM_RQ_TIME, ms);
        if stream.info.attempt_count > 1 && status < 500 {
            cluster.cells.counters.inc(ClusterStat::UPSTREAM_RQ_RETRY_SUCCESS);
        }
    }

    /// Counts an answer against its cluster by its status: the host's, or as in Envoy ours where the host had none.
    pub(crate) fn count_status(&self, stream_key: Key<Box<Stream>>, status: u16) {
        let Some(stream) = self.streams.get(stream_key) else { return };
        let Some(cluster) = stream.router.cluster.and_then(|cluster| self.upstreams.get(cluster))
        else {
            return;
        };
        let recorder = &self.cx.recorder;
        cluster.cells.codes.response(status, |_rare| {
            let rare = recorder.local(&cluster.cluster.stats.rare_codes);
            rare.inc_member(
                telemetry::stats::sets::ClusterRareCodes::UPSTREAM_RQ_CODE,
                status as usize - 100,
            );
        });
    }

    /// Tells outlier detection how an attempt went.
    pub(crate) fn note_outcome(&mut self, stream_key: Key<Box<Stream>>, outcome: Outcome) {
        let Some(stream) = self.streams.get(stream_key) else { return };
        let (Some(shared), Some(host)) = (&stream.info.cluster, &stream.info.upstream_host) else {
            return;
        };
        if outcome == Outcome::LocalFailure {
            host.counters.rq_error.fetch_add(1, Ordering::Relaxed);
        }
        if shared.config.outlier.is_none() {
            return;
        }
        let (shared, host) = (Arc::clone(shared), Arc::clone(host));
        if let Some(at) = stream.router.cluster {
            self.note_host_outcome(at, &shared, &host, outcome);
        }
    }

    /// Tells outlier detection what a host did; the last straw ejects it.
    pub(crate) fn note_host_outcome(
        &mut self,
        at: ClusterRef,
        shared: &Cluster,
        host: &Host,
        outcome: Outcome,
    ) {
        let Some(config) = &shared.config.outlier else { return };
        let Some(cluster) = self.upstreams.get(at) else { return };
        for kind in host.outlier.record(config, outcome).kinds() {
            if host.outlier.is_ejected() {
                return;
            }
            let stats = self.cx.recorder.local(&shared.stats.outliers);
            let (detected, enforced) = kind.counters();
            stats.inc(detected);
            let set = cluster.balancer.host_set();
            let ejected = set.hosts.iter().filter(|host| host.outlier.is_ejected()).count();
            if !may_eject(config, ejected, set.hosts.len()) {
                stats.inc(Outliers::EJECTIONS_OVERFLOW);
                continue;
            }
            let is_enforced = self.random.below(100) < u64::from(kind.enforcing(config));
            if is_enforced && host.outlier.eject(self.clock.now_ns() / 1_000_000) {
                stats.inc(Outliers::EJECTIONS_ENFORCED_TOTAL);
                stats.inc(enforced);
                stats.gauge_add(Outliers::EJECTIONS_ACTIVE, 1);
                set.health_changed();
            }
        }
    }
}

/// Writes a request's head; an upgrade in the words that the connection's version has for it.
fn encode_head(
    request: &mut RequestHead,
    ends: bool,
    connection: &mut UpstreamConnection,
    random: &mut Random,
    buffers: &mut BufferPool,
) -> StreamId {
    let is_multiplexed = connection.is_multiplexed();
    let (codec, out) = (&mut connection.codec, connection.io.output.writer(buffers));
    if !request.is_upgrade {
        return codec.encode_head(request, ends, out);
    }
    if is_multiplexed {
        return tunnel::as_extended_connect(request, |head| codec.encode_head(head, ends, out));
    }
    tunnel::ensure_websocket_key(request, random);
    codec.encode_head(request, ends, out)
}

fn release(connection: &UpstreamConnection, priority: usize, holds_retry: bool) {
    let breakers = &connection.cluster.breakers[priority.min(1)];
    breakers.requests.release();
    if holds_retry {
        breakers.retries.release();
    }
    connection.host.counters.rq_active.fetch_sub(1, Ordering::Relaxed);
}
