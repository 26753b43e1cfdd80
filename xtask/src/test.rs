//! `cargo xtask test`: everything that must hold before a change is merged, from set-up to whole-mesh tests.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::setup::{self, succeed};
use crate::tidy;
use crate::workspace::output;

/// The version of Rust that format, lints and documentation are held to; another one's opinions are shown and fail nothing.
const TOOLCHAIN: &str = "1.95";

/// Sets the machine up, then runs the steps in order of cost; the first that fails ends the run.
pub fn run(root: &Path) -> Result<()> {
    step("setup", || setup::for_tests(root))?;
    let strict = is_our_toolchain(root);
    step("format", || format(root, strict))?;
    step("tidy", || tidy::run(root, None))?;
    #[cfg(feature = "generate")]
    step("generated files", || crate::generate::run(root, true))?;
    // The bench's load generator is a feature, so that everyday tools build quickly; here it is checked like the rest.
    let all = ["--workspace", "--features", "xtask/bench", "--locked"];
    step("clippy", || clippy(root, &all, strict))?;
    step("documentation", || documentation(root, strict))?;
    // The whole-mesh tests run the binaries. Built together with the tests, they share every dependency.
    step("build", || succeed(cargo(root).arg("build").args(all).args(["--bins", "--tests"])))?;
    step("test", || succeed(cargo(root).arg("test").args(all).arg("--no-fail-fast")))?;
    // The fuzz targets over mutations of their seeds, as many as take minutes.
    let long = ["--test", "fuzz", "--", "--ignored"];
    step("fuzz", || succeed(cargo(root).arg("test").args(all).args(long)))
}

fn format(root: &Path, strict: bool) -> Result<()> {
    if !setup::has_subcommand(root, "fmt") {
        println!("skipped: rustfmt is not there");
        return Ok(());
    }
    tolerate(succeed(cargo(root).args(["fmt", "--all", "--check"])), strict)
}

fn clippy(root: &Path, all: &[&str], strict: bool) -> Result<()> {
    if !setup::has_subcommand(root, "clippy") {
        println!("skipped: clippy is not there");
        return Ok(());
    }
    let mut clippy = cargo(root);
    clippy.arg("clippy").args(all).arg("--all-targets");
    if strict {
        clippy.args(["--", "-D", "warnings"]);
    }
    tolerate(succeed(&mut clippy), strict)
}

/// What comments link to exists, as somebody reads them who works on the project.
fn documentation(root: &Path, strict: bool) -> Result<()> {
    let mut doc = cargo(root);
    doc.args(["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    tolerate(succeed(&mut doc), strict)
}

/// Whether `rustc` is the version that the repository is formatted and linted with; says so if it is not.
fn is_our_toolchain(root: &Path) -> bool {
    let version = output(Command::new("rustc").arg("--version").current_dir(root));
    let version = version.unwrap_or_default();
    let ours = version.split(' ').nth(1).is_some_and(|v| v.starts_with(&format!("{TOOLCHAIN}.")));
    if !ours {
        println!(
            "format and lints are those of Rust {TOOLCHAIN}; with {} they are only shown",
            version.trim()
        );
    }
    ours
}

fn tolerate(result: Result<()>, strict: bool) -> Result<()> {
    match result {
        Err(error) if !strict => {
            println!("tolerated: {error:#}");
            Ok(())
        }
        result => result,
    }
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
