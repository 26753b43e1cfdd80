//! The application: a child in a process group of its own, which ends when we end.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// This program, also when its file was replaced since it started.
const OURSELVES: &str = "/proc/self/exe";

/// What the application is told.
pub struct Surroundings {
    /// The port on 127.0.0.1 that it should listen on, if it is reached at any.
    pub port: Option<u16>,
    /// The workload's address.
    pub address: IpAddr,
    /// The URL of the outbound proxy, with its credential.
    pub http_proxy: String,
    /// Each port of the workload with the application's port for it.
    pub ports: Vec<(u16, u16)>,
}

/// The application while it runs.
pub struct App {
    child: Child,
    group: u32,
    /// Ends what the application started if we are killed; is killed itself when we are done.
    _guard: Child,
}

impl App {
    /// Starts it. Must be called on a thread that lives as long as the process.
    pub fn start(command: &[OsString], surroundings: &Surroundings) -> anyhow::Result<App> {
        let mut child = tied_to_us();
        child.args(command.iter().map(|argument| substitute(argument, surroundings)));
        if let Some(port) = surroundings.port {
            child.env("PORT", port.to_string());
        }
        for (port, app) in &surroundings.ports {
            child.env(format!("PORT_{port}"), app.to_string());
        }
        child.env("OUTRIGGER_ADDRESS", surroundings.address.to_string());
        for name in ["HTTP_PROXY", "http_proxy"] {
            child.env(name, &surroundings.http_proxy);
        }
        for name in ["NO_PROXY", "no_proxy"] {
            child.env(name, "localhost,127.0.0.1,::1");
        }
        // A background group that reads a terminal would be stopped by it.
        if std::io::stdin().is_terminal() {
            child.stdin(Stdio::null());
        }
        let child = child.spawn().context("cannot start the application")?;
        let group = child.id().context("the application ended at once")?;
        Ok(App { child, group, _guard: guard(group)? })
    }

    /// The number of its process group.
    pub fn group(&self) -> u32 {
        self.group
    }

    /// Sends a signal to all of it.
    pub fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.group).ok().and_then(Pid::from_raw) {
            // It may have ended meanwhile.
            let _ = kill_process_group(group, signal);
        }
    }

    /// Waits until it ends.
    pub async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// A command line that runs what is appended to it in a group of its own, and kills it when this process ends.
pub fn tied_to_us() -> Command {
    let mut command = Command::new(OURSELVES);
    command.arg("exec-with-parent").arg(std::process::id().to_string()).arg("--").process_group(0);
    command
}

/// Starts the process that outlives us for as long as it takes to kill what is left of a group.
fn guard(group: u32) -> anyhow::Result<Child> {
    let mut command = Command::new(OURSELVES);
    command.arg0("outrigger").arg("guard-group").arg(group.to_string()).process_group(0);
    // It holds nobody's output open, and its input ends when we do.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.kill_on_drop(true).spawn().context("cannot guard the application")
}

/// An exit status as shells say it.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(u8::MAX)
}

fn substitute(argument: &OsString, surroundings: &Surroundings) -> OsString {
    let port = surroundings.port.map(|port| port.to_string()).unwrap_or_default();
    let address = surroundings.address.to_string();
    let with_port = replace(argument.as_bytes(), b"{port}", port.as_bytes());
    OsString::from_vec(replace(&with_port, b"{address}", address.as_bytes()))
}

fn replace(text: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(what.len()).position(|window| window == what) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(with);
        rest = &rest[at + what.len()..];
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_and_address_are_filled_in_wherever_they_stand() {
        let surroundings = Surroundings {
            port: Some(41234),
            address: [127, 64, 0, 2].into(),
            http_proxy: String::new(),
            ports: Vec::new(),
        };
        let filled = |text: &str| substitute(&OsString::from(text), &surroundings);
        assert_eq!(filled("--listen=127.0.0.1:{port}"), "--listen=127.0.0.1:41234");
        assert_eq!(filled("{address}:{port}:{port}"), "127.64.0.2:41234:41234");
        assert_eq!(filled("{ports}"), "{ports}");
    }

    #[test]
    fn exit_codes_are_the_shells() {
        assert_eq!(exit_code(ExitStatus::from_raw(0)), 0);
        assert_eq!(exit_code(ExitStatus::from_raw(7 << 8)), 7);
        assert_eq!(exit_code(ExitStatus::from_raw(9)), 137);
    }
}
