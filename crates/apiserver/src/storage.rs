//! Objects on disk: one redb file, written once per group of changes, whole or not at all.

use std::path::PathBuf;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use resources::object::{Collection, Object, ObjectKey};
use resources::store::{Change, Journal, Snapshot, Versioned};

use crate::state_dir::{StateDir, StateDirError};

/// Changes that a watch may go back.
const HISTORY: usize = 4096;
/// Memory for pages; every object is in memory once already.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
const FILE: &str = "objects.redb";

/// Objects by `group/plural/namespace/name`.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
/// The last changes by version.
const CHANGES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("changes");
/// The version of the whole, under [`VERSION`].
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const VERSION: &str = "version";

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Its directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// It cannot be read or written, or is no such file.
    #[error("{path}: {error}")]
    Database {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// The store's thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Opens a mesh's objects: what was there, and a journal for what comes.
pub fn open(state: &StateDir) -> Result<Versioned, StorageError> {
    open_keeping(state, HISTORY)
}

fn open_keeping(state: &StateDir, history: usize) -> Result<Versioned, StorageError> {
    let path = state.path().join(FILE);
    let failed = |error: redb::Error| StorageError::Database {
        path: path.clone(),
        error: error.to_string(),
    };
    // Made with the right mode before the database opens it by its path.
    drop(state.file(FILE)?);
    let file = path.clone();
    let open = move || {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        Ok(builder.create(&file)?)
    };
    let (snapshot, redb) = Redb::open(Box::new(open)).map_err(failed)?;
    Ok(Versioned::start(snapshot, redb, history)?)
}

fn load(database: &Database) -> Result<Snapshot, redb::Error> {
    // The tables are made first, so that a new file reads as an empty one.
    let write = database.begin_write()?;
    write.open_table(OBJECTS)?;
    write.open_table(CHANGES)?;
    write.open_table(META)?;
    write.commit()?;
    let read = database.begin_read()?;
    let version = read.open_table(META)?.get(VERSION)?.map_or(0, |version| version.value());
    let mut snapshot = Snapshot { version, ..Snapshot::default() };
    for row in read.open_table(OBJECTS)?.iter()? {
        let (key, object) = row?;
        let object: Object = from_json(object.value())?;
        snapshot.objects.push((parse_key(key.value())?, Arc::new(object)));
    }
    for row in read.open_table(CHANGES)?.iter()? {
        snapshot.history.push(from_json(row?.1.value())?);
    }
    Ok(snapshot)
}

fn from_json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    serde_json::from_slice(bytes).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

fn row_key(key: &ObjectKey) -> String {
    format!("{}/{}/{}/{}", key.collection.group, key.collection.plural, key.namespace, key.name)
}

fn parse_key(text: &str) -> Result<ObjectKey, redb::Error> {
    let parts: Vec<&str> = text.splitn(4, '/').collect();
    let [group, plural, namespace, name] = parts[..] else {
        return Err(redb::Error::Corrupted(format!("no key: {text:?}")));
    };
    let collection =
        Collection { group: group.to_owned().into(), plural: plural.to_owned().into() };
    Ok(ObjectKey::new(collection, namespace, name))
}

type Open = Box<dyn Fn() -> Result<Database, redb::Error> + Send>;

struct Redb {
    /// None after an error of the disk: the database takes nothing more then, and is opened anew for the next write.
    database: Option<Database>,
    open: Open,
    /// The version of the last write.
    version: u64,
}

impl Redb {
    fn open(open: Open) -> Result<(Snapshot, Self), redb::Error> {
        let database = open()?;
        let snapshot = load(&database)?;
        let version = snapshot.version;
        Ok((snapshot, Self { database: Some(database), open, version }))
    }

    fn database(&mut self) -> Result<&Database, redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => {
                let database = (self.open)()?;
                if load(&database)?.version != self.version {
                    let what = "a write that failed is there: stop the mesh and start it again";
                    return Err(redb::Error::Corrupted(what.to_owned()));
                }
                database
            }
        };
        Ok(self.database.insert(database))
    }

    fn write(database: &Database, changes: &[Change], keep_from: u64) -> Result<(), redb::Error> {
        let write = database.begin_write()?;
        {
            let mut objects = write.open_table(OBJECTS)?;
            let mut log = write.open_table(CHANGES)?;
            let mut meta = write.open_table(META)?;
            for change in changes {
                let row = row_key(&change.key);
                match &change.after {
                    Some(object) => {
                        objects.insert(row.as_str(), to_json(object)?.as_slice())?;
                    }
                    None => {
                        objects.remove(row.as_str())?;
                    }
                }
                log.insert(change.version, to_json(change)?.as_slice())?;
                meta.insert(VERSION, change.version)?;
            }
            log.retain_in(..keep_from, |_, _| false)?;
        }
        write.commit()?;
        Ok(())
    }
}

fn to_json(value: &impl serde::Serialize) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

impl Journal for Redb {
    fn commit(&mut self, changes: &[Change], keep_from: u64) -> Result<(), String> {
        let written =
            self.database().and_then(|database| Self::write(database, changes, keep_from));
        match (&written, changes.last()) {
            (Ok(()), Some(last)) => self.version = last.version,
            (Ok(()), None) => {}
            (Err(_), _) => self.database = None,
        }
        written.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use resources::store::{EventKind, Filter, Store, StoreError, WriteOptions, contract};
    use serde_json::json;
    use std::io;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicBool, Ordering};

    const RULES: Collection = Collection::of("networking.istio.io", "destinationrules");

