//! The bootstrap: read from text or made by a program, checked whole, and loaded into a [`Snapshot`].

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use api::check::Checker;
use api::envoy::config::bootstrap::v3::Bootstrap as Message;
use api::envoy::config::bootstrap::v3::runtime_layer::LayerSpecifier;
pub use api::envoy::config::core::v3::Node;
use api::envoy::config::core::v3::node::UserAgentVersionType;
use api::envoy::config::core::v3::{ApiConfigSource, BuildVersion, ConfigSource, Extension};
use api::envoy::r#type::v3::SemanticVersion;
use api::google::protobuf::{Struct, value::Kind};
use api::schema::Schema;
use api::text::{Loaded, Problem, Sources, Spans};
use bytes::Bytes;
use prost::Message as _;

use crate::admin::StaticResource;
use crate::config_sync::sink::{GrpcSource, ResourceKind};
use crate::snapshot::compile::{Compile, Environment};
use crate::snapshot::node::NodeInfo;
use crate::snapshot::registry::Extensions;
use crate::snapshot::slots::Slots;
use crate::snapshot::source::Fetch;
use crate::snapshot::values;
use crate::snapshot::{Binder, NoSockets, Snapshot, source};

/// The type of the document.
const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// A bootstrap, with what is known to be wrong with it.
#[derive(Debug)]
pub struct Bootstrap {
    /// The message.
    pub message: Message,
    /// Where each part of it stands in the text, if it is from one.
    spans: Spans,
    sources: Sources,
    /// What reading has found wrong.
    problems: Vec<Problem>,
    /// Fields that the schema does not have.
    unknown: Vec<Problem>,
    /// The whole message, encoded, once [`Bootstrap::shrink`] has let go of its parts.
    encoded: Option<Bytes>,
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone)]
pub struct ConfigError {
    /// Each problem, in the order of the text.
    pub problems: Vec<Problem>,
    sources: Sources,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "error: {}", self.sources.render(problem))?;
        }
        let count = self.problems.len();
        write!(f, "\n{count} {} found", if count == 1 { "error" } else { "errors" })
    }
}

impl Bootstrap {
    /// Reads YAML or JSON; later sources lie over earlier ones. What is wrong with the text and by the schema is kept
    /// until [`Bootstrap::load`] has found what else is wrong.
    ///
    /// # Errors
    /// When the text is so wrong that there is nothing to go on with.
    pub fn read(
        schema: &Schema,
        extensions: &Extensions,
        sources: Sources,
    ) -> Result<Self, ConfigError> {
        let Some(descriptor) = schema.message(BOOTSTRAP) else {
            let problems = vec![Problem::new("", "the schema has no bootstrap")];
            return Err(ConfigError { problems, sources });
        };
        let Loaded { bytes, spans, mut problems, unknown } =
            api::text::load(schema, descriptor, &sources);
        let knows = |name: &str| extensions.knows(name);
        let report = Checker::new(schema, &knows).check(descriptor, &bytes);
        let mut known = [problems.as_slice(), &unknown].concat();
        let read = known.len();
        add_news(&mut known, report.problems);
        problems.extend(known.drain(read..));
        for path in report.deprecated {
            tracing::warn!("{path} is deprecated");
        }
        match Message::decode(bytes.as_slice()) {
            Ok(message) => Ok(Self { message, spans, sources, problems, unknown, encoded: None }),
            Err(error) => {
                problems.extend(unknown);
                problems.push(Problem::new("", error.to_string()));
                Err(ConfigError::new(problems, sources))
            }
        }
    }

    /// Who this proxy is; what the command line gives wins where the bootstrap says nothing.
    pub fn node(&self) -> NodeInfo {
        let node = self.message.node.clone().unwrap_or_default();
        let locality = node.locality.unwrap_or_default();
        NodeInfo {
            id: node.id.as_str().into(),
            cluster: node.cluster.as_str().into(),
            region: locality.region.as_str().into(),
            zone: locality.zone.as_str().into(),
            sub_zone: locality.sub_zone.as_str().into(),
            metadata: node.metadata.as_ref().map(values::json_object).unwrap_or_default().into(),
            client_features: node.client_features,
        }
    }

    /// Lets fields be that the schema does not have (`--allow-unknown-static-fields`); each is told of.
    pub fn allow_unknown_fields(&mut self) {
        for problem in self.unknown.drain(..) {
            tracing::warn!("ignored: {problem}");
        }
    }

    /// The node's message, to be changed by the command line.
    pub fn node_mut(&mut self) -> &mut Node {
        self.message.node.get_or_insert_default()
    }

    /// The node as it introduces itself: with what this program is and can load.
    pub fn introduction(&self, extensions: &Extensions) -> Node {
        let mut node = self.message.node.clone().unwrap_or_default();
        node.user_agent_name = "outrigger".to_owned();
        let version = BuildVersion { version: semantic_version(), metadata: None };
        node.user_agent_version_type = Some(UserAgentVersionType::UserAgentBuildVersion(version));
        let extension = |(category, name, message): (&str, &str, &str)| Extension {
            name: name.to_owned(),
            category: category.to_owned(),
            type_urls: vec![message.to_owned()],
            ..Extension::default()
        };
        node.extensions = extensions.list().into_iter().map(extension).collect();
        node
    }

