//! Writes on each object how it fares, in Istio's shape (`istio.meta.v1alpha1.IstioStatus`).
//!
//! Off the path of pushes: a change leaves the names of its objects here and goes on. A round looks at those, at those
//! that some proxy has not answered yet, and, when proxies come and go, at all once that has calmed down. An object is
//! written at most once a round, and only if what is said of it differs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use resources::object::{Object, ObjectKey};
use resources::store::{Patch, Preconditions, ResourceVersion, Store, StoreError, WriteOptions};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::objects::{self, ObjectStatus};
use crate::discovery::origin::Origin;
use crate::model::objects::ChangeSet;
use crate::plane::Plane;

/// Who writes.
const MANAGER: &str = "outrigger-status";
/// Time between the beginnings of two rounds: no object is written more often.
const ROUND: Duration = Duration::from_secs(1);
/// A round waits this long for the answers to what caused it.
const ANSWERS: Duration = Duration::from_millis(200);
/// Proxies have come and gone when none did for this long.
const CALM: Duration = Duration::from_secs(2);
/// But no later than this.
const LATEST: Duration = Duration::from_secs(30);
/// Objects that are looked at in one go: pushes wait for no more than that.
const BATCH: usize = 64;
/// Proxies that are named in a message.
const NAMED: usize = 3;

/// Whether everything that an object says is what proxies do.
const RECONCILED: &str = "Reconciled";
/// Whether everything that an object says can be done at all; only there where it cannot.
const TRANSLATED: &str = "Translated";
/// What a validation message calls a field without effect.
const NOT_TRANSLATED: (&str, &str) = ("FieldNotTranslated", "OUT0101");

/// What is to be looked at, and what was said last.
#[derive(Default)]
pub struct Keeper {
    work: Mutex<Work>,
    latest: Mutex<BTreeMap<Origin, ObjectStatus>>,
    wake: Notify,
    /// Whether an answer of a proxy is worth a round.
    awaits_answers: AtomicBool,
}

#[derive(Default)]
struct Work {
    changed: BTreeSet<Origin>,
    /// The context in which an object last changed.
    since: BTreeMap<Origin, u64>,
    /// When proxies first and last came or went and not all was looked at since.
    membership: Option<(Instant, Instant)>,
}

impl Keeper {
    /// Objects changed. `number` is the context that has it.
    pub fn changed(&self, changes: &ChangeSet, number: u64) {
        let changed = objects::changed(changes);
        if !changes.secrets.is_empty() {
            // Whoever names one may lack it now, or have what it lacked.
            self.proxies_changed();
        }
        if changed.is_empty() {
            return;
        }
        let mut work = self.work.lock();
        for origin in changed {
            work.since.insert(origin.clone(), number);
            work.changed.insert(origin);
        }
        drop(work);
        self.wake.notify_one();
    }

    /// A proxy came, went or rejected something, or what proxies need did: any object may fare differently.
    pub fn proxies_changed(&self) {
        let now = Instant::now();
        let mut work = self.work.lock();
        work.membership = Some((work.membership.map_or(now, |(first, _)| first), now));
        drop(work);
        self.wake.notify_one();
    }

    /// A proxy answered.
    pub fn answered(&self) {
        if self.awaits_answers.load(Ordering::Relaxed) {
            self.wake.notify_one();
        }
    }

    /// How every object fared when it was last looked at.
    pub fn latest(&self) -> Vec<ObjectStatus> {
        self.latest.lock().values().cloned().collect()
    }

    /// Writes for ever.
    pub async fn run(&self, plane: &Plane, store: &dyn Store) {
        loop {
            self.wait_for_work().await;
            let begun = Instant::now();
            sleep(ANSWERS).await;
            for origin in self.round(plane) {
                self.write(store, &origin).await;
            }
            sleep_until(begun + ROUND).await;
        }
    }

