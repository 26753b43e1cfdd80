//! The port behind which objects live.
//!
//! Every adapter keeps the same rules, which [`contract`] tests:
//!
//! * an object's key is group, plural, namespace and name, whichever version wrote it;
//! * a resource version is opaque, rises with every change, and is shared by all kinds;
//! * a write that changes nothing writes nothing, and its version stays;
//! * a write fails if its preconditions do not hold, and then nothing happened;
//! * events are told only after what they tell of is durable, in the order of their versions, each once;
//! * a watch begins right after a version and misses nothing; if the events since then are gone it ends in
//!   [`StoreError::Expired`], after which its owner lists again and goes on from the list's version.

pub mod contract;
pub mod managed_fields;
mod versioned;
mod write;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use serde_json::Value;

use crate::field::{FieldErrors, FieldPath};
use crate::object::{Collection, Object, ObjectKey};
use crate::selector::LabelSelector;

pub use versioned::{Change, Journal, NoJournal, Snapshot, Versioned};
pub use write::{Operation, Write};

/// What a store answers with, later.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Where objects live.
pub trait Store: Send + Sync + 'static {
    /// One object, or [`StoreError::NotFound`].
    fn get<'a>(&'a self, key: &'a ObjectKey) -> StoreFuture<'a, Arc<Object>>;

    /// Every object of a collection that the filter picks, by namespace and name, as of one version.
    fn list<'a>(
        &'a self,
        collection: &'a Collection,
        filter: &'a Filter,
    ) -> StoreFuture<'a, Listed>;

    /// Every later change of what the filter picks, from right after a version.
    fn watch<'a>(
        &'a self,
        collection: &'a Collection,
        filter: Filter,
        from: &'a ResourceVersion,
    ) -> StoreFuture<'a, Watch>;

    /// Makes an object; [`StoreError::AlreadyExists`] if its key is taken.
    fn create(
        &self,
        key: ObjectKey,
        object: Object,
        options: WriteOptions,
    ) -> StoreFuture<'_, Arc<Object>>;

    /// Replaces an object. A resource version or uid in its metadata is a precondition.
    fn update(
        &self,
        key: ObjectKey,
        object: Object,
        options: WriteOptions,
    ) -> StoreFuture<'_, Arc<Object>>;

    /// Changes an object; `Patch::Apply` makes it if it is not there.
    fn patch(
        &self,
        key: ObjectKey,
        patch: Patch,
        options: WriteOptions,
    ) -> StoreFuture<'_, Arc<Object>>;

    /// Removes an object, or marks it if finalizers must be waited for. Answers with its last state.
    fn delete(&self, key: ObjectKey, preconditions: Preconditions) -> StoreFuture<'_, Arc<Object>>;
}

/// A version of the store's whole content. Opaque: only equality means anything to others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResourceVersion(pub String);

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What of a collection is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this namespace; none means all.
    pub namespace: Option<String>,
    /// Only this name.
    pub name: Option<String>,
    /// Only with these labels.
    pub labels: LabelSelector,
}

impl Filter {
    /// Whether an object is picked.
    pub fn picks(&self, object: &Object) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| namespace == object.namespace())
            && self.name.as_deref().is_none_or(|name| name == object.name())
            && self.labels.matches(|key| object.label(key))
    }
}

/// A list, and the version from which a watch goes on.
#[derive(Clone, Debug)]
pub struct Listed {
    /// By namespace and name.
    pub items: Vec<Arc<Object>>,
    /// Of the whole store.
    pub version: ResourceVersion,
}

/// Which part of an object a write is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subresource {
    /// Everything but its status.
    #[default]
    Main,
    /// Its status alone.
    Status,
}

/// What must hold for a write to happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The object's uid.
    pub uid: Option<String>,
    /// The object's resource version.
    pub resource_version: Option<ResourceVersion>,
}

/// How a write is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Who writes: owns the fields that it sets. Empty is told as `unknown`.
    pub manager: String,
    /// What of the object is written.
    pub subresource: Subresource,
    /// What must hold.
    pub preconditions: Preconditions,
    /// Whether it is only tried.
    pub dry_run: bool,
}

impl WriteOptions {
    /// A write by `manager`.
    pub fn by(manager: &str) -> Self {
        Self { manager: manager.to_owned(), ..Self::default() }
    }

    /// The same write, of the status.
    #[must_use]
    pub fn status(mut self) -> Self {
        self.subresource = Subresource::Status;
        self
    }
}

/// A change of an object.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 7386.
    Merge(Value),
    /// RFC 6902.
    Json(json_patch::Patch),
    /// Server-side apply: the object as its manager wants it. What the manager set before and does not want any
    /// more is removed, unless another manager owns it too.
    Apply {
        /// Name, and the fields that the manager has an opinion about.
        object: Object,
        /// Whether fields are taken from other managers; otherwise they are a [`StoreError::ManagerConflict`].
        force: bool,
    },
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It is there now, or the filter picks it now.
    Added,
    /// It changed.
    Modified,
    /// It is gone, or the filter picks it no longer.
    Deleted,
}

/// One change.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// What happened.
    pub kind: EventKind,
    /// The object; its last state if it is gone.
    pub object: Arc<Object>,
}

/// A watch that runs.
pub struct Watch(Box<dyn WatchSource>);

/// What an adapter makes a [`Watch`] of.
pub trait WatchSource: Send {
    /// See [`Watch::next`].
    fn next(&mut self) -> StoreFuture<'_, Vec<WatchEvent>>;

    /// See [`Watch::version`].
    fn version(&self) -> ResourceVersion;
}

impl Watch {
    /// Wraps an adapter's watch.
    pub fn new(source: impl WatchSource + 'static) -> Self {
        Self(Box::new(source))
    }

    /// Waits for the next changes and gives all that are there by then; never empty. An error ends the watch.
    /// Cancel-safe: an event is given or kept.
    pub async fn next(&mut self) -> Result<Vec<WatchEvent>, StoreError> {
        self.0.next().await
    }

    /// The version up to which everything was given.
    pub fn version(&self) -> ResourceVersion {
        self.0.version()
    }
}

/// Why a store did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No such object.
    #[error("{0} not found")]
    NotFound(Box<ObjectKey>),
    /// The key is taken.
    #[error("{0} already exists")]
    AlreadyExists(Box<ObjectKey>),
    /// A precondition does not hold: somebody else was quicker.
    #[error("{key} was changed meanwhile: {reason}")]
    Conflict {
        /// The object.
        key: Box<ObjectKey>,
        /// Which precondition.
        reason: String,
    },
    /// Other managers own fields that an apply would change.
    #[error("{key}: {}", conflict_text(conflicts))]
    ManagerConflict {
        /// The object.
        key: Box<ObjectKey>,
        /// Manager and field.
        conflicts: Vec<(String, FieldPath)>,
    },
    /// The object or patch is not valid.
    #[error("{key} is invalid: {errors}")]
    Invalid {
        /// The object.
        key: Box<ObjectKey>,
        /// What is wrong.
        errors: FieldErrors,
    },
    /// The events since that version are gone: list again.
    #[error("the version is too old to watch from: list again")]
    Expired,
    /// The store itself failed; what was asked did not happen.
    #[error("storage: {0}")]
    Storage(String),
    /// The store was shut down.
    #[error("the store is shut down")]
    Closed,
}

fn conflict_text(conflicts: &[(String, FieldPath)]) -> String {
    let each = |(manager, path): &(String, FieldPath)| format!("{path} is owned by {manager:?}");
    conflicts.iter().map(each).collect::<Vec<_>>().join(", ")
}
