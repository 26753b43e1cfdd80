//! What became of an object: the proxies that it concerns, how many of them do what it says, and what of it nobody does.

use std::collections::BTreeSet;
use std::sync::Arc;

use resources::field::Finding;
use resources::kinds::networking::destination_rule::DestinationRule;
use resources::kinds::networking::gateway::Gateway;
use resources::kinds::networking::sidecar::Sidecar;
use resources::kinds::networking::virtual_service::VirtualService;
use resources::kinds::security::peer_authentication::PeerAuthentication;
use resources::kinds::{Kind, KindInfo, Meta, Parsed};
use serde::Serialize;
use xds::ResourceType;

use super::board::{RejectedResource, StatusBoard};
use crate::coverage::Coverage;
use crate::discovery::origin::Origin;
use crate::discovery::secret;
use crate::discovery::view::ResourceId;
use crate::model::PushContext;
use crate::model::objects::{ChangeSet, Name, Table};
use crate::proxy::Proxy;
use crate::push::{Client, Discovery};

/// How one object fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ObjectStatus {
    /// `VirtualService`, ...
    pub kind: &'static str,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Identity over its lifetime.
    #[serde(skip)]
    pub uid: String,
    /// The generation of which all this is said.
    pub generation: u64,
    /// How many connected proxies it concerns.
    pub proxies: usize,
    /// How many of them do what it says.
    pub programmed: usize,
    /// Why proxies do not.
    pub rejections: Vec<Rejected>,
    /// What of it has no effect: `field: why`.
    pub warnings: Vec<String>,
}

/// A proxy that does not do what an object says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Rejected {
    /// `name.namespace` of the proxy.
    pub proxy: String,
    /// `CDS outbound|80||...`: what it did not take.
    pub resource: String,
    /// What it says.
    pub reason: String,
}

impl ObjectStatus {
    /// Whether every proxy has answered.
    pub fn is_settled(&self) -> bool {
        self.programmed + self.refusing() == self.proxies
    }

    /// Whether every proxy does what it says.
    pub fn is_programmed(&self) -> bool {
        self.programmed == self.proxies
    }

    /// How many proxies do not take it.
    fn refusing(&self) -> usize {
        let mut proxies: Vec<&str> = self.rejections.iter().map(|one| one.proxy.as_str()).collect();
        proxies.dedup();
        proxies.len()
    }
}

/// A kind whose objects are told how they fare.
struct Row {
    info: &'static KindInfo,
    names: fn(&PushContext) -> Vec<Name>,
    changed: fn(&ChangeSet) -> Vec<Name>,
    read: fn(&PushContext, &Name) -> Option<Written>,
    concerns: Concerns,
    /// What a proxy that it concerns lacks to do what it says.
    lacks: fn(&PushContext, &Proxy, &Name) -> Vec<Finding>,
}

/// Whom an object concerns.
enum Concerns {
    /// The proxies that have a resource that is made of it.
    Users,
    /// The proxies of the workloads that it selects.
    Selected(fn(&PushContext, &Client, &Name) -> bool),
}

/// What an object says of itself.
struct Written {
    uid: String,
    generation: u64,
    findings: Vec<Finding>,
}

const KINDS: [Row; 5] = [
    Row {
        info: VirtualService::INFO,
        names: |context| names(&context.objects.virtual_services),
        changed: |changes| changes.virtual_services.keys().cloned().collect(),
        read: |context, name| {
            let mut written = written(&context.objects.virtual_services, name)?;
            let rule = context.virtual_services.get(name);
            written.findings.extend(rule.into_iter().flat_map(|rule| rule.findings.clone()));
            Some(written)
        },
        concerns: Concerns::Users,
        lacks: nothing,
    },
    Row {
        info: DestinationRule::INFO,
        names: |context| names(&context.objects.destination_rules),
        changed: |changes| changes.destination_rules.keys().cloned().collect(),
        read: |context, name| written(&context.objects.destination_rules, name),
        concerns: Concerns::Users,
        lacks: nothing,
    },
    Row {
        info: Gateway::INFO,
        names: |context| names(&context.objects.gateways),
        changed: |changes| changes.gateways.keys().cloned().collect(),
        read: |context, name| written(&context.objects.gateways, name),
        concerns: Concerns::Users,
        lacks: |context, proxy, name| {
            let gateway = context.objects.gateways.get(name);
            gateway.map_or_else(Vec::new, |it| secret::absent(context, proxy, &it.view))
        },
    },
    Row {
        info: Sidecar::INFO,
        names: |context| names(&context.objects.sidecars),
        changed: |changes| changes.sidecars.keys().cloned().collect(),
        read: |context, name| written(&context.objects.sidecars, name),
        concerns: Concerns::Selected(|context, client, name| {
            let proxy = &client.proxy;
            let found = context.sidecars.find(&proxy.namespace, &proxy.labels);
            found.is_some_and(|rule| *rule.namespace == *name.namespace && *rule.name == *name.name)
        }),
        lacks: nothing,
    },
    Row {
        info: PeerAuthentication::INFO,
        names: |context| names(&context.objects.peer_authentications),
        changed: |changes| changes.peer_authentications.keys().cloned().collect(),
        read: |context, name| written(&context.objects.peer_authentications, name),
        concerns: Concerns::Selected(|context, client, name| {
            let Some(policy) = context.objects.peer_authentications.get(name) else { return false };
            let (proxy, root) = (&client.proxy, &context.mesh.root_namespace);
            match &policy.view.selector {
                None => *name.namespace == **root || name.namespace == proxy.namespace,
                Some(selector) => {
                    name.namespace == proxy.namespace
                        && selector.iter().all(|(key, value)| proxy.labels.get(key) == Some(value))
                }
            }
        }),
        lacks: nothing,
    },
];

