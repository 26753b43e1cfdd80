//! Step 7, the way back: a response, from upstream or made here, is finished and encoded to the client.

use codec::headers::{ResponseHead, names};
use telemetry::stats::sets::HttpConnManager as Stat;

use super::config::ServerHeader;
use super::flow::Rest;
use super::grpc;
use super::header_mutation::MutationContext;
use super::request_headers::{HeadRules, finish_response};
use super::stream::Stream;
use super::tunnel;
use crate::arena::Key;
use crate::filter_manager::{Direction, LocalReply};
use crate::network::downstream::{CloseReason, Downstream, Kind};
use crate::network::io::FlushResult;
use crate::worker::Worker;

/// Bodies at least this long are written from where they were read instead of being copied behind the head.
const WRITE_THROUGH: usize = 4 * 1024;

impl Worker {
    /// A response's head is in `stream.response`: it passes the filters to the client.
    pub(crate) fn respond_head(&mut self, key: Key<Box<Stream>>, end_stream: bool) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let stream = &mut **stream;
        stream.info.response_code = stream.response.status;
        if let Some(route) = &stream.info.route {
            let cx = MutationContext {
                worker: self.cx.index,
                now_ns: self.clock.now_ns(),
                info: &stream.info,
            };
            route.apply_response(
                &mut stream.response,
                Some(&stream.request),
                cx,
                &mut self.mutation_scratch,
            );
        }
        if meets_filters(stream) {
            self.filter_head(key, Direction::Encode, 0, end_stream);
        } else {
            self.send_response_head(key, end_stream);
        }
    }

    /// Body bytes of a response pass the filters to the client.
    pub(crate) fn respond_data(&mut self, key: Key<Box<Stream>>, data: &[u8], end_stream: bool) {
        if self.streams.get(key).is_some_and(|stream| meets_filters(stream)) {
            self.filter_data(key, Direction::Encode, 0, data, end_stream);
        } else {
            self.send_response_data(key, data, end_stream);
        }
    }

    /// A response's trailers pass the filters to the client.
    pub(crate) fn respond_trailers(&mut self, key: Key<Box<Stream>>) {
        if self.streams.get(key).is_some_and(|stream| meets_filters(stream)) {
            self.filter_trailers(key, Direction::Encode, 0);
        } else {
            self.send_response_trailers(key);
        }
    }

    /// Sends the head in `stream.response` to the client.
    pub(crate) fn send_response_head(&mut self, key: Key<Box<Stream>>, end_stream: bool) {
        let now = self.clock.now_ns();
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.response_started = true;
        stream.last_activity_ns = now;
        stream.info.response_code = stream.response.status;
        stream.info.timings.downstream_first_tx_ns = now;
        let Some(down_key) = stream.downstream else {
            if end_stream {
                self.call_ended(key, None);
            }
            return;
        };
        let Some(http) = &stream.http else { return };
        finish_response(&mut stream.response, &stream.request, HeadRules::new(&http.config, &[]));
        match &http.config.server_header {
            ServerHeader::Overwrite(name) => {
                stream.response.fields.set(names::SERVER, name.as_bytes())
            }
            ServerHeader::AppendIfAbsent(name)
                if !stream.response.fields.contains(names::SERVER) =>
            {
                stream.response.fields.set(names::SERVER, name.as_bytes());
            }
            ServerHeader::AppendIfAbsent(_) | ServerHeader::PassThrough => {}
        }
        if !stream.response.fields.contains(names::DATE) {
            stream.response.fields.append(names::DATE, self.clock.http_date().as_bytes());
        }
        http.cells.counters.response(stream.response.status);
        http.cells.listener.response(stream.response.status);
        if !stream.request_done {
            http.cells.counters.inc(Stat::DOWNSTREAM_RQ_RESPONSE_BEFORE_RQ_COMPLETE);
        }
        let Some(Downstream { kind: Kind::Http(down), io, .. }) = self.downs.get_mut(down_key)
        else {
            return;
        };
        let out = io.output.writer(&mut self.buffers);
        if down.is_draining && !down.is_multiplexed() {
            down.codec.start_drain(out);
        }
        if down.is_multiplexed() {
            tunnel::as_extended_response(&mut stream.response, |response| {
                down.codec.encode_head(stream.id, response, end_stream, out);
            });
        } else {
            down.codec.encode_head(stream.id, &stream.response, end_stream, out);
        }
        if tunnel::asks_for_tunnel(&stream.request) && std::mem::take(&mut down.is_blocked) {
            // What the client sent ahead is the tunnel's.
            self.wake_downstream(down_key);
        }
        self.mark_downstream(down_key);
        if end_stream {
            self.end_stream(key);
        }
    }

    /// Sends body bytes to the client, perhaps the last.
    pub(crate) fn send_response_data(
        &mut self,
        key: Key<Box<Stream>>,
        data: &[u8],
        end_stream: bool,
    ) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.last_activity_ns = self.clock.now_ns();
        stream.info.bytes_sent += data.len() as u64;
        let Some(down_key) = stream.downstream else {
            // What comes back to nobody is of no use.
            if stream.caller.is_some() {
                stream.call_body.extend_from_slice(data);
            }
            if end_stream {
                self.call_ended(key, None);
            }
            return;
        };
        let Some(down) = self.downs.get_mut(down_key) else { return };
        let Kind::Http(http) = &mut down.kind else { return };
        if data.len() > http.codec.send_room(stream.id) || !stream.unsent.is_empty() {
            return self.hold_response(key, data, end_stream);
        }
        let out = down.io.output.writer(&mut self.buffers);
        // What many streams have to say goes out together.
        if data.len() < WRITE_THROUGH || http.is_multiplexed() {
            http.codec.encode_data(stream.id, data, end_stream, out);
        } else {
            let tail = http.codec.begin_data(stream.id, data.len(), end_stream, out);
            let written = down.io.write_through(&data[..tail.len], tail.suffix, &mut self.buffers);
            if let FlushResult::Failed(_) = written {
                return self.close_downstream(down_key, CloseReason::Remote);
            }
        }
        let is_full = down.io.output.len() > down.high_watermark();
        // A host with a window of its own is held back by that.
        let rests = is_full && !stream.response_owed.has_window();
        down.above_high_watermark |= rests;
        self.mark_downstream(down_key);
        self.owe_host(key, data.len());
        if end_stream {
            self.end_stream(key);
        } else if rests {
            self.pause_response(key);
        }
    }

    /// Sends `stream.response_trailers` and ends the stream.
    pub(crate) fn send_response_trailers(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let Some(down_key) = stream.downstream else { return self.call_ended(key, None) };
        if !stream.unsent.is_empty() {
            stream.unsent_rest = Rest::Trailers;
            return;
        }
        let Some(Downstream { kind: Kind::Http(http), io, .. }) = self.downs.get_mut(down_key)
        else {
            return;
        };
        let out = io.output.writer(&mut self.buffers);
        http.codec.encode_trailers(stream.id, &stream.response_trailers, out);
        self.mark_downstream(down_key);
        self.end_stream(key);
    }

    /// Passes a 1xx on; not a 100 that nobody waits for (any more).
    pub(crate) fn send_informational(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if self.spare_response.status == 100 && !stream.request.fields.contains(names::EXPECT) {
            return;
        }
        let Some(down_key) = stream.downstream else { return };
        let Some(Downstream { kind: Kind::Http(http), io, .. }) = self.downs.get_mut(down_key)
        else {
            return;
        };
        let out = io.output.writer(&mut self.buffers);
        http.codec.encode_informational(stream.id, &self.spare_response, out);
        self.mark_downstream(down_key);
    }

    /// Answers from here, or, when the response has begun, cuts it off.
    pub(crate) fn local_reply(&mut self, key: Key<Box<Stream>>, reply: LocalReply) {
        self.abandon_attempt(key);
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.downstream.is_none() {
            return self.call_ended(key, Some(reply.details));
        }
        stream.info.flags.insert(reply.flags);
        stream.info.response_code_details = reply.details;
        if stream.response_started {
            return self.cut_off(key);
        }
        stream.replies += 1;
        stream.encode.replace(&mut self.buffers);
        let has_body = if grpc::is_grpc(&stream.request) {
            grpc::write_reply_head(&mut stream.response, &reply, &stream.request);
            false
        } else {
            write_reply_head(&mut stream.response, &reply);
            !reply.body.is_empty()
        };
        let replies = stream.replies;
        self.respond_head(key, !has_body);
        // A filter may have put another answer in the place of this one.
        if has_body && self.streams.get(key).is_some_and(|stream| stream.replies == replies) {
            self.respond_data(key, reply.body.as_bytes(), true);
        }
    }

    /// The response cannot be finished: the client must not take it for whole.
    pub(crate) fn cut_off(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.downstream.is_none() {
            return self.call_ended(key, Some("upstream_reset_after_response_started"));
        }
        if let Some(http) = &stream.http {
            http.cells.counters.inc(Stat::DOWNSTREAM_RQ_TX_RESET);
        }
        let (downstream, id) = (stream.downstream, stream.id);
        if let Some(down_key) = downstream
            && let Some(down) = self.downs.get_mut(down_key)
            && let Kind::Http(http) = &mut down.kind
        {
            http.codec.reset(id, down.io.output.writer(&mut self.buffers));
            self.mark_downstream(down_key);
        }
        self.end_stream(key);
    }
}

/// As in Envoy, an answer that takes the place of one that filters were looking at already goes past them.
fn meets_filters(stream: &Stream) -> bool {
    stream.chain.is_some() && !stream.encode.is_bypassed()
}

fn write_reply_head(response: &mut ResponseHead, reply: &LocalReply) {
    response.clear();
    response.status = reply.status;
    let fields = &mut response.fields;
    if !reply.body.is_empty() {
        fields.set_number(names::CONTENT_LENGTH, reply.body.len() as u64);
        if !reply.headers.iter().any(|(name, _)| &**name == "content-type") {
            fields.set(names::CONTENT_TYPE, b"text/plain");
        }
    }
    for (name, value) in &reply.headers {
        fields.append(&**name, value.as_bytes());
    }
}
