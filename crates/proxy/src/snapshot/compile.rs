//! What every step of the compilation carries: where it is, what it found wrong, what it refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use api::google::protobuf::Any;
use api::schema::Schema;
use api::text::{Problem, encode_struct, is_typed_struct};
use prost::Message;

use super::fingerprint::Print;
use super::node::NodeInfo;
use super::parts::Parts;
use super::registry::{CompileContext, Extensions};
use super::slots::Slots;
use super::source::Fetch;
use crate::access_log::sink::Sinks;
use crate::listener::config::TrafficDirection;
use crate::upstream::config::ClusterRef;

/// What compilation stands on; the same for the life of the process.
pub struct Environment {
    /// The tables of the configuration.
    pub schema: Schema,
    /// What there is.
    pub extensions: Extensions,
    /// Where statistics go.
    pub registry: telemetry::stats::Registry,
    /// Who this is.
    pub node: NodeInfo,
    /// Where access logs go.
    pub sinks: Sinks,
    /// For formats of access logs and headers.
    pub formats: crate::access_log::Environment,
    /// Connections a listener may have, by its name (`envoy.resource_limits.listener.<name>.connection_limit`).
    pub listener_limits: BTreeMap<String, u64>,
    /// Looks an environment variable up.
    pub variable: fn(&str) -> Option<String>,
    /// What configurations have in common.
    pub parts: Parts,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("node", &self.node.id).finish_non_exhaustive()
    }
}

/// Names that a resource needs before it can serve.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Route configurations, by the source that has them.
    pub routes: BTreeMap<Arc<str>, Fetch>,
    /// Secrets.
    pub secrets: BTreeMap<Arc<str>, Fetch>,
    /// Route configurations with the `stat_prefix` of each connection manager that takes them.
    pub managers: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Clusters that are referred to by their slots; they need not be there.
    pub clusters: BTreeSet<Arc<str>>,
}

/// A reference to a cluster.
#[derive(Debug, Clone)]
pub struct ClusterUse {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is referred to.
    pub path: String,
    /// Is it an error if there is no such cluster?
    pub must_exist: bool,
}

/// One resource's compilation.
pub struct Compile<'a> {
    /// What it stands on.
    pub env: &'a Environment,
    /// Where names become numbers.
    pub slots: &'a mut Slots,
    /// What was found wrong.
    pub problems: Vec<Problem>,
    /// What must be there before the resource can serve.
    pub needs: Needs,
    /// Clusters that are referred to; judged when all is read.
    pub clusters: Vec<ClusterUse>,
    /// Must the clusters that are referred to now exist?
    pub validate_clusters: bool,
    /// The direction of the listener that is being compiled.
    pub direction: TrafficDirection,
    /// Secrets of the bootstrap, by name.
    pub static_secrets: BTreeSet<String>,
    /// What was read from files and the environment: part of what makes a configuration what it is.
    pub read: Print,
    path: String,
}

impl fmt::Debug for Compile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl<'a> Compile<'a> {
    /// Begins a resource's compilation.
    pub fn new(env: &'a Environment, slots: &'a mut Slots) -> Self {
        Self {
            env,
            slots,
            problems: Vec::new(),
            needs: Needs::default(),
            clusters: Vec::new(),
            validate_clusters: false,
            direction: TrafficDirection::Unspecified,
            static_secrets: BTreeSet::new(),
            read: Print::default(),
            path: String::new(),
        }
    }

    /// Something is wrong here.
    pub fn problem(&mut self, message: impl Into<String>) {
        self.problems.push(Problem::new(self.path.clone(), message));
    }

    /// Something is wrong with a field of what is here.
    pub fn problem_at(&mut self, field: &str, message: impl Into<String>) {
        self.at(field, |cx| cx.problem(message));
    }

    /// Problems that another found, with paths from here on.
    pub fn problems_under(&mut self, problems: Vec<Problem>) {
        let path = &self.path;
        self.problems.extend(problems.into_iter().map(|problem| problem.under(path)));
    }