    fn rule(name: &str) -> (ObjectKey, Object) {
        let object = Object::new("networking.istio.io/v1", "DestinationRule", "default", name);
        (ObjectKey::new(RULES, "default", name), object.with("spec", json!({"host": name})))
    }

    async fn create(store: &Versioned, name: &str) -> Arc<Object> {
        let (key, object) = rule(name);
        store.create(key, object, WriteOptions::by("test")).await.unwrap()
    }

    /// A disk that may be full.
    #[derive(Debug)]
    struct Disk {
        file: std::fs::File,
        is_full: Arc<AtomicBool>,
    }

    impl Disk {
        fn takes(&self) -> io::Result<()> {
            match self.is_full.load(Ordering::Relaxed) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        }
    }

    impl redb::StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            Ok(self.file.metadata()?.len())
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.file.read_exact_at(out, offset)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.takes().and_then(|()| self.file.set_len(len))
        }

        fn sync_data(&self) -> io::Result<()> {
            self.takes().and_then(|()| self.file.sync_data())
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.takes().and_then(|()| self.file.write_all_at(data, offset))
        }
    }

    #[tokio::test]
    async fn a_full_disk_refuses_a_write_and_takes_the_next_when_there_is_room() {
        let temporary = tempfile::NamedTempFile::new().unwrap();
        let is_full = Arc::new(AtomicBool::new(false));
        let (path, full) = (temporary.path().to_owned(), Arc::clone(&is_full));
        let open = move || {
            let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
            let disk = Disk { file, is_full: Arc::clone(&full) };
            Ok(Database::builder().create_with_backend(disk)?)
        };
        let (snapshot, redb) = Redb::open(Box::new(open.clone())).unwrap();
        let store = Versioned::start(snapshot, redb, HISTORY).unwrap();
        let write = async |name: &str| {
            let key = ObjectKey::new(Collection::of("", "namespaces"), "", name);
            let object = Object::new("v1", "Namespace", "", name);
            store.create(key, object, WriteOptions::by("test")).await
        };
        write("a").await.unwrap();
        is_full.store(true, Ordering::Relaxed);
        for _ in 0..2 {
            let refused = write("b").await;
            assert!(matches!(refused, Err(StoreError::Storage(_))), "{refused:?}");
        }
        is_full.store(false, Ordering::Relaxed);
        write("b").await.unwrap();
        drop(store);
        assert_eq!(load(&open().unwrap()).unwrap().objects.len(), 2);
    }

    #[tokio::test]
    async fn keeps_the_contract() {
        let temporary = tempfile::tempdir().unwrap();
        let state = StateDir::open(temporary.path().join("s")).unwrap();
        contract::check(&open(&state).unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn everything_is_there_after_a_restart_and_watches_go_on() {
        let temporary = tempfile::tempdir().unwrap();
        let state = StateDir::open(temporary.path().join("s")).unwrap();
        let store = open(&state).unwrap();
        let first = create(&store, "a").await;
        let seen = store.list(&RULES, &Filter::default()).await.unwrap().version;
        create(&store, "b").await;
        drop(store);

        let store = open(&state).unwrap();
        assert_eq!(store.get(&rule("a").0).await.unwrap(), first);
        let mut watch = store.watch(&RULES, Filter::default(), &seen).await.unwrap();
        let events = watch.next().await.unwrap();
        assert_eq!(
            (events.len(), events[0].kind, events[0].object.name()),
            (1, EventKind::Added, "b")
        );
        let third = create(&store, "c").await;
        let number = |object: &Object| object.resource_version().parse::<u64>().unwrap();
        assert!(number(&third) > number(&events[0].object));
    }

    #[tokio::test]
    async fn history_is_bounded_on_disk_too() {
        let temporary = tempfile::tempdir().unwrap();
        let state = StateDir::open(temporary.path().join("s")).unwrap();
        let store = open_keeping(&state, 3).unwrap();
        let begin = store.list(&RULES, &Filter::default()).await.unwrap().version;
        for name in ["a", "b", "c", "d", "e"] {
            create(&store, name).await;
        }
        drop(store);
        let store = open_keeping(&state, 3).unwrap();
        assert_eq!(store.list(&RULES, &Filter::default()).await.unwrap().items.len(), 5);
        let old = store.watch(&RULES, Filter::default(), &begin).await;
        assert!(matches!(old, Err(StoreError::Expired)));
        let recent = resources::store::ResourceVersion("2".to_owned());
        let mut watch = store.watch(&RULES, Filter::default(), &recent).await.unwrap();
        assert_eq!(watch.next().await.unwrap().len(), 3);
    }

    /// What was answered is on disk, however the process ends: the file as it stands, without a close, is complete.
    #[tokio::test]
    async fn what_was_answered_survives_a_kill() {
        let temporary = tempfile::tempdir().unwrap();
        let state = StateDir::open(temporary.path().join("s")).unwrap();
        let store = open(&state).unwrap();
        let copied = StateDir::open(temporary.path().join("copy")).unwrap();
        for round in 0..20 {
            let written = create(&store, &format!("r{round}")).await;
            let bytes = std::fs::read(state.path().join(FILE)).unwrap();
            {
                use std::io::Write;
                let mut file = copied.file(FILE).unwrap();
                file.set_len(0).unwrap();
                file.write_all(&bytes).unwrap();
            }
            let after_kill = open(&copied).unwrap();
            assert_eq!(after_kill.get(&rule(&format!("r{round}")).0).await.unwrap(), written);
        }
    }
}
