//! One worker = one thread, one `mio` event loop, one timer wheel, one mailbox. The only file that knows the poller.
//!
//! A turn: wait; hear upstreams, then clients (so that a host that hung up is known before a request is given to it), all
//! that they have sent first and then what it means; new connections; due timers; the mailbox; then write what all of that
//! has produced, once per connection.

pub mod clock;
pub mod commit;
pub mod mailbox;
pub mod random;
mod read_ahead;
pub mod token;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use codec::headers::ResponseHead;
use mio::{Events, Poll, Token};

pub use mailbox::{Ack, Change, ListenerId, Mailbox, Message, WorkerGauges};

use crate::arena::{Arena, Key};
use crate::buffer::BufferPool;
use crate::filter_manager::{ChainPool, Command, WorkerContext};
use crate::http::header_mutation::MutationScratch;
use crate::http::stream::Stream;
use crate::listener::ActiveListener;
use crate::network::downstream::Downstream;
use crate::network::io::ReadScratch;
use crate::route_table::RouteScratch;
use crate::tcp_proxy::upstream::TcpUpstream;
use crate::timer_wheel::{TimerHandle, TimerWheel};
use crate::upstream::Upstreams;
use crate::upstream::connection::UpstreamConnection;
use clock::Clock;
use random::Random;
use read_ahead::ReadsAhead;
use token::Owner;

/// What a worker is started with.
#[derive(Clone)]
pub struct WorkerOptions {
    /// Its number, from 0.
    pub index: usize,
    /// Where its statistics are.
    pub registry: telemetry::stats::Registry,
    /// Pin the thread to this CPU.
    pub cpu: Option<usize>,
}

/// A running worker.
#[derive(Debug)]
pub struct WorkerHandle {
    /// How to talk to it.
    pub mailbox: Mailbox,
    /// What it tells.
    pub gauges: Arc<WorkerGauges>,
    thread: Option<JoinHandle<()>>,
}

impl WorkerHandle {
    /// Waits until the worker has ended (send [`Message::Shutdown`] first).
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a worker panicked");
        }
    }
}

/// Starts a worker.
///
/// # Errors
/// When the poller or the thread cannot be made.
pub fn spawn(options: WorkerOptions) -> io::Result<WorkerHandle> {
    let poll = Poll::new()?;
    let waker = Arc::new(mio::Waker::new(poll.registry(), Token(token::MAILBOX as usize))?);
    let mailbox = Mailbox { queue: Arc::default(), waker };
    let gauges = Arc::new(WorkerGauges::default());
    let thread = {
        let (mailbox, gauges) = (mailbox.clone(), Arc::clone(&gauges));
        let name = format!("worker-{}", options.index);
        std::thread::Builder::new().name(name).spawn(move || {
            let _watch = mailbox::PanicWatch(Arc::clone(&gauges));
            pin_to(options.cpu);
            Worker::new(&options, poll, mailbox, gauges).run();
        })?
    };
    Ok(WorkerHandle { mailbox, gauges, thread: Some(thread) })
}

fn pin_to(cpu: Option<usize>) {
    let Some(cpu) = cpu else { return };
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(cpu, %error, "the worker cannot be pinned");
    }
}

/// One read takes at most so much.
pub(crate) const READ_SIZE: usize = 64 * 1024;

