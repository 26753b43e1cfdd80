//! The repository's own tools: `cargo xtask <command>`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool prints")]

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

#[cfg(feature = "bench")]
mod bench;
mod bench_options;
mod bookinfo;
#[cfg(feature = "generate")]
mod generate;
#[cfg(feature = "generate")]
mod generate_schema;
mod rust_source;
mod setup;
mod test;
mod tidy;
mod workspace;

/// What `cargo xtask` can do.
#[derive(Parser)]
#[command(name = "cargo xtask", about = "The repository's own tools")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare Outrigger with nginx, HAProxy, Envoy and hyper: CPU per request, memory, the control plane.
    Bench(bench_options::Options),
    /// Build everything and run the bookinfo mesh; Ctrl-C ends it.
    Bookinfo {
        /// Handed on to `outrigger up`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Regenerate what is derived from protobuf files: stubs and the schema of Envoy's configuration.
    #[cfg(feature = "generate")]
    Generate {
        /// Write nothing; fail if a generated file is out of date.
        #[arg(long)]
        check: bool,
    },
    /// A peer of the bench.
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    HyperProxy { listen: std::net::SocketAddr, upstream: std::net::SocketAddr },
    /// A peer of the bench, and the least that any can cost.
    #[cfg(feature = "bench")]
    #[command(hide = true)]
    FloorRelay(bench::floor::Options),
    /// Install what the tests and the bench need beside Rust (Debian).
    Setup,
    /// Set up, then check format, tidiness, lints and every test: what continuous integration runs.
    Test,
    /// Check the repository's shape: layers, doors, sizes, registries, docs.
    Tidy {
        /// Run only the checks whose names contain this.
        only: Option<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is not in a workspace")?;
    match command {
        #[cfg(feature = "bench")]
        Command::Bench(options) => bench::run(root, &options),
        #[cfg(not(feature = "bench"))]
        Command::Bench(_) => bench_options::run_optimised(root),
        Command::Bookinfo { arguments } => bookinfo::run(root, &arguments),
        #[cfg(feature = "generate")]
        Command::Generate { check } => generate::run(root, check),
        #[cfg(feature = "bench")]
        Command::HyperProxy { listen, upstream } => bench::hyper_peer::run(listen, upstream),
        #[cfg(feature = "bench")]
        Command::FloorRelay(options) => bench::floor::run(&options),
        Command::Setup => {
            setup::for_tests(root)?;
            setup::for_bench(root)
        }
        Command::Test => test::run(root),
        Command::Tidy { only } => tidy::run(root, only.as_deref()),
    }
}
