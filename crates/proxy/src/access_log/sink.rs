//! Where lines go. Workers append to buffers of their own; a thread per destination writes them out, so that a slow or
//! full disk costs lines and never a request.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use telemetry::stats::sets::Filesystem;
use telemetry::stats::{Registry, Scope};

/// A file or a stream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// Appended to; created with mode 0644 if it is not there.
    File(PathBuf),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How lines are buffered.
#[derive(Clone, Copy, Debug)]
pub struct BufferOptions {
    /// Workers that write: each has a buffer.
    pub workers: usize,
    /// The longest a line waits (`--file-flush-interval-msec`, 10 s).
    pub flush_interval: Duration,
    /// A worker's buffer is written out as soon as it holds so much (`--file-flush-min-size-kb`, 64 KiB).
    pub flush_bytes: usize,
    /// Beyond this a worker drops lines.
    pub limit_bytes: usize,
}

impl Default for BufferOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            flush_interval: Duration::from_secs(10),
            flush_bytes: 64 << 10,
            limit_bytes: 4 << 20,
        }
    }
}

/// All destinations of the process: each is opened once, however many logs write to it. Cheap to clone.
#[derive(Clone)]
pub struct Sinks {
    inner: Arc<SinksInner>,
}

struct SinksInner {
    options: BufferOptions,
    registry: Registry,
    open: Mutex<HashMap<Destination, Weak<Sink>>>,
}

impl std::fmt::Debug for Sinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sinks({:?})", self.inner.options)
    }
}

impl Sinks {
    /// No destination yet.
    pub fn new(options: BufferOptions, registry: Registry) -> Self {
        Self { inner: Arc::new(SinksInner { options, registry, open: Mutex::default() }) }
    }

    /// The sink of a destination, opened if it is not.
    ///
    /// # Errors
    /// When the file cannot be opened or its thread cannot be started.
    pub fn open(&self, destination: &Destination) -> io::Result<Arc<Sink>> {
        let mut open = self.inner.open.lock();
        if let Some(sink) = open.get(destination).and_then(Weak::upgrade) {
            return Ok(sink);
        }
        let sink =
            Arc::new(Sink::start(destination.clone(), self.inner.options, &self.inner.registry)?);
        open.retain(|_, sink| sink.strong_count() > 0);
        open.insert(destination.clone(), Arc::downgrade(&sink));
        Ok(sink)
    }

    /// Opens every file anew, after log rotation. Happens on the sinks' threads.
    pub fn reopen(&self) {
        for sink in self.sinks() {
            sink.shared.reopen.store(true, Ordering::Release);
            sink.shared.wake();
        }
    }

    /// Writes everything out and waits until that is done or has failed; at most `limit` per destination.
    pub fn flush(&self, limit: Duration) {
        self.sinks().iter().for_each(|sink| sink.flush(limit));
    }

    fn sinks(&self) -> Vec<Arc<Sink>> {
        self.inner.open.lock().values().filter_map(Weak::upgrade).collect()
    }
}

/// One destination. When the last log lets go of it, its thread writes out what is left and ends.
pub struct Sink {
    shared: Arc<Shared>,
}

struct Shared {
    buffers: Box<[WorkerBuffer]>,
    options: BufferOptions,
    reopen: AtomicBool,
    stop: AtomicBool,
    thread: Mutex<Option<Thread>>,
    flushes: Mutex<Flushes>,
    flushed: Condvar,
}

#[derive(Default)]
struct Flushes {
    asked: u64,
    done: u64,
}

/// One worker's lines. The lock is contended only while the sink's thread takes the buffer away.
#[derive(Default)]
#[repr(align(64))]
struct WorkerBuffer(Mutex<Lines>);

#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    count: u64,
    dropped: u64,
    woken: bool,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sink")
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
    }
}

