//! A view: everything that all proxies see alike that have the same namespace, Sidecar and abilities.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ahash::RandomState;
use xds::{Resource, ResourceType};

use super::origin::{Origin, Origins, Translated};
use super::{Caches, GENERATORS};
use crate::model::instance::Locality;
use crate::model::interned::Interned;
use crate::model::service::{Host, Service};
use crate::model::sidecar::{Egress, SidecarRule};
use crate::model::{Aspect, PushContext, Touched};
use crate::proxy::{Capabilities, Proxy, ProxyKind};

/// Why two proxies see the mesh differently: all of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ViewKey {
    /// What they are for.
    pub kind: ProxyKind,
    /// The namespace they are in.
    pub namespace: Arc<str>,
    /// Their Sidecar object.
    pub sidecar: Option<Interned<SidecarRule>>,
    /// Those of their labels by which any VirtualService tells callers apart.
    pub labels: BTreeMap<String, String>,
    /// What they can load.
    pub capabilities: Capabilities,
    /// Where they are: empty where nobody said.
    pub near: Locality,
}

impl ViewKey {
    /// The view that a proxy sees now.
    pub fn of(context: &PushContext, proxy: &Proxy) -> ViewKey {
        let sidecar = match proxy.kind {
            ProxyKind::Sidecar | ProxyKind::Proxyless => {
                context.sidecars.find(&proxy.namespace, &proxy.labels).cloned()
            }
            ProxyKind::Router => None,
        };
        let asked = context.virtual_services.source_labels();
        ViewKey {
            kind: proxy.kind,
            namespace: Arc::clone(&proxy.namespace),
            sidecar,
            labels: proxy
                .labels
                .iter()
                .filter(|(key, _)| asked.contains(*key))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            capabilities: proxy.capabilities,
            near: proxy.locality.clone(),
        }
    }

    /// The egress side of its Sidecar.
    pub fn egress(&self) -> Egress<'_> {
        Egress(self.sidecar.as_deref())
    }

    /// Whether its proxies know a service.
    pub fn knows(&self, service: &Service) -> bool {
        self.egress().knows(&self.namespace, service)
    }
}

/// The resources of one type, by name.
pub type Resources = BTreeMap<Arc<str>, Resource>;

/// Names of changed and removed resources, by type.
#[derive(Clone, Debug, Default)]
pub struct Delta([Vec<Arc<str>>; ResourceType::COUNT]);

impl Delta {
    /// The names of a type.
    pub fn names(&self, kind: ResourceType) -> &[Arc<str>] {
        &self.0[kind as usize]
    }

    /// Every type with changed names.
    pub fn types(&self) -> impl Iterator<Item = (ResourceType, &[Arc<str>])> {
        ResourceType::ALL
            .into_iter()
            .map(|kind| (kind, self.names(kind)))
            .filter(|(_, names)| !names.is_empty())
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    /// How many resources changed.
    pub fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    fn push(&mut self, kind: ResourceType, name: &Arc<str>) {
        self.0[kind as usize].push(Arc::clone(name));
    }
}

/// A set of resources of all types, each with an owner, so that one owner's resources are replaced without a look at
/// the others.
#[derive(Debug)]
pub struct ResourceSet<O> {
    types: [Resources; ResourceType::COUNT],
    owned: HashMap<(O, ResourceType), Vec<(Arc<str>, Origins)>, RandomState>,
    /// What was made of an object.
    made_of: HashMap<Origin, Vec<ResourceId>, RandomState>,
}

/// One resource of a set.
pub type ResourceId = (ResourceType, Arc<str>);

impl<O> Default for ResourceSet<O> {
    fn default() -> Self {
        Self { types: Default::default(), owned: HashMap::default(), made_of: HashMap::default() }
    }
}

impl<O: std::hash::Hash + Eq + Clone> ResourceSet<O> {
    /// The resources of a type.
    pub fn of(&self, kind: ResourceType) -> &Resources {
        &self.types[kind as usize]
    }

