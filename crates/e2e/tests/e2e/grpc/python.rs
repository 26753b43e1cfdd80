//! grpcio's server and client, as processes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{Process, binaries};
use tempfile::TempDir;

/// The interpreter that has grpcio, if the set-up has installed it.
pub fn interpreter() -> Option<PathBuf> {
    let python = binaries::python();
    python.filter(|_| binaries::python_package("grpc/__init__.py").is_some())
}

/// A running `interop.py server`.
pub struct Server {
    address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Server {
    pub fn start() -> Result<Self> {
        let folder = TempDir::new()?;
        let mut process = Process::start("grpcio", interop_script("server")?, folder.path())?;
        let log = process.log_file().to_owned();
        let address = process.wait_for("grpcio's server", || {
            let said = std::fs::read_to_string(&log)?;
            let line = said.lines().find_map(|line| line.strip_prefix("listening "));
            Ok(line.and_then(|address| address.trim().parse().ok()))
        })?;
        Ok(Self { address, _process: process, _folder: folder })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

/// Runs every case of `interop.py client`; names all that fail.
pub fn run(address: SocketAddr) -> Result<()> {
    let mut client = interop_script("client")?;
    let done = client.arg(address.to_string()).output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(
        done.status.success(),
        "grpcio's client:\n{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    ensure!(said.lines().filter(|line| line.starts_with("ok ")).count() >= 13, "{said}");
    Ok(())
}

/// Reads one long stream from `address`; gives the bytes that came.
pub fn download(address: SocketAddr, count: usize, size: usize) -> Result<u64> {
    let mut client = interop_script("download")?;
    client.arg(address.to_string()).args([count.to_string(), size.to_string()]);
    let done = client.output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    said.trim().parse().with_context(|| said.clone())
}

fn interop_script(command: &str) -> Result<Command> {
    let mut python = Command::new(interpreter().context("grpcio is not installed")?);
    python.arg(binaries::root().join("crates/e2e/python/interop.py")).arg(command);
    // Whatever the clones' folders hold, they are left as they are.
    python.env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(python)
}
