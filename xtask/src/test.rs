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
    #[cfg(feature = "generate")]
    step("generated files", || crate::generate::run(root, true))?;
    // The bench's load generator is a feature, so that everyday tools build quickly; here it is checked like the rest.
    let all = ["--workspace", "--features", "xtask/bench", "--locked"];
    step("clippy", || {
        succeed(cargo(root).arg("clippy").args(all).args(["--all-targets", "--", "-D", "warnings"]))
    })?;
    // The whole-mesh tests run the binaries. Built together with the tests, they share every dependency.
    step("build", || succeed(cargo(root).arg("build").args(all).args(["--bins", "--tests"])))?;
    step("test", || succeed(cargo(root).arg("test").args(all).arg("--no-fail-fast")))
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
