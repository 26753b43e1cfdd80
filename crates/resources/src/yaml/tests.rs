use serde_json::json;

use super::*;

fn values(text: &str) -> Vec<Value> {
    let (trees, problems) = parse_tree(text);
    assert_eq!(problems, []);
    trees.into_iter().map(|(value, _)| value).collect()
}

fn problems(text: &str) -> Vec<String> {
    let (_, problems) = parse_tree(text);
    problems
        .into_iter()
        .map(|(place, message)| format!("{}:{}: {message}", place.line, place.column))
        .collect()
}

#[test]
fn scalars_are_what_kubectl_takes_them_for() {
    let text =
        "[1, -2, 0x10, 0644, 1.50, 1e3, yes, off, ~, '1', \"x\", 1.2.3, 10s, 12:30, .5, 1_000]";
    let expected =
        r#"[1,-2,16,420,1.50,1e+3,true,false,null,"1","x","1.2.3","10s","12:30",0.5,"1_000"]"#;
    assert_eq!(values(text)[0].to_string(), expected);
}

#[test]
fn documents_merges_aliases_and_blocks() {
    let text =
        "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n---\n# nothing\n---\nc: |\n  one\n  two\n";
    assert_eq!(
        values(text),
        [
            json!({"a": {"x": 1, "y": 2}, "b": {"y": 3, "x": 1}}),
            Value::Null,
            json!({"c": "one\ntwo\n"})
        ]
    );
}

#[test]
fn mistakes_are_told_with_their_place() {
    assert_eq!(problems("a: 1\nb: 2\na: 3\n"), ["3:1: the key \"a\" is there already"]);
    assert_eq!(problems("a: !secret x\n"), ["1:12: the tag \"secret\" is not supported"]);
    assert_eq!(problems("a:\n  - b\n c: d\n").len(), 1);
    let bomb = "a: &a [x, x, x, x, x, x, x, x]\n".to_owned()
        + &(0..8u8)
            .map(|level| {
                let (name, last) = (char::from(b'b' + level), char::from(b'a' + level));
                format!("{name}: &{name} [{}]\n", vec![format!("*{last}"); 8].join(", "))
            })
            .collect::<String>();
    assert!(problems(&bomb)[0].contains("more than"), "{:?}", problems(&bomb));
}

#[test]
fn fields_are_found_where_they_were_written() {
    let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  labels:\n    app.io/x: y\nspec:\n  ports:\n  - port: 1\n  - port: 2\n    name: b\n";
    let documents = load("dir/a.yaml", text).unwrap();
    let at = |path: FieldPath| documents[0].place_of(&path).to_string();
    let spec = FieldPath::of("spec");
    assert_eq!(at(spec.clone().field("ports").index(1).field("name")), "dir/a.yaml:11:5");
    assert_eq!(at(spec.clone().field("ports").index(1).field("protocol")), "dir/a.yaml:10:5");
    assert_eq!(at(spec.field("selector").field("app")), "dir/a.yaml:7:1");
    assert_eq!(at(FieldPath::of("metadata").field("labels").key("app.io/x")), "dir/a.yaml:6:5");
}

#[test]
fn lists_are_their_items_and_other_things_are_refused() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n- {kind: X}\n";
    let problems = load("l.yaml", list).unwrap_err();
    assert_eq!(problems[0].to_string(), "l.yaml:5:3: apiVersion: required");
    let documents = load("l.json", "{\"apiVersion\": \"v1\", \"kind\": \"Pod\"}\n").unwrap();
    assert_eq!(documents.len(), 1);
}
