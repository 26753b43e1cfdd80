//! What all streams share: the discovery, the registry of workloads, the status of proxies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::counters::Counters;
use crate::model::interned::Interned;
use crate::model::mesh::MeshConfig;
use crate::model::objects::{ChangeSet, Name};
use crate::model::registration::GROUP_ANNOTATION;
use crate::model::registry::entry_labels;
use crate::proxy::{Peer, Proxy};
use crate::push::{Client, Discovery, ProxyId, PushReport};
use crate::registration::Registrations;
use crate::status::{Keeper, MeshStatus, StatusBoard};

/// How long a good-bye waits for its effect.
const GOODBYE: Duration = Duration::from_secs(1);

/// How far the control plane is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Phase {
    /// Every kind has been read.
    pub ready: bool,
    /// It ends.
    pub stopping: bool,
    /// The newest context.
    pub number: u64,
}

/// The control plane but for its sockets.
pub struct Plane {
    discovery: Mutex<Discovery>,
    /// Workloads that register themselves.
    pub registrations: Arc<Registrations>,
    /// Connected proxies.
    pub board: StatusBoard,
    /// How objects fare.
    pub keeper: Keeper,
    /// What was pushed and rejected.
    pub counters: Counters,
    /// What streams hold in common.
    pub tables: xds::SharedTables,
    phase: watch::Sender<Phase>,
}

impl Plane {
    /// A control plane that has read nothing yet.
    pub fn new(discovery: Discovery, registrations: Arc<Registrations>) -> Arc<Plane> {
        Arc::new(Plane {
            discovery: Mutex::new(discovery),
            registrations,
            board: StatusBoard::default(),
            keeper: Keeper::default(),
            counters: Counters::default(),
            tables: xds::SharedTables::default(),
            phase: watch::Sender::new(Phase::default()),
        })
    }

    /// Takes a change in and wakes whom it touches.
    pub fn push(&self, mut changes: ChangeSet) -> PushReport {
        let mut discovery = self.discovery.lock();
        changes.drop_unchanged(&discovery.context().objects);
        if changes.is_empty() {
            return PushReport { number: discovery.context().number, ..Default::default() };
        }
        let report = discovery.push(&changes);
        if !changes.workload_entries.is_empty() || !changes.pods.is_empty() {
            let unknown = discovery.clients().filter(|client| !client.proxy.is_registered);
            unknown
                .filter(|client| registry_labels(&discovery, &client.proxy).is_some())
                .for_each(|client| client.retire());
        }
        drop(discovery);
        self.keeper.changed(&changes, report.number);
        self.phase.send_modify(|phase| phase.number = report.number);
        tracing::debug!(objects = changes.len(), ?report, "took a change in");
        report
    }

    /// Every kind has been read: streams are answered from now on, and workloads that do not come back are forgotten.
    pub fn become_ready(&self) {
        let orphans: Vec<Name> = {
            let discovery = self.discovery.lock();
            let entries = discovery.context().objects.workload_entries.iter();
            let registered =
                entries.filter(|(_, entry)| entry.meta.annotations.contains_key(GROUP_ANNOTATION));
            registered.map(|(name, _)| name.clone()).collect()
        };
        self.registrations.expire_orphans(orphans.into_iter());
        self.phase.send_modify(|phase| phase.ready = true);
    }

    /// Ends every stream.
    pub fn stop(&self) {
        self.phase.send_modify(|phase| phase.stopping = true);
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until every kind has been read: before that, answers would take away what proxies have.
    /// False if the control plane ends instead.
    pub async fn wait_until_ready(&self) -> bool {
        let mut phase = self.phase.subscribe();
        let settled = phase.wait_for(|phase| phase.ready || phase.stopping).await;
        settled.is_ok_and(|phase| !phase.stopping)
    }

    /// Waits until the control plane ends.
    pub async fn stopping(&self) {
        let mut phase = self.phase.subscribe();
        let _ = phase.wait_for(|phase| phase.stopping).await;
    }

    /// Waits until a workload's entry is gone from the model, or a little while.
    pub async fn wait_until_gone(&self, entry: &Name) {
        let mut phase = self.phase.subscribe();
        let gone = async {
            while self.discovery.lock().context().objects.workload_entries.contains_key(entry) {
                if phase.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(GOODBYE, gone).await;
    }

    /// Adds a proxy. What it sees is made on a thread of its own: for the first of its kind that is the whole mesh.
    pub async fn connect(self: &Arc<Self>, proxy: Proxy, peer: Option<&Peer>) -> Arc<Client> {
        let plane = Arc::clone(self);
        let for_board = proxy.clone();
        let connected =
            tokio::task::spawn_blocking(move || plane.discovery.lock().connect(proxy)).await;
        let client = match connected {
            Ok(client) => client,
            // The thread panicked: do it here, so that the panic is this stream's.
            Err(_) => self.discovery.lock().connect(for_board.clone()),
        };
        self.board.connected(client.id, &for_board, peer);
        self.keeper.proxies_changed();
        client
    }

    /// Removes a proxy.
    pub fn disconnect(&self, id: ProxyId) {
        self.board.disconnected(id);
        self.discovery.lock().disconnect(id);
        self.keeper.proxies_changed();
    }

    /// Gives a proxy that does not register itself the labels of its entry or pod, if the registry has one at its
    /// address with its credential's service account.
    pub fn identify(&self, proxy: &mut Proxy) {
        if let Some(labels) = registry_labels(&self.discovery.lock(), proxy) {
            proxy.labels = Arc::new(labels);
            proxy.is_registered = true;
        }
    }

    /// The mesh's own configuration at this moment.
    pub fn mesh(&self) -> Interned<MeshConfig> {
        self.discovery.lock().context().mesh.clone()
    }

    /// The whole mesh at this moment.
    pub fn status(&self) -> MeshStatus {
        let phase = self.phase();
        MeshStatus {
            ready: phase.ready,
            changes: phase.number,
            proxies: self.board.proxies(),
            objects: self.keeper.latest(),
        }
    }

    /// Reads the discovery.
    pub fn with_discovery<T>(&self, read: impl FnOnce(&Discovery) -> T) -> T {
        read(&self.discovery.lock())
    }
}

/// The labels of a proxy's entry or pod. The namespace and service account are its credential's: without one there is
/// no telling.
fn registry_labels(discovery: &Discovery, proxy: &Proxy) -> Option<BTreeMap<String, String>> {
    if proxy.service_account.is_empty() {
        return None;
    }
    let address = proxy.address.to_string();
    let objects = &discovery.context().objects;
    let mut entries =
        objects.workload_entries.iter().filter(|(name, _)| name.namespace == proxy.namespace);
    let entry = entries.find(|(_, entry)| {
        entry.view.address == address && entry.view.service_account == proxy.service_account
    });
    if let Some((_, entry)) = entry {
        return Some(entry_labels(entry));
    }
    let mut pods = objects.pods.iter().filter(|(name, _)| name.namespace == proxy.namespace);
    let pod = pods.find(|(_, pod)| {
        pod.view.ips.contains(&address) && pod.view.spec.service_account == proxy.service_account
    });
    pod.map(|(_, pod)| pod.meta.labels.clone())
}
