//! The options of `cargo xtask bench`, and the step from the unoptimised tools to optimised ones.

use std::path::PathBuf;

/// What to measure, and how.
#[derive(clap::Args, Clone)]
pub struct Options {
    /// Scenarios by name or by the beginning of their names; `memory` and `control-plane` too. All by default.
    #[arg(long = "scenario", value_delimiter = ',')]
    pub scenarios: Vec<String>,
    /// Proxies to compare: direct, outrigger, nginx, haproxy, envoy, envoy-h2, hyper, and floor, the cheapest relay there can be.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "outrigger,nginx,haproxy,envoy,envoy-h2,hyper,floor"
    )]
    pub peers: Vec<String>,
    /// Repetitions of each proxy in each scenario.
    #[arg(long, default_value_t = 3)]
    pub reps: usize,
    /// Seconds of each measured window.
    #[arg(long, default_value_t = 5.0)]
    pub seconds: f64,
    /// Measure under the normal scheduler, as on a machine that others use, instead of with real-time priority.
    #[arg(long)]
    pub polite: bool,
    /// Where the JSON goes.
    #[arg(long, default_value = "bench-results/latest.json")]
    pub json: PathBuf,
    /// Services and proxies of the control plane's measurement.
    #[arg(long, default_value_t = 1000)]
    pub services: usize,
    #[arg(long, default_value_t = 1000)]
    pub proxies: usize,
}

/// Builds Outrigger and the tools, optimised and with the load generator, and runs the bench in them.
#[cfg(not(feature = "bench"))]
pub fn run_optimised(root: &std::path::Path) -> anyhow::Result<()> {
    use crate::setup::{self, succeed};
    use std::process::Command;

    setup::for_bench(root)?;
    let cargo =
        |arguments: &[&str]| succeed(Command::new("cargo").args(arguments).current_dir(root));
    // In one go, so that they are made of the same parts.
    let packages = ["--package", "outrigger", "--package", "pilot", "--bins"];
    let build = ["build", "--quiet", "--release", "--example", "sidecars"];
    cargo(&[&build[..], &packages].concat())?;
    cargo(&[
        "build",
        "--quiet",
        "--release",
        "--package",
        "xtask",
        "--no-default-features",
        "--features",
        "bench",
    ])?;
    let arguments = std::env::args_os().skip(1);
    succeed(Command::new(root.join("target/release/xtask")).args(arguments).current_dir(root))
}
