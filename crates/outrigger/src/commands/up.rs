//! `outrigger up`: a whole mesh from a directory.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use apiserver::directory::ProxyEngine;
use clap::{Args as _, FromArgMatches as _};
use telemetry::logging::{Level, Levels};

use super::Row;
use crate::home::HomeArgs;
use crate::up;

/// The row of the table.
pub const ROW: Row = Row { name: "up", command, run };

/// What it is told.
#[derive(Debug, clap::Args)]
struct Arguments {
    /// Directory with Kubernetes and Istio YAML, and workloads.yaml for what to run here
    directory: PathBuf,
    /// Name of the mesh [default: the directory's]
    #[arg(long)]
    name: Option<String>,
    /// Address on which the ingress gateway listens, with ports 8080 and 8443
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    gateway_address: IpAddr,
    /// Proxy that the ingress gateway is: outrigger or envoy
    #[arg(long, default_value = "outrigger", value_parser = engine, value_name = "PROXY")]
    gateway_proxy: ProxyEngine,
    /// Run no ingress gateway
    #[arg(long)]
    no_gateway: bool,
    /// Where the control plane listens: xDS and certificates over TLS
    #[arg(long, default_value = "127.0.0.1:15012", value_name = "ADDRESS:PORT")]
    xds_address: SocketAddr,
    /// Where the control plane also serves xDS in plaintext, without secrets and registration
    #[arg(long, value_name = "ADDRESS:PORT")]
    plaintext_xds: Option<SocketAddr>,
    /// Where the control plane serves its metrics and status
    #[arg(long, default_value = "127.0.0.1:15014", value_name = "ADDRESS:PORT")]
    monitoring_address: SocketAddr,
    /// Longest life of workload certificates, such as 24h or 90s [default: 24h]
    #[arg(long, value_parser = resources::rules::duration::parse_duration, value_name = "DURATION")]
    workload_cert_ttl: Option<Duration>,
    /// How much the control plane logs: trace, debug, info, warning, error or off
    #[arg(short, long, default_value = "warning", value_parser = level, value_name = "LEVEL")]
    log_level: Level,
    #[arg(long, env = "PATH", hide = true)]
    search_path: Option<OsString>,
    #[command(flatten)]
    home: HomeArgs,
}

fn engine(text: &str) -> Result<ProxyEngine, String> {
    match text {
        "outrigger" => Ok(ProxyEngine::Outrigger),
        "envoy" => Ok(ProxyEngine::Envoy),
        _ => Err("must be outrigger or envoy".to_owned()),
    }
}

fn level(text: &str) -> Result<Level, String> {
    Level::parse(text).ok_or_else(|| "must be trace, debug, info, warning, error or off".to_owned())
}

fn command() -> clap::Command {
    Arguments::augment_args(clap::Command::new("up")).about(
        "Run a whole mesh from a directory of YAML: control plane, ingress gateway and workloads",
    )
    .after_help(AFTER_HELP)
}

const AFTER_HELP: &str = "\
The directory is followed: an edit takes effect at once, and one that makes no sense is reported and changes nothing.
Its workloads.yaml says how to run each Deployment on this machine:
  - deployment: reviews-v2
    run: [node, server.js]         # told PORT; {port} is replaced
    env: {LOG_LEVEL: debug}        # optional, as are replicas, ports, appPort, upstreams and proxy

State is kept in $XDG_STATE_HOME/outrigger/<mesh>, or ~/.local/state/outrigger/<mesh>.";

/// Runs the mesh until it is told to stop.
fn run(matches: &clap::ArgMatches) -> anyhow::Result<ExitCode> {
    let args = Arguments::from_arg_matches(matches)?;
    crate::logging::start(Arc::new(Levels::new(args.log_level)), None)?;
    let directory = args.directory.canonicalize();
    let directory = directory.with_context(|| args.directory.display().to_string())?;
    if !directory.is_dir() {
        bail!("{}: is a file; `up` takes the directory that it is in", args.directory.display());
    }
    let (mesh, state) = args.home.mesh_of(&directory, args.name.as_deref())?;
    let options = up::Options {
        shown_directory: args.directory,
        directory,
        mesh,
        state,
        gateway: (!args.no_gateway).then_some(up::GatewayOptions {
            address: args.gateway_address,
            proxy: args.gateway_proxy,
        }),
        xds_address: args.xds_address,
        plaintext_xds: args.plaintext_xds,
        monitoring_address: args.monitoring_address,
        workload_cert_ttl: args.workload_cert_ttl,
        search_path: args.search_path.unwrap_or_default(),
    };
    // The main future runs on this thread, which lives as long as the process: children die with the thread that
    // started them.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        crate::memory::return_at_once();
        tokio::spawn(crate::memory::give_back());
        up::run(options).await
    })
}
