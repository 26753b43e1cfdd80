//! Transport sockets: mesh TLS with certificates from the agent, and gateway TLS with credentials from the control plane.

use api::envoy::config::core::v3::{
    AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, GrpcService,
    TransportSocket, api_config_source::ApiType, config_source::ConfigSourceSpecifier,
    grpc_service, transport_socket,
};
use api::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use api::envoy::extensions::transport_sockets::tls::v3::{
    CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext,
    DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher, TlsParameters,
    UpstreamTlsContext, common_tls_context, subject_alt_name_matcher::SanType,
    tls_parameters::TlsProtocol,
};
use api::envoy::r#type::matcher::v3::StringMatcher;
use prost::{Message, Name};

use super::encoding::pack;
use super::values::{boolean, duration, exact, string_matcher};
use crate::naming::{SDS_DEFAULT_CERTIFICATE, SDS_ROOT};

/// The static cluster of the bootstrap by which a proxy asks its agent for its certificate.
pub const SDS_CLUSTER: &str = "sds-grpc";
/// What a gRPC client's bootstrap calls the provider of its certificates.
const CERTIFICATE_PROVIDER: &str = "default";
const TLS_SOCKET: &str = "envoy.transport_sockets.tls";
const RAW_SOCKET: &str = "envoy.transport_sockets.raw_buffer";

/// The cipher suites of mesh TLS 1.2; TLS 1.3 has its own.
const MESH_CIPHERS: [&str; 4] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
];

/// What stands for the roots of the proxy's machine among files of roots.
pub const SYSTEM_ROOTS: &str = "system";

/// Plaintext.
pub fn raw_buffer() -> TransportSocket {
    socket(RAW_SOCKET, &RawBuffer::default())
}

/// The server side of mesh TLS: this workload's certificate; a client certificate that the mesh's roots sign.
pub fn mesh_server(alpn: &[&str], trust_domains: &[String]) -> TransportSocket {
    let prefixes = trust_domains.iter().map(|domain| {
        string_matcher(api::envoy::r#type::matcher::v3::string_matcher::MatchPattern::Prefix(
            format!("spiffe://{domain}/"),
        ))
    });
    let tls = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(TlsParameters {
                cipher_suites: MESH_CIPHERS.map(str::to_owned).to_vec(),
                ..minimum_version(TlsProtocol::TlSv12)
            }),
            alpn_protocols: alpn.iter().map(|p| (*p).to_owned()).collect(),
            tls_certificate_sds_secret_configs: vec![agent_secret(SDS_DEFAULT_CERTIFICATE)],
            validation_context_type: Some(combined_validation(
                agent_secret(SDS_ROOT),
                prefixes.collect(),
                SanType::Uri,
            )),
            ..Default::default()
        }),
        require_client_certificate: boolean(true),
        ..Default::default()
    };
    socket(TLS_SOCKET, &tls)
}

/// The client side of mesh TLS: any of `sans` may answer; none means whoever the mesh's roots sign.
pub fn mesh_client(sni: &str, alpn: &[&str], sans: &[String]) -> TransportSocket {
    let tls = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(minimum_version(TlsProtocol::TlSv12)),
            alpn_protocols: alpn.iter().map(|p| (*p).to_owned()).collect(),
            tls_certificate_sds_secret_configs: vec![agent_secret(SDS_DEFAULT_CERTIFICATE)],
            validation_context_type: Some(combined_validation(
                agent_secret(SDS_ROOT),
                sans.iter().map(|san| exact(san)).collect(),
                SanType::Uri,
            )),
            ..Default::default()
        }),
        sni: sni.to_owned(),
        ..Default::default()
    };
    socket(TLS_SOCKET, &tls)
}

