//! A whole mesh from a directory: control plane, ingress gateway and workloads, for as long as `up` runs.
//!
//! In the order in which it happens: [`ports`] sees that nothing is in the way, [`control_plane`] reads the
//! directory and serves, [`gateway`] and [`plan`] say what to run, [`supervisor`] runs each as a [`child`] process
//! and keeps it running, [`output`] shows what they write, [`board`] knows how everything is.

mod board;
mod child;
mod control_plane;
mod gateway;
mod http_get;
mod output;
mod plan;
mod ports;
mod supervisor;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::directory::{Changes, Pass, ProxyEngine};
use apiserver::state_dir::{StateDir, StateDirError};
use resources::yaml::FileProblem;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::board::Board;
use self::control_plane::ControlPlane;
use self::output::Screen;
use self::plan::Plan;
use self::supervisor::Supervisor;
use crate::home::note_directory;

/// What `up` is told.
pub struct Options {
    /// The directory, absolute.
    pub directory: PathBuf,
    /// The directory as it was given.
    pub shown_directory: PathBuf,
    /// Name of the mesh.
    pub mesh: String,
    /// Its state directory.
    pub state: PathBuf,
    /// The ingress gateway, if one is to run.
    pub gateway: Option<GatewayOptions>,
    /// Where the control plane listens.
    pub xds_address: SocketAddr,
    /// Where it listens in plaintext too.
    pub plaintext_xds: Option<SocketAddr>,
    /// Where it serves metrics.
    pub monitoring_address: SocketAddr,
    /// Life of workload certificates.
    pub workload_cert_ttl: Option<Duration>,
    /// `PATH`.
    pub search_path: OsString,
}

/// The ingress gateway.
#[derive(Clone, Copy, Debug)]
pub struct GatewayOptions {
    /// Address on which it listens.
    pub address: IpAddr,
    /// The proxy that it is.
    pub proxy: ProxyEngine,
}

/// Runs the mesh until it is told to stop.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let state = match StateDir::open(&options.state) {
        Err(StateDirError::InUse { pid, .. }) => anyhow::bail!(
            "{} is already running (process {pid}): see `outrigger status --mesh {}`",
            options.mesh,
            options.mesh
        ),
        opened => opened?,
    };
    note_directory(&state, &options.directory)?;
    ports::check(&options)?;
    let screen = Screen::new(state.directory("logs")?);
    let board = Arc::new(Board::new(&options));
    // Watched from before the first pass, so that no change falls between the two.
    let changes = Changes::watch(&options.directory)?;
    let (plane, pass) = match ControlPlane::start(&options, &state, &board).await? {
        Ok(started) => started,
        Err(pass) => {
            screen.problems(&pass.problems);
            screen.say("nothing was started: mend what is said above");
            return Ok(ExitCode::FAILURE);
        }
    };
    screen.say(&format!(
        "{}: {} objects from {}",
        options.mesh,
        pass.outcome.count(),
        options.shown_directory.display()
    ));
    screen.say(&format!(
        "control plane ready at {} ({})",
        plane.xds_address(),
        output::seconds(begun.elapsed())
    ));

    let supervisor = Supervisor::new(&options, &state, Arc::clone(&board), screen.clone(), &plane);
    let mut mesh = Mesh {
        options,
        plane,
        board,
        screen,
        supervisor,
        changes,
        begun,
        announced: false,
        warned: Vec::new(),
        in_trouble: false,
        next_look: None,
        next_try: None,
        lacking: BTreeSet::new(),
    };
    mesh.take(pass);
    mesh.keep_running().await?;
    mesh.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Time after which a directory that could not be applied is tried again.
const NEXT_TRY: Duration = Duration::from_secs(5);
/// Proxies have answered a change by then.
const TIME_TO_ANSWER: Duration = Duration::from_millis(2500);

struct Mesh {
    options: Options,
    plane: ControlPlane,
    board: Arc<Board>,
    screen: Screen,
    supervisor: Supervisor,
    changes: Changes,
    begun: Instant,
    announced: bool,
    /// Warnings that were told and still hold: each is told once.
    warned: Vec<FileProblem>,
    /// Whether something was wrong with the directory when it was last read.
    in_trouble: bool,
    /// When to look what proxies made of the last change.
    next_look: Option<tokio::time::Instant>,
    /// When to try once more to apply the directory.
    next_try: Option<tokio::time::Instant>,
    /// What was told of objects that proxies do not follow, and still holds.
    lacking: BTreeSet<String>,
}

