//! The proxy of a workload: Outrigger's own inside this process, or Envoy as a child. Both are given the same bootstrap.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use api::schema::Schema;
use api::text::Sources;
use proxy::bootstrap::Bootstrap;
use proxy::server;
use rustix::process::{Pid, Signal, kill_process};
use telemetry::logging::Levels;
use tokio::process::Child;

use super::app::tied_to_us;
use crate::commands::exec_with_parent::NOT_FOUND;

/// Access logs are written out so often: someone is looking.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// And when so much is there.
const FLUSH_BYTES: usize = 64 << 10;

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Outrigger's own, in this process.
    Outrigger,
    /// Envoy, as a process of its own.
    Envoy,
}

/// How it is to run.
pub struct Settings {
    /// Which.
    pub kind: Kind,
    /// Envoy's executable.
    pub envoy_path: PathBuf,
    /// Worker threads.
    pub concurrency: usize,
    /// After the word to stop, listeners stay open for so long.
    pub grace: Duration,
    /// And then requests that are under way may take so long.
    pub drain_time: Duration,
    /// A private directory, for Envoy's bootstrap.
    pub directory: PathBuf,
    /// Levels of this process's log.
    pub levels: Arc<Levels>,
}

/// A running proxy.
pub enum Engine {
    /// In this process.
    Ours(Box<server::Server>),
    /// A child.
    Envoy {
        /// The process.
        child: Child,
        /// How long requests may take at the end.
        drain_time: Duration,
    },
}

impl Engine {
    /// Starts a proxy with this bootstrap.
    pub async fn start(
        settings: &Settings,
        bootstrap: &serde_json::Value,
    ) -> anyhow::Result<Engine> {
        match settings.kind {
            Kind::Outrigger => start_ours(settings, bootstrap).await,
            Kind::Envoy => start_envoy(settings, bootstrap),
        }
    }

    /// Waits until the proxy ends by itself, which it never should; says how.
    pub async fn failed(&mut self) -> String {
        match self {
            Engine::Ours(server) => {
                server.wait_until_quit().await;
                if server.has_failed() {
                    return "a worker of the proxy panicked".to_owned();
                }
                "the proxy was asked to quit".to_owned()
            }
            Engine::Envoy { child, .. } => match child.wait().await {
                Ok(status) if status.code() == Some(i32::from(NOT_FOUND)) => {
                    "there is no Envoy: --envoy-path says where it is, `cargo xtask setup` brings one"
                        .to_owned()
                }
                Ok(status) => format!("Envoy has ended: {status}"),
                Err(error) => format!("Envoy cannot be waited for: {error}"),
            },
        }
    }

    /// Ends it, letting requests that are under way end first.
    pub async fn stop(self) {
        match self {
            Engine::Ours(server) => server.stop().await,
            Engine::Envoy { mut child, drain_time } => {
                if let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
                    let _ = kill_process(pid, Signal::TERM);
                }
                if tokio::time::timeout(drain_time, child.wait()).await.is_err() {
                    let _ = child.kill().await;
                }
            }
        }
    }
}

async fn start_ours(settings: &Settings, bootstrap: &serde_json::Value) -> anyhow::Result<Engine> {
    let extensions = extensions::extensions();
    let text = serde_json::to_string_pretty(bootstrap)?;
    let sources = Sources::one("the sidecar's bootstrap", &text);
    let bootstrap = Bootstrap::read(&Schema::new(), &extensions, sources)?;
    Ok(Engine::Ours(Box::new(server::start(bootstrap, extensions, options(settings)).await?)))
}

fn options(settings: &Settings) -> server::Options {
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname");
    server::Options {
        concurrency: settings.concurrency,
        drain_time: settings.drain_time,
        grace: settings.grace,
        flush_interval: FLUSH_INTERVAL,
        flush_bytes: FLUSH_BYTES,
        admin_address_path: None,
        version: crate::commands::proxy::version(),
        command_line: crate::commands::proxy::shown_options(
            settings.concurrency,
            settings.drain_time,
            FLUSH_INTERVAL,
        ),
        levels: settings.levels.clone(),
        hostname: hostname.map_or_else(|_| "-".to_owned(), |name| name.trim().to_owned()),
        variable: |name| std::env::var(name).ok(),
    }
}

fn start_envoy(settings: &Settings, bootstrap: &serde_json::Value) -> anyhow::Result<Engine> {
    let file = settings.directory.join("envoy.json");
    write_private(&file, &serde_json::to_vec_pretty(bootstrap)?)?;
    let mut command = tied_to_us();
    command.arg(&settings.envoy_path).arg("-c").arg(&file);
    command.args([
        "--concurrency",
        &settings.concurrency.to_string(),
        "--disable-hot-restart",
        "-l",
        "warning",
    ]);
    command.args([
        "--drain-time-s",
        &settings.drain_time.as_secs().to_string(),
        "--drain-strategy",
        "immediate",
    ]);
    let child = command.kill_on_drop(true).spawn().context("cannot start Envoy")?;
    if child.id().is_none() {
        bail!("Envoy ended at once");
    }
    Ok(Engine::Envoy { child, drain_time: settings.drain_time })
}

/// The bootstrap has the hash of the outbound proxy's credential in it.
fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes)).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use agent::app_ports::AppPorts;
    use agent::bootstrap::{Role, Workload, render};
    use telemetry::logging::Level;

    use super::*;

    /// Envoy and our own engine get the same bootstrap; ours must take all of it.
    #[test]
    fn our_engine_takes_the_bootstrap_that_the_agent_renders() {
        for role in [Role::Sidecar, Role::Gateway] {
            let workload = Workload {
                role,
                name: "reviews-v1-0".into(),
                namespace: "default".into(),
                service_account: "bookinfo-reviews".into(),
                workload_name: "reviews-v1".into(),
                labels: Default::default(),
                address: [127, 0, 0, 1].into(),
                group: Some("reviews-v1".into()),
                app_ports: AppPorts::all_on(&[9080], 41234),
                upstreams: vec!["mysqldb:3306".into()],
                http_proxy_port: 15007,
                proxy_credential: None,
                gateway_address: None,
                mesh: "test".into(),
            };
            let admin = ([127, 0, 0, 1], 0).into();
            let text = render(&workload, admin, Path::new("/tmp/agent.sock")).to_string();
            let extensions = extensions::extensions();
            let sources = Sources::one("bootstrap", &text);
            let bootstrap = Bootstrap::read(&Schema::new(), &extensions, sources).unwrap();
            let settings = Settings {
                kind: Kind::Outrigger,
                envoy_path: "envoy".into(),
                concurrency: 1,
                grace: Duration::ZERO,
                drain_time: Duration::ZERO,
                directory: "/tmp".into(),
                levels: Arc::new(Levels::new(Level::Warning)),
            };
            server::validate(&bootstrap, extensions, &options(&settings)).unwrap();
        }
    }
}
