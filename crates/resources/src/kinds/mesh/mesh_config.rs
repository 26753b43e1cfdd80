//! MeshConfig: the key `mesh` of the ConfigMap `istio` in the root namespace.
//!
//! It has no schema that an API server enforces, and Istio takes what it does not know: so an unknown field is a
//! warning here, and so is a known one that has no effect yet. A field with a wrong value is an error.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::field::{FieldErrors, Fields, Finding, Findings, Names, Reason, read_object};
use crate::kinds::networking::virtual_service::Retries;
use crate::rules;
use crate::terms::traffic_policy::{H2Upgrade, LocalityLb, TcpKeepalive};
use crate::yaml::parse_tree;

/// Name of the ConfigMap.
pub const CONFIG_MAP: &str = "istio";
/// Its key.
pub const KEY: &str = "mesh";

/// Configuration of the whole mesh.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshConfig {
    /// Namespace whose policies are the mesh's.
    pub root_namespace: String,
    /// Name of the mesh in identities.
    pub trust_domain: String,
    /// Other trust domains whose identities count as this one's.
    pub trust_domain_aliases: Vec<String>,
    /// Where access logs go; empty writes none.
    pub access_log_file: String,
    /// Format of access logs; empty is Istio's default.
    pub access_log_format: String,
    /// Encoding of access logs.
    pub access_log_encoding: AccessLogEncoding,
    /// Whether clients use mTLS where servers take it.
    pub enable_auto_mtls: bool,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time for a client to speak first where a protocol must be found out; zero waits for ever.
    pub protocol_detection_timeout: Duration,
    /// TCP keep-alive of upstream connections.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Whether HTTP/1 requests go up as HTTP/2.
    pub h2_upgrade_policy: H2Upgrade,
    /// How traffic keeps to localities.
    pub locality_lb_setting: LocalityLb,
    /// Retries of routes that say nothing.
    pub default_http_retry_policy: Option<Retries>,
    /// Who sees Services that say nothing.
    pub default_service_export_to: Vec<String>,
    /// Who sees VirtualServices that say nothing.
    pub default_virtual_service_export_to: Vec<String>,
    /// Who sees DestinationRules that say nothing.
    pub default_destination_rule_export_to: Vec<String>,
    /// How paths are normalised before they are matched.
    pub path_normalization: PathNormalization,
    /// Time between look-ups of host names.
    pub dns_refresh_rate: Duration,
    /// What proxies are told.
    pub default_config: ProxyDefaults,
}

/// Encoding of access logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogEncoding {
    /// Text lines.
    #[default]
    Text,
    /// JSON lines.
    Json,
}

impl Names for AccessLogEncoding {
    const NAMES: &'static [(&'static str, Self)] = &[("TEXT", Self::Text), ("JSON", Self::Json)];
}

/// What happens with calls to unknown hosts.
#[derive(Clone, Copy, PartialEq)]
enum MeshOutboundMode {
    /// They fail.
    RegistryOnly,
    /// They go where they were headed.
    AllowAny,
    /// They go where their name leads.
    AllowAnyDynamicDns,
}

impl Names for MeshOutboundMode {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("REGISTRY_ONLY", Self::RegistryOnly),
        ("ALLOW_ANY", Self::AllowAny),
        ("ALLOW_ANY_DYNAMIC_DNS", Self::AllowAnyDynamicDns),
    ];
}

/// How paths are normalised before they are matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathNormalization {
    /// As `Base`.
    #[default]
    Default,
    /// Not at all.
    None,
    /// RFC 3986, and `\` as `/`.
    Base,
    /// Also `//` as `/`.
    MergeSlashes,
    /// Also `%2F` as `/` and `%5C` as `\`.
    DecodeAndMergeSlashes,
}

impl Names for PathNormalization {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("DEFAULT", Self::Default),
        ("NONE", Self::None),
        ("BASE", Self::Base),
        ("MERGE_SLASHES", Self::MergeSlashes),
        ("DECODE_AND_MERGE_SLASHES", Self::DecodeAndMergeSlashes),
    ];
}

/// What proxies are told (`defaultConfig`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProxyDefaults {
    /// Trusted proxies in front of a gateway.
    pub num_trusted_proxies: u32,
}

