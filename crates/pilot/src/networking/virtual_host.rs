//! Virtual hosts: what is routed for one host name and port.

use std::sync::Arc;
use std::time::Duration;

use api::envoy::config::route::v3::{
    DirectResponseAction, RetryPolicy, Route, RouteAction, RouteMatch, VirtualHost,
    route::Action,
    route_action::{ClusterSpecifier, UpgradeConfig, upgrade_config::ConnectConfig},
    route_match::{ConnectMatcher, PathSpecifier},
    virtual_host::TlsRequirementType,
};

use super::retry;
use super::route::{RoutesKey, default_route, routes};
use super::route_match;
use super::values::duration;
use crate::model::mesh::DefaultRetries;
use crate::naming;

/// What a virtual host depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualHostKey {
    /// `host:port`.
    pub name: Arc<str>,
    /// What requests may call it, sorted by preference.
    pub domains: Vec<String>,
    /// The VirtualServices that speak for it, in order; a request takes the first route that matches.
    pub virtual_services: Vec<RoutesKey>,
    /// The cluster of a service for which none speaks.
    pub default_cluster: Option<String>,
    /// Plain HTTP is redirected to HTTPS.
    pub redirect_to_https: bool,
    /// Retries where a route says nothing.
    pub default_retries: DefaultRetries,
    /// Where tunnels lead that a client of an HTTP proxy asks for with CONNECT.
    pub tunnel_cluster: Option<String>,
}

/// What a client of an HTTP proxy asks for a tunnel with, and what such an upgrade is called.
pub const CONNECT: &str = "CONNECT";

/// The virtual host.
pub fn virtual_host(key: &VirtualHostKey) -> VirtualHost {
    let retries = &key.default_retries;
    let mut all: Vec<Route> =
        key.virtual_services.iter().flat_map(|written| routes(written, retries)).collect();
    // What matches everything comes last: no VirtualService of a host shadows another's narrower routes.
    all.sort_by_key(|route| route.r#match.as_ref().is_some_and(route_match::is_catch_all));
    if key.virtual_services.is_empty()
        && let Some(cluster) = &key.default_cluster
    {
        all.push(default_route(cluster.clone(), retry::outbound(retries)));
    }
    // CONNECT has no path, so no other route takes it.
    all.extend(key.tunnel_cluster.iter().map(|cluster| tunnel(cluster)));
    VirtualHost {
        name: key.name.to_string(),
        domains: key.domains.clone(),
        routes: all,
        include_request_attempt_count: true,
        require_tls: if key.redirect_to_https { TlsRequirementType::All as i32 } else { 0 },
        ..Default::default()
    }
}

/// A route that ends the HTTP of a CONNECT request here and relays what it carries: TLS of the client's own, or HTTP/2
/// that a gRPC client sends through a proxy.
fn tunnel(cluster: &str) -> Route {
    let upgrade = UpgradeConfig {
        upgrade_type: CONNECT.to_owned(),
        connect_config: Some(ConnectConfig::default()),
        ..Default::default()
    };
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        timeout: Some(duration(Duration::ZERO)),
        upgrade_configs: vec![upgrade],
        ..Default::default()
    };
    Route {
        name: naming::TUNNEL_ROUTE.to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::ConnectMatcher(ConnectMatcher {})),
            ..Default::default()
        }),
        action: Some(Action::Route(action)),
        ..Default::default()
    }
}

/// The virtual host of last resort: answers `status` to every host that no other virtual host has.
pub fn refuse_all(name: &str, status: u32) -> VirtualHost {
    VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![Route {
            name: name.to_owned(),
            r#match: Some(route_match::everything()),
            action: Some(Action::DirectResponse(DirectResponseAction {
                status,
                ..Default::default()
            })),
            ..Default::default()
        }],
        include_request_attempt_count: true,
        ..Default::default()
    }
}

/// The virtual host of an inbound port: everything goes to the application.
pub fn inbound(port: u16, cluster: String, retries: Option<RetryPolicy>) -> VirtualHost {
    VirtualHost {
        name: naming::inbound_virtual_host(port),
        domains: vec!["*".to_owned()],
        routes: vec![default_route(cluster, retries)],
        ..Default::default()
    }
}
