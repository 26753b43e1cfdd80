//! Workloads that register themselves: a WorkloadEntry for as long as the proxy is connected, and a grace beyond.
//!
//! Istio's protocol: the node's metadata names a WorkloadGroup. Labels, ports and service account come from the group;
//! who may join it comes from the credential.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use resources::kinds::networking::workload_entry::WorkloadEntry;
use resources::kinds::networking::workload_group::WorkloadGroup;
use resources::kinds::{Kind, Parsed};
use resources::object::{Object, ObjectKey};
use resources::store::{Patch, Preconditions, Store, StoreError, WriteOptions};
use serde_json::{Map, Value, json};

use crate::model::objects::Name;
use crate::model::registration::{
    CONNECTED_ANNOTATION, DISCONNECTED_ANNOTATION, GROUP_ANNOTATION, HEALTH_CHECKS_ANNOTATION,
    HEALTHY_ANNOTATION,
};
use crate::proxy::{Peer, Proxy};

/// Who writes the entries.
const MANAGER: &str = "pilot-registration";

/// Why a workload may not register.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// Registration needs a credential.
    #[error("registration needs a credential: it is not served on the plaintext port")]
    NoCredential,
    /// There is no such group.
    #[error("WorkloadGroup {0} does not exist")]
    NoGroup(Name),
    /// The credential is not of the group's service account.
    #[error(
        "WorkloadGroup {group} is for service account {wanted:?}: the credential is for {peer}"
    )]
    NotMember {
        /// The group.
        group: Name,
        /// Its service account.
        wanted: String,
        /// The credential's.
        peer: Peer,
    },
    /// The group or entry in the store is none.
    #[error("{0}")]
    Invalid(String),
    /// An entry of this name is there that no registration made.
    #[error("WorkloadEntry {0} exists and is not this group's")]
    Taken(Name),
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A registered workload.
#[derive(Clone, Debug)]
pub struct Registered {
    /// Its entry.
    pub entry: Name,
    /// Its labels: the group's.
    pub labels: BTreeMap<String, String>,
    /// Tells this connection from a later one of the same workload.
    connection: u64,
}

/// All registrations of this control plane.
pub struct Registrations {
    store: Arc<dyn Store>,
    grace: Duration,
    /// The newest connection of each entry.
    live: Mutex<HashMap<Name, u64>>,
    next: std::sync::atomic::AtomicU64,
}

impl Registrations {
    /// Keeps entries for `grace` after their proxy went away without a word.
    pub fn new(store: Arc<dyn Store>, grace: Duration) -> Arc<Self> {
        Arc::new(Self { store, grace, live: Mutex::default(), next: Default::default() })
    }

    /// Registers a proxy in the group that it names.
    pub async fn register(
        &self,
        proxy: &Proxy,
        peer: Option<&Peer>,
        group: &str,
    ) -> Result<Registered, RegistrationError> {
        let peer = peer.ok_or(RegistrationError::NoCredential)?;
        let group = Name::new(&peer.namespace, group);
        let parsed = self.group(&group).await?;
        let template = &parsed.view.template;
        let wanted = match template.service_account.as_str() {
            "" => "default",
            own => own,
        };
        if wanted != peer.service_account {
            return Err(RegistrationError::NotMember {
                group,
                wanted: wanted.to_owned(),
                peer: peer.clone(),
            });
        }
        let mut labels = parsed.view.labels.clone();
        labels.extend(template.labels.clone());
        let entry =
            Name::new(&peer.namespace, &entry_name(&group.name, &proxy.address.to_string()));
        let object = entry_object(&entry, &group, &parsed.view, &labels, proxy, wanted);
        self.write(&entry, &group, object).await?;
        let connection = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.live.lock().insert(entry.clone(), connection);
        tracing::info!(%entry, %peer, "registered a workload");
        Ok(Registered { entry, labels, connection })
    }

    /// Notes whether a workload is healthy.
    pub async fn report_health(
        &self,
        registered: &Registered,
        healthy: bool,
    ) -> Result<(), StoreError> {
        let patch = json!({"metadata": {"annotations": {HEALTHY_ANNOTATION: healthy.to_string()}}});
        self.store
            .patch(key(&registered.entry), Patch::Merge(patch), WriteOptions::by(MANAGER))
            .await
            .map(|_| ())
    }

    /// A workload says good-bye: its entry goes at once.
    pub async fn leave(&self, registered: &Registered) {
        if self.end(registered) {
            self.remove(&registered.entry).await;
        }
    }

    /// A proxy went away without a word: its entry goes after the grace, unless the workload is back by then.
    pub fn lose(self: &Arc<Self>, registered: Registered) {
        if !self.is_newest(&registered) {
            return;
        }
        let registrations = Arc::clone(self);
        tokio::spawn(async move {
            let now = unix_seconds();
            let patch =
                json!({"metadata": {"annotations": {DISCONNECTED_ANNOTATION: now.to_string()}}});
            let entry = key(&registered.entry);
            if let Err(error) = registrations
                .store
                .patch(entry, Patch::Merge(patch), WriteOptions::by(MANAGER))
                .await
            {
                tracing::warn!(entry = %registered.entry, %error, "cannot note that a workload went away");
            }
            tokio::time::sleep(registrations.grace).await;
            if registrations.end(&registered) {
                registrations.remove(&registered.entry).await;
            }
        });
    }

