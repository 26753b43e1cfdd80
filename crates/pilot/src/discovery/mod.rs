//! From the model to resources: one xDS type, one file.
//!
//! A generator gathers the keys of its resources, each key the very struct that its translation takes, and has them
//! translated and encoded once ([`memo`]). What many proxies see alike is kept once for all of them ([`view`]); what is
//! one proxy's alone, its listeners for instance, is kept with the proxy.

pub mod cluster;
pub mod endpoint;
pub mod gateway_routes;
pub mod listener;
pub mod memo;
pub mod origin;
pub mod proxyless;
pub mod route;
pub mod secret;
pub mod upstream;
pub mod view;
pub mod virtual_host;

use xds::ResourceType;

use crate::model::service::Host;
use crate::model::{Aspect, PushContext};
use crate::networking;
use crate::proxy::Proxy;
use memo::Memo;
use origin::Translated;
use view::{View, ViewKey};

/// Everything that was translated, by kind of key.
#[derive(Debug, Default)]
pub struct Caches {
    /// Outbound clusters.
    pub clusters: Memo<networking::cluster::ClusterKey>,
    /// Inbound clusters.
    pub inbound_clusters: Memo<networking::cluster::InboundClusterKey>,
    /// Load assignments.
    pub endpoints: Memo<networking::endpoints::EndpointsKey>,
    /// Inbound listeners.
    pub inbound_listeners: Memo<networking::inbound::InboundKey>,
    /// Outbound HTTP listeners.
    pub http_listeners: Memo<networking::outbound::HttpKey>,
    /// Outbound TCP listeners.
    pub tcp_listeners: Memo<networking::outbound::TcpKey>,
    /// Gateway listeners.
    pub gateway_listeners: Memo<networking::gateway::GatewayListenerKey>,
    /// Route configurations, with their virtual hosts or where to get them.
    pub route_configurations: Memo<route::RouteConfigurationKey>,
    /// Virtual hosts.
    pub virtual_hosts: Memo<virtual_host::ResourceKey>,
    /// Listeners of gRPC clients.
    pub proxyless_listeners: Memo<networking::proxyless::ListenerKey>,
    /// Route configurations of gRPC clients.
    pub proxyless_routes: Memo<networking::proxyless::RoutesKey>,
    /// Clusters of gRPC clients.
    pub proxyless_clusters: Memo<networking::proxyless::ProxylessClusterKey>,
    /// Gateway credentials.
    pub secrets: Memo<networking::secret::SecretKey>,
    /// The cluster without endpoints, which has no inputs.
    pub black_hole: Memo<()>,
}

impl Caches {
    /// How often anything was translated and encoded.
    pub fn translations(&self) -> u64 {
        self.clusters.translations()
            + self.inbound_clusters.translations()
            + self.endpoints.translations()
            + self.inbound_listeners.translations()
            + self.http_listeners.translations()
            + self.tcp_listeners.translations()
            + self.gateway_listeners.translations()
            + self.route_configurations.translations()
            + self.virtual_hosts.translations()
            + self.proxyless_listeners.translations()
            + self.proxyless_routes.translations()
            + self.proxyless_clusters.translations()
            + self.secrets.translations()
            + self.black_hole.translations()
    }

    /// Forgets what nobody uses any more.
    pub fn sweep(&mut self) {
        self.clusters.sweep();
        self.inbound_clusters.sweep();
        self.endpoints.sweep();
        self.inbound_listeners.sweep();
        self.http_listeners.sweep();
        self.tcp_listeners.sweep();
        self.gateway_listeners.sweep();
        self.route_configurations.sweep();
        self.virtual_hosts.sweep();
        self.proxyless_listeners.sweep();
        self.proxyless_routes.sweep();
        self.proxyless_clusters.sweep();
        self.secrets.sweep();
    }
}

/// How the resources of one type come to be.
pub struct Generator {
    /// The type.
    pub kind: ResourceType,
    /// What of a host its resources for that host depend on.
    pub aspects: Aspect,
    /// The resources that stand for a host in a view.
    pub of_host: fn(&mut Caches, &PushContext, &ViewKey, &Host) -> Vec<Translated>,
    /// Types whose changes in a view change what is made for the view as a whole.
    pub follows: &'static [ResourceType],
    /// The resources that stand for a view as a whole, from what its hosts have.
    pub of_view: fn(&mut Caches, &PushContext, &View) -> Vec<Translated>,
    /// The resources of one proxy alone.
    pub of_proxy: fn(&mut Caches, &PushContext, &Proxy, &ViewKey) -> Vec<Translated>,
}

/// One row a type. Virtual hosts stand before the route configurations that are assembled from them.
pub const GENERATORS: [Generator; 6] = [
    cluster::GENERATOR,
    endpoint::GENERATOR,
    listener::GENERATOR,
    virtual_host::GENERATOR,
    route::GENERATOR,
    secret::GENERATOR,
];

fn nothing_of_host(_: &mut Caches, _: &PushContext, _: &ViewKey, _: &Host) -> Vec<Translated> {
    Vec::new()
}

fn nothing_of_view(_: &mut Caches, _: &PushContext, _: &View) -> Vec<Translated> {
    Vec::new()
}

fn nothing_of_proxy(_: &mut Caches, _: &PushContext, _: &Proxy, _: &ViewKey) -> Vec<Translated> {
    Vec::new()
}
