//! Flow control between the two sides of a stream: what waits for a window, and who is told that bytes have left.
//!
//! A response's bytes that its client's window has no room for wait in `Stream::unsent`, a request's in `Stream::body`.
//! Neither grows without bound: an HTTP/2 sender has only the window that we granted it, which grows when bytes leave on
//! the other side and not when they arrive; an HTTP/1 sender is not read from while more than [`PAUSE_ABOVE`] waits.

use std::collections::VecDeque;

use codec::event::StreamId;

use super::stream::Stream;
use crate::arena::{Arena, Key};
use crate::network::downstream::{Downstream, Kind};
use crate::router::Attempt;
use crate::upstream::connection::UpstreamConnection;
use crate::worker::Worker;

/// An HTTP/1 sender rests while more of its message than this waits for the other side's window.
pub(crate) const PAUSE_ABOVE: usize = 64 * 1024;
/// A connection of many streams is written to while less than this waits for its socket, and senders are told that bytes
/// have left while it is less than half of this: what a client does not take stays with the host.
const MULTIPLEXED_BUFFER: usize = 128 * 1024;

/// The most that may wait for a connection's socket before senders rest, of a configured `limit`.
#[inline]
pub(crate) fn high_watermark(limit: usize, is_multiplexed: bool) -> usize {
    if is_multiplexed { limit.min(MULTIPLEXED_BUFFER) } else { limit }
}

/// So much of one stream is written before the next one that waits has its turn.
const QUANTUM: usize = 16 * 1024;

/// How a response goes on after the bytes that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rest {
    /// More is to come.
    #[default]
    More,
    /// It ends.
    End,
    /// Trailers end it.
    Trailers,
}

/// Whom bytes of a message came from, if their sender has a window, and how many it is not told of yet.
#[derive(Debug)]
pub struct Owed<T> {
    from: Option<(Key<T>, StreamId)>,
    len: usize,
}

impl<T> Default for Owed<T> {
    fn default() -> Self {
        Self { from: None, len: 0 }
    }
}

impl<T> Owed<T> {
    /// The message comes from this stream, which has a window.
    pub fn begin(&mut self, from: Key<T>, stream: StreamId) {
        *self = Self { from: Some((from, stream)), len: 0 };
    }

    /// Its sender has a window.
    #[inline]
    pub fn has_window(&self) -> bool {
        self.from.is_some()
    }

    /// Bytes have come.
    #[inline]
    pub fn arrived(&mut self, len: usize) {
        if self.from.is_some() {
            self.len += len;
        }
    }

    /// So many have gone on: those of them that the sender is owed.
    #[inline]
    fn take(&mut self, len: usize) -> Option<(Key<T>, StreamId, usize)> {
        let (key, stream) = self.from?;
        let len = len.min(self.len);
        self.len -= len;
        (len > 0).then_some((key, stream, len))
    }
}

