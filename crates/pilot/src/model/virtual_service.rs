//! VirtualServices, found by the gateway they are for and the hosts they speak for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use resources::field::Finding;
use resources::kinds::Parsed;
use resources::kinds::networking::virtual_service::{HttpAction, L4Match, VirtualService};
use resources::terms::gateway_ref::GatewayRef;

use super::delegate;
use super::export::ExportTo;
use super::hostname;
use super::interned::Interned;
use super::mesh::MeshConfig;
use super::objects::{Name, Table};

/// A VirtualService as translation takes it.
#[derive(Clone, Debug, PartialEq)]
pub struct VirtualServiceRule {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When it was made: the oldest wins a host.
    pub created: String,
    /// Its generation, for status.
    pub generation: u64,
    /// Full host names and wildcards.
    pub hosts: Vec<String>,
    /// Who may use it.
    pub export_to: ExportTo,
    /// What it says, its delegates' routes in place.
    pub view: VirtualService,
    /// The VirtualServices that it delegates to.
    pub delegates: Vec<Name>,
    /// Delegations that lead nowhere.
    pub findings: Vec<Finding>,
}

/// Who calls, as far as a VirtualService asks. Nothing here means that nothing asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Client {
    /// Its namespace.
    pub namespace: Option<Arc<str>>,
    /// Its labels, only those that are asked for.
    pub labels: BTreeMap<String, String>,
}

impl Client {
    /// Whether the caller is in this namespace and has these labels.
    pub fn is(&self, namespace: Option<&str>, labels: &BTreeMap<String, String>) -> bool {
        namespace.is_none_or(|wanted| self.namespace.as_deref() == Some(wanted))
            && labels.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }
}

impl VirtualServiceRule {
    fn new(
        parsed: &Parsed<VirtualService>,
        objects: &Table<VirtualService>,
        mesh: &MeshConfig,
    ) -> Self {
        let merged = delegate::merge(parsed, objects, mesh);
        let namespace = &parsed.meta.namespace;
        let full = |host: &String| hostname::resolve(host, namespace, &mesh.domain_suffix);
        Self {
            namespace: namespace.clone(),
            name: parsed.meta.name.clone(),
            created: parsed.meta.creation_timestamp.clone(),
            generation: parsed.meta.generation,
            hosts: parsed.view.hosts.iter().map(full).collect(),
            export_to: ExportTo::of(
                &parsed.view.export_to,
                namespace,
                &mesh.virtual_service_export,
            ),
            view: VirtualService { http: merged.http, ..parsed.view.clone() },
            delegates: merged.delegates,
            findings: merged.findings,
        }
    }

    /// Whether it is for this gateway.
    pub fn is_for(&self, gateway: &GatewayRef) -> bool {
        self.view.gateways.contains(gateway)
    }

    /// Every label by which it tells callers apart.
    fn source_label_keys(&self) -> impl Iterator<Item = &String> {
        let http = self.view.http.iter().flat_map(|http| &http.matches);
        let http = http.flat_map(|matched| matched.source_labels.keys());
        http.chain(self.l4_matches().flat_map(|matched| matched.source_labels.keys()))
    }

    /// Whether it tells callers apart by namespace.
    fn asks_namespace(&self) -> bool {
        let mut http = self.view.http.iter().flat_map(|http| &http.matches);
        http.any(|matched| matched.source_namespace.is_some())
            || self.l4_matches().any(|matched| matched.source_namespace.is_some())
    }

    fn l4_matches(&self) -> impl Iterator<Item = &L4Match> {
        let tls = self.view.tls.iter().flat_map(|tls| &tls.matches).map(|matched| &matched.l4);
        self.view.tcp.iter().flat_map(|tcp| &tcp.matches).chain(tls)
    }

    /// The part of a caller that it asks for.
    pub fn client(&self, namespace: &Arc<str>, labels: &BTreeMap<String, String>) -> Client {
        let labels = self
            .source_label_keys()
            .filter_map(|key| Some((key.clone(), labels.get(key)?.clone())))
            .collect();
        Client { namespace: self.asks_namespace().then(|| Arc::clone(namespace)), labels }
    }

    /// The full hosts of all its destinations.
    pub fn destinations(&self, domain_suffix: &str) -> BTreeSet<String> {
        let http = self.view.http.iter().flat_map(|http| match &http.action {
            HttpAction::Route(to) => to.iter().map(|to| &to.destination).collect(),
            _ => Vec::new(),
        });
        let mirrors = self.view.http.iter().flat_map(|http| &http.mirrors);
        let mirrors = mirrors.map(|mirror| &mirror.destination);
        let tcp = self.view.tcp.iter().flat_map(|tcp| tcp.route.iter().map(|to| &to.destination));
        let tls = self.view.tls.iter().flat_map(|tls| tls.route.iter().map(|to| &to.destination));
        http.chain(mirrors)
            .chain(tcp)
            .chain(tls)
            .map(|destination| hostname::resolve(&destination.host, &self.namespace, domain_suffix))
            .collect()
    }
}

/// All VirtualServices.
#[derive(Clone, Debug, Default)]
pub struct VirtualServices {
    rules: BTreeMap<Name, Interned<VirtualServiceRule>>,
    /// For the sidecars, by exact host; the oldest first.
    mesh_exact: BTreeMap<String, Vec<Name>>,
    /// For the sidecars, by wildcard; the longest first, then the oldest.
    mesh_wildcards: Vec<(String, Name)>,
    /// For gateways; the oldest first.
    by_gateway: BTreeMap<GatewayRef, Vec<Name>>,
    /// Who routes to a host.
    by_destination: BTreeMap<String, BTreeSet<Name>>,
    /// Who delegates to a VirtualService.
    by_delegate: BTreeMap<Name, BTreeSet<Name>>,
    /// Labels by which any rule tells callers apart.
    source_labels: BTreeSet<String>,
}

