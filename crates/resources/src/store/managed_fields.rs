//! Who owns which field: server-side apply and the `metadata.managedFields` that it is kept in.
//!
//! Follows Kubernetes' structured merge: an apply takes the fields that it names, conflicts where another manager
//! owns one with another value, and gives up what it named before and does not name now; what nobody owns then goes.

mod field_set;
mod lists;
mod merge;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use self::field_set::FieldSet;
use self::merge::{merged, remove};
use super::Subresource;
use crate::field::{FieldPath, Segment};
use crate::object::{Collection, Object};

/// Now, as Kubernetes writes times: RFC 3339, UTC, whole seconds.
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Why an apply is refused.
pub(super) enum ApplyError {
    /// Other managers own fields that it would change.
    Conflicts(Vec<(String, FieldPath)>),
}

/// One manager's fields.
struct Owner {
    manager: String,
    /// `Apply`, or `Update` for every other write.
    operation: String,
    subresource: String,
    /// The rest of the entry as it was written: `apiVersion`, `time`.
    entry: Map<String, Value>,
    fields: FieldSet,
}

impl Owner {
    fn parse(entry: &Value) -> Option<Self> {
        let entry = entry.as_object()?;
        let text =
            |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(Self {
            manager: text("manager"),
            operation: text("operation"),
            subresource: text("subresource"),
            fields: FieldSet::parse(entry.get("fieldsV1")?),
            entry: entry.clone(),
        })
    }

    fn is(&self, manager: &str, operation: &str, subresource: &str) -> bool {
        self.manager == manager && self.operation == operation && self.subresource == subresource
    }

    /// Its place among an object's managers.
    fn rank(&self) -> [&str; 4] {
        let time = self.entry.get("time").and_then(Value::as_str).unwrap_or_default();
        [&self.operation, time, &self.manager, &self.subresource]
    }

    fn write(&self) -> Value {
        let mut entry = self.entry.clone();
        entry.insert("fieldsV1".to_owned(), self.fields.write());
        Value::Object(entry)
    }
}

fn owners_of(object: &Object) -> Vec<Owner> {
    let entries = object.metadata().get("managedFields").and_then(Value::as_array);
    entries.into_iter().flatten().filter_map(Owner::parse).collect()
}

fn set_owners(object: &mut Object, mut owners: Vec<Owner>, content: &FieldSet) {
    for owner in &mut owners {
        owner.fields.intersect(content);
    }
    owners.retain(|owner| !owner.fields.is_empty());
    // In Kubernetes' order, which does not say who wrote last: a write that changes nothing is no change here either.
    owners.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let entries = owners.iter().map(Owner::write).collect();
    object.metadata_mut().insert("managedFields".to_owned(), Value::Array(entries));
}

fn subresource_name(subresource: Subresource) -> &'static str {
    match subresource {
        Subresource::Main => "",
        Subresource::Status => "status",
    }
}

/// Takes `manager`'s fields out of the list, to be put back changed.
fn take_owner(
    owners: &mut Vec<Owner>,
    manager: &str,
    operation: &str,
    subresource: Subresource,
) -> Option<Owner> {
    let name = subresource_name(subresource);
    let at = owners.iter().position(|owner| owner.is(manager, operation, name))?;
    Some(owners.remove(at))
}

fn new_owner(
    object: &Object,
    manager: &str,
    operation: &str,
    subresource: Subresource,
    fields: FieldSet,
) -> Owner {
    let mut entry = Map::new();
    let pairs = [
        ("manager", json!(manager)),
        ("operation", json!(operation)),
        ("apiVersion", json!(object.api_version())),
        ("time", json!(now())),
        ("fieldsType", json!("FieldsV1")),
    ];
    entry.extend(pairs.map(|(field, value)| (field.to_owned(), value)));
    let name = subresource_name(subresource);
    if !name.is_empty() {
        entry.insert("subresource".to_owned(), json!(name));
    }
    Owner {
        manager: manager.to_owned(),
        operation: operation.to_owned(),
        subresource: name.to_owned(),
        entry,
        fields,
    }
}

/// Records a write that is no apply: its manager owns what it changed, and nobody else does any more.
pub(super) fn record_update(
    before: Option<&Object>,
    after: &mut Object,
    manager: &str,
    subresource: Subresource,
    collection: &Collection,
) {
    let now_there = owned_content(after);
    let content = FieldSet::of(&now_there, collection);
    let mut changed = content.clone();
    if let Some(before) = before {
        let was_there = owned_content(before);
        changed.retain_paths(&mut |path| path.find(&now_there) != path.find(&was_there));
    }
    let mut owners = owners_of(after);
    let own = take_owner(&mut owners, manager, "Update", subresource);
    for owner in &mut owners {
        owner.fields.subtract_leaves(&changed);
    }
    let gained = !changed.is_empty();
    let mut fields = own.as_ref().map(|own| own.fields.clone()).unwrap_or_default();
    fields.unite(&changed);
    owners.push(match own {
        Some(own) if !gained => own,
        _ => new_owner(after, manager, "Update", subresource, fields),
    });
    set_owners(after, owners, &content);
}

