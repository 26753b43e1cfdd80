//! The store's state machine: versions, history and watches over a journal that makes changes durable.
//!
//! One thread writes. It takes every write that waits, works them out one after the other, makes them durable in
//! one commit, and only then shows them to readers and watches. Readers share a lock for the time of a look-up.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use super::managed_fields::now;
use super::write::{Operation, Outcome, Write, plan};
use super::{
    EventKind, Filter, Listed, Patch, Preconditions, ResourceVersion, Store, StoreError,
    StoreFuture, Watch, WatchEvent, WatchSource, WriteOptions,
};
use crate::object::{Collection, Object, ObjectKey};

/// One durable change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Version that it made.
    pub version: u64,
    /// What changed.
    pub key: ObjectKey,
    /// The object after it; none if it is gone.
    pub after: Option<Arc<Object>>,
    /// The object before it; none if it is new.
    pub before: Option<Arc<Object>>,
}

/// Makes changes durable.
pub trait Journal: Send + 'static {
    /// Makes all changes durable together, or none. `keep_from` is the oldest version whose change a watch may still
    /// ask for.
    fn commit(&mut self, changes: &[Change], keep_from: u64) -> Result<(), String>;
}

/// A journal that forgets: for tests.
pub struct NoJournal;

impl Journal for NoJournal {
    fn commit(&mut self, _changes: &[Change], _keep_from: u64) -> Result<(), String> {
        Ok(())
    }
}

/// What a store begins with.
#[derive(Default)]
pub struct Snapshot {
    /// Version of the content.
    pub version: u64,
    /// Every object.
    pub objects: Vec<(ObjectKey, Arc<Object>)>,
    /// The last changes, by version.
    pub history: Vec<Change>,
}

type Rows = BTreeMap<(String, String), Arc<Object>>;

struct State {
    version: u64,
    collections: HashMap<Collection, Rows>,
    /// The last changes, by version; a watch from a version below `history_base` has missed some.
    history: VecDeque<Change>,
    history_base: u64,
}

impl State {
    fn get(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        // Keys are looked up by pair; the pair is built because BTreeMap cannot borrow two halves.
        self.collections.get(&key.collection)?.get(&(key.namespace.clone(), key.name.clone()))
    }

    fn apply(&mut self, change: Change, keep: usize) {
        let rows = self.collections.entry(change.key.collection.clone()).or_default();
        let row = (change.key.namespace.clone(), change.key.name.clone());
        match &change.after {
            Some(object) => drop(rows.insert(row, Arc::clone(object))),
            None => drop(rows.remove(&row)),
        }
        self.version = change.version;
        self.history.push_back(change);
        while self.history.len() > keep {
            if let Some(forgotten) = self.history.pop_front() {
                self.history_base = forgotten.version;
            }
        }
    }
}

struct Inner {
    state: RwLock<State>,
    /// The version that readers see; watches wait for it.
    version: watch::Sender<u64>,
}

struct Request {
    writes: Vec<Write>,
    reply: oneshot::Sender<Vec<Result<Arc<Object>, StoreError>>>,
}

/// Objects with versions, history and watches, over a journal.
pub struct Versioned {
    inner: Arc<Inner>,
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
}

/// Most requests in one commit.
const MAX_GROUP: usize = 256;

impl Versioned {
    /// Starts the store on what was there before. Watches may go back `keep` changes.
    pub fn start(snapshot: Snapshot, journal: impl Journal, keep: usize) -> std::io::Result<Self> {
        let history: VecDeque<Change> = snapshot.history.into();
        let mut state = State {
            version: snapshot.version,
            history_base: history.front().map_or(snapshot.version, |oldest| oldest.version - 1),
            collections: HashMap::new(),
            history,
        };
        for (key, object) in snapshot.objects {
            let rows = state.collections.entry(key.collection).or_default();
            rows.insert((key.namespace, key.name), object);
        }
        let version = watch::Sender::new(state.version);
        let inner = Arc::new(Inner { state: RwLock::new(state), version });
        let (requests, receiver) = mpsc::channel();
        let worker = Writer { inner: Arc::clone(&inner), journal, keep };
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || worker.run(&receiver))?;
        Ok(Self { inner, requests: Some(requests), writer: Some(writer) })
    }

    /// A store in memory, for tests.
    pub fn in_memory() -> std::io::Result<Self> {
        Self::start(Snapshot::default(), NoJournal, 1024)
    }

    /// Does several writes in one commit: watches see all of them at once. Each succeeds or fails by itself.
    pub async fn write_all(
        &self,
        writes: Vec<Write>,
    ) -> Result<Vec<Result<Arc<Object>, StoreError>>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or(StoreError::Closed)?;
        requests.send(Request { writes, reply }).map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    async fn write(
        &self,
        key: ObjectKey,
        operation: Operation,
        options: WriteOptions,
    ) -> Result<Arc<Object>, StoreError> {
        let mut results = self.write_all(vec![Write { key, operation, options }]).await?;
        results.pop().unwrap_or(Err(StoreError::Closed))
    }

    /// Whether every object of every collection, for dumps and tests.
    pub fn objects(&self) -> Vec<(ObjectKey, Arc<Object>)> {
        let state = self.inner.state.read();
        let mut all = Vec::new();
        for (collection, rows) in &state.collections {
            let key = |(namespace, name): &(String, String)| {
                ObjectKey::new(collection.clone(), namespace, name)
            };
            all.extend(rows.iter().map(|(row, object)| (key(row), Arc::clone(object))));
        }
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }
}