/// Everything a worker owns. Its methods live beside what they are about: `listener`, `network::downstream`,
/// `http::conn_manager`, `http::stream`, `router`, `upstream`, `tcp_proxy`.
pub struct Worker {
    pub(crate) poll: Poll,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) wheel: TimerWheel,
    pub(crate) buffers: BufferPool,
    /// Where every read lands.
    pub(crate) scratch: ReadScratch,
    reads_ahead: ReadsAhead,
    pub(crate) cx: WorkerContext,

    /// Answers are the last of their connections: this proxy wants no more of them.
    pub(crate) fails_health_checks: bool,
    pub(crate) listeners: Arena<ActiveListener>,
    pub(crate) downs: Arena<Downstream>,
    pub(crate) ups: Arena<UpstreamConnection>,
    pub(crate) tcp_ups: Arena<TcpUpstream>,
    pub(crate) streams: Arena<Box<Stream>>,
    pub(crate) upstreams: Upstreams,
    pub(crate) tables: commit::RouteTables,
    pub(crate) chains: ChainPool,

    /// The stream whose head the next decode fills; it enters the arena once the head is whole.
    pub(crate) next_stream: Box<Stream>,
    /// Ended streams, for reuse.
    #[expect(clippy::vec_box, reason = "a stream is large and moves between here and the arena")]
    pub(crate) idle_streams: Vec<Box<Stream>>,
    /// Response heads are decoded here and swapped into their stream.
    pub(crate) spare_response: ResponseHead,
    pub(crate) route_scratch: RouteScratch,
    pub(crate) mutation_scratch: MutationScratch,
    pub(crate) commands: Vec<Command>,
    /// What filters write in the place of body bytes.
    pub(crate) replacement: Vec<u8>,
    pub(crate) next_call_id: u64,
    pub(crate) next_id: u64,

    /// Connections with something to write at the end of the turn.
    pub(crate) dirty_downs: Vec<Key<Downstream>>,
    pub(crate) dirty_ups: Vec<Key<UpstreamConnection>>,
    pub(crate) dirty_tcp_ups: Vec<Key<TcpUpstream>>,
    /// Connections that have more to read or to decode without a new event.
    pub(crate) ready_downs: Vec<Key<Downstream>>,
    pub(crate) ready_ups: Vec<Key<UpstreamConnection>>,
    pub(crate) ready_tcp_ups: Vec<Key<TcpUpstream>>,
    pub(crate) ready_listeners: Vec<Key<ActiveListener>>,
    /// Something to be done once nothing is being decoded any more.
    pub(crate) due: Vec<u64>,

    pub(crate) chores: TimerHandle,
    mailbox: Mailbox,
    pub(crate) gauges: Arc<WorkerGauges>,
    pub(crate) stopping: bool,
}

impl Worker {
    fn new(
        options: &WorkerOptions,
        poll: Poll,
        mailbox: Mailbox,
        gauges: Arc<WorkerGauges>,
    ) -> Self {
        let clock = Clock::new();
        let seed = clock.wall_ns() ^ (options.index as u64) << 56;
        Self {
            poll,
            wheel: TimerWheel::new(clock.now_ns()),
            random: Random::new(seed),
            clock,
            buffers: BufferPool::default(),
            scratch: ReadScratch::new(READ_SIZE),
            reads_ahead: ReadsAhead::default(),
            cx: WorkerContext { index: options.index, recorder: options.registry.recorder() },
            fails_health_checks: false,
            listeners: Arena::default(),
            downs: Arena::default(),
            ups: Arena::default(),
            tcp_ups: Arena::default(),
            streams: Arena::default(),
            upstreams: Upstreams::default(),
            tables: commit::RouteTables::default(),
            chains: ChainPool::default(),
            next_stream: Box::default(),
            idle_streams: Vec::new(),
            spare_response: ResponseHead::default(),
            route_scratch: RouteScratch::default(),
            mutation_scratch: MutationScratch::default(),
            commands: Vec::new(),
            replacement: Vec::new(),
            next_call_id: 0,
            // Ids are unique in the process: the worker's number is in front.
            next_id: (options.index as u64) << 48,
            dirty_downs: Vec::new(),
            dirty_ups: Vec::new(),
            dirty_tcp_ups: Vec::new(),
            ready_downs: Vec::new(),
            ready_ups: Vec::new(),
            ready_tcp_ups: Vec::new(),
            ready_listeners: Vec::new(),
            due: Vec::new(),
            chores: TimerHandle::default(),
            mailbox,
            gauges,
            stopping: false,
        }
    }

