//! `config.cluster.v3.Cluster` → [`ClusterConfig`] and what discovers its endpoints.

use std::sync::Arc;
use std::time::Duration;

use api::envoy::config::cluster::v3 as proto;
use api::envoy::config::core::v3::{
    Http2ProtocolOptions, HttpProtocolOptions as CommonOptions, RoutingPriority,
    TcpKeepalive as ProtoKeepalive, TransportSocket,
};
use api::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api::envoy::extensions::upstreams::http::v3 as upstreams;
use api::google::protobuf::UInt32Value;
use proto::cluster::common_lb_config::LocalityConfigSpecifier;
use proto::cluster::{
    ClusterDiscoveryType, DiscoveryType as ProtoType, DnsLookupFamily, LbConfig,
    LbPolicy as ProtoLb,
};
use telemetry::stats::sets::ClusterMembership;
use telemetry::stats::{Block, Scope};
use upstreams::http_protocol_options::UpstreamProtocolOptions;
use upstreams::http_protocol_options::explicit_http_config::ProtocolConfig;

use super::compile::Compile;
use super::endpoints::{self, Assignment};
use super::source::{self, Fetch};
use super::tls::TlsStore;
use super::{health_checks, http2, values};
use crate::http::config::Http2Options;
use crate::network::tls::UpstreamTls;
use crate::upstream::config::{
    BreakerThresholds, ClusterConfig, DiscoveryType, LbPolicy, OutlierConfig, TcpKeepalive,
    TransportMatch, UpstreamHttpOptions, UpstreamProtocol,
};

/// How the upstream options are keyed in `typed_extension_protocol_options`.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
/// Envoy's `dns_refresh_rate`.
const DNS_REFRESH_RATE: Duration = Duration::from_secs(5);

/// A compiled cluster.
#[derive(Debug)]
pub struct CompiledCluster {
    /// What the engine reads.
    pub config: ClusterConfig,
    /// Where its endpoints come from.
    pub discovery: Discovery,
    /// Where its statistics are.
    pub scope: Scope,
    /// Where its endpoints are counted.
    pub membership: Block<ClusterMembership>,
}

/// Where a cluster's endpoints come from.
#[derive(Debug, Clone)]
pub enum Discovery {
    /// They are in its configuration.
    Static(Assignment),
    /// In its configuration, by names that DNS resolves again and again.
    StrictDns(Assignment, DnsOptions),
    /// One endpoint by one name; only one of its addresses is used at a time.
    LogicalDns(Assignment, DnsOptions),
    /// From the endpoint discovery service, under this name.
    Eds(Arc<str>, Arc<Fetch>),
}

/// How names are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsOptions {
    /// How often.
    pub refresh_rate: Duration,
    /// As often as the records' time to live says.
    pub respect_ttl: bool,
    /// Which addresses are wanted.
    pub family: LookupFamily,
}

/// Which addresses are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupFamily {
    /// IPv6, and IPv4 where there is none.
    Auto,
    /// IPv4 only.
    V4Only,
    /// IPv6 only.
    V6Only,
    /// IPv4, and IPv6 where there is none.
    V4Preferred,
    /// Both.
    All,
}

/// Compiles a cluster.
pub fn cluster(
    cx: &mut Compile<'_>,
    tls: &mut TlsStore,
    message: &proto::Cluster,
) -> Option<CompiledCluster> {
    let before = cx.problems.len();
    let mut config = ClusterConfig::named(cx.slots.cluster_name(&message.name));
    if !message.alt_stat_name.is_empty() {
        config.stat_name = message.alt_stat_name.as_str().into();
    }
    if let Some(timeout) = &message.connect_timeout {
        config.connect_timeout = values::duration(timeout);
    }
    if let Some(limit) = message.per_connection_buffer_limit_bytes {
        config.per_connection_buffer_limit = limit.value;
    }
    config.lb_policy = lb_policy(message);
    if let Some(common) = &message.common_lb_config {
        config.healthy_panic_threshold =
            common.healthy_panic_threshold.map_or(50.0, |percent| percent.value);
        config.locality_weighted = matches!(
            common.locality_config_specifier,
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_))
        );
    }
    config.breakers = breakers(message.circuit_breakers.as_ref());
    config.outlier = message.outlier_detection.as_ref().map(outlier).map(Box::new);
    let auto_sni = http_options(cx, message, &mut config.http);
    config.http.http2 = cx.env.parts.http2.share(Http2Options::clone(&config.http.http2));
    config.tls =
        transport_socket(cx, tls, "transport_socket", message.transport_socket.as_ref(), auto_sni);
    config.transport_matches = transport_matches(cx, tls, message, auto_sni);
    let connection = message.upstream_connection_options.as_ref();
    config.tcp_keepalive =
        connection.and_then(|options| options.tcp_keepalive.as_ref()).map(tcp_keepalive);
    config.close_connections_on_host_health_failure =
        message.close_connections_on_host_health_failure;
    config.metadata = values::metadata(cx, message.metadata.as_ref());
    let needs_tls = config.http.protocol == UpstreamProtocol::Auto;
    if needs_tls && config.tls.is_none() && config.transport_matches.is_empty() {
        let message = "`auto_config` needs a transport socket with ALPN: that decides the protocol";
        cx.problem_at("typed_extension_protocol_options", message);
    }
    config.health_check =
        health_checks::health_check(cx, &message.name, &message.health_checks).map(Arc::new);
    config.ignore_health_on_host_removal = message.ignore_health_on_host_removal;
    let discovery = discovery(cx, message, &config.name)?;
    config.discovery = match discovery {
        Discovery::Static(_) => DiscoveryType::Static,
        Discovery::StrictDns(..) => DiscoveryType::StrictDns,
        Discovery::LogicalDns(..) => DiscoveryType::LogicalDns,
        Discovery::Eds(..) => DiscoveryType::Eds,
    };
    let scope = Scope::cluster(Arc::clone(&config.stat_name));
    let membership = cx.env.registry.block(&scope);
    (cx.problems.len() == before).then_some(CompiledCluster {
        config,
        discovery,
        scope,
        membership,
    })
}

