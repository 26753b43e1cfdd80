//! A child process: its output kept, ended by its id.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{wait_at_most, wait_until};

/// How long a process may take to end when asked, before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// How much of what a process has printed an error repeats.
const LAST_LINES: usize = 40;

/// A running program. Dropping it ends it.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to `folder/name.log`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("{}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed so far.
    pub fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where its output goes.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// The end of what it has printed, for error messages.
    fn last_words(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// If the system cannot say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for {}", self.name))
    }

    /// Waits for a condition, but not longer than the process lives.
    ///
    /// # Errors
    /// If the process ends first or the condition does not come; the error shows what the process has printed.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        mut condition: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let child = &mut self.child;
        let found = wait_until(what, || match condition() {
            Ok(None) if child.try_wait()?.is_some() => Ok(Some(Err(child.wait()?))),
            Err(error) if child.try_wait()?.is_some() => Err(error),
            looked => Ok(looked?.map(Ok)),
        });
        match found {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(status)) => {
                let said = self.last_words();
                anyhow::bail!("{} ended with {status} before {what}:\n{said}", self.name)
            }
            Err(error) => Err(error.context(format!("{} said:\n{}", self.name, self.last_words()))),
        }
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("a process id")?;
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// If it does not within `patience`.
    pub fn wait_for_end(&mut self, patience: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        wait_at_most(patience, &what, || self.child.try_wait().map_err(Into::into))
    }
}

impl Process {
    /// Ends it at once, for a program that has nothing to clean up.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(Signal::TERM).ok();
        if self.wait_for_end(STOP_WITHIN).is_err() {
            self.kill();
        }
    }
}
