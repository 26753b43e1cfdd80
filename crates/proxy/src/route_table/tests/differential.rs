//! Seeded random tables and requests: the compiled table must find what a walk from the first route to the last finds.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::string_matcher::full_match_regex;

/// A short path over few letters, so that routes and requests meet often.
fn path(random: &mut StdRng) -> String {
    let segments = random.random_range(0..4);
    let mut path = String::from("/");
    for segment in 0..segments {
        if segment > 0 {
            path.push('/');
        }
        for _ in 0..random.random_range(1..3) {
            path.push(*[b'a', b'b', b'A'].get(random.random_range(0..3)).unwrap() as char);
        }
    }
    path
}

fn criteria(random: &mut StdRng) -> Criteria {
    let literal: Box<str> = path(random).into();
    let path = match random.random_range(0..10) {
        0..=2 => PathMatch::Prefix(literal),
        3..=5 => PathMatch::Exact(literal),
        6 => PathMatch::SeparatedPrefix(literal.trim_end_matches('/').into()),
        7 => PathMatch::Regex(format!("{literal}.*").into()),
        8 => PathMatch::Regex(format!("(?i){}[ab/]+", literal.trim_end_matches('/')).into()),
        _ => PathMatch::Connect,
    };
    let mut criteria = Criteria { case_sensitive: random.random_bool(0.7), ..Criteria::path(path) };
    if random.random_bool(0.4) {
        criteria.headers.push(HeaderMatcher {
            invert: random.random_bool(0.3),
            ..matcher("x", ValueMatch::String(StringMatcher::exact("1")))
        });
    }
    if random.random_bool(0.2) {
        criteria.query.push(QueryMatcher { name: "q".into(), value: QueryValue::Present(true) });
    }
    if random.random_bool(0.1) {
        criteria.fraction =
            Some(Fraction { numerator: random.random_range(0..100), denominator: 100 });
    }
    criteria
}

fn domain(random: &mut StdRng) -> String {
    let name = ["a.com", "b.a.com", "c.b.a.com", "a.org", "b.org"][random.random_range(0..5)];
    match random.random_range(0..6) {
        0..=2 => name.to_owned(),
        3 => format!("*.{name}"),
        4 => format!("{}.*", name.split('.').next().unwrap()),
        _ => "*".to_owned(),
    }
}

/// Virtual hosts whose domains are their own.
fn hosts(random: &mut StdRng) -> Vec<VirtualHostConfig> {
    let mut taken = std::collections::HashSet::new();
    (0..random.random_range(1..5))
        .map(|number| {
            let domains: Vec<String> = (0..3)
                .map(|_| domain(random))
                .filter(|domain| taken.insert(domain.clone()))
                .collect();
            let routes = (0..random.random_range(0..30)).map(|_| route(criteria(random))).collect();
            VirtualHostConfig {
                name: number.to_string().into(),
                domains,
                routes,
                ..VirtualHostConfig::default()
            }
        })
        .collect()
}

/// Envoy's rules, read aloud.
fn naive_host<'h>(
    hosts: &'h [VirtualHostConfig],
    authority: &str,
) -> Option<&'h VirtualHostConfig> {
    let authority = authority.to_ascii_lowercase();
    let best = |rank: &dyn Fn(&str) -> Option<usize>| {
        let all =
            hosts.iter().flat_map(|host| host.domains.iter().map(move |domain| (host, domain)));
        all.filter_map(|(host, domain)| Some((rank(domain)?, host)))
            .max_by_key(|(rank, _)| *rank)
            .map(|(_, host)| host)
    };
    best(&|domain| (domain == authority).then_some(1))
        .or_else(|| {
            best(&|domain| {
                let suffix = domain.strip_prefix('*').filter(|suffix| !suffix.is_empty())?;
                (authority.ends_with(suffix) && authority.len() > suffix.len())
                    .then_some(suffix.len())
            })
        })
        .or_else(|| {
            best(&|domain| {
                let prefix = domain.strip_suffix('*').filter(|prefix| !prefix.is_empty())?;
                (authority.starts_with(prefix) && authority.len() > prefix.len())
                    .then_some(prefix.len())
            })
        })
        .or_else(|| best(&|domain| (domain == "*").then_some(1)))
}

fn naive_path(criteria: &Criteria, head: &RequestHead) -> bool {
    let path = String::from_utf8_lossy(head.path())
        .split(['?', '#'])
        .next()
        .unwrap_or_default()
        .to_owned();
    if criteria.path == PathMatch::Connect {
        return head.method() == b"CONNECT";
    }
    if path.is_empty() {
        return false;
    }
    let fold = |text: &str| {
        if criteria.case_sensitive { text.to_owned() } else { text.to_ascii_lowercase() }
    };
    match &criteria.path {
        PathMatch::Prefix(prefix) => fold(&path).starts_with(&fold(prefix)),
        PathMatch::Exact(exact) => fold(&path) == fold(exact),
        PathMatch::SeparatedPrefix(prefix) => fold(&path)
            .strip_prefix(&fold(prefix))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        PathMatch::Regex(pattern) => full_match_regex(pattern).unwrap().is_match(path.as_bytes()),
        PathMatch::Connect => unreachable!(),
    }
}

fn naive(
    hosts: &[VirtualHostConfig],
    head: &RequestHead,
    input: RouteInput<'_>,
) -> Option<(Arc<str>, usize)> {
    let host = naive_host(hosts, std::str::from_utf8(head.authority()).unwrap())?;
    let (_, query) = super::super::criteria::split_path(head.path());
    let route = host.routes.iter().position(|route| {
        naive_path(&route.criteria, head) && route.criteria.hold(head, query, input)
    })?;
    Some((Arc::clone(&host.name), route))
}

#[test]
fn compiled_tables_find_what_a_walk_finds() {
    let (mut found, mut missed) = (0, 0);
    let mut scratch = RouteScratch::default();
    for seed in 0..60 {
        let mut random = StdRng::seed_from_u64(seed);
        let configs = hosts(&mut random);
        let table = table(configs.clone());
        for _ in 0..100 {
            let authority =
                ["a.com", "B.a.com", "c.b.a.com", "x.c.b.a.com", "a.org", "b.net", "other"]
                    [random.random_range(0..7)];
            let query = ["", "?q", "?p=1#q", "#q?"][random.random_range(0..4)];
            let fields: &[_] = [&[("x", "1")][..], &[("x", "2")], &[("x", "2"), ("x", "1")], &[]]
                [random.random_range(0..4)];
            let head = match random.random_bool(0.1) {
                true => request("CONNECT", authority, "", fields),
                false => {
                    request("GET", authority, &format!("{}{query}", path(&mut random)), fields)
                }
            };
            let input = RouteInput { random: random.random(), tls: None };
            let expected = naive(&configs, &head, input);
            let compiled = table.route(&head, input, &mut scratch).map(|found| {
                (Arc::clone(found.virtual_host().name()), found.route_index().unwrap())
            });
            assert_eq!(compiled, expected, "seed {seed}: {head:?}");
            *if expected.is_some() { &mut found } else { &mut missed } += 1;
        }
    }
    assert!(
        found > 1000 && missed > 1000,
        "the tables are too easy: {found} found, {missed} missed"
    );
}
