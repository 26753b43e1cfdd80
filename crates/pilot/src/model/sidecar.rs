//! Sidecar objects: what a workload's proxy listens on, and which hosts it knows.

use std::collections::BTreeMap;

use resources::kinds::networking::sidecar::{EgressHost, EgressListener, EgressNamespace, Sidecar};

use super::hostname;
use super::interned::Interned;
use super::objects::{Name, Table};
use super::service::{Protocol, Service, ServicePort};

/// The route configuration of the outbound HTTP proxy that no Sidecar object asked for.
pub const HTTP_PROXY_ROUTE: &str = "http_proxy";

/// A Sidecar object as translation takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct SidecarRule {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its generation, for status.
    pub generation: u64,
    /// What it says.
    pub view: Sidecar,
}

/// All Sidecars, by namespace.
#[derive(Clone, Debug, Default)]
pub struct Sidecars {
    /// With and without a selector, the oldest first.
    by_namespace: BTreeMap<String, Vec<Interned<SidecarRule>>>,
    rules: BTreeMap<Name, Interned<SidecarRule>>,
    root: String,
}

impl Sidecars {
    /// The index of these objects; what did not change keeps its identity.
    pub fn build(objects: &Table<Sidecar>, root_namespace: &str, before: &Sidecars) -> Sidecars {
        let mut sorted: Vec<_> = objects.iter().collect();
        sorted.sort_by(|(a_name, a), (b_name, b)| {
            (&a.meta.creation_timestamp, &a_name.name)
                .cmp(&(&b.meta.creation_timestamp, &b_name.name))
        });
        let mut index = Sidecars { root: root_namespace.to_owned(), ..Default::default() };
        for (name, parsed) in sorted {
            let rule = SidecarRule {
                namespace: parsed.meta.namespace.clone(),
                name: parsed.meta.name.clone(),
                generation: parsed.meta.generation,
                view: parsed.view.clone(),
            };
            let rule = Interned::renew(before.rules.get(name), rule);
            index.by_namespace.entry(rule.namespace.clone()).or_default().push(rule.clone());
            index.rules.insert(name.clone(), rule);
        }
        index
    }

    /// The Sidecar of a workload: one that selects it, else its namespace's, else the mesh's.
    pub fn find(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Option<&Interned<SidecarRule>> {
        let own = self.by_namespace.get(namespace).map(Vec::as_slice).unwrap_or_default();
        let selects = |rule: &&Interned<SidecarRule>| {
            let selector = rule.view.workload_selector.as_ref();
            selector.is_some_and(|selector| {
                selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            })
        };
        let is_default = |rule: &&Interned<SidecarRule>| rule.view.workload_selector.is_none();
        let root = self.by_namespace.get(&self.root).map(Vec::as_slice).unwrap_or_default();
        own.iter()
            .find(selects)
            .or_else(|| own.iter().find(is_default))
            .or_else(|| root.iter().find(is_default))
    }
}

/// A set of virtual hosts that a proxy routes by: one route configuration.
#[derive(Clone, Debug)]
pub struct OutboundRoutes<'a> {
    /// Its name.
    pub name: String,
    /// Only services with this port; every HTTP port of every service where there is none.
    pub port: Option<u16>,
    /// Where its hosts are listed; none means all.
    listener: Option<&'a EgressListener>,
}

impl OutboundRoutes<'_> {
    /// Whether it has a virtual host for this port of a service.
    pub fn includes(&self, own_namespace: &str, service: &Service, port: &ServicePort) -> bool {
        (port.may_be_http() || self.is_proxy())
            && self.port.is_none_or(|number| number == port.number)
            && self.listener.is_none_or(|listener| imports(listener, own_namespace, service))
    }

    /// Whether requests name the port that they mean: those to an HTTP proxy do, those to a port mean that port.
    pub fn is_proxy(&self) -> bool {
        self.port.is_none()
    }
}

/// The egress side of a Sidecar, or of none.
#[derive(Clone, Copy, Debug)]
pub struct Egress<'a>(pub Option<&'a SidecarRule>);

impl<'a> Egress<'a> {
    /// Whether a workload with this Sidecar knows a service.
    pub fn knows(self, own_namespace: &str, service: &Service) -> bool {
        if !service.export_to.reaches(own_namespace) {
            return false;
        }
        match self.listeners() {
            [] => true,
            listeners => listeners.iter().any(|listener| imports(listener, own_namespace, service)),
        }
    }

    /// The route configurations of its HTTP listeners.
    pub fn routes(self) -> Vec<OutboundRoutes<'a>> {
        let http_proxy =
            |listener| OutboundRoutes { name: HTTP_PROXY_ROUTE.to_owned(), port: None, listener };
        match self.listeners() {
            [] => vec![http_proxy(None)],
            listeners => listeners
                .iter()
                .filter_map(|listener| match &listener.port {
                    None => Some(http_proxy(Some(listener))),
                    Some(port) if port.protocol == Protocol::HttpProxy => Some(OutboundRoutes {
                        name: port.number.to_string(),
                        port: None,
                        listener: Some(listener),
                    }),
                    Some(port)
                        if port.protocol.is_http() || port.protocol == Protocol::Unspecified =>
                    {
                        Some(OutboundRoutes {
                            name: port.number.to_string(),
                            port: Some(port.number),
                            listener: Some(listener),
                        })
                    }
                    Some(_) => None,
                })
                .collect(),
        }
    }

    /// The listeners that a user wrote.
    pub fn listeners(self) -> &'a [EgressListener] {
        self.0.map(|rule| rule.view.egress.as_slice()).unwrap_or_default()
    }
}

/// Whether a listener's hosts have a service.
pub fn imports(listener: &EgressListener, own_namespace: &str, service: &Service) -> bool {
    let has = |host: &EgressHost| {
        let namespace = match &host.namespace {
            EgressNamespace::Any => true,
            EgressNamespace::Nothing => false,
            EgressNamespace::One(one) if one == "." => *own_namespace == *service.namespace,
            EgressNamespace::One(one) => **one == *service.namespace,
        };
        namespace && hostname::covers(&host.host, &service.host)
    };
    let listed = listener.hosts.iter().filter(|host| !host.excluded).any(has);
    listed && !listener.hosts.iter().filter(|host| host.excluded).any(has)
}