    /// Waits for a reason to look: a changed object at once, a changed membership when it has calmed down.
    async fn wait_for_work(&self) {
        loop {
            let due = {
                let work = self.work.lock();
                if !work.changed.is_empty() {
                    return;
                }
                work.membership.map(|(first, last)| (last + CALM).min(first + LATEST))
            };
            let calm = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = calm => return,
                () = self.wake.notified() => {
                    if self.awaits_answers.load(Ordering::Relaxed) {
                        return;
                    }
                }
            }
        }
    }

    /// Looks at what may fare differently, and says what does.
    fn round(&self, plane: &Plane) -> Vec<Origin> {
        // Whoever answers while this goes on causes another round.
        self.awaits_answers.store(true, Ordering::Relaxed);
        let mut look = {
            let mut work = self.work.lock();
            let mut look = std::mem::take(&mut work.changed);
            let now = Instant::now();
            let calm =
                |(first, last): &mut (Instant, Instant)| (*last + CALM).min(*first + LATEST) <= now;
            if work.membership.take_if(calm).is_some() {
                look.extend(plane.with_discovery(|discovery| objects::all(discovery.context())));
            }
            look
        };
        let unsettled =
            |status: &ObjectStatus| !status.is_settled() || !status.rejections.is_empty();
        {
            let latest = self.latest.lock();
            let open = latest.iter().filter(|(_, status)| unsettled(status));
            look.extend(open.map(|(origin, _)| origin.clone()));
        }
        let look: Vec<Origin> = look.into_iter().collect();
        let mut differ = Vec::new();
        for batch in look.chunks(BATCH) {
            let since = self.since(batch);
            let found: Vec<Option<ObjectStatus>> = plane.with_discovery(|discovery| {
                let status =
                    |(origin, since)| objects::status(discovery, &plane.board, origin, since);
                batch.iter().zip(since).map(status).collect()
            });
            differ.extend(self.note(batch, found));
        }
        let waits = self.latest.lock().values().any(unsettled);
        self.awaits_answers.store(waits, Ordering::Relaxed);
        differ
    }

    fn since(&self, batch: &[Origin]) -> Vec<u64> {
        let work = self.work.lock();
        batch.iter().map(|origin| work.since.get(origin).copied().unwrap_or_default()).collect()
    }

    /// Keeps what was found, and says which objects fare differently.
    fn note(&self, batch: &[Origin], found: Vec<Option<ObjectStatus>>) -> Vec<Origin> {
        let mut latest = self.latest.lock();
        let mut differ = Vec::new();
        for (origin, status) in batch.iter().zip(found) {
            let Some(status) = status else {
                latest.remove(origin);
                self.work.lock().since.remove(origin);
                continue;
            };
            if latest.get(origin) != Some(&status) {
                latest.insert(origin.clone(), status);
                differ.push(origin.clone());
            }
        }
        differ
    }

    /// Writes on an object how it fares. Whoever was quicker with another write of it is heard first: the next round
    /// tries again.
    async fn write(&self, store: &dyn Store, origin: &Origin) {
        let Some(status) = self.latest.lock().get(origin).cloned() else { return };
        let Some(info) = objects::info(origin.kind) else { return };
        let collection = info.collection.clone();
        let key = ObjectKey::new(collection, &*origin.name.namespace, &*origin.name.name);
        match write(store, &key, &status).await {
            Ok(()) | Err(StoreError::NotFound(_) | StoreError::Closed) => {}
            Err(error) => {
                if !matches!(error, StoreError::Conflict { .. }) {
                    tracing::warn!(%key, %error, "cannot write an object's status");
                }
                self.latest.lock().remove(origin);
                self.work.lock().changed.insert(origin.clone());
            }
        }
    }
}

