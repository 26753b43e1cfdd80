use std::fs;

use resources::kinds::networking::destination_rule::DestinationRule;
use resources::kinds::{Kind, kind_in};
use resources::object::{Object, ObjectKey};
use resources::store::{Filter, Store, WriteOptions};
use serde_json::json;

use super::*;

struct World {
    directory: tempfile::TempDir,
    store: Arc<Versioned>,
    source: DirectorySource,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Versioned::in_memory().unwrap());
        let source = DirectorySource::new(directory.path(), Arc::clone(&store), "istio-system");
        Self { directory, store, source }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.directory.path().join(name)).unwrap();
    }

    /// Problems of a pass, with the directory's path cut off.
    async fn problems(&self) -> Vec<String> {
        let prefix = format!("{}/", self.directory.path().display());
        let pass = self.source.pass().await.unwrap();
        pass.problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
    }

    async fn pass(&self) -> Pass {
        let pass = self.source.pass().await.unwrap();
        assert_eq!(pass.problems, []);
        pass
    }

    async fn hosts(&self) -> Vec<String> {
        let listed =
            self.store.list(&DestinationRule::INFO.collection, &Filter::default()).await.unwrap();
        let host =
            |object: &Arc<Object>| object.spec().unwrap()["host"].as_str().unwrap().to_owned();
        listed.items.iter().map(host).collect()
    }
}

fn rule(name: &str, host: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: {name}\nspec:\n  host: {host}\n"
    )
}

#[tokio::test]
async fn what_is_there_is_applied_and_what_leaves_is_deleted() {
    let world = World::new();
    world.write("a.yaml", &format!("{}---\n{}", rule("a", "a"), rule("b", "b")));
    world.write("notes.txt", "no source");
    let outcome = world.pass().await.outcome;
    // Two rules; that they are in a namespace goes without saying.
    assert_eq!((outcome.created.len(), outcome.changed.len(), outcome.deleted.len()), (2, 0, 0));
    assert_eq!(outcome.count(), 2);
    assert!(!world.pass().await.outcome.is_change(), "nothing changed, nothing is written");

    world.write("a.yaml", &rule("a", "changed"));
    let outcome = world.pass().await.outcome;
    assert_eq!((outcome.changed.len(), outcome.deleted.len()), (1, 1));
    assert_eq!(world.hosts().await, ["changed"]);

    world.remove("a.yaml");
    assert_eq!(world.pass().await.outcome.deleted.len(), 1);
    assert!(world.store.objects().iter().all(|(key, _)| key.name != "default"));
}

#[tokio::test]
async fn one_pass_is_one_change_set() {
    let world = World::new();
    let collection = DestinationRule::INFO.collection.clone();
    let listed = world.store.list(&collection, &Filter::default()).await.unwrap();
    let mut watch =
        world.store.watch(&collection, Filter::default(), &listed.version).await.unwrap();
    for name in ["a", "b", "c"] {
        world.write(&format!("{name}.yaml"), &rule(name, name));
    }
    world.pass().await;
    assert_eq!(watch.next().await.unwrap().len(), 3);
}

#[tokio::test]
async fn what_others_made_is_left_alone() {
    let world = World::new();
    let key = ObjectKey::new(DestinationRule::INFO.collection.clone(), "default", "theirs");
    let object = Object::new("networking.istio.io/v1", "DestinationRule", "default", "theirs");
    let object = object.with("spec", json!({"host": "theirs"}));
    world.store.create(key.clone(), object.clone(), WriteOptions::by("kubectl")).await.unwrap();
    world.write("a.yaml", &rule("a", "a"));
    world.pass().await;
    // Ours, deleted and made anew by somebody else, is theirs now.
    let ours = ObjectKey::new(DestinationRule::INFO.collection.clone(), "default", "a");
    world.store.delete(ours.clone(), resources::store::Preconditions::default()).await.unwrap();
    let again = Object::new("networking.istio.io/v1", "DestinationRule", "default", "a");
    let again = again.with("spec", json!({"host": "again"}));
    world.store.create(ours, again, WriteOptions::by("kubectl")).await.unwrap();
    world.remove("a.yaml");
    world.pass().await;
    assert_eq!(world.hosts().await, ["again", "theirs"]);

    // The namespace stays for them, and goes once nobody has anything in it.
    for name in ["a", "theirs"] {
        let key = ObjectKey::new(DestinationRule::INFO.collection.clone(), "default", name);
        world.store.delete(key, resources::store::Preconditions::default()).await.unwrap();
    }
    world.pass().await;
    assert!(world.store.objects().iter().all(|(key, _)| key.name != "default"));
}

