//! A whole mesh: `outrigger up` over a directory of YAML, on addresses of its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::binaries;
use crate::http1::{self, Response};
use crate::process::Process;
use crate::wait::wait_until;

/// A running mesh. Dropping it ends it.
pub struct Mesh {
    /// `outrigger up`.
    pub process: Process,
    address: Ipv4Addr,
    files: Files,
}

/// A mesh that is about to start.
pub struct Plan {
    address: Ipv4Addr,
    files: Files,
    arguments: Vec<String>,
}

/// The directory that the mesh is of, and where it keeps its state.
struct Files {
    folder: TempDir,
}

/// What one workload's status says.
#[derive(Debug, Clone)]
pub struct Workload {
    /// As in `outrigger status`.
    pub name: String,
    /// Where its sidecar listens.
    pub address: IpAddr,
    /// The ports it serves.
    pub ports: Vec<u16>,
    /// The process id of its sidecar.
    pub pid: Option<u32>,
    /// How often it has been restarted.
    pub restarts: u64,
    /// Everything else.
    pub raw: Value,
}

impl Plan {
    /// A mesh of the project's own bookinfo.
    ///
    /// # Errors
    /// If its files cannot be copied.
    pub fn bookinfo() -> Result<Self> {
        let plan = Self::empty()?;
        plan.copy_from(&binaries::root().join("examples/bookinfo"))?;
        Ok(plan)
    }

    /// A mesh of nothing yet.
    ///
    /// # Errors
    /// If its folder cannot be made.
    pub fn empty() -> Result<Self> {
        let files = Files { folder: TempDir::new()? };
        std::fs::create_dir_all(files.directory())?;
        std::fs::create_dir_all(files.state_home())?;
        Ok(Self { address: own_address(), files, arguments: Vec::new() })
    }

    /// Copies the YAML files that stand directly in `folder`.
    ///
    /// # Errors
    /// If they cannot be copied.
    pub fn copy_from(&self, folder: &Path) -> Result<()> {
        for entry in std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                self.copy_file(&path)?;
            }
        }
        Ok(())
    }

    /// Copies one file.
    ///
    /// # Errors
    /// If it cannot be copied.
    pub fn copy_file(&self, file: &Path) -> Result<()> {
        let name = file.file_name().context("a file without a name")?;
        std::fs::copy(file, self.files.directory().join(name))
            .with_context(|| format!("{}", file.display()))?;
        Ok(())
    }

    /// Writes a file of the directory.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        self.files.write(file, text)
    }

    /// Replaces text in a file of the directory.
    ///
    /// # Errors
    /// If the text is not there.
    pub fn edit(&self, file: &str, from: &str, to: &str) -> Result<()> {
        self.files.edit(file, from, to)
    }

    /// The address that the mesh has to itself.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Adds an argument of `outrigger up`.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Starts the mesh and waits until its control plane answers.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(self) -> Result<Mesh> {
        let Self { address, files, arguments } = self;
        let command = up(&files, address, &arguments)?;
        let process = Process::start("up", command, files.folder.path())?;
        let mut mesh = Mesh { process, address, files };
        mesh.wait_for_status()?;
        Ok(mesh)
    }
}

impl Mesh {
    /// Where the ingress gateway serves plain HTTP.
    pub fn gateway(&self) -> SocketAddr {
        SocketAddr::from((self.address, 8080))
    }

