//! One subcommand, one file, one row.

pub mod exec_with_parent;
pub mod guard_group;
pub mod logs;
pub mod proxy;
pub mod run;
pub mod status;
pub mod token;
pub mod up;

use std::process::ExitCode;

/// A subcommand.
pub struct Row {
    /// Its name on the command line.
    pub name: &'static str,
    /// Its arguments.
    pub command: fn() -> clap::Command,
    /// What it does. An error is printed, and the process fails.
    pub run: fn(&clap::ArgMatches) -> anyhow::Result<ExitCode>,
}

/// Every subcommand, in the order in which a newcomer needs them; the hidden ones last.
pub const COMMANDS: &[Row] = &[
    up::ROW,
    status::ROW,
    logs::ROW,
    run::ROW,
    token::ROW,
    proxy::ROW,
    exec_with_parent::ROW,
    guard_group::ROW,
];