#[tokio::test]
async fn a_bad_file_is_told_and_changes_nothing() {
    let world = World::new();
    world.write("a.yaml", &rule("a", "a"));
    world.write("b.yaml", &rule("b", "b"));
    world.pass().await;
    world.remove("b.yaml");
    world.write("a.yaml", "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata:\n  name: a\nspec:\n  hots: x\n");
    world.write("c.yaml", "a: [\n");
    world.write(
        "d.yaml",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\n",
    );
    let problems = world.problems().await;
    assert_eq!(problems[0], "a.yaml:5:1: DestinationRule a: spec.host: required");
    assert_eq!(
        problems[1],
        "a.yaml:6:3: DestinationRule a: spec.hots: unknown field, did you mean host?"
    );
    assert!(problems[2].starts_with("c.yaml:"), "{problems:?}");
    assert_eq!(
        problems[3],
        "d.yaml:2:1: no kind HTTPRoute in gateway.networking.k8s.io is supported"
    );
    assert_eq!(
        world.hosts().await,
        ["a", "b"],
        "what was there is in effect, and nothing is deleted"
    );
}

#[tokio::test]
async fn the_same_object_twice_names_both_places() {
    let world = World::new();
    world.write("a.yaml", &rule("x", "a"));
    let other_version = rule("x", "b").replace("/v1", "/v1beta1");
    world.write("b.yaml", &format!("# comment\n{other_version}"));
    let problems = world.problems().await;
    let prefix = format!("{}/", world.directory.path().display());
    assert_eq!(problems.len(), 1);
    assert_eq!(
        problems[0].replace(&prefix, ""),
        "b.yaml:2:1: DestinationRule default/x is there already, at a.yaml:1:1"
    );
}

const DEPLOYMENT: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v1}
spec:
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec:
      serviceAccountName: bookinfo-reviews
      containers: [{name: app, ports: [{containerPort: 9080, name: web}]}]
";

#[tokio::test]
async fn workloads_are_what_their_pod_template_says() {
    let world = World::new();
    world.write(
        "d.yaml",
        &format!("{DEPLOYMENT}---\n{}", DEPLOYMENT.replace("reviews-v1", "other")),
    );
    world.write(
        "workloads.yaml",
        "- deployment: reviews-v1\n  run: [./reviews, '{port}']\n  env: {STARS: 5, ON: true}\n",
    );
    let pass = world.pass().await;
    assert_eq!(pass.not_run_here, ["default/other"]);
    let workload = &pass.workloads[0];
    assert_eq!((workload.replicas, workload.ports.as_slice()), (1, &[9080][..]));
    assert_eq!(workload.service_account, "bookinfo-reviews");
    assert_eq!(workload.row.env["STARS"], "5");
    for (key, object) in world.store.objects() {
        let findings = (kind_in(&key.collection).unwrap().check)(&object);
        assert_eq!(findings.errors, [], "{key}");
        if key.collection.plural == "workloadgroups" {
            let template = &object.spec().unwrap()["template"];
            assert_eq!(template["ports"], json!({"web": 9080}));
            assert_eq!(template["labels"]["version"], "v1");
        }
    }
}

#[tokio::test]
async fn workload_rows_are_checked() {
    let world = World::new();
    world.write("d.yaml", DEPLOYMENT);
    let rows = "- deployment: reviews-v1\n  rnu: [x]\n- deployment: reviews-v1\n  run: [x]\n- deployment: reviews-v1\n  run: [x]\n- {deployment: nobody, run: [x]}\n- 5\n";
    world.write("workloads.yaml", rows);
    let problems = world.problems().await;
    assert_eq!(
        problems,
        [
            "workloads.yaml:1:3: run: the program and its arguments are required",
            "workloads.yaml:2:3: rnu: unknown field, did you mean run?",
            "workloads.yaml:5:3: reviews-v1 has a row already, at workloads.yaml:3:3",
            "workloads.yaml:8:3: expected {deployment, run, ...}",
        ]
    );
    world.write("workloads.yaml", "- {deployment: nobody, run: [x]}\n");
    assert_eq!(
        world.problems().await,
        ["workloads.yaml:1:3: there is no Deployment default/nobody"]
    );
}

#[tokio::test]
async fn a_change_is_noticed_by_calls_that_are_given_up_again_and_again() {
    let world = World::new();
    let mut changes = Changes::watch(world.directory.path()).unwrap();
    world.write("a.yaml", "a: 1");
    // As in a loop that waits for several things: none of these calls lasts until the files are at rest.
    let brief = std::time::Duration::from_millis(7);
    let noticed = async { while tokio::time::timeout(brief, changes.settled()).await.is_err() {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), noticed).await.unwrap();
}

#[tokio::test]
async fn changes_are_noticed_when_they_are_done() {
    let world = World::new();
    let mut changes = Changes::watch(world.directory.path()).unwrap();
    world.write("a.yaml", "a: 1");
    world.write("b.yaml", "b: 1");
    changes.settled().await;
    // An editor's way: a temporary file in place of the old one.
    world.write(".a.yaml.tmp", "a: 2");
    let (from, to) =
        (world.directory.path().join(".a.yaml.tmp"), world.directory.path().join("a.yaml"));
    fs::rename(from, to).unwrap();
    changes.settled().await;
    world.remove("b.yaml");
    changes.settled().await;
    // Reading is no change, and other files are not looked at.
    world.write("notes.txt", "x");
    world.problems().await;
    let quiet =
        tokio::time::timeout(std::time::Duration::from_millis(300), changes.settled()).await;
    assert!(quiet.is_err());
}
