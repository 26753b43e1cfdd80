//! The mesh as configuration is made from it: an immutable [`PushContext`], and what a change touches.
//!
//! [`PushContext::next`] rebuilds only the indices that a [`ChangeSet`] touches and keeps the identity of every value
//! that is as before ([`interned`]), so that translation finds by pointer what need not be done again.

pub mod authentication;
pub mod credential;
pub mod delegate;
pub mod destination_rule;
pub mod export;
pub mod gateway;
pub mod hostname;
pub mod instance;
pub mod interned;
pub mod mesh;
pub mod objects;
pub mod registration;
pub mod registry;
pub mod service;
pub mod sidecar;
pub mod touched;
pub mod virtual_service;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use authentication::Authentication;
use credential::Credentials;
use destination_rule::DestinationRuleIndex;
use gateway::Gateways;
use interned::Interned;
use mesh::MeshConfig;
use objects::{ChangeSet, Name, Objects};
use registry::{Row, RowChange};
use service::Host;
use sidecar::Sidecars;
pub use touched::{Aspect, Touched};
use virtual_service::VirtualServices;

/// The mesh at one moment. Cloning shares everything.
#[derive(Clone, Debug)]
pub struct PushContext {
    /// How many changes it is away from nothing.
    pub number: u64,
    /// Everything that was read.
    pub objects: Objects,
    /// The mesh's own configuration.
    pub mesh: Interned<MeshConfig>,
    /// Services with their instances, by host.
    pub services: Arc<BTreeMap<Host, Row>>,
    /// How requests are routed.
    pub virtual_services: Arc<VirtualServices>,
    /// How clients treat services.
    pub destination_rules: Arc<DestinationRuleIndex>,
    /// What workloads demand of their clients.
    pub authentication: Arc<Authentication>,
    /// What sidecars listen on and know.
    pub sidecars: Arc<Sidecars>,
    /// What gateways listen on.
    pub gateways: Arc<Gateways>,
    /// Certificates and keys for them.
    pub credentials: Arc<Credentials>,
}

impl PushContext {
    /// A mesh without objects.
    pub fn empty() -> PushContext {
        Self::of_mesh(MeshConfig::default())
    }

    /// A mesh of this configuration, without objects.
    pub fn of_mesh(mesh: MeshConfig) -> PushContext {
        let root = mesh.root_namespace.clone();
        PushContext {
            number: 0,
            objects: Objects::default(),
            authentication: Arc::new(Authentication::build(&Default::default(), &root)),
            sidecars: Arc::new(Sidecars::build(&Default::default(), &root, &Sidecars::default())),
            mesh: Interned::new(mesh),
            services: Arc::default(),
            virtual_services: Arc::default(),
            destination_rules: Arc::default(),
            gateways: Arc::default(),
            credentials: Arc::default(),
        }
    }

    /// The mesh after a change, and what the change touches.
    pub fn next(&self, changes: &ChangeSet) -> (PushContext, Touched) {
        let mut next = self.clone();
        next.number += 1;
        next.objects.apply(changes);
        let mut touched = Touched::default();
        next.rebuild_mesh(changes, &mut touched);
        next.rebuild_services(self, changes, &mut touched);
        next.rebuild_routing(self, changes, &mut touched);
        next.rebuild_policies(self, changes, &mut touched);
        next.touch_routes_to_changed_services(&mut touched);
        (next, touched)
    }

    /// The row of a host.
    pub fn service(&self, host: &str) -> Option<&Row> {
        self.services.get(host)
    }

    fn rebuild_mesh(&mut self, changes: &ChangeSet, touched: &mut Touched) {
        let name = Name::new(mesh::CONTROL_PLANE_NAMESPACE, mesh::CONFIG_MAP);
        if !changes.config_maps.contains_key(&name) {
            return;
        }
        let written = self.objects.config_maps.get(&name);
        let Some(mut read) = MeshConfig::read(written.map(|parsed| &parsed.view)) else { return };
        if read.trust_domain != self.mesh.trust_domain {
            // Every certificate of the mesh carries it: to change it is to start the mesh anew.
            let running = &self.mesh.trust_domain;
            let written = &read.trust_domain;
            tracing::warn!(%running, %written, "a new trustDomain takes effect when the control plane starts again");
            read.trust_domain.clone_from(running);
        }
        let renewed = Interned::renew(Some(&self.mesh), read);
        touched.everything |= renewed != self.mesh;
        self.mesh = renewed;
    }

    /// Services whose own object, slices, pods or entries changed; all if the mesh did.
    fn rebuild_services(
        &mut self,
        before: &PushContext,
        changes: &ChangeSet,
        touched: &mut Touched,
    ) {
        let names = if touched.everything {
            let mut all: BTreeSet<Name> = self.objects.services.keys().cloned().collect();
            all.extend(changes.services.keys().cloned());
            all
        } else {
            self.services_of(before, changes)
        };
        if names.is_empty() && !touched.everything {
            return;
        }
        let mut rows = if touched.everything { BTreeMap::new() } else { (*self.services).clone() };
        for name in names {
            let host = registry::host_of(&name, &self.mesh);
            let old = before.services.get(&host);
            match self.objects.services.get(&name) {
                Some(parsed) => {
                    rows.insert(
                        host.clone(),
                        registry::row(parsed, &self.objects, &self.mesh, old),
                    );
                }
                None => {
                    rows.remove(&host);
                }
            }
            touched.row(&host, RowChange::between(old, rows.get(&host)));
            for row in old.into_iter().chain(rows.get(&host)) {
                if RowChange::between(old, rows.get(&host)).service {
                    touched.selecting.push(row.service.clone());
                }
            }
        }
        self.services = Arc::new(rows);
    }

