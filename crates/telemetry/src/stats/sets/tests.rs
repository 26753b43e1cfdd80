use std::path::Path;

/// Each table and where its fields are counted.
const TABLES: &[(&str, &str, &[&str])] = &[
    (
        "cluster",
        include_str!("cluster.rs"),
        &["upstream", "router", "tcp_proxy", "server", "snapshot"],
    ),
    ("http", include_str!("http.rs"), &["http", "router", "network", "worker"]),
    ("listener", include_str!("listener.rs"), &["listener", "network", "worker", "http"]),
    (
        "server",
        include_str!("server.rs"),
        &["server", "snapshot", "config_sync", "admin", "access_log"],
    ),
    ("tcp", include_str!("tcp.rs"), &["tcp_proxy"]),
    ("tls", include_str!("tls.rs"), &["network"]),
];

/// A zero that nothing can change misleads: every field of the sets must be named by code that counts.
#[test]
fn every_field_is_counted_somewhere() {
    let proxy = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("proxy").join("src");
    let mut uncounted = Vec::new();
    for (table, text, places) in TABLES {
        // The sets' own helpers count too.
        let mut code = text.split_once("\nimpl ").map_or("", |(_, rest)| rest).to_owned();
        code.push_str(include_str!("tls.rs"));
        for place in *places {
            read(&proxy.join(place), &mut code);
            let module = proxy.join(format!("{place}.rs"));
            code.push_str(&std::fs::read_to_string(module).unwrap_or_default());
        }
        let fields = text.lines().filter_map(|line| {
            let (name, kind) = line.trim().split_once(" = ")?;
            let kinds = ["counter", "lazy", "gauge", "histogram", "codes", "classes", "names"];
            kinds.iter().any(|word| kind.starts_with(word)).then_some(name)
        });
        let missing = fields.filter(|name| !code.contains(&format!("::{name}")));
        uncounted.extend(missing.map(|name| format!("{table}: {name}")));
    }
    assert!(uncounted.is_empty(), "nothing counts {uncounted:#?}");
}

fn read(folder: &Path, code: &mut String) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read(&path, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code.push_str(&std::fs::read_to_string(path).unwrap_or_default());
        }
    }
}
