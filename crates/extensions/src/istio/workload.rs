//! Who a peer's workload is, as Istio's metrics name it; and how proxies tell each other.

use std::rc::Rc;

use api::google::protobuf::{Struct, Value, value::Kind};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use identity::SpiffeId;
use prost::Message;
use proxy::snapshot::node::NodeInfo;
use proxy::stream_info::ConnectionInfo;
use serde_json::Value as Json;

/// A workload; what is not known is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Its name: a Deployment's, for example.
    pub name: Box<str>,
    /// Its namespace.
    pub namespace: Box<str>,
    /// `service.istio.io/canonical-name`.
    pub canonical_service: Box<str>,
    /// `service.istio.io/canonical-revision`.
    pub canonical_revision: Box<str>,
    /// The `app` label.
    pub app: Box<str>,
    /// The `version` label.
    pub version: Box<str>,
    /// Its cluster.
    pub cluster: Box<str>,
}

const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
/// The labels that are passed on.
const LABELS: [&str; 4] = ["app", "version", CANONICAL_NAME, CANONICAL_REVISION];

/// The longest peer header that is decoded, in bytes; Istio's own are a few hundred.
const MAX_HEADER: usize = 8 << 10;

impl Workload {
    /// This proxy's own, from its node's metadata.
    pub fn of_node(node: &NodeInfo) -> Self {
        let field = |name: &str| node.metadata.get(name).and_then(Json::as_str).unwrap_or_default();
        let labels = node.metadata.get("LABELS");
        let label = |name: &str| {
            labels.and_then(|labels| labels.get(name)).and_then(Json::as_str).unwrap_or_default()
        };
        Self::from_parts(&field, &label)
    }

    fn from_parts<'a>(field: &dyn Fn(&str) -> &'a str, label: &dyn Fn(&str) -> &'a str) -> Self {
        let first = |names: &[&'a str]| {
            names.iter().find(|name| !name.is_empty()).copied().unwrap_or_default().into()
        };
        let name = field("WORKLOAD_NAME");
        Self {
            name: name.into(),
            namespace: field("NAMESPACE").into(),
            canonical_service: first(&[
                label(CANONICAL_NAME),
                label("app.kubernetes.io/name"),
                label("app"),
                name,
            ]),
            canonical_revision: first(&[
                label(CANONICAL_REVISION),
                label("app.kubernetes.io/version"),
                label("version"),
            ]),
            app: label("app").into(),
            version: label("version").into(),
            cluster: field("CLUSTER_ID").into(),
        }
    }

    /// An endpoint's, from its metadata `istio.workload`: `name;namespace;canonical service;revision;cluster`.
    pub fn of_endpoint(metadata: &proxy::stream_info::Metadata) -> Option<Self> {
        let text = metadata.as_ref()?.get("istio")?.get("workload")?.as_str()?;
        let mut parts = text.split(';');
        let mut next = || -> Box<str> { parts.next().unwrap_or_default().into() };
        let (name, namespace, canonical_service, canonical_revision, cluster) =
            (next(), next(), next(), next(), next());
        Some(Self {
            name,
            namespace,
            canonical_service,
            canonical_revision,
            cluster,
            ..Self::default()
        })
    }

    /// Reads the header `x-envoy-peer-metadata`: a `Struct`, in base64. Answers the service account too, if it is there.
    fn of_header(header: &[u8]) -> Option<(Self, String)> {
        if header.len() > MAX_HEADER {
            return None;
        }
        let fields = Struct::decode(STANDARD.decode(header).ok()?.as_slice()).ok()?.fields;
        let text = |value: Option<&'_ Value>| match value.and_then(|value| value.kind.as_ref()) {
            Some(Kind::StringValue(text)) => text.clone(),
            _ => String::new(),
        };
        let labels = match fields.get("LABELS").and_then(|value| value.kind.as_ref()) {
            Some(Kind::StructValue(labels)) => Some(&labels.fields),
            _ => None,
        };
        // Owned first: the parts below borrow.
        let owned_fields =
            ["WORKLOAD_NAME", "NAMESPACE", "CLUSTER_ID"].map(|name| (name, text(fields.get(name))));
        let all_labels =
            [LABELS.as_slice(), &["app.kubernetes.io/name", "app.kubernetes.io/version"]].concat();
        let owned_labels: Vec<_> = all_labels
            .iter()
            .map(|name| (*name, text(labels.and_then(|labels| labels.get(*name)))))
            .collect();
        let field = |name: &str| find(&owned_fields, name);
        let label = |name: &str| find(&owned_labels, name);
        Some((Self::from_parts(&field, &label), text(fields.get("SERVICE_ACCOUNT"))))
    }
}

fn find<'a>(pairs: &'a [(&str, String)], name: &str) -> &'a str {
    pairs.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
}

/// The value of `x-envoy-peer-metadata` that this proxy sends: constant for its life.
pub fn header_of_node(node: &NodeInfo) -> String {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let copied = ["NAME", "NAMESPACE", "WORKLOAD_NAME", "CLUSTER_ID", "OWNER", "SERVICE_ACCOUNT"];
    let mut fields: std::collections::HashMap<_, _> = copied
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), text(node.metadata.get(*name)?.as_str()?))))
        .collect();
    let own = Workload::of_node(node);
    let values = [&own.app, &own.version, &own.canonical_service, &own.canonical_revision];
    let labels = LABELS.iter().zip(values).filter(|(_, value)| !value.is_empty());
    let labels =
        Struct { fields: labels.map(|(name, value)| ((*name).to_owned(), text(value))).collect() };
    fields.insert("LABELS".to_owned(), Value { kind: Some(Kind::StructValue(labels)) });
    STANDARD.encode(Struct { fields }.encode_to_vec())
}

