//! Bringing the store in line with a directory, with an inventory of what the directory owns.

use std::collections::BTreeMap;
use std::sync::Arc;

use resources::kinds::Kind;
use resources::kinds::core::config_map::ConfigMap;
use resources::object::{Collection, Object, ObjectKey};
use resources::store::{
    Operation, Patch, Preconditions, Store, StoreError, Versioned, Write, WriteOptions,
};
use resources::yaml::FileProblem;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::desired::Desired;

/// Name of the ConfigMap with the inventory, in the root namespace.
const CONFIG_MAP: &str = "outrigger-directory";
const KEY: &str = "objects";
const MANAGER: &str = "outrigger-directory";

/// What a pass did, of what was written in the directory; what follows from that is not told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Objects that are new.
    pub created: Vec<ObjectKey>,
    /// Objects that changed.
    pub changed: Vec<ObjectKey>,
    /// Objects that left the directory and are gone.
    pub deleted: Vec<ObjectKey>,
    /// Objects that stayed as they were.
    pub unchanged: usize,
    /// Objects that the store did not take, and why.
    pub refused: Vec<FileProblem>,
}

impl Outcome {
    /// Whether the pass changed anything.
    pub fn is_change(&self) -> bool {
        !(self.created.is_empty() && self.changed.is_empty() && self.deleted.is_empty())
    }

    /// How many objects are written in the directory.
    pub fn count(&self) -> usize {
        self.created.len() + self.changed.len() + self.unchanged
    }
}

/// An object that the directory owns. The uid tells it from another one of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owned {
    group: String,
    plural: String,
    namespace: String,
    name: String,
    /// Empty from before it was written until its pass ended.
    uid: String,
    /// Whether nobody wrote it: it follows from what is in the directory.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    derived: bool,
}

impl Owned {
    fn new(key: &ObjectKey, uid: &str, derived: bool) -> Self {
        Self {
            group: key.collection.group.to_string(),
            plural: key.collection.plural.to_string(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: uid.to_owned(),
            derived,
        }
    }

    fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.plural == "namespaces"
    }

    fn key(&self) -> ObjectKey {
        let collection =
            Collection { group: self.group.clone().into(), plural: self.plural.clone().into() };
        ObjectKey::new(collection, &*self.namespace, &*self.name)
    }
}

/// Applies what is wanted and deletes what is owned and not wanted any more, all in one commit; namespaces that are empty
/// then go in another.
pub(super) async fn reconcile(
    store: &Versioned,
    root_namespace: &str,
    desired: &Desired,
) -> Result<Outcome, StoreError> {
    let inventory_key =
        ObjectKey::new(ConfigMap::INFO.collection.clone(), root_namespace, CONFIG_MAP);
    let owned = read_inventory(store, &inventory_key).await?;
    let before = versions(store, desired).await?;

    // What will be made is in the inventory first: whoever comes after a crash knows that it is ours.
    let mut claimed = owned.clone();
    let unclaimed = desired.objects.iter().filter(|(key, _)| !owned.contains_key(*key));
    for (key, wanted) in unclaimed {
        claimed.insert(key.clone(), Owned::new(key, "", wanted.derived));
    }
    let mut writes = Vec::new();
    if claimed != owned {
        writes.push(write_inventory(&inventory_key, &claimed));
    }
    let leaving = owned.iter().filter(|(key, _)| !desired.objects.contains_key(*key));
    let (leaving_namespaces, leaving): (Vec<&Owned>, Vec<&Owned>) =
        leaving.map(|(_, owned)| owned).partition(|owned| owned.is_namespace());
    let first_object = writes.len();
    writes.extend(desired.objects.iter().map(|(key, wanted)| Write {
        key: key.clone(),
        operation: Operation::Patch(Patch::Apply { object: wanted.object.clone(), force: true }),
        options: WriteOptions::by(MANAGER),
    }));
    let first_leaving = writes.len();
    writes.extend(leaving.iter().map(|owned| deletion(owned)));
    let mut results = store.write_all(writes).await?;
    let left = results.split_off(first_leaving);
    let applied = results.split_off(first_object);
    for claim in results {
        claim?;
    }

    let mut outcome = Outcome::default();
    let mut now_owned = tell_applied(&mut outcome, desired, &before, applied)?;
    tell_deleted(&mut outcome, leaving, left)?;
    // Last, and only where nobody else has something in it: a namespace takes what is in it along.
    let (empty, occupied): (Vec<&Owned>, Vec<&Owned>) =
        leaving_namespaces.into_iter().partition(|namespace| is_empty(store, &namespace.name));
    if !empty.is_empty() {
        let left = store.write_all(empty.iter().map(|owned| deletion(owned)).collect()).await?;
        tell_deleted(&mut outcome, empty, left)?;
    }
    now_owned.extend(occupied.into_iter().map(|owned| (owned.key(), owned.clone())));
    if now_owned != claimed {
        for written in store.write_all(vec![write_inventory(&inventory_key, &now_owned)]).await? {
            written?;
        }
    }
    Ok(outcome)
}

