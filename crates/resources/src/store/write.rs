//! What a write makes of an object: pure, so that every adapter that keeps its own objects does the same.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::managed_fields::{self, ApplyError};
use super::{Patch, StoreError, Subresource, WriteOptions};
use crate::field::{FieldErrors, FieldPath, Reason};
use crate::kinds::kind_in;
use crate::object::{Object, ObjectKey};

/// A write of one object.
#[derive(Clone, Debug)]
pub struct Write {
    /// Which object.
    pub key: ObjectKey,
    /// What is done.
    pub operation: Operation,
    /// How.
    pub options: WriteOptions,
}

/// What a write does.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Makes it.
    Create(Object),
    /// Replaces it.
    Update(Object),
    /// Changes it.
    Patch(Patch),
    /// Removes it.
    Delete,
}

/// What becomes of the object.
pub(super) enum Outcome {
    /// It stays as it is.
    Unchanged(Arc<Object>),
    /// It is this now, but for its new version.
    Put(Object),
    /// It is gone; this was its last state.
    Remove(Arc<Object>),
}

/// Metadata that only the store writes.
const SYSTEM_METADATA: &[&str] = &[
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "selfLink",
    "managedFields",
];

/// Works out a write on the object that is there.
pub(super) fn plan(write: &Write, current: Option<&Arc<Object>>) -> Result<Outcome, StoreError> {
    if let Some(current) = current {
        check_preconditions(write, current)?;
    }
    match (&write.operation, current) {
        (Operation::Create(_), Some(_)) => {
            Err(StoreError::AlreadyExists(Box::new(write.key.clone())))
        }
        (Operation::Create(object), None) => create(write, object.clone()),
        (Operation::Patch(Patch::Apply { object, force }), current) => {
            apply(write, object, *force, current)
        }
        (_, None) => Err(StoreError::NotFound(Box::new(write.key.clone()))),
        (Operation::Update(object), Some(current)) => {
            check_written_identity(write, object, current)?;
            replace(write, object.clone(), current)
        }
        (Operation::Patch(patch), Some(current)) => {
            let object = patched(write, patch, current)?;
            check_written_identity(write, &object, current)?;
            replace(write, object, current)
        }
        (Operation::Delete, Some(current)) => Ok(delete(current)),
    }
}

fn check_preconditions(write: &Write, current: &Object) -> Result<(), StoreError> {
    let wanted = &write.options.preconditions;
    let conflict =
        |reason: String| StoreError::Conflict { key: Box::new(write.key.clone()), reason };
    if let Some(uid) = &wanted.uid
        && uid != current.uid()
    {
        return Err(conflict(format!("its uid is {}, not {uid}", current.uid())));
    }
    if let Some(version) = &wanted.resource_version
        && version.0 != current.resource_version()
    {
        return Err(conflict(format!("its resource version is not {version} any more")));
    }
    Ok(())
}

/// A resource version or uid that a written object carries is a precondition too.
fn check_written_identity(
    write: &Write,
    object: &Object,
    current: &Object,
) -> Result<(), StoreError> {
    let conflict =
        |reason: String| StoreError::Conflict { key: Box::new(write.key.clone()), reason };
    if !object.resource_version().is_empty()
        && object.resource_version() != current.resource_version()
    {
        return Err(conflict(format!(
            "its resource version is not {} any more",
            object.resource_version()
        )));
    }
    if !object.uid().is_empty() && object.uid() != current.uid() {
        return Err(conflict(format!("its uid is {}, not {}", current.uid(), object.uid())));
    }
    Ok(())
}

fn create(write: &Write, mut object: Object) -> Result<Outcome, StoreError> {
    put_in_place(write, &mut object)?;
    if keeps_status_apart(&write.key) {
        object.fields_mut().shift_remove("status");
    }
    for field in SYSTEM_METADATA {
        object.metadata_mut().shift_remove(*field);
    }
    let manager = manager(&write.options);
    let mut made = born(object);
    managed_fields::record_update(
        None,
        &mut made,
        manager,
        write.options.subresource,
        &write.key.collection,
    );
    Ok(Outcome::Put(made))
}

