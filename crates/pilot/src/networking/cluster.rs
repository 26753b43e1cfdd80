//! Clusters: one for each port and subset of a service, and one for each port of the application.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::envoy::config::cluster::v3::{
    CircuitBreakers, Cluster,
    cluster::{
        ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy,
        TransportSocketMatch,
    },
};
use api::envoy::config::core::v3::{Address, Metadata, TransportSocket};
use api::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use api::google::protobuf::{ListValue, Struct, Value, value::Kind};
use resources::terms::traffic_policy::{
    ClientTls as WrittenTls, ClientTlsMode, H2Upgrade, PolicySettings,
};

use super::encoding::pack;
use super::tls::{self, ClientTls, Files};
use super::traffic_policy;
use super::upstream_protocol::{self, HTTP_OPTIONS, HttpVersion, Site};
use super::values::{duration, pipe_address, socket_address, text_struct, text_value};
use crate::model::authentication::MtlsMode;
use crate::model::destination_rule::DestinationRules;
use crate::model::instance::Identities;
use crate::model::interned::Interned;
use crate::model::mesh::MeshConfig;
use crate::model::service::{Protocol, Resolution, Service, ServicePort};
use crate::naming;

/// What an outbound cluster depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterKey {
    /// The service.
    pub service: Interned<Service>,
    /// One of its ports.
    pub port: u16,
    /// One of its subsets, or all of it.
    pub subset: Option<Arc<str>>,
    /// How clients treat it.
    pub rules: Option<Interned<DestinationRules>>,
    /// Who answers.
    pub identities: Interned<Identities>,
    /// What its namespace demands of clients.
    pub server_mode: MtlsMode,
    /// Whether the node picks ALPN by request (`istio.alpn`).
    pub alpn_by_request: bool,
    /// Whether the node finds out what a port speaks that does not say.
    pub detects: bool,
    /// Whether the node is a gateway, which is given Secrets.
    pub is_gateway: bool,
    /// Whether the node learns from a handshake which HTTP is spoken (`outrigger.http2_by_agreement`).
    pub agrees: bool,
    /// The mesh's settings.
    pub mesh: Interned<MeshConfig>,
}

impl ClusterKey {
    /// The cluster's name.
    pub fn name(&self) -> String {
        naming::outbound_cluster(
            self.port,
            self.subset.as_deref().unwrap_or_default(),
            &self.service.host,
        )
    }

    fn version(&self, settings: &PolicySettings, port: &ServicePort) -> HttpVersion {
        let site = Site {
            mesh_upgrade: self.mesh.h2_upgrade,
            detects: self.detects,
            can_agree: self.agrees && self.is_mesh_tls(settings.tls.as_ref()),
        };
        upstream_protocol::version(settings.connection_pool.as_ref(), port, site)
    }

    /// Whether peers are spoken to in mesh TLS, all of them or those that can.
    fn is_mesh_tls(&self, written: Option<&WrittenTls>) -> bool {
        match written {
            Some(written) => written.mode == ClientTlsMode::IstioMutual,
            None => self.is_auto_mtls(),
        }
    }

    /// Whether peers that can speak mesh TLS get it where no rule says anything.
    fn is_auto_mtls(&self) -> bool {
        self.mesh.auto_mtls
            && self.server_mode != MtlsMode::Disable
            && self.service.resolution == Resolution::Endpoints
    }
}

/// The outbound cluster; `None` for a port that the service does not have.
pub fn outbound(key: &ClusterKey) -> Option<Cluster> {
    let service = &*key.service;
    let port = service.port(key.port)?;
    let name = key.name();
    let settings = traffic_policy::effective(key.rules.as_deref(), key.subset.as_deref(), key.port);
    let mut cluster =
        Cluster { name: name.clone(), metadata: Some(metadata(key)), ..Default::default() };
    match &service.resolution {
        Resolution::Endpoints => {
            cluster.cluster_discovery_type =
                Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32));
            cluster.eds_cluster_config =
                Some(EdsClusterConfig { eds_config: Some(tls::ads()), service_name: name.clone() });
        }
        Resolution::Dns(target) => {
            cluster.cluster_discovery_type =
                Some(ClusterDiscoveryType::Type(DiscoveryType::StrictDns as i32));
            cluster.dns_lookup_family = DnsLookupFamily::V4Only as i32;
            // The unified DNS cluster that replaces these fields is not in every Envoy that is served.
            #[allow(deprecated)]
            {
                cluster.respect_dns_ttl = true;
                cluster.dns_refresh_rate = Some(duration(key.mesh.dns_refresh_rate));
            }
            cluster.load_assignment = Some(one_endpoint(&name, socket_address(target, key.port)));
        }
    }
    let version = key.version(&settings, port);
    traffic_policy::apply(&mut cluster, &settings, version, &key.mesh);
    secure(&mut cluster, key, port, version, settings.tls.as_ref());
    Some(cluster)
}