impl Default for MeshConfig {
    /// Istio's defaults.
    fn default() -> Self {
        let public = || vec!["*".to_owned()];
        Self {
            root_namespace: "istio-system".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            trust_domain_aliases: Vec::new(),
            access_log_file: String::new(),
            access_log_format: String::new(),
            access_log_encoding: AccessLogEncoding::Text,
            enable_auto_mtls: true,
            connect_timeout: Duration::from_secs(10),
            protocol_detection_timeout: Duration::ZERO,
            tcp_keepalive: None,
            h2_upgrade_policy: H2Upgrade::Default,
            locality_lb_setting: LocalityLb { enabled: Some(true), ..LocalityLb::default() },
            default_http_retry_policy: None,
            default_service_export_to: public(),
            default_virtual_service_export_to: public(),
            default_destination_rule_export_to: public(),
            path_normalization: PathNormalization::Default,
            dns_refresh_rate: Duration::from_secs(60),
            default_config: ProxyDefaults::default(),
        }
    }
}

/// Fields of Istio's that have no effect yet.
const WITHOUT_EFFECT: &[&str] = &[
    "ca",
    "caCertificates",
    "certificates",
    "configSources",
    "defaultProviders",
    "defaultTrafficPolicy",
    "disableEnvoyListenerLog",
    "discoverySelectors",
    "enableEnvoyAccessLogService",
    "enablePrometheusMerge",
    "enableTracing",
    "extensionProviders",
    "hboneIdleTimeout",
    "inboundClusterStatName",
    "inboundTrafficPolicy",
    "ingressClass",
    "ingressControllerMode",
    "ingressSelector",
    "ingressService",
    "meshMTLS",
    "outboundClusterStatName",
    "proxyHttpPort",
    "proxyInboundListenPort",
    "proxyListenPort",
    "serviceEntryVisibility",
    "serviceScopeConfigs",
    "serviceSettings",
    "thriftConfig",
    "tlsDefaults",
    "verifyCertificateAtClient",
    "zoneAwareLbSetting",
];

/// Fields of `defaultConfig` that have no effect yet.
const PROXY_WITHOUT_EFFECT: &[&str] = &[
    "availabilityZone",
    "binaryPath",
    "caCertificatesPem",
    "concurrency",
    "configPath",
    "connectionSettings",
    "controlPlaneAuthPolicy",
    "customConfigFile",
    "discoveryAddress",
    "discoveryRefreshDelay",
    "drainDuration",
    "envoyAccessLogService",
    "envoyMetricsService",
    "envoyMetricsServiceAddress",
    "extraStatTags",
    "fileFlushInterval",
    "fileFlushMinSizeKb",
    "holdApplicationUntilProxyStarts",
    "image",
    "interceptionMode",
    "meshId",
    "privateKeyProvider",
    "proxyAdminPort",
    "proxyBootstrapTemplatePath",
    "proxyHeaders",
    "proxyMetadata",
    "proxyStatsMatcher",
    "readinessProbe",
    "runtimeValues",
    "sds",
    "serviceCluster",
    "statNameLength",
    "statsCompression",
    "statsdUdpAddress",
    "statusPort",
    "terminationDrainDuration",
    "tracing",
    "tracingServiceName",
    "zipkinAddress",
];

impl MeshConfig {
    /// Reads the text of the ConfigMap; what is not there has Istio's default.
    pub fn parse(text: &str) -> Result<(Self, Vec<Finding>), FieldErrors> {
        let (mut trees, problems) = parse_tree(text);
        if !problems.is_empty() {
            let each = |(place, message): (crate::yaml::Place, String)| Finding {
                path: crate::field::FieldPath::default(),
                reason: Reason::Invalid,
                message: format!("line {}: {message}", place.line),
            };
            return Err(FieldErrors(problems.into_iter().map(each).collect()));
        }
        let map = match trees.pop().map(|(value, _)| value) {
            Some(Value::Object(map)) => map,
            None | Some(Value::Null) => Map::new(),
            Some(_) => {
                let path = crate::field::FieldPath::default();
                return Err(FieldErrors::one(path, Reason::Type, "expected a map of fields"));
            }
        };
        let (config, Findings { errors, mut warnings }) = read_object(&map, Self::read);
        let (unknown, errors): (Vec<_>, Vec<_>) =
            errors.into_iter().partition(|error| error.reason == Reason::Unknown);
        warnings.extend(unknown);
        if errors.is_empty() { Ok((config, warnings)) } else { Err(FieldErrors(errors)) }
    }

