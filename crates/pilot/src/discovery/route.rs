//! RDS: route configurations, which name where their virtual hosts come from or hold them all.

use std::sync::Arc;

use api::envoy::config::route::v3::{RouteConfiguration, Vhds};
use api::google::protobuf::Any;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost::{Message, Name};
use xds::{Resource, ResourceType, Version};

use super::gateway_routes;
use super::origin::Translated;
use super::view::{Resources, View, ViewKey};
use super::{Caches, Generator, proxyless};
use crate::model::service::Host;
use crate::model::{Aspect, PushContext};
use crate::networking::encoding::encode;
use crate::networking::tls::ads;
use crate::networking::values::{boolean, number};
use crate::proxy::{Capabilities, Proxy, ProxyKind};

pub(super) const GENERATOR: Generator = Generator {
    kind: ResourceType::RouteConfiguration,
    aspects: Aspect::SERVICE.with(Aspect::ROUTES),
    of_host,
    follows: &[ResourceType::VirtualHost],
    of_view,
    of_proxy,
};

/// Istio lets direct responses be this big.
const MAX_DIRECT_RESPONSE_BYTES: u32 = 1024 * 1024;

/// What a route configuration depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteConfigurationKey {
    name: Arc<str>,
    /// Whether requests' ports do not matter for finding the virtual host.
    ignore_port: bool,
    virtual_hosts: VirtualHosts,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum VirtualHosts {
    /// Resources of their own.
    Elsewhere,
    /// In place: by name and version, which stand for their bytes.
    InPlace(Vec<(Arc<str>, Version)>),
}

/// The route configuration of this name. `all` has its virtual hosts, for nodes that do not fetch them by themselves.
pub fn resource(
    caches: &mut Caches,
    name: &str,
    ignore_port: bool,
    capabilities: Capabilities,
    all: &Resources,
) -> Option<Translated> {
    let eager = capabilities.contains(Capabilities::EAGER_VHDS);
    let prefix = format!("{name}/");
    let own = || {
        all.range(Arc::from(prefix.as_str())..).take_while(|(name, _)| name.starts_with(&prefix))
    };
    let virtual_hosts = if eager {
        VirtualHosts::Elsewhere
    } else {
        VirtualHosts::InPlace(
            own().map(|(name, resource)| (Arc::clone(name), resource.version())).collect(),
        )
    };
    let key = RouteConfigurationKey { name: name.into(), ignore_port, virtual_hosts };
    caches.route_configurations.encoded(key, |key| {
        let head = RouteConfiguration {
            name: key.name.to_string(),
            vhds: eager.then(|| Vhds { config_source: Some(ads()) }),
            validate_clusters: boolean(false),
            max_direct_response_body_size_bytes: number(MAX_DIRECT_RESPONSE_BYTES),
            ignore_port_in_host_matching: key.ignore_port,
            ..Default::default()
        };
        let mut bytes = encode(&head);
        if !eager {
            own().for_each(|(_, resource)| append_virtual_host(resource, &mut bytes));
        }
        Some(Resource::new(Arc::clone(&key.name), &RouteConfiguration::type_url(), bytes))
    })
}

/// `RouteConfiguration.virtual_hosts`.
const VIRTUAL_HOSTS_FIELD: u32 = 2;

/// Appends a virtual host that is encoded already: fields of a protobuf message may come in any order.
fn append_virtual_host(resource: &Resource, bytes: &mut Vec<u8>) {
    // This process encoded it, so it decodes.
    let Ok(any) = Any::decode(resource.any()) else { return };
    encode_key(VIRTUAL_HOSTS_FIELD, WireType::LengthDelimited, bytes);
    encode_varint(any.value.len() as u64, bytes);
    bytes.extend_from_slice(&any.value);
}

/// Only gRPC clients have route configurations of hosts.
fn of_host(
    caches: &mut Caches,
    context: &PushContext,
    view: &ViewKey,
    host: &Host,
) -> Vec<Translated> {
    match view.kind {
        ProxyKind::Proxyless => proxyless::routes(caches, context, view, host),
        ProxyKind::Sidecar | ProxyKind::Router => Vec::new(),
    }
}

fn of_view(caches: &mut Caches, _: &PushContext, view: &View) -> Vec<Translated> {
    if view.key.kind != ProxyKind::Sidecar {
        return Vec::new();
    }
    let all = view.resources(ResourceType::VirtualHost);
    let routes = view.key.egress().routes();
    routes
        .iter()
        // Requests to an HTTP proxy tell a service's ports apart by the host header.
        .filter_map(|routes| {
            resource(caches, &routes.name, !routes.is_proxy(), view.key.capabilities, all)
        })
        .collect()
}

fn of_proxy(
    caches: &mut Caches,
    context: &PushContext,
    proxy: &Proxy,
    view: &ViewKey,
) -> Vec<Translated> {
    let mut all = Resources::new();
    let mut names = gateway_routes::names(context, proxy);
    for (routes, key) in super::virtual_host::of_proxy_alone(context, proxy, view) {
        names.insert(routes.clone());
        if let Some(made) = super::virtual_host::resource(caches, &routes, key) {
            all.insert(Arc::clone(made.resource.name()), made.resource);
        }
    }
    names.iter().filter_map(|name| resource(caches, name, true, proxy.capabilities, &all)).collect()
}
