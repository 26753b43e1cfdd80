//! One workload's process: `outrigger run` in a process group of its own.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child as Process, Command};

use super::output::WorkloadOutput;
use super::plan::Spec;

/// A process that was started.
pub struct Child {
    process: Process,
    pid: Option<Pid>,
}

impl Child {
    /// Starts a workload. It dies with the thread that starts it, however that ends, because `run` asks the kernel
    /// for it: `--parent` lets it see that the thread was not gone before it asked.
    pub fn start(
        spec: &Spec,
        directory: &Path,
        state: &Path,
        output: &WorkloadOutput,
    ) -> io::Result<Self> {
        let mut process = Command::new("/proc/self/exe")
            .arg0("outrigger")
            .args(arguments(spec, state))
            .envs(&spec.env)
            .current_dir(directory)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(pipe) = process.stdout.take() {
            tokio::spawn(output.clone().relay(pipe));
        }
        if let Some(pipe) = process.stderr.take() {
            tokio::spawn(output.clone().relay(pipe));
        }
        let pid = process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { process, pid })
    }

    /// Its number.
    pub fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits until it ended. Cancel-safe.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// Asks it to finish what it does and end.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it and everything that it started.
    pub fn kill(&self) {
        if let Some(pid) = self.pid
            && self.process.id().is_some()
        {
            // It may have ended meanwhile.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid
            && self.process.id().is_some()
        {
            // It may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    }
}

fn arguments(spec: &Spec, state: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["run".into(), "--mesh".into(), state.into()];
    let parent = std::process::id().to_string();
    for (flag, value) in [
        ("--parent", parent.as_str()),
        ("--group", &spec.group),
        ("--namespace", &spec.namespace),
        ("--instance", &spec.instance),
    ] {
        arguments.extend([flag.into(), value.into()]);
    }
    if spec.envoy {
        arguments.extend(["--proxy".into(), "envoy".into()]);
    }
    arguments.extend(spec.arguments.iter().cloned());
    if !spec.command.is_empty() {
        arguments.push("--".into());
        arguments.extend(spec.command.iter().cloned());
    }
    arguments
}