fn transport_matches(
    cx: &mut Compile<'_>,
    tls: &mut TlsStore,
    message: &proto::Cluster,
    auto_sni: bool,
) -> Vec<TransportMatch> {
    cx.each("transport_socket_matches", &message.transport_socket_matches, |cx, found| {
        let criteria = found.r#match.as_ref().map(values::json_object).unwrap_or_default();
        let socket = found.transport_socket.as_ref();
        Some(TransportMatch {
            name: found.name.as_str().into(),
            criteria: criteria.into_iter().map(|(name, value)| (name.into(), value)).collect(),
            tls: transport_socket(cx, tls, "transport_socket", socket, auto_sni),
        })
    })
}

fn tcp_keepalive(message: &ProtoKeepalive) -> TcpKeepalive {
    let seconds = |value: UInt32Value| Duration::from_secs(value.value.into());
    TcpKeepalive {
        probes: message.keepalive_probes.map(|probes| probes.value),
        time: message.keepalive_time.map(seconds),
        interval: message.keepalive_interval.map(seconds),
    }
}

fn lb_policy(message: &proto::Cluster) -> LbPolicy {
    match message.lb_policy() {
        ProtoLb::LeastRequest => {
            let choices = match &message.lb_config {
                Some(LbConfig::LeastRequestLbConfig(config)) => {
                    config.choice_count.map(|count| count.value)
                }
                _ => None,
            };
            LbPolicy::LeastRequest { choices: choices.unwrap_or(2) }
        }
        ProtoLb::Random => LbPolicy::Random,
        // The others were refused by the schema's check.
        _ => LbPolicy::RoundRobin,
    }
}

fn breakers(message: Option<&proto::CircuitBreakers>) -> [BreakerThresholds; 2] {
    let mut breakers = [BreakerThresholds::default(); 2];
    for thresholds in message.into_iter().flat_map(|message| &message.thresholds) {
        let index = usize::from(thresholds.priority() == RoutingPriority::High);
        let default = BreakerThresholds::default();
        breakers[index] = BreakerThresholds {
            max_connections: values::count(thresholds.max_connections, default.max_connections),
            max_pending_requests: values::count(
                thresholds.max_pending_requests,
                default.max_pending_requests,
            ),
            max_requests: values::count(thresholds.max_requests, default.max_requests),
            max_retries: values::count(thresholds.max_retries, default.max_retries),
            track_remaining: thresholds.track_remaining,
        };
    }
    breakers
}

fn outlier(message: &proto::OutlierDetection) -> OutlierConfig {
    let default = OutlierConfig::default();
    // A count of zero switches its detection off.
    let some = |value, default: Option<u32>| {
        Some(values::count(value, default.unwrap_or_default())).filter(|count| *count > 0)
    };
    let base_ejection_time =
        message.base_ejection_time.as_ref().map_or(default.base_ejection_time, values::duration);
    OutlierConfig {
        consecutive_5xx: some(message.consecutive_5xx, default.consecutive_5xx),
        consecutive_gateway_failure: some(
            message.consecutive_gateway_failure,
            default.consecutive_gateway_failure,
        ),
        consecutive_local_origin_failure: some(
            message.consecutive_local_origin_failure,
            default.consecutive_local_origin_failure,
        ),
        split_local_origin: message.split_external_local_origin_errors,
        interval: message.interval.as_ref().map_or(default.interval, values::duration),
        base_ejection_time,
        // Envoy: the larger of the default and the base.
        max_ejection_time: message
            .max_ejection_time
            .as_ref()
            .map_or(default.max_ejection_time.max(base_ejection_time), values::duration),
        max_ejection_percent: values::count(
            message.max_ejection_percent,
            default.max_ejection_percent,
        ),
        enforcing_consecutive_5xx: values::count(
            message.enforcing_consecutive_5xx,
            default.enforcing_consecutive_5xx,
        ),
        enforcing_consecutive_gateway_failure: values::count(
            message.enforcing_consecutive_gateway_failure,
            default.enforcing_consecutive_gateway_failure,
        ),
        enforcing_consecutive_local_origin_failure: values::count(
            message.enforcing_consecutive_local_origin_failure,
            default.enforcing_consecutive_local_origin_failure,
        ),
        always_eject_one_host: message.always_eject_one_host.is_some_and(|always| always.value),
    }
}

