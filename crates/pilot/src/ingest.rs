//! Every kind, listed and watched: what the store says, as change sets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use resources::kinds::{KindInfo, key_of};
use resources::object::{Object, ObjectKey};
use resources::store::{EventKind, Filter, Store, StoreError, Watch, WatchEvent};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use crate::model::objects::{ChangeSet, KINDS_READ};

/// A change is taken in once nothing more came for this long: one pass over a directory is one change.
const QUIET: Duration = Duration::from_millis(5);
/// But no later than this.
const LATEST: Duration = Duration::from_millis(100);
/// Time before a store that does not answer is asked again.
const RETRY: Duration = Duration::from_millis(500);

/// What a watcher of one kind tells.
enum News {
    /// The kind was listed for the first time.
    Listed(Vec<WatchEvent>),
    /// Changes since.
    Changed(Vec<WatchEvent>),
}

/// Tells what changes in a store, one settled change set after the other.
pub struct Ingest {
    news: mpsc::Receiver<News>,
    unlisted: usize,
    watchers: tokio::task::JoinSet<()>,
}

impl Ingest {
    /// Starts to list and watch every kind.
    pub fn start(store: &Arc<dyn Store>) -> Ingest {
        let (sender, news) = mpsc::channel(256);
        let mut watchers = tokio::task::JoinSet::new();
        for info in KINDS_READ {
            let watcher = Watcher {
                store: Arc::clone(store),
                info,
                known: BTreeMap::new(),
                news: sender.clone(),
            };
            watchers.spawn(watcher.run());
        }
        Ingest { news, unlisted: KINDS_READ.len(), watchers }
    }

    /// Everything there is: ends when every kind was listed. `None` if ingest was stopped before.
    pub async fn everything(&mut self) -> Option<ChangeSet> {
        let mut all = ChangeSet::default();
        while self.unlisted > 0 {
            let news = self.news.recv().await?;
            self.take(news, &mut all);
        }
        Some(all)
    }

    /// The next settled change. `None` once ingest was stopped.
    pub async fn next(&mut self) -> Option<ChangeSet> {
        let mut changes = ChangeSet::default();
        while changes.is_empty() {
            let news = self.news.recv().await?;
            self.take(news, &mut changes);
        }
        let latest = Instant::now() + LATEST;
        while let Ok(news) = timeout_at(latest.min(Instant::now() + QUIET), self.news.recv()).await
        {
            self.take(news?, &mut changes);
        }
        Some(changes)
    }

    /// Stops watching.
    pub fn stop(&mut self) {
        self.watchers.abort_all();
    }

    fn take(&mut self, news: News, into: &mut ChangeSet) {
        let events = match news {
            News::Listed(events) => {
                self.unlisted -= 1;
                events
            }
            News::Changed(events) => events,
        };
        for event in events {
            match event.kind {
                EventKind::Deleted => into.delete(&key(&event.object)),
                // Admission lets no such object in; one that got in by another way stays as it was before.
                EventKind::Added | EventKind::Modified => {
                    if let Err(errors) = into.upsert(&event.object) {
                        tracing::warn!(object = %key(&event.object), %errors, "ignored: it is not valid");
                    }
                }
            }
        }
    }
}

fn key(object: &Object) -> ObjectKey {
    match resources::kinds::kind_of(object) {
        Ok(info) => key_of(object, info),
        Err(_) => ObjectKey::new(
            resources::object::Collection { group: Default::default(), plural: Default::default() },
            object.namespace(),
            object.name(),
        ),
    }
}

/// Lists and watches one kind, for ever.
struct Watcher {
    store: Arc<dyn Store>,
    info: &'static KindInfo,
    /// What was told, so that after a gap only differences are.
    known: BTreeMap<ObjectKey, Arc<Object>>,
    news: mpsc::Sender<News>,
}

impl Watcher {
    async fn run(mut self) {
        let mut first = true;
        loop {
            match self.list(first).await {
                Ok(watch) => {
                    first = false;
                    match self.follow(watch).await {
                        // Whoever listened is gone.
                        Ok(()) => return,
                        Err(StoreError::Expired) => continue,
                        Err(error) => {
                            tracing::warn!(kind = self.info.kind, %error, "the watch ended")
                        }
                    }
                }
                Err(error) => tracing::warn!(kind = self.info.kind, %error, "cannot list"),
            }
            sleep(RETRY).await;
        }
    }

    async fn list(&mut self, first: bool) -> Result<Watch, StoreError> {
        let listed = self.store.list(&self.info.collection, &Filter::default()).await?;
        let watch =
            self.store.watch(&self.info.collection, Filter::default(), &listed.version).await?;
        let mut now = BTreeMap::new();
        let mut events = Vec::new();
        for object in listed.items {
            let key = key_of(&object, self.info);
            let same = self
                .known
                .get(&key)
                .is_some_and(|old| old.resource_version() == object.resource_version());
            if !same {
                events.push(WatchEvent { kind: EventKind::Added, object: Arc::clone(&object) });
            }
            now.insert(key, object);
        }
        let gone = std::mem::replace(&mut self.known, now);
        events.extend(
            gone.into_iter()
                .filter(|(key, _)| !self.known.contains_key(key))
                .map(|(_, object)| WatchEvent { kind: EventKind::Deleted, object }),
        );
        let news = if first { News::Listed(events) } else { News::Changed(events) };
        // A closed channel is found out by `follow`.
        let _ = self.news.send(news).await;
        Ok(watch)
    }

    async fn follow(&mut self, mut watch: Watch) -> Result<(), StoreError> {
        loop {
            let events = tokio::select! {
                events = watch.next() => events?,
                () = self.news.closed() => return Ok(()),
            };
            for event in &events {
                let key = key_of(&event.object, self.info);
                match event.kind {
                    EventKind::Deleted => self.known.remove(&key),
                    EventKind::Added | EventKind::Modified => {
                        self.known.insert(key, Arc::clone(&event.object))
                    }
                };
            }
            if self.news.send(News::Changed(events)).await.is_err() {
                return Ok(());
            }
        }
    }
}