    /// Replaces what an owner has of a type, and says what changed by that.
    pub fn replace(
        &mut self,
        owner: &O,
        kind: ResourceType,
        resources: Vec<Translated>,
        delta: &mut Delta,
    ) {
        let key = (owner.clone(), kind);
        let before = self.owned.remove(&key).unwrap_or_default();
        for (name, origins) in &before {
            self.forget_origins(kind, name, origins);
        }
        let mut names = Vec::with_capacity(resources.len());
        for Translated { resource, origins } in resources {
            let name = Arc::clone(resource.name());
            for origin in origins.iter() {
                let made = self.made_of.entry(origin.clone()).or_default();
                made.push((kind, Arc::clone(&name)));
            }
            let table = &mut self.types[kind as usize];
            let changed =
                table.get(&name).is_none_or(|known| known.version() != resource.version());
            if changed {
                delta.push(kind, &name);
                table.insert(Arc::clone(&name), resource);
            }
            names.push((name, origins));
        }
        for (name, _) in before {
            if !names.iter().any(|(kept, _)| *kept == name) {
                self.types[kind as usize].remove(&name);
                delta.push(kind, &name);
            }
        }
        if !names.is_empty() {
            self.owned.insert(key, names);
        }
    }

    fn forget_origins(&mut self, kind: ResourceType, name: &Arc<str>, origins: &Origins) {
        for origin in origins.iter() {
            let Some(made) = self.made_of.get_mut(origin) else { continue };
            made.retain(|known| known.0 != kind || known.1 != *name);
            if made.is_empty() {
                self.made_of.remove(origin);
            }
        }
    }

    /// What was made of an object; nothing if it is used nowhere.
    pub fn made_of(&self, origin: &Origin) -> &[ResourceId] {
        self.made_of.get(origin).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every owner.
    pub fn owners(&self) -> BTreeSet<O>
    where
        O: Ord,
    {
        self.owned.keys().map(|(owner, _)| owner.clone()).collect()
    }
}

/// Who owns a resource of a view.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A host.
    Host(Host),
    /// The view itself.
    View,
}

/// Everything that the proxies of one view see alike.
#[derive(Debug)]
pub struct View {
    /// Why it is apart from others.
    pub key: ViewKey,
    resources: ResourceSet<Owner>,
}

impl View {
    /// The view of a context, from nothing.
    pub fn new(key: ViewKey, context: &PushContext, caches: &mut Caches) -> View {
        let mut view = View { key, resources: ResourceSet::default() };
        view.update(context, &Touched::all(), caches);
        view
    }

    /// Looks at what a change touches, and says what changed by that.
    pub fn update(
        &mut self,
        context: &PushContext,
        touched: &Touched,
        caches: &mut Caches,
    ) -> Delta {
        let mut delta = Delta::default();
        if touched.everything {
            for host in self.all_hosts(context) {
                self.update_host(context, &host, Aspect::ALL, caches, &mut delta);
            }
        } else {
            let services = context.services.values().map(|row| &*row.service);
            for (host, aspects) in touched.host_aspects(services) {
                self.update_host(context, &host, aspects, caches, &mut delta);
            }
        }
        for generator in &GENERATORS {
            if touched.everything
                || generator.follows.iter().any(|kind| !delta.names(*kind).is_empty())
            {
                let resources = (generator.of_view)(caches, context, self);
                self.resources.replace(&Owner::View, generator.kind, resources, &mut delta);
            }
        }
        delta
    }

    /// The resources of a type.
    pub fn resources(&self, kind: ResourceType) -> &Resources {
        self.resources.of(kind)
    }

    /// What was made of an object; nothing if it is used nowhere in the view.
    pub fn made_of(&self, origin: &Origin) -> &[ResourceId] {
        self.resources.made_of(origin)
    }

    /// Hosts of the registry, hosts that only VirtualServices name, and hosts that were.
    fn all_hosts(&self, context: &PushContext) -> BTreeSet<Host> {
        let mut hosts: BTreeSet<Host> = context.services.keys().cloned().collect();
        hosts.extend(context.virtual_services.mesh_hosts().map(Host::from));
        hosts.extend(self.resources.owners().into_iter().filter_map(|owner| match owner {
            Owner::Host(host) => Some(host),
            Owner::View => None,
        }));
        hosts
    }

    fn update_host(
        &mut self,
        context: &PushContext,
        host: &Host,
        aspects: Aspect,
        caches: &mut Caches,
        delta: &mut Delta,
    ) {
        for generator in GENERATORS.iter().filter(|generator| generator.aspects.any(aspects)) {
            let resources = (generator.of_host)(caches, context, &self.key, host);
            self.resources.replace(
                &Owner::Host(Arc::clone(host)),
                generator.kind,
                resources,
                delta,
            );
        }
    }
}