impl VirtualServices {
    /// The index of these objects; what did not change keeps its identity.
    pub fn build(
        objects: &Table<VirtualService>,
        mesh: &MeshConfig,
        before: &VirtualServices,
    ) -> VirtualServices {
        let mut rules: Vec<Interned<VirtualServiceRule>> = objects
            .iter()
            .filter(|(_, parsed)| !delegate::is_delegate(&parsed.view))
            .map(|(name, parsed)| {
                let rule = VirtualServiceRule::new(parsed, objects, mesh);
                Interned::renew(before.rules.get(name), rule)
            })
            .collect();
        rules.sort_by(|a, b| {
            (&a.created, &a.name, &a.namespace).cmp(&(&b.created, &b.name, &b.namespace))
        });
        let mut index = VirtualServices::default();
        for rule in rules {
            index.insert(rule, mesh);
        }
        // Stable: among wildcards of one length the oldest stays first.
        index.mesh_wildcards.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
        index
    }

    fn insert(&mut self, rule: Interned<VirtualServiceRule>, mesh: &MeshConfig) {
        let name = Name::new(&rule.namespace, &rule.name);
        for gateway in &rule.view.gateways {
            self.by_gateway.entry(gateway.clone()).or_default().push(name.clone());
        }
        if rule.is_for(&GatewayRef::Mesh) {
            for host in &rule.hosts {
                if host.starts_with('*') {
                    self.mesh_wildcards.push((host.clone(), name.clone()));
                } else {
                    self.mesh_exact.entry(host.clone()).or_default().push(name.clone());
                }
            }
        }
        for host in rule.destinations(&mesh.domain_suffix) {
            self.by_destination.entry(host).or_default().insert(name.clone());
        }
        for delegate in &rule.delegates {
            self.by_delegate.entry(delegate.clone()).or_default().insert(name.clone());
        }
        self.source_labels.extend(rule.source_label_keys().cloned());
        self.rules.insert(name, rule);
    }

    /// The rule that speaks for a host to the sidecars of a namespace: the most specific host, then the one that is
    /// least public, then the oldest.
    pub fn for_mesh_host(
        &self,
        host: &str,
        client_namespace: &str,
    ) -> Option<&Interned<VirtualServiceRule>> {
        let exact = self.mesh_exact.get(host).into_iter().flatten().map(|name| (host, name));
        let wildcards = self
            .mesh_wildcards
            .iter()
            .filter(|(pattern, _)| hostname::covers(pattern, host))
            .map(|(pattern, name)| (pattern.as_str(), name));
        exact
            .chain(wildcards)
            .filter_map(|(pattern, name)| Some((pattern, self.rules.get(name)?)))
            .filter(|(_, rule)| rule.export_to.reaches(client_namespace))
            // Of equals the first is taken, which is the oldest. An exact host is longer than any that covers it, or
            // as long as `*` and all of it.
            .min_by_key(|(pattern, rule)| {
                let publicity = rule.export_to.publicity(&rule.namespace, client_namespace);
                (pattern.starts_with('*'), std::cmp::Reverse(pattern.len()), publicity)
            })
            .map(|(_, rule)| rule)
    }

    /// Hosts that rules for the sidecars name, wildcards among them.
    pub fn mesh_hosts(&self) -> impl Iterator<Item = &str> {
        let wildcards = self.mesh_wildcards.iter().map(|(pattern, _)| pattern.as_str());
        self.mesh_exact.keys().map(String::as_str).chain(wildcards)
    }

    /// The rules for the sidecars that name a wildcard which covers a host.
    pub fn covering<'a>(
        &'a self,
        host: &'a str,
    ) -> impl Iterator<Item = &'a Interned<VirtualServiceRule>> {
        let covers = move |(pattern, _): &&(String, Name)| hostname::covers(pattern, host);
        self.mesh_wildcards.iter().filter(covers).filter_map(|(_, name)| self.rules.get(name))
    }

    /// The rules for a gateway whose workloads are in `namespace`: the least public first, then the oldest.
    pub fn for_gateway(
        &self,
        gateway: &GatewayRef,
        namespace: &str,
    ) -> Vec<&Interned<VirtualServiceRule>> {
        let all = self.by_gateway.get(gateway).into_iter().flatten();
        let mut rules: Vec<_> = all
            .filter_map(|name| self.rules.get(name))
            .filter(|rule| rule.export_to.reaches(namespace))
            .collect();
        rules.sort_by_key(|rule| rule.export_to.publicity(&rule.namespace, namespace));
        rules
    }

    /// The rules that route to a host.
    pub fn routing_to(&self, host: &str) -> impl Iterator<Item = &Interned<VirtualServiceRule>> {
        self.by_destination.get(host).into_iter().flatten().filter_map(|name| self.rules.get(name))
    }

    /// The rules that may differ between this index and a later one: those of changed objects, and those that delegate
    /// to one.
    pub fn affected<'a>(
        &self,
        later: &VirtualServices,
        changed: impl Iterator<Item = &'a Name>,
    ) -> BTreeSet<Name> {
        let mut all = BTreeSet::new();
        for name in changed {
            let roots = [self, later].into_iter().filter_map(|index| index.by_delegate.get(name));
            all.extend(roots.flatten().cloned());
            all.insert(name.clone());
        }
        all
    }

    /// One rule.
    pub fn get(&self, name: &Name) -> Option<&Interned<VirtualServiceRule>> {
        self.rules.get(name)
    }

    /// The labels by which any rule tells callers apart.
    pub fn source_labels(&self) -> &BTreeSet<String> {
        &self.source_labels
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
