//! How a message passes a stream's filters: the request first to last, the response last to first.
//!
//! A filter that stops holds the head (or the body) where it is; what comes after it is kept until it goes on. Positions
//! count along the way: position 0 is the first filter that a direction meets.

use super::{
    Command, DataStatus, Direction, FilterContext, FilterEvent, HeadersStatus, HttpFilter,
    LocalReply, Phases, TrailersStatus,
};
use crate::arena::Key;
use crate::buffer::Pending;
use crate::http::stream::Stream;
use crate::worker::Worker;

/// How far one direction of a stream has come.
#[derive(Debug, Default)]
pub struct Progress {
    /// The position that holds the head.
    head_stopped_at: Option<usize>,
    /// It holds everything that follows, too.
    holds_all: bool,
    /// The head has passed every filter.
    head_passed: bool,
    /// The head was the whole message.
    head_ends: bool,
    /// Body bytes that wait.
    held: Pending,
    /// The first position that has not seen them.
    held_for: usize,
    /// They are the last, and are waiting for their turn.
    held_end: bool,
    /// Bytes are held: nothing that follows may pass them.
    is_holding: bool,
    /// Trailers wait behind them.
    trailers_wait: bool,
    /// When they are too many their sender rests; otherwise that ends the stream.
    pushes_back: bool,
    /// A head has met the first filter.
    has_begun: bool,
    /// Filters have seen another message already: they are not asked again.
    is_bypassed: bool,
}

impl Progress {
    /// Bytes that wait while their sender rests, or will rest once they are too many.
    pub fn pushed_back(&self) -> usize {
        if self.pushes_back { self.held.len() } else { 0 }
    }

    /// Starts over with another message. Filters that have seen some of the one before do not see this one.
    pub fn replace(&mut self, pool: &mut crate::buffer::BufferPool) {
        let is_bypassed = self.has_begun || self.is_bypassed;
        self.clear(pool);
        self.is_bypassed = is_bypassed;
    }

    /// Whether the message is none for the filters.
    pub fn is_bypassed(&self) -> bool {
        self.is_bypassed
    }

    /// Gives the memory back and starts over.
    pub fn clear(&mut self, pool: &mut crate::buffer::BufferPool) {
        self.held.clear(pool);
        *self = Self::default();
    }
}