    /// Removes entries whose proxies did not come back after a restart of the control plane: each has a grace from now.
    pub fn expire_orphans(self: &Arc<Self>, entries: impl Iterator<Item = Name>) {
        let entries: Vec<Name> = entries.collect();
        if entries.is_empty() {
            return;
        }
        let registrations = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(registrations.grace).await;
            for entry in entries {
                let is_back = registrations.live.lock().contains_key(&entry);
                if !is_back {
                    registrations.remove(&entry).await;
                }
            }
        });
    }

    fn is_newest(&self, registered: &Registered) -> bool {
        self.live.lock().get(&registered.entry) == Some(&registered.connection)
    }

    /// Whether this was the newest connection of its entry; then it has none any more.
    fn end(&self, registered: &Registered) -> bool {
        let mut live = self.live.lock();
        let newest = live.get(&registered.entry) == Some(&registered.connection);
        if newest {
            live.remove(&registered.entry);
        }
        newest
    }

    async fn group(&self, name: &Name) -> Result<Parsed<WorkloadGroup>, RegistrationError> {
        let key =
            ObjectKey::new(WorkloadGroup::INFO.collection.clone(), &*name.namespace, &*name.name);
        match self.store.get(&key).await {
            Ok(object) => WorkloadGroup::parse(&object).map_err(|errors| {
                RegistrationError::Invalid(format!("WorkloadGroup {name}: {errors}"))
            }),
            Err(StoreError::NotFound(_)) => Err(RegistrationError::NoGroup(name.clone())),
            Err(error) => Err(error.into()),
        }
    }

    async fn write(
        &self,
        entry: &Name,
        group: &Name,
        object: Object,
    ) -> Result<(), RegistrationError> {
        match self.store.create(key(entry), object.clone(), WriteOptions::by(MANAGER)).await {
            Ok(_) => return Ok(()),
            Err(StoreError::AlreadyExists(_)) => {}
            Err(error) => return Err(error.into()),
        }
        // The workload is back: its entry is as the group has it now. One that somebody else made is left alone.
        let known = self.store.get(&key(entry)).await?;
        if known.annotation(GROUP_ANNOTATION) != Some(&*group.name) {
            return Err(RegistrationError::Taken(entry.clone()));
        }
        self.store.update(key(entry), object, WriteOptions::by(MANAGER)).await?;
        Ok(())
    }

    async fn remove(&self, entry: &Name) {
        match self.store.delete(key(entry), Preconditions::default()).await {
            Ok(_) => tracing::info!(%entry, "a workload is gone"),
            Err(StoreError::NotFound(_)) => {}
            Err(error) => {
                tracing::warn!(%entry, %error, "cannot remove the entry of a workload that is gone")
            }
        }
    }
}

fn key(entry: &Name) -> ObjectKey {
    ObjectKey::new(WorkloadEntry::INFO.collection.clone(), &*entry.namespace, &*entry.name)
}

/// `group-address`, as a Kubernetes name.
fn entry_name(group: &str, address: &str) -> String {
    format!("{group}-{}", address.replace(':', "-"))
}

fn entry_object(
    entry: &Name,
    group: &Name,
    view: &WorkloadGroup,
    labels: &BTreeMap<String, String>,
    proxy: &Proxy,
    service_account: &str,
) -> Object {
    let template = &view.template;
    let mut spec = Map::new();
    spec.insert("address".to_owned(), proxy.address.to_string().into());
    spec.insert("labels".to_owned(), json!(labels));
    spec.insert("serviceAccount".to_owned(), service_account.into());
    let locality = match template.locality.as_str() {
        "" => [&proxy.locality.region, &proxy.locality.zone, &proxy.locality.subzone]
            .map(String::as_str)
            .join("/")
            .trim_end_matches('/')
            .to_owned(),
        own => own.to_owned(),
    };
    let network = if template.network.is_empty() { &proxy.network } else { &template.network };
    for (field, text) in [("locality", locality.as_str()), ("network", network.as_str())] {
        if !text.is_empty() {
            spec.insert(field.to_owned(), text.into());
        }
    }
    if !template.ports.is_empty() {
        spec.insert("ports".to_owned(), json!(template.ports));
    }
    if let Some(weight) = template.weight {
        spec.insert("weight".to_owned(), weight.into());
    }
    let mut object =
        Object::new("networking.istio.io/v1", "WorkloadEntry", &entry.namespace, &entry.name)
            .with("spec", Value::Object(spec));
    for (label, value) in labels {
        object.set_label(label, value);
    }
    for (annotation, value) in &view.annotations {
        object.set_annotation(annotation, value);
    }
    object.set_annotation(GROUP_ANNOTATION, &group.name);
    object.set_annotation(CONNECTED_ANNOTATION, &unix_seconds().to_string());
    if view.probe.is_some() {
        // Unhealthy until its agent has seen it healthy.
        object.set_annotation(HEALTH_CHECKS_ANNOTATION, "true");
    }
    object
}

fn unix_seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}
