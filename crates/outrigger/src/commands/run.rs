//! `outrigger run`: one application with its sidecar, or a gateway.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use apiserver::control_socket::protocol::WishedPort;
use apiserver::registration::PROTOCOLS;
use clap::{Args as _, FromArgMatches as _};
use resources::rules::duration::parse_duration;
use resources::terms::port::{Protocol, Transport};
use telemetry::logging::{Level, Levels};

use super::Row;
use super::exec_with_parent::die_with;
use crate::home::MeshArgs;
use crate::run::engine::Kind;
use crate::run::{Plan, membership};

/// The row of the table.
pub const ROW: Row = Row { name: "run", command, run };

/// What it is told.
#[derive(Debug, clap::Args)]
struct Arguments {
    /// Service that the application is part of; made if none selects the workload
    #[arg(long, value_name = "NAME", required_unless_present = "group")]
    name: Option<String>,
    /// Port at which others reach the application; may be repeated. `tcp:5432` says what it speaks: http unless said
    #[arg(long, value_name = "[PROTOCOL:]PORT", value_parser = port)]
    port: Vec<WishedPort>,
    /// Version, the label that subsets select
    #[arg(long)]
    version: Option<String>,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Port on 127.0.0.1 where the application listens [default: a free one]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    app_port: Option<u16>,
    /// Destination that the application calls by TCP, at the same port of $OUTRIGGER_ADDRESS; may be repeated
    #[arg(long, value_name = "HOST:PORT", value_parser = upstream)]
    upstream: Vec<String>,
    /// Service account, which is the workload's identity [default: its name]
    #[arg(long, value_name = "NAME")]
    service_account: Option<String>,
    /// Label beside `app` and `version`; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Join this WorkloadGroup, which says everything else about the workload
    #[arg(long)]
    group: Option<String>,
    /// Which of its group's workloads this is [default: the first that does not run]
    #[arg(long)]
    instance: Option<String>,
    /// Run a gateway: a proxy without an application
    #[arg(long, conflicts_with_all = ["app_port", "upstream", "command"])]
    gateway: bool,
    /// Address that a gateway's listeners bind [default: all]
    #[arg(long, value_name = "IP", requires = "gateway")]
    gateway_address: Option<IpAddr>,
    /// Proxy to run: our own in this process, or Envoy as another
    #[arg(long, value_parser = proxy, default_value = "outrigger")]
    proxy: Kind,
    /// Envoy's executable
    #[arg(long, value_name = "FILE", default_value = "envoy")]
    envoy_path: PathBuf,
    /// Worker threads of the proxy
    #[arg(long, value_name = "N", default_value_t = 1)]
    concurrency: usize,
    /// How long the workload's certificates live
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    ttl: Duration,
    /// How long requests that are under way may take when this process is asked to end
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    drain_time: Duration,
    /// Join a mesh on another machine: what `outrigger token create` printed there
    #[arg(long, value_name = "FILE", conflicts_with = "mesh")]
    join: Option<PathBuf>,
    /// End when this process ends, which must be the parent
    #[arg(long, value_name = "PID", hide = true)]
    parent: Option<u32>,
    #[command(flatten)]
    mesh: MeshArgs,
    /// The application and its arguments; `{port}` and `{address}` in them are replaced
    #[arg(last = true, required_unless_present = "gateway")]
    command: Vec<OsString>,
}

fn command() -> clap::Command {
    // `--version` is the workload's.
    Arguments::augment_args(clap::Command::new("run").disable_version_flag(true))
        .about("Run one application with its sidecar in a mesh, or a gateway")
        .after_help(AFTER_HELP)
}

const AFTER_HELP: &str = "\
The application is told
  PORT               where on 127.0.0.1 to listen (PORT_9080 for each of several ports)
  HTTP_PROXY         the sidecar's way out: http://reviews:9080/ goes to the service of that name
  OUTRIGGER_ADDRESS  the workload's own address, where what --upstream names is to be called

Examples
  outrigger run --name web --port 80 -- python3 -m http.server --bind 127.0.0.1 {port}
  outrigger run --name reviews --version v2 --port 9080 --app-port 3000 -- node server.js
  outrigger run --name shop --upstream mysqldb:3306 -- ./shop";

