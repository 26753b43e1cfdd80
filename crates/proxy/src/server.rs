//! The main thread: it reads the bootstrap, owns the sockets, starts the workers, and carries every change of
//! configuration to all of them.
//!
//! A change is prepared first (compiled, its sockets bound; this may fail, and then nothing changed), then committed:
//! messages to every worker's mailbox, which cannot fail. [`control::Control`] is where all changes meet.

pub mod control;
mod counters;
mod discovery_counters;
mod dns;
mod drain;
mod health;
mod introspection;
mod sockets;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use telemetry::logging::Levels;
use telemetry::stats::Registry;

use crate::access_log::sink::{BufferOptions, Sinks};
use crate::admin::{self, AdminContext, AdminHandle, ServerStats};
use crate::bootstrap::{Bootstrap, ConfigError};
use crate::config_sync::{self, ConfigSync};
use crate::snapshot::compile::Environment;
use crate::snapshot::registry::Extensions;
use crate::snapshot::{NoSockets, Snapshot};
use crate::worker::{self, WorkerHandle, WorkerOptions};
use control::Control;

/// How the server is to run: the command line.
#[derive(Clone)]
pub struct Options {
    /// Worker threads, at least one.
    pub concurrency: usize,
    /// How long connections may go on once they drain (`--drain-time-s`).
    pub drain_time: Duration,
    /// How long listeners stay open after the word to stop, every answer saying `Connection: close`.
    pub grace: Duration,
    /// Access logs are written out so often (`--file-flush-interval-msec`).
    pub flush_interval: Duration,
    /// Access logs are written out when so much is there, in bytes (`--file-flush-min-size-kb`).
    pub flush_bytes: usize,
    /// The file that the admin interface's bound address is written to (`--admin-address-path`).
    pub admin_address_path: Option<PathBuf>,
    /// What `--version` prints after the program's name.
    pub version: String,
    /// The options as `/server_info` shows them.
    pub command_line: serde_json::Value,
    /// Levels of the process's own log, which `/logging` changes.
    pub levels: Arc<Levels>,
    /// The host's name, for access logs.
    pub hostname: String,
    /// Looks an environment variable up.
    pub variable: fn(&str) -> Option<String>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("concurrency", &self.concurrency).finish_non_exhaustive()
    }
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A worker could not be started.
    #[error("cannot start a worker: {0}")]
    Worker(#[source] io::Error),
    /// The admin interface could not be started.
    #[error("cannot serve the admin interface on {address}: {error}")]
    Admin {
        /// Where it should have listened.
        address: SocketAddr,
        /// Why it does not.
        #[source]
        error: io::Error,
    },
    /// The admin interface's address could not be written down.
    #[error("cannot write {path}: {error}")]
    AddressFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        error: io::Error,
    },
}

