//! `cargo xtask bench`: Outrigger, nginx, Envoy and the floor side by side on one machine with two cores.
//!
//! The proxy has one worker and one core to itself; the load generator and the backend have the other and poll
//! without sleeping, so that the proxy never pays for waking an idle core. Repetitions are interleaved over the
//! proxies and each starts its proxy afresh; medians are reported. What counts is CPU time per request: the
//! scheduler's run time of all the proxy's threads over the measured window, divided by the responses in it.
//! Absolute numbers hold for one machine and one hour; use the ratios.

mod certificates;
mod control_plane;
pub mod floor;
pub mod hyper_peer;
mod load;
mod memory;
mod peers;
mod process;
mod report;
mod scenarios;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::bench_options::Options;
use crate::workspace::output;
use certificates::Certificates;
use load::{Backend, Load, Pattern, Plan};
use peers::{Idle, Peer, Sent, Setting, Shape};
use process::CpuTime;
use report::{Report, Row, Sample, Table};
use scenarios::{SCENARIOS, Scenario};

/// How long a proxy runs under load before the window begins.
const WARM_UP: Duration = Duration::from_millis(1000);

/// What every measurement needs.
pub struct Bench {
    root: PathBuf,
    certificates: Certificates,
    realtime: bool,
    window: Duration,
    /// What sidecars are sent, where some are to be measured.
    sent: Option<Sent>,
}

/// Runs the bench in this (optimised) process.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let peers = choose_peers(&options.peers)?;
    if peers.contains(&Peer::Outrigger) && !root.join("target/release/outrigger").exists() {
        bail!("target/release/outrigger does not exist: cargo build --release -p outrigger");
    }
    let realtime = !options.polite && prepare_machine()?;
    let certificates = Certificates::in_folder(&root.join("target/bench/certificates"))?;
    let window = Duration::from_secs_f64(options.seconds);
    let wanted = |name: &str| is_wanted(name, &options.scenarios);
    let scenarios = || SCENARIOS.iter().filter(|scenario| wanted(scenario.name));
    let has_sidecars = scenarios().any(|scenario| scenario.sidecars.is_some());
    let sent = has_sidecars.then(|| Sent::ask(root)).transpose()?;
    let bench = Bench { root: root.to_owned(), certificates, realtime, window, sent };
    let mut report =
        Report { commit: commit(root), seconds: options.seconds, realtime, ..Report::default() };
    for scenario in scenarios() {
        let table = bench.compare(scenario, &peers, options.reps)?;
        table.print();
        report.tables.push(table);
    }
    if wanted("memory") {
        let measured = [Peer::Outrigger, Peer::Nginx, Peer::Envoy];
        for peer in measured.iter().filter(|peer| peers.contains(peer)) {
            report.memory.push(memory::measure(&bench, *peer)?);
        }
        report.print_memory();
    }
    if wanted("control-plane") {
        let result = control_plane::measure(root, options.services, options.proxies)?;
        control_plane::print(&result);
        report.control_plane = Some(result);
    }
    report.write(&root.join(&options.json))
}

impl Bench {
    fn compare(&self, scenario: &Scenario, peers: &[Peer], repetitions: usize) -> Result<Table> {
        let mut rows: Vec<Row> =
            peers.iter().map(|peer| Row { proxy: peer.name(), samples: Vec::new() }).collect();
        for _ in 0..repetitions {
            for (peer, row) in peers.iter().zip(&mut rows) {
                if peer.takes_part_in(scenario) {
                    let sample = self.sample(scenario, *peer);
                    row.samples.push(
                        sample.with_context(|| format!("{} in {}", peer.name(), scenario.name))?,
                    );
                }
            }
        }
        rows.retain(|row| !row.samples.is_empty());
        let unit = if scenario.pattern == Pattern::Bulk { "GB" } else { "request" };
        Ok(Table { scenario: scenario.name, about: scenario.about, unit, rows })
    }

