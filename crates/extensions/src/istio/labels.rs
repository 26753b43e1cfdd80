//! The labels of Istio's metrics, in Istio's order.

use std::borrow::Cow;

use proxy::listener::config::TrafficDirection;
use proxy::stream_info::{ConnectionInfo, LogRecord, ResponseFlags, StreamInfo};
use proxy::upstream::cluster::Cluster;

use super::workload::Workload;

const UNKNOWN: &str = "unknown";

/// Which side of a request a proxy reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reporter {
    /// The client's.
    Source,
    /// The server's.
    Destination,
}

impl Reporter {
    /// Inbound listeners report as the destination, all others as the source; a gateway may be told to report as the
    /// destination too.
    pub fn new(direction: TrafficDirection, server_gateway: bool) -> Self {
        if server_gateway || direction == TrafficDirection::Inbound {
            Reporter::Destination
        } else {
            Reporter::Source
        }
    }
}

/// What a request or connection came to, as far as labels go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP with its status.
    Http(u16),
    /// gRPC with the HTTP status and its own.
    Grpc(u16, u64),
    /// A TCP connection.
    Tcp,
}

/// Everything that labels are made of.
#[derive(Debug)]
pub struct Facts<'a> {
    /// Which side reports.
    pub reporter: Reporter,
    /// This proxy's workload.
    pub own: &'a Workload,
    /// The other side's, if it is known.
    pub peer: Option<&'a Workload>,
    /// The principals of source and destination, empty when unknown.
    pub principals: (&'a str, &'a str),
    /// The cluster chosen.
    pub cluster: Option<&'a Cluster>,
    /// The request's authority, as the destination when the cluster does not name a service.
    pub authority: Option<&'a str>,
    /// The route that was taken, by name.
    pub route: Option<&'a str>,
    /// What it came to.
    pub protocol: Protocol,
    /// What went wrong.
    pub flags: ResponseFlags,
    /// The client came with a certificate.
    pub mutual_tls: bool,
}

/// The names, in the order of emission; TCP has neither response code nor gRPC status.
pub const NAMES: [&str; 25] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_service",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service_name",
    "destination_service_namespace",
    "destination_cluster",
    "request_protocol",
    "response_code",
    "grpc_response_status",
    "response_flags",
    "connection_security_policy",
];

/// The principals of a stream: source's and destination's.
pub fn principals(info: &StreamInfo, reporter: Reporter) -> (&str, &str) {
    fn peer(connection: Option<&ConnectionInfo>) -> &str {
        let tls = connection.and_then(|connection| connection.tls.as_ref());
        tls.and_then(|tls| tls.peer.as_ref()?.uri_sans.first()).map_or("", String::as_str)
    }
    fn local(connection: Option<&ConnectionInfo>) -> &str {
        let tls = connection.and_then(|connection| connection.tls.as_ref());
        tls.and_then(|tls| tls.local.as_ref()?.uri_sans.first()).map_or("", String::as_str)
    }
    match reporter {
        Reporter::Source => {
            let upstream = info.upstream_connection.as_deref();
            (local(upstream), peer(upstream))
        }
        Reporter::Destination => {
            let downstream = info.connection.as_deref();
            (peer(downstream), local(downstream))
        }
    }
}

/// The destination service: host, name and namespace.
struct Service<'a> {
    host: &'a str,
    name: &'a str,
    namespace: &'a str,
}

/// The route of requests to hosts that nobody knows, and the service that they count for.
const UNKNOWN_HOST: (&str, &str) = ("block_all", "BlackHoleCluster");

/// Clusters that stand for no service; their name is the service's.
const PASSTHROUGH: [&str; 5] = [
    "PassthroughCluster",
    "BlackHoleCluster",
    "InboundPassthroughCluster",
    "InboundPassthroughClusterIpv4",
    "InboundPassthroughClusterIpv6",
];

