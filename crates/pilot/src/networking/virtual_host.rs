//! Virtual hosts: what is routed for one host name and port.

use std::sync::Arc;

use api::envoy::config::route::v3::{
    DirectResponseAction, Route, VirtualHost, route::Action, virtual_host::TlsRequirementType,
};

use super::route::{RoutesKey, default_route, routes};
use super::route_match;
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
}

/// The virtual host.
pub fn virtual_host(key: &VirtualHostKey) -> VirtualHost {
    let mut all: Vec<Route> = key.virtual_services.iter().flat_map(routes).collect();
    if key.virtual_services.is_empty()
        && let Some(cluster) = &key.default_cluster
    {
        all.push(default_route(cluster.clone()));
    }
    VirtualHost {
        name: key.name.to_string(),
        domains: key.domains.clone(),
        routes: all,
        include_request_attempt_count: true,
        require_tls: if key.redirect_to_https { TlsRequirementType::All as i32 } else { 0 },
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
        ..Default::default()
    }
}

/// The virtual host of an inbound port: everything goes to the application.
pub fn inbound(port: u16, cluster: String) -> VirtualHost {
    let mut route = default_route(cluster);
    // The caller retries: retrying here as well would multiply the attempts.
    if let Some(Action::Route(action)) = &mut route.action {
        action.retry_policy = None;
    }
    VirtualHost {
        name: naming::inbound_virtual_host(port),
        domains: vec!["*".to_owned()],
        routes: vec![route],
        ..Default::default()
    }
}
