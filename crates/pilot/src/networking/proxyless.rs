//! What a gRPC client without a proxy is given: it speaks xDS itself, and understands a part of it.
//!
//! A listener for each name by which a service's port may be called (`xds:///reviews.default.svc.cluster.local:9080`),
//! whose connection manager only names a route configuration, `outbound|9080||reviews.default.svc.cluster.local`, with
//! the one virtual host of that port; clusters that the control plane lists the endpoints of, taken in turn.

use api::envoy::config::cluster::v3::{
    CircuitBreakers, Cluster,
    cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy},
};
use api::envoy::config::core::v3::TransportSocket;
use api::envoy::config::listener::v3::{ApiListener, Listener};
use api::envoy::config::route::v3::{
    RouteConfiguration, route::Action, route_action::MaxStreamDuration,
};
use api::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier, http_filter,
};
use resources::terms::traffic_policy::ClientTlsMode;

use super::cluster::{ClusterKey, one_endpoint, sans};
use super::encoding::pack;
use super::filters;
use super::tls::{ads, mesh_client_of_provider};
use super::traffic_policy;
use super::values::{duration, socket_address};
use super::virtual_host::{VirtualHostKey, virtual_host};
use crate::model::service::Resolution;

/// What a listener of a gRPC client depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey {
    /// `host:port`, as the client's target has it.
    pub name: String,
    /// Its route configuration.
    pub routes: String,
}

/// The listener: nothing listens, it only tells where a client's routes are.
pub fn listener(key: &ListenerKey) -> Listener {
    let rds = Rds { config_source: Some(ads()), route_config_name: key.routes.clone() };
    let router = HttpFilter {
        name: filters::ROUTER.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(filters::router())),
        ..Default::default()
    };
    let manager = HttpConnectionManager {
        stat_prefix: key.name.clone(),
        route_specifier: Some(RouteSpecifier::Rds(rds)),
        http_filters: vec![router],
        ..Default::default()
    };
    Listener {
        name: key.name.clone(),
        api_listener: Some(ApiListener { api_listener: Some(pack(&manager)) }),
        ..Default::default()
    }
}

/// What a route configuration of a gRPC client depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoutesKey {
    /// Its name: the cluster's of the whole service port.
    pub name: String,
    /// Its one virtual host.
    pub virtual_host: VirtualHostKey,
}

/// The route configuration.
pub fn routes(key: &RoutesKey) -> RouteConfiguration {
    let mut host = virtual_host(&key.virtual_host);
    for route in &mut host.routes {
        // gRPC refuses settings of filters that it does not have.
        route.typed_per_filter_config.clear();
        if let Some(Action::Route(action)) = &mut route.action {
            // It knows a route's time only by this name, and is told no other.
            action.max_stream_duration = action.timeout.take().map(|time| MaxStreamDuration {
                max_stream_duration: Some(time),
                ..Default::default()
            });
            #[allow(deprecated)]
            {
                action.max_grpc_timeout = None;
            }
        }
    }
    RouteConfiguration { name: key.name.clone(), virtual_hosts: vec![host], ..Default::default() }
}

/// What a cluster of a gRPC client depends on: all that a proxy's does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProxylessClusterKey(pub ClusterKey);

/// The cluster; `None` for a port that the service does not have. What gRPC does not understand is not there: it
/// refuses clusters with transport sockets that are chosen by endpoint, or with another load balancer.
pub fn cluster(ProxylessClusterKey(key): &ProxylessClusterKey) -> Option<Cluster> {
    key.service.port(key.port)?;
    let name = key.name();
    let settings = traffic_policy::effective(key.rules.as_deref(), key.subset.as_deref(), key.port);
    let mut cluster = Cluster {
        name: name.clone(),
        lb_policy: LbPolicy::RoundRobin as i32,
        connect_timeout: Some(duration(key.mesh.connect_timeout)),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![traffic_policy::thresholds(settings.connection_pool.as_ref())],
            ..Default::default()
        }),
        outlier_detection: settings
            .outlier_detection
            .as_ref()
            .map(traffic_policy::outlier_detection),
        transport_socket: transport_socket(key, settings.tls.as_ref().map(|tls| tls.mode)),
        ..Default::default()
    };
    match &key.service.resolution {
        Resolution::Endpoints => {
            cluster.cluster_discovery_type =
                Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32));
            cluster.eds_cluster_config =
                Some(EdsClusterConfig { eds_config: Some(ads()), service_name: name });
        }
        Resolution::Dns(target) => {
            cluster.cluster_discovery_type =
                Some(ClusterDiscoveryType::Type(DiscoveryType::LogicalDns as i32));
            cluster.load_assignment = Some(one_endpoint(&name, socket_address(target, key.port)));
        }
    }
    Some(cluster)
}

/// Mesh TLS only where a DestinationRule asks for it: a client without an agent has no certificates, and one with
/// certificates names the provider that has them `default` in its bootstrap, as Istio's agent writes it.
fn transport_socket(key: &ClusterKey, mode: Option<ClientTlsMode>) -> Option<TransportSocket> {
    (mode == Some(ClientTlsMode::IstioMutual)).then(|| mesh_client_of_provider(&sans(key)))
}
