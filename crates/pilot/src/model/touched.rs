//! What a change touches: the few hosts and namespaces whose configuration has to be looked at again.

use std::collections::{BTreeMap, BTreeSet};

use super::destination_rule::DestinationRuleIndex;
use super::hostname;
use super::interned::Interned;
use super::objects::Name;
use super::registry::RowChange;
use super::service::{Host, Service};
use super::virtual_service::VirtualServiceRule;

/// Parts of what is known of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Aspect(u8);

impl Aspect {
    /// Its service: ports, visibility, or that there is one.
    pub const SERVICE: Aspect = Aspect(1);
    /// Its instances.
    pub const INSTANCES: Aspect = Aspect(1 << 1);
    /// Who its instances are.
    pub const IDENTITIES: Aspect = Aspect(1 << 2);
    /// How its clients treat it.
    pub const POLICY: Aspect = Aspect(1 << 3);
    /// How requests for it are routed.
    pub const ROUTES: Aspect = Aspect(1 << 4);
    /// All of it.
    pub const ALL: Aspect = Aspect(0x1f);

    /// Whether any of `other` is there.
    pub fn any(self, other: Aspect) -> bool {
        self.0 & other.0 != 0
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Aspect) -> Aspect {
        Aspect(self.0 | other.0)
    }
}

/// What a change touches.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Look at everything: the mesh's configuration changed, or a policy of the root namespace.
    pub everything: bool,
    /// Hosts, by what changed of them.
    hosts: BTreeMap<Host, Aspect>,
    /// Wildcards of DestinationRules: every host that they cover.
    policy_patterns: Vec<String>,
    /// VirtualServices as they were and are, and those that lead to a changed service.
    pub virtual_services: Vec<Interned<VirtualServiceRule>>,
    /// Changed services as they were and are: the workloads that they select listen on other ports.
    pub selecting: Vec<Interned<Service>>,
    /// The labels by which VirtualServices tell callers apart.
    pub source_labels: bool,
    /// Gateway objects.
    pub gateways: bool,
    /// Namespaces whose PeerAuthentications changed.
    pub authentication: BTreeSet<String>,
    /// Namespaces whose Sidecars changed.
    pub sidecars: BTreeSet<String>,
    /// Credentials.
    pub credentials: BTreeSet<Name>,
}

impl Touched {
    /// Everything, for a model that starts from nothing.
    pub fn all() -> Touched {
        Touched { everything: true, ..Default::default() }
    }

    /// Adds a changed row.
    pub fn row(&mut self, host: &Host, change: RowChange) {
        for (changed, aspect) in [
            (change.service, Aspect::SERVICE),
            (change.instances, Aspect::INSTANCES),
            (change.identities, Aspect::IDENTITIES),
        ] {
            if changed {
                self.host(host, aspect);
            }
        }
    }

    /// Adds an aspect of a host.
    pub fn host(&mut self, host: &Host, aspect: Aspect) {
        let known = self.hosts.entry(Host::clone(host)).or_default();
        *known = known.with(aspect);
    }

    /// Adds the hosts whose rules differ.
    pub fn destination_rules(
        &mut self,
        before: &DestinationRuleIndex,
        after: &DestinationRuleIndex,
    ) {
        let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) = (identities(before), identities(after));
        for (key, rules) in old.iter().chain(&new) {
            if old.get(key) == Some(rules) && new.get(key) == Some(rules) {
                continue;
            }
            let host = key.1;
            if host.starts_with('*') {
                self.policy_patterns.push(host.to_owned());
            } else {
                self.host(&host.into(), Aspect::POLICY);
            }
        }
    }

    /// The hosts of which an aspect changed.
    pub fn hosts_with(&self, aspect: Aspect) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter(move |(_, known)| known.any(aspect)).map(|(host, _)| host)
    }

    /// Whether any DestinationRule changed.
    pub fn has_policies(&self) -> bool {
        !self.policy_patterns.is_empty() || self.hosts_with(Aspect::POLICY).next().is_some()
    }

    /// What of the registry's hosts has to be looked at: hosts that changed, hosts that changed rules speak for, and
    /// hosts that have changed policies. `all` are the registry's hosts, walked only for wildcards and namespaces.
    pub fn host_aspects<'a>(
        &self,
        all: impl Iterator<Item = &'a Service> + Clone,
    ) -> BTreeMap<Host, Aspect> {
        let mut aspects = self.hosts.clone();
        let mut add = |host: &Host, aspect: Aspect| {
            let known = aspects.entry(Host::clone(host)).or_default();
            *known = known.with(aspect);
        };
        for rule in &self.virtual_services {
            for pattern in &rule.hosts {
                if pattern.starts_with('*') {
                    let covered =
                        all.clone().filter(|service| hostname::covers(pattern, &service.host));
                    covered.for_each(|service| add(&service.host, Aspect::ROUTES));
                }
                add(&pattern.as_str().into(), Aspect::ROUTES);
            }
        }
        for pattern in &self.policy_patterns {
            let covered = all.clone().filter(|service| hostname::covers(pattern, &service.host));
            covered.for_each(|service| add(&service.host, Aspect::POLICY));
        }
        // Clients go by what the namespace of a service demands.
        if !self.authentication.is_empty() {
            let inside = all.filter(|service| self.authentication.contains(&*service.namespace));
            inside.for_each(|service| add(&service.host, Aspect::POLICY));
        }
        aspects
    }

    /// Whether nothing has to be looked at.
    pub fn is_empty(&self) -> bool {
        !self.everything
            && self.hosts.is_empty()
            && self.policy_patterns.is_empty()
            && self.virtual_services.is_empty()
            && !self.source_labels
            && !self.gateways
            && self.authentication.is_empty()
            && self.sidecars.is_empty()
            && self.credentials.is_empty()
    }
}

type Rules = Interned<super::destination_rule::DestinationRules>;

fn identities(index: &DestinationRuleIndex) -> BTreeMap<(&str, &str), Vec<&Rules>> {
    let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (namespace, host, rules) in index.hosts() {
        all.entry((namespace, host)).or_default().push(rules);
    }
    all
}
