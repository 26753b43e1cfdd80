//! `cargo xtask test`: everything that must hold before a change is merged, from set-up to whole-mesh tests.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::setup::{self, succeed};
use crate::tidy;

/// Sets the machine up, then runs the steps in order of cost; the first that fails ends the run.
pub fn run(root: &Path) -> Result<()> {
    step("setup", || setup::run(root))?;
    step("format", || succeed(cargo(root).args(["fmt", "--all", "--check"])))?;
    step("tidy", || tidy::run(root, None))?;
    step("generated files", || succeed(cargo(root).args(["xtask", "generate", "--check"])))?;
    step("clippy", || {
        let lints = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
        succeed(cargo(root).args(lints))
    })?;
    // The whole-mesh tests run the binaries. Built together with the tests, they share every dependency.
    step("build", || {
        succeed(cargo(root).args(["build", "--workspace", "--bins", "--tests", "--locked"]))
    })?;
    step("test", || {
        succeed(cargo(root).args(["test", "--workspace", "--locked", "--no-fail-fast"]))
    })
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let began = Instant::now();
    println!("== {name}");
    let result = work();
    println!(
        "== {name}: {} after {:.0} s",
        if result.is_ok() { "passed" } else { "FAILED" },
        began.elapsed().as_secs_f64()
    );
    result
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root);
    command
}
