//! `/config_dump`: `admin.v3.ConfigDump`. Keys and passwords are redacted.

use std::time::SystemTime;

use api::schema::Schema;
use serde_json::{Map, Value, json};

use super::super::state::{ConfigDump, DynamicResource, Resources, StaticResource};
use super::{AdminContext, Endpoint, Query, Reply, regex};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/config_dump",
    changes: false,
    help: "dump current configs",
    parameters: &[
        (
            "resource",
            "The resource to dump: a repeated field of one of the dumps, such as dynamic_listeners",
        ),
        (
            "mask",
            "The mask to apply: comma-separated field paths. With resource, it is applied to every element",
        ),
        (
            "name_regex",
            "Dump only the currently loaded configurations whose names match the specified regex. Can be used with both resource and mask query parameters.",
        ),
        ("include_eds", "Dump currently loaded configuration including EDS"),
    ],
    handle,
};

fn handle(context: &AdminContext, query: &Query) -> Reply {
    let names = match query.get("name_regex").map(regex).transpose() {
        Ok(names) => names,
        Err(reply) => return reply,
    };
    let schema = Schema::new();
    let writer = Writer {
        schema: &schema,
        node: super::server_info::node(context, &schema),
        admits: &|name| names.as_ref().is_none_or(|regex| regex.is_match(name.as_bytes())),
    };
    let dump = context.state.config_dump();
    let mut configs = writer.all(
        &dump,
        query.has("include_eds") || query.get("resource").is_some_and(|r| r.contains("endpoint")),
    );
    if let Some(resource) = query.get("resource") {
        match pick(configs, resource) {
            Ok(picked) => configs = picked,
            Err(reply) => return reply,
        }
    }
    if let Some(mask) = query.get("mask") {
        let paths: Vec<Vec<&str>> = mask.split(',').map(|path| path.split('.').collect()).collect();
        configs.iter_mut().for_each(|config| keep(config, &paths));
        configs.retain(|config| config.as_object().is_some_and(|fields| fields.len() > 1));
        if configs.is_empty() {
            let message =
                format!("FieldMask {mask} could not be successfully applied to any configs.\n");
            return Reply::error(400, message);
        }
    }
    // Protobuf's JSON leaves empty lists out.
    if configs.is_empty() {
        return Reply::json(&json!({}));
    }
    Reply::json(&json!({"configs": configs}))
}

struct Writer<'a> {
    schema: &'a Schema,
    node: Value,
    admits: &'a dyn Fn(&str) -> bool,
}

/// How one kind's dump names its parts.
struct Kind {
    message: &'static str,
    resource: &'static str,
    fixed: (&'static str, &'static str),
    dynamic: (&'static str, &'static str),
    warming: Option<&'static str>,
    versioned: bool,
    /// Static and dynamic entries have a `name` of their own.
    named: bool,
}

const CLUSTERS: Kind = Kind {
    message: "ClustersConfigDump",
    resource: "cluster",
    fixed: ("static_clusters", "StaticCluster"),
    dynamic: ("dynamic_active_clusters", "DynamicCluster"),
    warming: Some("dynamic_warming_clusters"),
    versioned: true,
    named: false,
};

const ROUTES: Kind = Kind {
    message: "RoutesConfigDump",
    resource: "route_config",
    fixed: ("static_route_configs", "StaticRouteConfig"),
    dynamic: ("dynamic_route_configs", "DynamicRouteConfig"),
    warming: None,
    versioned: false,
    named: false,
};

const SECRETS: Kind = Kind {
    message: "SecretsConfigDump",
    resource: "secret",
    fixed: ("static_secrets", "StaticSecret"),
    dynamic: ("dynamic_active_secrets", "DynamicSecret"),
    warming: Some("dynamic_warming_secrets"),
    versioned: false,
    named: true,
};

const ENDPOINTS: Kind = Kind {
    message: "EndpointsConfigDump",
    resource: "endpoint_config",
    fixed: ("static_endpoint_configs", "StaticEndpointConfig"),
    dynamic: ("dynamic_endpoint_configs", "DynamicEndpointConfig"),
    warming: None,
    versioned: false,
    named: false,
};

fn type_url(message: &str) -> String {
    format!("type.googleapis.com/envoy.admin.v3.{message}")
}

