//! The engine's bootstrap: who it is, where its admin listens, and that everything else comes over the agent's socket.
//!
//! It is Envoy's format, and the same for Outrigger's own engine and for Envoy itself. Names are Istio's.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::app_ports::{APP_PORTS_FIELD, AppPorts};

/// The cluster of the bootstrap that leads to discovery.
const XDS_CLUSTER: &str = "xds-grpc";
/// The cluster of the bootstrap that leads to secrets.
const SDS_CLUSTER: &str = "sds-grpc";

/// What kind of proxy an engine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Beside one application.
    Sidecar,
    /// A gateway.
    Gateway,
}

/// A workload as its proxy describes it to the control plane. None of it grants anything: that is the credential's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// What its proxy is.
    pub role: Role,
    /// The instance's name, as a pod's would be: `reviews-v1-0`.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// The workload it is an instance of: `reviews-v1`.
    pub workload_name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The address it listens on.
    pub address: IpAddr,
    /// The WorkloadGroup that it joins.
    pub group: Option<String>,
    /// Which port of the application serves which port of the workload.
    pub app_ports: AppPorts,
    /// Destinations that it calls by TCP on its own address, `host:port`.
    pub upstreams: Vec<String>,
    /// The port of its outbound HTTP proxy.
    pub http_proxy_port: u16,
    /// The htpasswd line that callers of the outbound HTTP proxy must satisfy.
    pub proxy_credential: Option<String>,
    /// What a gateway's listeners bind.
    pub gateway_address: Option<IpAddr>,
    /// The mesh.
    pub mesh: String,
}

impl Workload {
    /// `sidecar~127.64.0.2~reviews-v1-0.default~default.svc.cluster.local`.
    pub fn node_id(&self) -> String {
        let kind = match self.role {
            Role::Sidecar => "sidecar",
            Role::Gateway => "router",
        };
        let Workload { address, name, namespace, .. } = self;
        format!("{kind}~{address}~{name}.{namespace}~{namespace}.svc.cluster.local")
    }

    /// Node metadata under Istio's keys, and ours where Istio has none.
    fn metadata(&self) -> Value {
        let mut metadata = Map::new();
        let mut put = |key: &str, value: Value| {
            metadata.insert(key.to_owned(), value);
        };
        put("NAME", json!(self.name));
        put("NAMESPACE", json!(self.namespace));
        put("SERVICE_ACCOUNT", json!(self.service_account));
        put("WORKLOAD_NAME", json!(self.workload_name));
        put("LABELS", json!(self.labels));
        put("INSTANCE_IPS", json!(self.address.to_string()));
        put("INTERCEPTION_MODE", json!("NONE"));
        put("CLUSTER_ID", json!("Kubernetes"));
        put("MESH_ID", json!(self.mesh));
        put("ISTIO_VERSION", json!(env!("CARGO_PKG_VERSION")));
        if let Some(group) = &self.group {
            put("AUTO_REGISTER_GROUP", json!(group));
        }
        if self.role == Role::Sidecar {
            let ports: Map<String, Value> = self
                .app_ports
                .0
                .iter()
                .map(|(port, app)| (port.to_string(), json!(app.to_string())))
                .collect();
            put(APP_PORTS_FIELD, Value::Object(ports));
            put("OUTRIGGER_HTTP_PROXY_PORT", json!(self.http_proxy_port.to_string()));
        }
        if !self.upstreams.is_empty() {
            put("OUTRIGGER_UPSTREAMS", json!(self.upstreams));
        }
        if let Some(credential) = &self.proxy_credential {
            put("OUTRIGGER_PROXY_CREDENTIAL", json!(credential));
        }
        if let Some(address) = self.gateway_address {
            put("OUTRIGGER_GATEWAY_ADDRESS", json!(address.to_string()));
        }
        Value::Object(metadata)
    }
}

