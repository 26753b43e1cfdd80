//! What relays bytes: the network filters of a chain that is not HTTP.

use std::time::Duration;

use api::envoy::config::listener::v3::{Filter, filter};
use api::envoy::extensions::filters::network::tcp_proxy::v3::{
    TcpProxy, tcp_proxy::ClusterSpecifier,
};
use api::google::protobuf::Any;

use super::access_log::access_logs;
use super::encoding::pack;
use super::filters;
use super::values::duration;
use crate::model::mesh::MeshConfig;
use crate::proxy::Capabilities;

/// How long relayed connections may last, where a DestinationRule says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Without a byte either way; Envoy's hour where nothing is said.
    pub idle: Option<Duration>,
    /// In all.
    pub whole: Option<Duration>,
}

/// Counts the connections of mesh peers where the node can, then relays them to a cluster.
pub fn relay(
    stat_prefix: &str,
    to: ClusterSpecifier,
    limits: Limits,
    capabilities: Capabilities,
    mesh: &MeshConfig,
) -> Vec<Filter> {
    let proxy = TcpProxy {
        stat_prefix: stat_prefix.to_owned(),
        cluster_specifier: Some(to),
        idle_timeout: limits.idle.map(duration),
        max_downstream_connection_duration: limits.whole.map(duration),
        access_log: access_logs(mesh),
        ..Default::default()
    };
    let stats = filters::stats(capabilities).map(|config| filter(filters::STATS_FILTER, config));
    let proxy = filter("envoy.filters.network.tcp_proxy", pack(&proxy));
    stats.into_iter().chain([proxy]).collect()
}

fn filter(name: &str, config: Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}