impl Drop for Versioned {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has already failed every request.
            let _ = writer.join();
        }
    }
}

impl Store for Versioned {
    fn get<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, Arc<Object>> {
        let found = self.inner.state.read().get(key).cloned();
        Box::pin(std::future::ready(
            found.ok_or_else(|| StoreError::NotFound(Box::new(key.clone()))),
        ))
    }

    fn list<'a>(
        &'a self,
        collection: &'a Collection,
        filter: &'a Filter,
    ) -> StoreFuture<'a, Listed> {
        let state = self.inner.state.read();
        let rows = state.collections.get(collection).into_iter().flat_map(BTreeMap::values);
        let items = rows.filter(|object| filter.picks(object)).cloned().collect();
        let listed = Listed { items, version: public(state.version) };
        Box::pin(std::future::ready(Ok(listed)))
    }

    fn watch<'a>(
        &'a self,
        collection: &'a Collection,
        filter: Filter,
        from: &'a ResourceVersion,
    ) -> StoreFuture<'a, Watch> {
        let cursor = from.0.parse::<u64>().ok();
        let state = self.inner.state.read();
        // A version from the future is of another life of this store.
        let known = cursor.filter(|cursor| (state.history_base..=state.version).contains(cursor));
        let started = known.ok_or(StoreError::Expired).map(|cursor| {
            Watch::new(Cursor {
                inner: Arc::clone(&self.inner),
                version: self.inner.version.subscribe(),
                collection: collection.clone(),
                filter,
                cursor,
            })
        });
        Box::pin(std::future::ready(started))
    }

    fn create(
        &self,
        key: ObjectKey,
        object: Object,
        options: WriteOptions,
    ) -> StoreFuture<'_, Arc<Object>> {
        Box::pin(self.write(key, Operation::Create(object), options))
    }

    fn update(
        &self,
        key: ObjectKey,
        object: Object,
        options: WriteOptions,
    ) -> StoreFuture<'_, Arc<Object>> {
        Box::pin(self.write(key, Operation::Update(object), options))
    }

    fn patch(
        &self,
        key: ObjectKey,
        patch: Patch,
        options: WriteOptions,
    ) -> StoreFuture<'_, Arc<Object>> {
        Box::pin(self.write(key, Operation::Patch(patch), options))
    }

    fn delete(&self, key: ObjectKey, preconditions: Preconditions) -> StoreFuture<'_, Arc<Object>> {
        let options = WriteOptions { preconditions, ..WriteOptions::default() };
        Box::pin(self.write(key, Operation::Delete, options))
    }
}

fn public(version: u64) -> ResourceVersion {
    ResourceVersion(version.to_string())
}

struct Cursor {
    inner: Arc<Inner>,
    version: watch::Receiver<u64>,
    collection: Collection,
    filter: Filter,
    cursor: u64,
}

impl Cursor {
    /// Every event since the cursor, which moves on; `Expired` if some are gone.
    fn take(&mut self) -> Result<Vec<WatchEvent>, StoreError> {
        let state = self.inner.state.read();
        if self.cursor < state.history_base {
            return Err(StoreError::Expired);
        }
        let begin = state.history.partition_point(|change| change.version <= self.cursor);
        self.cursor = state.version;
        Ok(state.history.range(begin..).filter_map(|change| self.event(change)).collect())
    }

    fn event(&self, change: &Change) -> Option<WatchEvent> {
        if change.key.collection != self.collection {
            return None;
        }
        let picked = |object: &&Arc<Object>| self.filter.picks(object);
        let (before, after) =
            (change.before.as_ref().filter(picked), change.after.as_ref().filter(picked));
        let (kind, object) = match (before, after) {
            (None, Some(after)) => (EventKind::Added, Arc::clone(after)),
            (Some(_), Some(after)) => (EventKind::Modified, Arc::clone(after)),
            (Some(before), None) => {
                // The last state, at the version in which it went.
                let mut last = change.after.as_deref().unwrap_or(before).clone();
                last.set_meta("resourceVersion", change.version.to_string());
                (EventKind::Deleted, Arc::new(last))
            }
            (None, None) => return None,
        };
        Some(WatchEvent { kind, object })
    }
}

