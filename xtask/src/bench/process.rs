//! A proxy under measurement: pinned to one core, watched through /proc, ended by its process id.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The core the proxy runs on; the load has [`LOAD_CORE`].
pub const PROXY_CORE: usize = 0;
pub const LOAD_CORE: usize = 1;

const START_WITHIN: Duration = Duration::from_secs(20);
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// A running proxy (with the children it forks); ended when dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
}

/// CPU time that a proxy has used, in nanoseconds.
#[derive(Clone, Copy, Default)]
pub struct CpuTime {
    /// The scheduler's run time, user and kernel together.
    pub total: u64,
    /// The part in the kernel, in clock ticks: coarse, so only for shares over seconds.
    pub kernel_ticks: u64,
    pub user_ticks: u64,
}

impl Process {
    /// Starts `command` on the proxy's core; what it prints goes to `log`.
    pub fn start(command: &Command, log: &Path, realtime: bool) -> Result<Self> {
        let output =
            File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut pinned = Command::new("taskset");
        pinned.args(["-c", &PROXY_CORE.to_string()]);
        if realtime {
            pinned.args(["chrt", "--rr", "10"]);
        }
        pinned.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            pinned.env(name, value.unwrap_or_default());
        }
        pinned.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = pinned.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Waits until `address` accepts connections.
    pub fn wait_for(&mut self, address: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + START_WITHIN;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the proxy ended with {status}: {}", self.last_words());
            }
            if Instant::now() > deadline {
                bail!("the proxy does not listen on {address}: {}", self.last_words());
            }
            pause();
        }
        Ok(())
    }

    /// CPU time of the process and of all its descendants.
    pub fn cpu_time(&self) -> CpuTime {
        let mut sum = CpuTime::default();
        for pid in self.family() {
            for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                let schedstat =
                    fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                sum.total += first_number(&schedstat);
            }
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // Fields 14 and 15, counted from behind the name, which may hold blanks.
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
            sum.user_ticks += fields.get(11).map_or(0, |field| first_number(field));
            sum.kernel_ticks += fields.get(12).map_or(0, |field| first_number(field));
        }
        sum
    }

    /// Resident memory of the process and of all its descendants, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let of = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("VmRSS:"))
                .unwrap_or("0")
                .to_owned();
            first_number(line.trim()) * 1024
        };
        self.family().into_iter().map(of).sum()
    }

    /// The end of what the process has printed.
    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(12).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn family(&self) -> Vec<u32> {
        let mut pids = vec![self.child.id()];
        let mut next = 0;
        while next < pids.len() {
            let pid = pids[next];
            let children =
                fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            pids.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            next += 1;
        }
        pids
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            kill_process(pid, Signal::TERM).ok();
        }
        let deadline = Instant::now() + STOP_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                self.child.kill().ok();
                self.child.wait().ok();
                return;
            }
            pause();
        }
    }
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// Between two looks at a condition.
#[allow(
    clippy::disallowed_methods,
    reason = "the pause of a loop that waits on a condition with a deadline"
)]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}