/// An object with what the store gives to a new one.
fn born(mut object: Object) -> Object {
    object.set_meta("uid", uuid::Uuid::new_v4().to_string());
    object.set_meta("creationTimestamp", managed_fields::now());
    object.metadata_mut().insert("generation".to_owned(), 1.into());
    object
}

/// Makes sure that an object says the name and namespace under which it is written.
fn put_in_place(write: &Write, object: &mut Object) -> Result<(), StoreError> {
    let key = &write.key;
    for (field, said, wanted) in
        [("name", object.name(), &key.name), ("namespace", object.namespace(), &key.namespace)]
    {
        if !said.is_empty() && said != wanted {
            let path = FieldPath::of("metadata").field(field);
            let errors = FieldErrors::one(
                path,
                Reason::Invalid,
                format!("is {said:?}, but is written as {wanted:?}"),
            );
            return Err(StoreError::Invalid { key: Box::new(key.clone()), errors });
        }
    }
    object.set_meta("name", &*key.name);
    match key.namespace.is_empty() {
        true => drop(object.metadata_mut().shift_remove("namespace")),
        false => object.set_meta("namespace", &*key.namespace),
    }
    Ok(())
}

fn patched(write: &Write, patch: &Patch, current: &Object) -> Result<Object, StoreError> {
    let invalid = |message: String| StoreError::Invalid {
        key: Box::new(write.key.clone()),
        errors: FieldErrors::one(FieldPath::default(), Reason::Invalid, message),
    };
    let mut value = current.to_value();
    match patch {
        Patch::Merge(patch) => json_patch::merge(&mut value, patch),
        Patch::Json(patch) => {
            json_patch::patch(&mut value, patch).map_err(|error| invalid(error.to_string()))?
        }
        Patch::Apply { .. } => {
            return Err(invalid("an apply is no patch of what is there".to_owned()));
        }
    }
    Object::from_value(value).map_err(|error| invalid(error.to_string()))
}

fn replace(
    write: &Write,
    mut object: Object,
    current: &Arc<Object>,
) -> Result<Outcome, StoreError> {
    put_in_place(write, &mut object)?;
    let sent = object.metadata().get("managedFields").cloned();
    keep_system_metadata(&mut object, current);
    let apart = keeps_status_apart(&write.key);
    match write.options.subresource {
        Subresource::Main if apart => take_field(&mut object, current, "status"),
        Subresource::Main => {}
        Subresource::Status => {
            let status = object.fields_mut().shift_remove("status");
            object = Object::clone(current);
            match status {
                Some(status) => drop(object.fields_mut().insert("status".to_owned(), status)),
                None => drop(object.fields_mut().shift_remove("status")),
            }
        }
    }
    // A client may rewrite ownership as it reads it; an empty list gives everything up.
    if let Some(sent) = sent.filter(|sent| Some(sent) != current.metadata().get("managedFields")) {
        object.metadata_mut().insert("managedFields".to_owned(), sent);
    }
    finish(write, object, current, |object| {
        let manager = manager(&write.options);
        let subresource = write.options.subresource;
        managed_fields::record_update(
            Some(current),
            object,
            manager,
            subresource,
            &write.key.collection,
        );
    })
}

/// Ends a write over an object that is there: nothing if nothing changed, else its generation and its owners.
fn finish(
    write: &Write,
    mut object: Object,
    current: &Arc<Object>,
    own: impl FnOnce(&mut Object),
) -> Result<Outcome, StoreError> {
    if same_content(&object, current) {
        return Ok(Outcome::Unchanged(Arc::clone(current)));
    }
    if generation_changes(&object, current, &write.key) {
        let next = current.generation() + 1;
        object.metadata_mut().insert("generation".to_owned(), next.into());
    }
    own(&mut object);
    if object.is_terminating() && object.finalizers().next().is_none() {
        return Ok(Outcome::Remove(Arc::new(object)));
    }
    Ok(Outcome::Put(object))
}