impl WatchSource for Cursor {
    fn next(&mut self) -> StoreFuture<'_, Vec<WatchEvent>> {
        Box::pin(async move {
            loop {
                self.version.borrow_and_update();
                let events = self.take()?;
                if !events.is_empty() {
                    return Ok(events);
                }
                self.version.changed().await.map_err(|_| StoreError::Closed)?;
            }
        })
    }

    fn version(&self) -> ResourceVersion {
        public(self.cursor)
    }
}

struct Writer<J> {
    inner: Arc<Inner>,
    journal: J,
    keep: usize,
}

impl<J: Journal> Writer<J> {
    fn run(mut self, requests: &mpsc::Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut group = vec![first];
            while group.len() < MAX_GROUP
                && let Ok(next) = requests.try_recv()
            {
                group.push(next);
            }
            self.commit(group);
        }
    }

    fn commit(&mut self, group: Vec<Request>) {
        let mut pending = Pending {
            inner: &self.inner,
            changes: Vec::new(),
            overlay: HashMap::new(),
            version: 0,
        };
        pending.version = self.inner.state.read().version;
        let mut answers = Vec::with_capacity(group.len());
        for request in group {
            let results: Vec<_> = request.writes.iter().map(|write| pending.write(write)).collect();
            answers.push((request.reply, results));
        }
        let changes = pending.changes;
        let failed = if changes.is_empty() { None } else { self.make_durable(changes).err() };
        for (reply, results) in answers {
            let results = match &failed {
                None => results,
                Some(error) => {
                    let fail =
                        |result: Result<_, _>| result.and(Err(StoreError::Storage(error.clone())));
                    results.into_iter().map(fail).collect()
                }
            };
            // Whoever asked may be gone; the write stands.
            let _ = reply.send(results);
        }
    }

    fn make_durable(&mut self, changes: Vec<Change>) -> Result<(), String> {
        let last = changes.last().map_or(0, |change| change.version);
        let keep_from = (last + 1).saturating_sub(self.keep as u64);
        self.journal.commit(&changes, keep_from)?;
        let mut state = self.inner.state.write();
        for change in changes {
            state.apply(change, self.keep);
        }
        drop(state);
        self.inner.version.send_replace(last);
        Ok(())
    }
}

/// Writes that are worked out and not yet durable.
struct Pending<'a> {
    inner: &'a Inner,
    changes: Vec<Change>,
    overlay: HashMap<ObjectKey, Option<Arc<Object>>>,
    version: u64,
}

impl Pending<'_> {
    fn write(&mut self, write: &Write) -> Result<Arc<Object>, StoreError> {
        let before = self.current(&write.key);
        let outcome = plan(write, before.as_ref())?;
        if before.is_none() && self.is_terminating(&write.key.namespace) {
            let reason = format!("namespace {} is being deleted", write.key.namespace);
            return Err(StoreError::Conflict { key: Box::new(write.key.clone()), reason });
        }
        let (answer, after) = match outcome {
            Outcome::Unchanged(object) => return Ok(object),
            Outcome::Put(object) if write.options.dry_run => return Ok(Arc::new(object)),
            Outcome::Remove(object) if write.options.dry_run => return Ok(object),
            Outcome::Put(object) => self.put(object),
            // A namespace goes after everything in it, and stays while anything of that is held.
            Outcome::Remove(object) if is_namespace(&write.key) && !self.empty(&write.key.name) => {
                let mut marked = Object::clone(&object);
                if !marked.is_terminating() {
                    marked.set_meta("deletionTimestamp", now());
                }
                self.put(marked)
            }
            Outcome::Remove(object) => (object, None),
        };
        self.version += 1;
        let removed = after.is_none();
        self.overlay.insert(write.key.clone(), after.clone());
        self.changes.push(Change { version: self.version, key: write.key.clone(), after, before });
        if removed && self.is_terminating(&write.key.namespace) {
            self.remove_namespace(&write.key.namespace);
        }
        Ok(answer)
    }

    fn current(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        match self.overlay.get(key) {
            Some(pending) => pending.clone(),
            None => self.inner.state.read().get(key).cloned(),
        }
    }

    /// The object under its next version.
    fn put(&self, mut object: Object) -> (Arc<Object>, Option<Arc<Object>>) {
        object.set_meta("resourceVersion", (self.version + 1).to_string());
        let object = Arc::new(object);
        (Arc::clone(&object), Some(object))
    }

    fn is_terminating(&self, namespace: &str) -> bool {
        !namespace.is_empty()
            && self.current(&namespace_key(namespace)).is_some_and(|it| it.is_terminating())
    }

    /// Deletes everything in a namespace; `false` if finalizers hold some of it.
    fn empty(&mut self, namespace: &str) -> bool {
        for key in self.keys_in(namespace) {
            let (operation, options) = (Operation::Delete, WriteOptions::default());
            // What is gone already is as good as deleted.
            let _ = self.write(&Write { key, operation, options });
        }
        self.keys_in(namespace).is_empty()
    }

    /// The last thing in a namespace that is being deleted may have gone.
    fn remove_namespace(&mut self, namespace: &str) {
        let key = namespace_key(namespace);
        if let Some(before) = self.current(&key)
            && before.finalizers().next().is_none()
            && self.keys_in(namespace).is_empty()
        {
            self.version += 1;
            self.overlay.insert(key.clone(), None);
            let (version, before) = (self.version, Some(before));
            self.changes.push(Change { version, key, after: None, before });
        }
    }

    fn keys_in(&self, namespace: &str) -> Vec<ObjectKey> {
        let mut keys = Vec::new();
        for (collection, rows) in &self.inner.state.read().collections {
            let first = (namespace.to_owned(), String::new());
            let rows = rows.range(first..).take_while(|((inside, _), _)| *inside == *namespace);
            keys.extend(
                rows.map(|((_, name), _)| ObjectKey::new(collection.clone(), namespace, name)),
            );
        }
        keys.retain(|key| !self.overlay.contains_key(key));
        let pending = self
            .overlay
            .iter()
            .filter(|(key, after)| after.is_some() && key.namespace == namespace);
        keys.extend(pending.map(|(key, _)| key.clone()));
        keys.sort();
        keys
    }
}

