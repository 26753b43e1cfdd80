//! The contract that every adapter keeps, as checks that its tests call on a store that is empty.

use serde_json::json;

use super::{
    EventKind, Filter, Patch, Preconditions, ResourceVersion, Store, StoreError, Subresource,
    Watch, WatchEvent, WriteOptions,
};
use crate::object::{Collection, Object, ObjectKey};

const RULES: Collection = Collection::of("networking.istio.io", "destinationrules");
const SERVICES: Collection = Collection::of("", "services");

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(RULES, "default", name)
}

fn rule(name: &str, host: &str) -> Object {
    Object::new("networking.istio.io/v1", "DestinationRule", "default", name)
        .with("spec", json!({"host": host}))
}

fn me() -> WriteOptions {
    WriteOptions::by("contract")
}

/// Takes events until there are `count`.
async fn events(watch: &mut Watch, count: usize) -> Result<Vec<WatchEvent>, StoreError> {
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.extend(watch.next().await?);
    }
    Ok(seen)
}

/// Every check, one after the other.
///
/// # Panics
/// If the store breaks the contract.
pub async fn check(store: &impl Store) -> Result<(), StoreError> {
    writes_and_their_preconditions(store).await?;
    versions_of_a_kind_are_one_object(store).await?;
    status_is_apart(store).await?;
    finalizers_hold_an_object(store).await?;
    patches(store).await?;
    watches_miss_nothing(store).await?;
    watches_follow_their_filter(store).await?;
    a_namespace_goes_with_what_is_in_it(store).await?;
    unknown_versions_are_expired(store).await
}

async fn writes_and_their_preconditions(store: &impl Store) -> Result<(), StoreError> {
    let made = store.create(key("a"), rule("a", "a"), me()).await?;
    assert!(
        !made.uid().is_empty()
            && !made.resource_version().is_empty()
            && !made.creation_timestamp().is_empty()
    );
    assert_eq!(made.generation(), 1);
    let again = store.create(key("a"), rule("a", "a"), me()).await;
    assert_eq!(again, Err(StoreError::AlreadyExists(Box::new(key("a")))));

    let same = store.update(key("a"), rule("a", "a"), me()).await?;
    assert_eq!(
        same.resource_version(),
        made.resource_version(),
        "a write that changes nothing writes nothing"
    );
    let changed = store.update(key("a"), rule("a", "b"), me()).await?;
    assert_ne!(changed.resource_version(), made.resource_version());
    assert_eq!((changed.uid(), changed.generation()), (made.uid(), 2));

    let mut stale = rule("a", "c");
    stale.set_meta("resourceVersion", made.resource_version());
    let conflict = store.update(key("a"), stale, me()).await;
    assert!(matches!(conflict, Err(StoreError::Conflict { .. })), "{conflict:?}");
    let other = Preconditions { uid: Some("other".to_owned()), resource_version: None };
    assert!(matches!(store.delete(key("a"), other).await, Err(StoreError::Conflict { .. })));
    assert_eq!(store.get(&key("a")).await?, changed, "what failed changed nothing");

    let mut dry = me();
    dry.dry_run = true;
    let tried = store.update(key("a"), rule("a", "d"), dry).await?;
    assert_eq!(tried.spec(), Some(&json!({"host": "d"})));
    assert_eq!(store.get(&key("a")).await?, changed);

    let mut misplaced = rule("b", "b");
    misplaced.set_meta("namespace", "elsewhere");
    let refused = store.create(key("b"), misplaced, me()).await;
    assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
    store.delete(key("a"), Preconditions::default()).await?;
    assert_eq!(store.get(&key("a")).await, Err(StoreError::NotFound(Box::new(key("a")))));
    assert_eq!(
        store.update(key("a"), rule("a", "a"), me()).await,
        Err(StoreError::NotFound(Box::new(key("a"))))
    );
    Ok(())
}

async fn versions_of_a_kind_are_one_object(store: &impl Store) -> Result<(), StoreError> {
    let old = Object::new("networking.istio.io/v1alpha3", "DestinationRule", "default", "v")
        .with("spec", json!({"host": "v"}));
    let made = store.create(key("v"), old, me()).await?;
    let updated = store.update(key("v"), rule("v", "w"), me()).await?;
    assert_eq!(made.uid(), updated.uid());
    assert_eq!(store.list(&RULES, &Filter::default()).await?.items.len(), 1);
    store.delete(key("v"), Preconditions::default()).await?;
    Ok(())
}

