//! Who has to hear of a change: views first, each looked at once for all its proxies, then what is a proxy's alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::RandomState;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use xds::{Resource, ResourceSource, ResourceType};

use crate::discovery::listener::services_of;
use crate::discovery::origin::Origin;
use crate::discovery::view::{Delta, ResourceId, ResourceSet, View, ViewKey};
use crate::discovery::{Caches, GENERATORS};
use crate::model::objects::ChangeSet;
use crate::model::{Aspect, PushContext, Touched};
use crate::proxy::{Proxy, ProxyKind};

/// A connected proxy, by the order of connecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProxyId(pub u64);

/// The model, what was made of it, and who gets it.
pub struct Discovery {
    context: PushContext,
    caches: Caches,
    views: HashMap<ViewKey, Arc<RwLock<View>>, RandomState>,
    clients: BTreeMap<ProxyId, Arc<Client>>,
    next_id: u64,
}

/// What one push did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PushReport {
    /// The number of the context it led to.
    pub number: u64,
    /// Views that were looked at.
    pub views: usize,
    /// Resources that changed in views and of proxies alone.
    pub changed: usize,
    /// Proxies that were told.
    pub proxies: usize,
    /// Translations that were needed.
    pub translations: u64,
}

/// What a proxy's stream reads from: always the newest state, and a set of names that may have changed.
pub struct Client {
    /// Its place among the clients.
    pub id: ProxyId,
    /// The proxy.
    pub proxy: Proxy,
    state: RwLock<ClientState>,
    dirty: Mutex<Dirty>,
    wake: Notify,
    /// The newest context that it was told of.
    told: AtomicU64,
    /// The newest context of which it has answered everything that it was told.
    answered: AtomicU64,
}

struct ClientState {
    key: ViewKey,
    view: Arc<RwLock<View>>,
    own: ResourceSet<()>,
}

/// What may have changed since the stream last looked: a set, never a queue.
#[derive(Debug, Default)]
pub struct Dirty {
    /// Names by type.
    pub names: [Vec<Arc<[Arc<str>]>>; ResourceType::COUNT],
    /// Anything may have changed.
    pub everything: bool,
    /// The proxy is another one than it was taken for when it connected: it has to connect again.
    pub retired: bool,
    /// The newest context that it reflects.
    pub number: u64,
}

/// Changed names by type, shared by all who have to hear of them.
type SharedDelta = Vec<(ResourceType, Arc<[Arc<str>]>)>;
type DeltaByView = HashMap<ViewKey, SharedDelta, RandomState>;

/// Lists of changed names kept before they give way to "anything".
const MAX_PENDING_LISTS: usize = 256;

impl Client {
    /// Takes what may have changed since the last call.
    pub fn take_dirty(&self) -> Dirty {
        std::mem::take(&mut *self.dirty.lock())
    }

    /// Waits until something may have changed.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Notes that the proxy has answered everything that it was told up to a context.
    pub fn note_answered(&self, number: u64) {
        self.answered.fetch_max(number, Ordering::Relaxed);
    }

    /// The newest context that the proxy was told of.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Relaxed)
    }

    /// Whether the proxy has answered what a context, and all before it, changed for it.
    pub fn is_past(&self, number: u64) -> bool {
        let answered = self.answered.load(Ordering::Relaxed);
        answered >= number || answered >= self.told()
    }

    fn mark(&self, lists: &[(ResourceType, Arc<[Arc<str>]>)], number: u64) {
        {
            let mut dirty = self.dirty.lock();
            for (kind, names) in lists {
                dirty.names[*kind as usize].push(Arc::clone(names));
            }
            if dirty.names.iter().any(|lists| lists.len() > MAX_PENDING_LISTS) {
                dirty.everything = true;
                dirty.names = Default::default();
            }
            dirty.number = number;
            self.told.fetch_max(number, Ordering::Relaxed);
        }
        self.wake.notify_one();
    }

    /// Ends its stream, so that the proxy connects again.
    pub fn retire(&self) {
        self.dirty.lock().retired = true;
        self.wake.notify_one();
    }

    fn mark_everything(&self, number: u64) {
        {
            let mut dirty = self.dirty.lock();
            *dirty =
                Dirty { everything: true, number, retired: dirty.retired, ..Default::default() };
            self.told.fetch_max(number, Ordering::Relaxed);
        }
        self.wake.notify_one();
    }
}

/// Reads a client's resources at the moment of sending.
pub struct Source<'a>(pub &'a Client);