    /// Runs `step` one field further in.
    pub fn at<R>(&mut self, field: &str, step: impl FnOnce(&mut Self) -> R) -> R {
        let mark = self.path.len();
        if !self.path.is_empty() && !field.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(field);
        let result = step(self);
        self.path.truncate(mark);
        result
    }

    /// Runs `step` on every item of a list; those that fail are left out (and have told why).
    pub fn each<T, R>(
        &mut self,
        field: &str,
        items: &[T],
        mut step: impl FnMut(&mut Self, &T) -> Option<R>,
    ) -> Vec<R> {
        let mut out = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            out.extend(self.at(&format!("{field}[{index}]"), |cx| step(cx, item)));
        }
        out
    }

    /// The path from the resource on.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The slot of a cluster that is referred to here.
    pub fn cluster(&mut self, field: &str, name: &str) -> ClusterRef {
        let path = self.at(field, |cx| cx.path.clone());
        let cluster = self.slots.cluster(name);
        let must_exist = self.validate_clusters;
        self.clusters.push(ClusterUse { name: name.into(), path, must_exist });
        cluster
    }

    /// An extension's message: its full name and bytes, a `TypedStruct` unwrapped.
    pub fn extension(&mut self, field: &str, any: Option<&Any>) -> Option<(String, Vec<u8>)> {
        let Some(any) = any else {
            self.problem_at(
                field,
                format!("`{field}` is required: it says which extension this is"),
            );
            return None;
        };
        let name = any.type_url.rsplit_once('/').map_or("", |(_, name)| name);
        if !is_typed_struct(name) {
            return Some((name.to_owned(), any.value.clone()));
        }
        let inner = api::xds::r#type::v3::TypedStruct::decode(any.value.as_slice()).ok()?;
        match encode_struct(&self.env.schema, &inner.type_url, &inner.value.unwrap_or_default()) {
            Ok(any) => self.extension(field, Some(&any)),
            Err(problems) => {
                self.at(field, |cx| cx.problems_under(problems));
                None
            }
        }
    }

    /// Decodes an extension's message; the schema's check has seen it, so this only fails on what is malformed.
    pub fn decode<M: Message + Default>(&mut self, bytes: &[u8]) -> Option<M> {
        M::decode(bytes).map_err(|_| self.problem("malformed protobuf")).ok()
    }

    /// What an extension's compiler may know.
    pub fn context<'c>(&'c self, stat_prefix: &'c str) -> CompileContext<'c> {
        CompileContext {
            registry: &self.env.registry,
            node: &self.env.node,
            direction: self.direction,
            stat_prefix,
        }
    }

    /// The content of a `DataSource`.
    pub fn data(&mut self, source: &api::envoy::config::core::v3::DataSource) -> Option<Vec<u8>> {
        use api::envoy::config::core::v3::data_source::Specifier;
        match source.specifier.as_ref()? {
            Specifier::Filename(path) => self.at("filename", |cx| cx.read(Path::new(path))),
            Specifier::InlineBytes(bytes) => Some(bytes.clone()),
            Specifier::InlineString(text) => Some(text.clone().into_bytes()),
            Specifier::EnvironmentVariable(name) => match (self.env.variable)(name) {
                Some(value) => {
                    self.read.add(&value);
                    Some(value.into_bytes())
                }
                None => {
                    self.problem_at(
                        "environment_variable",
                        format!("the environment variable {name} is not set"),
                    );
                    None
                }
            },
        }
    }

    fn read(&mut self, path: &Path) -> Option<Vec<u8>> {
        match std::fs::read(path) {
            Ok(bytes) => {
                self.read.add(&bytes);
                Some(bytes)
            }
            Err(error) => {
                self.problem(format!("{}: {}", path.display(), error_text(&error)));
                None
            }
        }
    }
}

/// `No such file or directory` without the number.
pub fn error_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
