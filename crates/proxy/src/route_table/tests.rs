//! Tables of routes and requests, and a naive matcher to compare with.

use std::sync::Arc;

use codec::headers::{HeaderName, RequestHead, ResponseHead, names};

use super::config::*;
use super::{ApplyOptions, RouteInput, RouteMatch, RouteScratch, RouteTable, VirtualHost};
use crate::access_log::Environment;
use crate::http::header_mutation::{
    AppendAction, HeaderMutations, MutationContext, MutationScratch,
};
use crate::router::config::ClusterChoice;
use crate::stream_info::{StreamInfo, TlsInfo};
use crate::string_matcher::{StringMatcher, StringPattern};
use crate::upstream::config::{ClusterRef, WeightedClusters};

mod differential;

fn cluster(slot: u32) -> ClusterRef {
    ClusterRef { slot, generation: 0 }
}

fn forward() -> RouteAction {
    RouteAction::new(ClusterChoice::Cluster(cluster(0)))
}

fn route(criteria: Criteria) -> RouteConfig {
    RouteConfig::new(criteria, Action::Route(Box::new(forward())))
}

fn prefix(text: &str) -> PathMatch {
    PathMatch::Prefix(text.into())
}

fn exact(text: &str) -> PathMatch {
    PathMatch::Exact(text.into())
}

fn regex(text: &str) -> PathMatch {
    PathMatch::Regex(text.into())
}

fn host(name: &str, domains: &[&str], routes: Vec<RouteConfig>) -> VirtualHostConfig {
    let domains = domains.iter().map(|domain| domain.to_string()).collect();
    VirtualHostConfig { name: name.into(), domains, routes, ..VirtualHostConfig::default() }
}

fn table(hosts: Vec<VirtualHostConfig>) -> Arc<RouteTable> {
    let hosts = hosts.into_iter().map(|host| VirtualHost::compile(host).unwrap()).collect();
    Arc::new(RouteTable::new(TableConfig::default(), hosts).unwrap())
}

fn one_host(routes: Vec<RouteConfig>) -> Arc<RouteTable> {
    table(vec![host("all", &["*"], routes)])
}

fn request(method: &str, authority: &str, path: &str, fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::new();
    head.set_method(method.as_bytes());
    head.set_scheme(b"http");
    head.set_authority(authority.as_bytes());
    head.set_path(path.as_bytes());
    for (name, value) in fields {
        head.fields.append(*name, value.as_bytes());
    }
    head
}

fn get(path: &str) -> RequestHead {
    request("GET", "example.com", path, &[])
}

fn find(table: &Arc<RouteTable>, head: &RequestHead) -> Option<RouteMatch> {
    table.route(head, RouteInput::default(), &mut RouteScratch::default())
}

fn found_index(table: &Arc<RouteTable>, head: &RequestHead) -> Option<usize> {
    find(table, head).and_then(|found| found.route_index())
}

#[test]
fn paths() {
    let folded = |path| Criteria { case_sensitive: false, ..Criteria::path(path) };
    let rows: &[(Criteria, &[&str], &[&str])] = &[
        (Criteria::path(prefix("/a")), &["/a", "/ab", "/a/b?x"], &["/", "/A", "/b?/a"]),
        (Criteria::path(exact("/a")), &["/a", "/a?b=c", "/a#f"], &["/a/", "/ab", "/A"]),
        (
            Criteria::path(PathMatch::SeparatedPrefix("/a".into())),
            &["/a", "/a/", "/a/b", "/a?b"],
            &["/ab", "/", "/A"],
        ),
        (Criteria::path(regex("/v[0-9]+/.*")), &["/v1/", "/v22/x?y"], &["/v/x", "/x/v1/", "/v1"]),
        (Criteria::path(regex("/a|/ab")), &["/a", "/ab"], &["/abc", "x/a"]),
        (folded(prefix("/Ab")), &["/ab", "/ABc"], &["/a"]),
        (folded(exact("/Ab")), &["/ab", "/AB?Q"], &["/abc"]),
        (folded(PathMatch::SeparatedPrefix("/Ab".into())), &["/aB/C"], &["/abc"]),
        (folded(regex("/ab")), &["/ab"], &["/AB"]),
    ];
    for (criteria, taken, passed) in rows {
        let table = one_host(vec![route(criteria.clone())]);
        for path in *taken {
            assert_eq!(found_index(&table, &get(path)), Some(0), "{path} by {:?}", criteria.path);
        }
        for path in *passed {
            assert_eq!(found_index(&table, &get(path)), None, "{path} by {:?}", criteria.path);
        }
    }
}