/// What a filter is called with.
enum Step<'a> {
    Head { end: bool },
    Data { data: &'a [u8], end: bool },
    Trailers,
    Event(FilterEvent<'a>),
    Complete,
}

/// What it answered.
enum Answer {
    Head(HeadersStatus),
    Data(DataStatus),
    Trailers(TrailersStatus),
    None,
}

impl Worker {
    /// A head meets the filters from `from` on.
    pub(crate) fn filter_head(
        &mut self,
        key: Key<Box<Stream>>,
        way: Direction,
        from: usize,
        end: bool,
    ) {
        let count = self.filter_count(key);
        if let Some(stream) = self.streams.get_mut(key) {
            let progress = stream.progress(way);
            (progress.head_ends, progress.head_stopped_at) = (end, None);
            progress.has_begun = true;
        }
        for position in from..count {
            let Some(Answer::Head(status)) =
                self.call_filter(key, way, position, Step::Head { end })
            else {
                return;
            };
            if status == HeadersStatus::Continue {
                continue;
            }
            let Some(stream) = self.streams.get_mut(key) else { return };
            let progress = stream.progress(way);
            // The filter may have asked to go on while it was being called.
            progress.head_stopped_at = Some(position);
            progress.holds_all = status != HeadersStatus::StopIteration;
            progress.pushes_back = status == HeadersStatus::StopAllAndWatermark;
            return self.run_commands(key, way, position);
        }
        let Some(stream) = self.streams.get_mut(key) else { return };
        stream.progress(way).head_passed = true;
        match way {
            Direction::Decode => {
                stream.request_ready |= end;
                self.send_upstream(key);
            }
            Direction::Encode => self.send_response_head(key, end),
        }
    }

    /// Body bytes meet the filters from `from` on.
    pub(crate) fn filter_data(
        &mut self,
        key: Key<Box<Stream>>,
        way: Direction,
        from: usize,
        data: &[u8],
        end: bool,
    ) {
        for position in from..self.filter_count(key) {
            let Some(stream) = self.streams.get_mut(key) else { return };
            let progress = stream.progress(way);
            let stops_here = progress.head_stopped_at == Some(position);
            if (stops_here && progress.holds_all)
                || (progress.is_holding && progress.held_for == position)
            {
                return self.hold(key, way, position, data, end);
            }
            let Some(Answer::Data(status)) =
                self.call_filter(key, way, position, Step::Data { data, end })
            else {
                return;
            };
            match status {
                DataStatus::Continue if stops_here => {
                    // It has what it waited for: head and body go on together.
                    self.hold(key, way, position + 1, data, end);
                    return self.go_on(key, way, position);
                }
                DataStatus::Continue if self.is_holding_for(key, way, position + 1) => {
                    self.hold(key, way, position + 1, data, end);
                    return self.go_on(key, way, position);
                }
                DataStatus::Continue => {}
                DataStatus::Replace => {
                    self.run_commands(key, way, position);
                    return self.replace_data(key, way, position, end);
                }
                DataStatus::StopAndBuffer | DataStatus::StopAndWatermark => {
                    if let Some(stream) = self.streams.get_mut(key) {
                        let pushes_back = status == DataStatus::StopAndWatermark;
                        stream.progress(way).pushes_back = pushes_back;
                    }
                    self.hold(key, way, position + 1, data, end);
                    return self.run_commands(key, way, position);
                }
                DataStatus::StopNoBuffer => return self.run_commands(key, way, position),
            }
        }
        self.data_passed(key, way, data, end);
    }

    /// What the filter at `position` has written goes on in the place of what it was given.
    fn replace_data(&mut self, key: Key<Box<Stream>>, way: Direction, position: usize, end: bool) {
        let mut data = std::mem::take(&mut self.replacement);
        let Some(stream) = self.streams.get_mut(key) else { return };
        let stops_here = stream.progress(way).head_stopped_at == Some(position);
        if stops_here || self.is_holding_for(key, way, position + 1) {
            self.hold(key, way, position + 1, &data, end);
            self.go_on(key, way, position);
        } else if !data.is_empty() || end {
            self.filter_data(key, way, position + 1, &data, end);
        }
        data.clear();
        self.replacement = data;
    }

    fn data_passed(&mut self, key: Key<Box<Stream>>, way: Direction, data: &[u8], end: bool) {
        match way {
            Direction::Decode => {
                if let Some(stream) = self.streams.get_mut(key) {
                    stream.request_ready |= end;
                }
                self.upstream_request_data(key, data);
            }
            Direction::Encode => self.send_response_data(key, data, end),
        }
    }

    /// Trailers meet the filters from `from` on.
    pub(crate) fn filter_trailers(&mut self, key: Key<Box<Stream>>, way: Direction, from: usize) {
        for position in from..self.filter_count(key) {
            let Some(stream) = self.streams.get_mut(key) else { return };
            let progress = stream.progress(way);
            let stops_here = progress.head_stopped_at == Some(position);
            if (stops_here && progress.holds_all)
                || (progress.is_holding && progress.held_for == position)
            {
                progress.trailers_wait = true;
                return;
            }
            let Some(Answer::Trailers(status)) =
                self.call_filter(key, way, position, Step::Trailers)
            else {
                return;
            };
            if status == TrailersStatus::Replace {
                if way == Direction::Decode
                    && let Some(stream) = self.streams.get_mut(key)
                {
                    stream.has_request_trailers = false;
                }
                self.run_commands(key, way, position);
                return self.replace_data(key, way, position, true);
            }
            let waits = stops_here || self.is_holding_for(key, way, position + 1);
            if status == TrailersStatus::StopIteration || waits {
                if let Some(stream) = self.streams.get_mut(key) {
                    let progress = stream.progress(way);
                    (progress.trailers_wait, progress.is_holding) = (true, true);
                    if !waits {
                        progress.held_for = position + 1;
                    }
                }
                if status == TrailersStatus::Continue {
                    return self.go_on(key, way, position);
                }
                return self.run_commands(key, way, position);
            }
        }
        match way {
            Direction::Decode => {
                if let Some(stream) = self.streams.get_mut(key) {
                    (stream.request_ready, stream.trailers_ready) = (true, true);
                }
                self.upstream_request_data(key, &[]);
            }
            Direction::Encode => self.send_response_trailers(key),
        }
    }

    fn is_holding_for(&self, key: Key<Box<Stream>>, way: Direction, position: usize) -> bool {
        self.streams.get(key).is_some_and(|stream| {
            let progress = stream.progress_ref(way);
            progress.is_holding && progress.held_for == position
        })
    }

    /// Keeps bytes that `position` has not seen. Beyond the limit their sender rests, if the filter that stopped wants
    /// that; otherwise a request is answered 413 and a response 500.
    fn hold(
        &mut self,
        key: Key<Box<Stream>>,
        way: Direction,
        position: usize,
        data: &[u8],
        end: bool,
    ) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let limit = stream
            .downstream
            .and_then(|down| self.downs.get(down))
            .map_or(usize::MAX, |down| down.buffer_limit);
        let progress = stream.progress(way);
        (progress.is_holding, progress.held_for) = (true, position);
        progress.held_end |= end;
        if !data.is_empty() {
            progress.held.writer(&mut self.buffers).extend_from_slice(data);
        }
        if progress.held.len() <= limit {
            return;
        }
        if progress.pushes_back {
            return match way {
                Direction::Decode => self.pause_request(key),
                Direction::Encode => self.pause_response(key),
            };
        }
        let reply = match way {
            Direction::Decode => LocalReply {
                status: 413,
                body: "Payload Too Large".into(),
                details: "request_payload_too_large",
                ..LocalReply::default()
            },
            Direction::Encode => LocalReply {
                status: 500,
                body: "Internal Server Error".into(),
                details: "response_payload_too_large",
                ..LocalReply::default()
            },
        };
        self.local_reply(key, reply);
    }

    /// The filter at `position` lets go of what it held.
    fn go_on(&mut self, key: Key<Box<Stream>>, way: Direction, position: usize) {
        let Some(stream) = self.streams.get_mut(key) else { return };
        let progress = stream.progress(way);
        if progress.head_stopped_at == Some(position) {
            progress.head_stopped_at = None;
            let end = progress.head_ends;
            self.filter_head(key, way, position + 1, end);
        }
        let Some(stream) = self.streams.get_mut(key) else { return };
        let progress = stream.progress(way);
        if !progress.head_passed && progress.head_stopped_at.is_none() {
            return;
        }
        if progress.is_holding {
            progress.is_holding = false;
            let rested = std::mem::take(&mut progress.pushes_back);
            let (from, end) = (progress.held_for, std::mem::take(&mut progress.held_end));
            let mut held = std::mem::take(&mut progress.held);
            if !held.is_empty() || end {
                self.filter_data(key, way, from, held.as_slice(), end);
            }
            held.clear(&mut self.buffers);
            if rested {
                self.let_sender_go_on(key, way);
            }
        }
        let Some(stream) = self.streams.get_mut(key) else { return };
        let progress = stream.progress(way);
        if progress.trailers_wait && !progress.is_holding {
            progress.trailers_wait = false;
            let from = progress.held_for.max(position + 1);
            self.filter_trailers(key, way, from);
        }
    }

    /// A filter has let go of bytes whose sender may have rested for them.
    fn let_sender_go_on(&mut self, key: Key<Box<Stream>>, way: Direction) {
        match way {
            Direction::Decode => {
                self.settle_request(key);
                self.resume_request(key);
            }
            Direction::Encode => {
                self.settle_response(key);
                self.resume_response(key);
            }
        }
    }

    pub(super) fn filter_count(&self, key: Key<Box<Stream>>) -> usize {
        self.streams
            .get(key)
            .and_then(|stream| stream.chain.as_ref())
            .map_or(0, |chain| chain.filters.len())
    }

    /// Something that a filter waited for has happened. `index` counts as configured.
    pub(crate) fn filter_event(
        &mut self,
        key: Key<Box<Stream>>,
        index: usize,
        event: FilterEvent<'_>,
    ) {
        if self.call_index(key, index, Direction::Decode, Step::Event(event)).is_some() {
            // Which way it was stopped, the command says.
            self.run_commands(key, Direction::Decode, index);
        }
    }

    /// The stream has ended: filters hear of it, before loggers do.
    pub(crate) fn filters_complete(&mut self, key: Key<Box<Stream>>) {
        for index in 0..self.filter_count(key) {
            self.call_index(key, index, Direction::Decode, Step::Complete);
            self.commands.clear();
        }
    }

    /// Calls the filter at a position, unless it has no use for the step. `None`: the stream took another turn.
    fn call_filter(
        &mut self,
        key: Key<Box<Stream>>,
        way: Direction,
        position: usize,
        step: Step<'_>,
    ) -> Option<Answer> {
        let index = self.index_of(key, way, position);
        let replies = self.streams.get(key)?.replies;
        let answer = self.call_index(key, index, way, step)?;
        let continues = match &answer {
            Answer::Head(status) => *status == HeadersStatus::Continue,
            Answer::Data(status) => *status == DataStatus::Continue,
            Answer::Trailers(status) => *status == TrailersStatus::Continue,
            Answer::None => true,
        };
        // The commands of a filter that stops run once its stop is on record, but for an answer of its own.
        let answers = |command: &Command| matches!(command, Command::LocalReply(_));
        if continues || self.commands.iter().any(answers) {
            self.run_commands_of(key, index);
        }
        let is_same = self.streams.get(key).is_some_and(|stream| stream.replies == replies);
        is_same.then_some(answer)
    }

    fn call_index(
        &mut self,
        key: Key<Box<Stream>>,
        index: usize,
        way: Direction,
        step: Step<'_>,
    ) -> Option<Answer> {
        let stream = self.streams.get_mut(key)?;
        let mut chain = stream.chain.take()?;
        let Some((name, phases, filter)) = chain.filter(index) else {
            stream.chain = Some(chain);
            return Some(pass(&step));
        };
        self.replacement.clear();
        let mut cx = FilterContext {
            name,
            info: &mut stream.info,
            request: &mut stream.request,
            response: &mut stream.response,
            request_trailers: stream.has_request_trailers.then_some(&mut stream.request_trailers),
            response_trailers: stream
                .has_response_trailers
                .then_some(&mut stream.response_trailers),
            worker: &self.cx,
            now_ns: self.clock.now_ns(),
            replacement: &mut self.replacement,
            commands: &mut self.commands,
            next_id: &mut self.next_call_id,
        };
        let answer = dispatch(phases, filter, &mut cx, way, step);
        stream.chain = Some(chain);
        Some(answer)
    }

    fn index_of(&self, key: Key<Box<Stream>>, way: Direction, position: usize) -> usize {
        match way {
            Direction::Decode => position,
            Direction::Encode => self.filter_count(key).saturating_sub(position + 1),
        }
    }

    fn run_commands(&mut self, key: Key<Box<Stream>>, way: Direction, position: usize) {
        let index = self.index_of(key, way, position);
        self.run_commands_of(key, index);
    }

    /// Carries out what the filter at `index` (as configured) asked for.
    fn run_commands_of(&mut self, key: Key<Box<Stream>>, index: usize) {
        if self.commands.is_empty() {
            return;
        }
        let mut commands = std::mem::take(&mut self.commands);
        for command in commands.drain(..) {
            match command {
                Command::LocalReply(reply) => self.local_reply(key, reply),
                Command::ContinueDecoding => self.go_on(key, Direction::Decode, index),
                Command::ContinueEncoding => {
                    let position = self.filter_count(key).saturating_sub(index + 1);
                    self.go_on(key, Direction::Encode, position);
                }
                Command::ClearRouteCache => self.find_route(key),
                Command::Call(id, cluster, request) => {
                    self.begin_call(key, index, id, cluster, *request)
                }
                Command::CancelCall(id) => self.cancel_call(key, id),
                Command::SetTimer(id, after) => self.set_filter_timer(key, index, id, after),
                Command::CancelTimer(id) => {
                    if let Some(stream) = self.streams.get_mut(key) {
                        stream.timers.retain(|timer| timer.id != id);
                    }
                }
            }
        }
        if self.commands.is_empty() {
            self.commands = commands;
        }
    }
}

