use api::envoy::config::core::v3::Node;
use api::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use api::google::protobuf::Any;

use crate::client::{ClientError, DeltaClient};
use crate::nack::Rejection;
use crate::resource_type::ResourceType::{self, *};

fn node() -> Node {
    Node {
        id: "sidecar~127.64.0.1~reviews.default~default.svc.cluster.local".into(),
        ..Default::default()
    }
}

fn connected() -> DeltaClient {
    let mut client = DeltaClient::new(node());
    client.connected();
    client
}

fn response(
    kind: ResourceType,
    nonce: &str,
    resources: &[(&str, &str)],
    removed: &[&str],
) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        type_url: kind.type_url().into(),
        nonce: nonce.into(),
        resources: resources
            .iter()
            .map(|(name, version)| Resource {
                name: (*name).into(),
                version: (*version).into(),
                resource: Some(Any::default()),
                ..Default::default()
            })
            .collect(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

/// Every request that is due, as text: `CDS sub[a,b] unsub[c] ack 1`.
fn say(client: &mut DeltaClient) -> Vec<String> {
    std::iter::from_fn(|| client.poll_request())
        .map(|request| {
            let mut text = ResourceType::from_type_url(&request.type_url).unwrap().to_string();
            if request.response_nonce.is_empty() {
                text += &format!(" sub[{}]", request.resource_names_subscribe.join(","));
                if !request.resource_names_unsubscribe.is_empty() {
                    text += &format!(" unsub[{}]", request.resource_names_unsubscribe.join(","));
                }
            } else {
                let verb = if request.error_detail.is_some() { "nack" } else { "ack" };
                text += &format!(" {verb} {}", request.response_nonce);
            }
            let mut held: Vec<_> = request.initial_resource_versions.into_iter().collect();
            held.sort();
            for (name, version) in held {
                text += &format!(" {name}@{version}");
            }
            text
        })
        .collect()
}

#[test]
fn a_stream_begins_in_the_order_of_the_types_and_names_its_node_once() {
    let mut client = DeltaClient::new(node());
    client.subscribe_all(Listener);
    client.subscribe_all(Cluster);
    client.subscribe(Endpoints, "a");
    assert_eq!(client.poll_request(), None, "there is no stream");
    client.connected();
    let first = client.poll_request().unwrap();
    assert_eq!((first.type_url.as_str(), first.node), (Cluster.type_url(), Some(node())));
    assert_eq!(client.poll_request().unwrap().node, None);
    assert_eq!(say(&mut client), ["LDS sub[]"]);
}

#[test]
fn subscriptions_are_said_before_the_answer_that_caused_them() {
    let mut client = connected();
    client.subscribe_all(Cluster);
    say(&mut client);
    let update = client.receive(response(Cluster, "1", &[("a", "v1")], &[])).unwrap();
    client.answer(&update.id, Vec::new());
    client.subscribe(Endpoints, "a");
    assert_eq!(say(&mut client), ["EDS sub[a]", "CDS ack 1"]);
}

#[test]
fn changes_of_mind_before_anything_is_said_cancel_out() {
    let mut client = connected();
    client.subscribe(Endpoints, "a");
    say(&mut client);
    client.subscribe(Endpoints, "b");
    client.unsubscribe(Endpoints, "b");
    assert_eq!(say(&mut client), Vec::<String>::new());
    client.unsubscribe(Endpoints, "a");
    client.subscribe(Endpoints, "a");
    assert_eq!(say(&mut client), ["EDS sub[a]"], "what was forgotten is asked for again");
    client.unsubscribe(Endpoints, "a");
    client.subscribe(Endpoints, "b");
    assert_eq!(say(&mut client), ["EDS sub[b] unsub[a]"]);
}

#[test]
fn good_resources_are_held_and_rejected_ones_keep_their_last_version() {
    let mut client = connected();
    client.subscribe_all(Cluster);
    say(&mut client);
    let first = client.receive(response(Cluster, "1", &[("a", "v1"), ("b", "v1")], &[])).unwrap();
    client.answer(&first.id, Vec::new());
    let second = client.receive(response(Cluster, "2", &[("a", "v2"), ("b", "v2")], &[])).unwrap();
    client.answer(
        &second.id,
        vec![Rejection { name: "b".into(), reason: "lb_policy: unknown".into() }],
    );
    assert_eq!(client.poll_request().unwrap().error_detail, None);
    let nack = client.poll_request().unwrap();
    assert_eq!(nack.error_detail.unwrap().message, "b: lb_policy: unknown");
    client.connected();
    assert_eq!(say(&mut client), ["CDS sub[] a@v2 b@v1"]);
}

#[test]
fn a_late_answer_counts_and_is_not_said_on_another_stream() {
    let mut client = connected();
    client.subscribe_all(Cluster);
    say(&mut client);
    let update = client.receive(response(Cluster, "1", &[("a", "v1")], &[])).unwrap();
    client.disconnected();
    client.answer(&update.id, Vec::new());
    client.connected();
    assert_eq!(say(&mut client), ["CDS sub[] a@v1"]);

    let update = client.receive(response(Cluster, "1", &[("a", "v2")], &[])).unwrap();
    client.disconnected();
    client.connected();
    assert_eq!(
        say(&mut client),
        Vec::<String>::new(),
        "the server must hear of what is being applied"
    );
    client.answer(&update.id, Vec::new());
    assert_eq!(say(&mut client), ["CDS sub[] a@v2"]);
}

#[test]
fn what_was_unsubscribed_is_not_applied_and_not_held() {
    let mut client = connected();
    client.subscribe(Endpoints, "a");
    client.subscribe(Endpoints, "b");
    say(&mut client);
    let pending = client.receive(response(Endpoints, "1", &[("a", "v1")], &[])).unwrap();
    client.unsubscribe(Endpoints, "a");
    client.subscribe(Endpoints, "a");
    client.answer(&pending.id, Vec::new());
    assert_eq!(client.held(Endpoints).count(), 0, "subscribed anew, to be sent anew");

    client.unsubscribe(Endpoints, "a");
    let update =
        client.receive(response(Endpoints, "2", &[("a", "v1"), ("b", "v1")], &["a"])).unwrap();
    assert_eq!(update.changed.iter().map(|r| r.name.as_ref()).collect::<Vec<_>>(), ["b"]);
    assert!(update.removed.is_empty());
}

#[test]
fn virtual_hosts_belong_to_the_route_configuration_that_was_subscribed() {
    let mut client = connected();
    client.subscribe(VirtualHost, "80");
    say(&mut client);
    let hosts = [("80/a", "v1"), ("80/b", "v1"), ("8080/a", "v1")];
    let update = client.receive(response(VirtualHost, "1", &hosts, &[])).unwrap();
    assert_eq!(update.changed.len(), 2);
    client.answer(&update.id, Vec::new());
    client.connected();
    assert_eq!(say(&mut client), ["VHDS sub[80] 80/a@v1 80/b@v1"]);
    client.unsubscribe(VirtualHost, "80");
    assert_eq!(client.held(VirtualHost).count(), 0);
}

#[test]
fn a_name_that_comes_twice_counts_once() {
    let mut client = connected();
    client.subscribe_all(Cluster);
    say(&mut client);
    let update = client.receive(response(Cluster, "1", &[("a", "v1"), ("a", "v2")], &[])).unwrap();
    assert_eq!(update.changed.iter().map(|r| r.version.as_str()).collect::<Vec<_>>(), ["v2"]);
}

#[test]
fn a_server_that_breaks_the_protocol_is_refused() {
    let mut client = connected();
    client.subscribe_all(Cluster);
    let early = client.receive(response(Cluster, "1", &[], &[]));
    assert!(
        matches!(early, Err(ClientError::NotSubscribed(_))),
        "nothing was asked on this stream"
    );
    say(&mut client);
    assert!(matches!(
        client.receive(response(Listener, "1", &[], &[])),
        Err(ClientError::NotSubscribed(_))
    ));
    assert_eq!(client.receive(response(Cluster, "", &[], &[])), Err(ClientError::NoNonce(Cluster)));
    client.disconnected();
    assert_eq!(client.receive(response(Cluster, "1", &[], &[])), Err(ClientError::NotConnected));
}

#[test]
fn everything_and_names_together_need_the_asterisk() {
    let mut client = DeltaClient::new(node());
    client.subscribe(Cluster, "a");
    client.subscribe_all(Cluster);
    client.connected();
    assert_eq!(say(&mut client), ["CDS sub[*,a]"]);
    let mut client = connected();
    client.subscribe(Cluster, "a");
    say(&mut client);
    client.subscribe_all(Cluster);
    assert_eq!(say(&mut client), ["CDS sub[*]"]);
}