/// Runs until the application ends, or until this process is asked to.
fn run(matches: &clap::ArgMatches) -> anyhow::Result<ExitCode> {
    let args = Arguments::from_arg_matches(matches)?;
    if let Some(parent) = args.parent {
        die_with(parent)?;
        // The kernel calls a process after the file it was started from, which was a link.
        rustix::thread::set_name(c"outrigger")?;
    }
    if args.ttl < Duration::from_secs(1) {
        bail!("--ttl: a certificate must live for at least one second");
    }
    // What concerns the workload is told; of the proxy's own doings, what may be wrong.
    let levels = Arc::new(Levels::new(Level::Warning));
    crate::logging::start(levels.clone(), None)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let code = runtime.block_on(async {
        crate::memory::return_at_once();
        tokio::spawn(crate::memory::give_back());
        let membership = match &args.join {
            Some(file) => membership::join_remote(file, &args.wish()).await?,
            None => membership::join_local(&args.mesh.running_dir()?, &args.wish()).await?,
        };
        crate::run::run(args.plan(levels), membership).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

impl Arguments {
    fn wish(&self) -> membership::Wish {
        membership::Wish {
            group: self.group.clone(),
            name: self.name.clone().unwrap_or_default(),
            namespace: self.namespace.clone(),
            version: self.version.clone(),
            labels: self.label.iter().cloned().collect(),
            service_account: self.service_account.clone(),
            ports: self.port.clone(),
            instance: self.instance.clone(),
        }
    }

    fn plan(self, levels: Arc<Levels>) -> Plan {
        Plan {
            gateway: self.gateway,
            gateway_address: self.gateway_address,
            app_port: self.app_port,
            upstreams: self.upstream,
            proxy: self.proxy,
            envoy_path: self.envoy_path,
            concurrency: self.concurrency.max(1),
            certificate_ttl: self.ttl,
            drain_time: self.drain_time,
            command: self.command,
            levels,
            is_announced: self.parent.is_some(),
        }
    }
}

fn port(text: &str) -> Result<WishedPort, String> {
    let (protocol, number) = match text.split_once(':') {
        Some((protocol, number)) => (Some(protocol), number),
        None => (None, text),
    };
    let port = number.parse().ok().filter(|port| *port > 0);
    let port = port.ok_or("must be a port between 1 and 65535, or PROTOCOL:PORT")?;
    // On some ports the server speaks first, so that they cannot be HTTP.
    let known = Protocol::of_service_port(Transport::Tcp, None, "", port);
    let protocol = protocol.unwrap_or(if known.is_tcp() { "tcp" } else { "http" });
    match PROTOCOLS.contains(&protocol) {
        true => Ok(WishedPort { port, protocol: protocol.to_owned() }),
        false => Err(format!("its protocol must be one of {}", PROTOCOLS.join(", "))),
    }
}

fn proxy(text: &str) -> Result<Kind, String> {
    match text {
        "outrigger" => Ok(Kind::Outrigger),
        "envoy" => Ok(Kind::Envoy),
        _ => Err("must be outrigger or envoy".to_owned()),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn upstream(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("must be HOST:PORT")?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err("must be HOST:PORT".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_and_labels_are_checked_before_anything_starts() {
        assert!(upstream("mysqldb:3306").is_ok());
        for wrong in ["mysqldb", ":3306", "mysqldb:", "mysqldb:x", "mysqldb:70000"] {
            assert!(upstream(wrong).is_err(), "{wrong}");
        }
        let known = |text: &str| port(text).map(|port| (port.protocol, port.port)).unwrap();
        assert_eq!(known("9080"), ("http".to_owned(), 9080));
        assert_eq!(known("tcp:5432"), ("tcp".to_owned(), 5432));
        assert_eq!(known("3306"), ("tcp".to_owned(), 3306), "MySQL's server speaks first");
        for wrong in ["", "0", "70000", "smtp:25", "tcp:", "80/tcp"] {
            assert!(port(wrong).is_err(), "{wrong}");
        }
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(label("a").is_err());
    }
}