async fn status_is_apart(store: &impl Store) -> Result<(), StoreError> {
    let made = store.create(key("s"), rule("s", "s").with("status", json!({"x": 1})), me()).await?;
    assert_eq!(made.status(), None, "a status is not created");
    let with_status = rule("s", "changed").with("status", json!({"x": 2}));
    let updated = store.update(key("s"), with_status.clone(), me().status()).await?;
    assert_eq!(updated.status(), Some(&json!({"x": 2})));
    assert_eq!(
        (updated.spec(), updated.generation()),
        (made.spec(), 1),
        "a status update changes only the status"
    );
    let updated = store.update(key("s"), rule("s", "new"), me()).await?;
    assert_eq!(updated.status(), Some(&json!({"x": 2})), "an update leaves the status alone");
    assert_eq!(updated.generation(), 2);
    store.delete(key("s"), Preconditions::default()).await?;
    Ok(())
}

async fn finalizers_hold_an_object(store: &impl Store) -> Result<(), StoreError> {
    let mut held = rule("f", "f");
    held.metadata_mut().insert("finalizers".to_owned(), json!(["example.com/hold"]));
    store.create(key("f"), held, me()).await?;
    let marked = store.delete(key("f"), Preconditions::default()).await?;
    assert!(marked.is_terminating());
    assert!(store.get(&key("f")).await?.is_terminating());
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    store.patch(key("f"), release, me()).await?;
    assert_eq!(store.get(&key("f")).await, Err(StoreError::NotFound(Box::new(key("f")))));
    Ok(())
}

/// Contents go first; what a finalizer holds holds its namespace, in which nothing new is made meanwhile.
async fn a_namespace_goes_with_what_is_in_it(store: &impl Store) -> Result<(), StoreError> {
    const NAMESPACES: Collection = Collection::of("", "namespaces");
    let namespace = ObjectKey::new(NAMESPACES, "", "shop");
    let object = Object::new("v1", "Namespace", "", "shop");
    store.create(namespace.clone(), object, me()).await?;
    let inside = |name: &str| {
        let object = Object::new("networking.istio.io/v1", "DestinationRule", "shop", name);
        (ObjectKey::new(RULES, "shop", name), object.with("spec", json!({"host": name})))
    };
    let (free, object) = inside("free");
    store.create(free.clone(), object, me()).await?;
    let (held, mut object) = inside("held");
    object.metadata_mut().insert("finalizers".to_owned(), json!(["contract/hold"]));
    store.create(held.clone(), object, me()).await?;
    store.create(key("elsewhere"), rule("elsewhere", "a"), me()).await?;

    store.delete(namespace.clone(), Preconditions::default()).await?;
    let mut held_object = store.get(&held).await?.as_ref().clone();
    assert!(held_object.is_terminating());
    assert!(matches!(store.get(&free).await, Err(StoreError::NotFound(_))));
    assert!(store.get(&namespace).await?.is_terminating());
    let (late, object) = inside("late");
    assert!(store.create(late, object, me()).await.is_err(), "nothing new in what is going");

    held_object.metadata_mut().shift_remove("finalizers");
    store.update(held.clone(), held_object, me()).await?;
    assert!(matches!(store.get(&held).await, Err(StoreError::NotFound(_))));
    assert!(matches!(store.get(&namespace).await, Err(StoreError::NotFound(_))));
    assert!(store.get(&key("elsewhere")).await.is_ok());
    Ok(())
}

