//! Gateway objects, found by the workloads that they select.

use std::collections::BTreeMap;

use resources::kinds::networking::gateway::{Gateway, HostNamespaces, Server};
use resources::terms::gateway_ref::GatewayRef;

use super::hostname;
use super::interned::Interned;
use super::objects::{Name, Table};
use super::virtual_service::VirtualServiceRule;

/// A Gateway as translation takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct GatewayRule {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When it was made: the oldest wins a conflict.
    pub created: String,
    /// Its generation, for status.
    pub generation: u64,
    /// What it says.
    pub view: Gateway,
}

impl GatewayRule {
    /// How routes name it.
    pub fn reference(&self) -> GatewayRef {
        GatewayRef::Gateway { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// The hosts of a VirtualService that a server exposes: the narrower of each pair.
pub fn exposed_hosts(server: &Server, rule: &VirtualServiceRule) -> Vec<String> {
    let mut exposed = Vec::new();
    for offered in &server.hosts {
        let may_bind = match &offered.namespaces {
            HostNamespaces::Any => true,
            HostNamespaces::One(namespace) => *namespace == rule.namespace,
        };
        if !may_bind {
            continue;
        }
        for host in &rule.hosts {
            if let Some(narrower) = hostname::intersection(&offered.host, host)
                && !exposed.iter().any(|seen| seen == narrower)
            {
                exposed.push(narrower.to_owned());
            }
        }
    }
    exposed
}

/// All Gateways.
#[derive(Clone, Debug, Default)]
pub struct Gateways {
    rules: BTreeMap<Name, Interned<GatewayRule>>,
}

impl Gateways {
    /// The index of these objects; what did not change keeps its identity.
    pub fn build(objects: &Table<Gateway>, before: &Gateways) -> Gateways {
        let rules = objects.iter().map(|(name, parsed)| {
            let rule = GatewayRule {
                namespace: parsed.meta.namespace.clone(),
                name: parsed.meta.name.clone(),
                created: parsed.meta.creation_timestamp.clone(),
                generation: parsed.meta.generation,
                view: parsed.view.clone(),
            };
            (name.clone(), Interned::renew(before.rules.get(name), rule))
        });
        Gateways { rules: rules.collect() }
    }

    /// The Gateways that select a workload, the oldest first.
    pub fn selecting(&self, labels: &BTreeMap<String, String>) -> Vec<Interned<GatewayRule>> {
        let selects = |rule: &&Interned<GatewayRule>| {
            rule.view.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        let mut selected: Vec<_> = self.rules.values().filter(selects).cloned().collect();
        selected.sort_by(|a, b| {
            (&a.created, &a.name, &a.namespace).cmp(&(&b.created, &b.name, &b.namespace))
        });
        selected
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}
