//! After any sequence of writes, what was kept up to date equals what is made from nothing, for every proxy, and every
//! stream holds exactly that.

mod fixture;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, Resource as WireResource};
use fixture::{NodeBuilder, everything};
use pilot::model::PushContext;
use pilot::model::objects::{ChangeSet, Objects};
use pilot::proxy::Proxy;
use pilot::push::{Client, Discovery, Source};
use prost::Message;
use resources::object::Object;
use xds::{DeltaServer, ResourceType};

/// A small generator: the same seed gives the same run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len() as u64) as usize]
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const NAMESPACES: [&str; 3] = ["one", "two", "istio-system"];

/// A write of some object, in one of a few forms.
fn write(random: &mut Random) -> String {
    let (name, namespace) = (random.pick(&NAMES), random.pick(&NAMESPACES));
    let other = random.pick(&NAMES);
    let metadata = format!(
        "metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: \"2026-01-01T00:00:0{}Z\"}}",
        random.below(3)
    );
    let istio = "apiVersion: networking.istio.io/v1";
    match random.below(13) {
        0 | 1 => {
            let port = random.pick(&[
                "{port: 80, name: http}",
                "{port: 80, name: http, targetPort: 8080}",
                "{port: 9000, name: tcp}",
                "{port: 80}",
                "{port: 80, name: http, targetPort: web}",
            ]);
            let export = random.pick(&["", ", annotations: {networking.istio.io/exportTo: \".\"}"]);
            let metadata = metadata.trim_end_matches('}');
            format!(
                "{{apiVersion: v1, kind: Service, {metadata}{export}}}, spec: {{ports: [{port}], selector: {{app: {other}}}}}}}"
            )
        }
        2 | 3 => {
            let weight = random.below(100);
            let host = random.pick(&[other, "*.one.svc.cluster.local", "*.example.com"]);
            let gateways = random.pick(&[
                "",
                "gateways: [mesh, istio-system/gw], ",
                "gateways: [istio-system/gw], ",
            ]);
            let matched = random.pick(&[
                "",
                "match: [{uri: {prefix: /x}}], ",
                "match: [{sourceLabels: {app: a}}], ",
                "match: [{sourceNamespace: two}], ",
            ]);
            let export =
                random.pick(&["", "exportTo: [\".\"], ", "exportTo: [istio-system, two], "]);
            format!(
                "{{{istio}, kind: VirtualService, {metadata}, spec: {{hosts: ['{host}'], {gateways}{export}http: [{{{matched}route: [{{destination: {{host: {other}}}, weight: {weight}}}, {{destination: {{host: {name}.one.svc.cluster.local, subset: v1}}, weight: 5}}]}}]}}}}"
            )
        }
        4 => {
            let policy = random.pick(&[
                "",
                "trafficPolicy: {tls: {mode: DISABLE}}, ",
                "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}}, ",
                "trafficPolicy: {tls: {mode: SIMPLE, credentialName: a}}, ",
                "trafficPolicy: {connectionPool: {tcp: {idleTimeout: 9s}}}, ",
            ]);
            let export = random.pick(&["", "exportTo: [\".\"], "]);
            let host = random.pick(&["a", "b", "*.one.svc.cluster.local", "*.local"]);
            format!(
                "{{{istio}, kind: DestinationRule, {metadata}, spec: {{host: '{host}', {export}{policy}subsets: [{{name: v1, labels: {{version: v1}}}}]}}}}"
            )
        }
        5 | 6 => {
            let version = random.pick(&["v1", "v2"]);
            let account = random.pick(&["x", "y"]);
            let address = random.below(9) + 1;
            format!(
                "{{{istio}, kind: WorkloadEntry, {metadata}, spec: {{address: 127.64.0.{address}, labels: {{app: {other}, version: {version}}}, ports: {{http: {}}}, serviceAccount: {account}}}}}",
                7000 + random.below(3)
            )
        }
        7 => {
            let mode = random.pick(&["STRICT", "DISABLE", "PERMISSIVE", "UNSET"]);
            let selector = random.pick(&[
                "",
                "selector: {matchLabels: {app: a}}, ",
                "selector: {matchLabels: {app: a}}, portLevelMtls: {\"7001\": {mode: DISABLE}}, ",
            ]);
            format!(
                "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, {metadata}, spec: {{{selector}mtls: {{mode: {mode}}}}}}}"
            )
        }
        8 => {
            let selector = random.pick(&["", "workloadSelector: {labels: {app: a}}, "]);
            let hosts = random.pick(&["[\"./*\"]", "[\"one/*\", \"two/*\"]", "[\"*/*\"]"]);
            let port = random.pick(&["", "port: {number: 80, protocol: HTTP, name: http}, "]);
            let selector = if namespace == "istio-system" { "" } else { selector };
            format!(
                "{{{istio}, kind: Sidecar, {metadata}, spec: {{{selector}egress: [{{{port}hosts: {hosts}}}]}}}}"
            )
        }
        9 => {
            let (named, within) = (random.pick(&NAMES), random.pick(&NAMESPACES));
            let spec = match random.below(2) {
                0 => format!(
                    "hosts: [{other}], http: [{{match: [{{uri: {{prefix: /x}}}}], delegate: {{name: {named}, namespace: {within}}}}}]"
                ),
                _ => format!("http: [{{route: [{{destination: {{host: {other}}}}}]}}]"),
            };
            format!("{{{istio}, kind: VirtualService, {metadata}, spec: {{{spec}}}}}")
        }
        10 => format!(
            "{{apiVersion: v1, kind: Secret, {metadata}, data: {{tls.crt: {}, tls.key: a2V5}}}}",
            random.pick(&["Y2VydA==", "b3RoZXI="])
        ),
        11 => {
            let text = random.pick(&[
                "{}",
                "{enableAutoMtls: false}",
                "{defaultHttpRetryPolicy: {attempts: 1}}",
                "{defaultVirtualServiceExportTo: [\\\".\\\"]}",
            ]);
            format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio, namespace: istio-system}}, data: {{mesh: \"{text}\"}}}}"
            )
        }
        _ => {
            let port = random.pick(&[
                "{number: 80, name: http, protocol: HTTP}",
                "{number: 8080, name: http, protocol: HTTP}",
            ]);
            let hosts = random.pick(&["[\"*\"]", "[\"one/*\"]", "[\"*.one.svc.cluster.local\"]"]);
            format!(
                "{{{istio}, kind: Gateway, metadata: {{name: gw, namespace: istio-system}}, spec: {{selector: {{app: gw}}, servers: [{{port: {port}, hosts: {hosts}}}]}}}}"
            )
        }
    }
}