#[test]
fn the_first_route_wins_whatever_its_kind() {
    let refused = Criteria {
        headers: vec![matcher("absent", ValueMatch::Present(true))],
        ..Criteria::path(exact("/a/b"))
    };
    let table = one_host(vec![
        route(refused),
        route(Criteria::path(regex("/a/b"))),
        route(Criteria::path(exact("/a/b"))),
        route(Criteria::path(prefix("/a"))),
        route(Criteria::path(regex("/.*/c"))),
        route(Criteria::path(exact("/a/c"))),
        route(Criteria::path(regex("/.*"))),
        route(Criteria::path(prefix("/"))),
    ]);
    for (path, expected) in [("/a/b", 1), ("/a/c", 3), ("/b/c", 4), ("/x", 6), ("/a/x", 3)] {
        assert_eq!(found_index(&table, &get(path)), Some(expected), "{path}");
    }
}

fn matcher(name: &str, value: ValueMatch) -> HeaderMatcher {
    HeaderMatcher {
        name: HeaderName::parse(name).unwrap(),
        value,
        invert: false,
        treat_missing_as_empty: false,
    }
}

#[test]
fn header_matchers() {
    let string =
        |pattern, ignore_case| ValueMatch::String(StringMatcher::new(pattern, ignore_case));
    let equal = |text: &str| ValueMatch::String(StringMatcher::exact(text));
    let inverted = |matcher| HeaderMatcher { invert: true, ..matcher };
    let or_empty = |matcher| HeaderMatcher { treat_missing_as_empty: true, ..matcher };
    let rows: Vec<(HeaderMatcher, &[(&str, &str)], bool)> = vec![
        (matcher("X", equal("a")), &[("x", "a")], true),
        (matcher("x", equal("a")), &[("x", "ab")], false),
        (matcher("x", equal("a")), &[], false),
        (matcher("x", equal("a")), &[("x", "b"), ("x", "a")], true),
        (matcher("x", equal("b,a")), &[("x", "b"), ("x", "a")], false),
        (inverted(matcher("x", equal("a"))), &[("x", "b")], true),
        (inverted(matcher("x", equal("a"))), &[("x", "b"), ("x", "a")], false),
        (inverted(matcher("x", equal("a"))), &[], false),
        (inverted(or_empty(matcher("x", equal("a")))), &[], true),
        (or_empty(matcher("x", equal(""))), &[], true),
        (matcher("x", string(StringPattern::Prefix("Ab".into()), true)), &[("x", "aBc")], true),
        (matcher("x", string(StringPattern::Suffix("c".into()), false)), &[("x", "abc")], true),
        (matcher("x", string(StringPattern::Contains("z".into()), false)), &[("x", "abc")], false),
        (
            matcher("x", ValueMatch::String(StringMatcher::regex("a+").unwrap())),
            &[("x", "aab")],
            false,
        ),
        (matcher("x", ValueMatch::Present(true)), &[("x", "")], true),
        (matcher("x", ValueMatch::Present(true)), &[], false),
        (matcher("x", ValueMatch::Present(false)), &[], true),
        (matcher("x", ValueMatch::Present(false)), &[("x", "")], false),
        (inverted(matcher("x", ValueMatch::Present(true))), &[], true),
        (inverted(matcher("x", ValueMatch::Present(true))), &[("x", "1")], false),
        (matcher("x", ValueMatch::Range(-1, 10)), &[("x", "-1")], true),
        (matcher("x", ValueMatch::Range(-1, 10)), &[("x", "10")], false),
        (matcher("x", ValueMatch::Range(-1, 10)), &[("x", "5 ")], false),
        (matcher(":method", equal("GET")), &[], true),
        (matcher(":authority", equal("example.com")), &[], true),
        (matcher("host", equal("example.com")), &[], true),
        (matcher(":path", equal("/p?q")), &[], true),
        (matcher(":scheme", equal("https")), &[], false),
    ];
    for (number, (matcher, fields, expected)) in rows.iter().enumerate() {
        let head = request("GET", "example.com", "/p?q", fields);
        assert_eq!(matcher.matches(&head), *expected, "row {number}: {matcher:?} on {fields:?}");
    }
}

