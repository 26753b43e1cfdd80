//! PeerAuthentication: what workloads demand of their clients.

use std::collections::BTreeMap;

use resources::kinds::Parsed;
use resources::kinds::security::peer_authentication::{MtlsMode as Written, PeerAuthentication};

use super::objects::Table;

/// What a port demands of its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MtlsMode {
    /// Plaintext only.
    Disable,
    /// Mesh TLS or plaintext.
    #[default]
    Permissive,
    /// Mesh TLS only.
    Strict,
}

/// What one PeerAuthentication says of a workload.
#[derive(Clone, Debug, PartialEq)]
struct WorkloadPolicy {
    created: String,
    name: String,
    selector: BTreeMap<String, String>,
    mode: Option<MtlsMode>,
    ports: BTreeMap<u16, Option<MtlsMode>>,
}

/// All PeerAuthentications, by what they are for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authentication {
    root: String,
    /// Without a selector: a namespace's (the root namespace's is the mesh's). The oldest wins.
    namespaces: BTreeMap<String, Option<MtlsMode>>,
    /// With a selector, by namespace, the oldest first.
    workloads: BTreeMap<String, Vec<WorkloadPolicy>>,
}

impl Authentication {
    /// The index of these objects.
    pub fn build(objects: &Table<PeerAuthentication>, root_namespace: &str) -> Authentication {
        let mut sorted: Vec<&Parsed<PeerAuthentication>> =
            objects.values().map(AsRef::as_ref).collect();
        sorted.sort_by_key(|parsed| (&parsed.meta.creation_timestamp, &parsed.meta.name));
        let mut index = Authentication { root: root_namespace.to_owned(), ..Default::default() };
        for parsed in sorted {
            let namespace = parsed.meta.namespace.clone();
            let own = mode(parsed.view.mtls);
            match &parsed.view.selector {
                None => {
                    index.namespaces.entry(namespace).or_insert(own);
                }
                Some(selector) => {
                    index.workloads.entry(namespace).or_default().push(WorkloadPolicy {
                        created: parsed.meta.creation_timestamp.clone(),
                        name: parsed.meta.name.clone(),
                        selector: selector.clone(),
                        mode: own,
                        ports: parsed
                            .view
                            .port_level_mtls
                            .iter()
                            .map(|(port, level)| (*port, mode(*level)))
                            .collect(),
                    })
                }
            }
        }
        index
    }

    /// What a namespace demands where no workload says otherwise: clients go by this.
    pub fn of_namespace(&self, namespace: &str) -> MtlsMode {
        let own = self.namespaces.get(namespace).copied().flatten();
        own.or_else(|| self.namespaces.get(&self.root).copied().flatten()).unwrap_or_default()
    }

    /// Whether any policy in a namespace is for some workloads only.
    pub fn has_workloads(&self, namespace: &str) -> bool {
        self.workloads.contains_key(namespace)
    }

    /// What a port of a workload demands.
    pub fn of_port(
        &self,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        port: u16,
    ) -> MtlsMode {
        let inherited = self.of_namespace(namespace);
        let selects = |policy: &&WorkloadPolicy| {
            policy.selector.iter().all(|(k, v)| labels.get(k) == Some(v))
        };
        let Some(policy) = self.workloads.get(namespace).into_iter().flatten().find(selects) else {
            return inherited;
        };
        let workload = policy.mode.unwrap_or(inherited);
        policy.ports.get(&port).copied().flatten().unwrap_or(workload)
    }
}

/// `UNSET` inherits.
fn mode(written: Written) -> Option<MtlsMode> {
    match written {
        Written::Unset => None,
        Written::Disable => Some(MtlsMode::Disable),
        Written::Permissive => Some(MtlsMode::Permissive),
        Written::Strict => Some(MtlsMode::Strict),
    }
}
