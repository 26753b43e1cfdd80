//! The small frames: PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE.

use super::{Connection, Fault, Step, Taken};
use crate::event::{Event, ResetReason, StreamId};
use crate::http2::frame::{ACK, DEFAULT_MAX_FRAME_SIZE, ErrorCode, FrameHead, HEAD_LEN, number};
use crate::http2::output::{DRAIN, Drain, KEEP_ALIVE, PROBE};
use crate::http2::streams::ResetBy;
use crate::http2::window::ReceiveWindow;
use crate::http2::{MAX_WINDOW, RFC_WINDOW};

impl Connection {
    pub(super) fn priority(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
    ) -> Result<Option<Event>, Fault> {
        self.limits.priority(&self.options, &mut self.counts)?;
        depends_on_another(head.stream, payload)?;
        Ok(None)
    }

    pub(super) fn rst_stream(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
    ) -> Result<Option<Event>, Fault> {
        let id = head.stream;
        if self.is_idle_stream(id) {
            return Err(Fault::protocol("RST_STREAM on a stream that has not begun"));
        }
        self.count(|counts| counts.rx_reset += 1);
        if self.is_server {
            self.limits.reset(&self.options)?;
        }
        let Some(stream) = self.forget(id) else { return Ok(None) };
        if self.is_server {
            self.resets.add(id, ResetBy::Peer);
            self.limits.taken_back(&stream, &self.options, &mut self.counts)?;
        }
        let is_refused = number(payload) == ErrorCode::RefusedStream as u32;
        let reason = if is_refused { ResetReason::Refused } else { ResetReason::Remote };
        Ok(Some(Event::Reset { stream: StreamId(id), reason }))
    }

    pub(super) fn settings(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
    ) -> Result<Option<Event>, Fault> {
        if head.has(ACK) {
            return self.settings_acknowledged().map(|()| None);
        }
        let before = self.peer;
        self.peer.apply(payload, !self.is_server)?;
        let delta = i64::from(self.peer.initial_window) - i64::from(before.initial_window);
        if delta != 0 {
            for stream in self.streams.iter_mut() {
                stream.send_window = i32::try_from(i64::from(stream.send_window) + delta)
                    .map_err(|_| Fault::new(ErrorCode::FlowControl, "a window is too large"))?;
            }
        }
        if self.peer.header_table_size != before.header_table_size {
            self.output.encoder.set_peer_table_size(self.peer.header_table_size);
        }
        let is_first = !std::mem::replace(&mut self.is_greeted, true);
        self.output.settings_ack(&mut self.limits);
        Ok((is_first || self.peer != before).then_some(Event::PeerSettings))
    }

    /// From here on the peer goes by our settings.
    fn settings_acknowledged(&mut self) -> Result<(), Fault> {
        if !self.is_greeted {
            return Err(Fault::protocol("the first frame was not SETTINGS"));
        }
        if std::mem::replace(&mut self.is_acknowledged, true) {
            return Err(Fault::protocol("SETTINGS acknowledged that were not sent"));
        }
        self.decoder.set_table_size(self.options.header_table_size);
        let lower = RFC_WINDOW.saturating_sub(self.options.initial_stream_window);
        if lower > 0 {
            self.streams.iter_mut().for_each(|stream| stream.receive.lower(lower));
        }
        Ok(())
    }

    /// What a new stream's peer may send: until it has heard of a lower window, what the RFC says.
    pub(in crate::http2) fn new_receive_window(&self) -> ReceiveWindow {
        let target = self.options.initial_stream_window.min(MAX_WINDOW);
        let credit = if self.is_acknowledged { target } else { target.max(RFC_WINDOW) };
        ReceiveWindow::new(credit, target)
    }

    pub(super) fn ping(&mut self, head: &FrameHead, payload: &[u8]) -> Option<Event> {
        let data = payload.first_chunk::<8>()?;
        if !head.has(ACK) {
            self.output.ping_ack(data, &mut self.limits);
            return None;
        }
        match data {
            KEEP_ALIVE => return Some(Event::Pong),
            PROBE => self.probed(),
            DRAIN if self.output.drain == Drain::Announced => {
                self.output.final_goaway(self.last_stream, &mut self.limits);
                self.count(|counts| counts.goaway_sent += 1);
            }
            _ => {}
        }
        None
    }

    /// A server takes no more streams. Those that it will not look at come out one by one before the frame is done with.
    pub(super) fn go_away(&mut self, payload: &[u8]) -> Result<Taken, Fault> {
        let whole = HEAD_LEN + payload.len();
        if self.is_server {
            return Ok(Some((whole, None)));
        }
        self.peer_goes_away = true;
        let last = number(payload) & 0x7fff_ffff;
        let unseen = self.streams.iter().map(|stream| stream.id).find(|id| *id > last);
        if let Some(id) = unseen {
            self.forget(id);
            let event = Event::Reset { stream: StreamId(id), reason: ResetReason::Refused };
            return Ok(Some((0, Some(Step::Event(event)))));
        }
        Ok(Some((whole, Some(Step::Event(Event::GoAway)))))
    }

    pub(super) fn window_update(
        &mut self,
        head: &FrameHead,
        payload: &[u8],
    ) -> Result<Option<Event>, Fault> {
        self.limits.window_update(&self.options, &mut self.counts)?;
        let increment = number(payload) & MAX_WINDOW;
        let id = head.stream;
        let too_large = "a window is too large";
        if id == 0 {
            let before = self.output.window;
            self.output.window = match i32::try_from(i64::from(before) + i64::from(increment)) {
                _ if increment == 0 => return Err(Fault::protocol("WINDOW_UPDATE by 0")),
                Ok(window) => window,
                Err(_) => return Err(Fault::new(ErrorCode::FlowControl, too_large)),
            };
            // Nobody has waited for less than a frame.
            let was_shut = before < DEFAULT_MAX_FRAME_SIZE as i32;
            return Ok(was_shut.then_some(Event::Room { stream: None }));
        }
        if self.is_idle_stream(id) {
            return Err(Fault::protocol("WINDOW_UPDATE on a stream that has not begun"));
        }
        let Some(stream) = self.streams.get_mut(id) else { return Ok(None) };
        if increment == 0 {
            let event = self.break_stream(id, ErrorCode::Protocol, "WINDOW_UPDATE by 0");
            return Ok(Some(event));
        }
        let window = i64::from(stream.send_window) + i64::from(increment);
        let Ok(window) = i32::try_from(window) else {
            return Ok(Some(self.break_stream(id, ErrorCode::FlowControl, too_large)));
        };
        stream.send_window = window;
        Ok(Some(Event::Room { stream: Some(StreamId(id)) }))
    }
}

/// RFC 7540 §5.3.1; RFC 9113 has dropped priorities, but not what was an error.
pub(super) fn depends_on_another(id: u32, priority: &[u8]) -> Result<(), Fault> {
    if number(priority) & 0x7fff_ffff == id {
        return Err(Fault::protocol("a stream that depends on itself"));
    }
    Ok(())
}
