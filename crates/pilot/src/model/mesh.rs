//! The mesh's own configuration, as far as anything here depends on it.

use std::sync::Arc;
use std::time::Duration;

use resources::kinds::core::config_map::ConfigMap;
pub use resources::kinds::mesh::mesh_config::{AccessLogEncoding, CONFIG_MAP, PathNormalization};
use resources::kinds::mesh::mesh_config::{KEY, MeshConfig as Written};
use resources::kinds::networking::virtual_service::Retries;
use resources::terms::export::ExportTo;
use resources::terms::traffic_policy::{H2Upgrade, LocalityLb, TcpKeepalive};

/// Istio's own default is no access log; every profile that people try first switches it on, and so do we where nobody
/// configured the mesh.
const UNCONFIGURED_ACCESS_LOG: &str = "/dev/stdout";

/// Where the control plane keeps what is its own: the mesh's ConfigMap, its authority's Secret. Policies for every
/// namespace are in [`MeshConfig::root_namespace`], which is the same unless the mesh's configuration says otherwise.
pub const CONTROL_PLANE_NAMESPACE: &str = "istio-system";

/// Retries of routes that say nothing; none means Istio's own.
pub type DefaultRetries = Option<Arc<Retries>>;

/// `MeshConfig`, its defaults applied.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshConfig {
    /// Where objects are for every namespace.
    pub root_namespace: String,
    /// Whose identities these are.
    pub trust_domain: String,
    /// Further trust domains whose identities are accepted.
    pub trust_domain_aliases: Vec<String>,
    /// Ends full service names.
    pub domain_suffix: Arc<str>,
    /// Time to connect upstream.
    pub connect_timeout: Duration,
    /// Time between look-ups of host names.
    pub dns_refresh_rate: Duration,
    /// Whether HTTP/1.1 requests go up as HTTP/2.
    pub h2_upgrade: H2Upgrade,
    /// Whether clients speak mesh TLS to instances that can, without being told.
    pub auto_mtls: bool,
    /// File of the access log; empty switches it off.
    pub access_log_file: String,
    /// Format of the access log; empty is Istio's.
    pub access_log_format: String,
    /// Encoding of the access log.
    pub access_log_encoding: AccessLogEncoding,
    /// How request paths are made safe.
    pub path_normalization: PathNormalization,
    /// Who sees a service that does not say.
    pub service_export: ExportTo,
    /// Who sees a VirtualService that does not say.
    pub virtual_service_export: ExportTo,
    /// Who sees a DestinationRule that does not say.
    pub destination_rule_export: ExportTo,
    /// How requests keep to localities where no rule says.
    pub locality_lb: LocalityLb,
    /// Retries of routes that say nothing.
    pub default_retries: DefaultRetries,
    /// Time in which a client must have shown what it speaks; zero waits for ever.
    pub protocol_detection_timeout: Duration,
    /// Keep-alive of upstream connections where no rule says.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Trusted proxies in front of every gateway.
    pub trusted_proxies: u32,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self::of(&Written {
            access_log_file: UNCONFIGURED_ACCESS_LOG.to_owned(),
            ..Written::default()
        })
    }
}

impl MeshConfig {
    /// What the mesh's ConfigMap says, or the default where there is none. A text that does not parse is `None`: the
    /// configuration before it goes on, and whoever wrote it is told.
    pub fn read(config_map: Option<&ConfigMap>) -> Option<MeshConfig> {
        match config_map.and_then(|map| map.data.get(KEY)) {
            None => Some(MeshConfig::default()),
            Some(text) => Written::parse(text).ok().map(|(written, _)| MeshConfig::of(&written)),
        }
    }

    /// Every trust domain whose identities are accepted.
    pub fn trust_domains(&self) -> Vec<String> {
        std::iter::once(&self.trust_domain).chain(&self.trust_domain_aliases).cloned().collect()
    }

    fn of(written: &Written) -> MeshConfig {
        MeshConfig {
            root_namespace: written.root_namespace.clone(),
            trust_domain: written.trust_domain.clone(),
            trust_domain_aliases: written.trust_domain_aliases.clone(),
            domain_suffix: "cluster.local".into(),
            connect_timeout: written.connect_timeout,
            dns_refresh_rate: written.dns_refresh_rate,
            h2_upgrade: written.h2_upgrade_policy,
            auto_mtls: written.enable_auto_mtls,
            access_log_file: written.access_log_file.clone(),
            access_log_format: written.access_log_format.clone(),
            access_log_encoding: written.access_log_encoding,
            path_normalization: written.path_normalization,
            service_export: export(&written.default_service_export_to),
            virtual_service_export: export(&written.default_virtual_service_export_to),
            destination_rule_export: export(&written.default_destination_rule_export_to),
            locality_lb: written.locality_lb_setting.clone(),
            protocol_detection_timeout: written.protocol_detection_timeout,
            tcp_keepalive: written.tcp_keepalive.clone(),
            trusted_proxies: written.default_config.num_trusted_proxies,
            default_retries: written.default_http_retry_policy.clone().map(Arc::new),
        }
    }
}

/// A mesh-wide `exportTo`, where `.` stays until an object's namespace is known.
fn export(entries: &[String]) -> ExportTo {
    match entries {
        [] => ExportTo::Public,
        entries if entries.iter().any(|entry| entry == "*") => ExportTo::Public,
        entries if entries.iter().any(|entry| entry == "~") => ExportTo::Nobody,
        entries => ExportTo::Namespaces(entries.iter().cloned().collect()),
    }
}