    /// A GET through the ingress gateway.
    ///
    /// # Errors
    /// If the gateway does not answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        http1::get(self.gateway(), "bookinfo.test", path)
    }

    /// Waits until `path` is served and its body has `text`.
    ///
    /// # Errors
    /// If it never is.
    pub fn wait_for_page(&mut self, path: &str, text: &str) -> Result<Response> {
        let (gateway, what) = (self.gateway(), format!("{path} with {text:?}"));
        self.process.wait_for(&what, || {
            let response = http1::get(gateway, "bookinfo.test", path)?;
            if response.status == 200 && response.text().contains(text) {
                return Ok(Some(response));
            }
            bail!("{}: {}", response.status, response.text())
        })
    }

    /// Replaces text in a file of the directory, as an editor would.
    ///
    /// # Errors
    /// If the text is not there.
    pub fn edit(&self, file: &str, from: &str, to: &str) -> Result<()> {
        self.files.edit(file, from, to)
    }

    /// Writes a file of the directory.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        self.files.write(file, text)
    }

    /// Removes a file of the directory.
    ///
    /// # Errors
    /// If it is not there.
    pub fn remove(&self, file: &str) -> Result<()> {
        std::fs::remove_file(self.files.directory().join(file)).with_context(|| file.to_owned())
    }

    /// `outrigger <arguments>` for this mesh, ready to run.
    ///
    /// # Errors
    /// If the binary has not been built.
    pub fn outrigger(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = outrigger(&self.files)?;
        command.args(arguments);
        Ok(command)
    }

    /// Runs `outrigger <arguments>` to its end.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.outrigger(arguments)?.output().with_context(|| format!("outrigger {arguments:?}"))
    }

    /// What `outrigger status -o json` says.
    ///
    /// # Errors
    /// If it fails.
    pub fn status(&self) -> Result<Value> {
        let done = self.run(&["status", "-o", "json"])?;
        if !done.status.success() {
            bail!("outrigger status: {}", String::from_utf8_lossy(&done.stderr));
        }
        serde_json::from_slice(&done.stdout).context("the status is not JSON")
    }

    /// The workload of that name, once it has an address: a page can be served before all that it could ask is there.
    ///
    /// # Errors
    /// If there is none, or it gets no address.
    pub fn workload(&self, name: &str) -> Result<Workload> {
        wait_until(&format!("{name} and its address"), || self.workload_now(name).map(Some))
    }

    fn workload_now(&self, name: &str) -> Result<Workload> {
        let status = self.status()?;
        let all = status["workloads"].as_array().context("no workloads")?;
        let raw = all.iter().find(|workload| workload["name"] == name);
        let raw = raw.with_context(|| format!("no workload {name}: {status}"))?.clone();
        let ports = raw["ports"].as_array().into_iter().flatten();
        Ok(Workload {
            name: name.to_owned(),
            address: raw["address"]
                .as_str()
                .and_then(|a| a.parse().ok())
                .context("no address yet")?,
            ports: ports.filter_map(|port| port.as_u64()?.try_into().ok()).collect(),
            pid: raw["pid"].as_u64().and_then(|pid| pid.try_into().ok()),
            restarts: raw["restarts"].as_u64().unwrap_or(0),
            raw,
        })
    }

    /// A GET of the admin interface of a workload's sidecar.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn admin(&self, workload: &str, path: &str) -> Result<Response> {
        http1::get(SocketAddr::new(self.workload(workload)?.address, 15000), "localhost", path)
    }

    /// Where the mesh's directory is.
    pub fn directory(&self) -> PathBuf {
        self.files.directory()
    }

    /// Where the state of this user's meshes is, `$XDG_STATE_HOME`.
    pub fn state_home(&self) -> PathBuf {
        self.files.state_home()
    }

    /// Starts the mesh again after its process has ended.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_again(&mut self, arguments: &[&str]) -> Result<()> {
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        let command = up(&self.files, self.address, &arguments)?;
        self.process = Process::start("up-again", command, self.files.folder.path())?;
        self.wait_for_status()
    }

    fn wait_for_status(&mut self) -> Result<()> {
        let files = &self.files;
        self.process.wait_for("the control plane", || {
            let done = outrigger(files)?.args(["status", "-o", "json"]).output()?;
            Ok(done.status.success().then_some(()))
        })
    }
}

impl Files {
    fn directory(&self) -> PathBuf {
        self.folder.path().join("mesh")
    }

    fn state_home(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        std::fs::write(self.directory().join(file), text).with_context(|| file.to_owned())
    }

    fn edit(&self, file: &str, from: &str, to: &str) -> Result<()> {
        let text = std::fs::read_to_string(self.directory().join(file))
            .with_context(|| file.to_owned())?;
        if !text.contains(from) {
            bail!("{file} has no {from:?}");
        }
        self.write(file, &text.replace(from, to))
    }
}

fn outrigger(files: &Files) -> Result<Command> {
    let binary = binaries::workspace_binary("outrigger")?;
    let mut command = Command::new(&binary);
    command.env("XDG_STATE_HOME", files.state_home()).current_dir(files.folder.path());
    // `bookinfo` is beside `outrigger`, Envoy where the set-up has put it.
    let mut folders: Vec<PathBuf> = binary.parent().map(Path::to_owned).into_iter().collect();
    folders.extend(binaries::envoy().and_then(|envoy| envoy.parent().map(Path::to_owned)));
    let search = std::env::var_os("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&search));
    command.env("PATH", std::env::join_paths(folders)?);
    Ok(command)
}

fn up(files: &Files, address: Ipv4Addr, arguments: &[String]) -> Result<Command> {
    let mut command = outrigger(files)?;
    command.arg("up").arg(files.directory());
    command.args(["--gateway-address", &address.to_string()]);
    command.args(["--xds-address", &format!("{address}:15012")]);
    command.args(["--monitoring-address", &format!("{address}:15014")]);
    command.args(arguments);
    Ok(command)
}

/// A loopback address that no other test and no workload (those have 127.64.0.0/10) uses.
fn own_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id().to_le_bytes();
    Ipv4Addr::new(127, 200 | (process[1] & 7), process[0], NEXT.fetch_add(1, Ordering::Relaxed))
}