/// Works out an apply: the object that is there and what the manager wants of it make the new one.
pub(super) fn apply(
    current: Option<&Object>,
    applied: &Object,
    manager: &str,
    subresource: Subresource,
    force: bool,
    collection: &Collection,
) -> Result<Object, ApplyError> {
    let wanted = owned_content(applied);
    let wanted_set = FieldSet::of(&wanted, collection);
    let Some(current) = current else {
        let mut object = applied.clone();
        let owner = new_owner(applied, manager, "Apply", subresource, wanted_set.clone());
        set_owners(&mut object, vec![owner], &wanted_set);
        return Ok(object);
    };
    let there = owned_content(current);
    let mut owners = owners_of(current);
    let own = take_owner(&mut owners, manager, "Apply", subresource);

    let mut changing = wanted_set.clone();
    changing.retain_paths(&mut |path| path.find(&wanted) != path.find(&there));
    let mut conflicts = Vec::new();
    for owner in &owners {
        // A manager that wrote by update and now applies takes over from itself.
        let same = owner.manager == manager && owner.operation == "Update";
        let mut theirs = owner.fields.clone();
        theirs.intersect(&changing);
        if !same {
            theirs.each_leaf(&mut |path| {
                conflicts.push((owner.manager.clone(), path.to_field_path()))
            });
        }
    }
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    for owner in &mut owners {
        owner.fields.subtract_leaves(&changing);
    }

    let mut result = merged(&there, &wanted, collection);
    if let Some(own) = &own {
        let mut given_up = own.fields.clone();
        given_up.subtract(&wanted_set);
        for owner in &owners {
            given_up.subtract(&owner.fields);
        }
        remove(&mut result, &given_up);
    }
    let mut object = with_content(current, applied, result);
    let content = FieldSet::of(&owned_content(&object), collection);
    owners.push(match own {
        Some(own) if own.fields == wanted_set => own,
        _ => new_owner(applied, manager, "Apply", subresource, wanted_set),
    });
    set_owners(&mut object, owners, &content);
    Ok(object)
}

/// Metadata that managers may own.
const OWNED_METADATA: &[&str] = &["labels", "annotations", "finalizers", "ownerReferences"];

/// An object without what nobody owns: type, name and what the store writes.
fn owned_content(object: &Object) -> Value {
    let mut content = object.fields().clone();
    let metadata =
        object.metadata().iter().filter(|(field, _)| OWNED_METADATA.contains(&field.as_str()));
    let metadata: Map<String, Value> =
        metadata.map(|(field, value)| (field.clone(), value.clone())).collect();
    if !metadata.is_empty() {
        content.insert("metadata".to_owned(), Value::Object(metadata));
    }
    Value::Object(content)
}

/// The object that is there, with new content.
fn with_content(current: &Object, applied: &Object, content: Value) -> Object {
    let mut object = current.clone();
    object.set_api_version(applied.api_version());
    let Value::Object(mut fields) = content else { return object };
    let metadata = match fields.shift_remove("metadata") {
        Some(Value::Object(metadata)) => metadata,
        _ => Map::new(),
    };
    for field in OWNED_METADATA {
        match metadata.get(*field) {
            Some(value) => drop(object.metadata_mut().insert((*field).to_owned(), value.clone())),
            None => drop(object.metadata_mut().shift_remove(*field)),
        }
    }
    *object.fields_mut() = fields;
    object
}

/// Takes the fields of `manager` off an object that others may still own; what nobody owns then goes. Answers
/// whether any owner is left: if not, the object itself may go.
pub fn disown(object: &mut Object, manager: &str, collection: &Collection) -> bool {
    let mut owners = owners_of(object);
    let Some(own) = take_owner(&mut owners, manager, "Apply", Subresource::Main) else {
        return !owners.is_empty();
    };
    let mut given_up = own.fields;
    for owner in &owners {
        given_up.subtract(&owner.fields);
    }
    let mut content = owned_content(object);
    remove(&mut content, &given_up);
    let unowned = owners.is_empty();
    let mut left = with_content(object, object, content);
    let content = FieldSet::of(&owned_content(&left), collection);
    set_owners(&mut left, owners, &content);
    *object = left;
    !unowned
}

impl field_set::ElementPath<'_> {
    fn to_field_path(self) -> FieldPath {
        FieldPath(
            self.elements()
                .into_iter()
                .map(|element| match element {
                    field_set::Element::Field(name) => Segment::Field(name.clone()),
                    field_set::Element::Key(text) | field_set::Element::Value(text) => {
                        Segment::Key(text.clone())
                    }
                })
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests;