impl Writer<'_> {
    /// Every dump, in Envoy's order.
    fn all(&self, dump: &ConfigDump, endpoints: bool) -> Vec<Value> {
        let mut out = Vec::new();
        if let Some(bootstrap) = &dump.bootstrap {
            let mut inner = self.any(bootstrap);
            if let Some(map) = inner.as_object_mut() {
                map.shift_remove("@type");
                // The node as it introduces itself, not only what the file says of it.
                let mut fields = std::mem::take(map);
                fields.shift_remove("node");
                map.insert("node".to_owned(), self.node.clone());
                map.extend(fields);
            }
            out.push(json!({
                "@type": type_url("BootstrapConfigDump"),
                "bootstrap": inner,
                "last_updated": timestamp(bootstrap.updated),
            }));
        }
        out.push(self.plain(&CLUSTERS, &dump.clusters));
        if endpoints {
            out.push(self.plain(&ENDPOINTS, &dump.endpoints));
        }
        out.push(self.listeners(&dump.listeners));
        out.push(json!({"@type": type_url("ScopedRoutesConfigDump")}));
        out.push(self.plain(&ROUTES, &dump.routes));
        out.push(self.plain(&SECRETS, &dump.secrets));
        out
    }

    fn any(&self, resource: &StaticResource) -> Value {
        let mut out = Map::from_iter([("@type".to_owned(), json!(resource.type_url))]);
        if let Some(message) = self.schema.message_of_type_url(resource.type_url)
            && let Value::Object(fields) = api::dump::to_json(self.schema, message, &resource.bytes)
        {
            out.extend(fields);
        }
        Value::Object(out)
    }

    /// `{version_info, <resource>, last_updated}` of whatever is there.
    fn state(
        &self,
        key: &str,
        version: Option<&str>,
        resource: &StaticResource,
    ) -> Map<String, Value> {
        let mut out = Map::new();
        out.extend(
            version
                .filter(|version| !version.is_empty())
                .map(|version| ("version_info".to_owned(), json!(version))),
        );
        out.insert(key.to_owned(), self.any(resource));
        out.insert("last_updated".to_owned(), json!(timestamp(resource.updated)));
        out
    }

    fn fixed(&self, kind: &Kind, resources: &Resources) -> Vec<Value> {
        let admitted = resources.fixed.iter().filter(|resource| (self.admits)(&resource.name));
        let entry = |resource: &StaticResource| {
            let mut entry = Map::new();
            entry.extend(kind.named.then(|| ("name".to_owned(), json!(resource.name))));
            entry.extend(self.state(kind.resource, None, resource));
            Value::Object(entry)
        };
        admitted.map(entry).collect()
    }

    fn plain(&self, kind: &Kind, resources: &Resources) -> Value {
        let dynamic = |warming: bool| -> Vec<Value> {
            let admitted =
                resources.dynamic.iter().filter(|resource| (self.admits)(&resource.name));
            let entry = |resource: &DynamicResource| {
                let state = if warming { &resource.warming } else { &resource.active };
                let error = self.error_state(resource).filter(|_| !warming);
                if state.is_none() && error.is_none() {
                    return None;
                }
                let mut entry = Map::new();
                entry.extend(kind.named.then(|| ("name".to_owned(), json!(resource.name))));
                if let Some((version, state)) = state {
                    entry.extend(self.state(kind.resource, Some(version), state));
                }
                entry.extend(error);
                Some(Value::Object(entry))
            };
            admitted.filter_map(entry).collect()
        };
        let mut out = Map::from_iter([("@type".to_owned(), json!(type_url(kind.message)))]);
        if kind.versioned && !resources.version.is_empty() {
            out.insert("version_info".to_owned(), json!(resources.version));
        }
        let parts = [
            (Some(kind.fixed.0), self.fixed(kind, resources)),
            (Some(kind.dynamic.0), dynamic(false)),
            (kind.warming, dynamic(true)),
        ];
        for (name, entries) in parts {
            if let (Some(name), false) = (name, entries.is_empty()) {
                out.insert(name.to_owned(), Value::Array(entries));
            }
        }
        Value::Object(out)
    }

    /// Why the last version is not in force.
    fn error_state(&self, resource: &DynamicResource) -> Option<(String, Value)> {
        let rejected = resource.rejected.as_ref()?;
        let state = json!({
            "failed_configuration": self.any(&rejected.resource),
            "last_update_attempt": timestamp(rejected.resource.updated),
            "details": rejected.details,
            "version_info": rejected.version,
        });
        Some(("error_state".to_owned(), state))
    }

    /// Listeners have one entry a name, with active and warming states within.
    fn listeners(&self, resources: &Resources) -> Value {
        let kind = Kind {
            message: "ListenersConfigDump",
            resource: "listener",
            fixed: ("static_listeners", "StaticListener"),
            dynamic: ("dynamic_listeners", "DynamicListener"),
            warming: None,
            versioned: true,
            named: false,
        };
        let mut out = Map::from_iter([("@type".to_owned(), json!(type_url(kind.message)))]);
        if !resources.version.is_empty() {
            out.insert("version_info".to_owned(), json!(resources.version));
        }
        let fixed = self.fixed(&kind, resources);
        if !fixed.is_empty() {
            out.insert(kind.fixed.0.to_owned(), Value::Array(fixed));
        }
        let admitted = resources.dynamic.iter().filter(|resource| (self.admits)(&resource.name));
        let dynamic: Vec<Value> =
            admitted.map(|resource| self.dynamic_listener(&kind, resource)).collect();
        if !dynamic.is_empty() {
            out.insert(kind.dynamic.0.to_owned(), Value::Array(dynamic));
        }
        Value::Object(out)
    }

    fn dynamic_listener(&self, kind: &Kind, resource: &DynamicResource) -> Value {
        let mut entry = Map::from_iter([("name".to_owned(), json!(resource.name))]);
        for (name, state) in
            [("active_state", &resource.active), ("warming_state", &resource.warming)]
        {
            if let Some((version, state)) = state {
                entry.insert(
                    name.to_owned(),
                    Value::Object(self.state(kind.resource, Some(version), state)),
                );
            }
        }
        entry.extend(self.error_state(resource));
        Value::Object(entry)
    }
}

