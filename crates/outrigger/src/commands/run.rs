//! `outrigger run`: one application with its sidecar, or a gateway.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use clap::{Args as _, FromArgMatches as _};
use resources::rules::duration::parse_duration;
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
    /// Name of the service that the application is part of
    #[arg(long, required_unless_present = "group")]
    name: Option<String>,
    /// Namespace of the workload
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Version of the workload, as its `version` label
    #[arg(long)]
    version: Option<String>,
    /// A port that the workload is reached at; may be given more than once
    #[arg(long, value_name = "PORT")]
    port: Vec<u16>,
    /// The port on 127.0.0.1 that the application listens on; a free one, told to it as PORT, where nothing is said
    #[arg(long, value_name = "PORT")]
    app_port: Option<u16>,
    /// Service account of the workload; its name where nothing is said
    #[arg(long, value_name = "NAME")]
    service_account: Option<String>,
    /// A label of the workload beside `app` and `version`; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// A destination that the application calls by TCP: opens that port on the workload's own address
    #[arg(long, value_name = "HOST:PORT", value_parser = upstream)]
    upstream: Vec<String>,
    /// Join this WorkloadGroup, which says everything else about the workload
    #[arg(long)]
    group: Option<String>,
    /// Which of its group's workloads this is; the first that does not run where nothing is said
    #[arg(long)]
    instance: Option<String>,
    /// Run a gateway: a proxy without an application
    #[arg(long, conflicts_with_all = ["app_port", "upstream", "command"])]
    gateway: bool,
    /// The address that a gateway's listeners bind; all where nothing is said
    #[arg(long, value_name = "IP", requires = "gateway")]
    gateway_address: Option<IpAddr>,
    /// Which proxy to run
    #[arg(long, value_enum, default_value = "outrigger")]
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
}

/// Runs until the application ends, or until this process is asked to.
fn run(matches: &clap::ArgMatches) -> anyhow::Result<ExitCode> {
    let args = Arguments::from_arg_matches(matches)?;
    if let Some(parent) = args.parent {
        die_with(parent)?;
    }
    if args.ttl < Duration::from_secs(1) {
        bail!("--ttl: a certificate must live for at least one second");
    }
    let levels = levels();
    crate::logging::start(levels.clone(), None)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let code = runtime.block_on(async {
        tokio::spawn(crate::memory::give_back());
        let membership = match &args.join {
            Some(file) => membership::join_remote(file, &args.wish()).await?,
            None => membership::join_local(&args.mesh.state_dir()?, &args.wish()).await?,
        };
        crate::run::run(args.plan(levels), membership).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

/// What concerns the workload is said; of the proxy's own doings, what may be wrong.
fn levels() -> Arc<Levels> {
    let levels = Levels::new(Level::Warning);
    // The component is in the table.
    let _ = levels.set("main", Level::Info);
    Arc::new(levels)
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
        }
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
        assert_eq!(label("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(label("a").is_err());
    }
}
