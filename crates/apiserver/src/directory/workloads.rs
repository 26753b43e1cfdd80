//! `workloads.yaml`: how Deployments are run on this machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use resources::field::{FieldPath, Fields, Names, Reason, Segment, read_object};
use resources::rules;
use resources::yaml::{FilePlace, FileProblem, Places, parse_tree};
use serde_json::Value;

/// How one Deployment is run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadRow {
    /// Namespace of the Deployment.
    pub namespace: String,
    /// The Deployment.
    pub deployment: String,
    /// Program and arguments. A program without a slash is looked up; with one it is relative to the directory.
    pub run: Vec<String>,
    /// Environment variables beside those that it inherits.
    pub env: BTreeMap<String, String>,
    /// How many; as the Deployment says where nothing was said.
    pub replicas: Option<u32>,
    /// Ports that it is reached at beside those of its pod template.
    pub ports: Vec<u16>,
    /// The port on which the program listens whatever it is told; one that is free where nothing was said.
    pub app_port: Option<u16>,
    /// `host:port` of what it calls by TCP.
    pub upstreams: Vec<String>,
    /// The proxy beside it.
    pub proxy: ProxyEngine,
    /// Where it was written.
    pub place: FilePlace,
}

/// The proxy beside a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyEngine {
    /// Our own.
    #[default]
    Outrigger,
    /// Envoy, found in the path.
    Envoy,
}

impl Names for ProxyEngine {
    const NAMES: &'static [(&'static str, Self)] =
        &[("outrigger", Self::Outrigger), ("envoy", Self::Envoy)];
}

/// Reads the file: a list of rows, or a map with the list under `workloads`.
pub(super) fn read(shown: &str, text: &str) -> Result<Vec<WorkloadRow>, Vec<FileProblem>> {
    let file: Arc<str> = shown.into();
    let at = |place| FilePlace { file: Arc::clone(&file), place: Some(place) };
    let (trees, broken) = parse_tree(text);
    let problem = |(place, message)| FileProblem { at: at(place), message };
    let mut problems: Vec<FileProblem> = broken.into_iter().map(problem).collect();
    let mut rows: Vec<WorkloadRow> = Vec::new();
    for (value, places) in trees {
        let Some((items, places)) = list_of(value, places) else {
            let message = "expected a list of {deployment, run} rows".to_owned();
            problems.push(FileProblem {
                at: FilePlace { file: Arc::clone(&file), place: None },
                message,
            });
            continue;
        };
        for (index, item) in items.iter().enumerate() {
            let places = places.child(&Segment::Index(index)).cloned().unwrap_or_default();
            match read_row(item, &places, &at) {
                Ok(row) => match rows.iter().find(|earlier| same_deployment(earlier, &row)) {
                    Some(earlier) => {
                        let message =
                            format!("{} has a row already, at {}", row.deployment, earlier.place);
                        problems.push(FileProblem { at: row.place, message });
                    }
                    None => rows.push(row),
                },
                Err(found) => problems.extend(found),
            }
        }
    }
    if problems.is_empty() { Ok(rows) } else { Err(problems) }
}

fn same_deployment(a: &WorkloadRow, b: &WorkloadRow) -> bool {
    (&a.namespace, &a.deployment) == (&b.namespace, &b.deployment)
}

fn list_of(value: Value, places: Places) -> Option<(Vec<Value>, Places)> {
    match value {
        Value::Null => Some((Vec::new(), places)),
        Value::Array(items) => Some((items, places)),
        Value::Object(mut map) if map.len() == 1 => match map.shift_remove("workloads")? {
            Value::Array(items) => {
                let within = places.child(&Segment::Field("workloads".to_owned())).cloned();
                Some((items, within.unwrap_or(places)))
            }
            _ => None,
        },
        _ => None,
    }
}

fn read_row(
    item: &Value,
    places: &Places,
    at: &impl Fn(resources::yaml::Place) -> FilePlace,
) -> Result<WorkloadRow, Vec<FileProblem>> {
    let place = at(places.find(&FieldPath::default()));
    let Value::Object(map) = item else {
        return Err(vec![FileProblem {
            at: place,
            message: "expected {deployment, run, ...}".to_owned(),
        }]);
    };
    let (row, findings) = read_object(map, |fields| read_fields(fields, place));
    if findings.errors.is_empty() {
        return Ok(row);
    }
    let each = |finding: resources::field::Finding| FileProblem {
        at: at(places.find(&finding.path)),
        message: finding.to_string(),
    };
    Err(findings.errors.into_iter().map(each).collect())
}

fn read_fields(fields: &mut Fields<'_>, place: FilePlace) -> WorkloadRow {
    let deployment = fields.required_text("deployment");
    fields.check("deployment", &deployment, rules::name::dns_subdomain);
    let namespace = fields.optional_text("namespace").unwrap_or_else(|| "default".to_owned());
    fields.check("namespace", &namespace, rules::name::dns_label);
    let run = fields.texts("run");
    if run.first().is_none_or(String::is_empty) {
        fields.error_in("run", Reason::Required, "the program and its arguments are required");
    }
    let upstreams = fields.texts_with("upstreams", |text| {
        let port =
            text.rsplit_once(':').and_then(|(host, port)| port.parse::<u16>().ok().zip(Some(host)));
        match port {
            Some((port, host)) if port > 0 => rules::host::fqdn(host),
            _ => Err("must be <host>:<port>".to_owned()),
        }
    });
    WorkloadRow {
        namespace,
        deployment,
        run,
        env: read_env(fields),
        replicas: fields.integer("replicas", 0..=100),
        ports: fields
            .integers("ports", 1..=65535)
            .into_iter()
            .filter_map(|port| u16::try_from(port).ok())
            .collect(),
        app_port: fields.port("appPort"),
        upstreams,
        proxy: fields.choice("proxy").unwrap_or_default(),
        place,
    }
}

/// Reads environment variables, whose values may be written as numbers and booleans.
fn read_env(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let Some(value) = fields.raw("env") else { return env };
    let Value::Object(map) = value else {
        fields.error_in("env", Reason::Type, "expected a map of environment variables");
        return env;
    };
    for (name, value) in map {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => {
                fields.error_key("env", name, Reason::Type, "expected a string");
                continue;
            }
        };
        if name.is_empty() || name.contains(['=', '\0']) || text.contains('\0') {
            fields.error_key("env", name, Reason::Invalid, "is no environment variable");
        }
        env.insert(name.clone(), text);
    }
    env
}