impl Sink {
    fn start(
        destination: Destination,
        options: BufferOptions,
        registry: &Registry,
    ) -> io::Result<Self> {
        let output = Output::open(&destination)?;
        let shared = Arc::new(Shared {
            buffers: (0..options.workers.max(1)).map(|_| WorkerBuffer::default()).collect(),
            options,
            reopen: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            thread: Mutex::new(None),
            flushes: Mutex::default(),
            flushed: Condvar::new(),
        });
        let writer = Writer { shared: Arc::clone(&shared), destination, output, spare: Vec::new() };
        let registry = registry.clone();
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || writer.run(&registry))?;
        *shared.thread.lock() = Some(thread.thread().clone());
        Ok(Self { shared })
    }

    /// Appends what `write` puts down, as one line of that worker. Never waits for the destination.
    pub fn append(&self, worker: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let shared = &self.shared;
        let mut lines = shared.buffers[worker % shared.buffers.len()].0.lock();
        if lines.bytes.len() >= shared.options.limit_bytes {
            lines.dropped += 1;
            return;
        }
        write(&mut lines.bytes);
        lines.count += 1;
        if lines.bytes.len() >= shared.options.flush_bytes
            && !std::mem::replace(&mut lines.woken, true)
        {
            drop(lines);
            shared.wake();
        }
    }

    fn flush(&self, limit: Duration) {
        let mut flushes = self.shared.flushes.lock();
        flushes.asked += 1;
        let target = flushes.asked;
        self.shared.wake();
        let deadline = Instant::now() + limit;
        while flushes.done < target {
            if self.shared.flushed.wait_until(&mut flushes, deadline).timed_out() {
                return;
            }
        }
    }
}

impl Shared {
    fn wake(&self) {
        if let Some(thread) = &*self.thread.lock() {
            thread.unpark();
        }
    }
}

/// The sink's thread.
struct Writer {
    shared: Arc<Shared>,
    destination: Destination,
    output: Output,
    /// Goes round the workers, so that buffers are reused.
    spare: Vec<u8>,
}

impl Writer {
    fn run(mut self, registry: &Registry) {
        let block = registry.block::<Filesystem>(&Scope::new().text("filesystem"));
        let stats = registry.recorder().local(&block);
        loop {
            // Asked before the buffers are looked at: what was logged before then still goes to the old file.
            let stopping = self.shared.stop.load(Ordering::Acquire);
            let reopening = self.shared.reopen.swap(false, Ordering::AcqRel);
            let asked = self.shared.flushes.lock().asked;
            for worker in 0..self.shared.buffers.len() {
                self.write_out(worker, &stats);
            }
            if reopening {
                match Output::open(&self.destination) {
                    Ok(output) => self.output = output,
                    Err(_) => stats.inc(Filesystem::REOPEN_FAILED),
                }
            }
            self.shared.flushes.lock().done = asked;
            self.shared.flushed.notify_all();
            if stopping {
                return;
            }
            // A wake-up between the checks above and here is kept by `unpark`.
            let before = Instant::now();
            std::thread::park_timeout(self.shared.options.flush_interval);
            if before.elapsed() >= self.shared.options.flush_interval {
                stats.inc(Filesystem::FLUSHED_BY_TIMER);
            }
        }
    }

    fn write_out(&mut self, worker: usize, stats: &telemetry::stats::Local<Filesystem>) {
        let (count, dropped) = {
            let mut lines = self.shared.buffers[worker].0.lock();
            std::mem::swap(&mut lines.bytes, &mut self.spare);
            lines.woken = false;
            (std::mem::take(&mut lines.count), std::mem::take(&mut lines.dropped))
        };
        stats.add(Filesystem::WRITE_BUFFERED, count);
        stats.add(Filesystem::WRITE_DROPPED, dropped);
        if !self.spare.is_empty() {
            let result = self.output.write(&self.spare);
            stats.inc(if result.is_ok() {
                Filesystem::WRITE_COMPLETED
            } else {
                Filesystem::WRITE_FAILED
            });
            self.spare.clear();
            // A burst's memory is given back.
            self.spare.shrink_to(self.shared.options.flush_bytes * 2);
        }
    }
}

enum Output {
    File(File),
    Stdout,
    Stderr,
}

impl Output {
    fn open(destination: &Destination) -> io::Result<Self> {
        Ok(match destination {
            Destination::File(path) => {
                Output::File(OpenOptions::new().append(true).create(true).open(path)?)
            }
            Destination::Stdout => Output::Stdout,
            Destination::Stderr => Output::Stderr,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Output::File(file) => file.write_all(bytes),
            Output::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Output::Stderr => io::stderr().lock().write_all(bytes),
        }
    }
}