/// Renders the bootstrap of a workload's engine.
pub fn render(workload: &Workload, admin: SocketAddr, socket: &Path) -> Value {
    let canonical = |label: &str| {
        workload.labels.get(label).map_or(workload.workload_name.as_str(), String::as_str)
    };
    json!({
        "node": {
            "id": workload.node_id(),
            "cluster": format!("{}.{}", canonical("app"), workload.namespace),
            "metadata": workload.metadata(),
        },
        "admin": { "address": socket_address(admin) },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": XDS_CLUSTER } }],
            },
            "cds_config": from_ads(),
            "lds_config": from_ads(),
        },
        "static_resources": {
            "clusters": [agent_cluster(XDS_CLUSTER, socket), agent_cluster(SDS_CLUSTER, socket)],
        },
    })
}

/// The first word of the control plane is waited for, however long it takes.
fn from_ads() -> Value {
    json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" })
}

fn agent_cluster(name: &str, socket: &Path) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": { "pipe": { "path": socket } } } }] }],
        },
    })
}

fn socket_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

/// The longest path that a Unix socket can have on Linux, with the byte that ends it.
const MAX_SOCKET_PATH: usize = 107;

/// Whether the agent's socket can be in this directory.
pub fn socket_path_in(directory: &Path) -> Option<PathBuf> {
    let path = directory.join("agent.sock");
    (path.as_os_str().len() <= MAX_SOCKET_PATH).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload() -> Workload {
        Workload {
            role: Role::Sidecar,
            name: "reviews-v1-0".into(),
            namespace: "default".into(),
            service_account: "bookinfo-reviews".into(),
            workload_name: "reviews-v1".into(),
            labels: BTreeMap::from([("app".into(), "reviews".into())]),
            address: [127, 64, 0, 2].into(),
            group: Some("reviews-v1".into()),
            app_ports: AppPorts::all_on(&[9080], 41234),
            upstreams: vec!["mysqldb:3306".into()],
            http_proxy_port: 15007,
            proxy_credential: Some("app:{SHA}x".into()),
            gateway_address: None,
            mesh: "bookinfo".into(),
        }
    }

    #[test]
    fn a_sidecar_introduces_itself_as_istios_do() {
        let bootstrap =
            render(&workload(), "127.64.0.2:15000".parse().unwrap(), Path::new("/run/agent.sock"));
        let node = &bootstrap["node"];
        assert_eq!(node["id"], "sidecar~127.64.0.2~reviews-v1-0.default~default.svc.cluster.local");
        assert_eq!(node["cluster"], "reviews.default");
        assert_eq!(node["metadata"]["INTERCEPTION_MODE"], "NONE");
        assert_eq!(node["metadata"]["AUTO_REGISTER_GROUP"], "reviews-v1");
        assert_eq!(node["metadata"]["OUTRIGGER_APP_PORTS"], json!({ "9080": "41234" }));
        assert_eq!(node["metadata"]["LABELS"]["app"], "reviews");
        let clusters = bootstrap["static_resources"]["clusters"].as_array().unwrap();
        let names: Vec<&str> =
            clusters.iter().filter_map(|cluster| cluster["name"].as_str()).collect();
        assert_eq!(names, ["xds-grpc", "sds-grpc"]);
        assert_eq!(bootstrap["admin"]["address"]["socket_address"]["address"], "127.64.0.2");
    }

    #[test]
    fn a_gateway_binds_what_it_is_told_and_has_no_application() {
        let gateway = Workload {
            role: Role::Gateway,
            gateway_address: Some([127, 0, 0, 1].into()),
            proxy_credential: None,
            ..workload()
        };
        let bootstrap =
            render(&gateway, "127.64.0.2:15000".parse().unwrap(), Path::new("/run/agent.sock"));
        assert!(bootstrap["node"]["id"].as_str().unwrap().starts_with("router~"));
        let metadata = &bootstrap["node"]["metadata"];
        assert_eq!(metadata["OUTRIGGER_GATEWAY_ADDRESS"], "127.0.0.1");
        assert!(metadata.get("OUTRIGGER_APP_PORTS").is_none());
        assert!(metadata.get("OUTRIGGER_PROXY_CREDENTIAL").is_none());
    }

    #[test]
    fn a_socket_path_that_linux_cannot_bind_is_not_offered() {
        assert!(socket_path_in(Path::new("/tmp/x")).is_some());
        assert!(socket_path_in(Path::new(&format!("/tmp/{}", "x".repeat(100)))).is_none());
    }
}
