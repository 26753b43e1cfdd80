//! The repository's own tools: `cargo xtask <command>`.

use std::path::Path;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

mod generate;

/// What `cargo xtask` can do.
#[derive(Parser)]
#[command(name = "cargo xtask", about = "The repository's own tools")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Regenerate what is derived from protobuf files: stubs and the schema of Envoy's configuration.
    Generate {
        /// Write nothing; fail if a generated file is out of date.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is not in a workspace")?;
    match Arguments::parse().command {
        Command::Generate { check } => generate::run(root, check),
    }
}