/// What a client has after all that was sent to it.
struct Stream {
    client: Arc<Client>,
    server: DeltaServer,
    held: BTreeMap<(ResourceType, String), String>,
}

impl Stream {
    fn of(client: Arc<Client>) -> Stream {
        let mut stream = Stream { client, server: DeltaServer::new(), held: BTreeMap::new() };
        for kind in ResourceType::ALL {
            // Everything, also what clients name one by one: a wildcard is the strictest check.
            let request = DeltaDiscoveryRequest {
                type_url: kind.type_url().to_owned(),
                resource_names_subscribe: vec!["*".to_owned()],
                ..Default::default()
            };
            stream.server.on_request(request).expect("a request of the protocol");
        }
        stream
    }

    fn catch_up(&mut self) {
        let dirty = self.client.take_dirty();
        for kind in ResourceType::ALL {
            if dirty.everything {
                self.server.changed_all(kind);
            }
            for name in dirty.names[kind as usize].iter().flat_map(|list| list.iter()) {
                self.server.changed(kind, name);
            }
        }
        while let Some(response) = self.server.next_response(&mut Source(&self.client)) {
            let kind = ResourceType::from_type_url(&response.type_url).expect("a known type");
            for bytes in &response.resources {
                let resource = WireResource::decode(bytes.clone()).expect("a resource");
                self.held.insert((kind, resource.name), resource.version);
            }
            for name in response.removed_resources {
                self.held.remove(&(kind, name));
            }
            let ack = DeltaDiscoveryRequest {
                type_url: response.type_url,
                response_nonce: response.nonce,
                ..Default::default()
            };
            self.server.on_request(ack).expect("an acknowledgement");
        }
    }
}