impl ResourceSource for Source<'_> {
    fn names(&mut self, kind: ResourceType) -> Vec<Arc<str>> {
        let state = self.0.state.read();
        let view = state.view.read();
        let mut names: Vec<Arc<str>> = view.resources(kind).keys().cloned().collect();
        names.extend(state.own.of(kind).keys().cloned());
        names
    }

    fn names_in(&mut self, kind: ResourceType, collection: &str) -> Vec<Arc<str>> {
        let prefix: Arc<str> = format!("{collection}/").into();
        let state = self.0.state.read();
        let view = state.view.read();
        let tables = [view.resources(kind), state.own.of(kind)];
        let below = tables.into_iter().flat_map(|table| {
            table.range(Arc::clone(&prefix)..).take_while(|(name, _)| name.starts_with(&*prefix))
        });
        below.map(|(name, _)| Arc::clone(name)).collect()
    }

    fn resource(&mut self, kind: ResourceType, name: &str) -> Option<Resource> {
        let state = self.0.state.read();
        if let Some(own) = state.own.of(kind).get(name) {
            return Some(own.clone());
        }
        state.view.read().resources(kind).get(name).cloned()
    }
}

impl Discovery {
    /// A discovery that knows a context and no proxies.
    pub fn new(context: PushContext) -> Discovery {
        Discovery {
            context,
            caches: Caches::default(),
            views: HashMap::default(),
            clients: BTreeMap::new(),
            next_id: 0,
        }
    }

    /// The newest context.
    pub fn context(&self) -> &PushContext {
        &self.context
    }

    /// How often anything was translated and encoded.
    pub fn translations(&self) -> u64 {
        self.caches.translations()
    }

    /// How many views there are.
    pub fn view_count(&self) -> usize {
        self.views.len()
    }

    /// The connected proxies.
    pub fn clients(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.clients.values()
    }

    /// The proxies whose configuration is made of an object, each with what of it is.
    pub fn users_of(&self, origin: &Origin) -> Vec<(Arc<Client>, Vec<ResourceId>)> {
        let by_view: Vec<(&Arc<RwLock<View>>, Vec<ResourceId>)> = self
            .views
            .values()
            .map(|view| (view, view.read().made_of(origin).to_vec()))
            .filter(|(_, made)| !made.is_empty())
            .collect();
        let of_client = |client: &Arc<Client>| {
            let state = client.state.read();
            let seen = by_view.iter().find(|(view, _)| Arc::ptr_eq(view, &state.view));
            let mut made = seen.map(|(_, made)| made.clone()).unwrap_or_default();
            made.extend(state.own.made_of(origin).iter().cloned());
            (!made.is_empty()).then(|| (Arc::clone(client), made))
        };
        self.clients.values().filter_map(of_client).collect()
    }

    /// Adds a proxy. Its stream reads from the answer until [`Discovery::disconnect`].
    pub fn connect(&mut self, proxy: Proxy) -> Arc<Client> {
        self.next_id += 1;
        let key = ViewKey::of(&self.context, &proxy);
        let view = self.view(&key);
        let mut own = ResourceSet::default();
        generate_own(&mut self.caches, &self.context, &proxy, &key, &mut own);
        let client = Arc::new(Client {
            id: ProxyId(self.next_id),
            proxy,
            state: RwLock::new(ClientState { key, view, own }),
            dirty: Mutex::new(Dirty { number: self.context.number, ..Default::default() }),
            wake: Notify::new(),
            told: AtomicU64::new(self.context.number),
            answered: AtomicU64::new(0),
        });
        self.clients.insert(client.id, Arc::clone(&client));
        client
    }

    /// Removes a proxy.
    pub fn disconnect(&mut self, id: ProxyId) {
        self.clients.remove(&id);
        self.forget_unused_views();
    }

    /// Takes a change in: the model moves on, views and proxies that it touches are looked at, and those whose
    /// resources changed are woken.
    pub fn push(&mut self, changes: &ChangeSet) -> PushReport {
        let translations_before = self.caches.translations();
        let (next, touched) = self.context.next(changes);
        let before = std::mem::replace(&mut self.context, next);
        let mut report = PushReport { number: self.context.number, ..Default::default() };
        if !touched.is_empty() {
            self.update(&before, &touched, &mut report);
        }
        report.translations = self.caches.translations() - translations_before;
        self.caches.sweep();
        report
    }

    fn update(&mut self, before: &PushContext, touched: &Touched, report: &mut PushReport) {
        let mut lists: DeltaByView = HashMap::default();
        for (key, view) in &self.views {
            let delta = view.write().update(&self.context, touched, &mut self.caches);
            report.views += 1;
            report.changed += delta.len();
            if !delta.is_empty() {
                lists.insert(key.clone(), share(&delta));
            }
        }
        let clients: Vec<Arc<Client>> = self.clients.values().cloned().collect();
        for client in clients {
            let told = self.update_client(&client, before, touched, &lists, report);
            report.proxies += usize::from(told);
        }
        self.forget_unused_views();
    }