    fn read(fields: &mut Fields<'_>) -> Self {
        let default = Self::default();
        warn_without_effect(fields, WITHOUT_EFFECT);
        check_outbound_policy(fields);
        let named = |text: Option<String>, default: String| {
            text.filter(|text| !text.is_empty()).unwrap_or(default)
        };
        let read = Self {
            root_namespace: named(fields.optional_text("rootNamespace"), default.root_namespace),
            trust_domain: named(fields.optional_text("trustDomain"), default.trust_domain),
            trust_domain_aliases: fields.texts("trustDomainAliases"),
            access_log_file: fields.text("accessLogFile"),
            access_log_format: fields.text("accessLogFormat"),
            access_log_encoding: fields.choice("accessLogEncoding").unwrap_or_default(),
            enable_auto_mtls: fields.flag("enableAutoMtls").unwrap_or(default.enable_auto_mtls),
            connect_timeout: fields.duration("connectTimeout").unwrap_or(default.connect_timeout),
            protocol_detection_timeout: fields
                .duration_or_zero("protocolDetectionTimeout")
                .unwrap_or(default.protocol_detection_timeout),
            tcp_keepalive: fields.object("tcpKeepalive", TcpKeepalive::read),
            h2_upgrade_policy: fields.choice("h2UpgradePolicy").unwrap_or_default(),
            locality_lb_setting: fields
                .object("localityLbSetting", LocalityLb::read)
                .unwrap_or(default.locality_lb_setting),
            default_http_retry_policy: fields.object("defaultHttpRetryPolicy", Retries::read),
            default_service_export_to: read_exports(fields, "defaultServiceExportTo"),
            default_virtual_service_export_to: read_exports(
                fields,
                "defaultVirtualServiceExportTo",
            ),
            default_destination_rule_export_to: read_exports(
                fields,
                "defaultDestinationRuleExportTo",
            ),
            path_normalization: fields
                .object("pathNormalization", |path| path.choice("normalization"))
                .flatten()
                .unwrap_or_default(),
            dns_refresh_rate: fields.duration("dnsRefreshRate").unwrap_or(default.dns_refresh_rate),
            default_config: fields.object("defaultConfig", ProxyDefaults::read).unwrap_or_default(),
        };
        fields.check("rootNamespace", &read.root_namespace, rules::name::dns_label);
        fields.check("trustDomain", &read.trust_domain, rules::host::fqdn);
        read
    }
}

impl ProxyDefaults {
    fn read(fields: &mut Fields<'_>) -> Self {
        warn_without_effect(fields, PROXY_WITHOUT_EFFECT);
        let topology = fields.object("gatewayTopology", |topology| {
            warn_without_effect(topology, &["forwardClientCertDetails", "proxyProtocol"]);
            topology.u32("numTrustedProxies")
        });
        Self { num_trusted_proxies: topology.flatten().unwrap_or_default() }
    }
}

/// Nothing is captured, so there is nowhere that a call to an unknown host was headed.
fn check_outbound_policy(fields: &mut Fields<'_>) {
    let mode = fields.object("outboundTrafficPolicy", |policy| policy.choice("mode")).flatten();
    if mode.is_some_and(|mode: MeshOutboundMode| mode != MeshOutboundMode::RegistryOnly) {
        let message = "is not supported yet: calls to unknown hosts fail, as with REGISTRY_ONLY";
        fields.warn_in("outboundTrafficPolicy", message);
    }
}

fn warn_without_effect(fields: &mut Fields<'_>, names: &[&'static str]) {
    fields.kept(names);
    for name in names {
        if fields.has(name) {
            fields.warn_in(name, "is not supported yet and has no effect");
        }
    }
}

fn read_exports(fields: &mut Fields<'_>, name: &'static str) -> Vec<String> {
    let written = fields.texts_with(name, |text| match text {
        "*" | "." | "~" => Ok(()),
        namespace => rules::name::dns_label(namespace),
    });
    if written.is_empty() { vec!["*".to_owned()] } else { written }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_istios_default() {
        assert_eq!(MeshConfig::parse("").unwrap(), (MeshConfig::default(), Vec::new()));
    }

    #[test]
    fn unknown_fields_warn_and_wrong_values_do_not_pass() {
        let text = "accessLogFile: /dev/stdout\naccesLogFormat: x\nmeshMTLS: {minProtocolVersion: TLSV1_3}\n";
        let (config, warnings) = MeshConfig::parse(text).unwrap();
        assert_eq!(config.access_log_file, "/dev/stdout");
        let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "meshMTLS: is not supported yet and has no effect",
                "accesLogFormat: unknown field, did you mean accessLogFormat?",
            ]
        );
        let errors = MeshConfig::parse(
            "connectTimeout: 10\ndefaultConfig: {gatewayTopology: {numTrustedProxies: x}}\n",
        )
        .unwrap_err();
        assert_eq!(errors.0.len(), 2, "{errors}");
        let broken = MeshConfig::parse("a: [\n").unwrap_err();
        assert!(broken.to_string().starts_with("line "), "{broken}");
    }
}
