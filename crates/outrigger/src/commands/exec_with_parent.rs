//! `outrigger exec-with-parent`, hidden: becomes another program that dies with the process that started it, however
//! that one ends. A detour through a process of our own, since what must be said between `fork` and `exec` is not safe
//! to say from Rust.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::{Args as _, FromArgMatches as _};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use super::Row;

/// The row of the table.
pub const ROW: Row = Row { name: "exec-with-parent", command, run };

/// As shells say it of a program that is not there.
pub const NOT_FOUND: u8 = 127;
/// As shells say it of a program that cannot be run.
const NOT_EXECUTABLE: u8 = 126;

/// What it is told.
#[derive(Debug, clap::Args)]
struct Arguments {
    /// The parent that must still be there
    parent: u32,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

fn command() -> clap::Command {
    Arguments::augment_args(clap::Command::new("exec-with-parent").hide(true))
}

/// Ties this process to its parent and becomes the program.
fn run(matches: &clap::ArgMatches) -> anyhow::Result<ExitCode> {
    let args = Arguments::from_arg_matches(matches)?;
    die_with(args.parent)?;
    let (program, arguments) = args.command.split_first().context("no program")?;
    let error = Command::new(program).args(arguments).exec();
    crate::tell(&format!("cannot run {}: {error}", program.display()));
    let code =
        if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
    Ok(ExitCode::from(code))
}

/// Has the kernel kill this process when `parent` ends. It must be the parent still: one that has ended already would
/// never be noticed.
pub fn die_with(parent: u32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().unsigned_abs()) != Some(parent) {
        bail!("the process that started this one, {parent}, has ended");
    }
    Ok(())
}