/// What a filter answers that is not asked.
fn pass(step: &Step<'_>) -> Answer {
    match step {
        Step::Head { .. } => Answer::Head(HeadersStatus::Continue),
        Step::Data { .. } => Answer::Data(DataStatus::Continue),
        Step::Trailers => Answer::Trailers(TrailersStatus::Continue),
        Step::Event(_) | Step::Complete => Answer::None,
    }
}

fn dispatch(
    phases: Phases,
    filter: &mut dyn HttpFilter,
    cx: &mut FilterContext<'_>,
    way: Direction,
    step: Step<'_>,
) -> Answer {
    let decode = way == Direction::Decode;
    match step {
        Step::Head { end } if decode && phases.decode_headers => {
            Answer::Head(filter.decode_headers(cx, end))
        }
        Step::Head { end } if !decode && phases.encode_headers => {
            Answer::Head(filter.encode_headers(cx, end))
        }
        Step::Head { .. } => Answer::Head(HeadersStatus::Continue),
        Step::Data { data, end } if decode && phases.decode_body => {
            Answer::Data(filter.decode_data(cx, data, end))
        }
        Step::Data { data, end } if !decode && phases.encode_body => {
            Answer::Data(filter.encode_data(cx, data, end))
        }
        Step::Data { .. } => Answer::Data(DataStatus::Continue),
        Step::Trailers if decode && phases.decode_body => {
            Answer::Trailers(filter.decode_trailers(cx))
        }
        Step::Trailers if !decode && phases.encode_body => {
            Answer::Trailers(filter.encode_trailers(cx))
        }
        Step::Trailers => Answer::Trailers(TrailersStatus::Continue),
        Step::Event(event) => {
            filter.on_event(cx, event);
            Answer::None
        }
        Step::Complete => {
            if phases.complete {
                filter.on_stream_complete(cx);
            }
            Answer::None
        }
    }
}

impl Stream {
    fn progress(&mut self, way: Direction) -> &mut Progress {
        match way {
            Direction::Decode => &mut self.decode,
            Direction::Encode => &mut self.encode,
        }
    }

    fn progress_ref(&self, way: Direction) -> &Progress {
        match way {
            Direction::Decode => &self.decode,
            Direction::Encode => &self.encode,
        }
    }
}