/// A running server. Dropping it does not stop it: see [`Server::stop`].
pub struct Server {
    control: Arc<Control>,
    workers: Vec<WorkerHandle>,
    admin: Option<AdminHandle>,
    sync: Option<ConfigSync>,
    sinks: Sinks,
    options: Options,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

/// Checks that a configuration would load, without binding, resolving or starting anything.
///
/// # Errors
/// Everything that is wrong with it.
pub fn validate(
    bootstrap: &Bootstrap,
    extensions: Extensions,
    options: &Options,
) -> Result<(), ConfigError> {
    let registry = Registry::new();
    let sinks = Sinks::new(BufferOptions::default(), registry.clone());
    let env = environment(bootstrap, extensions, options, registry, sinks);
    bootstrap.load(&mut Snapshot::new(env), &mut NoSockets, Instant::now())
}

fn environment(
    bootstrap: &Bootstrap,
    extensions: Extensions,
    options: &Options,
    registry: Registry,
    sinks: Sinks,
) -> Environment {
    let variable = options.variable;
    Environment {
        schema: Default::default(),
        extensions,
        registry,
        node: bootstrap.node(),
        sinks,
        formats: crate::access_log::Environment {
            hostname: options.hostname.as_str().into(),
            variable: Arc::new(variable),
            ..Default::default()
        },
        listener_limits: bootstrap.listener_limits(),
        variable,
        parts: Default::default(),
    }
}

/// Starts a server on the current tokio runtime. Returns once everything static is bound; what must warm goes on.
///
/// # Errors
/// When the configuration is wrong, an address is taken, or a thread cannot be started. Nothing is left running.
pub async fn start(
    mut bootstrap: Bootstrap,
    extensions: Extensions,
    options: Options,
) -> Result<Server, StartError> {
    let started = Instant::now();
    let registry = Registry::new();
    let buffers = BufferOptions {
        workers: options.concurrency,
        flush_interval: options.flush_interval,
        flush_bytes: options.flush_bytes,
        ..BufferOptions::default()
    };
    let sinks = Sinks::new(buffers, registry.clone());
    let env = environment(&bootstrap, extensions, &options, registry.clone(), sinks.clone());
    let admin_address = bootstrap.admin_address();
    let mut snapshot = Snapshot::new(env);
    let mut sockets = sockets::Sockets::new(options.concurrency);
    bootstrap.load(&mut snapshot, &mut sockets, Instant::now())?;
    bootstrap.shrink();
    let workers = spawn_workers(options.concurrency, &registry)?;
    let mailboxes = workers.iter().map(|worker| worker.mailbox.clone()).collect();
    let gauges = workers.iter().map(|worker| Arc::clone(&worker.gauges)).collect();
    let discovers = bootstrap.message.dynamic_resources.is_some();
    let control = Control::new(snapshot, sockets, mailboxes, gauges, bootstrap, options.clone());
    let mut server = Server { control, workers, admin: None, sync: None, sinks, options };
    if let Some(address) = admin_address
        && let Err(error) = server.serve_admin(address, registry, started).await
    {
        server.end_workers();
        return Err(error);
    }
    server.control.settle();
    server.control.spawn_settler();
    if discovers || server.control.discovers() {
        server.sync =
            Some(config_sync::start(Arc::new(control::ConfigHandle::new(&server.control))));
    }
    Ok(server)
}

fn spawn_workers(count: usize, registry: &Registry) -> Result<Vec<WorkerHandle>, StartError> {
    let spawn = |index| {
        let options = WorkerOptions { index, registry: registry.clone(), cpu: None };
        worker::spawn(options).map_err(StartError::Worker)
    };
    (0..count.max(1)).map(spawn).collect()
}

impl Server {
    async fn serve_admin(
        &mut self,
        address: SocketAddr,
        registry: Registry,
        started: Instant,
    ) -> Result<(), StartError> {
        let context = AdminContext {
            state: Arc::clone(&self.control) as Arc<dyn admin::AdminState>,
            server_stats: ServerStats::new(&registry),
            registry,
            sinks: self.sinks.clone(),
            levels: Arc::clone(&self.options.levels),
            stats_matcher: None,
            started,
        };
        let handle = admin::serve(context, address)
            .await
            .map_err(|error| StartError::Admin { address, error })?;
        if let Some(path) = &self.options.admin_address_path {
            let written = std::fs::write(path, handle.address.to_string());
            written.map_err(|error| StartError::AddressFile { path: path.clone(), error })?;
        }
        self.admin = Some(handle);
        Ok(())
    }

    /// Where the admin interface listens.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|admin| admin.address)
    }

    /// Every listener that serves, by name, with the address it is bound to.
    pub fn addresses(&self) -> Vec<(Arc<str>, crate::listener::config::ListenAddress)> {
        self.control.addresses()
    }

    /// Where configuration can be changed from within the process.
    pub fn config(&self) -> control::ConfigHandle {
        control::ConfigHandle::new(&self.control)
    }

    /// Waits until everything that was configured at the start serves.
    pub async fn wait_until_ready(&self) {
        self.control.wait_until_warm().await;
    }

    /// A worker has panicked: what the kernel gives to it is answered by nobody, so that the process should end at once
    /// and be started anew.
    pub fn has_failed(&self) -> bool {
        self.control.has_failed()
    }

    /// Waits until someone asks the process to end (`/quitquitquit`), or it has failed.
    pub async fn wait_until_quit(&self) {
        self.control.wait_until_quit().await;
    }

    /// Opens the files of access logs again: they were renamed.
    pub fn reopen_logs(&self) {
        self.sinks.reopen();
    }

    fn end_workers(&mut self) {
        for worker in &self.workers {
            worker.mailbox.send(worker::Message::Shutdown);
        }
        self.workers.drain(..).for_each(WorkerHandle::join);
    }
}