fn nothing(_: &PushContext, _: &Proxy, _: &Name) -> Vec<Finding> {
    Vec::new()
}

fn names<T>(table: &Table<T>) -> Vec<Name> {
    table.keys().cloned().collect()
}

fn written<T: Coverage>(table: &Table<T>, name: &Name) -> Option<Written> {
    let parsed: &Arc<Parsed<T>> = table.get(name)?;
    let meta: &Meta = &parsed.meta;
    let mut findings = parsed.warnings.clone();
    findings.extend(parsed.view.not_translated());
    Some(Written { uid: meta.uid.clone(), generation: meta.generation, findings })
}

/// The objects of a change that are told how they fare.
pub fn changed(changes: &ChangeSet) -> Vec<Origin> {
    origins(|row| (row.changed)(changes))
}

/// Every object that is told how it fares.
pub fn all(context: &PushContext) -> Vec<Origin> {
    origins(|row| (row.names)(context))
}

fn origins(names: impl Fn(&Row) -> Vec<Name>) -> Vec<Origin> {
    let of_row = |row| names(row).into_iter().map(|name| Origin { kind: row.info.kind, name });
    KINDS.iter().flat_map(of_row).collect()
}

/// The row of a kind.
pub fn info(kind: &str) -> Option<&'static KindInfo> {
    KINDS.iter().find(|row| row.info.kind == kind).map(|row| row.info)
}

/// How an object fares, if it is there. `since` is the context in which it last changed.
pub fn status(
    discovery: &Discovery,
    board: &StatusBoard,
    origin: &Origin,
    since: u64,
) -> Option<ObjectStatus> {
    let row = KINDS.iter().find(|row| row.info.kind == origin.kind)?;
    let context = discovery.context();
    let written = (row.read)(context, &origin.name)?;
    let users: Vec<(Arc<Client>, Option<Vec<ResourceId>>)> = match row.concerns {
        Concerns::Users => discovery
            .users_of(origin)
            .into_iter()
            .map(|(client, made)| (client, Some(made)))
            .collect(),
        Concerns::Selected(is) => discovery
            .clients()
            .filter(|client| is(context, client, &origin.name))
            .map(|client| (Arc::clone(client), None))
            .collect(),
    };
    let mut status = ObjectStatus {
        kind: row.info.kind,
        namespace: origin.name.namespace.to_string(),
        name: origin.name.name.to_string(),
        uid: written.uid,
        generation: written.generation,
        proxies: users.len(),
        programmed: 0,
        rejections: Vec::new(),
        warnings: written.findings.iter().map(ToString::to_string).collect(),
    };
    for (client, made) in users {
        let lacks = (row.lacks)(context, &client.proxy, &origin.name);
        let rejections = board.rejections(client.id);
        let own: Vec<&RejectedResource> =
            rejections.iter().filter(|one| is_blamed(one, made.as_deref())).collect();
        let does = own.is_empty() && lacks.is_empty() && client.is_past(since);
        status.programmed += usize::from(does);
        status.warnings.extend(lacks.iter().map(ToString::to_string));
        let proxy = format!("{}.{}", client.proxy.name, client.proxy.namespace);
        status.rejections.extend(own.into_iter().map(|one| Rejected {
            proxy: proxy.clone(),
            resource: format!("{} {}", one.kind, one.name),
            reason: one.reason.clone(),
        }));
    }
    status.rejections.sort();
    // Two gateways may lack the same.
    let mut seen = BTreeSet::new();
    status.warnings.retain(|warning| seen.insert(warning.clone()));
    Some(status)
}

/// Whether a rejected resource was made of an object: is one of these; holds one, as a route configuration with its
/// virtual hosts in place does; or, where an object concerns a proxy as a whole, is a listener.
fn is_blamed(rejected: &RejectedResource, made: Option<&[ResourceId]>) -> bool {
    let Some(made) = made else { return rejected.kind == ResourceType::Listener.label() };
    made.iter().any(|(kind, name)| {
        let same = kind.label() == rejected.kind && **name == *rejected.name;
        let holds = *kind == ResourceType::VirtualHost
            && rejected.kind == ResourceType::RouteConfiguration.label()
            && name.strip_prefix(rejected.name.as_str()).is_some_and(|rest| rest.starts_with('/'));
        same || holds
    })
}
