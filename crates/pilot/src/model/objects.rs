//! Every object that configuration is made of, parsed, and what changed among them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use resources::kinds::apps::deployment::Deployment;
use resources::kinds::core::config_map::ConfigMap;
use resources::kinds::core::namespace::Namespace;
use resources::kinds::core::pod::Pod;
use resources::kinds::core::secret::Secret;
use resources::kinds::core::service::Service;
use resources::kinds::core::service_account::ServiceAccount;
use resources::kinds::discovery::endpoint_slice::EndpointSlice;
use resources::kinds::networking::destination_rule::DestinationRule;
use resources::kinds::networking::gateway::Gateway;
use resources::kinds::networking::sidecar::Sidecar;
use resources::kinds::networking::virtual_service::VirtualService;
use resources::kinds::networking::workload_entry::WorkloadEntry;
use resources::kinds::networking::workload_group::WorkloadGroup;
use resources::kinds::security::peer_authentication::PeerAuthentication;
use resources::kinds::{Kind, KindInfo, Parsed};
use resources::object::{Object, ObjectKey};

/// Namespace and name; the namespace is empty for a cluster-scoped kind.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl Name {
    /// A name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The objects of one kind.
pub type Table<T> = BTreeMap<Name, Arc<Parsed<T>>>;

/// Declares the tables, one row a kind.
macro_rules! tables {
    ($($(#[$doc:meta])* $field:ident: $kind:ident),* $(,)?) => {
        /// Every object, by kind. A table is shared with the objects before a change unless it is of the changed kind.
        #[derive(Clone, Debug, Default)]
        pub struct Objects {
            $($(#[$doc])* pub $field: Arc<Table<$kind>>,)*
        }

        /// What became of some objects: their new form, or `None` for one that is gone.
        #[derive(Clone, Debug, Default)]
        pub struct ChangeSet {
            $($(#[$doc])* pub $field: BTreeMap<Name, Option<Arc<Parsed<$kind>>>>,)*
        }

        impl Objects {
            /// Takes a change in.
            pub fn apply(&mut self, changes: &ChangeSet) {
                $(apply(&mut self.$field, &changes.$field);)*
            }
        }

        impl ChangeSet {
            /// Everything that was created, for a model that starts from nothing.
            pub fn all(objects: &Objects) -> ChangeSet {
                ChangeSet {
                    $($field: objects.$field.iter().map(|(name, object)| (name.clone(), Some(object.clone()))).collect(),)*
                }
            }

            /// Whether nothing changed.
            pub fn is_empty(&self) -> bool {
                $(self.$field.is_empty())&&*
            }

            /// How many objects changed.
            pub fn len(&self) -> usize {
                let mut count = 0;
                $(count += self.$field.len();)*
                count
            }

            /// Leaves out what is as it was but for status and bookkeeping, and deletions of what is not there.
            pub fn drop_unchanged(&mut self, objects: &Objects) {
                $(drop_unchanged(&mut self.$field, &objects.$field);)*
            }

            /// Adds a later change; it wins where both are of one object.
            pub fn merge(&mut self, later: ChangeSet) {
                $(self.$field.extend(later.$field);)*
            }

            /// Adds what became of an object. The error is the object's, which then stays as it was.
            pub fn upsert(&mut self, object: &Object) -> Result<(), resources::field::FieldErrors> {
                $(if is::<$kind>(object) {
                    let parsed = $kind::parse(object)?;
                    let name = Name::new(namespace_of::<$kind>(object), object.name());
                    self.$field.insert(name, Some(Arc::new(parsed)));
                    return Ok(());
                })*
                Ok(())
            }

            /// Adds that an object is gone.
            pub fn delete(&mut self, key: &ObjectKey) {
                let name = Name::new(&key.namespace, &key.name);
                $(if key.collection == $kind::INFO.collection {
                    self.$field.insert(name.clone(), None);
                })*
            }
        }

        /// The kinds that configuration is made of.
        pub const KINDS_READ: &[&KindInfo] = &[$($kind::INFO),*];
    };
}

tables! {
    /// Namespaces.
    namespaces: Namespace,
    /// Services.
    services: Service,
    /// Where services' pods are.
    endpoint_slices: EndpointSlice,
    /// Pods.
    pods: Pod,
    /// Service accounts.
    service_accounts: ServiceAccount,
    /// Secrets: gateway credentials.
    secrets: Secret,
    /// ConfigMaps: the mesh's configuration.
    config_maps: ConfigMap,
    /// Deployments.
    deployments: Deployment,
    /// Workloads that are no pods.
    workload_entries: WorkloadEntry,
    /// What workloads that register themselves look like.
    workload_groups: WorkloadGroup,
    /// Gateways.
    gateways: Gateway,
    /// VirtualServices.
    virtual_services: VirtualService,
    /// DestinationRules.
    destination_rules: DestinationRule,
    /// Sidecars.
    sidecars: Sidecar,
    /// PeerAuthentications.
    peer_authentications: PeerAuthentication,
}

fn is<T: Kind>(object: &Object) -> bool {
    let info = T::INFO;
    object.kind() == info.kind && object.group() == info.collection.group
}

fn namespace_of<T: Kind>(object: &Object) -> &str {
    match (T::INFO.namespaced, object.namespace()) {
        (false, _) => "",
        (true, "") => "default",
        (true, namespace) => namespace,
    }
}

fn apply<T>(table: &mut Arc<Table<T>>, changes: &BTreeMap<Name, Option<Arc<Parsed<T>>>>) {
    if changes.is_empty() {
        return;
    }
    // `Parsed<T>` sits behind an `Arc`, so a copy of the table is a copy of pointers.
    let mut next: Table<T> = (**table).clone();
    for (name, change) in changes {
        match change {
            Some(object) => next.insert(name.clone(), Arc::clone(object)),
            None => next.remove(name),
        };
    }
    *table = Arc::new(next);
}

fn drop_unchanged<T: PartialEq>(
    changes: &mut BTreeMap<Name, Option<Arc<Parsed<T>>>>,
    table: &Table<T>,
) {
    changes.retain(|name, change| match (change, table.get(name)) {
        (None, None) => false,
        (Some(new), Some(old)) => {
            new.view != old.view
                || new.meta.labels != old.meta.labels
                || new.meta.annotations != old.meta.annotations
                || new.meta.creation_timestamp != old.meta.creation_timestamp
                || new.meta.uid != old.meta.uid
        }
        _ => true,
    });
}
