//! gRPC clients that speak xDS themselves: grpcio's `xds:///` finds servers by our control plane, and keeps to a
//! VirtualService's weights without any proxy.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::mesh::Plan;
use e2e::wait::wait_until;
use e2e::{Process, binaries};
use tempfile::TempDir;

use crate::grpc::python::interpreter;
use crate::one_mesh_at_a_time;

/// Calls by which weights are judged.
const CALLS: u32 = 400;

/// The client and server in Python.
pub fn script(arguments: &[&str]) -> Result<Command> {
    let mut python = Command::new(interpreter().context("grpcio is not installed")?);
    python.arg(binaries::root().join("crates/e2e/python/proxyless.py")).args(arguments);
    python.env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(python)
}

/// A gRPC server that answers its name, with nothing of the mesh beside it.
fn server(name: &str, folder: &Path) -> Result<(Process, SocketAddr)> {
    let mut process = Process::start(name, script(&["server", name])?, folder)?;
    let log = process.log_file().to_owned();
    let address = process.wait_for("its address", || {
        let said = std::fs::read_to_string(&log)?;
        let line = said.lines().find_map(|line| line.strip_prefix("listening "));
        Ok(line.and_then(|address| address.trim().parse().ok()))
    })?;
    Ok((process, address))
}

/// A running client with one channel, which calls when it is told to.
pub struct Client {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    /// A client of `target`; one of xds:/// reads `bootstrap`.
    pub fn start(target: &str, bootstrap: Option<&Path>) -> Result<Self> {
        let mut command = script(&["client", target])?;
        command.envs(bootstrap.map(|file| ("GRPC_XDS_BOOTSTRAP", file)));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = process.stdin.take().context("no input")?;
        let output = BufReader::new(process.stdout.take().context("no output")?);
        Ok(Self { process, input, output })
    }

    /// Who answered so many calls.
    pub fn call(&mut self, count: u32) -> Result<BTreeMap<String, u32>> {
        writeln!(self.input, "{count}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let all: serde_json::Value = serde_json::from_str(&line).context("the client's answer")?;
        let all = all.as_object().context("no counts")?.iter();
        let counts = all.filter_map(|(who, n)| Some((who.clone(), n.as_u64()?.try_into().ok()?)));
        Ok(counts.collect())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn objects(v1: SocketAddr, v2: SocketAddr) -> String {
    let entry = |version: &str, address: SocketAddr| {
        format!(
            "---
{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: who-{version}, namespace: default}}, spec: {{address: {}, ports: {{grpc: {}}}, labels: {{app: who, version: {version}}}}}}}
",
            address.ip(),
            address.port()
        )
    };
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: who, namespace: default}}, spec: {{ports: [{{port: 9080, name: grpc}}], selector: {{app: who}}}}}}
---
{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: who, namespace: default}}, spec: {{host: who, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}}}
---
{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: who, namespace: default}}, spec: {{hosts: [who], http: [{{route: [{{destination: {{host: who, subset: v1}}, weight: 75}}, {{destination: {{host: who, subset: v2}}, weight: 25}}]}}]}}}}
{}{}",
        entry("v1", v1),
        entry("v2", v2)
    )
}

#[test]
fn grpcio_keeps_to_weights_without_a_proxy() -> Result<()> {
    if interpreter().is_none() {
        binaries::skip("grpcio_keeps_to_weights_without_a_proxy", "grpcio");
        return Ok(());
    }
    let _alone = one_mesh_at_a_time();
    let folder = TempDir::new()?;
    let (_v1, v1) = server("v1", folder.path())?;
    let (_v2, v2) = server("v2", folder.path())?;
    let plan = Plan::empty()?;
    plan.write("who.yaml", &objects(v1, v2))?;
    let xds = SocketAddr::from((plan.address(), 15010));
    let bootstrap = folder.path().join("bootstrap.json");
    let text = serde_json::json!({
        "xds_servers": [{
            "server_uri": xds.to_string(),
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": {"id": "sidecar~127.0.0.1~caller.default~default.svc.cluster.local"},
    });
    std::fs::write(&bootstrap, text.to_string())?;
    let plan = plan.argument("--no-gateway").argument("--plaintext-xds").argument(&xds.to_string());
    let mesh = plan.start()?;

    let targets = ["who.default.svc.cluster.local:9080", "who:9080"];
    for target in targets {
        let mut client = Client::start(&format!("xds:///{target}"), Some(&bootstrap))?;
        let counts = client.call(CALLS)?;
        // Four standard deviations of 400 draws at 3/4.
        let v1 = counts.get("v1").copied().unwrap_or_default();
        ensure!(v1.abs_diff(300) <= 35, "{target}: {counts:?}");
        ensure!(counts.values().sum::<u32>() == v1 + counts["v2"], "{target}: {counts:?}");
    }

    let mut client = Client::start("xds:///who:9080", Some(&bootstrap))?;
    ensure!(client.call(40)?.len() == 2, "both answer");
    mesh.edit("who.yaml", "weight: 75", "weight: 0")?;
    wait_until("an edited weight to reach a client that runs", || {
        let counts = client.call(20)?;
        ensure!(counts.keys().all(|who| who == "v1" || who == "v2"), "{counts:?}");
        Ok((counts.get("v2") == Some(&20)).then_some(()))
    })
}