fn proxies() -> Vec<Proxy> {
    let sidecar =
        |address: &str, name: &str, namespace: &str| NodeBuilder::sidecar(address, name, namespace);
    vec![
        sidecar("127.64.0.1", "p", "one")
            .ours()
            .with("OUTRIGGER_UPSTREAMS", "a:9000")
            .proxy("x", &[("app", "a"), ("version", "v1")]),
        sidecar("127.64.0.2", "q", "one").ours().proxy("x", &[("app", "b")]),
        sidecar("127.64.0.3", "r", "two").proxy("y", &[("app", "a")]),
        NodeBuilder::router("127.64.0.9", "gw", "istio-system")
            .ours()
            .proxy("gw", &[("app", "gw")]),
        NodeBuilder::router("127.64.0.8", "gw", "istio-system").proxy("gw", &[("app", "gw")]),
    ]
}

fn run(seed: u64, steps: usize) {
    let mut random = Random(seed);
    let mut kept = Discovery::new(PushContext::empty());
    let mut streams: Vec<Stream> =
        proxies().into_iter().map(|proxy| Stream::of(kept.connect(proxy))).collect();
    let mut objects = Objects::default();
    let mut written: Vec<Object> = Vec::new();
    for step in 0..steps {
        let mut changes = ChangeSet::default();
        for _ in 0..=random.below(3) {
            if random.below(4) == 0 && !written.is_empty() {
                let index = random.below(written.len() as u64) as usize;
                let object = written.swap_remove(index);
                let info = resources::kinds::kind_of(&object).expect("a known kind");
                changes.delete(&resources::kinds::key_of(&object, info));
            } else {
                let yaml = write(&mut random);
                for object in fixture::objects(&yaml) {
                    changes.upsert(&object).unwrap_or_else(|errors| panic!("{yaml}: {errors}"));
                    written.push(object);
                }
            }
        }
        objects.apply(&changes);
        kept.push(&changes);

        let mut fresh = Discovery::new(PushContext::empty());
        fresh.push(&ChangeSet::all(&objects));
        for stream in &mut streams {
            let expected = everything(&fresh.connect(stream.client.proxy.clone()));
            let found = everything(&stream.client);
            assert_same(
                &expected,
                &found,
                &format!("seed {seed} step {step}: kept view of {}", stream.client.proxy.id),
            );
            stream.catch_up();
            assert_same(
                &expected,
                &stream.held,
                &format!("seed {seed} step {step}: stream of {}", stream.client.proxy.id),
            );
        }
    }
}

fn assert_same(
    expected: &BTreeMap<(ResourceType, String), String>,
    found: &BTreeMap<(ResourceType, String), String>,
    what: &str,
) {
    for (key, version) in expected {
        assert_eq!(found.get(key), Some(version), "{what}: {key:?}");
    }
    for key in found.keys() {
        assert!(expected.contains_key(key), "{what}: {key:?} should be gone");
    }
}

#[test]
fn what_is_kept_equals_what_is_made_from_nothing() {
    for seed in 0..20 {
        run(seed, 30);
    }
}

/// By hand: `cargo test -p pilot --release --test seeded -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn the_same_for_many_more_seeds() {
    for seed in 1_000..3_000 {
        run(seed, 60);
    }
}
