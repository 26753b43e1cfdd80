//! What a peer may not do too often: Envoy's limits, and a count of everything that Envoy counts.

use super::Options;
use super::connection::Fault;
use super::streams::Stream;

/// What has happened since the counts were last taken. Names are those of Envoy's `http2.` statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counts {
    pub goaway_sent: u32,
    pub header_overflow: u32,
    pub headers_cb_no_stream: u32,
    pub inbound_empty_frames_flood: u32,
    pub inbound_priority_frames_flood: u32,
    pub inbound_window_update_frames_flood: u32,
    pub outbound_control_flood: u32,
    pub outbound_flood: u32,
    pub rx_messaging_error: u32,
    pub rx_reset: u32,
    pub stream_refused_errors: u32,
    pub trailers: u32,
    pub tx_reset: u32,
    /// Of the connection manager's statistics: `downstream_rq_too_many_premature_resets`.
    pub too_many_premature_resets: u32,
}

/// Running numbers of one connection.
#[derive(Debug, Default)]
pub(super) struct Limits {
    empty_in_a_row: u32,
    priorities: u64,
    window_updates: u64,
    /// Streams that have been opened, by whichever end opens them.
    pub streams: u64,
    pub data_frames_sent: u64,
    resets: ResetBucket,
    /// Streams that are over ...
    pub closed: u64,
    /// ... and those of them that were taken back before their time.
    premature: u64,
    pub outbound: Outbound,
    pub now_ns: u64,
}

impl Limits {
    /// A HEADERS, CONTINUATION or DATA frame has come.
    #[inline]
    pub fn payload(
        &mut self,
        is_futile: bool,
        options: &Options,
        counts: &mut Counts,
    ) -> Result<(), Fault> {
        if !is_futile {
            self.empty_in_a_row = 0;
            return Ok(());
        }
        self.empty_in_a_row += 1;
        if self.empty_in_a_row <= options.max_consecutive_inbound_frames_with_empty_payload {
            return Ok(());
        }
        counts.inbound_empty_frames_flood += 1;
        Err(Fault::flood("http2.inbound_empty_frames_flood", "too many frames without payload"))
    }

    /// A PRIORITY frame has come.
    pub fn priority(&mut self, options: &Options, counts: &mut Counts) -> Result<(), Fault> {
        self.priorities += 1;
        let most = u64::from(options.max_inbound_priority_frames_per_stream);
        if self.priorities <= most * (1 + self.streams) {
            return Ok(());
        }
        counts.inbound_priority_frames_flood += 1;
        Err(Fault::flood("http2.inbound_priority_frames_flood", "too many PRIORITY frames"))
    }

    /// A WINDOW_UPDATE frame has come.
    pub fn window_update(&mut self, options: &Options, counts: &mut Counts) -> Result<(), Fault> {
        self.window_updates += 1;
        let per_data = u64::from(options.max_inbound_window_update_frames_per_data_frame_sent);
        if self.window_updates <= 5 + 2 * (self.streams + per_data * self.data_frames_sent) {
            return Ok(());
        }
        counts.inbound_window_update_frames_flood += 1;
        Err(Fault::flood(
            "http2.inbound_window_update_frames_flood",
            "too many WINDOW_UPDATE frames",
        ))
    }

    /// A RST_STREAM frame has come from a client.
    pub fn reset(&mut self, options: &Options) -> Result<(), Fault> {
        if self.resets.take(options, self.now_ns) {
            return Ok(());
        }
        Err(Fault::flood("http2.stream_reset_flood", "too many streams reset"))
    }

    /// A client has taken back a request. It is cut off when most of its requests go that way, as soon as nothing that it
    /// does with the rest of the first `premature_reset_total_stream_count` could make that less than half.
    pub fn taken_back(
        &mut self,
        stream: &Stream,
        options: &Options,
        counts: &mut Counts,
    ) -> Result<(), Fault> {
        let lived_ms = self.now_ms().wrapping_sub(stream.opened_ms);
        if stream.is_answered || lived_ms >= options.premature_reset_min_stream_lifetime_ms {
            return Ok(());
        }
        self.premature += 1;
        let of = self.closed.max(u64::from(options.premature_reset_total_stream_count));
        if self.premature * 2 < of {
            return Ok(());
        }
        counts.too_many_premature_resets += 1;
        Err(Fault::flood("too_many_premature_resets", "most requests were taken back"))
    }