/// RFC 3339 with milliseconds.
fn timestamp(time: SystemTime) -> Option<String> {
    let millis = time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_millis();
    let time = jiff::Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok()?;
    Some(format!("{time:.3}"))
}

/// The elements of the repeated field `resource`, each with the type of its message.
fn pick(configs: Vec<Value>, resource: &str) -> Result<Vec<Value>, Reply> {
    let listeners =
        [("static_listeners", "StaticListener"), ("dynamic_listeners", "DynamicListener")];
    let kinds = [
        ("ClustersConfigDump", &CLUSTERS),
        ("RoutesConfigDump", &ROUTES),
        ("SecretsConfigDump", &SECRETS),
        ("EndpointsConfigDump", &ENDPOINTS),
    ];
    let mut known = listeners
        .map(|(field, element)| (field, format!("ListenersConfigDump.{element}")))
        .to_vec();
    for (dump, kind) in kinds {
        let warming = kind.warming.map(|field| (field, kind.dynamic.1));
        let fields = [Some(kind.fixed), Some(kind.dynamic), warming];
        known.extend(
            fields
                .into_iter()
                .flatten()
                .map(|(field, element)| (field, format!("{dump}.{element}"))),
        );
    }
    let Some((_, message)) = known.into_iter().find(|(field, _)| *field == resource) else {
        let single = configs.iter().any(|config| config.get(resource).is_some());
        return Err(if single {
            Reply::error(
                400,
                format!(
                    "{resource} is not a repeated field. Use ?mask={resource} to get only this field\n"
                ),
            )
        } else {
            Reply::error(404, format!("{resource} not found in config dump\n"))
        });
    };
    let found =
        configs.into_iter().find_map(|mut config| config.get_mut(resource).map(Value::take));
    let Some(Value::Array(entries)) = found else { return Ok(Vec::new()) };
    let typed = entries.into_iter().map(|entry| {
        let mut out = Map::from_iter([("@type".to_owned(), json!(type_url(&message)))]);
        if let Value::Object(fields) = entry {
            out.extend(fields);
        }
        Value::Object(out)
    });
    Ok(typed.collect())
}

/// Keeps only the paths' fields (and `@type`); lists are gone through.
fn keep(value: &mut Value, paths: &[Vec<&str>]) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| keep(item, paths)),
        Value::Object(fields) => {
            fields.retain(|name, value| {
                let below: Vec<Vec<&str>> = paths
                    .iter()
                    .filter(|path| path[0] == name)
                    .map(|path| path[1..].to_vec())
                    .collect();
                if !below.is_empty() && below.iter().all(|path| !path.is_empty()) {
                    keep(value, &below);
                }
                name == "@type" || !below.is_empty()
            });
        }
        _ => {}
    }
}
