//! Every kind that is understood: one file each, one row each in [`KINDS`].
//!
//! A kind is a typed view of an [`Object`] and one function that reads it, [`Kind::parse`]: the one validation, for
//! admission, analysis and ingest alike. The object itself is kept whole elsewhere; a view owns what it took out.

pub mod apps;
pub mod core;
pub mod discovery;
pub mod mesh;
pub mod networking;
pub mod security;

use std::collections::BTreeMap;

use crate::field::{
    FieldErrors, FieldPath, Fields, Finding, Findings, Reason, did_you_mean, read_object,
};
use crate::object::{Collection, Object, ObjectKey};
use crate::rules;

/// One row of [`KINDS`]: what a kind is called and how it is checked.
#[derive(Debug)]
pub struct KindInfo {
    /// Group and plural.
    pub collection: Collection,
    /// Kind, `VirtualService`.
    pub kind: &'static str,
    /// Short names that kubectl takes.
    pub short_names: &'static [&'static str],
    /// Versions served, the preferred one first. Every version has the same fields.
    pub versions: &'static [&'static str],
    /// Whether its objects live in a namespace.
    pub namespaced: bool,
    /// Whether it has a status that is written apart from the rest.
    pub has_status: bool,
    /// Reads an object and says all that is wrong with it.
    pub check: fn(&Object) -> Findings,
}

impl KindInfo {
    /// `apiVersion` of the preferred version.
    pub fn api_version(&self) -> String {
        match self.collection.group.as_ref() {
            "" => self.versions[0].to_owned(),
            group => format!("{group}/{}", self.versions[0]),
        }
    }
}

/// Every kind that is understood.
pub static KINDS: &[&KindInfo] = &[
    core::config_map::ConfigMap::INFO,
    core::namespace::Namespace::INFO,
    core::pod::Pod::INFO,
    core::secret::Secret::INFO,
    core::service::Service::INFO,
    core::service_account::ServiceAccount::INFO,
    apps::deployment::Deployment::INFO,
    discovery::endpoint_slice::EndpointSlice::INFO,
    networking::destination_rule::DestinationRule::INFO,
    networking::gateway::Gateway::INFO,
    networking::sidecar::Sidecar::INFO,
    networking::virtual_service::VirtualService::INFO,
    networking::workload_entry::WorkloadEntry::INFO,
    networking::workload_group::WorkloadGroup::INFO,
    security::peer_authentication::PeerAuthentication::INFO,
];

/// Metadata of an object, as views hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Namespace; empty for a cluster-scoped kind.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Identity over its lifetime; empty before it was stored.
    pub uid: String,
    /// Rises with every change of anything but metadata and status.
    pub generation: u64,
    /// Opaque version of the whole object.
    pub resource_version: String,
    /// RFC 3339, to the second; empty before it was stored. Older objects win conflicts: it compares as text.
    pub creation_timestamp: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Meta {
    fn of(object: &Object) -> Self {
        let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        Self {
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
            generation: object.generation(),
            resource_version: object.resource_version().to_owned(),
            creation_timestamp: object.creation_timestamp().to_owned(),
            labels: object.labels().map(owned).collect(),
            annotations: object.annotations().map(owned).collect(),
        }
    }
}

/// An object that passed validation, as a typed view.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed<T> {
    /// Its metadata.
    pub meta: Meta,
    /// What the kind says.
    pub view: T,
    /// What was found that does not refuse it: deprecated fields, settings without effect.
    pub warnings: Vec<Finding>,
}

/// A kind that is understood.
pub trait Kind: Sized + 'static {
    /// Its row in [`KINDS`].
    const INFO: &'static KindInfo;

    /// Reads every field but `apiVersion`, `kind` and `metadata`, which `meta` has already.
    fn read(fields: &mut Fields<'_>, meta: &Meta) -> Self;

    /// THE validation: the typed view, or every error at once.
    fn parse(object: &Object) -> Result<Parsed<Self>, FieldErrors> {
        let (parsed, findings) = inspect::<Self>(object);
        match findings.errors.is_empty() {
            true => Ok(Parsed { warnings: findings.warnings, ..parsed }),
            false => Err(FieldErrors(findings.errors)),
        }
    }
}

/// Everything found in an object of kind `T`; the check of its row.
pub fn check<T: Kind>(object: &Object) -> Findings {
    inspect::<T>(object).1
}

fn inspect<T: Kind>(object: &Object) -> (Parsed<T>, Findings) {
    let meta = Meta::of(object);
    let mut findings = Findings { errors: check_metadata(object, T::INFO), ..Findings::default() };
    let (view, found) = read_object(object.fields(), |fields| {
        if T::INFO.has_status {
            fields.kept(&["status"]);
        }
        T::read(fields, &meta)
    });
    findings.errors.extend(found.errors);
    findings.warnings.extend(found.warnings);
    (Parsed { meta, view, warnings: Vec::new() }, findings)
}

