use super::*;

fn index(criteria: Vec<FilterChainMatch>) -> FilterChainIndex {
    FilterChainIndex { criteria, only_catch_all: false }
}

fn names(names: &[&str]) -> FilterChainMatch {
    FilterChainMatch {
        server_names: names.iter().map(|n| (*n).to_owned()).collect(),
        ..Default::default()
    }
}

fn facts(server_name: &str) -> ConnectionFacts<'_> {
    ConnectionFacts {
        local: Some(([10, 0, 0, 1], 443).into()),
        direct_remote: Some(([192, 168, 1, 9], 5555).into()),
        remote: Some(([192, 168, 1, 9], 5555).into()),
        server_name,
        is_tls: true,
        application_protocols: &[],
    }
}

#[test]
fn the_most_specific_server_name_wins() {
    let index = index(vec![
        FilterChainMatch::default(),
        names(&["*.example.com"]),
        names(&["www.example.com"]),
        names(&["*.eu.example.com", "other.org"]),
    ]);
    assert_eq!(index.find(&facts("")), Some(0));
    assert_eq!(index.find(&facts("example.com")), Some(0));
    assert_eq!(index.find(&facts("api.example.com")), Some(1));
    assert_eq!(index.find(&facts("www.example.com")), Some(2));
    assert_eq!(index.find(&facts("a.b.eu.example.com")), Some(3));
    assert_eq!(index.find(&facts("other.org")), Some(3));
}

#[test]
fn an_earlier_criterion_decides_before_a_later_one() {
    // The port comes before the name: the chain on the port wins although the other knows the name.
    let port = FilterChainMatch { destination_port: Some(443), ..Default::default() };
    let index = index(vec![names(&["www.example.com"]), port]);
    assert_eq!(index.find(&facts("www.example.com")), Some(1));
}

#[test]
fn there_is_no_way_back() {
    // Port 443 with another SNI only: the catch-all is not reached any more.
    let port = FilterChainMatch {
        destination_port: Some(443),
        server_names: vec!["a.com".into()],
        ..Default::default()
    };
    let index = index(vec![FilterChainMatch::default(), port]);
    assert_eq!(index.find(&facts("b.com")), None);
    assert_eq!(index.find(&facts("a.com")), Some(1));
}

#[test]
fn transport_and_application_protocols() {
    let tls = FilterChainMatch { transport_protocol: "tls".into(), ..Default::default() };
    let istio = FilterChainMatch {
        transport_protocol: "tls".into(),
        application_protocols: vec!["istio-http/1.1".into(), "istio".into()],
        ..Default::default()
    };
    let raw = FilterChainMatch { transport_protocol: "raw_buffer".into(), ..Default::default() };
    let index = index(vec![tls, istio, raw]);
    let mut facts = facts("");
    assert_eq!(index.find(&facts), Some(0));
    facts.application_protocols = &[b"h2", b"istio"];
    assert_eq!(index.find(&facts), Some(1));
    facts.is_tls = false;
    facts.application_protocols = &[];
    assert_eq!(index.find(&facts), Some(2));
}

#[test]
fn sources() {
    let near = FilterChainMatch { source_type: SourceType::SameIpOrLoopback, ..Default::default() };
    let net = FilterChainMatch {
        source_prefix_ranges: vec![CidrRange::new([192, 168, 0, 0].into(), 16)],
        ..Default::default()
    };
    let longer = FilterChainMatch {
        source_prefix_ranges: vec![CidrRange::new([192, 168, 1, 0].into(), 24)],
        ..Default::default()
    };
    let index = index(vec![near, net, longer]);
    assert_eq!(index.find(&facts("")), Some(2));
    let mut other = facts("");
    other.remote = Some(([192, 168, 2, 1], 1).into());
    assert_eq!(index.find(&other), Some(1));
    other.remote = Some(([127, 0, 0, 1], 1).into());
    assert_eq!(index.find(&other), Some(0));
    other.remote = Some(([8, 8, 8, 8], 1).into());
    assert_eq!(index.find(&other), None);
}

#[test]
fn chains_that_one_connection_matches_equally_well_are_refused() {
    let ambiguous = |matches: Vec<FilterChainMatch>| refuse_ambiguous(&matches).err();
    let on =
        |port: u16, list: &[&str]| FilterChainMatch { destination_port: Some(port), ..names(list) };
    let first_and_last = Some(AmbiguousMatch { first: 0, second: 1 });
    assert_eq!(ambiguous(vec![names(&["a.com", "b.com"]), names(&["b.com"])]), first_and_last);
    assert_eq!(ambiguous(vec![names(&[]), names(&[])]), first_and_last);
    assert_eq!(ambiguous(vec![names(&["a.com", "b.com"]), names(&["c.com"])]), None);
    assert_eq!(ambiguous(vec![names(&["a.com", "a.com"])]), None, "alone");
    assert_eq!(ambiguous(vec![names(&["a.com"]), names(&["*.com"]), names(&[])]), None);
    assert_eq!(ambiguous(vec![on(1, &["a.com"]), on(2, &["a.com"])]), None);
    let alpn = |protocols: &[&str]| FilterChainMatch {
        application_protocols: protocols.iter().map(|name| (*name).to_owned()).collect(),
        ..names(&["a.com", "b.com"])
    };
    assert_eq!(ambiguous(vec![alpn(&["h2", "http/1.1"]), alpn(&["http/1.1"])]), first_and_last);
    assert_eq!(ambiguous(vec![alpn(&["h2"]), alpn(&["http/1.1"])]), None);
}