    /// Whether the client has to hear of anything.
    fn update_client(
        &mut self,
        client: &Client,
        before: &PushContext,
        touched: &Touched,
        lists: &DeltaByView,
        report: &mut PushReport,
    ) -> bool {
        let number = self.context.number;
        let moved = may_see_differently(&client.proxy, touched) && {
            let key = ViewKey::of(&self.context, &client.proxy);
            let differs = client.state.read().key != key;
            if differs {
                let view = self.view(&key);
                let mut state = client.state.write();
                state.key = key;
                state.view = view;
            }
            differs
        };
        let own = if moved || touches_own(&client.proxy, before, &self.context, touched) {
            let mut state = client.state.write();
            let key = state.key.clone();
            generate_own(&mut self.caches, &self.context, &client.proxy, &key, &mut state.own)
        } else {
            Delta::default()
        };
        report.changed += own.len();
        if moved {
            client.mark_everything(number);
            return true;
        }
        let of_view = lists.get(&client.state.read().key).map(Vec::as_slice).unwrap_or_default();
        if own.is_empty() && of_view.is_empty() {
            return false;
        }
        client.mark(of_view, number);
        if !own.is_empty() {
            client.mark(&share(&own), number);
        }
        true
    }

    fn view(&mut self, key: &ViewKey) -> Arc<RwLock<View>> {
        if let Some(view) = self.views.get(key) {
            return Arc::clone(view);
        }
        let view = Arc::new(RwLock::new(View::new(key.clone(), &self.context, &mut self.caches)));
        self.views.insert(key.clone(), Arc::clone(&view));
        view
    }

    /// A view that only this map holds has no proxies.
    fn forget_unused_views(&mut self) {
        self.views.retain(|_, view| Arc::strong_count(view) > 1);
    }
}

fn share(delta: &Delta) -> SharedDelta {
    delta.types().map(|(kind, names)| (kind, names.into())).collect()
}

fn generate_own(
    caches: &mut Caches,
    context: &PushContext,
    proxy: &Proxy,
    key: &ViewKey,
    own: &mut ResourceSet<()>,
) -> Delta {
    let mut delta = Delta::default();
    for generator in &GENERATORS {
        let resources = (generator.of_proxy)(caches, context, proxy, key);
        own.replace(&(), generator.kind, resources, &mut delta);
    }
    delta
}

/// Whether a change may move a proxy into another view.
fn may_see_differently(proxy: &Proxy, touched: &Touched) -> bool {
    touched.everything || touched.source_labels || touched.sidecars.contains(&*proxy.namespace)
}

/// Whether a change may touch what is a proxy's alone.
fn touches_own(
    proxy: &Proxy,
    before: &PushContext,
    after: &PushContext,
    touched: &Touched,
) -> bool {
    let namespace: &str = &proxy.namespace;
    let selected = || {
        let selects = |service: &crate::model::service::Service| {
            &*service.namespace == namespace && service.selects(&proxy.labels)
        };
        touched.selecting.iter().any(|service| selects(service))
            // A named target port is what the instances say it is.
            || touched.hosts_with(Aspect::INSTANCES).any(|host| {
                after.service(host).is_some_and(|row| selects(&row.service) && has_named_port(&row.service))
            })
    };
    if touched.everything || touched.sidecars.contains(namespace) || selected() {
        return true;
    }
    match proxy.kind {
        ProxyKind::Sidecar => {
            touched.authentication.contains(namespace)
                || (relays(proxy, before, after) && touches_relays(touched))
        }
        // Nothing is its own.
        ProxyKind::Proxyless => false,
        ProxyKind::Router => {
            touched.gateways
                || !touched.credentials.is_empty()
                // Credentials that rules name, and how long relayed connections may last.
                || touched.has_policies()
                || touches_gateways(proxy, after, touched)
                // A gateway's ports are those of its Services.
                || services_of(before, proxy).count() != services_of(after, proxy).count()
        }
    }
}

fn has_named_port(service: &crate::model::service::Service) -> bool {
    use crate::model::service::TargetPort;
    service.ports.iter().any(|port| matches!(port.target, TargetPort::Name(_)))
}

/// Whether a sidecar has TCP listeners, which lead to services by themselves.
fn relays(proxy: &Proxy, before: &PushContext, after: &PushContext) -> bool {
    let written = |context: &PushContext| {
        context
            .sidecars
            .find(&proxy.namespace, &proxy.labels)
            .is_some_and(|rule| !rule.view.egress.is_empty())
    };
    !proxy.upstreams.is_empty() || written(before) || written(after)
}

fn touches_relays(touched: &Touched) -> bool {
    touched.hosts_with(Aspect::SERVICE).next().is_some()
        || !touched.virtual_services.is_empty()
        || touched.has_policies()
}

fn touches_gateways(proxy: &Proxy, after: &PushContext, touched: &Touched) -> bool {
    if touched.virtual_services.is_empty() {
        return false;
    }
    let gateways = after.gateways.selecting(&proxy.labels);
    let references: Vec<_> = gateways.iter().map(|gateway| gateway.reference()).collect();
    touched
        .virtual_services
        .iter()
        .any(|rule| references.iter().any(|reference| rule.is_for(reference)))
}