/// What a connection's peer said of itself, decoded once: kept in the connection's state.
#[derive(Debug)]
pub struct Peer {
    header: Box<[u8]>,
    /// `None` when it could not be read or does not agree with the certificate.
    pub workload: Option<Rc<Workload>>,
}

impl Peer {
    /// The workload behind a connection that sent `header`: from the connection's state, where it is decoded and checked if
    /// the connection did not send the same before.
    pub fn of_connection(connection: &ConnectionInfo, header: &[u8]) -> Option<Rc<Workload>> {
        if let Some(peer) = connection.state.borrow().get::<Peer>()
            && *peer.header == *header
        {
            return peer.workload.clone();
        }
        let workload = trusted(connection, header).map(Rc::new);
        connection
            .state
            .borrow_mut()
            .set(Peer { header: header.into(), workload: workload.clone() });
        workload
    }
}

/// A header counts only as far as the peer's certificate bears it out: the same namespace, and the same service account
/// where the header names one.
fn trusted(connection: &ConnectionInfo, header: &[u8]) -> Option<Workload> {
    let tls = connection.tls.as_ref().filter(|tls| tls.peer_validated)?;
    let id = SpiffeId::parse(tls.peer.as_ref()?.uri_sans.first()?).ok()?;
    let (namespace, account) = id.service_account()?;
    let (workload, claimed) = Workload::of_header(header)?;
    let agrees = *workload.namespace == *namespace && (claimed.is_empty() || claimed == account);
    agrees.then_some(workload)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proxy::stream_info::{CertificateInfo, TlsInfo};
    use serde_json::json;

    use super::*;

    pub fn node() -> NodeInfo {
        let metadata = json!({
            "NAME": "reviews-v1-abc", "NAMESPACE": "bookinfo", "WORKLOAD_NAME": "reviews-v1", "CLUSTER_ID": "Kubernetes",
            "LABELS": {"app": "reviews", "version": "v1", "other": "x"},
        });
        NodeInfo {
            metadata: Arc::new(metadata.as_object().unwrap().clone()),
            ..NodeInfo::default()
        }
    }

    fn connection(san: Option<&str>, peer_validated: bool) -> ConnectionInfo {
        let peer = san.map(|san| CertificateInfo {
            uri_sans: vec![san.to_owned()],
            ..CertificateInfo::default()
        });
        let tls = TlsInfo { peer, peer_validated, ..TlsInfo::default() };
        ConnectionInfo { tls: Some(Arc::new(tls)), ..ConnectionInfo::default() }
    }

    #[test]
    fn a_header_is_believed_only_as_far_as_the_certificate_goes() {
        let header = header_of_node(&node());
        let table = [
            (Some("spiffe://cluster.local/ns/bookinfo/sa/reviews"), true, true),
            (Some("spiffe://cluster.local/ns/other/sa/reviews"), true, false),
            (Some("spiffe://cluster.local/ns/bookinfo/sa/reviews"), false, false),
            (Some("https://bookinfo"), true, false),
            (None, true, false),
        ];
        for (san, validated, believed) in table {
            let found = Peer::of_connection(&connection(san, validated), header.as_bytes());
            assert_eq!(found.is_some(), believed, "{san:?} {validated}");
        }
        assert!(
            Peer::of_connection(&ConnectionInfo::default(), header.as_bytes()).is_none(),
            "plaintext"
        );
    }

    #[test]
    fn a_claimed_service_account_must_be_the_certificates() {
        let mut node = node();
        let mut metadata = (*node.metadata).clone();
        metadata.insert("SERVICE_ACCOUNT".to_owned(), json!("admin"));
        node.metadata = Arc::new(metadata);
        let header = header_of_node(&node);
        let of = |account: &str| {
            let san = format!("spiffe://cluster.local/ns/bookinfo/sa/{account}");
            Peer::of_connection(&connection(Some(&san), true), header.as_bytes())
        };
        assert!(of("reviews").is_none());
        assert!(of("admin").is_some());
    }

    #[test]
    fn a_header_is_decoded_once_a_connection() {
        let connection = connection(Some("spiffe://cluster.local/ns/bookinfo/sa/reviews"), true);
        let header = header_of_node(&node());
        let first = Peer::of_connection(&connection, header.as_bytes()).unwrap();
        let second = Peer::of_connection(&connection, header.as_bytes()).unwrap();
        assert!(Rc::ptr_eq(&first, &second));
        assert!(Peer::of_connection(&connection, b"other").is_none());
        assert!(Peer::of_connection(&connection, &vec![b'A'; MAX_HEADER + 4]).is_none());
    }

    #[test]
    fn canonical_names_fall_back_as_in_istio() {
        let own = Workload::of_node(&node());
        assert_eq!((&*own.canonical_service, &*own.canonical_revision), ("reviews", "v1"));
        let (read, _) = Workload::of_header(header_of_node(&node()).as_bytes()).unwrap();
        assert_eq!(read, own);
    }

    #[test]
    fn an_endpoint_names_its_workload() {
        let metadata = json!({"istio": {"workload": "reviews-v2;bookinfo;reviews;v2;Kubernetes"}});
        let found =
            Workload::of_endpoint(&Some(Arc::new(metadata.as_object().unwrap().clone()))).unwrap();
        assert_eq!(*found.name, *"reviews-v2");
        assert_eq!((&*found.canonical_revision, &*found.cluster), ("v2", "Kubernetes"));
        assert!(Workload::of_endpoint(&None).is_none());
    }
}