#[test]
fn query_matchers() {
    let rows: &[(&str, Option<&str>, &str, bool)] = &[
        ("a", None, "/?a", true),
        ("a", None, "/?b&a=1", true),
        ("a", None, "/?b=a", false),
        ("a", None, "/", false),
        ("a", Some("1"), "/?a=1", true),
        ("a", Some("1"), "/?a=2&a=1", false),
        ("a", Some(""), "/?a", true),
        ("a", Some("1=2"), "/?a=1=2", true),
        ("a", Some("1"), "/?a=1#x", true),
        ("a", Some("1"), "/#?a=1", false),
    ];
    for (name, value, path, expected) in rows {
        let value = match value {
            None => QueryValue::Present(true),
            Some(value) => QueryValue::String(StringMatcher::exact(value)),
        };
        let criteria = Criteria {
            query: vec![QueryMatcher { name: (*name).into(), value }],
            ..Criteria::path(prefix("/"))
        };
        let table = one_host(vec![route(criteria)]);
        assert_eq!(found_index(&table, &get(path)).is_some(), *expected, "{name} in {path}");
    }
    let absent = Criteria {
        query: vec![QueryMatcher { name: "a".into(), value: QueryValue::Present(false) }],
        ..Criteria::path(prefix("/"))
    };
    let table = one_host(vec![route(absent)]);
    for (path, expected) in [("/", true), ("/?b=1&aa", true), ("/?a", false), ("/?b&a=1", false)] {
        assert_eq!(found_index(&table, &get(path)).is_some(), expected, "no a in {path}");
    }
}

#[test]
fn other_criteria() {
    let base = || Criteria::path(prefix("/"));
    let grpc = one_host(vec![route(Criteria { grpc: true, ..base() })]);
    for (content_type, expected) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc-web", false),
    ] {
        let head = request("POST", "a", "/", &[("content-type", content_type)]);
        assert_eq!(find(&grpc, &head).is_some(), expected, "{content_type}");
    }

    let tls = one_host(vec![route(Criteria {
        tls: Some(TlsCriteria { presented: Some(false), validated: None }),
        ..base()
    })]);
    let with_certificate = TlsInfo { peer: Some(Default::default()), ..TlsInfo::default() };
    for (tls_info, expected) in
        [(None, true), (Some(&TlsInfo::default()), true), (Some(&with_certificate), false)]
    {
        let input = RouteInput { random: 0, tls: tls_info };
        assert_eq!(tls.route(&get("/"), input, &mut RouteScratch::default()).is_some(), expected);
    }

    let some = one_host(vec![route(Criteria {
        fraction: Some(Fraction { numerator: 25, denominator: 100 }),
        ..base()
    })]);
    let taken = (0..1000).filter(|random| {
        some.route(
            &get("/"),
            RouteInput { random: *random, tls: None },
            &mut RouteScratch::default(),
        )
        .is_some()
    });
    assert_eq!(taken.count(), 250);
}

#[test]
fn connect_goes_only_where_it_is_asked_for() {
    let table = one_host(vec![
        route(Criteria::path(prefix("/"))),
        route(Criteria::path(PathMatch::Connect)),
        route(Criteria::path(prefix(""))),
    ]);
    assert_eq!(found_index(&table, &request("CONNECT", "a:1", "", &[])), Some(1));
    assert_eq!(found_index(&table, &get("/")), Some(0));
    let without = one_host(vec![route(Criteria::path(prefix("")))]);
    assert_eq!(found_index(&without, &request("CONNECT", "a:1", "", &[])), None);
}

