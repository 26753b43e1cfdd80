//! What a directory wants: its objects, checked, and what to run.

use std::collections::{BTreeMap, HashMap};

use resources::field::{FieldPath, Finding};
use resources::kinds::apps::deployment::Deployment;
use resources::kinds::core::namespace::Namespace;
use resources::kinds::core::pod::PodTemplate;
use resources::kinds::networking::workload_group::WorkloadGroup;
use resources::kinds::{Kind, key_of, kind_of};
use resources::object::{Object, ObjectKey};
use resources::store::{Filter, Store, StoreError};
use resources::terms::port::Transport;
use resources::yaml::{self, Document, FilePlace, FileProblem};
use serde_json::json;

use super::files::SourceFile;
use super::workloads::{self, WorkloadRow};
use super::{Advice, WORKLOADS_FILE, name_of};

/// What a directory wants.
pub(super) struct Desired {
    /// Objects, each once.
    pub objects: BTreeMap<ObjectKey, Wanted>,
    /// What is worth telling.
    pub warnings: Vec<FileProblem>,
    /// What to run here.
    pub workloads: Vec<Workload>,
    /// Deployments that nothing says how to run here.
    pub not_run_here: Vec<String>,
}

/// One object and where it was written.
pub(super) struct Wanted {
    pub object: Object,
    pub place: FilePlace,
    /// Whether it only follows from what was written there.
    pub derived: bool,
}

/// A Deployment that is run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// How it is run.
    pub row: WorkloadRow,
    /// How many.
    pub replicas: u32,
    /// Labels of its pod template.
    pub labels: BTreeMap<String, String>,
    /// Service account of its pod template.
    pub service_account: String,
    /// Ports that it is reached at.
    pub ports: Vec<u16>,
}

/// Reads every file; all problems at once.
pub(super) async fn read(
    files: &[SourceFile],
    store: &dyn Store,
    advice: Advice,
) -> Result<Result<Desired, Vec<FileProblem>>, StoreError> {
    let mut reader = Reader::default();
    for file in files {
        match file.name.as_str() {
            WORKLOADS_FILE => match workloads::read(&file.shown, &file.text) {
                Ok(rows) => reader.rows = rows,
                Err(problems) => reader.problems.extend(problems),
            },
            _ => match yaml::load(&file.shown, &file.text) {
                Ok(documents) => {
                    documents.into_iter().for_each(|document| reader.admit(document, advice))
                }
                Err(problems) => reader.problems.extend(problems),
            },
        }
    }
    // A Deployment may have come another way than through this directory.
    let stored = store.list(&Deployment::INFO.collection, &Filter::default()).await?;
    let stored = stored.items.iter().filter_map(|object| {
        let view = Deployment::parse(object).ok()?.view;
        Some(((object.namespace().to_owned(), object.name().to_owned()), view))
    });
    Ok(reader.finish(stored.collect()))
}

#[derive(Default)]
struct Reader {
    objects: BTreeMap<ObjectKey, Wanted>,
    deployments: BTreeMap<(String, String), Deployment>,
    rows: Vec<WorkloadRow>,
    problems: Vec<FileProblem>,
    warnings: Vec<FileProblem>,
}

impl Reader {
    /// Takes an object in if nothing is wrong with it.
    fn admit(&mut self, document: Document, advice: Advice) {
        let root = document.place_of(&FieldPath::default());
        let info = match kind_of(&document.object) {
            Ok(info) => info,
            Err(error) => {
                let path = FieldPath::of("kind");
                self.problems.push(document.problem(&path, error.to_string()));
                return;
            }
        };
        let findings = (info.check)(&document.object);
        let shown = |finding: &Finding| {
            let name = format!("{} {}", info.kind, document.object.name());
            document.problem(&finding.path, format!("{name}: {finding}"))
        };
        self.problems.extend(findings.errors.iter().map(shown));
        self.warnings.extend(findings.warnings.iter().map(shown));
        if !findings.errors.is_empty() {
            return;
        }
        self.warnings.extend(advice(&document.object).iter().map(shown));
        let key = key_of(&document.object, info);
        if let Some(earlier) = self.objects.get(&key) {
            let message = format!("{} is there already, at {}", name_of(&key), earlier.place);
            self.problems.push(FileProblem { at: root, message });
            return;
        }
        let mut object = document.object;
        if !key.namespace.is_empty() {
            object.set_meta("namespace", &*key.namespace);
        }
        if let Ok(deployment) = Deployment::parse(&object)
            && info.kind == Deployment::INFO.kind
        {
            let name = (key.namespace.clone(), key.name.clone());
            self.deployments.insert(name, deployment.view);
        }
        self.objects.insert(key, Wanted { object, place: root, derived: false });
    }