/// What the application's cluster depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundClusterKey {
    /// The port that peers call.
    pub port: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// Where the application listens.
    pub application: Application,
    /// The service that peers mean, for telemetry.
    pub service: Option<Interned<Service>>,
    /// Time to connect.
    pub connect_timeout: Duration,
}

/// Where an application listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Application {
    /// An address and port.
    Address(SocketAddr),
    /// A Unix domain socket.
    Unix(String),
}

/// `inbound|8080||`: the application.
pub fn inbound(key: &InboundClusterKey) -> Cluster {
    let name = naming::inbound_cluster(key.port);
    let address = match &key.application {
        Application::Address(address) => socket_address(&address.ip().to_string(), address.port()),
        Application::Unix(path) => pipe_address(path),
    };
    let port = ServicePort {
        name: String::new(),
        number: key.port,
        target: crate::model::service::TargetPort::Number(key.port),
        protocol: key.protocol,
    };
    let mut cluster = Cluster {
        load_assignment: Some(one_endpoint(&name, address)),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        connect_timeout: Some(duration(key.connect_timeout)),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![traffic_policy::thresholds(None)],
            ..Default::default()
        }),
        lb_policy: LbPolicy::RoundRobin as i32,
        metadata: key
            .service
            .as_deref()
            .map(|service| istio_metadata([("services", services(service))])),
        name,
        ..Default::default()
    };
    // What clients are upgraded to ends here: an application is spoken to as its port says.
    let site = Site { mesh_upgrade: H2Upgrade::DoNotUpgrade, detects: true, can_agree: false };
    let version = upstream_protocol::version(None, &port, site);
    if let Some(options) = upstream_protocol::options(None, version) {
        let options = pack(&options);
        cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), options);
    }
    cluster
}

/// The cluster without endpoints.
pub fn black_hole() -> Cluster {
    Cluster {
        name: naming::BLACK_HOLE_CLUSTER.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32)),
        connect_timeout: Some(duration(Duration::from_secs(10))),
        ..Default::default()
    }
}

/// A load assignment of one endpoint.
pub fn one_endpoint(cluster: &str, address: Address) -> ClusterLoadAssignment {
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address),
            ..Default::default()
        })),
        ..Default::default()
    };
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
        ..Default::default()
    }
}

/// The rule's TLS wins. Without one, peers that can speak mesh TLS (their endpoint metadata says so) get it.
fn secure(
    cluster: &mut Cluster,
    key: &ClusterKey,
    port: &ServicePort,
    version: HttpVersion,
    written: Option<&WrittenTls>,
) {
    let subset = key.subset.as_deref().unwrap_or_default();
    let sni = naming::outbound_sni(key.port, subset, &key.service.host);
    match written {
        Some(written) => {
            cluster.transport_socket = written_socket(key, port, version, written, &sni)
        }
        None if key.is_auto_mtls() => {
            cluster.transport_socket_matches = vec![
                TransportSocketMatch {
                    name: "tlsMode-istio".to_owned(),
                    r#match: Some(text_struct([("tlsMode", "istio")])),
                    transport_socket: Some(tls::mesh_client(
                        &sni,
                        alpn(key, port, version),
                        &sans(key),
                    )),
                },
                TransportSocketMatch {
                    name: "tlsMode-disabled".to_owned(),
                    r#match: Some(Struct::default()),
                    transport_socket: Some(tls::raw_buffer()),
                },
            ];
        }
        None => {}
    }
}

