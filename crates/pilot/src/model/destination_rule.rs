//! DestinationRules, found by client namespace and host.

use std::collections::BTreeMap;

use resources::kinds::Parsed;
use resources::kinds::networking::destination_rule::{DestinationRule, Subset};
use resources::terms::traffic_policy::TrafficPolicy;

use super::export::ExportTo;
use super::hostname;
use super::interned::Interned;
use super::mesh::MeshConfig;
use super::objects::{Name, Table};

/// The DestinationRules of one namespace for one host that the same namespaces see, merged: the oldest one's policy,
/// everybody's subsets.
#[derive(Clone, Debug, PartialEq)]
pub struct DestinationRules {
    /// The objects, the oldest first, with their generations.
    pub sources: Vec<(Name, u64)>,
    /// Policy of every subset that has none of its own.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named parts of the service; a name belongs to the oldest rule that has it.
    pub subsets: Vec<Subset>,
    /// Who may use them.
    pub export_to: ExportTo,
}

impl DestinationRules {
    /// A named part of the service.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == name)
    }

    /// The Secrets that clients need for TLS of a user's own.
    pub fn credential_names(&self) -> impl Iterator<Item = &str> {
        let of_subsets = self.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
        let policies = self.traffic_policy.iter().chain(of_subsets);
        let settings = policies.flat_map(|policy| {
            let of_ports = policy.port_level.iter().map(|(_, settings)| settings);
            std::iter::once(&policy.settings).chain(of_ports)
        });
        settings.filter_map(|settings| settings.tls.as_ref()?.credential_name.as_deref())
    }
}

/// All DestinationRules.
#[derive(Clone, Debug, Default)]
pub struct DestinationRuleIndex {
    /// By namespace, then by full host or wildcard; the oldest first where not everybody sees the same.
    by_namespace: BTreeMap<String, BTreeMap<String, Vec<Interned<DestinationRules>>>>,
}

impl DestinationRuleIndex {
    /// The index of these objects; what did not change keeps its identity.
    pub fn build(
        objects: &Table<DestinationRule>,
        mesh: &MeshConfig,
        before: &DestinationRuleIndex,
    ) -> Self {
        let mut sorted: Vec<_> = objects.iter().collect();
        sorted.sort_by(|(a_name, a), (b_name, b)| {
            (&a.meta.creation_timestamp, &a_name.name)
                .cmp(&(&b.meta.creation_timestamp, &b_name.name))
        });
        let mut merged: BTreeMap<(String, String), Vec<DestinationRules>> = BTreeMap::new();
        // A rule for some client workloads only is not translated (its status says so): it must not reach the others.
        for (name, parsed) in
            sorted.into_iter().filter(|(_, parsed)| parsed.view.workload_selector.is_none())
        {
            let namespace = parsed.meta.namespace.clone();
            let host = hostname::resolve(&parsed.view.host, &namespace, &mesh.domain_suffix);
            let default = &mesh.destination_rule_export;
            let export_to = ExportTo::of(&parsed.view.export_to, &namespace, default);
            add(merged.entry((namespace, host)).or_default(), name, parsed, export_to);
        }
        let mut index = DestinationRuleIndex::default();
        for ((namespace, host), all) in merged {
            let old = before.by_namespace.get(&namespace).and_then(|hosts| hosts.get(&host));
            let all = all
                .into_iter()
                .enumerate()
                .map(|(place, rules)| Interned::renew(old.and_then(|old| old.get(place)), rules));
            index.by_namespace.entry(namespace).or_default().insert(host, all.collect());
        }
        index
    }

    /// The rules that clients in `client_namespace` use for a service: their own namespace's, else those that the
    /// service's namespace exports to them, else those of the root namespace.
    pub fn find(
        &self,
        client_namespace: &str,
        host: &str,
        service_namespace: &str,
        root_namespace: &str,
    ) -> Option<&Interned<DestinationRules>> {
        // Rules of the root namespace are defaults for all; they are looked up last even by clients that live there,
        // but for those that are for nobody else.
        let exported = |namespace: &str| {
            let mut all = self.most_specific(namespace, host).iter();
            all.find(|rules| rules.export_to.reaches(client_namespace))
        };
        let is_default = client_namespace == root_namespace;
        let own = exported(client_namespace).filter(|rules| {
            !is_default
                || rules.export_to == ExportTo::Namespaces([root_namespace.to_owned()].into())
        });
        own.or_else(|| exported(service_namespace)).or_else(|| exported(root_namespace))
    }

    /// Every namespace and host (or wildcard) that has rules.
    pub fn hosts(&self) -> impl Iterator<Item = (&str, &str, &Interned<DestinationRules>)> {
        self.by_namespace.iter().flat_map(|(namespace, hosts)| {
            hosts.iter().flat_map(move |(host, all)| {
                all.iter().map(move |rules| (namespace.as_str(), host.as_str(), rules))
            })
        })
    }

    fn most_specific(&self, namespace: &str, host: &str) -> &[Interned<DestinationRules>] {
        let Some(hosts) = self.by_namespace.get(namespace) else { return &[] };
        let found = hosts.get(host).or_else(|| {
            let wildcards = hosts.iter().filter(|(pattern, _)| pattern.starts_with('*'));
            let covering = wildcards.filter(|(pattern, _)| hostname::covers(pattern, host));
            covering.max_by_key(|(pattern, _)| pattern.len()).map(|(_, rules)| rules)
        });
        found.map(Vec::as_slice).unwrap_or_default()
    }
}

/// Adds a rule to those for its host that are older: it is merged into those that the same namespaces see, and into
/// those that fewer see, for whom it is there as well.
fn add(
    older: &mut Vec<DestinationRules>,
    name: &Name,
    parsed: &Parsed<DestinationRule>,
    export_to: ExportTo,
) {
    let mut stands_alone = true;
    for rules in older.iter_mut().filter(|rules| export_to.includes(&rules.export_to)) {
        stands_alone &= rules.export_to != export_to;
        rules.merge(name, parsed);
    }
    if stands_alone {
        let mut rules = DestinationRules {
            sources: Vec::new(),
            traffic_policy: None,
            subsets: Vec::new(),
            export_to,
        };
        rules.merge(name, parsed);
        older.push(rules);
    }
}

impl DestinationRules {
    fn merge(&mut self, name: &Name, parsed: &Parsed<DestinationRule>) {
        self.sources.push((name.clone(), parsed.meta.generation));
        if self.traffic_policy.is_none() {
            self.traffic_policy.clone_from(&parsed.view.traffic_policy);
        }
        for subset in &parsed.view.subsets {
            if self.subset(&subset.name).is_none() {
                self.subsets.push(subset.clone());
            }
        }
    }
}
