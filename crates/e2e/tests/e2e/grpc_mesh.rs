//! gRPC between workloads with sidecars: by a port of the caller's own, where a VirtualService routes every call, and
//! through a tunnel of the outbound HTTP proxy, as gRPC's libraries use one that the environment names.

use std::path::Path;

use anyhow::{Result, ensure};
use e2e::mesh::{Mesh, Plan};
use e2e::wait::wait_until;
use e2e::{Process, binaries};
use tempfile::TempDir;

use crate::grpc::python::interpreter;
use crate::one_mesh_at_a_time;
use crate::proxyless_grpc::{Client, script};

/// Calls by which weights are judged.
const CALLS: u32 = 400;
/// Calls through one tunnel.
const TUNNELLED: u32 = 40;

const OBJECTS: &str = "{apiVersion: v1, kind: Service, metadata: {name: who, namespace: default}, spec: {ports: [{port: 9080, name: grpc}], selector: {app: who}}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: who, namespace: default}, spec: {host: who, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: who, namespace: default}, spec: {hosts: [who], http: [{route: [{destination: {host: who, subset: v1}, weight: 75}, {destination: {host: who, subset: v2}, weight: 25}]}]}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: strict, namespace: default}, spec: {mtls: {mode: STRICT}}}
";

/// `outrigger run <arguments> -- <application>`.
fn run(
    mesh: &Mesh,
    name: &str,
    arguments: &[&str],
    app: &[String],
    folder: &Path,
) -> Result<Process> {
    let mut command = mesh.outrigger(&["run", "--name"])?;
    command.args(arguments).arg("--").args(app);
    Process::start(name, command, folder)
}

/// The words of a command.
fn words(arguments: &[&str]) -> Result<Vec<String>> {
    let command = script(arguments)?;
    let all = std::iter::once(command.get_program()).chain(command.get_args());
    Ok(all.map(|word| word.to_string_lossy().into_owned()).collect())
}

#[test]
fn grpc_goes_through_sidecars_by_a_port_and_by_a_tunnel() -> Result<()> {
    if interpreter().is_none() {
        binaries::skip("grpc_goes_through_sidecars_by_a_port_and_by_a_tunnel", "grpcio");
        return Ok(());
    }
    let _alone = one_mesh_at_a_time();
    let folder = TempDir::new()?;
    let plan = Plan::empty()?;
    plan.write("who.yaml", OBJECTS)?;
    let mesh = plan.argument("--no-gateway").start()?;
    let mut servers = Vec::new();
    for version in ["v1", "v2"] {
        let arguments = ["who", "--version", version, "--port", "9080"];
        let app = words(&["server", version])?;
        servers.push(run(&mesh, version, &arguments, &app, folder.path())?);
        mesh.workload(&format!("who-{version}-0"))?;
    }
    let sleeping = ["sleep".to_owned(), "600".to_owned()];
    let arguments = ["caller", "--upstream", "who:9080"];
    let _caller = run(&mesh, "caller", &arguments, &sleeping, folder.path())?;
    let address = mesh.workload("caller-0")?.address;

    let mut client = Client::start(&format!("{address}:9080"), None)?;
    wait_until("both versions", || {
        let counts = client.call(20)?;
        ensure!(counts.keys().all(|who| who == "v1" || who == "v2"), "{counts:?}");
        Ok((counts.len() == 2).then_some(()))
    })?;
    let counts = client.call(CALLS)?;
    // Four standard deviations of 400 draws at 3/4.
    let v1 = counts.get("v1").copied().unwrap_or_default();
    ensure!(v1.abs_diff(300) <= 35 && v1 + counts["v2"] == CALLS, "{counts:?}");

    let calls = format!(
        "echo {TUNNELLED} | PROXYLESS_TUNNELS=1 {}; exec sleep 600",
        words(&["client", "who:9080"])?.join(" ")
    );
    let app = ["sh".to_owned(), "-c".to_owned(), calls];
    let mut tunneller = run(&mesh, "tunneller", &["tunneller"], &app, folder.path())?;
    let log = tunneller.log_file().to_owned();
    tunneller.wait_for("all calls to be answered by one of them", || {
        let said = std::fs::read_to_string(&log)?;
        let all = ["v1", "v2"].map(|version| format!("{{\"{version}\": {TUNNELLED}}}"));
        Ok(all.iter().any(|line| said.contains(line.as_str())).then_some(()))
    })
}