/// Reads both forms of the options, the deprecated fields first. Says whether the SNI follows the request.
fn http_options(
    cx: &mut Compile<'_>,
    message: &proto::Cluster,
    options: &mut UpstreamHttpOptions,
) -> bool {
    #[allow(deprecated)]
    {
        if let Some(common) = &message.common_http_protocol_options {
            common_options(common, options);
        }
        if let Some(http1) = &message.http_protocol_options {
            http1_options(http1, options);
        }
        if let Some(http2) = &message.http2_protocol_options {
            options.protocol = UpstreamProtocol::Http2;
            options.http2 = Arc::new(http2::options(cx, "http2_protocol_options", Some(http2)));
        }
        if message.protocol_selection()
            == proto::cluster::ClusterProtocolSelection::UseDownstreamProtocol
        {
            options.protocol = UpstreamProtocol::Downstream;
        }
        if let Some(max) = message.max_requests_per_connection {
            options.max_requests_per_connection = Some(max.value).filter(|max| *max > 0);
        }
    }
    let mut auto_sni = false;
    let mut names: Vec<_> = message.typed_extension_protocol_options.keys().collect();
    names.sort();
    for name in names {
        let any = message.typed_extension_protocol_options.get(name);
        let field = format!("typed_extension_protocol_options[{name:?}]");
        let Some((found, bytes)) = cx.extension(&field, any) else { continue };
        if name != HTTP_OPTIONS || found != HTTP_OPTIONS {
            cx.problem_at(&field, format!("only {HTTP_OPTIONS} under its own name is supported"));
            continue;
        }
        let Some(typed) = cx.decode::<upstreams::HttpProtocolOptions>(&bytes) else { continue };
        if let Some(common) = &typed.common_http_protocol_options {
            common_options(common, options);
            if common.max_stream_duration.is_some() {
                let path = format!("{field}.common_http_protocol_options.max_stream_duration");
                cx.problem_at(&path, "`max_stream_duration` is not supported here; routes have it");
            }
        }
        auto_sni |= typed.upstream_http_protocol_options.is_some_and(|options| options.auto_sni);
        cx.at(&field, |cx| protocol(cx, typed.upstream_protocol_options.as_ref(), options));
    }
    auto_sni
}

fn protocol(
    cx: &mut Compile<'_>,
    protocol: Option<&UpstreamProtocolOptions>,
    options: &mut UpstreamHttpOptions,
) {
    match protocol {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => {
            match &explicit.protocol_config {
                Some(ProtocolConfig::HttpProtocolOptions(http1)) => http1_options(http1, options),
                Some(ProtocolConfig::Http2ProtocolOptions(http2)) => {
                    options.protocol = UpstreamProtocol::Http2;
                    http2_options(cx, "explicit_http_config", Some(http2), options);
                }
                _ => cx.problem_at("explicit_http_config", "this protocol is not supported yet"),
            }
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(both)) => {
            options.protocol = UpstreamProtocol::Downstream;
            both.http_protocol_options.iter().for_each(|http1| http1_options(http1, options));
            let http2 = both.http2_protocol_options.as_ref();
            http2_options(cx, "use_downstream_protocol_config", http2, options);
        }
        Some(UpstreamProtocolOptions::AutoConfig(both)) => {
            options.protocol = UpstreamProtocol::Auto;
            both.http_protocol_options.iter().for_each(|http1| http1_options(http1, options));
            http2_options(cx, "auto_config", both.http2_protocol_options.as_ref(), options);
        }
        None => {}
    }
}

fn http2_options(
    cx: &mut Compile<'_>,
    under: &str,
    message: Option<&Http2ProtocolOptions>,
    options: &mut UpstreamHttpOptions,
) {
    let http2 = cx.at(under, |cx| http2::options(cx, "http2_protocol_options", message));
    options.http2 = Arc::new(http2);
}

