//! `outrigger token`: credentials for workloads on other machines.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args as _, FromArgMatches as _};
use serde_json::json;

use super::Row;
use crate::home::MeshArgs;

/// The row of the table.
pub const ROW: Row = Row { name: "token", command, run };

/// What it is told.
#[derive(Debug, clap::Args)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a token and print it with the root certificate and address that go with it
    Create(Create),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Service account that the bearer is
    #[arg(long, value_name = "NAME")]
    service_account: String,
    /// Namespace of the service account
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// How to print it
    #[arg(short, long, default_value = "yaml")]
    output: Output,
    #[command(flatten)]
    mesh: MeshArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Output {
    Yaml,
    Json,
}

fn command() -> clap::Command {
    Arguments::augment_args(clap::Command::new("token"))
        .about("Credentials for workloads on other machines")
}

/// Asks the mesh for a token.
fn run(matches: &clap::ArgMatches) -> anyhow::Result<ExitCode> {
    let args = Arguments::from_arg_matches(matches)?;
    let Command::Create(create) = args.command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = create.mesh.client()?;
    let (mesh, token) = runtime.block_on(async {
        let mesh = client.mesh().await?;
        anyhow::Ok((mesh, client.token(&create.namespace, &create.service_account).await?))
    })?;
    let text = match create.output {
        Output::Json => {
            let answer = json!({
                "address": mesh.xds_address,
                "trustDomain": mesh.trust_domain,
                "expiresInSeconds": token.expires_in_seconds,
                "token": token.token,
                "rootCertificate": mesh.root_certificate,
            });
            serde_json::to_string_pretty(&answer)? + "\n"
        }
        Output::Yaml => {
            let root: String =
                mesh.root_certificate.lines().map(|line| format!("  {line}\n")).collect();
            format!(
                "# {}/{} in mesh {}; good for {} minutes\naddress: {}\ntrustDomain: {}\ntoken: {}\nrootCertificate: |\n{root}",
                create.namespace,
                create.service_account,
                mesh.mesh,
                token.expires_in_seconds / 60,
                mesh.xds_address,
                mesh.trust_domain,
                token.token,
            )
        }
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
