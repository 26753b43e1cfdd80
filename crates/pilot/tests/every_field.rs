//! No field of Istio's objects is silent: setting it changes what some proxy is sent, or the object says that it has no
//! effect, or it is refused.

mod fixture;

use std::collections::BTreeMap;

use fixture::{Mesh, NodeBuilder, changes, everything};
use resources::object::Object;
use serde_json::{Map, Value};
use xds::ResourceType;

/// An object with everything that it needs, then one field a line, with a value that it does not have there. The paths
/// are the leaves of Istio's schemas, but for what is a whole (`backendUtilization`) and told as such.
const FIELDS: &str = include_str!("data/every_field.txt");

const MESH: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: default}, spec: {ports: [{port: 80, name: http, targetPort: 8080}], selector: {app: web}}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: default}, spec: {ports: [{port: 3306, name: tcp}], selector: {app: db}}}
---
{apiVersion: v1, kind: Service, metadata: {name: sec, namespace: default}, spec: {ports: [{port: 443, name: https}], selector: {app: db}}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: web-1, namespace: default}, spec: {address: 10.0.0.1, labels: {app: web, version: v1}, locality: eu/a/1, serviceAccount: web}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: web-2, namespace: default}, spec: {address: 10.0.0.2, labels: {app: web, version: v1}, locality: us/a/1, serviceAccount: web}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: web-3, namespace: default}, spec: {address: 10.0.0.3, labels: {app: web, version: v1}, locality: asia/a/1, serviceAccount: web}}
---
{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: gw, namespace: istio-system}, spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}, {port: {number: 443, name: tls, protocol: TLS}, hosts: ['*'], tls: {mode: PASSTHROUGH}}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: exposed, namespace: default}, spec: {hosts: [a.com], gateways: [default/x], http: [{route: [{destination: {host: web}}]}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: tcp, namespace: default}, spec: {hosts: ['*'], gateways: [default/x], tcp: [{route: [{destination: {host: db}}]}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: part, namespace: default}, spec: {http: [{route: [{destination: {host: web}}]}]}}
---
{apiVersion: v1, kind: Secret, metadata: {name: c, namespace: istio-system}, stringData: {tls.crt: c, tls.key: k, ca.crt: r}}
";

/// Where a DestinationRule has traffic policies.
const POLICIES: [&str; 4] = [
    "trafficPolicy",
    "trafficPolicy.portLevelSettings[0]",
    "subsets[0].trafficPolicy",
    "subsets[0].trafficPolicy.portLevelSettings[0]",
];
/// What the settings of a port do not have.
const NOT_OF_PORTS: [&str; 3] = ["proxyProtocol", "retryBudget", "tunnel"];

/// The value at a path, made if it is not there.
fn at<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(value, |value, step| {
        let (name, is_list) = match step.strip_suffix("[0]") {
            Some(name) => (name, true),
            None => (step, false),
        };
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        let value = value.as_object_mut().expect("an object").entry(name).or_insert(Value::Null);
        if !is_list {
            return value;
        }
        if !value.is_array() {
            *value = Value::Array(vec![Value::Null]);
        }
        &mut value.as_array_mut().expect("a list")[0]
    })
}

fn object(kind: &str, spec: &Value) -> Object {
    let group = if kind == "PeerAuthentication" { "security" } else { "networking" };
    fixture::objects(&format!(
        "{{apiVersion: {group}.istio.io/v1, kind: {kind}, metadata: {{name: x, namespace: default}}}}"
    ))
    .remove(0)
    .with("spec", spec.clone())
}

type Sent = Vec<BTreeMap<(ResourceType, String), String>>;

/// What proxies of every sort are sent in a mesh with this object.
fn sent(object: &Object) -> Option<Sent> {
    let mut mesh = Mesh(pilot::push::Discovery::new(pilot::model::PushContext::empty()));
    mesh.0.push(&changes(MESH));
    let mut change = pilot::model::objects::ChangeSet::default();
    change.upsert(object).ok()?;
    mesh.0.push(&change);
    let sidecar = |address, name, namespace| {
        let upstreams = "db.default:3306, sec.default:443";
        let node = NodeBuilder::sidecar(address, name, namespace).ours().at("eu", "a", "1");
        node.with("OUTRIGGER_UPSTREAMS", upstreams)
    };
    let clients = [
        mesh.0.connect(sidecar("10.0.0.1", "web-1", "default").proxy("web", &[("app", "web")])),
        mesh.0.connect(sidecar("10.0.1.1", "o-1", "other").proxy("o", &[("app", "o")])),
        mesh.gateway(),
    ];
    Some(clients.iter().map(|client| everything(client)).collect())
}

/// What an object says of itself: errors, warnings, and what has no effect.
fn told(object: &Object) -> Vec<String> {
    let info = resources::kinds::kind_of(object).expect("a known kind");
    let found = (info.check)(object);
    let mut told = found.errors;
    told.extend(found.warnings);
    told.extend(pilot::not_translated(object));
    told.iter().map(|finding| finding.path.to_string()).collect()
}

/// What is silent about a field, if it is.
fn silent(kind: &str, frame: &Value, path: &str, value: &Value) -> Option<String> {
    let with = {
        let mut spec = frame.clone();
        *at(&mut spec, path) = value.clone();
        object(kind, &spec)
    };
    let full = format!("spec.{path}");
    let names_it = |told: &String| {
        told.len() > "spec".len() && (full.starts_with(told) || told.starts_with(&full))
    };
    if told(&with).iter().any(names_it) {
        return None;
    }
    let before =
        sent(&object(kind, frame)).unwrap_or_else(|| panic!("{kind} {frame} is not valid"));
    match sent(&with) {
        Some(after) if after != before => None,
        Some(_) => Some(format!("{kind} {full}: {value} changes nothing and nobody is told")),
        None => {
            Some(format!("{kind} {full}: {value} is refused without its path: {:?}", told(&with)))
        }
    }
}

#[test]
fn no_field_is_silent() {
    let mut all_silent = Vec::new();
    let (mut kind, mut frame) = ("", Value::Null);
    for line in FIELDS.lines() {
        let Some(field) = line.strip_prefix("  ") else {
            let (name, yaml) = line.split_once(' ').expect("a kind and its frame");
            let text =
                format!("{{apiVersion: v1, kind: Frame, metadata: {{name: x}}, spec: {yaml}}}");
            let read = resources::yaml::load("frame.yaml", &text).expect("YAML").remove(0).object;
            (kind, frame) = (name, read.spec().cloned().unwrap_or_default());
            continue;
        };
        let (path, value) = field.split_once(' ').expect("a path and a value");
        let value: Value =
            serde_json::from_str(value).unwrap_or_else(|error| panic!("{line}: {error}"));
        if kind != "TrafficPolicy" {
            all_silent.extend(silent(kind, &frame, path, &value));
            continue;
        }
        for place in POLICIES {
            let of_port = place.ends_with("[0]") && place.contains("port");
            if of_port && NOT_OF_PORTS.iter().any(|name| path.starts_with(name)) {
                continue;
            }
            let mut rule = serde_json::json!({"host": "web", "subsets": [{"name": "v1", "labels": {"version": "v1"}}]});
            *at(&mut rule, place) = frame.clone();
            if of_port {
                *at(&mut rule, &format!("{place}.port.number")) = 80.into();
            }
            all_silent.extend(silent("DestinationRule", &rule, &format!("{place}.{path}"), &value));
        }
    }
    assert!(
        all_silent.is_empty(),
        "{} silent fields:\n{}",
        all_silent.len(),
        all_silent.join("\n")
    );
}
