//! A service as routing sees it: a host name, its ports and how its instances are found.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub use resources::kinds::core::service::TargetPort;
pub use resources::terms::port::Protocol;

use super::export::ExportTo;

/// A full host name, shared by every index that is keyed by it.
pub type Host = Arc<str>;

/// A service of the mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// `reviews.default.svc.cluster.local`.
    pub host: Host,
    /// The object's name, which metrics report as `destination_service_name`.
    pub name: String,
    /// The object's namespace.
    pub namespace: Arc<str>,
    /// The ports that clients call, in the object's order.
    pub ports: Vec<ServicePort>,
    /// How instances are found.
    pub resolution: Resolution,
    /// Labels that select the instances in the same namespace; empty selects none.
    pub selector: BTreeMap<String, String>,
    /// Virtual addresses, by which clients may call it too.
    pub addresses: Vec<IpAddr>,
    /// Who may see it.
    pub export_to: ExportTo,
    /// Whether instances that are not ready get requests.
    pub publish_not_ready: bool,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// The port's name; may be empty when it is the only one.
    pub name: String,
    /// What clients call.
    pub number: u16,
    /// What instances listen on.
    pub target: TargetPort,
    /// What is spoken.
    pub protocol: Protocol,
}

/// How the instances of a service are found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The control plane lists them (EDS).
    Endpoints,
    /// The proxy resolves this name (`ExternalName`).
    Dns(String),
}

impl ServicePort {
    /// Whether requests to it are routed by virtual hosts: HTTP, or not declared.
    pub fn may_be_http(&self) -> bool {
        self.protocol.is_http() || self.protocol == Protocol::Unspecified
    }

    /// Whether its instances are spoken to in HTTP/2.
    pub fn is_http2(&self) -> bool {
        matches!(self.protocol, Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
    }
}

impl Service {
    /// The port that clients call by this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.number == number)
    }

    /// Whether its selector picks something with these labels. An empty selector picks nothing.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.selector.is_empty()
            && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}