async fn patches(store: &impl Store) -> Result<(), StoreError> {
    store.create(key("p"), rule("p", "p"), me()).await?;
    let merge = Patch::Merge(json!({"metadata": {"labels": {"a": "1"}}, "spec": {"host": "q"}}));
    let merged = store.patch(key("p"), merge, me()).await?;
    assert_eq!((merged.label("a"), merged.spec()), (Some("1"), Some(&json!({"host": "q"}))));
    let operations = json!([{"op": "test", "path": "/spec/host", "value": "other"}]);
    let test: json_patch::Patch = serde_json::from_value(operations).unwrap_or_default();
    let failed = store.patch(key("p"), Patch::Json(test), me()).await;
    assert!(matches!(failed, Err(StoreError::Invalid { .. })), "{failed:?}");

    let apply = |host: &str, force| Patch::Apply { object: rule("p", host), force };
    let refused = store.patch(key("p"), apply("r", false), WriteOptions::by("other")).await;
    assert!(matches!(refused, Err(StoreError::ManagerConflict { .. })), "{refused:?}");
    let forced = store.patch(key("p"), apply("r", true), WriteOptions::by("other")).await?;
    assert_eq!((forced.spec(), forced.label("a")), (Some(&json!({"host": "r"})), Some("1")));
    let same = store.patch(key("p"), apply("r", false), WriteOptions::by("other")).await?;
    assert_eq!(same.resource_version(), forced.resource_version());
    let status = Patch::Merge(json!({"status": {"conditions": []}}));
    let options = WriteOptions { subresource: Subresource::Status, ..WriteOptions::by("status") };
    let told = store.patch(key("p"), status, options).await?;
    let same = store.patch(key("p"), apply("r", false), WriteOptions::by("other")).await?;
    let version = |object: &Object| object.resource_version().to_owned();
    assert_eq!(version(&same), version(&told), "an apply of what is there is no change");
    store.delete(key("p"), Preconditions::default()).await?;
    let made = store.patch(key("p"), apply("s", false), me()).await?;
    assert_eq!(made.generation(), 1, "an apply makes what is not there");
    store.delete(key("p"), Preconditions::default()).await?;
    Ok(())
}

async fn watches_miss_nothing(store: &impl Store) -> Result<(), StoreError> {
    let listed = store.list(&RULES, &Filter::default()).await?;
    store.create(key("w"), rule("w", "1"), me()).await?;
    let mut watch = store.watch(&RULES, Filter::default(), &listed.version).await?;
    store.update(key("w"), rule("w", "2"), me()).await?;
    let service =
        Object::new("v1", "Service", "default", "w").with("spec", json!({"ports": [{"port": 80}]}));
    let service_key = ObjectKey::new(SERVICES, "default", "w");
    store.create(service_key.clone(), service, me()).await?;
    store.delete(key("w"), Preconditions::default()).await?;
    let seen = events(&mut watch, 3).await?;
    let kinds: Vec<EventKind> = seen.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Added, EventKind::Modified, EventKind::Deleted]);
    assert_eq!(
        seen[2].object.spec(),
        Some(&json!({"host": "2"})),
        "a deletion tells the last state"
    );

    // A watch that goes on from where another stood gets what came after.
    store.create(key("x"), rule("x", "1"), me()).await?;
    let mut later = store.watch(&RULES, Filter::default(), &watch.version()).await?;
    let seen = events(&mut later, 1).await?;
    assert_eq!((seen.len(), seen[0].object.name()), (1, "x"));
    store.delete(key("x"), Preconditions::default()).await?;
    store.delete(service_key, Preconditions::default()).await?;
    Ok(())
}

async fn watches_follow_their_filter(store: &impl Store) -> Result<(), StoreError> {
    let listed = store.list(&RULES, &Filter::default()).await?;
    let filter = Filter { labels: "team=a".parse().unwrap_or_default(), ..Filter::default() };
    let mut watch = store.watch(&RULES, filter, &listed.version).await?;
    store.create(key("l"), rule("l", "l"), me()).await?;
    let label = |team: &str| Patch::Merge(json!({"metadata": {"labels": {"team": team}}}));
    store.patch(key("l"), label("a"), me()).await?;
    store.patch(key("l"), label("b"), me()).await?;
    let kinds: Vec<EventKind> =
        events(&mut watch, 2).await?.iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds,
        [EventKind::Added, EventKind::Deleted],
        "leaving the filter is a deletion to its watch"
    );
    store.delete(key("l"), Preconditions::default()).await?;
    Ok(())
}

async fn unknown_versions_are_expired(store: &impl Store) -> Result<(), StoreError> {
    for version in ["", "none", "99999999999"] {
        let watch =
            store.watch(&RULES, Filter::default(), &ResourceVersion(version.to_owned())).await;
        assert!(matches!(watch, Err(StoreError::Expired)), "{version:?}");
    }
    Ok(())
}