impl Worker {
    /// Keeps what the client's window has no room for; what fits is sent.
    pub(crate) fn hold_response(&mut self, key: Key<Box<Stream>>, data: &[u8], end_stream: bool) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if !data.is_empty() {
            stream.unsent.writer(&mut self.buffers).extend_from_slice(data);
        }
        if end_stream {
            stream.unsent_rest = Rest::End;
        }
        self.send_unsent(key, usize::MAX);
        self.wait_for_client(key);
    }

    /// The stream takes its place among those that wait for the client's window.
    pub(crate) fn wait_for_client(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        if stream.unsent.is_empty() {
            return;
        }
        let (is_new, is_long) = (
            !std::mem::replace(&mut stream.awaits_client, true),
            stream.unsent.len() > PAUSE_ABOVE,
        );
        if is_new
            && let Some(down) = stream.downstream
            && let Some(Downstream { kind: Kind::Http(http), .. }) = self.downs.get_mut(down)
            && let Some(multiplexed) = &mut http.multiplexed
        {
            queue_up(&mut multiplexed.waiting, key, &self.streams, http.streams.len());
        }
        if is_long {
            self.pause_response(key);
        }
    }

    /// The stream takes its place among those that wait for its host's window.
    pub(crate) fn wait_for_host(&mut self, key: Key<Box<Stream>>) {
        if let Some(stream) = self.streams.get_mut(key)
            && let Attempt::Active(on, _) = stream.router.attempt
            && !std::mem::replace(&mut stream.router.awaits_host, true)
            && let Some(connection) = self.ups.get_mut(on)
        {
            queue_up(&mut connection.waiting, key, &self.streams, connection.streams.len());
        }
    }

    /// The client's window for one stream has opened: what waits of it goes on. It keeps its place in the line.
    pub(crate) fn client_has_room_for(&mut self, key: Key<Downstream>, id: StreamId) {
        let Some(stream) = self.http_of(key).and_then(|http| http.streams.get(id)) else { return };
        if self.streams.get(stream).is_some_and(|stream| stream.awaits_client) {
            self.send_unsent(stream, usize::MAX);
        }
    }

    /// The client's window for the connection has opened, or every stream's: what waits goes on, each in turn.
    pub(crate) fn client_has_room(&mut self, key: Key<Downstream>) {
        loop {
            let mut moved = 0;
            let waiting = match self.http_of(key).and_then(|http| http.multiplexed.as_ref()) {
                Some(multiplexed) => multiplexed.waiting.len(),
                None => return,
            };
            for _ in 0..waiting {
                let next = self
                    .http_of(key)
                    .and_then(|http| http.multiplexed.as_mut()?.waiting.pop_front());
                let Some(stream_key) = next else { return };
                moved += self.send_unsent(stream_key, QUANTUM);
                if let Some(stream) = self.streams.get_mut(stream_key) {
                    stream.awaits_client = false;
                    self.wait_for_client(stream_key);
                }
            }
            if moved == 0 {
                return;
            }
        }
    }

    /// Sends what waits of a response, as far as the window and `most` go, and what ends it. Says how much that was.
    fn send_unsent(&mut self, key: Key<Box<Stream>>, most: usize) -> usize {
        let Some(stream) = self.streams.get_mut(key) else { return 0 };
        let Some(down_key) = stream.downstream else { return 0 };
        let Some(down) = self.downs.get_mut(down_key) else { return 0 };
        let Kind::Http(http) = &mut down.kind else { return 0 };
        let len = stream.unsent.len().min(http.codec.send_room(stream.id)).min(most);
        let is_last = len == stream.unsent.len();
        let ends = is_last && stream.unsent_rest == Rest::End;
        let out = down.io.output.writer(&mut self.buffers);
        if len > 0 || ends {
            http.codec.encode_data(stream.id, &stream.unsent.as_slice()[..len], ends, out);
        }
        stream.unsent.consume(len, &mut self.buffers);
        if let Some((from, id, len)) = stream.response_owed.take(len) {
            down.credits.add(from, id, len);
        }
        let rest = stream.unsent_rest;
        self.mark_downstream(down_key);
        if !is_last {
            return len;
        }
        match rest {
            Rest::End => self.end_stream(key),
            Rest::Trailers => self.send_response_trailers(key),
            Rest::More => self.resume_response(key),
        }
        len
    }

    /// The host's window for one stream has opened: what waits of it goes on. It keeps its place in the line.
    pub(crate) fn host_has_room_for(&mut self, key: Key<UpstreamConnection>, id: StreamId) {
        let Some(stream_key) = self.ups.get(key).and_then(|it| it.streams.get(id)) else { return };
        if self.streams.get(stream_key).is_some_and(|stream| stream.router.awaits_host) {
            self.send_kept_body(stream_key, usize::MAX);
            self.resume_if_short(stream_key);
        }
    }

    /// A client that was paused for what waits of its request is read from again once that is little.
    fn resume_if_short(&mut self, stream_key: Key<Box<Stream>>) {
        let waits = self.streams.get(stream_key).map_or(0, |stream| stream.body.len());
        if waits <= PAUSE_ABOVE / 2 {
            self.resume_request(stream_key);
        }
    }

    /// The host's window for the connection has opened, or every stream's: what waits goes on, each in turn.
    pub(crate) fn host_has_room(&mut self, key: Key<UpstreamConnection>) {
        loop {
            let mut moved = 0;
            let Some(waiting) = self.ups.get(key).map(|connection| connection.waiting.len()) else {
                return;
            };
            for _ in 0..waiting {
                let Some(stream_key) =
                    self.ups.get_mut(key).and_then(|connection| connection.waiting.pop_front())
                else {
                    return;
                };
                let Some(stream) = self.streams.get_mut(stream_key) else { continue };
                // It may be another attempt by now, on another connection.
                if !matches!(stream.router.attempt, Attempt::Active(on, _) if on == key) {
                    continue;
                }
                stream.router.awaits_host = false;
                moved += self.send_kept_body(stream_key, QUANTUM);
                self.resume_if_short(stream_key);
            }
            if moved == 0 {
                return;
            }
        }
    }

    /// Bytes of a request have been encoded for its host: its client is to be told once they have left.
    #[inline]
    pub(crate) fn owe_client(&mut self, stream_key: Key<Box<Stream>>, len: usize) {
        let Some(stream) = self.streams.get_mut(stream_key) else { return };
        let Some((from, id, len)) = stream.request_owed.take(len) else { return };
        match stream.router.attempt {
            Attempt::Active(key, _) => {
                if let Some(connection) = self.ups.get_mut(key) {
                    connection.credits.add(from, id, len);
                }
            }
            _ => self.request_passed_on(from, id, len),
        }
    }

    /// As `owe_client`, for bytes of a response.
    #[inline]
    pub(crate) fn owe_host(&mut self, stream_key: Key<Box<Stream>>, len: usize) {
        let Some(stream) = self.streams.get_mut(stream_key) else { return };
        let Some((from, id, len)) = stream.response_owed.take(len) else { return };
        match stream.downstream.and_then(|down| self.downs.get_mut(down)) {
            Some(down) => down.credits.add(from, id, len),
            None => self.response_passed_on(from, id, len),
        }
    }

    /// What came of a request and neither waits nor has been sent on was kept or dropped by filters: its sender may go
    /// on, unless the filter that keeps it wants it to rest.
    pub(crate) fn settle_request(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let waits = stream.body.len() - stream.router.body_sent.min(stream.body.len());
        let waits = waits + stream.decode.pushed_back();
        let more = stream.request_owed.len.saturating_sub(waits);
        if let Some((from, id, len)) = stream.request_owed.take(more) {
            self.request_passed_on(from, id, len);
        }
    }

    /// As `settle_request`, for a response.
    pub(crate) fn settle_response(&mut self, key: Key<Box<Stream>>) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let waits = stream.unsent.len() + stream.encode.pushed_back();
        let more = stream.response_owed.len.saturating_sub(waits);
        if let Some((from, id, len)) = stream.response_owed.take(more) {
            self.response_passed_on(from, id, len);
        }
    }

    /// Bytes of requests have left: their clients may send as many again.
    pub(crate) fn credit_clients(&mut self, key: Key<UpstreamConnection>) {
        while let Some(credit) =
            self.ups.get_mut(key).and_then(|connection| connection.credits.pop())
        {
            self.request_passed_on(credit.from, credit.stream, credit.len);
        }
    }

    /// Bytes of responses have left: their hosts may send as many again.
    pub(crate) fn credit_hosts(&mut self, key: Key<Downstream>) {
        while let Some(credit) = self.downs.get_mut(key).and_then(|down| down.credits.pop()) {
            self.response_passed_on(credit.from, credit.stream, credit.len);
        }
    }

    fn request_passed_on(&mut self, key: Key<Downstream>, id: StreamId, len: usize) {
        if let Some(http) = self.http_of(key) {
            http.codec.passed_on(id, len);
            if http.codec.has_control() {
                self.mark_downstream(key);
            }
        }
    }

    fn response_passed_on(&mut self, key: Key<UpstreamConnection>, id: StreamId, len: usize) {
        if let Some(connection) = self.ups.get_mut(key) {
            connection.codec.passed_on(id, len);
            if connection.codec.has_control() {
                self.mark_upstream(key);
            }
        }
    }
}

/// Puts a stream at the end of a line. Those that have ended without leaving it are put out when they are most of it.
fn queue_up(
    line: &mut VecDeque<Key<Box<Stream>>>,
    key: Key<Box<Stream>>,
    streams: &Arena<Box<Stream>>,
    alive: usize,
) {
    if line.len() > 2 * alive + 16 {
        line.retain(|key| streams.get(*key).is_some());
    }
    line.push_back(key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_owed_more_than_came() {
        let mut owed = Owed::<()>::default();
        owed.arrived(10);
        assert!(owed.take(10).is_none(), "a sender without a window is owed nothing");
        owed.begin(Key::from_parts(1, 0), StreamId(5));
        owed.arrived(10);
        let taken = |owed: &mut Owed<()>, len| owed.take(len).map(|(_, _, len)| len);
        assert_eq!(taken(&mut owed, 4), Some(4));
        assert_eq!(taken(&mut owed, 100), Some(6));
        assert_eq!(taken(&mut owed, 100), None);
    }
}