fn written_socket(
    key: &ClusterKey,
    port: &ServicePort,
    version: HttpVersion,
    written: &WrittenTls,
    sni: &str,
) -> Option<TransportSocket> {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let own_sni = written.sni.as_deref().filter(|sni| !sni.is_empty());
    let (certificate, private_key) =
        (text(&written.client_certificate), text(&written.private_key));
    let ca = text(&written.ca_certificates);
    let credential = written.credential_name.as_deref().filter(|name| !name.is_empty());
    let credential = credential.map(|name| format!("kubernetes://{name}"));
    // What is asked for, and checked, where the rule says neither: an outside service by the name that is called.
    let own_name = [match &key.service.resolution {
        Resolution::Endpoints => key.service.host.to_string(),
        Resolution::Dns(target) => target.clone(),
    }];
    match written.mode {
        ClientTlsMode::Disable => None,
        ClientTlsMode::IstioMutual => {
            let sans = if written.subject_alt_names.is_empty() {
                sans(key)
            } else {
                written.subject_alt_names.clone()
            };
            Some(tls::mesh_client(own_sni.unwrap_or(sni), alpn(key, port, version), &sans))
        }
        // Secrets are for gateways only: a sidecar calls in plaintext, as Istio's does, and the rule's status says so.
        _ if credential.is_some() && !key.is_gateway => None,
        ClientTlsMode::Simple | ClientTlsMode::Mutual => Some(tls::client(&ClientTls {
            sni: own_sni.unwrap_or(&own_name[0]),
            subject_alt_names: if own_sni.is_none() && written.subject_alt_names.is_empty() {
                &own_name
            } else {
                &written.subject_alt_names
            },
            verify: written.insecure_skip_verify != Some(true),
            alpn: if version == HttpVersion::Http2 { &["h2"] } else { &[] },
            credential: credential.as_deref(),
            present_certificate: written.mode == ClientTlsMode::Mutual,
            files: Files {
                certificate: &certificate,
                private_key: &private_key,
                ca: if ca.is_empty() { tls::SYSTEM_ROOTS } else { &ca },
            },
        })),
    }
}

/// Who may answer.
pub fn sans(key: &ClusterKey) -> Vec<String> {
    let domains = key.mesh.trust_domains();
    let accounts = &key.identities.service_accounts;
    accounts
        .iter()
        .flat_map(|(namespace, account)| {
            domains.iter().map(move |d| naming::spiffe_id(d, namespace, account))
        })
        .collect()
}

/// What is offered to mesh peers, so that they know before they read what they will get. Istio offers
/// `istio-peer-exchange` too, which announces a metadata preamble on TCP that nothing here sends.
fn alpn(key: &ClusterKey, port: &ServicePort, version: HttpVersion) -> &'static [&'static str] {
    let http2 = version == HttpVersion::Http2;
    match key.alpn_by_request {
        true if http2 => &["istio", "h2"],
        // The filter offers what may be agreed on to requests; what is tunnelled goes without a promise.
        true => &["istio"],
        false if version == HttpVersion::Agreed => {
            &["istio-h2", "istio-http/1.1", "istio", "h2", "http/1.1"]
        }
        false if http2 => &["istio-h2", "istio", "h2"],
        false if port.protocol.is_http() => &["istio-http/1.1", "istio", "http/1.1"],
        false => &["istio"],
    }
}

fn metadata(key: &ClusterKey) -> Metadata {
    let mut fields = vec![
        ("services", services(&key.service)),
        ("default_original_port", Value { kind: Some(Kind::NumberValue(f64::from(key.port))) }),
    ];
    if let Some((rule, _)) = key.rules.as_ref().and_then(|rules| rules.sources.first()) {
        let path = naming::config_path("destination-rule", &rule.namespace, &rule.name);
        fields.push(("config", text_value(&path)));
    }
    if let Some(subset) = &key.subset {
        fields.push(("subset", text_value(subset)));
    }
    istio_metadata(fields)
}

fn services(service: &Service) -> Value {
    let one = text_struct([
        ("host", &*service.host),
        ("name", service.name.as_str()),
        ("namespace", &*service.namespace),
    ]);
    Value {
        kind: Some(Kind::ListValue(ListValue {
            values: vec![Value { kind: Some(Kind::StructValue(one)) }],
        })),
    }
}

fn istio_metadata<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Metadata {
    let fields: HashMap<String, Value> =
        fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Metadata {
        filter_metadata: [("istio".to_owned(), Struct { fields })].into(),
        ..Default::default()
    }
}
