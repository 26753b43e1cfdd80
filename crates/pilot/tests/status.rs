//! Objects say how they fare: counted on the proxies that they concern, and written on the objects themselves.

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Mesh, NodeBuilder};
use pilot::discovery::origin::Origin;
use pilot::model::objects::Name;
use pilot::plane::Plane;
use pilot::proxy::Proxy;
use pilot::registration::Registrations;
use pilot::status::{ObjectStatus, objects};
use resources::kinds::networking::virtual_service::VirtualService;
use resources::kinds::{Kind, key_of, kind_of};
use resources::store::{Store, Versioned, WriteOptions};
use serde_json::Value;
use xds::{Rejection, ResourceType};

const RULE: &str = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: ratings, namespace: default}, spec: {hosts: [ratings], http: [{retries: {attempts: 2, retryRemoteLocalities: true}, route: [{destination: {host: ratings}}]}]}}";

const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: ratings, namespace: default}, spec: {ports: [{port: 9080, name: http}], selector: {app: ratings}}}";

fn reviews() -> Proxy {
    let node = NodeBuilder::sidecar("127.64.0.2", "reviews-1", "default").ours();
    node.proxy("bookinfo-reviews", &[("app", "reviews"), ("version", "v1")])
}

/// A plane whose keeper runs against a store.
struct Kept {
    plane: Arc<Plane>,
    store: Arc<dyn Store>,
}

impl Kept {
    fn start() -> Kept {
        let store: Arc<dyn Store> = Arc::new(Versioned::in_memory().expect("a store"));
        let registrations = Registrations::new(Arc::clone(&store), Duration::from_secs(1));
        let mut mesh = Mesh::bookinfo();
        mesh.apply(SERVICE);
        let plane = Plane::new(mesh.0, registrations);
        let (kept, keeping) =
            (Kept { plane: Arc::clone(&plane), store: Arc::clone(&store) }, store);
        tokio::spawn(async move { plane.keeper.run(&plane, &*keeping).await });
        kept
    }

    /// Writes an object to the store, and takes its stored form in.
    async fn write(&self, yaml: &str) {
        for object in fixture::objects(yaml) {
            let key = key_of(&object, kind_of(&object).expect("a known kind"));
            let stored = self.store.create(key, object, WriteOptions::by("test")).await;
            let mut changes = pilot::model::objects::ChangeSet::default();
            changes.upsert(&stored.expect("a write")).expect("a valid object");
            self.plane.push(changes);
        }
    }

    /// The status of the rule, once it holds.
    async fn until(&self, holds: impl Fn(&Value) -> bool) -> Value {
        let object = &fixture::objects(RULE)[0];
        let key = key_of(object, VirtualService::INFO);
        let waiting = async {
            loop {
                let status = self.store.get(&key).await.expect("the rule").status().cloned();
                if let Some(status) = status.filter(|status| holds(status)) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| {
            panic!("the status in time; latest {:?}", self.plane.keeper.latest())
        })
    }
}

fn condition<'a>(status: &'a Value, kind: &str) -> &'a Value {
    let conditions = status["conditions"].as_array().expect("conditions");
    conditions.iter().find(|one| one["type"] == kind).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn an_object_says_what_proxies_and_what_nobody_does() {
    let kept = Kept::start();
    let client = kept.plane.connect(reviews(), None).await;
    kept.write(RULE).await;
    let pending = kept.until(|status| condition(status, "Reconciled")["reason"] == "Pending").await;
    assert_eq!(
        condition(&pending, "Reconciled")["message"],
        "Programmed on 0 of 1 proxies",
        "told, and not answered"
    );
    let warning =
        "spec.http[0].retries.retryRemoteLocalities: is not translated yet and has no effect";
    assert_eq!(condition(&pending, "Translated")["message"], warning);
    assert_eq!(pending["validationMessages"][0]["level"], "WARNING");
    assert_eq!(pending["validationMessages"][0]["message"], warning);
    assert_eq!(pending["observedGeneration"], 1);

    client.note_answered(client.told());
    kept.plane.keeper.answered();
    let done = kept.until(|status| condition(status, "Reconciled")["status"] == "True").await;
    assert_eq!(condition(&done, "Reconciled")["message"], "Programmed on 1 of 1 proxies");

    let rejection = Rejection {
        name: "http_proxy/ratings.default.svc.cluster.local:9080".into(),
        reason: "routes[0]: no".to_owned(),
    };
    kept.plane.board.rejected(client.id, ResourceType::VirtualHost, &[rejection]);
    kept.plane.keeper.proxies_changed();
    let refused = kept.until(|status| condition(status, "Reconciled")["status"] == "False").await;
    let said = condition(&refused, "Reconciled");
    assert_eq!(said["reason"], "Rejected");
    assert_eq!(
        said["message"],
        "Programmed on 0 of 1 proxies; reviews-1.default rejected VHDS http_proxy/ratings.default.svc.cluster.local:9080: routes[0]: no"
    );
}