    /// The Services that changed objects belong to, before or after.
    fn services_of(&self, before: &PushContext, changes: &ChangeSet) -> BTreeSet<Name> {
        let mut names: BTreeSet<Name> = changes.services.keys().cloned().collect();
        for name in changes.endpoint_slices.keys() {
            let slices =
                [before.objects.endpoint_slices.get(name), self.objects.endpoint_slices.get(name)];
            names.extend(
                slices.into_iter().flatten().filter_map(|slice| registry::service_of_slice(slice)),
            );
        }
        for name in changes.workload_entries.keys() {
            let entries = [
                before.objects.workload_entries.get(name),
                self.objects.workload_entries.get(name),
            ];
            for entry in entries.into_iter().flatten() {
                names.extend(self.selecting(name, |service| registry::is_selected(service, entry)));
            }
        }
        for name in changes.pods.keys() {
            let pods = [before.objects.pods.get(name), self.objects.pods.get(name)];
            for pod in pods.into_iter().flatten() {
                names.extend(self.selecting(name, |service| service.selects(&pod.meta.labels)));
            }
        }
        names
    }

    /// The Services in an object's namespace that select it. A Service whose own selector changes is in the change set
    /// itself, so the rows as they are suffice.
    fn selecting<'a>(
        &'a self,
        object: &'a Name,
        selects: impl Fn(&service::Service) -> bool + 'a,
    ) -> impl Iterator<Item = Name> + 'a {
        self.services
            .values()
            .map(|row| &row.service)
            .filter(move |service| service.namespace == object.namespace && selects(service))
            .map(|service| Name::new(&service.namespace, &service.name))
    }

    fn rebuild_routing(
        &mut self,
        before: &PushContext,
        changes: &ChangeSet,
        touched: &mut Touched,
    ) {
        let all = touched.everything;
        if all || !changes.virtual_services.is_empty() {
            let old = &before.virtual_services;
            self.virtual_services =
                Arc::new(VirtualServices::build(&self.objects.virtual_services, &self.mesh, old));
            for name in old.affected(&self.virtual_services, changes.virtual_services.keys()) {
                let (old, new) = (old.get(&name), self.virtual_services.get(&name));
                if old != new {
                    touched.virtual_services.extend(old.into_iter().chain(new).cloned());
                }
            }
            touched.source_labels |= old.source_labels() != self.virtual_services.source_labels();
        }
        if all || !changes.destination_rules.is_empty() {
            let old = &before.destination_rules;
            self.destination_rules = Arc::new(DestinationRuleIndex::build(
                &self.objects.destination_rules,
                &self.mesh,
                old,
            ));
            touched.destination_rules(old, &self.destination_rules);
        }
        if !changes.gateways.is_empty() {
            self.gateways = Arc::new(Gateways::build(&self.objects.gateways, &before.gateways));
            touched.gateways = true;
        }
    }

    fn rebuild_policies(
        &mut self,
        before: &PushContext,
        changes: &ChangeSet,
        touched: &mut Touched,
    ) {
        let root = self.mesh.root_namespace.clone();
        if touched.everything || !changes.peer_authentications.is_empty() {
            let renewed = Authentication::build(&self.objects.peer_authentications, &root);
            if renewed != *before.authentication {
                for name in changes.peer_authentications.keys() {
                    touched.authentication.insert(name.namespace.to_string());
                }
                touched.everything |= touched.authentication.contains(&root);
                self.authentication = Arc::new(renewed);
            }
        }
        if touched.everything || !changes.sidecars.is_empty() {
            self.sidecars =
                Arc::new(Sidecars::build(&self.objects.sidecars, &root, &before.sidecars));
            for name in changes.sidecars.keys() {
                touched.sidecars.insert(name.namespace.to_string());
            }
            touched.everything |= touched.sidecars.contains(&root);
        }
        if !changes.secrets.is_empty() {
            self.credentials =
                Arc::new(Credentials::build(&self.objects.secrets, &before.credentials));
            let changed = |name: &&Name| before.credentials.get(name) != self.credentials.get(name);
            touched.credentials.extend(changes.secrets.keys().filter(changed).cloned());
        }
    }

    /// A route names its destination's only port by itself, so it depends on the services that it leads to; and a
    /// wildcard stands for itself only where it covers no service.
    fn touch_routes_to_changed_services(&self, touched: &mut Touched) {
        let changed: Vec<Host> = touched.hosts_with(Aspect::SERVICE).cloned().collect();
        for host in changed {
            let rules = &self.virtual_services;
            let concerned = rules.routing_to(&host).chain(rules.covering(&host));
            touched.virtual_services.extend(concerned.cloned());
        }
    }
}
