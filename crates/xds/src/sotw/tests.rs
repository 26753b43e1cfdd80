use std::collections::BTreeMap;

use api::google::rpc::Status;

use super::*;
use crate::resource_type::ResourceType::*;

#[derive(Default)]
struct Secrets(BTreeMap<String, String>);

impl ResourceSource for Secrets {
    fn names(&mut self, _: ResourceType) -> Vec<Arc<str>> {
        self.0.keys().map(|name| Arc::from(name.as_str())).collect()
    }

    fn names_in(&mut self, _: ResourceType, _: &str) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn resource(&mut self, kind: ResourceType, name: &str) -> Option<Resource> {
        let content = self.0.get(name)?.clone();
        Some(Resource::new(name, kind.type_url(), content.into_bytes()))
    }
}

fn request(kind: ResourceType, names: &[&str], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        type_url: kind.type_url().into(),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        response_nonce: nonce.into(),
        ..Default::default()
    }
}

#[test]
fn a_secret_is_sent_when_it_is_there_and_again_when_it_changes() {
    let (mut server, mut secrets) = (SotwServer::new(), Secrets::default());
    server.on_request(request(Secret, &["default"], "")).unwrap();
    assert_eq!(server.next_response(&mut secrets), None, "nothing yet");
    secrets.0.insert("default".into(), "1".into());
    server.changed(Secret);
    let first = server.next_response(&mut secrets).unwrap();
    assert_eq!(first.resources.len(), 1);
    secrets.0.insert("default".into(), "2".into());
    server.changed(Secret);
    assert_eq!(server.next_response(&mut secrets), None, "the first is unanswered");
    let answered = server.on_request(request(Secret, &["default"], &first.nonce)).unwrap();
    assert_eq!(answered, SotwOutcome::Accepted(Secret));
    let second = server.next_response(&mut secrets).unwrap();
    assert_ne!(second.version_info, first.version_info);
    server.on_request(request(Secret, &["default"], &second.nonce)).unwrap();
    server.changed(Secret);
    assert_eq!(server.next_response(&mut secrets), None, "nothing changed");
}

#[test]
fn answers_to_older_responses_are_ignored_with_all_that_is_in_them() {
    let (mut server, mut secrets) = (SotwServer::new(), Secrets::default());
    secrets.0.insert("a".into(), "1".into());
    secrets.0.insert("b".into(), "1".into());
    // Left over from the client's last stream: it still begins this one.
    server.on_request(request(Secret, &["a"], "99")).unwrap();
    let first = server.next_response(&mut secrets).unwrap();
    server.on_request(request(Secret, &["a", "b"], &first.nonce)).unwrap();
    let second = server.next_response(&mut secrets).unwrap();
    assert_eq!(second.resources.len(), 2);
    let stale = server.on_request(request(Secret, &["a"], &first.nonce)).unwrap();
    assert_eq!(stale, SotwOutcome::Stale(Secret));
    assert_eq!(server.next_response(&mut secrets), None);
}

#[test]
fn a_refused_set_is_withheld_until_it_changes() {
    let (mut server, mut secrets) = (SotwServer::new(), Secrets::default());
    secrets.0.insert("a".into(), "1".into());
    server.on_request(request(Secret, &["a"], "")).unwrap();
    let first = server.next_response(&mut secrets).unwrap();
    let mut refusal = request(Secret, &["a"], &first.nonce);
    refusal.error_detail = Some(Status { message: "no key".into(), ..Default::default() });
    let outcome = server.on_request(refusal).unwrap();
    assert_eq!(outcome, SotwOutcome::Rejected(Secret, "no key".into()));
    server.changed(Secret);
    assert_eq!(server.next_response(&mut secrets), None);
    secrets.0.insert("a".into(), "2".into());
    server.changed(Secret);
    assert!(server.next_response(&mut secrets).is_some());
}

#[test]
fn a_route_is_told_after_the_clusters_that_it_may_lead_to() {
    let (mut server, mut world) = (SotwServer::new(), Secrets::default());
    world.0.insert("a".into(), "1".into());
    server.on_request(request(Cluster, &[], "")).unwrap();
    server.on_request(request(RouteConfiguration, &["a"], "")).unwrap();
    let clusters = server.next_response(&mut world).unwrap();
    assert_eq!(clusters.type_url, Cluster.type_url());
    assert_eq!(server.next_response(&mut world), None, "the clusters are unanswered");
    server.on_request(request(Cluster, &[], &clusters.nonce)).unwrap();
    let routes = server.next_response(&mut world).unwrap();
    assert_eq!(routes.type_url, RouteConfiguration.type_url());
    assert!(!server.is_settled());
    let mut refusal = request(RouteConfiguration, &["a"], &routes.nonce);
    refusal.error_detail = Some(Status { message: "a: no".into(), ..Default::default() });
    server.on_request(refusal).unwrap();
    assert!(server.is_settled());
    assert_eq!(server.is_type_synced(RouteConfiguration), Some(false));
    assert_eq!(server.rejections(RouteConfiguration)[0].name.as_ref(), "a");
    assert_eq!(server.is_type_synced(Listener), None, "never asked for");
}

#[test]
fn no_names_means_everything_for_clusters_and_nothing_for_secrets() {
    let mut world = Secrets::default();
    world.0.insert("a".into(), "1".into());
    let mut server = SotwServer::new();
    server.on_request(request(Secret, &[], "")).unwrap();
    assert_eq!(server.next_response(&mut world), None);
    server.on_request(request(Cluster, &[], "")).unwrap();
    assert_eq!(server.next_response(&mut world).unwrap().resources.len(), 1);
}
