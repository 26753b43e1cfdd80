//! `outrigger`: a service mesh in one binary. Composition only: see `commands`.

mod commands;
mod home;
mod logging;
mod memory;
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
        // Whoever was written to has seen enough: `outrigger logs web | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&told(&error));
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.downcast_ref().is_some_and(broken)
}

/// An error and what caused it. Some errors tell their cause themselves: nothing is said twice.
fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The one place where something becomes a line for a person, beside what an application writes.
#[allow(clippy::print_stderr)]
fn tell(message: &str) {
    eprintln!("outrigger: {message}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let taken = anyhow::anyhow!("address in use");
        let error = taken.context("cannot listen: address in use").context("the gateway");
        assert_eq!(told(&error), "the gateway: cannot listen: address in use");
    }
}
