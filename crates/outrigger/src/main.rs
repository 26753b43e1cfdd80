//! `outrigger`: a service mesh in one binary. Composition only: see `commands`.

mod commands;
mod home;
mod logging;
mod run;
mod up;

use std::process::ExitCode;

use clap::Command;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let mut program = Command::new("outrigger")
        .about("A service mesh in one binary")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true);
    for row in commands::COMMANDS {
        program = program.subcommand((row.command)());
    }
    let matches = program.get_matches();
    let chosen = matches.subcommand().and_then(|(name, matches)| {
        let row = commands::COMMANDS.iter().find(|row| row.name == name)?;
        Some((row, matches))
    });
    // clap has seen to it that there is one.
    let Some((row, matches)) = chosen else { return ExitCode::FAILURE };
    match (row.run)(matches) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The one place where an error becomes a line for a person.
#[allow(clippy::print_stderr)]
fn complain(message: &str) {
    eprintln!("outrigger: {message}");
}