    /// For the ages of streams.
    pub fn now_ms(&self) -> u32 {
        (self.now_ns / 1_000_000) as u32
    }

    /// Whether too much waits for the peer to read.
    #[inline]
    pub fn check_outbound(&self, options: &Options, counts: &mut Counts) -> Result<(), Fault> {
        if self.outbound.frames > options.max_outbound_frames {
            counts.outbound_flood += 1;
            return Err(Fault::flood("http2.outbound_frames_flood", "too many frames to be read"));
        }
        if self.outbound.control_frames > options.max_outbound_control_frames {
            counts.outbound_control_flood += 1;
            return Err(Fault::flood(
                "http2.outbound_control_frames_flood",
                "too many control frames to be read",
            ));
        }
        Ok(())
    }
}

/// Frames that have been written since the output reached a mark, and none of which has left: the mark moves on to the
/// output's end whenever all before it has left. Never too many are counted, and too few by what waited when it moved.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// Bytes ever written.
    written: u64,
    mark: u64,
    frames: u32,
    control_frames: u32,
}

impl Outbound {
    /// A frame of so many bytes, its head included.
    #[inline]
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes as u64;
        self.frames += 1;
    }

    /// As `wrote`, for PING, SETTINGS and RST_STREAM.
    pub fn wrote_control(&mut self, bytes: usize) {
        self.wrote(bytes);
        self.control_frames += 1;
    }

    /// So many of the written bytes have not left.
    pub fn unsent(&mut self, bytes: usize) {
        if bytes == 0 || self.written.saturating_sub(bytes as u64) >= self.mark {
            *self = Outbound { written: self.written, mark: self.written, ..Outbound::default() };
        }
    }
}

/// Resets that a client may send: a burst, filled up again at a rate.
#[derive(Debug, Default)]
struct ResetBucket {
    taken: u32,
    /// Up to when it has been filled up.
    filled_ns: u64,
}

impl ResetBucket {
    fn take(&mut self, options: &Options, now_ns: u64) -> bool {
        const SECOND: u64 = 1_000_000_000;

        let rate = u64::from(options.stream_reset_rate);
        let back = now_ns.saturating_sub(self.filled_ns).saturating_mul(rate) / SECOND;
        if back >= u64::from(self.taken) {
            (self.taken, self.filled_ns) = (0, now_ns);
        } else {
            self.taken -= back as u32;
            self.filled_ns += back * SECOND / rate.max(1);
        }
        self.taken += 1;
        self.taken <= options.stream_reset_burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_left_is_not_counted() {
        let mut outbound = Outbound::default();
        let counted = |outbound: &Outbound| (outbound.frames, outbound.control_frames);
        outbound.unsent(0);
        (0..10).for_each(|_| outbound.wrote(100));
        outbound.wrote_control(13);
        assert_eq!(counted(&outbound), (11, 1));
        // Half of the first look has left, and nothing of what comes after.
        outbound.unsent(500);
        (0..10).for_each(|_| outbound.wrote(100));
        outbound.unsent(1500);
        assert_eq!(counted(&outbound), (10, 0));
        outbound.unsent(1001);
        assert_eq!(counted(&outbound), (10, 0), "they all wait");
        outbound.unsent(1000);
        assert_eq!(counted(&outbound), (0, 0));
        outbound.wrote(9);
        outbound.unsent(0);
        assert_eq!(counted(&outbound), (0, 0));
    }

    #[test]
    fn resets_come_back_with_time() {
        let options = Options { stream_reset_burst: 3, stream_reset_rate: 2, ..Options::default() };
        let mut bucket = ResetBucket::default();
        let mut at = |ms: u64| bucket.take(&options, ms * 1_000_000);
        assert!(at(0) && at(0) && at(1) && !at(2));
        assert!(at(1_001) && !at(1_400), "two a second");
        assert!(at(10_000) && at(10_000) && at(10_000) && !at(10_000));
    }
}
