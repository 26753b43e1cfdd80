use serde_json::json;

use super::*;

const SERVICES: Collection = Collection::of("", "services");

fn service(ports: Value, labels: Value) -> Object {
    Object::from_value(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "default", "labels": labels},
        "spec": {"ports": ports},
    }))
    .unwrap()
}

fn applied(
    current: Option<&Object>,
    wanted: &Object,
    manager: &str,
    force: bool,
) -> Result<Object, Vec<String>> {
    apply(current, wanted, manager, Subresource::Main, force, &SERVICES).map_err(
        |ApplyError::Conflicts(conflicts)| {
            conflicts.into_iter().map(|(manager, path)| format!("{manager}: {path}")).collect()
        },
    )
}

#[test]
fn what_is_not_named_any_more_goes_and_what_others_own_stays() {
    let first = service(
        json!([{"port": 80, "name": "http"}, {"port": 443, "name": "https"}]),
        json!({"a": "1", "b": "2"}),
    );
    let there = applied(None, &first, "one", false).unwrap();
    let other = service(json!([{"port": 443, "name": "https"}]), json!({"c": "3"}));
    let there = applied(Some(&there), &other, "two", false).unwrap();
    assert_eq!(there.labels().count(), 3);

    let less = service(json!([{"port": 80, "name": "http"}]), json!({"a": "1"}));
    let there = applied(Some(&there), &less, "one", false).unwrap();
    assert_eq!(there.labels().collect::<Vec<_>>(), [("a", "1"), ("c", "3")]);
    // 443 is still two's.
    assert_eq!(there.spec().unwrap()["ports"].as_array().unwrap().len(), 2);

    let there = applied(Some(&there), &service(json!([]), json!({})), "two", false).unwrap();
    assert_eq!(there.spec().unwrap()["ports"], json!([{"port": 80, "name": "http"}]));
    assert_eq!(there.labels().collect::<Vec<_>>(), [("a", "1")]);
}

#[test]
fn another_value_of_anothers_field_is_a_conflict_unless_forced() {
    let there = applied(
        None,
        &service(json!([{"port": 80, "name": "http"}]), json!({"a": "1"})),
        "one",
        false,
    )
    .unwrap();
    let wanted = service(json!([{"port": 80, "name": "web"}]), json!({"a": "2"}));
    let conflicts = applied(Some(&there), &wanted, "two", false).unwrap_err();
    assert_eq!(
        conflicts,
        [r#"one: metadata.labels.a"#, r#"one: spec.ports[{"port":80,"protocol":"TCP"}].name"#]
    );
    let there = applied(Some(&there), &wanted, "two", true).unwrap();
    assert_eq!(there.label("a"), Some("2"));
    assert_eq!(there.spec().unwrap()["ports"][0]["name"], "web");
    // one has lost both fields for good: its own value is a conflict now.
    let back = service(json!([{"port": 80, "name": "http"}]), json!({"a": "1"}));
    assert_eq!(applied(Some(&there), &back, "one", false).unwrap_err().len(), 2);
}

#[test]
fn the_same_value_is_shared() {
    let wanted = service(json!([{"port": 80}]), json!({"a": "1"}));
    let there = applied(None, &wanted, "one", false).unwrap();
    let there = applied(Some(&there), &wanted, "two", false).unwrap();
    assert_eq!(owners_of(&there).len(), 2);
    let again = applied(Some(&there), &wanted, "two", false).unwrap();
    assert_eq!(again, there);
}

#[test]
fn an_update_owns_what_it_changed() {
    let mut made = service(json!([{"port": 80}]), json!({"a": "1", "b": "1"}));
    record_update(None, &mut made, "maker", Subresource::Main, &SERVICES);
    let mut after = made.clone();
    after.set_label("a", "2");
    record_update(Some(&made), &mut after, "editor", Subresource::Main, &SERVICES);
    let wanted = service(json!([{"port": 80}]), json!({"a": "3", "b": "2"}));
    let mut conflicts = applied(Some(&after), &wanted, "one", false).unwrap_err();
    // Two that wrote in one second stand by name, others by time.
    conflicts.sort();
    assert_eq!(conflicts, ["editor: metadata.labels.a", "maker: metadata.labels.b"]);
}

#[test]
fn disowning_leaves_what_others_own() {
    let there =
        applied(None, &service(json!([{"port": 80}]), json!({"a": "1"})), "one", false).unwrap();
    let mut alone = there.clone();
    assert!(!disown(&mut alone, "one", &SERVICES));
    let mut shared =
        applied(Some(&there), &service(json!([]), json!({"b": "2"})), "two", false).unwrap();
    assert!(disown(&mut shared, "one", &SERVICES));
    assert_eq!(shared.labels().collect::<Vec<_>>(), [("b", "2")]);
    assert!(
        shared.spec().is_none_or(|spec| spec.get("ports").is_none_or(|ports| ports == &json!([])))
    );
}

#[test]
fn fields_v1_is_written_as_kubernetes_writes_it() {
    let there = applied(
        None,
        &service(json!([{"port": 80, "name": "http"}]), json!({"a": "1"})),
        "one",
        false,
    )
    .unwrap();
    let entry = &there.metadata()["managedFields"][0];
    assert_eq!(
        entry["fieldsV1"],
        json!({
            "f:metadata": {"f:labels": {"f:a": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}}},
        })
    );
    assert_eq!(FieldSet::parse(&entry["fieldsV1"]).write(), entry["fieldsV1"]);
}
