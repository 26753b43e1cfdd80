//! A request that its host has certainly, or harmlessly, not carried out is sent again to another connection, once, without
//! any retry policy: the race between a kept connection's end and the next request on it is nobody's failure.
//!
//! Envoy answers 503 here unless a policy retries. A client that speaks to a host without a proxy does what is done here
//! (RFC 9110 §9.2.2, RFC 9113 §8.7).

use codec::headers::Method;

use super::ResetReason;
use crate::arena::Key;
use crate::http::stream::Stream;
use crate::upstream::connection::UpstreamConnection;
use crate::worker::Worker;

/// How far a request had come on the connection that it was lost with.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// Why it was lost.
    pub reason: ResetReason,
    /// The connection had answered others before.
    pub was_kept: bool,
    /// Not a byte of it has left.
    pub is_unsent: bool,
    /// Some of its answer has come.
    pub is_answered: bool,
}

impl Loss {
    /// A stream's loss, as its connection shows it.
    pub fn new(reason: ResetReason, stream: &Stream, connection: &UpstreamConnection) -> Self {
        Self {
            reason,
            was_kept: stream.router.on_kept_connection,
            is_unsent: connection.written() <= stream.router.request_at,
            is_answered: stream.info.timings.upstream_first_rx_ns != 0
                || !connection.is_multiplexed() && !connection.io.input.is_empty(),
        }
    }
}

impl Worker {
    /// Sends the request again if that is safe and possible; `false` leaves it to the retry policy.
    pub(crate) fn replay(&mut self, key: Key<Box<Stream>>, loss: Loss) -> bool {
        let Some(stream) = self.streams.get_mut(key) else { return false };
        if !is_replayable(stream, loss) {
            return false;
        }
        let router = &mut stream.router;
        router.was_replayed = true;
        (router.body_sent, router.request_sent) = (0, false);
        stream.info.timings.upstream_first_tx_ns = 0;
        self.begin_attempt(key);
        true
    }
}

fn is_replayable(stream: &Stream, loss: Loss) -> bool {
    let is_whole = stream.router.keeps_body || stream.info.upstream_bytes_sent == 0;
    let is_safe = match loss.reason {
        ResetReason::Refused => true,
        ResetReason::ConnectionTermination => {
            loss.is_unsent || loss.was_kept && is_idempotent(stream.request.method_kind())
        }
        _ => false,
    };
    let may_be = !stream.router.was_replayed && !stream.response_started && !loss.is_answered;
    may_be && is_whole && is_safe
}

/// RFC 9110 §9.2.2. CONNECT and what is unknown are not.
fn is_idempotent(method: Method) -> bool {
    matches!(
        method,
        Method::Get | Method::Head | Method::Options | Method::Trace | Method::Put | Method::Delete
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_have_happened_twice_is_sent_again() {
        let loss =
            |reason, was_kept, is_unsent| Loss { reason, was_kept, is_unsent, is_answered: false };
        let ended = ResetReason::ConnectionTermination;
        let table = [
            // method, body bytes sent, loss, replayed
            (&b"GET"[..], 0, loss(ended, true, false), true),
            (b"GET", 0, loss(ended, false, false), false),
            (b"PUT", 5, loss(ended, true, false), false),
            (b"POST", 0, loss(ended, true, false), false),
            (b"POST", 0, loss(ended, false, true), true),
            (b"POST", 0, loss(ResetReason::Refused, false, false), true),
            (b"POST", 5, loss(ResetReason::Refused, false, false), false),
            (b"GET", 0, loss(ResetReason::Remote, true, false), false),
            (b"GET", 0, Loss { is_answered: true, ..loss(ended, true, false) }, false),
        ];
        for (method, sent, loss, expected) in table {
            let mut stream = Stream::default();
            stream.request.set_method(method);
            stream.info.upstream_bytes_sent = sent;
            assert_eq!(is_replayable(&stream, loss), expected, "{method:?} {sent} {loss:?}");
            stream.router.was_replayed = true;
            assert!(!is_replayable(&stream, loss), "once");
        }
    }
}
