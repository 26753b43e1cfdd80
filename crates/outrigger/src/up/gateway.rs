//! The ingress gateway: a workload like any other, with the names and labels that Istio's has.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;

use apiserver::directory::ProxyEngine;
use resources::kinds::networking::gateway::{Gateway, Server};
use resources::kinds::{Kind, key_of, kind_of};
use resources::object::{Object, ObjectKey};
use resources::selector::has_all;
use resources::store::{Operation, Patch, StoreError, Versioned, Write, WriteOptions};
use resources::terms::port::Protocol;
use serde_json::json;

use super::GatewayOptions;
use super::plan::Spec;

/// Name of its Service and WorkloadGroup.
pub const NAME: &str = "istio-ingressgateway";
const SERVICE_ACCOUNT: &str = "istio-ingressgateway-service-account";
/// Ports on which it listens: its Service's 80 and 443.
pub const GATEWAY_PORTS: [u16; 2] = [8080, 8443];
const MANAGER: &str = "outrigger-up";

/// Makes what a mesh has before anybody wrote anything: its namespaces, and the gateway's objects.
pub async fn make_objects(
    store: &Versioned,
    root_namespace: &str,
    with_gateway: bool,
) -> Result<(), StoreError> {
    let mut objects = vec![
        Object::new("v1", "Namespace", "", "default"),
        Object::new("v1", "Namespace", "", root_namespace),
    ];
    if with_gateway {
        objects.extend(gateway_objects(root_namespace));
    }
    let write = |object: Object| {
        let info = kind_of(&object).ok()?;
        Some(Write {
            key: key_of(&object, info),
            operation: Operation::Patch(Patch::Apply { object, force: false }),
            options: WriteOptions::by(MANAGER),
        })
    };
    for result in store.write_all(objects.into_iter().filter_map(write).collect()).await? {
        match result {
            // Somebody wrote their own: theirs counts.
            Ok(_) | Err(StoreError::ManagerConflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn gateway_objects(namespace: &str) -> [Object; 3] {
    let labels = labels();
    let account = Object::new("v1", "ServiceAccount", namespace, SERVICE_ACCOUNT);
    let service = Object::new("v1", "Service", namespace, NAME).with(
        "spec",
        json!({
            "type": "LoadBalancer",
            "selector": {"app": NAME, "istio": "ingressgateway"},
            "ports": [
                {"name": "http", "port": 80, "targetPort": GATEWAY_PORTS[0]},
                {"name": "https", "port": 443, "targetPort": GATEWAY_PORTS[1]},
            ],
        }),
    );
    let group = Object::new("networking.istio.io/v1", "WorkloadGroup", namespace, NAME).with(
        "spec",
        json!({
            "metadata": {"labels": labels},
            "template": {
                "labels": labels,
                "serviceAccount": SERVICE_ACCOUNT,
                "ports": {"http": GATEWAY_PORTS[0], "https": GATEWAY_PORTS[1]},
            },
        }),
    );
    [account, service, group]
}

/// URLs at which the gateway serves what the Gateways that select it say. `tcp:` and `tls:` are what is not HTTP.
pub fn urls(store: &Versioned, options: Option<&GatewayOptions>) -> Vec<String> {
    let Some(options) = options else { return Vec::new() };
    let of_kind = |(key, _): &(ObjectKey, Arc<Object>)| key.collection == Gateway::INFO.collection;
    let gateways = store.objects().into_iter().filter(of_kind);
    let views = gateways.filter_map(|(_, object)| Some(Gateway::parse(&object).ok()?.view));
    let labels = labels();
    let ours = views.filter(|gateway| has_all(&labels, &gateway.selector));
    let mut places: Vec<(u16, &str)> =
        ours.flat_map(|gateway| gateway.servers).filter_map(|server| place(&server)).collect();
    places.sort_unstable();
    places.dedup();
    let url = |(port, scheme)| format!("{scheme}://{}", SocketAddr::new(options.address, port));
    places.into_iter().map(url).collect()
}

/// The port that a server binds, and the scheme of what it serves there; none if it binds an address of its own.
fn place(server: &Server) -> Option<(u16, &'static str)> {
    let port = match server.port.number {
        80 => GATEWAY_PORTS[0],
        443 => GATEWAY_PORTS[1],
        number => number,
    };
    let scheme = match server.port.protocol {
        Protocol::Https => "https",
        Protocol::Tls => "tls",
        protocol if protocol.is_tcp() => "tcp",
        _ => "http",
    };
    server.bind.is_none().then_some((port, scheme))
}

fn labels() -> BTreeMap<String, String> {
    let pairs = [
        ("app", NAME),
        ("istio", "ingressgateway"),
        ("service.istio.io/canonical-name", NAME),
        ("service.istio.io/canonical-revision", "latest"),
    ];
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// How the gateway is run.
pub fn spec(options: &GatewayOptions, root_namespace: &str) -> Spec {
    let mut arguments: Vec<OsString> =
        ["--gateway", "--gateway-address"].into_iter().map(OsString::from).collect();
    arguments.push(options.address.to_string().into());
    Spec {
        name: "gateway".to_owned(),
        namespace: root_namespace.to_owned(),
        group: NAME.to_owned(),
        instance: "0".to_owned(),
        service_account: SERVICE_ACCOUNT.to_owned(),
        ports: GATEWAY_PORTS.to_vec(),
        envoy: options.proxy == ProxyEngine::Envoy,
        arguments,
        command: Vec::new(),
        env: Default::default(),
        is_gateway: true,
    }
}
