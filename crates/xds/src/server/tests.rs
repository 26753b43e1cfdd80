use std::collections::{BTreeMap, HashMap};

use api::google::rpc::Status;

use super::*;
use crate::resource_type::ResourceType::*;

/// Everything a proxy may see, as a map.
#[derive(Default)]
struct World {
    resources: BTreeMap<(ResourceType, String), Resource>,
    lookups: usize,
}

impl World {
    fn put(&mut self, kind: ResourceType, name: &str, content: &str) {
        let resource = Resource::new(name, kind.type_url(), content.as_bytes().to_vec());
        self.resources.insert((kind, name.to_owned()), resource);
    }

    fn delete(&mut self, kind: ResourceType, name: &str) {
        self.resources.remove(&(kind, name.to_owned()));
    }
}

impl ResourceSource for World {
    fn names(&mut self, kind: ResourceType) -> Vec<Arc<str>> {
        self.resources
            .iter()
            .filter(|((k, _), _)| *k == kind)
            .map(|(_, r)| r.name().clone())
            .collect()
    }

    fn names_in(&mut self, kind: ResourceType, collection: &str) -> Vec<Arc<str>> {
        let prefix = format!("{collection}/");
        self.names(kind).into_iter().filter(|name| name.starts_with(&prefix)).collect()
    }

    fn resource(&mut self, kind: ResourceType, name: &str) -> Option<Resource> {
        self.lookups += 1;
        self.resources.get(&(kind, name.to_owned())).cloned()
    }
}

/// A stream with its world, driven by hand.
#[derive(Default)]
struct Fixture {
    world: World,
    server: DeltaServer,
}

impl Fixture {
    fn ask(&mut self, kind: ResourceType, names: &[&str]) -> RequestOutcome {
        self.server.on_request(subscribe(kind, names)).unwrap()
    }

    fn change(&mut self, kind: ResourceType, name: &str, content: &str) {
        self.world.put(kind, name, content);
        self.server.changed(kind, &Arc::from(name));
    }

    fn remove(&mut self, kind: ResourceType, name: &str) {
        self.world.delete(kind, name);
        self.server.changed(kind, &Arc::from(name));
    }

    fn next(&mut self) -> Option<DeltaResponse> {
        self.server.next_response(&mut self.world)
    }

    /// The next response as text: `CDS +a +b -c`.
    fn say(&mut self) -> String {
        match self.next() {
            None => String::new(),
            Some(response) => {
                let text = describe(&response);
                self.acknowledge(&response);
                text
            }
        }
    }

    fn say_all(&mut self) -> Vec<String> {
        std::iter::from_fn(|| Some(self.say()).filter(|text| !text.is_empty())).collect()
    }

    fn acknowledge(&mut self, response: &DeltaResponse) -> RequestOutcome {
        self.server.on_request(answer(response, None)).unwrap()
    }

    fn reject(&mut self, response: &DeltaResponse, names: &[&str]) -> RequestOutcome {
        let rejections: Vec<Rejection> = names
            .iter()
            .map(|name| Rejection { name: Arc::from(*name), reason: "bad".into() })
            .collect();
        self.server.on_request(answer(response, Some(nack::to_status(&rejections)))).unwrap()
    }
}

