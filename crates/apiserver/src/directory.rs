//! A directory of YAML as a source of objects.
//!
//! The directory is applied to the store as a whole, by a manager of its own, with an inventory of what it owns:
//! only that is ever deleted, and only when every file can be read. A pass with a problem changes nothing, and what
//! was there stays in effect. Every problem is told with its file and line.
//!
//! Taken are the files `*.yaml`, `*.yml` and `*.json` of the directory itself, not of those in it. `workloads.yaml`
//! says how Deployments are run on this machine.

mod changes;
mod desired;
mod files;
mod inventory;
mod workloads;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use resources::field::Finding;
use resources::kinds::kind_in;
use resources::object::{Object, ObjectKey};
use resources::store::{StoreError, Versioned};
use resources::yaml::FileProblem;

pub use changes::{Changes, WatchError};
pub use desired::Workload;
pub use inventory::Outcome;
pub use workloads::{ProxyEngine, WorkloadRow};

/// Name of the file that says how Deployments are run here.
pub const WORKLOADS_FILE: &str = "workloads.yaml";

/// A directory as a source of objects.
pub struct DirectorySource {
    path: PathBuf,
    store: Arc<Versioned>,
    root_namespace: String,
    advice: Advice,
}

/// What else there is to say about a valid object: findings that become warnings.
pub type Advice = fn(&Object) -> Vec<Finding>;

/// One pass over the directory.
#[derive(Debug, Default)]
pub struct Pass {
    /// What is wrong; if there is anything, nothing was changed.
    pub problems: Vec<FileProblem>,
    /// What is worth telling, and in effect.
    pub warnings: Vec<FileProblem>,
    /// What the pass did, if it did anything.
    pub outcome: Outcome,
    /// What to run here.
    pub workloads: Vec<Workload>,
    /// Deployments that nothing says how to run here, as `namespace/name`.
    pub not_run_here: Vec<String>,
}

impl DirectorySource {
    /// A source that applies `path` to `store`.
    pub fn new(path: &Path, store: Arc<Versioned>, root_namespace: &str) -> Self {
        let (path, root_namespace) = (path.to_owned(), root_namespace.to_owned());
        Self { path, store, root_namespace, advice: |_| Vec::new() }
    }

    /// The same source, which also tells what `advice` finds.
    #[must_use]
    pub fn with_advice(self, advice: Advice) -> Self {
        Self { advice, ..self }
    }

    /// Reads the directory and brings the store in line with it. The error is the store's own.
    pub async fn pass(&self) -> Result<Pass, StoreError> {
        let files = match files::read(&self.path).await {
            Ok(files) => files,
            Err(problems) => return Ok(Pass { problems, ..Pass::default() }),
        };
        let desired = match desired::read(&files, &*self.store, self.advice).await? {
            Ok(desired) => desired,
            Err(problems) => return Ok(Pass { problems, ..Pass::default() }),
        };
        let outcome = inventory::reconcile(&self.store, &self.root_namespace, &desired).await?;
        Ok(Pass {
            problems: outcome.refused.clone(),
            warnings: desired.warnings,
            outcome,
            workloads: desired.workloads,
            not_run_here: desired.not_run_here,
        })
    }
}

/// An object as people write of it: `VirtualService default/reviews`.
pub fn name_of(key: &ObjectKey) -> String {
    let kind = kind_in(&key.collection).map(|info| info.kind);
    let kind = kind.unwrap_or(&key.collection.plural);
    match key.namespace.as_str() {
        "" => format!("{kind} {}", key.name),
        namespace => format!("{kind} {namespace}/{}", key.name),
    }
}

#[cfg(test)]
mod tests;