const NAMESPACES: Collection = Collection::of("", "namespaces");

fn namespace_key(name: &str) -> ObjectKey {
    ObjectKey::new(NAMESPACES, "", name)
}

fn is_namespace(key: &ObjectKey) -> bool {
    key.collection == NAMESPACES
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;
    use serde_json::json;

    const RULES: Collection = Collection::of("networking.istio.io", "destinationrules");

    fn rule(name: &str, host: &str) -> Write {
        let object = Object::new("networking.istio.io/v1", "DestinationRule", "default", name);
        Write {
            key: ObjectKey::new(RULES, "default", name),
            operation: Operation::Patch(Patch::Apply {
                object: object.with("spec", json!({"host": host})),
                force: true,
            }),
            options: WriteOptions::by("test"),
        }
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        contract::check(&Versioned::in_memory().unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn a_group_is_seen_at_once() {
        let store = Versioned::in_memory().unwrap();
        let mut watch = store.watch(&RULES, Filter::default(), &public(0)).await.unwrap();
        let written =
            store.write_all((0..50).map(|n| rule(&format!("r{n}"), "x")).collect()).await.unwrap();
        assert!(written.iter().all(Result::is_ok));
        assert_eq!(watch.next().await.unwrap().len(), 50);
    }

    #[tokio::test]
    async fn a_slow_watch_expires_and_a_list_goes_on() {
        let store = Versioned::start(Snapshot::default(), NoJournal, 4).unwrap();
        let mut slow = store.watch(&RULES, Filter::default(), &public(0)).await.unwrap();
        for n in 0..6 {
            store.write_all(vec![rule("r", &n.to_string())]).await.unwrap();
        }
        assert!(matches!(slow.next().await, Err(StoreError::Expired)));
        let old = store.watch(&RULES, Filter::default(), &public(1)).await;
        assert!(matches!(old, Err(StoreError::Expired)));
        let listed = store.list(&RULES, &Filter::default()).await.unwrap();
        let mut fresh = store.watch(&RULES, Filter::default(), &listed.version).await.unwrap();
        store.write_all(vec![rule("r", "last")]).await.unwrap();
        assert_eq!(fresh.next().await.unwrap()[0].object.spec(), Some(&json!({"host": "last"})));
    }

    struct Broken;

    impl Journal for Broken {
        fn commit(&mut self, _changes: &[Change], _keep_from: u64) -> Result<(), String> {
            Err("disk full".to_owned())
        }
    }

    #[tokio::test]
    async fn what_is_not_durable_did_not_happen() {
        let store = Versioned::start(Snapshot::default(), Broken, 4).unwrap();
        let results = store.write_all(vec![rule("r", "x")]).await.unwrap();
        assert_eq!(results, [Err(StoreError::Storage("disk full".to_owned()))]);
        assert!(store.list(&RULES, &Filter::default()).await.unwrap().items.is_empty());
    }
}