    /// The same, encoded.
    pub fn encoded_introduction(&self, extensions: &Extensions) -> Bytes {
        self.introduction(extensions).encode_to_vec().into()
    }

    /// The whole bootstrap as `/config_dump` shows it.
    pub fn dump(&self, updated: SystemTime) -> StaticResource {
        StaticResource {
            name: String::new(),
            type_url: "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap",
            bytes: self.encoded.clone().unwrap_or_else(|| self.message.encode_to_vec().into()),
            updated,
        }
    }

    /// Where the admin interface listens.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin().ok().flatten()
    }

    fn admin(&self) -> Result<Option<SocketAddr>, Problem> {
        use api::envoy::config::core::v3::address::Address;
        use api::envoy::config::core::v3::socket_address::PortSpecifier;
        let admin = self.message.admin.as_ref().and_then(|admin| admin.address.as_ref());
        let Some(address) = admin else { return Ok(None) };
        let problem = |message: &str| Problem::new("admin.address", message);
        let Some(Address::SocketAddress(socket)) = &address.address else {
            return Err(problem("only `socket_address` is supported here"));
        };
        let port = match socket.port_specifier {
            Some(PortSpecifier::PortValue(port)) => u16::try_from(port).unwrap_or_default(),
            _ => 0,
        };
        match socket.address.parse() {
            Ok(ip) => Ok(Some(SocketAddr::new(ip, port))),
            Err(_) => Err(problem(&format!("`{}` is no IP address", socket.address))),
        }
    }

    /// Connections a listener may have, by name, from the static layers of the runtime. The last layer wins.
    pub fn listener_limits(&self) -> BTreeMap<String, u64> {
        self.runtime(&mut Vec::new())
    }

    /// Reads the runtime; a key that has no meaning here is a problem.
    fn runtime(&self, problems: &mut Vec<Problem>) -> BTreeMap<String, u64> {
        let mut limits = BTreeMap::new();
        let layers = self.message.layered_runtime.iter().flat_map(|runtime| &runtime.layers);
        for (index, layer) in layers.enumerate() {
            let Some(LayerSpecifier::StaticLayer(values)) = &layer.layer_specifier else {
                continue;
            };
            let path = format!("layered_runtime.layers[{index}].static_layer");
            let mut keys = Vec::new();
            flatten(values, "", &mut keys);
            for (key, value) in keys {
                match runtime_key(&key, value) {
                    Some(RuntimeKey::ListenerLimit(name, limit)) => {
                        limits.insert(name, limit);
                    }
                    Some(RuntimeKey::Harmless) => {}
                    None => {
                        let message = format!("runtime key `{key}` is not supported yet");
                        problems.push(Problem::new(&path, message));
                    }
                }
            }
        }
        limits
    }

    /// Loads everything static into `snapshot` and tells it where discovery is.
    ///
    /// # Errors
    /// Everything that is wrong with the bootstrap, from its text to what cannot be bound.
    pub fn load(
        &self,
        snapshot: &mut Snapshot,
        binder: &mut dyn Binder,
        now: Instant,
    ) -> Result<(), ConfigError> {
        let mut found = Vec::new();
        // Of a bootstrap that is wrong already nothing is bound; it is only looked for more.
        let known = [self.problems.as_slice(), &self.unknown].concat();
        let binder: &mut dyn Binder = if known.is_empty() { binder } else { &mut NoSockets };
        self.load_static(snapshot, binder, now, &mut found);
        let (ads, cds, lds) = self.discovery(snapshot.environment(), &mut found);
        snapshot.discover(ads, cds, lds, now);
        found.extend(self.admin().err());
        self.runtime(&mut found);
        let mut problems = known;
        add_news(&mut problems, found);
        if problems.is_empty() { Ok(()) } else { Err(self.error(problems)) }
    }

    fn load_static(
        &self,
        snapshot: &mut Snapshot,
        binder: &mut dyn Binder,
        now: Instant,
        problems: &mut Vec<Problem>,
    ) {
        let Some(resources) = &self.message.static_resources else { return };
        snapshot.expect_clusters(resources.clusters.iter().map(|cluster| cluster.name.clone()));
        let mut take = |kind, list: &str, index: usize, name: &str, bytes: Vec<u8>| {
            let path = format!("static_resources.{list}[{index}]");
            if let Err(found) = snapshot.take_static(kind, name, bytes, binder, now) {
                problems.extend(found.into_iter().map(|problem| problem.under(&path)));
            }
        };
        for (index, secret) in resources.secrets.iter().enumerate() {
            take(ResourceKind::Secret, "secrets", index, &secret.name, secret.encode_to_vec());
        }
        for (index, cluster) in resources.clusters.iter().enumerate() {
            take(ResourceKind::Cluster, "clusters", index, &cluster.name, cluster.encode_to_vec());
        }
        for (index, found) in resources.listeners.iter().enumerate() {
            take(ResourceKind::Listener, "listeners", index, &found.name, found.encode_to_vec());
        }
    }

    fn discovery(
        &self,
        env: &Environment,
        problems: &mut Vec<Problem>,
    ) -> (Option<GrpcSource>, Option<Fetch>, Option<Fetch>) {
        let dynamic = self.message.dynamic_resources.clone().unwrap_or_default();
        let mut slots = Slots::default();
        let mut cx = Compile::new(env, &mut slots);
        let mut fetch = |field: &str, source: &Option<ConfigSource>| {
            cx.at(&format!("dynamic_resources.{field}"), |cx| source::fetch(cx, source.as_ref()))
        };
        let cds = fetch("cds_config", &dynamic.cds_config);
        let lds = fetch("lds_config", &dynamic.lds_config);
        let grpc = |cx: &mut Compile<'_>, source: &ApiConfigSource| source::grpc(cx, source);
        let ads = dynamic
            .ads_config
            .as_ref()
            .and_then(|source| cx.at("dynamic_resources.ads_config", |cx| grpc(cx, source)));
        let uses_ads = [&cds, &lds]
            .into_iter()
            .flatten()
            .any(|fetch| fetch.source == crate::config_sync::sink::Source::Ads);
        if uses_ads && dynamic.ads_config.is_none() {
            cx.problem_at("dynamic_resources", "`ads` is used, but there is no `ads_config`");
        }
        let clusters = self.message.static_resources.iter().flat_map(|found| &found.clusters);
        if let Some(source) = &ads
            && !clusters.into_iter().any(|cluster| cluster.name == source.cluster)
        {
            let message = format!("there is no cluster `{}` in static_resources", source.cluster);
            let field = "dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name";
            cx.problem_at(field, message);
        }
        problems.append(&mut cx.problems);
        (ads, cds, lds)
    }

    /// Problems with paths from the root, shown with their places.
    pub fn error(&self, problems: Vec<Problem>) -> ConfigError {
        let problems = problems.into_iter().map(|problem| self.spans.locate(problem)).collect();
        ConfigError::new(problems, self.sources.clone())
    }

    /// Lets go of what is of use only until everything static is loaded: the text, the places in it, and the decoded
    /// resources, which take many times the room of their encoding.
    pub fn shrink(&mut self) {
        self.encoded = Some(self.message.encode_to_vec().into());
        self.message.static_resources = None;
        self.spans = Spans::default();
        self.sources = Sources::default();
    }
}

