//! A node's word about itself, taken apart: what it is for, where it listens, what it can load.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api::envoy::config::core::v3::Node;
use api::google::protobuf::{Struct, Value, value::Kind};

use crate::model::instance::Locality;
use crate::networking::filters::extension_type_urls;
use crate::proxy::{Capabilities, Peer, Proxy, ProxyKind, Upstream};

/// The port of a sidecar's outbound HTTP proxy where the node names none.
pub const DEFAULT_HTTP_PROXY_PORT: u16 = 15007;
/// The node's word that it takes virtual hosts as resources of their own, all of them at once.
pub const EAGER_VHDS_FEATURE: &str = "outrigger.eager_vhds";
/// The node's word that `auto_config` towards mesh peers is what it wants where nobody says which HTTP to speak. Envoy
/// could do the same, but is sent what Istio sends it.
pub const HTTP2_BY_AGREEMENT_FEATURE: &str = "outrigger.http2_by_agreement";
/// What a node can do that is no extension.
const FEATURES: [(Capabilities, &str); 2] = [
    (Capabilities::EAGER_VHDS, EAGER_VHDS_FEATURE),
    (Capabilities::HTTP2_BY_AGREEMENT, HTTP2_BY_AGREEMENT_FEATURE),
];

/// Why a node is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// The first request of a stream has no node.
    #[error("the first request must have a node")]
    Missing,
    /// The id has another form.
    #[error("node id {0:?}: must be type~address~name.namespace~domain")]
    Id(String),
    /// Such proxies are not served yet.
    #[error("node type {0:?} is not supported: must be sidecar or router")]
    Type(String),
    /// Traffic capture is not served yet.
    #[error("metadata INTERCEPTION_MODE {0:?} is not supported: must be NONE")]
    Interception(String),
    /// A metadata field has another form.
    #[error("metadata {field}: {problem}")]
    Metadata {
        /// The field.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The namespace that the node claims is not its credential's.
    #[error("the node says it is in namespace {claimed:?}, its credential is for {peer}")]
    Namespace {
        /// The node's word.
        claimed: String,
        /// The credential's.
        peer: Peer,
    },
}

/// Reads a node. `peer` is whom the credential names; `None` on the plaintext port, where the node's word must do and
/// nothing secret is served.
pub fn read(node: &Node, peer: Option<&Peer>) -> Result<Proxy, NodeError> {
    let bad_id = || NodeError::Id(node.id.clone());
    let mut parts = node.id.split('~');
    let (Some(kind), Some(address), Some(name), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(bad_id());
    };
    let metadata = Metadata(node.metadata.as_ref());
    let kind = match kind {
        "sidecar" if is_grpc(node, &metadata) => ProxyKind::Proxyless,
        "sidecar" => ProxyKind::Sidecar,
        "router" => ProxyKind::Router,
        other => return Err(NodeError::Type(other.to_owned())),
    };
    let (name, id_namespace) = name.rsplit_once('.').ok_or_else(bad_id)?;
    let claimed = metadata.text("NAMESPACE").unwrap_or(id_namespace);
    if let Some(peer) = peer
        && (claimed != peer.namespace || id_namespace != peer.namespace)
    {
        return Err(NodeError::Namespace { claimed: claimed.to_owned(), peer: peer.clone() });
    }
    let address: IpAddr = match metadata.list("INSTANCE_IPS").first() {
        Some(first) => {
            first.parse().map_err(|_| metadata_error("INSTANCE_IPS", "must be IP addresses"))?
        }
        None => address.parse().map_err(|_| bad_id())?,
    };
    check_interception(kind, &metadata)?;
    Ok(Proxy {
        id: node.id.clone(),
        kind,
        name: metadata.text("NAME").unwrap_or(name).to_owned(),
        namespace: claimed.into(),
        service_account: peer.map(|peer| peer.service_account.clone()).unwrap_or_default(),
        labels: Arc::new(metadata.map("LABELS")),
        address,
        locality: node.locality.as_ref().map(locality).unwrap_or_default(),
        network: metadata.text("NETWORK").unwrap_or_default().to_owned(),
        cluster_id: metadata.text("CLUSTER_ID").unwrap_or("Kubernetes").to_owned(),
        capabilities: capabilities(node),
        app_ports: app_ports(&metadata)?,
        upstreams: upstreams(&metadata)?,
        http_proxy_port: match metadata.text("OUTRIGGER_HTTP_PROXY_PORT") {
            None => DEFAULT_HTTP_PROXY_PORT,
            Some(port) => port
                .parse()
                .map_err(|_| metadata_error("OUTRIGGER_HTTP_PROXY_PORT", "must be a port"))?,
        },
        proxy_credential: metadata.text("OUTRIGGER_PROXY_CREDENTIAL").map(str::to_owned),
        gateway_address: match metadata.text("OUTRIGGER_GATEWAY_ADDRESS") {
            None => None,
            Some(ip) => Some(ip.parse().map_err(|_| {
                metadata_error("OUTRIGGER_GATEWAY_ADDRESS", "must be an IP address")
            })?),
        },
        auto_register_group: metadata.text("AUTO_REGISTER_GROUP").map(str::to_owned),
        version: metadata.text("ISTIO_VERSION").unwrap_or_default().to_owned(),
        is_registered: false,
    })
}

