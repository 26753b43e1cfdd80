//! The configurations that requests are compared under: one listener each, named by what is special about it.

use serde_json::{Value, json};

const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const OVERWRITE: &str = "OVERWRITE_IF_EXISTS_OR_ADD";

/// A bootstrap with every configuration, in front of one upstream on 127.0.0.1.
pub fn bootstrap(port: u16) -> String {
    let listeners: Vec<Value> = configurations()
        .into_iter()
        .map(|(name, hosts, table, manager)| listener(name, hosts, table, manager))
        .collect();
    let endpoint =
        json!({ "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } } });
    let cluster = json!({
        "name": "echo",
        "connect_timeout": "5s",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "echo",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": endpoint }] }],
        },
    });
    let resources = json!({ "listeners": listeners, "clusters": [cluster] });
    format!("static_resources: {resources}\n")
}

/// Name, virtual hosts, further fields of the route configuration, further fields of the connection manager.
fn configurations() -> Vec<(&'static str, Value, Value, Value)> {
    let none = json!({});
    let everything = to_echo(json!({ "prefix": "/" }), json!({}));
    let all = json!([{ "name": "all", "domains": ["*"], "routes": [everything] }]);
    let level =
        json!([{ "header": { "key": "x-level", "value": "table" }, "append_action": OVERWRITE }]);
    let simple = |name, fields: Value| (name, all.clone(), json!({}), fields);
    vec![
        ("plain", routed(), none.clone(), none.clone()),
        simple("normalized", json!({ "normalize_path": true, "merge_slashes": true })),
        simple(
            "unescaped",
            json!({ "normalize_path": true, "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD" }),
        ),
        simple(
            "redirected",
            json!({ "normalize_path": true, "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT" }),
        ),
        simple("rejected", json!({ "path_with_escaped_slashes_action": "REJECT_REQUEST" })),
        simple(
            "edge",
            json!({ "use_remote_address": true, "via": "1.1 me", "append_x_forwarded_port": true }),
        ),
        simple(
            "hops",
            json!({
                "use_remote_address": true,
                "xff_num_trusted_hops": 1,
                "skip_xff_append": true,
                "preserve_external_request_id": true,
            }),
        ),
        simple(
            "inner",
            json!({ "xff_num_trusted_hops": 1, "always_set_request_id_in_response": true }),
        ),
        ("domains", domains(), none.clone(), none.clone()),
        simple("stripped", json!({ "strip_any_host_port": true, "strip_trailing_host_dot": true })),
        simple(
            "drops underscores",
            json!({ "common_http_protocol_options": { "headers_with_underscores_action": "DROP_HEADER" } }),
        ),
        simple(
            "rejects underscores",
            json!({ "common_http_protocol_options": { "headers_with_underscores_action": "REJECT_REQUEST" } }),
        ),
        simple(
            "HTTP/1.0",
            json!({ "http_protocol_options": { "accept_http_10": true, "default_host_for_http_10": "default" } }),
        ),
        (
            "most specific wins",
            routed(),
            json!({ "most_specific_header_mutations_wins": true, "request_headers_to_add": level }),
            none.clone(),
        ),
        ("least specific wins", routed(), json!({ "request_headers_to_add": level }), none.clone()),
        ("any port", domains(), json!({ "ignore_port_in_host_matching": true }), none),
        simple(
            "internal",
            json!({
                "use_remote_address": true,
                "skip_xff_append": true,
                "internal_address_config": { "cidr_ranges": [{ "address_prefix": "127.0.0.0", "prefix_len": 8 }] },
            }),
        ),
    ]
}

fn listener(name: &str, hosts: Value, table: Value, manager: Value) -> Value {
    let routes = with(json!({ "name": name, "virtual_hosts": hosts }), table);
    let config = json!({
        "@type": MANAGER,
        "stat_prefix": "entrance",
        "http_filters": [{ "name": "router", "typed_config": { "@type": ROUTER } }],
        "route_config": routes,
    });
    let filter = json!({ "name": "manager", "typed_config": with(config, manager) });
    json!({
        "name": name,
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
        "filter_chains": [{ "filters": [filter] }],
    })
}

/// One virtual host with a route for each thing that routes can do.
fn routed() -> Value {
    let mut routes = header_matches();
    routes.extend(path_matches());
    routes.extend(redirects());
    routes.extend(rewrites());
    routes.push(mutations());
    routes.push(to_echo(json!({ "prefix": "/" }), json!({})));
    json!([{
        "name": "all",
        "domains": ["*"],
        "routes": routes,
        "request_headers_to_add": [{ "header": { "key": "x-level", "value": "host" }, "append_action": OVERWRITE }],
    }])
}

fn header_matches() -> Vec<Value> {
    [
        ("exact", json!({ "string_match": { "exact": "a" } })),
        ("joined", json!({ "string_match": { "exact": "a,b" } })),
        ("inverted", json!({ "string_match": { "exact": "a" }, "invert_match": true })),
        ("inverted-presence", json!({ "present_match": true, "invert_match": true })),
        ("absent", json!({ "present_match": false })),
        ("present-or-empty", json!({ "present_match": true, "treat_missing_header_as_empty": true })),
        ("absent-or-empty", json!({ "present_match": false, "treat_missing_header_as_empty": true })),
        ("empty", json!({ "string_match": { "exact": "" }, "treat_missing_header_as_empty": true })),
        (
            "inverted-or-empty",
            json!({ "string_match": { "exact": "a" }, "invert_match": true, "treat_missing_header_as_empty": true }),
        ),
        ("range", json!({ "range_match": { "start": -1, "end": 10 } })),
        ("host", json!({ "name": "host", "string_match": { "exact": "a.com" } })),
        ("path", json!({ "name": ":path", "string_match": { "suffix": "?q" } })),
    ]
    .into_iter()
    .map(|(name, matcher)| {
        let matcher = with(json!({ "name": "x" }), matcher);
        direct(json!({ "prefix": format!("/header/{name}"), "headers": [matcher] }), name)
    })
    .collect()
}

fn path_matches() -> Vec<Value> {
    let query = |parameter: Value| json!({ "prefix": "/query", "query_parameters": [parameter] });
    vec![
        direct(query(json!({ "name": "a", "string_match": { "exact": "1" } })), "a is 1"),
        direct(query(json!({ "name": "a", "present_match": true })), "a is there"),
        direct(json!({ "path_separated_prefix": "/separated/x" }), "separated"),
        direct(json!({ "path": "/Case", "case_sensitive": false }), "case"),
        direct(json!({ "safe_regex": { "regex": "/regex/[0-9]+" } }), "digits"),
        direct(json!({ "safe_regex": { "regex": "/word/\\w+\\d" } }), "word"),
    ]
}

fn redirects() -> Vec<Value> {
    let redirect = |matching: Value, to: Value| json!({ "match": matching, "redirect": to });
    let at = |name: &str| json!({ "path": format!("/redirect/{name}") });
    vec![
        redirect(at("https"), json!({ "https_redirect": true })),
        redirect(at("port"), json!({ "port_redirect": 8443 })),
        redirect(at("host"), json!({ "host_redirect": "b.com", "response_code": "FOUND" })),
        redirect(at("path"), json!({ "path_redirect": "/new" })),
        redirect(at("query"), json!({ "path_redirect": "/new?z", "strip_query": true })),
        redirect(
            at("strip"),
            json!({ "path_redirect": "/new", "strip_query": true, "response_code": "PERMANENT_REDIRECT" }),
        ),
        redirect(json!({ "prefix": "/redirect/prefix" }), json!({ "prefix_rewrite": "/p2" })),
        redirect(
            json!({ "prefix": "/redirect/regex" }),
            json!({ "regex_rewrite": { "pattern": { "regex": "x" }, "substitution": "yy" } }),
        ),
        redirect(
            json!({ "prefix": "/redirect/scheme" }),
            json!({ "scheme_redirect": "https", "host_redirect": "c.com", "port_redirect": 444 }),
        ),
    ]
}

fn rewrites() -> Vec<Value> {
    let regex = |pattern: &str, substitution: &str| json!({ "pattern": { "regex": pattern }, "substitution": substitution });
    let at = |prefix: &str| json!({ "prefix": format!("/rewrite/{prefix}") });
    vec![
        to_echo(at("prefix/"), json!({ "prefix_rewrite": "/" })),
        to_echo(json!({ "path": "/rewrite/exact" }), json!({ "prefix_rewrite": "/new" })),
        to_echo(
            json!({ "safe_regex": { "regex": "/rewrite/whole/.*" } }),
            json!({ "prefix_rewrite": "/new" }),
        ),
        to_echo(
            at("regex"),
            json!({ "regex_rewrite": regex("^/rewrite/regex/([^/]+)(/.*)$", "\\2/i/\\1") }),
        ),
        to_echo(at("empty"), json!({ "regex_rewrite": regex("x*", "-") })),
        to_echo(at("host/literal"), json!({ "host_rewrite_literal": "lit.com" })),
        to_echo(
            at("forwarded/literal"),
            json!({ "host_rewrite_literal": "lit.com", "append_x_forwarded_host": true }),
        ),
        to_echo(at("host/header"), json!({ "host_rewrite_header": "x-host" })),
        to_echo(
            at("host/regex"),
            json!({ "host_rewrite_path_regex": regex("^/rewrite/host/regex/(.+)/.+$", "\\1") }),
        ),
        to_echo(at("auto"), json!({ "auto_host_rewrite": true })),
    ]
}

fn mutations() -> Value {
    let add = |key: &str, value: &str, action: &str| json!({ "header": { "key": key, "value": value }, "append_action": action });
    let append = "APPEND_IF_EXISTS_OR_ADD";
    let mut kept = add("x-f", "%REQ(none)%", append);
    kept["keep_empty_value"] = json!(true);
    let route = to_echo(json!({ "prefix": "/mutated" }), json!({ "prefix_rewrite": "/mm" }));
    with(
        route,
        json!({
            "request_headers_to_remove": ["x-gone"],
            "request_headers_to_add": [
                add("x-a", "%REQ(x-in)%|%REQ(:path)%", OVERWRITE),
                add("x-b", "[%REQ(x-a)%]", append),
                add("x-c", "1", "ADD_IF_ABSENT"),
                add("x-d", "1", "OVERWRITE_IF_EXISTS"),
                add("x-e", "%REQ(none)%", append),
                kept,
                add("x-level", "route", OVERWRITE),
            ],
            "response_headers_to_add": [add("r-a", "%REQ(:path)%|%RESPONSE_CODE%", append)],
            "response_headers_to_remove": ["x-upstream"],
        }),
    )
}

/// Virtual hosts of every kind of domain.
fn domains() -> Value {
    let host = |name: &str, domains: &[&str]| json!({ "name": name, "domains": domains, "routes": [direct(json!({ "prefix": "/" }), name)] });
    let mut secure = host("secure", &["tls.com"]);
    secure["require_tls"] = json!("ALL");
    json!([
        host("any", &["*"]),
        host("exact", &["foo.com", "foo.com:81"]),
        host("suffix", &["*.foo.com"]),
        host("longer suffix", &["*.bar.foo.com"]),
        host("prefix", &["foo.*"]),
        host("dash", &["*-baz.com"]),
        secure,
    ])
}

fn to_echo(matching: Value, action: Value) -> Value {
    json!({ "match": matching, "route": with(json!({ "cluster": "echo" }), action) })
}

fn direct(matching: Value, body: &str) -> Value {
    json!({ "match": matching, "direct_response": { "status": 200, "body": { "inline_string": body } } })
}

/// `object` with the fields of `more` in it.
fn with(mut object: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut object, more) {
        fields.extend(more);
    }
    object
}
