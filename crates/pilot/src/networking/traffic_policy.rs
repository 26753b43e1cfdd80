//! A DestinationRule's policy on a cluster: breakers, load balancing, outliers, connections.

use std::time::Duration;

use api::envoy::config::cluster::v3::{
    CircuitBreakers, Cluster, OutlierDetection as EnvoyOutlierDetection, UpstreamConnectionOptions,
    circuit_breakers::Thresholds, cluster::CommonLbConfig, cluster::LbPolicy,
    cluster::common_lb_config::LocalityConfigSpecifier,
};
use api::envoy::config::core::v3::TcpKeepalive;
use api::envoy::r#type::v3::Percent;
use resources::terms::traffic_policy::{
    ConnectionPool, OutlierDetection, Policy, PolicySettings, SimpleLb,
    TcpKeepalive as WrittenKeepalive, TrafficPolicy,
};

use super::encoding::pack;
use super::locality::is_by_weight;
use super::upstream_protocol::{self, HTTP_OPTIONS, HttpVersion};
use super::values::{duration, number};
use crate::model::destination_rule::DestinationRules;
use crate::model::mesh::MeshConfig;

/// The settings of a port of a subset: the subset's over the rule's, setting by setting; settings of the port replace
/// those for every port whole, and a subset's those of the rule, too.
pub fn effective(
    rules: Option<&DestinationRules>,
    subset: Option<&str>,
    port: u16,
) -> PolicySettings {
    let Some(rules) = rules else { return PolicySettings::default() };
    let of_port = |policy: &TrafficPolicy| -> PolicySettings {
        let own = policy
            .port_level
            .iter()
            .find(|(number, _)| *number == port)
            .map(|(_, settings)| settings);
        own.unwrap_or(&policy.settings).clone()
    };
    let whole = rules.traffic_policy.as_ref().map(of_port).unwrap_or_default();
    let of_subset = subset.and_then(|name| rules.subset(name)?.traffic_policy.as_ref());
    let has_port_level =
        |policy: &TrafficPolicy| policy.port_level.iter().any(|(number, _)| *number == port);
    if let Some(policy) = of_subset.filter(|policy| has_port_level(policy)) {
        return of_port(policy);
    }
    let part = of_subset.map(of_port).unwrap_or_default();
    PolicySettings {
        load_balancer: part.load_balancer.or(whole.load_balancer),
        connection_pool: part.connection_pool.or(whole.connection_pool),
        outlier_detection: part.outlier_detection.or(whole.outlier_detection),
        tls: part.tls.or(whole.tls),
    }
}

/// Applies everything but TLS.
pub fn apply(
    cluster: &mut Cluster,
    settings: &PolicySettings,
    version: HttpVersion,
    mesh: &MeshConfig,
) {
    let pool = settings.connection_pool.as_ref();
    cluster.connect_timeout = Some(duration(
        pool.and_then(|pool| pool.tcp.as_ref())
            .and_then(|tcp| tcp.connect_timeout)
            .unwrap_or(mesh.connect_timeout),
    ));
    cluster.circuit_breakers =
        Some(CircuitBreakers { thresholds: vec![thresholds(pool)], ..Default::default() });
    cluster.lb_policy = lb_policy(settings) as i32;
    if let Some(outliers) = &settings.outlier_detection {
        cluster.outlier_detection = Some(outlier_detection(outliers));
    }
    let common = common_lb(settings, mesh);
    cluster.common_lb_config = (common != CommonLbConfig::default()).then_some(common);
    let own_keepalive = pool.and_then(|pool| pool.tcp.as_ref()?.tcp_keepalive.as_ref());
    cluster.upstream_connection_options = keepalive(own_keepalive, mesh.tcp_keepalive.as_ref());
    if let Some(options) = upstream_protocol::options(pool, version) {
        cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), pack(&options));
    }
}

