//! What to run: a directory's workloads and the gateway, as processes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use apiserver::directory::{Pass, ProxyEngine, Workload};
use resources::kinds::mesh::mesh_config::MeshConfig;
use resources::yaml::FileProblem;

use super::{Options, gateway};

/// One process to run: `outrigger run`, which runs the program beside its sidecar. Two that are equal need no restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What people call it.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// WorkloadGroup.
    pub group: String,
    /// Which of the group's workloads it is.
    pub instance: String,
    /// Service account.
    pub service_account: String,
    /// Ports that it is reached at.
    pub ports: Vec<u16>,
    /// Whether its proxy is Envoy.
    pub envoy: bool,
    /// Further arguments of `outrigger run`.
    pub arguments: Vec<OsString>,
    /// The program and its arguments; none for the gateway.
    pub command: Vec<OsString>,
    /// Environment beside what it inherits.
    pub env: BTreeMap<String, String>,
    /// Whether it is the gateway, which stops first.
    pub is_gateway: bool,
}

/// Everything to run, and what cannot be.
pub struct Plan {
    /// What to run.
    pub specs: Vec<Spec>,
    /// Rows that cannot be run.
    pub problems: Vec<FileProblem>,
    /// Namespace and group of the workloads of those rows: what runs of them goes on.
    pub unclear: Vec<(String, String)>,
}

impl Plan {
    /// What a pass over the directory says to run.
    pub fn new(options: &Options, pass: &Pass) -> Self {
        let mut plan = Self { specs: Vec::new(), problems: Vec::new(), unclear: Vec::new() };
        if let Some(gateway) = &options.gateway {
            plan.specs.push(gateway::spec(gateway, &MeshConfig::default().root_namespace));
        }
        for workload in &pass.workloads {
            match find_program(&workload.row.run[0], options) {
                Some(program) => plan.add(workload, &program),
                None => {
                    let row = &workload.row;
                    let message = format!(
                        "{}: there is no program {:?} {}",
                        row.deployment,
                        row.run[0],
                        if row.run[0].contains('/') { "in this directory" } else { "in PATH" }
                    );
                    plan.problems.push(FileProblem { at: row.place.clone(), message });
                    plan.unclear.push((row.namespace.clone(), row.deployment.clone()));
                }
            }
        }
        plan
    }

    fn add(&mut self, workload: &Workload, program: &Path) {
        let row = &workload.row;
        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(port) = row.app_port {
            arguments.extend(["--app-port".into(), port.to_string().into()]);
        }
        for upstream in &row.upstreams {
            arguments.extend(["--upstream".into(), upstream.into()]);
        }
        let mut command = vec![program.as_os_str().to_owned()];
        command.extend(row.run[1..].iter().map(OsString::from));
        // Names are labels of DNS, so that a dot keeps them apart.
        let base = match row.namespace.as_str() {
            "default" => row.deployment.clone(),
            namespace => format!("{}.{namespace}", row.deployment),
        };
        for replica in 0..workload.replicas {
            self.specs.push(Spec {
                name: if replica == 0 { base.clone() } else { format!("{base}-{replica}") },
                namespace: row.namespace.clone(),
                group: row.deployment.clone(),
                instance: replica.to_string(),
                service_account: workload.service_account.clone(),
                ports: workload.ports.clone(),
                envoy: row.proxy == ProxyEngine::Envoy,
                arguments: arguments.clone(),
                command: command.clone(),
                env: row.env.clone(),
                is_gateway: false,
            });
        }
    }
}

/// A program: with a slash relative to the directory, else in the path, else beside this one.
fn find_program(name: &str, options: &Options) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(options.directory.join(name)).filter(|path| is_program(path));
    }
    let own = fs::read_link("/proc/self/exe").ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_owned);
    let path: &OsStr = &options.search_path;
    let folders = std::env::split_paths(path).filter(|folder| !folder.as_os_str().is_empty());
    folders.chain(beside).map(|folder| folder.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