fn check_metadata(object: &Object, info: &KindInfo) -> Vec<Finding> {
    let mut errors = Vec::new();
    let mut refuse =
        |path: FieldPath, reason, message: String| errors.push(Finding { path, reason, message });
    let metadata = FieldPath::of("metadata");
    let name_path = metadata.clone().field("name");
    match object.name() {
        "" => refuse(name_path, Reason::Required, "required".to_owned()),
        name => {
            if let Err(error) = rules::name::dns_subdomain(name) {
                refuse(name_path, Reason::Invalid, format!("invalid value {name:?}: {error}"));
            }
        }
    }
    let namespace_path = metadata.clone().field("namespace");
    match (info.namespaced, object.namespace()) {
        (_, "") => {}
        (false, _) => {
            refuse(namespace_path, Reason::Forbidden, format!("{} has no namespace", info.kind))
        }
        (true, namespace) => {
            if let Err(error) = rules::name::dns_label(namespace) {
                refuse(
                    namespace_path,
                    Reason::Invalid,
                    format!("invalid value {namespace:?}: {error}"),
                );
            }
        }
    }
    for (map, value_rule) in [("labels", true), ("annotations", false)] {
        let path = metadata.clone().field(map);
        let entries = match object.metadata().get(map) {
            None | Some(serde_json::Value::Null) => continue,
            Some(serde_json::Value::Object(entries)) => entries,
            Some(_) => {
                refuse(path, Reason::Type, "expected a map of strings".to_owned());
                continue;
            }
        };
        for (key, value) in entries {
            let path = path.clone().key(key);
            if let Err(error) = rules::label::label_key(key) {
                refuse(path.clone(), Reason::Invalid, format!("invalid key: {error}"));
            }
            match value.as_str() {
                None => refuse(path, Reason::Type, "expected a string".to_owned()),
                Some(value) if value_rule => {
                    if let Err(error) = rules::label::label_value(value) {
                        refuse(path, Reason::Invalid, format!("invalid value {value:?}: {error}"));
                    }
                }
                Some(_) => {}
            }
        }
    }
    errors
}

/// Why an object is of no kind that is understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownKind {
    /// No such kind in that group.
    #[error("no kind {kind} in {group} is supported{hint}")]
    Kind {
        /// Kind asked for.
        kind: String,
        /// Group asked for, in words.
        group: String,
        /// What may have been meant, ready to append.
        hint: String,
    },
    /// The kind is there, the version is not.
    #[error("apiVersion {asked} of {kind} is not served: use {served}")]
    Version {
        /// Kind asked for.
        kind: String,
        /// `apiVersion` asked for.
        asked: String,
        /// Versions that are served.
        served: String,
    },
}

/// The row of an object's kind.
pub fn kind_of(object: &Object) -> Result<&'static KindInfo, UnknownKind> {
    kind_named(object.api_version(), object.kind())
}

/// The row of a kind by `apiVersion` and `kind`.
pub fn kind_named(api_version: &str, kind: &str) -> Result<&'static KindInfo, UnknownKind> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let Some(info) = KINDS.iter().find(|info| info.collection.group == group && info.kind == kind)
    else {
        return Err(unknown_kind(group, kind));
    };
    if info.versions.contains(&version) {
        return Ok(info);
    }
    let with_group = |version: &&str| {
        if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") }
    };
    Err(UnknownKind::Version {
        kind: kind.to_owned(),
        asked: api_version.to_owned(),
        served: info.versions.iter().map(with_group).collect::<Vec<_>>().join(", "),
    })
}

/// The row of a collection.
pub fn kind_in(collection: &Collection) -> Option<&'static KindInfo> {
    KINDS.iter().copied().find(|info| info.collection == *collection)
}

fn unknown_kind(group: &str, kind: &str) -> UnknownKind {
    let elsewhere = KINDS.iter().find(|info| info.kind == kind);
    let near = || {
        did_you_mean(
            kind,
            KINDS.iter().filter(|info| info.collection.group == group).map(|info| info.kind),
        )
    };
    let hint = match elsewhere {
        Some(info) => format!(", did you mean apiVersion {}?", info.api_version()),
        None => near().map(|near| format!(", did you mean {near}?")).unwrap_or_default(),
    };
    let group = if group.is_empty() { "the core group".to_owned() } else { group.to_owned() };
    UnknownKind::Kind { kind: kind.to_owned(), group, hint }
}

/// The key under which an object of a known kind lives. A namespaced object without a namespace belongs to `default`.
pub fn key_of(object: &Object, info: &KindInfo) -> ObjectKey {
    let namespace = match (info.namespaced, object.namespace()) {
        (false, _) => "",
        (true, "") => "default",
        (true, namespace) => namespace,
    };
    ObjectKey::new(info.collection.clone(), namespace, object.name())
}
