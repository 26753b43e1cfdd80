//! The control plane alone, with in-process streams: the measurement lives beside what it measures, as the bench
//! `scale` of the `pilot` crate; here it is built, run and read.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::workspace::output;

/// Runs `scale` and returns the JSON object that it prints as its last line.
pub fn measure(root: &Path, services: usize, proxies: usize) -> Result<Value> {
    let printed = output(
        Command::new("cargo")
            .args(["bench", "--quiet", "--package", "pilot", "--bench", "scale", "--"])
            .args(["--services", &services.to_string(), "--proxies", &proxies.to_string()])
            .current_dir(root),
    )?;
    let last = printed.lines().last().context("the control plane's bench printed nothing")?;
    serde_json::from_str(last).with_context(|| format!("not JSON: {last}"))
}

/// One line a step, with what istiod needs where that was measured.
pub fn print(result: &Value) {
    println!("\n### Control plane\n\n```json\n{result:#}\n```");
}