/// How an object fares in a mesh that nobody has answered anything of.
fn of(mesh: &Mesh, kind: &'static str, namespace: &str, name: &str) -> ObjectStatus {
    let origin = Origin { kind, name: Name::new(namespace, name) };
    objects::status(&mesh.0, &Default::default(), &origin, 0).expect("the object")
}

#[test]
fn a_gateway_without_its_secret_says_so() {
    const GATEWAY: &str = "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g, namespace: default}, spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: shop}}]}}";
    let secret = |namespace: &str| {
        format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: shop, namespace: {namespace}}}, type: kubernetes.io/tls, data: {{tls.crt: Yw==, tls.key: aw==}}}}"
        )
    };
    let mut mesh = Mesh::bookinfo();
    let gateway = mesh.gateway();
    mesh.apply(GATEWAY);
    // Another namespace's is not for it.
    mesh.apply(&secret("default"));
    let lacking = of(&mesh, "Gateway", "default", "g");
    assert_eq!((lacking.proxies, lacking.programmed), (1, 0));
    assert_eq!(
        lacking.warnings,
        [
            "spec.servers[0].tls.credentialName: there is no Secret istio-system/shop with a certificate and a key; until there is, this server is not in effect"
        ]
    );
    mesh.apply(&secret("istio-system"));
    assert!(of(&mesh, "Gateway", "default", "g").warnings.is_empty());

    // One that is no certificate is refused by the gateway, and the Gateway that names it says so.
    let board = pilot::status::board::StatusBoard::default();
    let rejection = Rejection { name: "kubernetes://shop".into(), reason: "no PEM".to_owned() };
    board.connected(gateway.id, &gateway.proxy, None);
    board.rejected(gateway.id, ResourceType::Secret, &[rejection]);
    let origin = Origin { kind: "Gateway", name: Name::new("default", "g") };
    let refused = objects::status(&mesh.0, &board, &origin, 0).expect("the Gateway");
    assert_eq!(refused.rejections[0].resource, "SDS kubernetes://shop");
}

#[test]
fn an_object_counts_the_proxies_that_it_concerns() {
    let mut mesh = Mesh::bookinfo();
    mesh.apply(SERVICE);
    let (_gateway, _reviews) = (mesh.gateway(), mesh.reviews());
    mesh.apply(RULE);
    mesh.apply(
        "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g, namespace: default}, spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: edge, namespace: default}, spec: {hosts: ['*'], gateways: [g], http: [{match: [{uri: {prefix: /r}}], delegate: {name: inner}}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: inner, namespace: default}, spec: {http: [{route: [{destination: {host: ratings}}]}]}}
---
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: lost, namespace: default}, spec: {hosts: [nowhere.test], exportTo: ['~'], http: [{delegate: {name: missing}}]}}
---
{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: strict, namespace: default}, spec: {selector: {matchLabels: {app: reviews}}, mtls: {mode: STRICT}}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: ratings-tls, namespace: default}, spec: {host: ratings, trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true}}}}}",
    );
    let proxies = |kind, name| of(&mesh, kind, "default", name).proxies;
    assert_eq!(proxies("VirtualService", "ratings"), 1, "the sidecar's");
    assert_eq!(proxies("Gateway", "g"), 1, "the gateway's");
    assert_eq!(proxies("VirtualService", "edge"), 1, "the gateway's");
    assert_eq!(proxies("VirtualService", "inner"), 1, "a delegate where its root is");
    assert_eq!(proxies("PeerAuthentication", "strict"), 1, "the workload that it selects");
    assert_eq!(proxies("DestinationRule", "ratings-tls"), 2, "every client of the service");
    assert_eq!(proxies("VirtualService", "lost"), 0);
    let lost = of(&mesh, "VirtualService", "default", "lost");
    assert_eq!(
        lost.warnings,
        [
            "spec.http[0].delegate: there is no VirtualService default/missing: the route is left out"
        ]
    );
    let hashed = of(&mesh, "DestinationRule", "default", "ratings-tls");
    assert!(hashed.warnings[0].contains("consistentHash"), "{:?}", hashed.warnings);
}
