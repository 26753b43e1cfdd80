//! Istio's own bookinfo and the six seed documents, unmodified: taken whole, and they do what they say.
//!
//! Skips with a notice where the inputs are not beside the project.

#![allow(clippy::print_stderr, reason = "a skipped test says so")]

mod fixture;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fixture::{Mesh, NodeBuilder, json, names};
use pilot::model::objects::ChangeSet;
use pilot::push::Client;
use serde_json::Value;
use xds::ResourceType::{Cluster, VirtualHost};

fn inputs() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/inputs");
    if !path.is_dir() {
        eprintln!("skipped: no inputs at {}", path.display());
        return None;
    }
    Some(path)
}

/// The objects of a file, but for kinds that nothing here reads; each must be valid.
fn file(path: &Path) -> ChangeSet {
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut changes = ChangeSet::default();
    for object in fixture::objects(&text) {
        if resources::kinds::kind_of(&object).is_ok() {
            changes.upsert(&object).unwrap_or_else(|errors| panic!("{}: {errors}", path.display()));
        }
    }
    changes
}

fn mesh(bookinfo: &Path, more: &[&str]) -> (Mesh, Arc<Client>) {
    let mut mesh = Mesh::of("");
    for name in
        ["platform/bookinfo.yaml", "networking/destination-rule-all.yaml"].iter().chain(more)
    {
        mesh.0.push(&file(&bookinfo.join(name)));
    }
    let node = NodeBuilder::sidecar("127.64.0.1", "productpage-1", "default").ours();
    let client = mesh.0.connect(node.proxy("bookinfo-productpage", &[("app", "productpage")]));
    (mesh, client)
}

/// Where the routes of reviews lead: cluster subsets, with weights where there are several.
fn reviews_routes(client: &Client) -> Vec<String> {
    let host = json(client, VirtualHost, "http_proxy/reviews.default.svc.cluster.local:9080");
    let subset = |cluster: &Value| {
        cluster.as_str().and_then(|name| name.split('|').nth(2)).unwrap_or_default().to_owned()
    };
    let routes = host["routes"].as_array().expect("routes");
    let leads = |route: &Value| match route["route"]["weighted_clusters"]["clusters"].as_array() {
        Some(several) => {
            let each =
                several.iter().map(|one| format!("{}={}", subset(&one["name"]), one["weight"]));
            each.collect::<Vec<_>>().join(",")
        }
        None => subset(&route["route"]["cluster"]),
    };
    routes.iter().filter(|route| route["name"] != "tunnel").map(leads).collect()
}

#[test]
fn every_reviews_virtual_service_does_what_it_says() {
    let Some(inputs) = inputs() else { return };
    let bookinfo = inputs.join("istio/bookinfo");
    for (name, expected) in [
        ("virtual-service-all-v1", vec!["v1"]),
        ("virtual-service-reviews-test-v2", vec!["v2", "v1"]),
        ("virtual-service-reviews-50-v3", vec!["v1=50,v3=50"]),
        ("virtual-service-reviews-80-20", vec!["v1=80,v2=20"]),
        ("virtual-service-reviews-90-10", vec!["v1=90,v2=10"]),
        ("virtual-service-reviews-v2-v3", vec!["v2=50,v3=50"]),
        ("virtual-service-reviews-v3", vec!["v3"]),
        ("virtual-service-reviews-jason-v2-v3", vec!["v2", "v3"]),
    ] {
        let (_mesh, client) = mesh(&bookinfo, &[&format!("networking/{name}.yaml")]);
        assert_eq!(reviews_routes(&client), expected, "{name}");
        let clusters = names(&client, Cluster);
        for subset in ["v1", "v2", "v3"] {
            let cluster = format!("outbound|9080|{subset}|reviews.default.svc.cluster.local");
            assert!(clusters.contains(&cluster), "{cluster}");
        }
    }
}

#[test]
fn the_gateway_sample_leads_to_productpage() {
    let Some(inputs) = inputs() else { return };
    let (mut mesh, _client) =
        mesh(&inputs.join("istio/bookinfo"), &["networking/bookinfo-gateway.yaml"]);
    let gateway = mesh.gateway();
    let host = json(&gateway, VirtualHost, "http.8080/*:8080");
    let routes = host["routes"].as_array().expect("routes");
    assert_eq!(routes.len(), 5);
    assert!(
        routes.iter().all(|route| route["route"]["cluster"]
            == "outbound|9080||productpage.default.svc.cluster.local")
    );
}

#[test]
fn the_seeds_apply() {
    let Some(inputs) = inputs() else { return };
    let seeds = inputs.join("seeds");
    let mut mesh = Mesh::of(
        "{apiVersion: v1, kind: Service, metadata: {name: service-a, namespace: default}, spec: {ports: [{port: 8080, name: http}], selector: {app: service-a}}}",
    );
    for name in ["gateway.yaml", "virtual-service.yaml", "destination-rule.yaml"] {
        mesh.0.push(&file(&seeds.join(name)));
    }
    let gateway = mesh.gateway();
    let host = json(&gateway, VirtualHost, "http.80/myapp.example.com:80");
    assert_eq!(host["routes"][0]["match"]["prefix"], "/api");
    assert_eq!(
        host["routes"][0]["route"]["cluster"],
        "outbound|8080||service-a.default.svc.cluster.local"
    );
    let cluster = json(&gateway, Cluster, "outbound|8080||service-a.default.svc.cluster.local");
    assert_eq!(cluster["circuit_breakers"]["thresholds"][0]["max_pending_requests"], 10);
    // The old name of the field means gateway errors.
    assert_eq!(cluster["outlier_detection"]["consecutive_gateway_failure"], 5);
}
