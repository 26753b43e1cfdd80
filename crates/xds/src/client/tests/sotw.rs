use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use api::envoy::config::cluster::v3::Cluster as ClusterMessage;
use api::envoy::config::core::v3::Node;
use api::envoy::service::discovery::v3::{DiscoveryResponse, Resource};
use api::google::protobuf::Any;
use prost::{Message, Name};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::client::{SotwClient, Update};
use crate::nack::Rejection;
use crate::resource_type::ResourceType::{self, *};
use crate::sotw::SotwServer;
use crate::{Resource as ServerResource, ResourceSource};

fn body(name: &str, content: &str) -> Vec<u8> {
    ClusterMessage { name: name.into(), alt_stat_name: content.into(), ..Default::default() }
        .encode_to_vec()
}

fn response(kind: ResourceType, nonce: &str, resources: &[(&str, &str)]) -> DiscoveryResponse {
    DiscoveryResponse {
        type_url: kind.type_url().into(),
        nonce: nonce.into(),
        version_info: format!("v{nonce}"),
        resources: resources
            .iter()
            .map(|(name, content)| Any {
                type_url: kind.type_url().into(),
                value: body(name, content),
            })
            .collect(),
        ..Default::default()
    }
}

/// Every request that is due, as text: `CDS [a,b] v1/1`, with `!` for a rejection.
fn say(client: &mut SotwClient) -> Vec<String> {
    std::iter::from_fn(|| client.poll_request())
        .map(|request| {
            let kind = ResourceType::from_type_url(&request.type_url).unwrap();
            let names = request.resource_names.join(",");
            let bang = if request.error_detail.is_some() { "!" } else { "" };
            format!("{kind} [{names}] {}/{}{bang}", request.version_info, request.response_nonce)
        })
        .collect()
}

fn connected() -> SotwClient {
    let mut client = SotwClient::new(Node::default());
    client.connected();
    client
}

fn names(update: &Update) -> (Vec<&str>, Vec<&str>) {
    let changed = update.changed.iter().map(|r| r.name.as_ref()).collect();
    (changed, update.removed.iter().map(|name| name.as_ref()).collect())
}

#[test]
fn only_what_changed_is_handed_on_and_only_where_all_was_asked_for_is_absence_removal() {
    let mut client = connected();
    client.subscribe_all(Cluster);
    client.subscribe(Endpoints, "a");
    assert_eq!(say(&mut client), ["CDS [] /", "EDS [a] /"]);
    let first = client.receive(response(Cluster, "1", &[("a", "1"), ("b", "1")])).unwrap();
    assert_eq!(names(&first), (vec!["a", "b"], vec![]));
    client.answer(&first.id, Vec::new());
    assert_eq!(say(&mut client), ["CDS [] v1/1"]);
    let second = client.receive(response(Cluster, "2", &[("b", "2"), ("c", "1")])).unwrap();
    assert_eq!(names(&second), (vec!["b", "c"], vec!["a"]));
    client.answer(&second.id, Vec::new());

    let endpoints =
        client.receive(response(Endpoints, "3", &[("a", "1"), ("stranger", "1")])).unwrap();
    assert_eq!(names(&endpoints), (vec!["a"], vec![]));
    client.answer(&endpoints.id, Vec::new());
    let none = client.receive(response(Endpoints, "4", &[])).unwrap();
    assert_eq!(names(&none), (vec![], vec![]));
}

#[test]
fn a_rejection_names_the_last_good_version_and_keeps_the_good_resources() {
    let mut client = connected();
    client.subscribe_all(Cluster);
    say(&mut client);
    let first = client.receive(response(Cluster, "1", &[("a", "1")])).unwrap();
    client.answer(&first.id, Vec::new());
    let second = client.receive(response(Cluster, "2", &[("a", "bad"), ("b", "1")])).unwrap();
    client.answer(&second.id, vec![Rejection { name: "a".into(), reason: "no".into() }]);
    assert_eq!(say(&mut client), ["CDS [] v1/2!"]);
    let third = client.receive(response(Cluster, "3", &[("a", "1"), ("b", "1")])).unwrap();
    assert_eq!(
        names(&third),
        (vec![], vec![]),
        "a is held as it was, b since the rejected response"
    );
}

#[test]
fn names_change_between_responses_and_never_answer_one_by_accident() {
    let mut client = connected();
    client.subscribe(Secret, "default");
    say(&mut client);
    let first = client.receive(response(Secret, "1", &[("default", "1")])).unwrap();
    client.subscribe(Secret, "ROOTCA");
    assert_eq!(say(&mut client), Vec::<String>::new(), "the response is being judged");
    client.answer(&first.id, Vec::new());
    assert_eq!(say(&mut client), ["SDS [ROOTCA,default] v1/1"], "the answer carries the names");
    client.unsubscribe(Secret, "default");
    assert_eq!(say(&mut client), ["SDS [ROOTCA] v1/1"]);
}