    fn sample(&self, scenario: &Scenario, peer: Peer) -> Result<Sample> {
        let backend = match scenario.shape {
            Shape::Grpc => Backend::grpc()?,
            _ => Backend::http1(scenario.backends)?,
        };
        let mut setting = self.setting(scenario.shape, backend.addresses()?)?;
        setting.sidecars = scenario.sidecars.zip(self.sent.as_ref());
        setting.http2 = scenario.http2.is_some();
        let mut load = Load::new(backend)?;
        let running = peer.start(&self.root, &setting)?;
        let tls = match scenario.shape {
            Shape::Tls => Some(self.certificates.client()?),
            _ => None,
        };
        let (connections, path, pattern) = (scenario.connections, scenario.path, scenario.pattern);
        let (target, http2) = (running.entrance, scenario.http2);
        load.begin(&Plan { target, connections, path, pattern, tls, http2 })?;
        let words = || {
            running
                .processes
                .iter()
                .map(process::Process::last_words)
                .collect::<Vec<_>>()
                .join("\n")
        };
        let warm_up = load.run(WARM_UP).with_context(words)?;
        if warm_up.responses == 0 && warm_up.bytes == 0 {
            let first = warm_up.first_error.unwrap_or_default();
            bail!(
                "no response in the warm-up ({} errors, the first: {first}): {}",
                warm_up.errors,
                words()
            );
        }
        let cpu = || {
            running.processes.iter().map(process::Process::cpu_time).fold(CpuTime::default(), add)
        };
        let (began, before) = (Instant::now(), cpu());
        let mut tally = load.run(self.window).with_context(words)?;
        let (elapsed, after) = (began.elapsed().as_secs_f64(), cpu());
        load.end();
        let units = match pattern {
            Pattern::Bulk => tally.bytes as f64 / 1e9,
            _ => tally.responses as f64,
        };
        if let Some(error) = &tally.first_error {
            eprintln!(
                "{} in {}: {} errors, the first: {error}",
                peer.name(),
                scenario.name,
                tally.errors
            );
        }
        let cpu_seconds = (after.total - before.total) as f64 / 1e9;
        let kernel = (after.kernel_ticks - before.kernel_ticks) as f64;
        let user = (after.user_ticks - before.user_ticks) as f64;
        let scale = if pattern == Pattern::Bulk { 1.0 } else { 1e6 };
        Ok(Sample {
            cpu_per_unit: cpu_seconds * scale / units,
            rate: units / elapsed,
            kernel_share: kernel / (kernel + user).max(1.0),
            busy: cpu_seconds / elapsed,
            p50_us: tally.percentile(0.5),
            p99_us: tally.percentile(0.99),
            errors: tally.errors,
        })
    }

    fn setting(&self, shape: Shape, backends: Vec<SocketAddr>) -> Result<Setting<'_>> {
        let folder = self.root.join("target/bench/run");
        std::fs::create_dir_all(&folder)?;
        let (certificates, realtime) = (&self.certificates, self.realtime);
        Ok(Setting {
            shape,
            http2: false,
            backends,
            idle: Idle::default(),
            sidecars: None,
            certificates,
            folder,
            realtime,
        })
    }
}

/// A scenario is asked for by its whole name, or by the beginning of names where nothing has that name: `s1` is one
/// scenario, `s6` are three.
fn is_wanted(name: &str, asked: &[String]) -> bool {
    let is_whole = |asked: &str| SCENARIOS.iter().any(|scenario| scenario.name == asked);
    asked.is_empty()
        || asked.iter().any(|a| name == a || (!is_whole(a) && name.starts_with(a.as_str())))
}

fn add(a: CpuTime, b: CpuTime) -> CpuTime {
    CpuTime {
        total: a.total + b.total,
        kernel_ticks: a.kernel_ticks + b.kernel_ticks,
        user_ticks: a.user_ticks + b.user_ticks,
    }
}

fn choose_peers(names: &[String]) -> Result<Vec<Peer>> {
    let find = |name: &String| Peer::ALL.into_iter().find(|peer| peer.name() == name);
    names
        .iter()
        .map(|name| find(name).with_context(|| format!("there is no proxy `{name}`")))
        .collect()
}

/// Pins this thread to the load's core, lifts the limit on open files, and takes real-time priority where it may;
/// says whether it has it.
fn prepare_machine() -> Result<bool> {
    let mut cores = CpuSet::new();
    cores.set(process::LOAD_CORE);
    sched_setaffinity(None, &cores).context("this machine has no second core for the load")?;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let me = std::process::id().to_string();
    let granted = Command::new("chrt").args(["--rr", "--pid", "10", &me]).output();
    let realtime = granted.is_ok_and(|done| done.status.success());
    if !realtime {
        println!("no real-time priority here: other processes will blur the numbers");
    }
    Ok(realtime)
}

/// The commit that is measured; empty outside git.
fn commit(root: &Path) -> String {
    let described =
        output(Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root));
    described.unwrap_or_default().trim().to_owned()
}