/// The rule's over the mesh's, setting by setting; what neither says is the system's.
fn keepalive(
    own: Option<&WrittenKeepalive>,
    mesh: Option<&WrittenKeepalive>,
) -> Option<UpstreamConnectionOptions> {
    own.or(mesh)?;
    let seconds = |time: Duration| number(u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
    let first = |of: fn(&WrittenKeepalive) -> Option<Duration>| {
        own.and_then(of).or_else(|| mesh.and_then(of)).and_then(seconds)
    };
    let probes = |written: &WrittenKeepalive| written.probes.filter(|probes| *probes > 0);
    Some(UpstreamConnectionOptions {
        tcp_keepalive: Some(TcpKeepalive {
            keepalive_probes: own
                .and_then(probes)
                .or_else(|| mesh.and_then(probes))
                .and_then(number),
            keepalive_time: first(|written| written.time),
            keepalive_interval: first(|written| written.interval),
        }),
        ..Default::default()
    })
}

fn common_lb(settings: &PolicySettings, mesh: &MeshConfig) -> CommonLbConfig {
    let outliers = settings.outlier_detection.as_ref();
    let by_weight = || LocalityConfigSpecifier::LocalityWeightedLbConfig(Default::default());
    CommonLbConfig {
        // Where instances are ejected, Envoy's own half would bring them back: Istio switches panic off.
        healthy_panic_threshold: outliers.map(|outliers| Percent {
            value: f64::from(outliers.min_health_percent.unwrap_or_default()),
        }),
        locality_config_specifier: is_by_weight(settings, &mesh.locality_lb).then(by_weight),
        ..Default::default()
    }
}

/// Whether a pool limits connections, or requests that wait for one.
pub fn counts_connections(pool: &ConnectionPool) -> bool {
    let connections = pool.tcp.as_ref().and_then(|tcp| tcp.max_connections);
    let pending = pool.http.as_ref().and_then(|http| http.http1_max_pending_requests);
    connections.is_some_and(is_limit) || pending.is_some_and(is_limit)
}

fn is_limit(written: u32) -> bool {
    written > 0
}

/// Breakers that never trip, as Istio has them, unless a limit was written.
pub fn thresholds(pool: Option<&ConnectionPool>) -> Thresholds {
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let http = pool.and_then(|pool| pool.http.as_ref());
    let limit = |written: Option<u32>| number(written.filter(|w| is_limit(*w)).unwrap_or(u32::MAX));
    Thresholds {
        max_connections: limit(tcp.and_then(|tcp| tcp.max_connections)),
        max_pending_requests: limit(http.and_then(|http| http.http1_max_pending_requests)),
        max_requests: limit(http.and_then(|http| http.http2_max_requests)),
        max_retries: limit(http.and_then(|http| http.max_retries)),
        track_remaining: true,
        ..Default::default()
    }
}

/// Hashing and passthrough are not translated yet (the rule's status says so) and leave the mesh's default.
fn lb_policy(settings: &PolicySettings) -> LbPolicy {
    match settings.load_balancer.as_ref().and_then(|lb| lb.policy.as_ref()) {
        Some(Policy::Simple(SimpleLb::Random)) => LbPolicy::Random,
        Some(Policy::Simple(SimpleLb::RoundRobin)) => LbPolicy::RoundRobin,
        _ => LbPolicy::LeastRequest,
    }
}

/// Outlier detection.
pub fn outlier_detection(outliers: &OutlierDetection) -> EnvoyOutlierDetection {
    // A threshold of zero switches a detector off: it is then never enforced.
    let enforcing = |threshold: Option<u32>| {
        threshold.and_then(|threshold| number(if threshold > 0 { 100 } else { 0 }))
    };
    let threshold =
        |written: Option<u32>| written.filter(|threshold| *threshold > 0).and_then(number);
    let split = outliers.split_external_local_origin_errors;
    let local =
        outliers.consecutive_local_origin_failures.filter(|threshold| split && *threshold > 0);
    EnvoyOutlierDetection {
        consecutive_5xx: threshold(outliers.consecutive_5xx_errors),
        enforcing_consecutive_5xx: enforcing(outliers.consecutive_5xx_errors),
        consecutive_gateway_failure: threshold(outliers.consecutive_gateway_errors),
        enforcing_consecutive_gateway_failure: enforcing(outliers.consecutive_gateway_errors),
        split_external_local_origin_errors: split,
        consecutive_local_origin_failure: local.and_then(number),
        enforcing_consecutive_local_origin_failure: local.and_then(|_| number(100)),
        enforcing_local_origin_success_rate: if split { number(0) } else { None },
        interval: outliers.interval.map(duration),
        base_ejection_time: outliers.base_ejection_time.map(duration),
        max_ejection_percent: outliers.max_ejection_percent.and_then(number),
        enforcing_success_rate: number(0),
        ..Default::default()
    }
}
