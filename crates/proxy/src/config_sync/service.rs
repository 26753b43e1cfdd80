//! The discovery services: which path serves which kind, and the kinds' types.

use xds::ResourceType;

use super::sink::ResourceKind;

impl ResourceKind {
    /// The kind of a resource type; `None` for what this proxy never asks for.
    pub fn from_resource_type(kind: ResourceType) -> Option<ResourceKind> {
        Some(match kind {
            ResourceType::Cluster => ResourceKind::Cluster,
            ResourceType::Endpoints => ResourceKind::Endpoints,
            ResourceType::Listener => ResourceKind::Listener,
            ResourceType::RouteConfiguration => ResourceKind::Routes,
            ResourceType::VirtualHost => ResourceKind::VirtualHosts,
            ResourceType::Secret => ResourceKind::Secret,
            ResourceType::ExtensionConfig => return None,
        })
    }

    /// The kind's resource type in the protocol.
    pub fn resource_type(self) -> ResourceType {
        match self {
            ResourceKind::Cluster => ResourceType::Cluster,
            ResourceKind::Endpoints => ResourceType::Endpoints,
            ResourceKind::Listener => ResourceType::Listener,
            ResourceKind::Routes => ResourceType::RouteConfiguration,
            ResourceKind::VirtualHosts => ResourceType::VirtualHost,
            ResourceKind::Secret => ResourceType::Secret,
        }
    }

    /// `type.googleapis.com/...`.
    pub fn type_url(self) -> &'static str {
        self.resource_type().type_url()
    }
}

/// The gRPC method for incremental discovery of one kind, or of all over the aggregated stream.
pub(super) fn delta_path(only: Option<ResourceKind>) -> &'static str {
    match only {
        None => "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
        Some(ResourceKind::Cluster) => {
            "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters"
        }
        Some(ResourceKind::Endpoints) => {
            "/envoy.service.endpoint.v3.EndpointDiscoveryService/DeltaEndpoints"
        }
        Some(ResourceKind::Listener) => {
            "/envoy.service.listener.v3.ListenerDiscoveryService/DeltaListeners"
        }
        Some(ResourceKind::Routes) => "/envoy.service.route.v3.RouteDiscoveryService/DeltaRoutes",
        Some(ResourceKind::VirtualHosts) => {
            "/envoy.service.route.v3.VirtualHostDiscoveryService/DeltaVirtualHosts"
        }
        Some(ResourceKind::Secret) => {
            "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"
        }
    }
}

/// The gRPC method for state-of-the-world discovery of one kind, or of all over the aggregated stream. Virtual hosts have
/// none: they are incremental by nature.
pub(super) fn sotw_path(only: Option<ResourceKind>) -> &'static str {
    match only {
        None => "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        Some(ResourceKind::Cluster) => {
            "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"
        }
        Some(ResourceKind::Endpoints) => {
            "/envoy.service.endpoint.v3.EndpointDiscoveryService/StreamEndpoints"
        }
        Some(ResourceKind::Listener) => {
            "/envoy.service.listener.v3.ListenerDiscoveryService/StreamListeners"
        }
        Some(ResourceKind::Routes) => "/envoy.service.route.v3.RouteDiscoveryService/StreamRoutes",
        Some(ResourceKind::VirtualHosts) => delta_path(only),
        Some(ResourceKind::Secret) => {
            "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets"
        }
    }
}