fn apply(
    write: &Write,
    applied: &Object,
    force: bool,
    current: Option<&Arc<Object>>,
) -> Result<Outcome, StoreError> {
    let mut applied = applied.clone();
    put_in_place(write, &mut applied)?;
    for field in SYSTEM_METADATA {
        applied.metadata_mut().shift_remove(*field);
    }
    match write.options.subresource {
        Subresource::Main if keeps_status_apart(&write.key) => {
            drop(applied.fields_mut().shift_remove("status"))
        }
        Subresource::Main => {}
        Subresource::Status => applied.fields_mut().retain(|field, _| field == "status"),
    }
    let manager = manager(&write.options);
    let subresource = write.options.subresource;
    let collection = &write.key.collection;
    let merged = managed_fields::apply(
        current.map(|it| &**it),
        &applied,
        manager,
        subresource,
        force,
        collection,
    );
    let merged = merged.map_err(|error| match error {
        ApplyError::Conflicts(conflicts) => {
            StoreError::ManagerConflict { key: Box::new(write.key.clone()), conflicts }
        }
    })?;
    match current {
        None if subresource == Subresource::Status => {
            Err(StoreError::NotFound(Box::new(write.key.clone())))
        }
        None => Ok(Outcome::Put(born(merged))),
        Some(current) => finish(write, merged, current, |_| {}),
    }
}

fn delete(current: &Arc<Object>) -> Outcome {
    if current.finalizers().next().is_none() {
        return Outcome::Remove(Arc::clone(current));
    }
    if current.is_terminating() {
        return Outcome::Unchanged(Arc::clone(current));
    }
    let mut marked = Object::clone(current);
    marked.set_meta("deletionTimestamp", managed_fields::now());
    Outcome::Put(marked)
}

fn manager(options: &WriteOptions) -> &str {
    if options.manager.is_empty() { "unknown" } else { &options.manager }
}

/// Whether a kind's status is written apart from the rest. Kinds that are not known have it so, as most do.
fn keeps_status_apart(key: &ObjectKey) -> bool {
    kind_in(&key.collection).is_none_or(|info| info.has_status)
}

fn keep_system_metadata(object: &mut Object, current: &Object) {
    for field in SYSTEM_METADATA {
        match current.metadata().get(*field) {
            Some(value) => drop(object.metadata_mut().insert((*field).to_owned(), value.clone())),
            None => drop(object.metadata_mut().shift_remove(*field)),
        }
    }
}

fn take_field(object: &mut Object, current: &Object, field: &str) {
    match current.get(field) {
        Some(value) => drop(object.fields_mut().insert(field.to_owned(), value.clone())),
        None => drop(object.fields_mut().shift_remove(field)),
    }
}

/// Whether two states differ in nothing but the time of their owners' last write.
fn same_content(a: &Object, b: &Object) -> bool {
    let plain = |metadata: &Map<String, Value>| {
        let mut metadata = metadata.clone();
        metadata.shift_remove("resourceVersion");
        metadata.shift_remove("generation");
        if let Some(Value::Array(owners)) = metadata.get_mut("managedFields") {
            for owner in owners.iter_mut().filter_map(Value::as_object_mut) {
                owner.shift_remove("time");
            }
        }
        metadata
    };
    a.api_version() == b.api_version()
        && a.fields() == b.fields()
        && plain(a.metadata()) == plain(b.metadata())
}

/// Whether anything but metadata and status changed.
fn generation_changes(a: &Object, b: &Object, key: &ObjectKey) -> bool {
    let apart = keeps_status_apart(key);
    let rest = |object: &Object| {
        let fields = object.fields().iter().filter(|(field, _)| !(apart && *field == "status"));
        fields.map(|(field, value)| (field.clone(), value.clone())).collect::<Map<_, _>>()
    };
    rest(a) != rest(b)
}
