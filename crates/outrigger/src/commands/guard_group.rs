//! `outrigger guard-group`, hidden: waits until the process that started it is gone, however that one ends, and kills
//! what it left behind. The kernel ends the application itself with its parent; what an application starts in turn is
//! nobody's child then and would go on for ever, with its port taken.

use std::io::Read;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args as _, FromArgMatches as _};
use rustix::process::{Pid, Signal, kill_process_group};

use super::Row;

/// The row of the table.
pub const ROW: Row = Row { name: "guard-group", command, run };

/// What it is told.
#[derive(Debug, clap::Args)]
struct Arguments {
    /// The process group to kill
    group: i32,
}

fn command() -> clap::Command {
    Arguments::augment_args(clap::Command::new("guard-group").hide(true))
}

/// Waits for the end of standard input, whose other end is held by the process that is watched over and by no other.
fn run(matches: &clap::ArgMatches) -> anyhow::Result<ExitCode> {
    let args = Arguments::from_arg_matches(matches)?;
    let group = Pid::from_raw(args.group).context("no process group")?;
    rustix::thread::set_name(c"outrigger-guard")?;
    while std::io::stdin().read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
    // In the usual case nothing is left.
    let _ = kill_process_group(group, Signal::KILL);
    Ok(ExitCode::SUCCESS)
}