/// Notes what became of each object that was applied, and which of them are owned now.
fn tell_applied(
    outcome: &mut Outcome,
    desired: &Desired,
    before: &BTreeMap<ObjectKey, String>,
    applied: Vec<Result<Arc<Object>, StoreError>>,
) -> Result<BTreeMap<ObjectKey, Owned>, StoreError> {
    let mut now_owned = BTreeMap::new();
    for ((key, wanted), result) in desired.objects.iter().zip(applied) {
        match result {
            Ok(object) => {
                now_owned.insert(key.clone(), Owned::new(key, object.uid(), wanted.derived));
                match before.get(key) {
                    _ if wanted.derived => {}
                    None => outcome.created.push(key.clone()),
                    Some(version) if version != object.resource_version() => {
                        outcome.changed.push(key.clone())
                    }
                    Some(_) => outcome.unchanged += 1,
                }
            }
            Err(error @ (StoreError::Storage(_) | StoreError::Closed)) => return Err(error),
            Err(error) => {
                let message = error.to_string();
                outcome.refused.push(FileProblem { at: wanted.place.clone(), message });
            }
        }
    }
    Ok(now_owned)
}

/// Notes what became of each object that left the directory.
fn tell_deleted(
    outcome: &mut Outcome,
    leaving: Vec<&Owned>,
    left: Vec<Result<Arc<Object>, StoreError>>,
) -> Result<(), StoreError> {
    for (owned, result) in leaving.into_iter().zip(left) {
        match result {
            Ok(_) if owned.derived => {}
            Ok(_) => outcome.deleted.push(owned.key()),
            // Gone already, or another one by now: not ours.
            Err(StoreError::NotFound(_) | StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_empty(store: &Versioned, namespace: &str) -> bool {
    !store.objects().iter().any(|(key, _)| key.namespace == namespace)
}

fn deletion(owned: &Owned) -> Write {
    let uid = (!owned.uid.is_empty()).then(|| owned.uid.clone());
    let preconditions = Preconditions { uid, resource_version: None };
    let options = WriteOptions { preconditions, ..WriteOptions::by(MANAGER) };
    Write { key: owned.key(), operation: Operation::Delete, options }
}

async fn versions(
    store: &Versioned,
    desired: &Desired,
) -> Result<BTreeMap<ObjectKey, String>, StoreError> {
    let mut versions = BTreeMap::new();
    for key in desired.objects.keys() {
        match store.get(key).await {
            Ok(object) => drop(versions.insert(key.clone(), object.resource_version().to_owned())),
            Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(versions)
}

async fn read_inventory(
    store: &Versioned,
    key: &ObjectKey,
) -> Result<BTreeMap<ObjectKey, Owned>, StoreError> {
    let object = match store.get(key).await {
        Ok(object) => object,
        Err(StoreError::NotFound(_)) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    let view = ConfigMap::parse(&object).map(|parsed| parsed.view).unwrap_or_default();
    let text = view.data.get(KEY).map(String::as_str).unwrap_or_default();
    // An inventory that cannot be read owns nothing: better to leave something behind than to delete what is another's.
    let owned: Vec<Owned> = serde_json::from_str(text).unwrap_or_else(|error| {
        tracing::warn!(%error, "the inventory cannot be read; nothing that left the directory is deleted");
        Vec::new()
    });
    Ok(owned.into_iter().map(|owned| (owned.key(), owned)).collect())
}

fn write_inventory(key: &ObjectKey, owned: &BTreeMap<ObjectKey, Owned>) -> Write {
    let list: Vec<&Owned> = owned.values().collect();
    let text = serde_json::to_string(&list).unwrap_or_default();
    let object = Object::new("v1", "ConfigMap", &key.namespace, &key.name)
        .with("data", json!({ KEY: text }));
    Write {
        key: key.clone(),
        operation: Operation::Patch(Patch::Apply { object, force: true }),
        options: WriteOptions::by(MANAGER),
    }
}
