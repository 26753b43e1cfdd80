//! A proxy as its own process: ours, or the real Envoy with the same bootstrap.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::binaries;
use crate::http1::{self, Connection, Response};
use crate::process::Process;

/// Which program reads the bootstrap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// `outrigger proxy`.
    Outrigger,
    /// The real Envoy.
    Envoy,
}

impl Engine {
    /// Ours, and Envoy where it is installed. `E2E_ENGINE=envoy` checks the tests themselves against Envoy alone.
    pub fn available() -> Vec<Self> {
        if std::env::var("E2E_ENGINE").is_ok_and(|engine| engine == "envoy") {
            return vec![Self::Envoy];
        }
        let mut engines = vec![Self::Outrigger];
        match binaries::envoy() {
            Some(_) => engines.push(Self::Envoy),
            None => binaries::skip("comparison", "envoy"),
        }
        engines
    }

    fn command(self) -> Result<Command> {
        match self {
            Self::Outrigger => {
                let mut command = Command::new(binaries::workspace_binary("outrigger")?);
                command.arg("proxy");
                Ok(command)
            }
            Self::Envoy => {
                let mut command =
                    Command::new(binaries::envoy().context("envoy is not installed")?);
                command.arg("--disable-hot-restart");
                Ok(command)
            }
        }
    }
}

/// A running proxy.
pub struct Proxy {
    /// Its process.
    pub process: Process,
    admin: SocketAddr,
    /// Holds the configuration and the log; removed at the end.
    folder: TempDir,
}

impl Proxy {
    /// Starts our proxy with this bootstrap (YAML or JSON). An admin section on port 0 is added if it has none.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(bootstrap: &str) -> Result<Self> {
        Self::start_engine(Engine::Outrigger, bootstrap)
    }

    /// Starts either proxy with this bootstrap.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_engine(engine: Engine, bootstrap: &str) -> Result<Self> {
        Self::start_with(engine, bootstrap, &[])
    }

    /// Starts either proxy with this bootstrap and further arguments.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_with(engine: Engine, bootstrap: &str, arguments: &[&str]) -> Result<Self> {
        let folder = TempDir::new()?;
        let admin_file = folder.path().join("admin-address");
        let file = write_bootstrap(folder.path(), bootstrap)?;
        let mut command = engine.command()?;
        command.arg("-c").arg(file).arg("--admin-address-path").arg(&admin_file);
        command.args(["--concurrency", "1", "--drain-time-s", "5"]).args(arguments);
        let mut process = Process::start("proxy", command, folder.path())?;
        let admin = process.wait_for("the admin address", || {
            let address = std::fs::read_to_string(&admin_file).unwrap_or_default();
            Ok(address.trim().parse().ok())
        })?;
        process.wait_for("readiness", || {
            let ready = http1::get(admin, "admin", "/ready")?;
            Ok((ready.status == 200).then_some(()))
        })?;
        Ok(Self { process, admin, folder })
    }

    /// Where the admin interface listens.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// A GET of the admin interface.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn admin_get(&self, path: &str) -> Result<Response> {
        http1::get(self.admin, "admin", path)
    }

    /// One statistic, by its Envoy name; `None` if it does not exist (yet).
    ///
    /// # Errors
    /// If the admin interface does not answer.
    pub fn stat(&self, name: &str) -> Result<Option<u64>> {
        let text = self.admin_get("/stats")?.text();
        let lines = text.lines().filter_map(|line| line.split_once(": "));
        Ok(lines.filter(|(n, _)| *n == name).find_map(|(_, value)| value.trim().parse().ok()))
    }

    /// Where the listener of that name listens.
    ///
    /// # Errors
    /// If there is no such listener.
    pub fn listener(&self, name: &str) -> Result<SocketAddr> {
        let text = self.admin_get("/listeners?format=json")?.text();
        let listeners: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        let all = listeners["listener_statuses"].as_array().context("no listener_statuses")?;
        let found = all.iter().find(|listener| listener["name"] == name);
        let socket =
            &found.with_context(|| format!("no listener {name}: {text}"))?["local_address"];
        let socket = &socket["socket_address"];
        let (address, port) = (socket["address"].as_str(), socket["port_value"].as_u64());
        let (address, port) = address.zip(port).with_context(|| format!("no address: {text}"))?;
        format!("{address}:{port}").parse().context("a listener's address")
    }

    /// A connection to the listener of that name.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn connect(&self, listener: &str) -> Result<Connection> {
        Connection::open(self.listener(listener)?)
    }

    /// Where this proxy's files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Proxy {
    /// A drain is for tests about drains; the others need not wait for one.
    fn drop(&mut self) {
        self.process.kill();
    }
}

/// Runs `--mode validate` over a bootstrap, to its end.
///
/// # Errors
/// If the program cannot be run.
pub fn validate(engine: Engine, bootstrap: &str) -> Result<Output> {
    let folder = TempDir::new()?;
    let file = folder.path().join("bootstrap.yaml");
    std::fs::write(&file, bootstrap)?;
    let mut command = engine.command()?;
    command.args(["--mode", "validate", "-c"]).arg(file);
    command.output().context("validating")
}

fn write_bootstrap(folder: &Path, bootstrap: &str) -> Result<PathBuf> {
    let mut text = bootstrap.to_owned();
    if !text.lines().any(|line| line.starts_with("admin:")) {
        text.push_str(
            "\nadmin: { address: { socket_address: { address: 127.0.0.1, port_value: 0 } } }\n",
        );
    }
    let file = folder.join("bootstrap.yaml");
    std::fs::write(&file, text)?;
    Ok(file)
}