fn common_options(message: &CommonOptions, options: &mut UpstreamHttpOptions) {
    options.idle_timeout = values::limit(message.idle_timeout.as_ref(), options.idle_timeout);
    options.max_connection_duration =
        values::limit(message.max_connection_duration.as_ref(), options.max_connection_duration);
    if let Some(max) = message.max_requests_per_connection {
        options.max_requests_per_connection = Some(max.value).filter(|max| *max > 0);
    }
    if let Some(max) = message.max_headers_count {
        options.max_response_headers_count = max.value;
    }
}

fn http1_options(
    message: &api::envoy::config::core::v3::Http1ProtocolOptions,
    options: &mut UpstreamHttpOptions,
) {
    use api::envoy::config::core::v3::http1_protocol_options::header_key_format::HeaderFormat;
    options.enable_trailers = message.enable_trailers;
    options.proper_case_words = matches!(
        message.header_key_format.as_ref().and_then(|format| format.header_format.as_ref()),
        Some(HeaderFormat::ProperCaseWords(_))
    );
}

/// TLS, or plaintext for `raw_buffer` and where nothing is said.
fn transport_socket(
    cx: &mut Compile<'_>,
    tls: &mut TlsStore,
    field: &str,
    socket: Option<&TransportSocket>,
    auto_sni: bool,
) -> Option<Arc<UpstreamTls>> {
    use api::envoy::config::core::v3::transport_socket::ConfigType;
    let socket = socket?;
    cx.at(field, |cx| {
        let any = socket.config_type.as_ref().map(|ConfigType::TypedConfig(any)| any);
        let (name, bytes) = cx.extension("typed_config", any)?;
        cx.at("typed_config", |cx| match name.as_str() {
            "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext" => {
                tls.client(cx, &bytes, auto_sni)
            }
            "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer" => None,
            _ => {
                cx.problem(format!("{name} is no transport socket of a cluster"));
                None
            }
        })
    })
}

fn discovery(cx: &mut Compile<'_>, message: &proto::Cluster, name: &Arc<str>) -> Option<Discovery> {
    let found = match &message.cluster_discovery_type {
        None => ProtoType::Static,
        Some(ClusterDiscoveryType::Type(found)) => ProtoType::try_from(*found).unwrap_or_default(),
        Some(ClusterDiscoveryType::ClusterType(_)) => {
            cx.problem_at("cluster_type", "`cluster_type` is not supported yet");
            return None;
        }
    };
    if found == ProtoType::Eds {
        let eds = message.eds_cluster_config.as_ref();
        let config = eds.and_then(|eds| eds.eds_config.as_ref());
        let source = cx.at("eds_cluster_config.eds_config", |cx| source::fetch(cx, config));
        let Some(source) = source else {
            cx.problem_at("eds_cluster_config", "an EDS cluster needs `eds_config`");
            return None;
        };
        let service = eds.map_or("", |eds| &eds.service_name);
        let is_another = !service.is_empty() && *service != **name;
        let service = if is_another { service.into() } else { Arc::clone(name) };
        return Some(Discovery::Eds(service, cx.env.parts.sources.share(source)));
    }
    let empty = ClusterLoadAssignment::default();
    let assignment = message.load_assignment.as_ref().unwrap_or(&empty);
    let assignment = cx.at("load_assignment", |cx| endpoints::assignment(cx, assignment));
    if found == ProtoType::LogicalDns {
        if assignment.endpoints.len() != 1 {
            cx.problem_at("load_assignment", "a LOGICAL_DNS cluster has exactly one endpoint");
            return None;
        }
        return Some(Discovery::LogicalDns(assignment, dns_options(message)));
    }
    if found == ProtoType::StrictDns {
        return Some(Discovery::StrictDns(assignment, dns_options(message)));
    }
    if let Some(name) = assignment.names().first() {
        let message = format!(
            "`{name}` is no IP address; a STATIC cluster's endpoints need one (STRICT_DNS resolves names)"
        );
        cx.problem_at("load_assignment", message);
        return None;
    }
    Some(Discovery::Static(assignment))
}

#[allow(deprecated)]
fn dns_options(message: &proto::Cluster) -> DnsOptions {
    DnsOptions {
        refresh_rate: message.dns_refresh_rate.as_ref().map_or(DNS_REFRESH_RATE, values::duration),
        respect_ttl: message.respect_dns_ttl,
        family: match message.dns_lookup_family() {
            DnsLookupFamily::Auto => LookupFamily::Auto,
            DnsLookupFamily::V4Only => LookupFamily::V4Only,
            DnsLookupFamily::V6Only => LookupFamily::V6Only,
            DnsLookupFamily::V4Preferred => LookupFamily::V4Preferred,
            DnsLookupFamily::All => LookupFamily::All,
        },
    }
}