    fn run(&mut self) {
        let mut events = Events::with_capacity(512);
        while !self.stopping {
            let timeout = self.timeout();
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the poller failed");
                return;
            }
            self.clock.update();
            self.turn(&events);
            self.gauges.turns.fetch_add(1, Ordering::Relaxed);
        }
        // What waits in the mailbox is dropped with it, and so are its acknowledgements.
        while self.mailbox.queue.pop().is_some() {}
    }

    fn timeout(&self) -> Option<Duration> {
        let is_ready = !self.ready_downs.is_empty()
            || !self.ready_ups.is_empty()
            || !self.ready_tcp_ups.is_empty()
            || !self.ready_listeners.is_empty();
        if is_ready {
            return Some(Duration::ZERO);
        }
        let next = self.wheel.next_ns()?;
        Some(Duration::from_nanos(next.saturating_sub(self.clock.now_ns())))
    }

    fn turn(&mut self, events: &Events) {
        let mut others = false;
        self.read_upstreams_ahead(events);
        for event in events {
            let ahead = self.reads_ahead.take(event);
            match Owner::from_token(event.token().0 as u64) {
                Owner::Upstream(key) => self.upstream_event(key, event, ahead),
                Owner::TcpUpstream(key) => self.tcp_upstream_event(key, event),
                _ => others = true,
            }
        }
        if others {
            self.other_events(events);
        }
        self.continue_ready();
        self.fire_timers();
        self.flush_all();
    }

    fn other_events(&mut self, events: &Events) {
        let mut has_mail = false;
        self.read_downstreams_ahead(events);
        for event in events {
            let ahead = self.reads_ahead.take(event);
            match Owner::from_token(event.token().0 as u64) {
                Owner::Downstream(key) => self.downstream_event(key, event, ahead),
                Owner::Listener(key) => self.accept(key),
                Owner::Mailbox => has_mail = true,
                Owner::Upstream(_) | Owner::TcpUpstream(_) | Owner::Stream(_) | Owner::Chores => {}
            }
        }
        if has_mail {
            while let Some(message) = self.mailbox.queue.pop() {
                self.handle(message);
            }
        }
    }

    /// Goes on where something stopped without the socket being drained. What becomes ready meanwhile waits for the
    /// next turn, so that nobody starves the others.
    fn continue_ready(&mut self) {
        let (ups, tcp_ups) = (self.ready_ups.len(), self.ready_tcp_ups.len());
        let (downs, listeners) = (self.ready_downs.len(), self.ready_listeners.len());
        for index in 0..ups {
            self.upstream_ready(self.ready_ups[index]);
        }
        self.ready_ups.drain(..ups);
        for index in 0..tcp_ups {
            self.tcp_upstream_ready(self.ready_tcp_ups[index]);
        }
        self.ready_tcp_ups.drain(..tcp_ups);
        for index in 0..downs {
            self.downstream_ready(self.ready_downs[index]);
        }
        self.ready_downs.drain(..downs);
        for index in 0..listeners {
            self.accept(self.ready_listeners[index]);
        }
        self.ready_listeners.drain(..listeners);
    }

    fn fire_timers(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.clock.now_ns(), &mut due);
        for token in due.drain(..) {
            match Owner::from_token(token) {
                Owner::Downstream(key) => self.downstream_timer(key),
                Owner::Upstream(key) => self.upstream_timer(key),
                Owner::TcpUpstream(key) => self.tcp_upstream_timer(key),
                Owner::Stream(key) => self.stream_timer(key),
                Owner::Listener(key) => self.listener_timer(key),
                Owner::Chores => self.chores(),
                Owner::Mailbox => {}
            }
        }
        self.due = due;
    }

    /// Writes everything. A failed write closes its connection, which may give others something to write.
    fn flush_all(&mut self) {
        loop {
            if let Some(key) = self.dirty_ups.pop() {
                self.flush_upstream(key);
            } else if let Some(key) = self.dirty_tcp_ups.pop() {
                self.flush_tcp_upstream(key);
            } else if let Some(key) = self.dirty_downs.pop() {
                self.flush_downstream(key);
            } else {
                return;
            }
        }
    }

    /// A number that no other stream or connection of this process has.
    pub(crate) fn unique_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}