impl<'a> Facts<'a> {
    fn service(&self, destination: Option<&'a Workload>) -> Service<'a> {
        let metadata = self.cluster.and_then(|cluster| cluster.config.metadata.as_ref());
        let listed = metadata.and_then(|map| map.get("istio")?.get("services")?.get(0));
        let field =
            |name: &str| listed.and_then(|service| service.get(name)?.as_str()).unwrap_or_default();
        let mut service =
            Service { host: field("host"), name: field("name"), namespace: field("namespace") };
        if service.host.is_empty() {
            service.host = self.authority.unwrap_or_default();
        }
        if self.route == Some(UNKNOWN_HOST.0) {
            service.name = UNKNOWN_HOST.1;
        } else if let Some(cluster) =
            self.cluster.filter(|cluster| PASSTHROUGH.contains(&&*cluster.config.name))
        {
            service.name = &cluster.config.name;
        } else if service.name.is_empty() {
            service.name = service.host;
        }
        if service.namespace.is_empty() {
            service.namespace = destination.map_or("", |workload| &workload.namespace);
        }
        service
    }

    /// The values, in the order of [`NAMES`]; `None` leaves a label out.
    pub fn values(&self) -> [Option<Cow<'a, str>>; NAMES.len()] {
        let (source, destination) = match self.reporter {
            Reporter::Source => (Some(self.own), self.peer),
            Reporter::Destination => (self.peer, Some(self.own)),
        };
        let service = self.service(destination);
        // The other side's certificate says its namespace, whatever else is known of it.
        let namespace = |workload: Option<&'a Workload>, principal: &'a str| {
            let certified = namespace_of(principal)
                .filter(|_| !workload.is_some_and(|it| std::ptr::eq(it, self.own)));
            certified.or(workload.map(|it| &*it.namespace)).unwrap_or_default()
        };
        let text =
            |text: &'a str| Some(Cow::Borrowed(if text.is_empty() { UNKNOWN } else { text }));
        let of = |workload: Option<&'a Workload>, field: fn(&Workload) -> &str| {
            text(workload.map_or("", field))
        };
        let revision = |workload: Option<&'a Workload>| match workload
            .map_or("", |it| &it.canonical_revision)
        {
            "" => Some(Cow::Borrowed("latest")),
            revision => Some(Cow::Borrowed(revision)),
        };
        let (protocol, code, grpc) = self.protocol_values();
        [
            text(if self.reporter == Reporter::Source { "source" } else { "destination" }),
            of(source, |it| &it.name),
            of(source, |it| &it.canonical_service),
            revision(source),
            text(namespace(source, self.principals.0)),
            text(self.principals.0),
            of(source, |it| &it.app),
            of(source, |it| &it.version),
            of(source, |it| &it.cluster),
            of(destination, |it| &it.name),
            text(namespace(destination, self.principals.1)),
            text(self.principals.1),
            of(destination, |it| &it.app),
            of(destination, |it| &it.version),
            text(service.host),
            of(destination, |it| &it.canonical_service),
            revision(destination),
            text(service.name),
            text(service.namespace),
            of(destination, |it| &it.cluster),
            text(protocol),
            code.map(Cow::Owned),
            grpc.map(Cow::Owned),
            Some(Cow::Owned(self.flags.to_string())),
            text(self.security_policy()),
        ]
    }

    fn protocol_values(&self) -> (&'static str, Option<String>, Option<String>) {
        match self.protocol {
            Protocol::Http(code) => ("http", Some(code.to_string()), Some(String::new())),
            Protocol::Grpc(code, status) => {
                ("grpc", Some(code.to_string()), Some(status.to_string()))
            }
            Protocol::Tcp => ("tcp", None, None),
        }
    }

    fn security_policy(&self) -> &'static str {
        match (self.reporter, self.mutual_tls) {
            (Reporter::Source, _) => UNKNOWN,
            (Reporter::Destination, true) => "mutual_tls",
            (Reporter::Destination, false) => "none",
        }
    }
}

/// The namespace in `spiffe://domain/ns/namespace/sa/account`.
fn namespace_of(principal: &str) -> Option<&str> {
    let mut path = principal.strip_prefix("spiffe://")?.split('/').skip(1);
    path.find(|segment| *segment == "ns")?;
    path.next().filter(|namespace| !namespace.is_empty())
}

/// Whether the client came with a certificate that was verified.
pub fn is_mutual_tls(info: &StreamInfo) -> bool {
    let tls = info.connection.as_ref().and_then(|connection| connection.tls.as_ref());
    tls.is_some_and(|tls| tls.peer.is_some() && tls.peer_validated)
}

/// HTTP or gRPC, and what it came to.
pub fn protocol_of(record: &LogRecord<'_>) -> Protocol {
    let code = record.info.response_code;
    match proxy::access_log::grpc_status(record) {
        Some(status) => Protocol::Grpc(code, status),
        None => Protocol::Http(code),
    }
}
