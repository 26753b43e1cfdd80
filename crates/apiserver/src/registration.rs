//! What a workload that is run on this machine needs before it can join: a WorkloadGroup, a Service that selects it,
//! an address and a token.

use std::collections::{BTreeMap, BTreeSet};

use resources::field::FieldErrors;
use resources::kinds::Kind;
use resources::kinds::core::service::{Service, TargetPort};
use resources::kinds::networking::workload_group::WorkloadGroup;
use resources::object::{Object, ObjectKey};
use resources::rules::label::{label_key, label_value};
use resources::rules::name::{dns_label, dns_subdomain};
use resources::selector::has_all;
use resources::store::{Filter, Patch, Store, StoreError, WriteOptions};
use serde_json::json;

use crate::addresses::{self, AddressError, Holder};
use crate::control_socket::protocol::{MeshInfo, Registered, Registration, WishedPort};
use crate::tokens::{self, Tokens, TokensError};

/// What a workload's port may be said to speak, as the names of Service ports begin.
pub const PROTOCOLS: &[&str] =
    &["http", "http2", "grpc", "grpc-web", "tcp", "tls", "https", "mongo", "redis", "mysql"];

/// Marks the WorkloadGroups and Services that a registration made, and may change again.
pub const MADE_BY_LABEL: &str = "outrigger.dev/made-by";
const MADE_BY_RUN: &str = "run";
const MANAGER: &str = "outrigger-run";

