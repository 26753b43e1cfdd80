//! The ingress gateway: a workload like any other, with the names and labels that Istio's has.

use std::ffi::OsString;

use apiserver::directory::ProxyEngine;
use resources::kinds::{key_of, kind_of};
use resources::object::Object;
use resources::store::{Operation, Patch, StoreError, Versioned, Write, WriteOptions};
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
    let labels = json!({
        "app": NAME,
        "istio": "ingressgateway",
        "service.istio.io/canonical-name": NAME,
        "service.istio.io/canonical-revision": "latest",
    });
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
