//! Which objects a resource was made of: what their status stands on.

use std::sync::Arc;

use resources::kinds::networking::destination_rule::DestinationRule;
use resources::kinds::networking::gateway::Gateway;
use resources::kinds::networking::virtual_service::VirtualService;
use resources::kinds::{Kind, KindInfo};
use xds::Resource;

use super::route::RouteConfigurationKey;
use super::virtual_host::ResourceKey;
use crate::model::objects::Name;
use crate::model::virtual_service::VirtualServiceRule;
use crate::networking::cluster::{ClusterKey, InboundClusterKey};
use crate::networking::endpoints::EndpointsKey;
use crate::networking::gateway::{GatewayListenerKey, ServerAction};
use crate::networking::inbound::InboundKey;
use crate::networking::outbound::{HttpKey, TcpKey};
use crate::networking::proxyless::{self, ProxylessClusterKey};
use crate::networking::secret::SecretKey;
use crate::networking::virtual_host::VirtualHostKey;

/// An object that resources are made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Its kind's name.
    pub kind: &'static str,
    /// Its namespace and name.
    pub name: Name,
}

/// The objects of a resource, shared by all who have the resource.
pub type Origins = Arc<[Origin]>;

/// A resource, with the objects that it was made of.
#[derive(Clone, Debug)]
pub struct Translated {
    /// The resource.
    pub resource: Resource,
    /// The objects.
    pub origins: Origins,
}

impl Origin {
    /// An object of kind `T`.
    pub fn of<T: Kind>(name: Name) -> Origin {
        let info: &KindInfo = T::INFO;
        Origin { kind: info.kind, name }
    }
}

/// A translation's input, which knows the objects that it comes from.
pub trait Origined {
    /// The objects. Those that a user writes for this very purpose: a service's own are told elsewhere.
    fn origins(&self) -> Vec<Origin>;
}

impl Origined for ClusterKey {
    fn origins(&self) -> Vec<Origin> {
        let rules = self.rules.iter().flat_map(|rules| &rules.sources);
        rules.map(|(name, _)| Origin::of::<DestinationRule>(name.clone())).collect()
    }
}

impl Origined for VirtualHostKey {
    fn origins(&self) -> Vec<Origin> {
        self.virtual_services
            .iter()
            .flat_map(|routes| rule_origins(&routes.virtual_service))
            .collect()
    }
}

impl Origined for ResourceKey {
    fn origins(&self) -> Vec<Origin> {
        match self {
            ResourceKey::Host(_, key) => key.origins(),
            ResourceKey::Refuse(_) => Vec::new(),
        }
    }
}

impl Origined for ProxylessClusterKey {
    fn origins(&self) -> Vec<Origin> {
        self.0.origins()
    }
}

impl Origined for proxyless::RoutesKey {
    fn origins(&self) -> Vec<Origin> {
        self.virtual_host.origins()
    }
}

impl Origined for TcpKey {
    fn origins(&self) -> Vec<Origin> {
        let rules = self.chains.iter().filter_map(|chain| chain.virtual_service.as_ref());
        rules.flat_map(|rule| rule_origins(rule)).collect()
    }
}

impl Origined for GatewayListenerKey {
    fn origins(&self) -> Vec<Origin> {
        let gateways = self.servers.iter().map(|server| {
            Origin::of::<Gateway>(Name::new(&server.gateway.namespace, &server.gateway.name))
        });
        let relayed = self.servers.iter().flat_map(|server| match &server.action {
            ServerAction::Http { .. } => &[],
            ServerAction::Relay { chains } => chains.as_slice(),
        });
        let rules = relayed.filter_map(|chain| chain.virtual_service.as_ref());
        let rules = rules.flat_map(|rule| rule_origins(rule));
        gateways.chain(rules).collect()
    }
}

impl Origined for SecretKey {
    fn origins(&self) -> Vec<Origin> {
        self.gateways.iter().cloned().map(Origin::of::<Gateway>).collect()
    }
}

/// A VirtualService and those that it delegates to.
fn rule_origins(rule: &VirtualServiceRule) -> Vec<Origin> {
    let own = Name::new(&rule.namespace, &rule.name);
    let all = std::iter::once(own).chain(rule.delegates.iter().cloned());
    all.map(Origin::of::<VirtualService>).collect()
}

/// Inputs that come of services, workloads and policies that select the proxy itself.
macro_rules! without_origins {
    ($($key:ty),*) => {
        $(impl Origined for $key {
            fn origins(&self) -> Vec<Origin> {
                Vec::new()
            }
        })*
    };
}

without_origins!(
    (),
    EndpointsKey,
    HttpKey,
    InboundClusterKey,
    InboundKey,
    RouteConfigurationKey,
    proxyless::ListenerKey
);