impl Mesh {
    /// Brings what runs in line with what a pass says.
    fn take(&mut self, pass: Pass) {
        let is_new = |warning: &&FileProblem| !self.warned.contains(warning);
        let warnings: Vec<FileProblem> = pass.warnings.iter().filter(is_new).cloned().collect();
        self.screen.warnings(&warnings);
        let plan = Plan::new(&self.options, &pass);
        self.screen.problems(&plan.problems);
        let not_run = pass.not_run_here.iter().filter(|name| !self.board.knows_not_run(name));
        for name in not_run {
            let name = name.strip_prefix("default/").unwrap_or(name);
            self.screen.say(&format!("{name} is not run here: workloads.yaml has no row for it"));
        }
        self.board.set_not_run(pass.not_run_here);
        if self.in_trouble && plan.problems.is_empty() {
            self.screen.say("in effect again: nothing is wrong any more");
        }
        self.in_trouble = !plan.problems.is_empty();
        let problems = plan.problems.iter().map(ToString::to_string).collect();
        self.board.set_problems(problems);
        self.supervisor.run_these(plan.specs, &plan.unclear);
        self.warned = pass.warnings;
        self.look_soon();
    }

    /// Goes on until a signal says to stop.
    async fn keep_running(&mut self) -> anyhow::Result<()> {
        let mut signals = Signals::new()?;
        loop {
            tokio::select! {
                () = signals.next() => return Ok(()),
                () = self.changes.settled() => self.changed().await,
                () = due(self.next_try) => self.changed().await,
                () = self.supervisor.keep_running() => {}
                () = due(self.next_look) => self.tell_lacking(),
            }
            self.announce();
        }
    }

    /// Says once that everything runs.
    fn announce(&mut self) {
        if self.announced || !self.board.all_ready() {
            return;
        }
        self.announced = true;
        self.look_soon();
        let gateway = gateway::urls(&self.plane.store, self.options.gateway.as_ref());
        let way_in = gateway.first().map(|url| format!(": {url}")).unwrap_or_default();
        let time = output::seconds(self.begun.elapsed());
        self.screen.say(&format!("{} is up{way_in} ({time}; Ctrl-C stops it)", self.options.mesh));
    }

    fn look_soon(&mut self) {
        self.next_look = Some(tokio::time::Instant::now() + TIME_TO_ANSWER);
    }

    /// Says of which objects proxies do not do what they say, and why; once each.
    fn tell_lacking(&mut self) {
        self.next_look = None;
        let is_told = |what: &str| self.warned.iter().any(|told| told.message.ends_with(what));
        let lacking: BTreeSet<String> =
            board::lacking(self.plane.pilot().status().objects, is_told);
        for line in lacking.difference(&self.lacking) {
            self.screen.say(&format!("warning: {line}"));
        }
        self.lacking = lacking;
    }

    async fn changed(&mut self) {
        let begun = Instant::now();
        self.next_try = None;
        let pass = match self.plane.pass().await {
            Ok(pass) => pass,
            // A full disk, say: what runs goes on as it is.
            Err(error) => return self.not_stored(&error.to_string()),
        };
        if !pass.problems.is_empty() {
            self.screen.problems(&pass.problems);
            self.screen.say("not in effect: what was there before still is");
            self.board.set_problems(pass.problems.iter().map(ToString::to_string).collect());
            self.in_trouble = true;
            return;
        }
        if pass.outcome.is_change() {
            self.screen.change(&pass.outcome, begun.elapsed());
        }
        self.take(pass);
    }

    /// Says that the directory could not be applied, once, and tries again later.
    fn not_stored(&mut self, why: &str) {
        let problem = format!("{}: not applied: {why}", self.options.directory.display());
        if !self.board.knows_problem(&problem) {
            self.screen.say(&format!("error: {problem}"));
            self.screen.say("not in effect: what was there before still is");
            self.board.set_problems(vec![problem]);
        }
        self.in_trouble = true;
        self.next_try = Some(tokio::time::Instant::now() + NEXT_TRY);
    }

    /// Lets everything end in order; a second signal ends it at once.
    async fn stop(mut self) {
        self.screen.say("stopping: requests in flight are finished; Ctrl-C again does not wait");
        let begun = Instant::now();
        let hasty = match Signals::new() {
            Ok(mut signals) => tokio::select! {
                () = signals.next() => true,
                () = self.supervisor.drain() => false,
            },
            Err(_) => true,
        };
        if hasty {
            self.supervisor.kill().await;
        }
        self.plane.stop().await;
        self.screen.say(&format!("stopped ({})", output::seconds(begun.elapsed())));
    }
}

/// Waits until then; for ever if there is no time.
async fn due(time: Option<tokio::time::Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The signals that mean stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal was closed.
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