async fn write(
    store: &dyn Store,
    key: &ObjectKey,
    status: &ObjectStatus,
) -> Result<(), StoreError> {
    let object = store.get(key).await?;
    // Another object of this name, or a newer generation: its change is on its way here.
    if object.uid() != status.uid || object.generation() != status.generation {
        return Ok(());
    }
    let Some(merged) = merged(&object, status) else { return Ok(()) };
    let options = WriteOptions {
        preconditions: Preconditions {
            uid: Some(status.uid.clone()),
            resource_version: Some(ResourceVersion(object.resource_version().to_owned())),
        },
        ..WriteOptions::by(MANAGER).status()
    };
    store.patch(key.clone(), Patch::Merge(json!({ "status": merged })), options).await.map(|_| ())
}

/// The status with our part of it renewed; `None` if it says all that already. Conditions of others stay.
fn merged(object: &Object, status: &ObjectStatus) -> Option<Value> {
    let known =
        object.status().and_then(|status| status.get("conditions")).and_then(Value::as_array);
    let known = known.map(Vec::as_slice).unwrap_or_default();
    let is_ours = |condition: &&Value| {
        [RECONCILED, TRANSLATED].map(Some).contains(&condition.get("type").and_then(Value::as_str))
    };
    let mut conditions: Vec<Value> =
        known.iter().filter(|condition| !is_ours(condition)).cloned().collect();
    let ours = [reconciled(status), translated(status)].into_iter().flatten();
    conditions.extend(ours.map(|condition| with_transition(condition, known)));
    let merged = json!({
        "observedGeneration": status.generation,
        "conditions": conditions,
        "validationMessages": messages(status),
    });
    let same = ["observedGeneration", "conditions", "validationMessages"]
        .iter()
        .all(|field| object.status().and_then(|status| status.get(field)) == merged.get(field));
    (!same).then_some(merged)
}

/// A condition keeps the time of its last transition while its status does not change.
fn with_transition(mut condition: Value, known: &[Value]) -> Value {
    let before = known.iter().find(|old| old["type"] == condition["type"]);
    let since = before
        .filter(|old| old["status"] == condition["status"])
        .and_then(|old| old.get("lastTransitionTime").cloned())
        .unwrap_or_else(|| Value::String(resources::store::managed_fields::now()));
    condition["lastTransitionTime"] = since;
    condition
}

fn reconciled(status: &ObjectStatus) -> Option<Value> {
    let count = format!("Programmed on {} of {} proxies", status.programmed, status.proxies);
    let (truth, reason, message) = if !status.rejections.is_empty() {
        ("False", "Rejected", format!("{count}; {}", refusals(status)))
    } else if !status.is_programmed() {
        ("False", "Pending", count)
    } else if status.proxies == 0 {
        ("Unknown", "NoProxies", "No connected proxy is concerned".to_owned())
    } else {
        ("True", "Programmed", count)
    };
    Some(condition(status, RECONCILED, truth, reason, &message))
}

/// `reviews-v1.default rejected CDS outbound|80||x: why`, for the first few.
fn refusals(status: &ObjectStatus) -> String {
    let named = status.rejections.iter().take(NAMED);
    let mut text = named
        .map(|one| format!("{} rejected {}: {}", one.proxy, one.resource, one.reason))
        .collect::<Vec<_>>()
        .join("; ");
    if status.rejections.len() > NAMED {
        text += &format!("; and {} more", status.rejections.len() - NAMED);
    }
    text
}

fn translated(status: &ObjectStatus) -> Option<Value> {
    if status.warnings.is_empty() {
        return None;
    }
    let message = status.warnings.join("; ");
    Some(condition(status, TRANSLATED, "False", "WithoutEffect", &message))
}

fn condition(status: &ObjectStatus, kind: &str, truth: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind,
        "status": truth,
        "reason": reason,
        "message": message,
        "observedGeneration": status.generation,
    })
}

/// `istio.analysis.v1alpha1.AnalysisMessageBase`, with the message beside it.
fn messages(status: &ObjectStatus) -> Vec<Value> {
    let (name, code) = NOT_TRANSLATED;
    let one = |warning: &String| {
        json!({
            "type": {"name": name, "code": code},
            "level": "WARNING",
            "message": warning,
        })
    };
    status.warnings.iter().map(one).collect()
}