/// The client side of mesh TLS at a client that has its certificates from a provider of its own bootstrap.
pub fn mesh_client_of_provider(sans: &[String]) -> TransportSocket {
    let provider = |certificate: &str| CertificateProviderPluginInstance {
        instance_name: CERTIFICATE_PROVIDER.to_owned(),
        certificate_name: certificate.to_owned(),
    };
    let tls = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_certificate_provider_instance: Some(provider(SDS_DEFAULT_CERTIFICATE)),
            validation_context_type: Some(
                common_tls_context::ValidationContextType::ValidationContext(
                    CertificateValidationContext {
                        ca_certificate_provider_instance: Some(provider(SDS_ROOT)),
                        match_typed_subject_alt_names: typed(
                            sans.iter().map(|san| exact(san)).collect(),
                            SanType::Uri,
                        ),
                        ..Default::default()
                    },
                ),
            ),
            ..Default::default()
        }),
        ..Default::default()
    };
    socket(TLS_SOCKET, &tls)
}

/// TLS of a user's own making towards an upstream (DestinationRule SIMPLE and MUTUAL).
pub struct ClientTls<'a> {
    /// The server name; empty sends none.
    pub sni: &'a str,
    /// Names of which the server's certificate must have one; empty takes any that the roots sign.
    pub subject_alt_names: &'a [String],
    /// The protocols to offer.
    pub alpn: &'a [&'a str],
    /// Names a Secret: `kubernetes://name`. Its `ca.crt` verifies the server.
    pub credential: Option<&'a str>,
    /// Whether the credential's certificate is presented.
    pub present_certificate: bool,
    /// Files at the proxy.
    pub files: Files<'a>,
    /// Whether the server's certificate is checked at all.
    pub verify: bool,
}

/// Certificate files at the proxy; empty means none.
#[derive(Clone, Copy, Default)]
pub struct Files<'a> {
    /// PEM chain.
    pub certificate: &'a str,
    /// PEM key.
    pub private_key: &'a str,
    /// PEM roots, or [`SYSTEM_ROOTS`].
    pub ca: &'a str,
}

/// The client side of TLS to something outside the mesh.
pub fn client(tls: &ClientTls<'_>) -> TransportSocket {
    let sans: Vec<StringMatcher> = tls.subject_alt_names.iter().map(|san| exact(san)).collect();
    let mut common = CommonTlsContext {
        tls_params: Some(minimum_version(TlsProtocol::TlSv12)),
        alpn_protocols: tls.alpn.iter().map(|p| (*p).to_owned()).collect(),
        ..Default::default()
    };
    let (certificate, roots) = match tls.credential {
        Some(credential) => (
            tls.present_certificate.then(|| credential_secret(credential)),
            credential_secret(&format!("{credential}-cacert")),
        ),
        None => (
            (tls.present_certificate && !tls.files.certificate.is_empty()).then(|| {
                let Files { certificate, private_key, .. } = tls.files;
                agent_secret(&format!("file-cert:{certificate}~{private_key}"))
            }),
            agent_secret(&format!("file-root:{}", tls.files.ca)),
        ),
    };
    common.tls_certificate_sds_secret_configs.extend(certificate);
    common.validation_context_type =
        tls.verify.then(|| combined_validation(roots, sans, SanType::Dns));
    socket(
        TLS_SOCKET,
        &UpstreamTlsContext {
            common_tls_context: Some(common),
            sni: tls.sni.to_owned(),
            ..Default::default()
        },
    )
}

/// TLS towards a gateway's clients.
pub struct GatewayTls<'a> {
    /// The protocols to pick from, best first.
    pub alpn: &'a [&'a str],
    /// SDS names of the certificates, most often one.
    pub certificates: &'a [String],
    /// The SDS name of the roots that clients' certificates must have; `None` asks for no certificate.
    pub client_roots: Option<&'a str>,
    /// Whether a client without a certificate is refused.
    pub require_certificate: bool,
    /// Names of which a client's certificate must have one.
    pub subject_alt_names: &'a [String],
    /// Oldest version; Istio's default is 1.2.
    pub minimum: Option<TlsProtocol>,
    /// Newest version.
    pub maximum: Option<TlsProtocol>,
    /// TLS 1.2 cipher suites.
    pub cipher_suites: &'a [String],
}

