//! A change costs what it touches: counts of translations, and of resources that are sent.

mod fixture;

use std::fmt::Write;

use fixture::{Mesh, everything};
use xds::ResourceType::{Cluster, Endpoints, VirtualHost};
use xds::{DeltaServer, ResourceType};

/// So many services, each with a VirtualService of two weights, two subsets and two instances.
fn services(count: usize) -> String {
    let mut yaml = String::new();
    for n in 0..count {
        let _ = write!(
            yaml,
            "---
{{apiVersion: v1, kind: Service, metadata: {{name: s{n}, namespace: default}}, spec: {{ports: [{{port: 80, name: http}}], selector: {{app: s{n}}}}}}}
---
{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: s{n}, namespace: default}}, spec: {{host: s{n}, subsets: [{{name: v1, labels: {{version: v1}}}}, {{name: v2, labels: {{version: v2}}}}]}}}}
{}{}{}",
            virtual_service(n, 92),
            entry(n, 1),
            entry(n, 2),
        );
    }
    yaml
}

fn virtual_service(n: usize, weight: u32) -> String {
    format!(
        "---
{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: s{n}, namespace: default}}, spec: {{hosts: [s{n}], http: [{{route: [{{destination: {{host: s{n}, subset: v1}}, weight: {weight}}}, {{destination: {{host: s{n}, subset: v2}}, weight: {}}}]}}]}}}}
",
        100 - weight
    )
}

fn entry(n: usize, version: usize) -> String {
    format!(
        "---
{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: s{n}-v{version}, namespace: default}}, spec: {{address: 10.{}.{}.{version}, labels: {{app: s{n}, version: v{version}}}, serviceAccount: s{n}}}}}
",
        n / 250,
        n % 250
    )
}

/// A stream that has everything, and what a change makes it send.
struct Follower {
    client: std::sync::Arc<pilot::push::Client>,
    server: DeltaServer,
}

impl Follower {
    fn of(client: std::sync::Arc<pilot::push::Client>) -> Follower {
        let mut follower = Follower { client, server: DeltaServer::new() };
        for (kind, names) in [
            (Cluster, Vec::new()),
            (ResourceType::Listener, Vec::new()),
            (VirtualHost, vec!["http_proxy".to_owned()]),
        ] {
            follower.subscribe(kind, names);
        }
        let clusters = fixture::names(&follower.client, Endpoints);
        follower.subscribe(Endpoints, clusters);
        follower.drain();
        assert!(follower.server.is_synced());
        follower
    }

    fn subscribe(&mut self, kind: ResourceType, names: Vec<String>) {
        let request = api::envoy::service::discovery::v3::DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: names,
            ..Default::default()
        };
        self.server.on_request(request).expect("a request of the protocol");
    }

    /// Everything that is sent now, acknowledged: type, number of resources, number of removals.
    fn drain(&mut self) -> Vec<(ResourceType, usize, usize)> {
        let mut sent = Vec::new();
        while let Some(response) = self.server.next_response(&mut pilot::push::Source(&self.client))
        {
            let kind = ResourceType::from_type_url(&response.type_url).expect("a known type");
            sent.push((kind, response.resources.len(), response.removed_resources.len()));
            let ack = api::envoy::service::discovery::v3::DeltaDiscoveryRequest {
                type_url: response.type_url,
                response_nonce: response.nonce,
                ..Default::default()
            };
            self.server.on_request(ack).expect("an acknowledgement");
        }
        sent
    }

    /// What was sent because of what changed since.
    fn follow(&mut self) -> Vec<(ResourceType, usize, usize)> {
        let dirty = self.client.take_dirty();
        assert!(!dirty.everything, "only names should be dirty");
        for kind in ResourceType::ALL {
            for name in dirty.names[kind as usize].iter().flat_map(|list| list.iter()) {
                self.server.changed(kind, name);
            }
        }
        self.drain()
    }
}

/// A mesh of 20 services, two proxies that see it alike, and one elsewhere.
fn mesh() -> (Mesh, Vec<Follower>) {
    let mut mesh = Mesh::of(&services(20));
    let clients = [
        ("127.64.0.1", "a", "default"),
        ("127.64.0.2", "b", "default"),
        ("127.64.0.3", "c", "other"),
    ];
    let followers = clients.map(|(address, name, namespace)| {
        let node = fixture::NodeBuilder::sidecar(address, name, namespace).ours();
        Follower::of(mesh.0.connect(node.proxy("x", &[("app", name)])))
    });
    (mesh, followers.into_iter().collect())
}

#[test]
fn proxies_that_see_the_same_share_what_they_see() {
    let (mesh, _followers) = mesh();
    assert_eq!(mesh.0.view_count(), 2);
}

#[test]
fn one_weight_costs_one_virtual_host_for_each_view() {
    let (mut mesh, mut followers) = mesh();
    let report = mesh.apply(&virtual_service(7, 50));
    // Short names depend on the namespace, so each of the two views has a virtual host of its own.
    assert_eq!((report.translations, report.changed, report.proxies), (2, 2, 3), "{report:?}");
    for follower in &mut followers {
        assert_eq!(follower.follow(), [(VirtualHost, 1, 0)]);
    }
}

#[test]
fn the_same_again_costs_nothing() {
    let (mut mesh, mut followers) = mesh();
    let report = mesh.apply(&virtual_service(7, 92));
    assert_eq!((report.translations, report.changed, report.proxies), (0, 0, 0), "{report:?}");
    for follower in &mut followers {
        assert_eq!(follower.follow(), []);
    }
}

#[test]
fn one_endpoint_costs_the_load_assignments_that_have_it() {
    let (mut mesh, mut followers) = mesh();
    let moved = entry(3, 1).replace("10.0.3.1", "10.9.9.9");
    let report = mesh.apply(&moved);
    // The whole service and subset v1, shared by both views; subset v2 has another instance: its bytes do not change.
    assert_eq!(report.translations, 3, "{report:?}");
    for follower in &mut followers {
        assert_eq!(follower.follow(), [(Endpoints, 2, 0)]);
    }
}

#[test]
fn one_subset_costs_its_clusters_and_endpoints() {
    let (mut mesh, mut followers) = mesh();
    mesh.apply("{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: s5, namespace: default}, spec: {host: s5, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}, {name: v3, labels: {version: v3}}]}}");
    let sent = followers[0].follow();
    // The rule's path in metadata is as before; only the third subset's cluster is new.
    assert_eq!(
        sent.iter().map(|(kind, added, _)| (*kind, *added)).collect::<Vec<_>>(),
        [(Cluster, 1)]
    );
}

#[test]
fn a_service_that_goes_takes_only_its_own_with_it() {
    let (mut mesh, mut followers) = mesh();
    let before = everything(&followers[0].client);
    let mut changes = fixture::changes("");
    for object in fixture::objects(
        "{apiVersion: v1, kind: Service, metadata: {name: s9, namespace: default}, spec: {ports: [{port: 80}]}}",
    ) {
        let info = resources::kinds::kind_of(&object).expect("a Service");
        changes.delete(&resources::kinds::key_of(&object, info));
    }
    mesh.0.push(&changes);
    let after = everything(&followers[0].client);
    let gone: Vec<&String> =
        before.keys().filter(|key| !after.contains_key(key)).map(|(_, name)| name).collect();
    assert!(gone.iter().all(|name| name.contains("s9.default")), "{gone:?}");
    assert_eq!(gone.len(), 6, "three clusters and their load assignments: {gone:?}");
    let removed: usize = followers[0].follow().iter().map(|(_, _, removed)| removed).sum();
    assert!(removed >= 6, "{removed}");
}