#[test]
fn weights_choose_clusters() {
    let choice = WeightedClusters::new(vec![(cluster(1), 92), (cluster(2), 8)]).unwrap();
    let table = one_host(vec![RouteConfig::new(
        Criteria::path(prefix("/")),
        Action::Route(Box::new(RouteAction::new(ClusterChoice::Weighted(choice)))),
    )]);
    let mut counts = [0; 3];
    for random in 0..1000 {
        let found = table
            .route(&get("/"), RouteInput { random, tls: None }, &mut RouteScratch::default())
            .unwrap();
        assert_eq!(found.cluster().unwrap().slot as usize, found.weighted_index() + 1);
        counts[found.cluster().unwrap().slot as usize] += 1;
    }
    assert_eq!(counts, [0, 920, 80]);
}

#[test]
fn a_changed_virtual_host_is_swapped_alone() {
    let compile = |host| VirtualHost::compile(host).unwrap();
    let kept = compile(host("kept", &["kept.com"], vec![route(Criteria::path(prefix("/")))]));
    let old = compile(host("changed", &["*"], vec![route(Criteria::path(prefix("/old")))]));
    let table = Arc::new(RouteTable::new(TableConfig::default(), vec![kept.clone(), old]).unwrap());
    let pinned = find(&table, &get("/old")).unwrap();

    let new = compile(host("changed", &["*"], vec![route(Criteria::path(prefix("/new")))]));
    let next = Arc::new(table.with_virtual_hosts(vec![kept.clone(), new]).unwrap());
    assert!(find(&next, &get("/old")).is_none());
    assert_eq!(find(&next, &get("/new")).unwrap().virtual_host().name().as_ref(), "changed");
    assert!(Arc::ptr_eq(&next.virtual_hosts()[0], &kept));
    assert_eq!(pinned.route_config().criteria.path, prefix("/old"));

    let renamed =
        compile(host("changed", &["other.com"], vec![route(Criteria::path(prefix("/")))]));
    let next = Arc::new(next.with_virtual_hosts(vec![kept.clone(), renamed]).unwrap());
    assert!(find(&next, &get("/new")).is_none());
    assert!(find(&next, &request("GET", "other.com", "/", &[])).is_some());

    let clash = compile(host("clash", &["KEPT.com"], vec![]));
    let error = next.with_virtual_hosts(vec![kept, clash]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "virtual host `clash`: Only unique values for domains are permitted. Duplicate entry of domain KEPT.com"
    );
}

#[test]
fn bad_regexes_are_named() {
    let routes = vec![route(Criteria::path(prefix("/"))), route(Criteria::path(regex("/(")))];
    let error = VirtualHost::compile(host("v", &["*"], routes)).unwrap_err();
    assert_eq!((error.virtual_host.as_ref(), error.route), ("v", Some(1)));
    let huge = vec![route(Criteria::path(regex("((a{100}){100}){100}")))];
    assert!(VirtualHost::compile(host("v", &["*"], huge)).is_err());
}

fn apply(found: &RouteMatch, head: &mut RequestHead) {
    let info = StreamInfo::default();
    let cx = MutationContext { worker: 0, now_ns: 0, info: &info };
    found.apply_request(
        head,
        ApplyOptions { keeps_originals: true },
        cx,
        &mut MutationScratch::default(),
    );
}