    fn finish(
        mut self,
        stored: HashMap<(String, String), Deployment>,
    ) -> Result<Desired, Vec<FileProblem>> {
        let mut workloads = Vec::new();
        for row in std::mem::take(&mut self.rows) {
            let name = (row.namespace.clone(), row.deployment.clone());
            match self.deployments.get(&name).or_else(|| stored.get(&name)) {
                Some(deployment) => workloads.push(workload(row, deployment)),
                None => {
                    let message =
                        format!("there is no Deployment {}/{}", row.namespace, row.deployment);
                    self.problems.push(FileProblem { at: row.place, message });
                }
            }
        }
        if !self.problems.is_empty() {
            return Err(self.problems);
        }
        for workload in &workloads {
            self.add_group(workload);
        }
        self.add_namespaces();
        let is_run = |namespace: &str, name: &str| {
            workloads.iter().any(|it| it.row.namespace == namespace && it.row.deployment == name)
        };
        let not_run = self.deployments.keys().filter(|(namespace, name)| !is_run(namespace, name));
        Ok(Desired {
            not_run_here: not_run.map(|(namespace, name)| format!("{namespace}/{name}")).collect(),
            objects: self.objects,
            warnings: self.warnings,
            workloads,
        })
    }

    /// The WorkloadGroup of a workload that is run here, unless somebody wrote one.
    fn add_group(&mut self, workload: &Workload) {
        let (namespace, name) = (&workload.row.namespace, &workload.row.deployment);
        let key = ObjectKey::new(WorkloadGroup::INFO.collection.clone(), &**namespace, &**name);
        let Some(template) = self.template(workload) else { return };
        let mut spec = json!({
            "metadata": {"labels": workload.labels, "annotations": template.annotations},
            "template": {
                "labels": workload.labels,
                "serviceAccount": workload.service_account,
                "ports": named_ports(&template, &workload.ports),
            },
        });
        // With a probe its entries begin unhealthy, until the application accepts.
        if let Some(port) = workload.ports.first() {
            spec["probe"] = json!({"tcpSocket": {"port": port}});
        }
        let object = Object::new("networking.istio.io/v1", "WorkloadGroup", namespace, name);
        let object = object.with("spec", spec);
        let place = workload.row.place.clone();
        self.objects.entry(key).or_insert(Wanted { object, place, derived: true });
    }

    fn template(&self, workload: &Workload) -> Option<PodTemplate> {
        let name = (workload.row.namespace.clone(), workload.row.deployment.clone());
        match self.deployments.get(&name) {
            Some(deployment) => Some(deployment.template.clone()),
            // It came another way: what was taken out of it is enough.
            None => Some(PodTemplate { labels: workload.labels.clone(), ..PodTemplate::default() }),
        }
    }

    /// A Namespace for every object that is in one that nobody wrote.
    fn add_namespaces(&mut self) {
        let mut missing = BTreeMap::new();
        for (key, wanted) in &self.objects {
            if !key.namespace.is_empty() {
                missing.entry(key.namespace.clone()).or_insert_with(|| wanted.place.clone());
            }
        }
        for (name, place) in missing {
            let key = ObjectKey::new(Namespace::INFO.collection.clone(), "", &*name);
            let object = Object::new("v1", "Namespace", "", &name);
            self.objects.entry(key).or_insert(Wanted { object, place, derived: true });
        }
    }
}

fn workload(row: WorkloadRow, deployment: &Deployment) -> Workload {
    let containers = deployment.template.spec.containers.iter();
    let tcp = containers
        .flat_map(|container| &container.ports)
        .filter(|port| port.transport == Transport::Tcp);
    let mut ports: Vec<u16> = tcp.map(|port| port.port).chain(row.ports.iter().copied()).collect();
    ports.sort_unstable();
    ports.dedup();
    Workload {
        replicas: row.replicas.unwrap_or(deployment.replicas),
        labels: deployment.template.labels.clone(),
        service_account: deployment.template.spec.service_account.clone(),
        ports,
        row,
    }
}

/// A group's ports: by the containers' names, and by number where they have none.
fn named_ports(template: &PodTemplate, ports: &[u16]) -> BTreeMap<String, u16> {
    let containers = || template.spec.containers.iter().flat_map(|container| &container.ports);
    let name_of = |port: u16| {
        let named = containers().find(|named| named.port == port && !named.name.is_empty());
        named.map_or_else(|| format!("port-{port}"), |named| named.name.clone())
    };
    ports.iter().map(|port| (name_of(*port), *port)).collect()
}