impl ConfigError {
    fn new(mut problems: Vec<Problem>, sources: Sources) -> Self {
        problems.sort_by_key(|problem| {
            problem.place.map(|place| (place.source, place.line, place.column))
        });
        problems.dedup();
        Self { problems, sources }
    }
}

fn semantic_version() -> Option<SemanticVersion> {
    let mut parts = env!("CARGO_PKG_VERSION").split('.').map(str::parse);
    let mut next = || parts.next().and_then(Result::ok).unwrap_or(0);
    Some(SemanticVersion { major_number: next(), minor_number: next(), patch: next() })
}

/// Adds what was found later, but for what may only follow from what is known: problems around or within others.
fn add_news(problems: &mut Vec<Problem>, later: Vec<Problem>) {
    let known: Vec<String> = problems.iter().map(|problem| problem.path.clone()).collect();
    let is_news = |problem: &Problem| {
        !known.iter().any(|path| encloses(path, &problem.path) || encloses(&problem.path, path))
    };
    problems.extend(later.into_iter().filter(is_news));
}

/// Is `inner` at or within `outer`?
fn encloses(outer: &str, inner: &str) -> bool {
    let rest = inner.strip_prefix(outer);
    rest.is_some_and(|rest| outer.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']))
}

/// What a runtime key means here.
enum RuntimeKey {
    ListenerLimit(String, u64),
    /// It sets what holds anyway.
    Harmless,
}

fn runtime_key(key: &str, value: &Kind) -> Option<RuntimeKey> {
    let limit = key
        .strip_prefix("envoy.resource_limits.listener.")
        .and_then(|rest| rest.strip_suffix(".connection_limit"));
    if let (Some(name), Kind::NumberValue(number)) = (limit, value) {
        return Some(RuntimeKey::ListenerLimit(name.to_owned(), *number as u64));
    }
    // Patterns have a limit of their own (see `string_matcher`), whatever RE2's would be.
    key.starts_with("re2.max_program_size.").then_some(RuntimeKey::Harmless)
}

/// Dotted keys of nested objects, sorted.
fn flatten<'a>(values: &'a Struct, prefix: &str, out: &mut Vec<(String, &'a Kind)>) {
    let mut fields: Vec<_> = values.fields.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    for (name, value) in fields {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match &value.kind {
            Some(Kind::StructValue(inner)) => flatten(inner, &key, out),
            Some(kind) => out.push((key, kind)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