/// The server side of TLS at a gateway.
pub fn gateway_server(tls: &GatewayTls<'_>) -> TransportSocket {
    let mut parameters = minimum_version(tls.minimum.unwrap_or(TlsProtocol::TlSv12));
    parameters.tls_maximum_protocol_version = tls.maximum.map_or(0, |version| version as i32);
    parameters.cipher_suites = tls.cipher_suites.to_vec();
    let secret = |name: &str| {
        if name.starts_with("file-") { agent_secret(name) } else { credential_secret(name) }
    };
    let validation = tls.client_roots.map(|roots| {
        let sans = tls.subject_alt_names.iter().map(|san| exact(san)).collect();
        combined_validation(secret(roots), sans, SanType::Dns)
    });
    let context = DownstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(parameters),
            alpn_protocols: tls.alpn.iter().map(|protocol| (*protocol).to_owned()).collect(),
            tls_certificate_sds_secret_configs: tls
                .certificates
                .iter()
                .map(|name| secret(name))
                .collect(),
            validation_context_type: validation,
            ..Default::default()
        }),
        require_client_certificate: boolean(tls.require_certificate),
        ..Default::default()
    };
    socket(TLS_SOCKET, &context)
}

/// The configuration source that is the stream itself.
pub fn ads() -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: Some(duration(std::time::Duration::ZERO)),
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..Default::default()
    }
}

/// A secret that the proxy's own agent has.
fn agent_secret(name: &str) -> SdsSecretConfig {
    let service = GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc_service::EnvoyGrpc {
            cluster_name: SDS_CLUSTER.to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let source = ConfigSource {
        initial_fetch_timeout: Some(duration(std::time::Duration::ZERO)),
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(ApiConfigSource {
            api_type: ApiType::DeltaGrpc as i32,
            transport_api_version: ApiVersion::V3 as i32,
            set_node_on_first_message_only: true,
            grpc_services: vec![service],
            ..Default::default()
        })),
        ..Default::default()
    };
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(source) }
}

/// A secret that the control plane serves.
fn credential_secret(name: &str) -> SdsSecretConfig {
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(ads()) }
}

fn combined_validation(
    roots: SdsSecretConfig,
    names: Vec<StringMatcher>,
    san_type: SanType,
) -> common_tls_context::ValidationContextType {
    common_tls_context::ValidationContextType::CombinedValidationContext(
        common_tls_context::CombinedCertificateValidationContext {
            default_validation_context: Some(CertificateValidationContext {
                match_typed_subject_alt_names: typed(names, san_type),
                ..Default::default()
            }),
            validation_context_sds_secret_config: Some(roots),
            ..Default::default()
        },
    )
}

/// SANs that are URIs are matched as such whatever the caller's default: users write SPIFFE ids there.
fn typed(names: Vec<StringMatcher>, san_type: SanType) -> Vec<SubjectAltNameMatcher> {
    use api::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
    let is_uri = |name: &StringMatcher| match &name.match_pattern {
        Some(MatchPattern::Exact(text) | MatchPattern::Prefix(text)) => text.contains("://"),
        _ => false,
    };
    names
        .into_iter()
        .map(|name| SubjectAltNameMatcher {
            san_type: if is_uri(&name) { SanType::Uri } else { san_type } as i32,
            matcher: Some(name),
            ..Default::default()
        })
        .collect()
}

fn minimum_version(version: TlsProtocol) -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: version as i32,
        tls_maximum_protocol_version: TlsProtocol::TlSv13 as i32,
        ..Default::default()
    }
}

fn socket<M: Message + Name>(name: &str, config: &M) -> TransportSocket {
    TransportSocket {
        name: name.to_owned(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(pack(config))),
    }
}