fn text(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

#[test]
fn path_rewrites() {
    let regex_rewrite = || {
        PathRewrite::Regex(Substitution::new("^/service/([^/]+)(/.*)$", r"\2/instance/\1").unwrap())
    };
    let to = |text: &str| PathRewrite::Prefix(text.into());
    let rows: Vec<(PathMatch, PathRewrite, &str, &str)> = vec![
        (prefix("/api/"), to("/"), "/api/x?y=z", "/x?y=z"),
        (prefix("/api"), to("/"), "/api/x", "//x"),
        (prefix("/"), to("/v2/"), "/x", "/v2/x"),
        (exact("/a"), to("/b"), "/a?q", "/b?q"),
        (PathMatch::SeparatedPrefix("/a".into()), to("/b"), "/a/c", "/b/c"),
        (PathMatch::SeparatedPrefix("/a".into()), to("/b"), "/a?q", "/b?q"),
        (regex("/.*"), to("/b"), "/a/c?q", "/b?q"),
        (
            prefix("/"),
            regex_rewrite(),
            "/service/foo/v1/api?q=/service/x/y",
            "/v1/api/instance/foo?q=/service/x/y",
        ),
    ];
    for (path, rewrite, original, expected) in rows {
        let action = RouteAction { path_rewrite: Some(rewrite), ..forward() };
        let table =
            one_host(vec![RouteConfig::new(Criteria::path(path), Action::Route(Box::new(action)))]);
        let mut head = get(original);
        apply(&find(&table, &head).unwrap(), &mut head);
        assert_eq!(text(Some(head.path())).as_deref(), Some(expected), "{original}");
        assert_eq!(text(head.get(names::X_ENVOY_ORIGINAL_PATH)).as_deref(), Some(original));
    }
}

#[test]
fn host_rewrites() {
    let rows: Vec<(HostRewrite, &str)> = vec![
        (HostRewrite::Literal("b.com".into()), "b.com"),
        (HostRewrite::Header(HeaderName::parse("X-Host").unwrap()), "c.com"),
        (HostRewrite::Header(HeaderName::parse("X-None").unwrap()), "example.com"),
        (HostRewrite::PathRegex(Substitution::new("^/(.+)/.+$", r"\1").unwrap()), "d.com"),
    ];
    for (rewrite, expected) in rows {
        let mut action = RouteAction { host_rewrite: Some(rewrite), ..forward() };
        action.policy.append_x_forwarded_host = true;
        let table = one_host(vec![RouteConfig::new(
            Criteria::path(prefix("/")),
            Action::Route(Box::new(action)),
        )]);
        let mut head = request(
            "GET",
            "example.com",
            "/d.com/x?y",
            &[("x-host", "c.com"), ("x-forwarded-host", "first")],
        );
        apply(&find(&table, &head).unwrap(), &mut head);
        assert_eq!(text(Some(head.authority())).as_deref(), Some(expected));
        let forwarded = if expected == "example.com" { "first" } else { "first,example.com" };
        assert_eq!(text(head.get(names::X_FORWARDED_HOST)).as_deref(), Some(forwarded));
    }
}

fn setting(name: &str, value: &str) -> HeaderMutations {
    let mut mutations = HeaderMutations::default();
    mutations
        .add(name, value, AppendAction::OverwriteIfExistsOrAdd, false, &Environment::default())
        .unwrap();
    mutations
}

#[test]
fn header_changes_of_every_level() {
    let weighted = || WeightedEntry {
        request_headers: setting("x", "weighted"),
        host_rewrite: Some("w.com".into()),
        ..WeightedEntry::default()
    };
    let choice = WeightedClusters::new(vec![(cluster(1), 1)]).unwrap();
    for (most_specific_wins, has_weighted, expected) in
        [(false, true, "table"), (true, true, "weighted"), (true, false, "route")]
    {
        let mut action = RouteAction::new(ClusterChoice::Weighted(choice.clone()));
        action.weighted.extend(has_weighted.then(weighted));
        let mut route =
            RouteConfig::new(Criteria::path(prefix("/")), Action::Route(Box::new(action)));
        route.request_headers = setting("x", "route");
        route.response_headers = setting("y", "%REQ(:path)%");
        let mut host = host("v", &["*"], vec![route]);
        host.request_headers = setting("x", "host");
        let config = TableConfig {
            most_specific_header_mutations_wins: most_specific_wins,
            request_headers: setting("x", "table"),
            ..TableConfig::default()
        };
        let table =
            Arc::new(RouteTable::new(config, vec![VirtualHost::compile(host).unwrap()]).unwrap());
        let mut head = get("/p");
        let found = find(&table, &head).unwrap();
        apply(&found, &mut head);
        assert_eq!(text(head.get("x")).as_deref(), Some(expected));
        assert_eq!(head.authority(), if has_weighted { &b"w.com"[..] } else { b"example.com" });

        let (mut response, info) = (ResponseHead::new(200), StreamInfo::default());
        let cx = MutationContext { worker: 0, now_ns: 0, info: &info };
        found.apply_response(&mut response, Some(&head), cx, &mut MutationScratch::default());
        assert_eq!(text(response.get("y")).as_deref(), Some("/p"));
    }
}

#[test]
fn redirects() {
    let full = |path: &str| Some(RedirectPath::Full(path.into()));
    let base = Redirect::default;
    let rows: Vec<(Redirect, &str, &str, &str, &str)> = vec![
        (
            Redirect { scheme: Some("https".into()), ..base() },
            "http",
            "a.com",
            "/x?y",
            "https://a.com/x?y",
        ),
        (
            Redirect { scheme: Some("https".into()), ..base() },
            "http",
            "a.com:80",
            "/",
            "https://a.com/",
        ),
        (
            Redirect { scheme: Some("https".into()), ..base() },
            "http",
            "a.com:8080",
            "/",
            "https://a.com:8080/",
        ),
        (
            Redirect { scheme: Some("http".into()), ..base() },
            "https",
            "[::1]:443",
            "/",
            "http://[::1]/",
        ),
        (
            Redirect { host: Some("b.com".into()), ..base() },
            "http",
            "a.com:81",
            "/x",
            "http://b.com/x",
        ),
        (
            Redirect { port: Some(8443), ..base() },
            "https",
            "a.com:81",
            "/x",
            "https://a.com:8443/x",
        ),
        (Redirect { path: full("/new"), ..base() }, "http", "a.com", "/x?y", "http://a.com/new?y"),
        (
            Redirect { path: full("/new?z"), ..base() },
            "http",
            "a.com",
            "/x?y",
            "http://a.com/new?z",
        ),
        (
            Redirect { path: full("/new?z"), strip_query: true, ..base() },
            "http",
            "a.com",
            "/x?y",
            "http://a.com/new?z",
        ),
        (
            Redirect { path: full("/new"), strip_query: true, ..base() },
            "http",
            "a.com",
            "/x?y",
            "http://a.com/new",
        ),
        (Redirect { strip_query: true, ..base() }, "http", "a.com", "/x?y", "http://a.com/x"),
        (
            Redirect {
                path: Some(RedirectPath::Rewrite(PathRewrite::Prefix("/v2".into()))),
                ..base()
            },
            "http",
            "a.com",
            "/x/z?y",
            "http://a.com/v2/z?y",
        ),
        (
            Redirect {
                path: Some(RedirectPath::Rewrite(PathRewrite::Regex(
                    Substitution::new("x", "y").unwrap(),
                ))),
                strip_query: true,
                ..base()
            },
            "http",
            "a.com",
            "/x/x?x",
            "http://a.com/y/y",
        ),
    ];
    for (redirect, scheme, authority, path, expected) in rows {
        let action = Action::Redirect(Box::new(redirect.clone()));
        let table = one_host(vec![
            RouteConfig::new(Criteria::path(prefix("/x")), action.clone()),
            RouteConfig::new(Criteria::path(prefix("/")), action),
        ]);
        let head = request("GET", authority, path, &[("x-forwarded-proto", scheme)]);
        let found = find(&table, &head).unwrap();
        assert_eq!(text(Some(&found.location(&redirect, &head))).as_deref(), Some(expected));
    }
}

#[test]
fn a_virtual_host_may_want_tls() {
    let rows = [
        (RequireTls::All, "http", None, true),
        (RequireTls::All, "https", None, false),
        (RequireTls::ExternalOnly, "http", None, true),
        (RequireTls::ExternalOnly, "http", Some("true"), false),
        (RequireTls::None, "http", None, false),
    ];
    for (require_tls, proto, internal, expected) in rows {
        let table = table(vec![VirtualHostConfig {
            require_tls,
            ..host("v", &["*"], vec![route(Criteria::path(prefix("/")))])
        }]);
        let mut head = request("GET", "a.com", "/p", &[("x-forwarded-proto", proto)]);
        if let Some(internal) = internal {
            head.fields.set("x-envoy-internal", internal.as_bytes());
        }
        let found = find(&table, &head).unwrap();
        let location = match found.action() {
            Action::Redirect(redirect) => text(Some(&found.location(redirect, &head))),
            _ => None,
        };
        assert_eq!(
            location.as_deref(),
            expected.then_some("https://a.com/p"),
            "{require_tls:?} {proto} {internal:?}"
        );
    }
}