/// Why a workload may not join.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// What it says of itself is not valid.
    #[error("{0}")]
    Invalid(String),
    /// The group that it names is not there.
    #[error("there is no WorkloadGroup {0}")]
    NoGroup(String),
    /// The group that it names is not valid.
    #[error("WorkloadGroup {group}: {errors}")]
    BadGroup {
        /// The group.
        group: String,
        /// What is wrong with it.
        errors: FieldErrors,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// There is no token.
    #[error(transparent)]
    Tokens(#[from] TokensError),
}

/// Makes what a workload needs and says what it got. Only the mesh's owner may ask: it creates groups.
pub async fn register(
    store: &dyn Store,
    tokens: &Tokens,
    mesh: &MeshInfo,
    wish: &Registration,
) -> Result<Registered, RegistrationError> {
    check(wish)?;
    let group_name = wish.group.clone().unwrap_or_else(|| match &wish.version {
        Some(version) => format!("{}-{version}", wish.name),
        None => wish.name.clone(),
    });
    let group = find_or_make_group(store, wish, &group_name).await?;
    let labels = labels_of(&group);
    let mut service_made = None;
    if wish.group.is_none() && !wish.ports.is_empty() {
        service_made = make_service(store, wish, &labels).await?;
    }
    let (services, mut ports) = selecting(store, &wish.namespace, &labels, &group).await?;
    ports.extend(group.template.ports.values());
    ports.extend(wish.ports.iter().map(|wished| wished.port));
    let ports: Vec<u16> = ports.into_iter().collect();
    let holder = Holder {
        namespace: wish.namespace.clone(),
        group: group_name.clone(),
        instance: wish.instance.clone(),
    };
    let allotted = addresses::allot(store, &mesh.root_namespace, &holder, &ports).await?;
    let service_account = match group.template.service_account.as_str() {
        "" => "default".to_owned(),
        account => account.to_owned(),
    };
    Ok(Registered {
        token: tokens.issue(&wish.namespace, &service_account)?,
        token_expires_in_seconds: tokens::LIFETIME.as_secs(),
        namespace: wish.namespace.clone(),
        group: group_name,
        instance: allotted.instance,
        service_account,
        labels,
        address: allotted.address.into(),
        ports,
        services,
        service_made,
        mesh: mesh.clone(),
    })
}

fn check(wish: &Registration) -> Result<(), RegistrationError> {
    let bad = |what: &str, value: &str, error: String| {
        RegistrationError::Invalid(format!("{what} {value:?} {error}"))
    };
    dns_label(&wish.namespace).map_err(|error| bad("namespace", &wish.namespace, error))?;
    match &wish.group {
        Some(group) => dns_subdomain(group).map_err(|error| bad("group", group, error))?,
        None => dns_label(&wish.name).map_err(|error| bad("name", &wish.name, error))?,
    }
    if let Some(account) = &wish.service_account {
        dns_subdomain(account).map_err(|error| bad("service account", account, error))?;
    }
    if let Some(version) = &wish.version {
        dns_label(version).map_err(|error| bad("version", version, error))?;
    }
    if let Some(instance) = &wish.instance {
        dns_label(instance).map_err(|error| bad("instance", instance, error))?;
    }
    for (key, value) in &wish.labels {
        label_key(key).map_err(|error| bad("label", key, error))?;
        label_value(value).map_err(|error| bad("label value", value, error))?;
    }
    for WishedPort { port, protocol } in &wish.ports {
        if *port == 0 {
            return Err(RegistrationError::Invalid(
                "a port must be between 1 and 65535".to_owned(),
            ));
        }
        if !PROTOCOLS.contains(&protocol.as_str()) {
            let error = format!("must be one of {}", PROTOCOLS.join(", "));
            return Err(bad("protocol", protocol, error));
        }
    }
    Ok(())
}

async fn find_or_make_group(
    store: &dyn Store,
    wish: &Registration,
    name: &str,
) -> Result<WorkloadGroup, RegistrationError> {
    let key = ObjectKey::new(WorkloadGroup::INFO.collection.clone(), &*wish.namespace, name);
    let there = match store.get(&key).await {
        Ok(group) => Some(group),
        Err(StoreError::NotFound(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let may_change =
        there.as_ref().is_none_or(|group| group.label(MADE_BY_LABEL) == Some(MADE_BY_RUN));
    let group = match (there, &wish.group) {
        (None, Some(group)) => {
            return Err(RegistrationError::NoGroup(format!("{}/{group}", wish.namespace)));
        }
        // A group that a person wrote is the truth about its workloads.
        (Some(group), _) if wish.group.is_some() || !may_change => group,
        _ => {
            let patch = Patch::Apply { object: group_of(wish, name), force: true };
            store.patch(key, patch, WriteOptions::by(MANAGER)).await?
        }
    };
    let parsed = WorkloadGroup::parse(&group);
    let bad = |errors| RegistrationError::BadGroup {
        group: format!("{}/{name}", wish.namespace),
        errors,
    };
    Ok(parsed.map_err(bad)?.view)
}

fn group_of(wish: &Registration, name: &str) -> Object {
    let mut labels = wish.labels.clone();
    labels.entry("app".to_owned()).or_insert_with(|| wish.name.clone());
    if let Some(version) = &wish.version {
        labels.entry("version".to_owned()).or_insert_with(|| version.clone());
    }
    let ports: BTreeMap<String, u16> =
        wish.ports.iter().map(|wished| (wished.name(), wished.port)).collect();
    let account = wish.service_account.as_ref().unwrap_or(&wish.name);
    let mut group = Object::new("networking.istio.io/v1", "WorkloadGroup", &wish.namespace, name)
        .with(
            "spec",
            json!({
                "metadata": {"labels": labels},
                "template": {"labels": labels, "serviceAccount": account, "ports": ports},
            }),
        );
    group.set_label(MADE_BY_LABEL, MADE_BY_RUN);
    group
}

/// Labels of a group's workloads.
pub fn labels_of(group: &WorkloadGroup) -> BTreeMap<String, String> {
    let mut labels = group.labels.clone();
    labels.extend(group.template.labels.clone());
    labels
}

/// The services that select a workload, and the workload ports that they name.
async fn selecting(
    store: &dyn Store,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    group: &WorkloadGroup,
) -> Result<(Vec<String>, BTreeSet<u16>), RegistrationError> {
    let filter = Filter { namespace: Some(namespace.to_owned()), ..Filter::default() };
    let listed = store.list(&Service::INFO.collection, &filter).await?;
    let (mut names, mut ports) = (Vec::new(), BTreeSet::new());
    for object in listed.items {
        let Ok(service) = Service::parse(&object) else { continue };
        if service.view.selector.is_empty() || !has_all(labels, &service.view.selector) {
            continue;
        }
        names.push(service.meta.name);
        ports.extend(service.view.ports.iter().filter_map(|port| match &port.target_port {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(name) => group.template.ports.get(name).copied(),
        }));
    }
    Ok((names, ports))
}

/// Makes a Service with the ports that are wished, unless there is one that somebody else wrote; one that was made like
/// this before follows. Answers its name if anything was done.
async fn make_service(
    store: &dyn Store,
    wish: &Registration,
    labels: &BTreeMap<String, String>,
) -> Result<Option<String>, RegistrationError> {
    let filter = Filter { namespace: Some(wish.namespace.clone()), ..Filter::default() };
    let mut before = None;
    for object in store.list(&Service::INFO.collection, &filter).await?.items {
        let Ok(Service { selector, .. }) = Service::parse(&object).map(|parsed| parsed.view) else {
            continue;
        };
        if object.name() == wish.name && object.label(MADE_BY_LABEL) == Some(MADE_BY_RUN) {
            before = Some(object.resource_version().to_owned());
        } else if !selector.is_empty() && has_all(labels, &selector) {
            return Ok(None);
        }
    }
    let ports = wish.ports.iter().map(
        |wished| json!({"name": wished.name(), "port": wished.port, "targetPort": wished.port}),
    );
    let mut service = Object::new("v1", "Service", &wish.namespace, &wish.name)
        .with("spec", json!({"selector": {"app": wish.name}, "ports": ports.collect::<Vec<_>>()}));
    service.set_label("app", &wish.name);
    service.set_label(MADE_BY_LABEL, MADE_BY_RUN);
    let key = ObjectKey::new(Service::INFO.collection.clone(), &*wish.namespace, &*wish.name);
    let patch = Patch::Apply { object: service, force: true };
    let after = store.patch(key, patch, WriteOptions::by(MANAGER)).await?;
    Ok((before.as_deref() != Some(after.resource_version())).then(|| wish.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use resources::store::Versioned;

    async fn world() -> (Versioned, Tokens, MeshInfo) {
        let store = Versioned::in_memory().unwrap();
        let tokens = Tokens::load_or_create(&store, "istio-system").await.unwrap();
        let mesh = MeshInfo {
            mesh: "test".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            root_namespace: "istio-system".to_owned(),
            root_certificate: String::new(),
            xds_address: "127.0.0.1:15012".to_owned(),
        };
        (store, tokens, mesh)
    }

    fn wish(name: &str, version: Option<&str>) -> Registration {
        Registration {
            name: name.to_owned(),
            namespace: "default".to_owned(),
            version: version.map(str::to_owned),
            ports: vec![WishedPort { port: 9080, protocol: "http".to_owned() }],
            ..Registration::default()
        }
    }

    #[tokio::test]
    async fn the_first_makes_a_service_and_the_second_finds_it() {
        let (store, tokens, mesh) = world().await;
        let first = register(&store, &tokens, &mesh, &wish("reviews", Some("v1"))).await.unwrap();
        assert_eq!(
            (first.group.as_str(), first.service_account.as_str()),
            ("reviews-v1", "reviews")
        );
        assert_eq!(first.service_made.as_deref(), Some("reviews"));
        let second = register(&store, &tokens, &mesh, &wish("reviews", Some("v2"))).await.unwrap();
        assert_eq!((second.service_made, second.services), (None, vec!["reviews".to_owned()]));
        assert_ne!(first.address, second.address);
        assert_eq!(second.ports, [9080]);
        let service = ObjectKey::new(Service::INFO.collection.clone(), "default", "reviews");
        let service = store.get(&service).await.unwrap();
        assert_eq!(service.spec().unwrap()["ports"][0]["name"], "http-9080");
        for (key, object) in store.objects() {
            let findings = (resources::kinds::kind_of(&object).unwrap().check)(&object);
            assert_eq!(findings.errors, [], "{key}");
        }
    }

    #[tokio::test]
    async fn a_service_that_was_made_follows_its_workload() {
        let (store, tokens, mesh) = world().await;
        register(&store, &tokens, &mesh, &wish("db", None)).await.unwrap();
        let ports = vec![WishedPort { port: 5432, protocol: "tcp".to_owned() }];
        let moved = Registration { ports, ..wish("db", None) };
        let got = register(&store, &tokens, &mesh, &moved).await.unwrap();
        assert_eq!((got.service_made.as_deref(), got.ports), (Some("db"), vec![5432]));
        let key = ObjectKey::new(Service::INFO.collection.clone(), "default", "db");
        let ports = store.get(&key).await.unwrap().spec().unwrap()["ports"].clone();
        assert_eq!(ports, json!([{"name": "tcp-5432", "port": 5432, "targetPort": 5432}]));
    }

    #[tokio::test]
    async fn a_group_that_a_person_wrote_is_the_truth() {
        let (store, tokens, mesh) = world().await;
        let key = ObjectKey::new(WorkloadGroup::INFO.collection.clone(), "default", "reviews-v1");
        let object = Object::new("networking.istio.io/v1", "WorkloadGroup", "default", "reviews-v1").with(
            "spec",
            json!({"template": {"serviceAccount": "own", "labels": {"app": "r"}, "ports": {"http": 81}}}),
        );
        let before = store.create(key.clone(), object, WriteOptions::by("person")).await.unwrap();
        let service = Object::new("v1", "Service", "default", "r").with(
            "spec",
            json!({"selector": {"app": "r"}, "ports": [{"port": 80, "targetPort": "http"}]}),
        );
        let service_key = ObjectKey::new(Service::INFO.collection.clone(), "default", "r");
        store.create(service_key, service, WriteOptions::by("person")).await.unwrap();
        let mut wish = wish("reviews", Some("v1"));
        wish.ports.clear();
        let got = register(&store, &tokens, &mesh, &wish).await.unwrap();
        assert_eq!((got.service_account.as_str(), got.ports), ("own", vec![81]));
        assert_eq!(got.services, ["r"]);
        assert_eq!(store.get(&key).await.unwrap(), before);
    }

    #[tokio::test]
    async fn what_is_not_valid_or_not_there_is_refused() {
        let (store, tokens, mesh) = world().await;
        let bad = register(&store, &tokens, &mesh, &wish("../x", None)).await;
        assert!(matches!(bad, Err(RegistrationError::Invalid(_))), "{bad:?}");
        for (port, protocol) in [(0, "http"), (80, "smtp")] {
            let ports = vec![WishedPort { port, protocol: protocol.to_owned() }];
            let bad = Registration { ports, ..wish("x", None) };
            let bad = register(&store, &tokens, &mesh, &bad).await;
            assert!(matches!(bad, Err(RegistrationError::Invalid(_))), "{bad:?}");
        }
        let mut absent = wish("x", None);
        absent.group = Some("nobody".to_owned());
        let absent = register(&store, &tokens, &mesh, &absent).await.unwrap_err();
        assert_eq!(absent.to_string(), "there is no WorkloadGroup default/nobody");
    }
}
