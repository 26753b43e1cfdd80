//! Tables: a head and what is configured, and what becomes of it.

use std::sync::Arc;

use super::*;
use crate::http::config::ForwardClientCertDetails;
use crate::listener::config::CidrRange;
use crate::stream_info::{CertificateInfo, TlsInfo};

/// Rules that a test can change, with Envoy's defaults.
#[derive(Default)]
struct Rules {
    http1: Http1Options,
    underscores: UnderscoreAction,
    client_address: ClientAddress,
    path: PathNormalization,
    host: HostNormalization,
    request_id: RequestIdOptions,
    client_cert: ForwardClientCert,
    via: &'static str,
    user_agent: Option<UserAgent>,
    internal_only: Vec<HeaderName>,
}

impl Rules {
    fn as_head_rules(&self) -> HeadRules<'_> {
        HeadRules {
            http1: &self.http1,
            underscores: self.underscores,
            client_address: &self.client_address,
            path: &self.path,
            host: &self.host,
            request_id: &self.request_id,
            client_cert: &self.client_cert,
            via: self.via,
            user_agent: self.user_agent.as_ref(),
            internal_only: &self.internal_only,
        }
    }
}

#[test]
fn the_proxy_says_who_it_is_where_it_is_to() {
    let user_agent = UserAgent { cluster: "edge".into(), node: "one".into() };
    let rules = Rules { user_agent: Some(user_agent), ..Rules::default() };
    for (sent, expected) in [(&[][..], "edge"), (&[("user-agent", "curl")], "curl")] {
        let mut head = head(sent);
        run(&mut head, &rules).unwrap();
        assert_eq!(head.get(names::USER_AGENT), Some(expected.as_bytes()));
        let said = |name| head.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!(said(names::X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER).as_deref(), Some("edge"));
        assert_eq!(said(names::X_ENVOY_DOWNSTREAM_SERVICE_NODE).as_deref(), Some("one"));
    }
}

fn head(fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::new();
    head.set_method(b"GET");
    head.set_authority(b"a.com");
    head.set_path(b"/");
    for (name, value) in fields {
        head.fields.append(*name, value.as_bytes());
    }
    head
}

fn connection(peer: &str) -> ConnectionInfo {
    ConnectionInfo {
        remote_address: Some(peer.parse().unwrap()),
        local_address: Some("192.0.2.1:8080".parse().unwrap()),
        ..ConnectionInfo::default()
    }
}

fn run(head: &mut RequestHead, rules: &Rules) -> Result<Caller, Rejection> {
    sanitise(head, rules.as_head_rules(), &connection("10.0.0.9:1234"), &mut Random::new(1))
}

