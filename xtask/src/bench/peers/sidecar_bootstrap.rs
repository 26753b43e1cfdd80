//! The bootstrap of a sidecar: what the control plane sends one, as `crates/pilot/examples/sidecars.rs` prints it, with what only a
//! mesh could deliver put in its place: routes and endpoints, certificates from files, this machine's addresses.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::envoy_bootstrap::{address, certificate};
use super::{Hop, Role};
use crate::workspace::output;

/// What sidecars are sent, by variant.
pub struct Sent(Value);

/// Which sidecars, and what their mesh says of HTTP/2 between them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Outrigger's, where nobody says anything.
    Outrigger,
    /// Outrigger's, with `h2UpgradePolicy: DO_NOT_UPGRADE`.
    OutriggerHttp1,
    /// Envoy's, where nobody says anything.
    Envoy,
    /// Envoy's, with `h2UpgradePolicy: UPGRADE`.
    EnvoyHttp2,
}

impl Sent {
    /// Asks the control plane, by the program that was built beside Outrigger.
    pub fn ask(root: &Path) -> Result<Self> {
        let program = root.join("target/release/examples/sidecars");
        let printed = output(&mut Command::new(&program)).with_context(|| {
            let build = "cargo build --release -p outrigger -p pilot --bins --example sidecars";
            format!("{}, which is made by: {build}", program.display())
        })?;
        serde_json::from_str(&printed).map(Self).context("what sidecars are sent")
    }

    fn of(&self, variant: Variant, role: Role) -> &Value {
        let name = match variant {
            Variant::Outrigger => "outrigger",
            Variant::OutriggerHttp1 => "outrigger-http1",
            Variant::Envoy => "envoy",
            Variant::EnvoyHttp2 => "envoy-h2",
        };
        &self.0[name][if role == Role::First { "first" } else { "second" }]
    }
}

/// The bootstrap as JSON, which is YAML too.
pub fn render(hop: &Hop<'_>, sent: &Sent, variant: Variant) -> Result<String> {
    let sent = sent.of(variant, hop.role);
    let bootstrap = json!({
        "node": node(hop),
        "static_resources": {
            "listeners": [listener(hop, sent).context("the listener")?],
            "clusters": [cluster(hop, sent).context("the cluster")?],
        },
    });
    Ok(format!("{bootstrap:#}\n"))
}

/// Who the sidecar is, for its metrics.
fn node(hop: &Hop<'_>) -> Value {
    let name = if hop.role == Role::First { "client" } else { "server" };
    json!({
        "id": format!("sidecar~127.0.0.1~{name}-v1.default~default.svc.cluster.local"),
        "cluster": format!("{name}.default"),
        "metadata": {
            "NAME": format!("{name}-v1"),
            "NAMESPACE": "default",
            "WORKLOAD_NAME": format!("{name}-v1"),
            "SERVICE_ACCOUNT": "bench",
            "CLUSTER_ID": "Kubernetes",
            "MESH_ID": "cluster.local",
            "LABELS": { "app": name, "version": "v1" },
        },
    })
}

fn listener(hop: &Hop<'_>, sent: &Value) -> Result<Value> {
    let mut listener = untyped(&sent["listener"])?;
    listener["address"] = address(hop.listen);
    let file = hop.setting.folder.join(format!("access-{}.log", hop.listen.port()));
    log_to(&mut listener, &file);
    for chain in listener["filter_chains"].as_array_mut().context("filter chains")? {
        if let Some(socket) = chain.get_mut("transport_socket") {
            secure(hop, socket)?;
        }
        let manager = chain["filters"][0]["typed_config"].as_object_mut().context("a filter")?;
        if manager.remove("rds").is_some() {
            let hosts = sent["virtual_hosts"].as_array().context("virtual hosts")?;
            let hosts: Vec<Value> = hosts.iter().map(untyped).collect::<Result<_>>()?;
            let routes = json!({ "name": "routes", "virtual_hosts": hosts });
            manager.insert("route_config".to_owned(), routes);
        }
    }
    Ok(listener)
}

/// Every access log goes to a file, as a container's runtime has it.
fn log_to(value: &mut Value, file: &Path) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| log_to(value, file)),
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "path" && value == "/dev/stdout" {
                    *value = json!(file);
                } else {
                    log_to(value, file);
                }
            }
        }
        _ => {}
    }
}

fn cluster(hop: &Hop<'_>, sent: &Value) -> Result<Value> {
    let mut cluster = untyped(&sent["cluster"])?;
    let fields = cluster.as_object_mut().context("fields")?;
    if fields.remove("eds_cluster_config").is_some() {
        fields.insert("type".to_owned(), json!("STATIC"));
        fields.insert("load_assignment".to_owned(), untyped(&sent["endpoints"])?);
    }
    // As many endpoints as there are upstreams, each as the one that was sent.
    let endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        .as_array_mut()
        .context("endpoints")?;
    let one = endpoints.first().context("an endpoint")?.clone();
    *endpoints = hop.upstreams.iter().map(|_| one.clone()).collect();
    for (endpoint, upstream) in endpoints.iter_mut().zip(&hop.upstreams) {
        endpoint["endpoint"]["address"] = address(*upstream);
    }
    let matches = cluster.get_mut("transport_socket_matches").and_then(Value::as_array_mut);
    for found in matches.into_iter().flatten() {
        secure(hop, &mut found["transport_socket"])?;
    }
    Ok(cluster)
}

/// Certificates that an agent would hand over come from files.
fn secure(hop: &Hop<'_>, socket: &mut Value) -> Result<()> {
    let Some(common) = socket["typed_config"].get_mut("common_tls_context") else {
        return Ok(());
    };
    let common = common.as_object_mut().context("TLS")?;
    common.remove("tls_certificate_sds_secret_configs");
    common.insert("tls_certificates".to_owned(), json!([certificate(hop)]));
    let combined = common.remove("combined_validation_context").context("who is trusted")?;
    let mut validation = combined["default_validation_context"].clone();
    validation["trusted_ca"] = json!({ "filename": hop.setting.certificates.authority });
    common.insert("validation_context".to_owned(), validation);
    Ok(())
}

/// A resource where its type needs no saying.
fn untyped(resource: &Value) -> Result<Value> {
    let mut fields = resource.as_object().context("a resource")?.clone();
    fields.remove("@type");
    Ok(Value::Object(fields))
}