fn subscribe(kind: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().into(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

fn unsubscribe(kind: ResourceType, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().into(),
        resource_names_unsubscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

fn answer(response: &DeltaResponse, error_detail: Option<Status>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.type_url.clone(),
        response_nonce: response.nonce.clone(),
        error_detail,
        ..Default::default()
    }
}

fn describe(response: &DeltaResponse) -> String {
    use api::envoy::service::discovery::v3::Resource as Decoded;
    use prost::Message;
    let mut text = ResourceType::from_type_url(&response.type_url).unwrap().to_string();
    for wire in &response.resources {
        text += &format!(" +{}", Decoded::decode(wire.clone()).unwrap().name);
    }
    for name in &response.removed_resources {
        text += &format!(" -{name}");
    }
    text
}

#[test]
fn a_response_is_what_any_client_of_the_protocol_decodes() {
    use api::envoy::service::discovery::v3::DeltaDiscoveryResponse;
    use prost::Message;
    let mut fixture = Fixture::default();
    fixture.world.put(Cluster, "a", "content");
    fixture.ask(Cluster, &[]);
    let response = fixture.next().unwrap();
    let decoded = DeltaDiscoveryResponse::decode(response.encode_to_vec().as_slice()).unwrap();
    assert_eq!(decoded.type_url, Cluster.type_url());
    assert_eq!(decoded.nonce, response.nonce);
    let resource = &decoded.resources[0];
    assert_eq!(resource.name, "a");
    assert_eq!(resource.version, Version::of(b"content").to_string());
    let any = resource.resource.as_ref().unwrap();
    assert_eq!(
        (any.type_url.as_str(), any.value.as_slice()),
        (Cluster.type_url(), &b"content"[..])
    );
    let shared = fixture.world.resource(Cluster, "a").unwrap().any();
    assert_eq!(api::google::protobuf::Any::decode(shared).unwrap(), *any);
}

#[test]
fn additions_go_clusters_first_and_wait_for_acknowledgement() {
    let mut fixture = Fixture::default();
    for kind in [Listener, Cluster] {
        fixture.world.put(kind, "x", "1");
        fixture.ask(kind, &[]);
    }
    let clusters = fixture.next().unwrap();
    assert_eq!(describe(&clusters), "CDS +x");
    assert_eq!(fixture.next(), None, "listeners wait for the answer about clusters");
    // The client wants the cluster's endpoints before it answers.
    fixture.ask(Endpoints, &["x"]);
    fixture.world.put(Endpoints, "x", "1");
    fixture.acknowledge(&clusters);
    assert_eq!(fixture.say_all(), ["EDS +x", "LDS +x"]);
    assert!(fixture.server.is_synced());
}

/// Endpoints are asked for while clusters are still unanswered: neither may wait for the other.
#[test]
fn endpoints_do_not_wait_for_the_answer_about_clusters() {
    let mut fixture = Fixture::default();
    fixture.world.put(Cluster, "x", "1");
    fixture.world.put(Endpoints, "x", "1");
    fixture.ask(Cluster, &[]);
    let _unanswered = fixture.next().unwrap();
    fixture.ask(Endpoints, &["x"]);
    assert_eq!(fixture.say(), "EDS +x");
}

#[test]
fn the_first_request_is_answered_even_with_nothing() {
    let mut fixture = Fixture::default();
    fixture.ask(Cluster, &[]);
    assert_eq!(fixture.say(), "CDS");
    assert_eq!(fixture.say(), "");
}

#[test]
fn changes_meanwhile_are_one_message_with_the_newest_state() {
    let mut fixture = Fixture::default();
    fixture.world.put(Cluster, "a", "1");
    fixture.ask(Cluster, &[]);
    let first = fixture.next().unwrap();
    for version in 2..100 {
        fixture.change(Cluster, "a", &version.to_string());
        fixture.change(Cluster, "b", &version.to_string());
        assert_eq!(fixture.next(), None, "one response is unanswered");
    }
    fixture.acknowledge(&first);
    assert_eq!(fixture.say(), "CDS +a +b");
    assert_eq!(fixture.server.held(Cluster, "a"), Some(Version::of(b"99")));
}

#[test]
fn what_did_not_change_is_not_sent() {
    let mut fixture = Fixture::default();
    fixture.world.put(Cluster, "a", "1");
    fixture.ask(Cluster, &[]);
    fixture.say();
    fixture.change(Cluster, "a", "1");
    fixture.server.changed_all(Cluster);
    assert_eq!(fixture.say(), "");
}

#[test]
fn a_change_that_a_client_does_not_want_costs_it_nothing() {
    let mut fixture = Fixture::default();
    fixture.ask(Endpoints, &["mine"]);
    fixture.say_all();
    fixture.world.lookups = 0;
    fixture.change(Endpoints, "other", "1");
    fixture.change(Cluster, "never asked", "1");
    assert_eq!(fixture.say(), "");
    assert_eq!(fixture.world.lookups, 0);
}

#[test]
fn a_name_that_does_not_exist_is_said_to_be_absent_once() {
    let mut fixture = Fixture::default();
    fixture.ask(Endpoints, &["a"]);
    assert_eq!(fixture.say(), "EDS -a");
    fixture.server.changed_all(Endpoints);
    assert_eq!(fixture.say(), "");
    fixture.change(Endpoints, "a", "1");
    assert_eq!(fixture.say(), "EDS +a");
}

/// Which requests count as answers. Subscriptions in them count always.
#[test]
fn nonce_rules() {
    enum Expect {
        Accepted,
        Rejected,
        Ignored,
    }
    let status = || Some(Status { code: 3, message: "a: no".into(), details: Vec::new() });
    let table: [(&str, &str, Option<Status>, Expect); 6] = [
        ("the nonce of the unanswered response", "2", None, Expect::Accepted),
        ("the same with an error", "2", status(), Expect::Rejected),
        ("an older nonce", "1", None, Expect::Ignored),
        ("an older nonce with an error", "1", status(), Expect::Ignored),
        ("a nonce from another stream", "77", status(), Expect::Ignored),
        ("no nonce, with an error", "", status(), Expect::Ignored),
    ];
    for (case, nonce, error_detail, expect) in table {
        let mut fixture = Fixture::default();
        fixture.world.put(Cluster, "a", "1");
        fixture.ask(Cluster, &[]);
        assert_eq!(fixture.say(), "CDS +a");
        fixture.change(Cluster, "a", "2");
        assert_eq!(fixture.next().unwrap().nonce, "2", "{case}");
        let request = DeltaDiscoveryRequest {
            type_url: Cluster.type_url().into(),
            response_nonce: nonce.into(),
            error_detail,
            resource_names_subscribe: vec!["b".into()],
            ..Default::default()
        };
        let outcome = fixture.server.on_request(request).unwrap();
        let held = fixture.server.held(Cluster, "a").unwrap();
        match expect {
            Expect::Accepted => {
                assert!(matches!(outcome, RequestOutcome::Accepted(_)), "{case}");
                assert_eq!(held, Version::of(b"2"), "{case}");
            }
            Expect::Rejected => {
                let RequestOutcome::Rejected(answered, rejections) = outcome else {
                    panic!("{case}")
                };
                assert_eq!(answered.accepted, [], "{case}");
                assert_eq!(rejections[0].name.as_ref(), "a", "{case}");
                assert_eq!(held, Version::of(b"1"), "{case}");
            }
            Expect::Ignored => {
                assert_eq!(outcome, RequestOutcome::Subscribed(Cluster), "{case}");
                assert_eq!(fixture.next(), None, "{case}: still unanswered");
            }
        }
        assert!(fixture.server.wants(Cluster, "b"), "{case}");
    }
}

#[test]
fn a_nonce_answers_once() {
    let mut fixture = Fixture::default();
    fixture.ask(Cluster, &[]);
    let response = fixture.next().unwrap();
    assert!(matches!(fixture.acknowledge(&response), RequestOutcome::Accepted(_)));
    assert_eq!(fixture.acknowledge(&response), RequestOutcome::Subscribed(Cluster));
}

#[test]
fn rejected_bytes_are_withheld_until_they_change_and_the_good_ones_stand() {
    let mut fixture = Fixture::default();
    fixture.world.put(Cluster, "good", "1");
    fixture.world.put(Cluster, "bad", "1");
    fixture.ask(Cluster, &[]);
    let response = fixture.next().unwrap();
    let RequestOutcome::Rejected(answered, rejections) = fixture.reject(&response, &["bad"]) else {
        panic!("a NACK is a rejection")
    };
    assert_eq!(answered.accepted, [(Arc::from("good"), Version::of(b"1"))]);
    assert_eq!(rejections[0].reason, "bad");
    assert_eq!((fixture.server.rejected_count(Cluster), fixture.server.is_synced()), (1, false));

    fixture.server.changed_all(Cluster);
    assert_eq!(fixture.say(), "", "the same bytes are not sent again");
    fixture.change(Cluster, "bad", "2");
    assert_eq!(fixture.say(), "CDS +bad");
    assert!(fixture.server.is_synced());
    // Back to what was refused: not for the life of this stream.
    fixture.change(Cluster, "bad", "1");
    assert_eq!(fixture.say(), "");
    assert_eq!(fixture.server.rejected_count(Cluster), 1);
    assert_eq!(fixture.server.held(Cluster, "bad"), Some(Version::of(b"2")));
}

#[test]
fn going_back_to_what_the_client_holds_heals_a_rejection_without_a_message() {
    let mut fixture = Fixture::default();
    fixture.world.put(Listener, "l", "1");
    fixture.ask(Listener, &[]);
    fixture.say();
    fixture.change(Listener, "l", "broken");
    let response = fixture.next().unwrap();
    fixture.reject(&response, &["l"]);
    fixture.change(Listener, "l", "1");
    assert_eq!(fixture.say(), "");
    assert!(fixture.server.is_synced());
}

#[test]
fn a_cluster_goes_only_after_the_route_that_used_it() {
    let mut fixture = Fixture::default();
    for (kind, name) in [(Cluster, "old"), (Listener, "l"), (RouteConfiguration, "80")] {
        fixture.world.put(kind, name, "1");
    }
    fixture.ask(Cluster, &[]);
    fixture.ask(Listener, &[]);
    fixture.ask(RouteConfiguration, &["80"]);
    fixture.say_all();

    fixture.remove(Cluster, "old");
    fixture.change(Cluster, "new", "1");
    fixture.change(RouteConfiguration, "80", "to new");
    assert_eq!(fixture.say(), "CDS +new");
    let routes = fixture.next().unwrap();
    assert_eq!(describe(&routes), "RDS +80");
    assert_eq!(fixture.next(), None, "the old cluster stays while the route is unanswered");
    fixture.acknowledge(&routes);
    assert_eq!(fixture.say(), "CDS -old");
}

#[test]
fn a_cluster_stays_while_the_route_that_left_it_is_rejected() {
    let mut fixture = Fixture::default();
    fixture.world.put(Cluster, "old", "1");
    fixture.world.put(RouteConfiguration, "80", "to old");
    fixture.ask(Cluster, &[]);
    fixture.ask(RouteConfiguration, &["80"]);
    fixture.say_all();

    fixture.remove(Cluster, "old");
    fixture.change(RouteConfiguration, "80", "nonsense");
    let routes = fixture.next().unwrap();
    assert_eq!(describe(&routes), "RDS +80");
    fixture.reject(&routes, &["80"]);
    assert_eq!(fixture.say(), "", "the proxy still routes to the old cluster");
    fixture.change(RouteConfiguration, "80", "to nowhere");
    assert_eq!(fixture.say_all(), ["RDS +80", "CDS -old"]);
}

#[test]
fn a_removal_that_is_taken_back_is_never_sent() {
    let mut fixture = Fixture::default();
    fixture.world.put(Cluster, "a", "1");
    fixture.ask(Cluster, &[]);
    fixture.ask(Listener, &[]);
    fixture.say_all();
    fixture.change(Listener, "l", "1");
    let listeners = fixture.next().unwrap();
    fixture.remove(Cluster, "a");
    assert_eq!(fixture.next(), None);
    fixture.change(Cluster, "a", "1");
    fixture.acknowledge(&listeners);
    assert_eq!(fixture.say(), "");
    assert!(fixture.server.is_synced());
}

#[test]
fn a_route_configurations_name_yields_its_virtual_hosts() {
    let mut fixture = Fixture::default();
    for name in ["80/a", "80/b", "8080/c"] {
        fixture.world.put(VirtualHost, name, "1");
    }
    fixture.ask(VirtualHost, &["80"]);
    assert_eq!(fixture.say(), "VHDS +80/a +80/b");
    fixture.change(VirtualHost, "80/new", "1");
    fixture.change(VirtualHost, "8080/c", "2");
    assert_eq!(
        fixture.say(),
        "VHDS +80/new",
        "and one that comes later, and none of another table"
    );
    fixture.remove(VirtualHost, "80/a");
    assert_eq!(fixture.say(), "VHDS -80/a");
    fixture.server.on_request(unsubscribe(VirtualHost, &["80"])).unwrap();
    fixture.change(VirtualHost, "80/b", "2");
    assert_eq!(fixture.say(), "");
    assert_eq!(fixture.server.held_count(VirtualHost), 0);
}

#[test]
fn an_empty_route_configuration_says_so_once() {
    let mut fixture = Fixture::default();
    fixture.ask(VirtualHost, &["80"]);
    assert_eq!(fixture.say(), "VHDS -80");
    fixture.server.changed_all(VirtualHost);
    assert_eq!(fixture.say(), "");
    fixture.change(VirtualHost, "80/a", "1");
    assert_eq!(fixture.say(), "VHDS +80/a");
}

#[test]
fn a_single_virtual_host_can_be_asked_for_too() {
    let mut fixture = Fixture::default();
    fixture.world.put(VirtualHost, "80/a", "1");
    fixture.world.put(VirtualHost, "80/b", "1");
    fixture.ask(VirtualHost, &["80/a"]);
    assert_eq!(fixture.say(), "VHDS +80/a");
}

#[test]
fn a_client_that_comes_back_gets_only_the_difference() {
    let mut fixture = Fixture::default();
    for (name, content) in [("same", "1"), ("changed", "2"), ("new", "1")] {
        fixture.world.put(Cluster, name, content);
    }
    let mut request = subscribe(Cluster, &[]);
    let version = |content: &str| Version::of(content.as_bytes()).to_string();
    request.initial_resource_versions = HashMap::from([
        ("same".to_owned(), version("1")),
        ("changed".to_owned(), version("1")),
        ("gone".to_owned(), version("1")),
    ]);
    fixture.server.on_request(request).unwrap();
    fixture.ask(Listener, &[]);
    assert_eq!(fixture.say_all(), ["CDS +changed +new", "LDS", "CDS -gone"]);
    assert_eq!(fixture.server.held_count(Cluster), 3);
}

/// The cluster is gone from the mesh, but the client may still route to it: its routes are not known yet.
#[test]
fn nothing_is_removed_before_the_client_has_introduced_everything() {
    let mut fixture = Fixture::default();
    fixture.world.put(RouteConfiguration, "80", "to nowhere");
    let mut clusters = subscribe(Cluster, &[]);
    clusters.initial_resource_versions = HashMap::from([("old".to_owned(), "v".to_owned())]);
    fixture.server.on_request(clusters).unwrap();
    let first = fixture.next().unwrap();
    assert_eq!(describe(&first), "CDS");
    let mut routes = subscribe(RouteConfiguration, &["80"]);
    routes.initial_resource_versions = HashMap::from([("80".to_owned(), "v".to_owned())]);
    fixture.server.on_request(routes).unwrap();
    fixture.acknowledge(&first);
    assert_eq!(fixture.say_all(), ["RDS +80", "CDS -old"]);
}

#[test]
fn another_control_planes_versions_mean_that_something_is_held() {
    let mut fixture = Fixture::default();
    fixture.world.put(Endpoints, "a", "1");
    let mut request = subscribe(Endpoints, &["a", "b"]);
    let foreign = |name: &str| (name.to_owned(), "2024-11-21T10:00:00Z/17".to_owned());
    request.initial_resource_versions = HashMap::from([foreign("a"), foreign("b")]);
    fixture.server.on_request(request).unwrap();
    assert_eq!(fixture.say_all(), ["EDS +a", "EDS -b"]);
}

#[test]
fn asking_again_is_answered_again() {
    let mut fixture = Fixture::default();
    fixture.world.put(Endpoints, "a", "1");
    fixture.ask(Endpoints, &["a"]);
    assert_eq!(fixture.say(), "EDS +a");
    fixture.ask(Endpoints, &["a"]);
    assert_eq!(fixture.say(), "EDS +a", "Envoy asks again when it has made a cluster anew");
    fixture.server.on_request(unsubscribe(Endpoints, &["a"])).unwrap();
    fixture.ask(Endpoints, &["a"]);
    assert_eq!(fixture.say(), "EDS +a");
    assert_eq!(fixture.say(), "");
}

/// The client has forgotten what is on its way, and waits for it anew.
#[test]
fn what_is_asked_for_again_while_on_its_way_is_sent_again() {
    let mut fixture = Fixture::default();
    fixture.world.put(Endpoints, "a", "1");
    fixture.ask(Endpoints, &["a"]);
    let on_its_way = fixture.next().unwrap();
    fixture.server.on_request(unsubscribe(Endpoints, &["a"])).unwrap();
    fixture.ask(Endpoints, &["a"]);
    fixture.acknowledge(&on_its_way);
    assert_eq!(fixture.say(), "EDS +a");
}

/// Envoy makes the cluster anew, waits for its endpoints, and does not ask for them again.
#[test]
fn a_changed_cluster_brings_its_endpoints_again() {
    let mut fixture = Fixture::default();
    for name in ["a", "b"] {
        fixture.world.put(Cluster, name, "1");
        fixture.world.put(Endpoints, name, "1");
    }
    fixture.ask(Cluster, &[]);
    fixture.ask(Endpoints, &["a", "b"]);
    fixture.say_all();
    fixture.change(Cluster, "a", "2");
    assert_eq!(fixture.say_all(), ["CDS +a", "EDS +a"]);
    assert!(fixture.server.is_synced());
}

#[test]
fn unsubscribing_is_forgetting() {
    let mut fixture = Fixture::default();
    fixture.world.put(Endpoints, "a", "1");
    fixture.ask(Endpoints, &["a"]);
    let response = fixture.next().unwrap();
    fixture.server.on_request(unsubscribe(Endpoints, &["a"])).unwrap();
    fixture.acknowledge(&response);
    assert_eq!(fixture.server.held(Endpoints, "a"), None);
    fixture.change(Endpoints, "a", "2");
    assert_eq!(fixture.say(), "");
    assert!(fixture.server.is_synced());
}

#[test]
fn a_rejection_that_is_given_up_no_longer_holds_clusters() {
    let mut fixture = Fixture::default();
    fixture.world.put(Cluster, "a", "1");
    fixture.world.put(RouteConfiguration, "80", "bad");
    fixture.ask(Cluster, &[]);
    fixture.say();
    fixture.ask(RouteConfiguration, &["80"]);
    let routes = fixture.next().unwrap();
    fixture.reject(&routes, &["80"]);
    fixture.remove(Cluster, "a");
    assert_eq!(fixture.say(), "");
    fixture.server.on_request(unsubscribe(RouteConfiguration, &["80"])).unwrap();
    assert_eq!(fixture.say(), "CDS -a");
}

#[test]
fn the_asterisk_and_names_stand_side_by_side() {
    let mut fixture = Fixture::default();
    fixture.world.put(Cluster, "a", "1");
    fixture.ask(Cluster, &["*", "named"]);
    assert_eq!(fixture.say(), "CDS +a -named");
    fixture.server.on_request(unsubscribe(Cluster, &["*"])).unwrap();
    fixture.change(Cluster, "a", "2");
    fixture.change(Cluster, "named", "1");
    assert_eq!(fixture.say(), "CDS +named");
}

#[test]
fn nonsense_ends_the_stream() {
    let mut server = DeltaServer::new();
    let unknown = DeltaDiscoveryRequest { type_url: "x".into(), ..Default::default() };
    assert_eq!(server.on_request(unknown), Err(RequestError::UnknownType("x".into())));
    let mut flood = subscribe(Endpoints, &[]);
    flood.resource_names_subscribe = (0..=MAX_NAMES).map(|n| n.to_string()).collect();
    assert!(matches!(server.on_request(flood), Err(RequestError::TooManyNames { .. })));
}
