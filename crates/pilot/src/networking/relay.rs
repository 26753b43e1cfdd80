//! What relays bytes: the network filters of a chain that is not HTTP.

use std::time::Duration;

use api::envoy::config::listener::v3::{Filter, filter};
use api::envoy::extensions::filters::network::tcp_proxy::v3::{
    TcpProxy,
    tcp_proxy::{ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight},
};
use api::google::protobuf::Any;

use super::access_log::access_logs;
use super::encoding::pack;
use super::filters;
use super::values::duration;
use crate::model::interned::Interned;
use crate::model::mesh::MeshConfig;
use crate::model::virtual_service::VirtualServiceRule;
use crate::naming;
use crate::proxy::Capabilities;

/// How long relayed connections may last, where a DestinationRule says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Without a byte either way; Envoy's hour where nothing is said.
    pub idle: Option<Duration>,
    /// In all.
    pub whole: Option<Duration>,
}

/// Connections of some server names, or all, and where they go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayChain {
    /// Server names, wildcards allowed; empty matches every connection.
    pub server_names: Vec<String>,
    /// Clusters with their weights.
    pub clusters: Vec<(String, u32)>,
    /// How long they may last.
    pub limits: Limits,
    /// The VirtualService that says so, if one does.
    pub virtual_service: Option<Interned<VirtualServiceRule>>,
}

impl RelayChain {
    /// Istio's name for its statistics: its cluster's, or its VirtualService's where there are several.
    fn stat_prefix(&self) -> String {
        match (self.clusters.as_slice(), &self.virtual_service) {
            ([(only, _)], _) => only.clone(),
            ([_, ..], Some(rule)) => format!("{}.{}", rule.name, rule.namespace),
            _ => naming::BLACK_HOLE_CLUSTER.to_owned(),
        }
    }

    /// One cluster, or several by weight. None at all is the cluster without endpoints.
    fn cluster_specifier(&self) -> ClusterSpecifier {
        match self.clusters.as_slice() {
            [] => ClusterSpecifier::Cluster(naming::BLACK_HOLE_CLUSTER.to_owned()),
            [(only, _)] => ClusterSpecifier::Cluster(only.clone()),
            several => ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters: several
                    .iter()
                    .filter(|(_, weight)| *weight > 0)
                    .map(|(name, weight)| ClusterWeight {
                        name: name.clone(),
                        weight: *weight,
                        ..Default::default()
                    })
                    .collect(),
            }),
        }
    }
}

/// Counts the connections of mesh peers where the node can, then relays them.
pub fn relay(to: &RelayChain, capabilities: Capabilities, mesh: &MeshConfig) -> Vec<Filter> {
    let proxy = TcpProxy {
        stat_prefix: to.stat_prefix(),
        cluster_specifier: Some(to.cluster_specifier()),
        idle_timeout: to.limits.idle.map(duration),
        max_downstream_connection_duration: to.limits.whole.map(duration),
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