/// Istio's agent says so; the libraries name themselves (`gRPC C-core`, `gRPC Go`, `gRPC Java`).
fn is_grpc(node: &Node, metadata: &Metadata<'_>) -> bool {
    metadata.text("GENERATOR") == Some("grpc") || node.user_agent_name.starts_with("gRPC")
}

/// What a node's lists of features and extensions say.
fn capabilities(node: &Node) -> Capabilities {
    let mut all = Capabilities::default();
    for (capability, name) in FEATURES {
        if node.client_features.iter().any(|feature| feature == name) {
            all = all.with(capability);
        }
    }
    for (capability, type_url) in extension_type_urls() {
        // Envoy lists type names with or without the host that type URLs start with.
        let name = type_url.rsplit_once('/').map_or(type_url, |(_, name)| name);
        let listed = |url: &String| {
            url == type_url || url.rsplit_once('/').map_or(url.as_str(), |(_, n)| n) == name
        };
        if node.extensions.iter().any(|extension| extension.type_urls.iter().any(listed)) {
            all = all.with(capability);
        }
    }
    all
}

/// Traffic is captured by nothing yet: a sidecar must say so. Gateways and gRPC clients capture none by nature.
fn check_interception(kind: ProxyKind, metadata: &Metadata<'_>) -> Result<(), NodeError> {
    match (kind, metadata.text("INTERCEPTION_MODE")) {
        (ProxyKind::Router | ProxyKind::Proxyless, _) | (_, Some("NONE")) => Ok(()),
        (ProxyKind::Sidecar, mode) => {
            Err(NodeError::Interception(mode.unwrap_or("REDIRECT").to_owned()))
        }
    }
}

fn app_ports(metadata: &Metadata<'_>) -> Result<BTreeMap<u16, u16>, NodeError> {
    let written = metadata.map("OUTRIGGER_APP_PORTS");
    let bad = || metadata_error("OUTRIGGER_APP_PORTS", "must map ports to ports");
    written
        .iter()
        .map(|(port, app)| Ok((port.parse().map_err(|_| bad())?, app.parse().map_err(|_| bad())?)))
        .collect()
}

fn upstreams(metadata: &Metadata<'_>) -> Result<Vec<Upstream>, NodeError> {
    let bad = || metadata_error("OUTRIGGER_UPSTREAMS", "must be host:port");
    metadata
        .list("OUTRIGGER_UPSTREAMS")
        .iter()
        .map(|text| {
            let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
            Ok(Upstream { host: host.to_owned(), port: port.parse().map_err(|_| bad())? })
        })
        .collect()
}

fn metadata_error(field: &'static str, problem: &str) -> NodeError {
    NodeError::Metadata { field, problem: problem.to_owned() }
}

fn locality(locality: &api::envoy::config::core::v3::Locality) -> Locality {
    Locality {
        region: locality.region.clone(),
        zone: locality.zone.clone(),
        subzone: locality.sub_zone.clone(),
    }
}

/// Node metadata. Agents send maps and lists as such or, as Istio's do from environment variables, as JSON text.
struct Metadata<'a>(Option<&'a Struct>);

