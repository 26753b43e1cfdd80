//! `cargo xtask bookinfo`: from a fresh clone to a page in a browser.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::setup::{self, succeed};

/// Builds the binary and the example's app as they ship, and becomes `outrigger up examples/bookinfo`.
pub fn run(root: &Path, arguments: &[String]) -> Result<()> {
    setup::compiler()?;
    let build =
        ["build", "--release", "--locked", "--package", "outrigger", "--package", "bookinfo"];
    succeed(Command::new("cargo").args(build).current_dir(root))?;
    let mut up = Command::new(root.join("target/release/outrigger"));
    up.args(["up", "examples/bookinfo"]).args(arguments).current_dir(root);
    // In place of this process, so that Ctrl-C and the exit status are the mesh's own.
    Err(up.exec()).context("cannot run target/release/outrigger")
}