#[test]
fn a_new_stream_begins_with_what_is_held_and_no_nonce() {
    let mut client = connected();
    client.subscribe_all(Cluster);
    say(&mut client);
    let update = client.receive(response(Cluster, "1", &[("a", "1")])).unwrap();
    client.disconnected();
    client.connected();
    assert_eq!(say(&mut client), Vec::<String>::new(), "still being judged");
    client.answer(&update.id, Vec::new());
    assert_eq!(say(&mut client), ["CDS [] v1/"]);
    let again = client.receive(response(Cluster, "1", &[("a", "1")])).unwrap();
    assert_eq!(names(&again), (vec![], vec![]));
}

#[test]
fn a_wrapped_resource_is_named_by_its_wrapper() {
    let mut client = connected();
    client.subscribe(VirtualHost, "80/a");
    say(&mut client);
    let inner = Any { type_url: VirtualHost.type_url().into(), value: body("a", "1") };
    let wrapped =
        Resource { name: "80/a".into(), resource: Some(inner.clone()), ..Default::default() };
    let mut message = response(VirtualHost, "1", &[]);
    message.resources =
        vec![Any { type_url: Resource::type_url(), value: wrapped.encode_to_vec() }];
    let update = client.receive(message).unwrap();
    assert_eq!(update.changed[0].name.as_ref(), "80/a");
    assert_eq!(update.changed[0].body, Some(inner));
}

#[derive(Default)]
struct World(BTreeMap<(ResourceType, Arc<str>), String>);

impl ResourceSource for World {
    fn names(&mut self, kind: ResourceType) -> Vec<Arc<str>> {
        self.0.keys().filter(|(k, _)| *k == kind).map(|(_, name)| name.clone()).collect()
    }

    fn names_in(&mut self, _: ResourceType, _: &str) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn resource(&mut self, kind: ResourceType, name: &str) -> Option<ServerResource> {
        let content = self.0.get(&(kind, Arc::from(name)))?;
        Some(ServerResource::new(name, kind.type_url(), body(name, content)))
    }
}

/// Against our own server, through lost streams and late verdicts.
#[test]
fn client_and_server_always_converge() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = World::default();
        let mut client = SotwClient::new(Node::default());
        client.subscribe_all(Cluster);
        client.subscribe(Secret, "c0");
        let mut server: Option<SotwServer> = None;
        let mut unjudged: VecDeque<Update> = VecDeque::new();
        for step in 0..400 {
            let settling = step > 300;
            if rng.random_bool(0.05) && !settling {
                server = None;
                client.disconnected();
            } else if server.is_none() {
                server = Some(SotwServer::new());
                client.connected();
            }
            if !settling && rng.random_bool(0.3) {
                let kind = [Cluster, Secret][rng.random_range(0..2)];
                let key = (kind, Arc::from(format!("c{}", rng.random_range(0..3))));
                match rng.random_range(0..4) {
                    0 if kind == Cluster => drop(world.0.remove(&key)),
                    content => drop(world.0.insert(key, content.to_string())),
                }
                server.iter_mut().for_each(|server| server.changed(kind));
            }
            if let Some(server) = &mut server {
                while let Some(request) = client.poll_request() {
                    server.on_request(request).unwrap();
                }
                while let Some(response) = server.next_response(&mut world) {
                    let response =
                        DiscoveryResponse::decode(response.encode_to_vec().as_slice()).unwrap();
                    unjudged.push_back(client.receive(response).unwrap());
                }
            }
            if (settling || rng.random_bool(0.4))
                && let Some(update) = unjudged.pop_front()
            {
                client.answer(&update.id, Vec::new());
            }
        }
        let held = |kind: ResourceType| {
            client
                .held(kind)
                .map(|(name, version)| (name.clone(), *version))
                .collect::<BTreeMap<_, _>>()
        };
        let wanted = |world: &mut World, kind, all: bool| {
            let names = world.names(kind).into_iter().filter(|name| all || name.as_ref() == "c0");
            let names: Vec<_> = names.collect();
            names
                .into_iter()
                .map(|n| (n.clone(), world.resource(kind, &n).unwrap().version()))
                .collect::<BTreeMap<_, _>>()
        };
        assert_eq!(held(Cluster), wanted(&mut world, Cluster, true), "seed {seed}");
        assert_eq!(held(Secret), wanted(&mut world, Secret, false), "seed {seed}");
    }
}