impl<'a> Metadata<'a> {
    fn field(&self, name: &str) -> Option<&'a Kind> {
        self.0?.fields.get(name)?.kind.as_ref()
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        match self.field(name)? {
            Kind::StringValue(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    fn map(&self, name: &str) -> BTreeMap<String, String> {
        match self.field(name) {
            Some(Kind::StructValue(map)) => map
                .fields
                .iter()
                .filter_map(|(key, value)| Some((key.clone(), plain_text(value)?)))
                .collect(),
            Some(Kind::StringValue(json)) => serde_json::from_str(json).unwrap_or_default(),
            _ => BTreeMap::new(),
        }
    }

    fn list(&self, name: &str) -> Vec<String> {
        match self.field(name) {
            Some(Kind::ListValue(list)) => list.values.iter().filter_map(plain_text).collect(),
            Some(Kind::StringValue(text)) => text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        }
    }
}

fn plain_text(value: &Value) -> Option<String> {
    match value.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()),
        Kind::NumberValue(number) => Some(number.to_string()),
        Kind::BoolValue(truth) => Some(truth.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networking::values::text_struct;

    fn node(id: &str, metadata: &[(&str, &str)]) -> Node {
        Node {
            id: id.to_owned(),
            metadata: Some(text_struct(metadata.iter().copied())),
            ..Default::default()
        }
    }

    const SIDECAR: &str = "sidecar~127.64.0.2~reviews-1.default~default.svc.cluster.local";

    #[test]
    fn a_sidecar_tells_its_ports_and_upstreams() {
        let node = node(
            SIDECAR,
            &[
                ("INTERCEPTION_MODE", "NONE"),
                ("OUTRIGGER_APP_PORTS", r#"{"9080":"41234"}"#),
                ("OUTRIGGER_UPSTREAMS", "mysqldb:3306, mongodb:27017"),
                ("LABELS", r#"{"app":"reviews"}"#),
            ],
        );
        let proxy = read(&node, None).expect("a node");
        assert_eq!(proxy.app_ports, BTreeMap::from([(9080, 41234)]));
        assert_eq!(proxy.upstreams[1], Upstream { host: "mongodb".into(), port: 27017 });
        assert_eq!(proxy.labels.get("app").map(String::as_str), Some("reviews"));
        assert_eq!((proxy.name.as_str(), &*proxy.namespace), ("reviews-1", "default"));
    }

    #[test]
    fn the_credential_wins_over_the_nodes_word() {
        let peer = Peer { namespace: "other".into(), service_account: "x".into() };
        let node = node(SIDECAR, &[("INTERCEPTION_MODE", "NONE")]);
        assert!(matches!(read(&node, Some(&peer)), Err(NodeError::Namespace { .. })));
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        let refused =
            |id: &str, metadata: &[(&str, &str)]| read(&node(id, metadata), None).expect_err(id);
        assert_eq!(refused(SIDECAR, &[]), NodeError::Interception("REDIRECT".into()));
        assert_eq!(refused("waypoint~1.1.1.1~a.b~c", &[]), NodeError::Type("waypoint".into()));
        assert_eq!(refused("nonsense", &[]), NodeError::Id("nonsense".into()));
        let bad_port = refused(
            SIDECAR,
            &[("INTERCEPTION_MODE", "NONE"), ("OUTRIGGER_APP_PORTS", r#"{"a":"b"}"#)],
        );
        assert!(bad_port.to_string().starts_with("metadata OUTRIGGER_APP_PORTS: "), "{bad_port}");
    }

    #[test]
    fn capabilities_come_from_the_extension_list() {
        use api::envoy::config::core::v3::Extension;
        let mut node = node(SIDECAR, &[("INTERCEPTION_MODE", "NONE")]);
        let bare = read(&node, None).expect("a node");
        assert_eq!(bare.capabilities, Capabilities::default());
        node.client_features.push(EAGER_VHDS_FEATURE.to_owned());
        node.extensions.push(Extension {
            type_urls: vec!["stats.PluginConfig".to_owned()],
            ..Default::default()
        });
        let able = read(&node, None).expect("a node").capabilities;
        assert!(able.contains(Capabilities::STATS.with(Capabilities::EAGER_VHDS)));
        assert!(!able.contains(Capabilities::ALPN));
    }
}