fn text(value: Option<&[u8]>) -> Option<String> {
    value.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// The fields, but those that every request gets.
fn fields(head: &RequestHead) -> Vec<(String, String)> {
    let own = ["x-forwarded-proto", "x-request-id"];
    let all = head
        .fields
        .iter()
        .map(|(name, value)| (text(Some(name)).unwrap(), text(Some(value)).unwrap()));
    all.filter(|(name, _)| !own.contains(&name.as_str())).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

#[test]
fn what_cannot_be_served_is_refused() {
    let http10 = |authority: &str| {
        let mut head = head(&[]);
        head.set_authority(authority.as_bytes());
        head.version = Version::Http10;
        head
    };
    let with_path = |path: &str| {
        let mut head = head(&[]);
        head.set_path(path.as_bytes());
        head
    };
    let defaults = Rules::default;
    let accepting = |default_host: &str| {
        let default_host_for_http_10 = default_host.into();
        Rules {
            http1: Http1Options {
                accept_http_10: true,
                default_host_for_http_10,
                ..Default::default()
            },
            ..defaults()
        }
    };
    let rejecting_underscores =
        || Rules { underscores: UnderscoreAction::RejectRequest, ..defaults() };
    let mut no_host = head(&[]);
    no_host.set_authority(b"");
    let mut connect = with_path("");
    connect.set_method(b"CONNECT");
    let table: Vec<(&str, RequestHead, Rules, Option<(u16, &str)>)> = vec![
        ("HTTP/1.0", http10("a"), defaults(), Some((426, "low_version"))),
        ("HTTP/1.0 accepted", http10("a"), accepting(""), None),
        ("HTTP/1.0 without a host", http10(""), accepting(""), Some((400, "missing_host_header"))),
        ("HTTP/1.0 with a default host", http10(""), accepting("b"), None),
        ("no host", no_host, defaults(), Some((400, "missing_host_header"))),
        ("no path", with_path(""), defaults(), Some((404, "missing_path_rejected"))),
        ("CONNECT", connect, defaults(), None),
        ("asterisk", with_path("*"), defaults(), Some((404, "absolute_path_rejected"))),
        ("fragment", with_path("/a#b"), defaults(), Some((400, "path_normalization_failed"))),
        (
            "underscore",
            head(&[("x_y", "1")]),
            rejecting_underscores(),
            Some((400, "http1.unexpected_underscore")),
        ),
        ("no underscore", head(&[("x-y", "_")]), rejecting_underscores(), None),
        (
            "protected field",
            head(&[("connection", "close, X-Forwarded-For")]),
            defaults(),
            Some((400, "http1.connection_header_rejected")),
        ),
        (
            "too many fields",
            head(&[("connection", "a,b,c,d,e,f,g,h,i,j,k")]),
            defaults(),
            Some((400, "http1.connection_header_rejected")),
        ),
    ];
    for (what, mut head, rules, expected) in table {
        let refused =
            run(&mut head, &rules).err().map(|rejection| (rejection.status, rejection.details));
        assert_eq!(refused, expected, "{what}");
    }
}

#[test]
fn fields_of_the_connection_go_no_further() {
    let table: &[(&[(&str, &str)], &[(&str, &str)])] = &[
        (&[("connection", "close"), ("keep-alive", "5"), ("accept", "*/*")], &[("accept", "*/*")]),
        (
            &[("connection", "X-Hop , keep-alive"), ("x-hop", "1"), ("x-hop", "2"), ("x-end", "3")],
            &[("x-end", "3")],
        ),
        (&[("proxy-connection", "keep-alive"), ("transfer-encoding", "chunked")], &[]),
        (
            &[
                ("upgrade", "h2c"),
                ("http2-settings", "x"),
                ("connection", "upgrade, http2-settings"),
            ],
            &[],
        ),
        (&[("te", "trailers")], &[("te", "trailers")]),
        (&[("te", "gzip, Trailers")], &[("te", "trailers")]),
        (&[("te", "gzip")], &[]),
    ];
    for (before, after) in table {
        let mut head = head(before);
        run(&mut head, &Rules::default()).unwrap();
        assert_eq!(fields(&head), pairs(after), "{before:?}");
    }
    let mut upgrade = head(&[("upgrade", "websocket"), ("connection", "upgrade")]);
    upgrade.is_upgrade = true;
    run(&mut upgrade, &Rules::default()).unwrap();
    assert_eq!(fields(&upgrade), pairs(&[("upgrade", "websocket"), ("connection", "upgrade")]));
}

#[test]
fn the_client_is_found() {
    let edge = |hops| ClientAddress {
        use_remote_address: true,
        xff_num_trusted_hops: hops,
        ..ClientAddress::default()
    };
    let inner = |hops| ClientAddress { xff_num_trusted_hops: hops, ..ClientAddress::default() };
    let quiet = ClientAddress { skip_xff_append: true, ..edge(0) };
    // Rules, x-forwarded-for before and after, the client's address where it is not the peer's.
    let table: Vec<(ClientAddress, &[&str], Option<&str>, Option<&str>)> = vec![
        (edge(0), &[], Some("10.0.0.9"), None),
        (edge(0), &["1.1.1.1"], Some("1.1.1.1,10.0.0.9"), None),
        (edge(1), &["1.1.1.1, 2.2.2.2"], Some("1.1.1.1, 2.2.2.2,10.0.0.9"), Some("2.2.2.2")),
        (edge(2), &["1.1.1.1", "2.2.2.2"], Some("1.1.1.1,2.2.2.2,10.0.0.9"), Some("1.1.1.1")),
        (edge(3), &["1.1.1.1, 2.2.2.2"], Some("1.1.1.1, 2.2.2.2,10.0.0.9"), None),
        (edge(1), &["unknown"], Some("unknown,10.0.0.9"), None),
        (quiet, &["1.1.1.1"], Some("1.1.1.1"), None),
        (inner(0), &[], None, None),
        (inner(0), &["1.1.1.1, 2.2.2.2"], Some("1.1.1.1, 2.2.2.2"), Some("2.2.2.2")),
        (inner(1), &["1.1.1.1, 2.2.2.2"], Some("1.1.1.1, 2.2.2.2"), Some("1.1.1.1")),
        (inner(2), &["1.1.1.1, 2.2.2.2"], Some("1.1.1.1, 2.2.2.2"), None),
        (inner(0), &["1.1.1.1, ::1"], Some("1.1.1.1, ::1"), Some("::1")),
    ];
    for (client_address, before, after, address) in table {
        let lines: Vec<_> = before.iter().map(|value| ("x-forwarded-for", *value)).collect();
        let mut head = head(&lines);
        let caller = run(&mut head, &Rules { client_address, ..Rules::default() }).unwrap();
        assert_eq!(text(head.fields.get(names::X_FORWARDED_FOR)).as_deref(), after, "{before:?}");
        assert_eq!(caller.address, address.map(|address| address.parse().unwrap()), "{before:?}");
    }
}

#[test]
fn only_trusted_callers_are_believed() {
    let said: &[(&str, &str)] = &[
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-max-retries", "9"),
        ("x-envoy-original-path", "/admin"),
        ("x-envoy-internal", "true"),
        ("x-secret", "1"),
        ("x-other", "2"),
    ];
    let range = |text: &str| CidrRange::new(text.parse().unwrap(), 8);
    let rules = |use_remote_address| Rules {
        client_address: ClientAddress {
            use_remote_address,
            skip_xff_append: true,
            internal_ranges: vec![range("10.0.0.0")],
            ..ClientAddress::default()
        },
        internal_only: vec![HeaderName::parse("X-Secret").unwrap()],
        ..Rules::default()
    };

    // The peer is internal and the first hop.
    let mut internal = head(said);
    let caller = run(&mut internal, &rules(true)).unwrap();
    assert!(caller.is_internal && !caller.is_edge);
    assert_eq!(text(internal.get("x-envoy-retry-on")).as_deref(), Some("5xx"));
    assert_eq!(text(internal.get("x-envoy-internal")).as_deref(), Some("true"));
    assert_eq!(text(internal.get("x-secret")).as_deref(), Some("1"));

    // It has passed a proxy that nobody vouches for: external, at the edge.
    let mut edge = head(&[said, &[("x-forwarded-for", "10.0.0.1")]].concat());
    let caller = run(&mut edge, &rules(true)).unwrap();
    assert!(!caller.is_internal && caller.is_edge);
    let left = pairs(&[
        ("x-other", "2"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-envoy-external-address", "10.0.0.9"),
    ]);
    assert_eq!(fields(&edge), left);

    // Behind our own proxies what they say of paths is believed, retries are not.
    let mut behind = head(said);
    let caller = run(&mut behind, &rules(false)).unwrap();
    assert!(!caller.is_internal && !caller.is_edge);
    assert_eq!(fields(&behind), pairs(&[("x-envoy-original-path", "/admin"), ("x-other", "2")]));

    let mut single = head(&[("x-forwarded-for", "10.2.3.4"), ("x-envoy-retry-on", "5xx")]);
    assert!(run(&mut single, &rules(false)).unwrap().is_internal);
    assert!(single.fields.contains(names::X_ENVOY_RETRY_ON));
}

#[test]
fn schemes_are_told() {
    let edge = || ClientAddress { use_remote_address: true, ..ClientAddress::default() };
    let trusted = || ClientAddress { xff_num_trusted_hops: 1, ..edge() };
    let overwriting = || ClientAddress { scheme_overwrite: Some("https".into()), ..edge() };
    let inner = ClientAddress::default;
    let table: Vec<(ClientAddress, bool, Option<&str>, &str, &str)> = vec![
        (edge(), false, Some("https"), "http", "http"),
        (edge(), true, None, "https", "https"),
        (trusted(), false, Some("https"), "https", "https"),
        (inner(), false, Some("HTTPS"), "HTTPS", "https"),
        (inner(), true, Some("ftp"), "ftp", "https"),
        (overwriting(), false, Some("http"), "https", "https"),
    ];
    for (client_address, has_tls, before, proto, scheme) in table {
        let mut head = head(&[]);
        if let Some(before) = before {
            head.fields.set(names::X_FORWARDED_PROTO, before.as_bytes());
        }
        let connection = ConnectionInfo {
            tls: has_tls.then(|| Arc::new(TlsInfo::default())),
            ..connection("10.0.0.9:1")
        };
        let rules = Rules { client_address, ..Rules::default() };
        sanitise(&mut head, rules.as_head_rules(), &connection, &mut Random::new(1)).unwrap();
        assert_eq!(text(head.get(names::X_FORWARDED_PROTO)).as_deref(), Some(proto), "{before:?}");
        assert_eq!(text(head.get(":scheme")).as_deref(), Some(scheme), "{before:?}");
    }
    let mut ported = head(&[]);
    let rules = Rules {
        client_address: ClientAddress { append_x_forwarded_port: true, ..edge() },
        ..Rules::default()
    };
    run(&mut ported, &rules).unwrap();
    assert_eq!(text(ported.get(names::X_FORWARDED_PORT)).as_deref(), Some("8080"));
}

#[test]
fn hosts_are_trimmed() {
    let any = || HostNormalization { strip_any_port: true, ..HostNormalization::default() };
    let matching =
        || HostNormalization { strip_matching_port: true, ..HostNormalization::default() };
    let dot = || HostNormalization { strip_trailing_dot: true, ..HostNormalization::default() };
    let table = [
        (any(), "a.com:99", "a.com"),
        (any(), "[::1]:99", "[::1]"),
        (any(), "a.com", "a.com"),
        (any(), "a.com:x", "a.com:x"),
        (any(), "a.com:", "a.com:"),
        (any(), "a.com:99999", "a.com"),
        (matching(), "a.com:8080", "a.com"),
        (matching(), "a.com:8081", "a.com:8081"),
        (dot(), "a.com.", "a.com"),
        (dot(), "a.com.:99", "a.com:99"),
        (HostNormalization { strip_trailing_dot: true, ..any() }, "a.com.:99", "a.com"),
        (HostNormalization::default(), "a.com.:8080", "a.com.:8080"),
    ];
    for (host, before, after) in table {
        let mut head = head(&[]);
        head.set_authority(before.as_bytes());
        run(&mut head, &Rules { host, ..Rules::default() }).unwrap();
        assert_eq!(text(Some(head.authority())).as_deref(), Some(after), "{before}");
    }
    let mut connect = head(&[]);
    connect.set_method(b"CONNECT");
    connect.set_authority(b"a.com:443");
    run(&mut connect, &Rules { host: any(), ..Rules::default() }).unwrap();
    assert_eq!(connect.authority(), b"a.com:443");
}

#[test]
fn request_ids() {
    let id = "6b29fc40-ca47-1067-b31d-00dd010662da";
    let options = |generate, preserve_external| RequestIdOptions {
        generate,
        preserve_external,
        ..Default::default()
    };
    // Options, at the edge, given, kept (None: no id at all).
    let table = [
        (options(true, false), true, Some(id), Some(false)),
        (options(true, true), true, Some(id), Some(true)),
        (options(true, false), false, Some(id), Some(true)),
        (options(true, false), false, None, Some(false)),
        (options(true, true), true, Some(""), Some(false)),
        (options(false, false), true, Some(id), Some(true)),
        (options(false, false), true, None, None),
    ];
    for (request_id, use_remote_address, given, kept) in table {
        let mut head = head(&[]);
        if let Some(given) = given {
            head.fields.set(names::X_REQUEST_ID, given.as_bytes());
        }
        let client_address = ClientAddress { use_remote_address, ..ClientAddress::default() };
        run(&mut head, &Rules { request_id, client_address, ..Rules::default() }).unwrap();
        let now = text(head.get(names::X_REQUEST_ID));
        assert_eq!(now.is_some(), kept.is_some());
        assert_eq!(now.as_deref() == given && now.is_some(), kept == Some(true), "{given:?}");
        assert!(now.is_none_or(|now| now.len() == 36));
    }
}

#[test]
fn underscores_are_dropped_and_via_is_added() {
    let mut head = head(&[("x_y", "1"), ("via", "1.0 b"), ("x-y", "2")]);
    run(
        &mut head,
        &Rules { underscores: UnderscoreAction::DropHeader, via: "1.1 a", ..Rules::default() },
    )
    .unwrap();
    assert_eq!(fields(&head), pairs(&[("via", "1.0 b, 1.1 a"), ("x-y", "2")]));
}

#[test]
fn client_certificates_are_told() {
    use ForwardClientCertDetails::*;
    let peer = CertificateInfo {
        subject: "CN=\"a\",O=b".into(),
        fingerprint_256: "abcd".into(),
        uri_sans: vec!["spiffe://td/ns/a/sa/b".into()],
        dns_sans: vec!["a.example".into(), "evil;By=x".into()],
        ..CertificateInfo::default()
    };
    let local = CertificateInfo {
        uri_sans: vec!["spiffe://td/ns/a/sa/me".into()],
        ..CertificateInfo::default()
    };
    let mutual = TlsInfo {
        peer: Some(peer),
        local: Some(Arc::new(local)),
        peer_chain: vec![vec![0xfb, 0xff, 0xfe, 0x01].into()],
        ..TlsInfo::default()
    };
    let rules = |details| ForwardClientCert {
        details,
        subject: true,
        uri: true,
        dns: true,
        ..Default::default()
    };
    let ours = "By=spiffe://td/ns/a/sa/me;Hash=abcd;Subject=\"CN=\\\"a\\\",O=b\";URI=spiffe://td/ns/a/sa/b;DNS=a.example;DNS=\"evil;By=x\"";
    let both = format!("old,{ours}");
    let table = [
        (rules(Sanitize), true, None),
        (rules(ForwardOnly), true, Some("old")),
        (rules(ForwardOnly), false, None),
        (rules(AppendForward), true, Some(both.as_str())),
        (rules(AppendForward), false, None),
        (rules(SanitizeSet), true, Some(ours)),
        (rules(SanitizeSet), false, None),
        (rules(AlwaysForwardOnly), false, Some("old")),
    ];
    for (client_cert, is_mutual, expected) in table {
        let mut head = head(&[("x-forwarded-client-cert", "old")]);
        let tls = if is_mutual { mutual.clone() } else { TlsInfo::default() };
        let connection = ConnectionInfo { tls: Some(Arc::new(tls)), ..connection("10.0.0.9:1") };
        let rules = Rules { client_cert: client_cert.clone(), ..Rules::default() };
        sanitise(&mut head, rules.as_head_rules(), &connection, &mut Random::new(1)).unwrap();
        assert_eq!(
            text(head.get(names::X_FORWARDED_CLIENT_CERT)).as_deref(),
            expected,
            "{client_cert:?} {is_mutual}"
        );
    }
    let mut with_pem = head(&[]);
    let client_cert = ForwardClientCert { details: SanitizeSet, cert: true, ..Default::default() };
    client_cert::forward(&mut with_pem, &client_cert, Some(&mutual));
    let told = text(with_pem.get(names::X_FORWARDED_CLIENT_CERT)).unwrap();
    assert!(told.ends_with(r#"Cert="-----BEGIN%20CERTIFICATE-----%0A%2B%2F%2F%2BAQ%3D%3D%0A-----END%20CERTIFICATE-----%0A""#), "{told}");
}

#[test]
fn responses_are_finished() {
    let request = head(&[("x-request-id", "id")]);
    let request_id = RequestIdOptions { always_set_in_response: true, ..Default::default() };
    let rules = Rules { request_id, via: "1.1 a", ..Rules::default() };
    let mut response = ResponseHead::new(200);
    for name in
        ["connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection", "etag"]
    {
        response.fields.append(name, b"x");
    }
    finish_response(&mut response, &request, rules.as_head_rules());
    let after: Vec<_> = response
        .fields
        .iter()
        .map(|(name, value)| (text(Some(name)).unwrap(), text(Some(value)).unwrap()))
        .collect();
    assert_eq!(after, pairs(&[("etag", "x"), ("x-request-id", "id"), ("via", "1.1 a")]));
}
