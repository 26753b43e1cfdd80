use std::collections::BTreeMap;
use std::time::Duration;

use api::text::{Sources, load};

use super::*;
use crate::access_log::sink::{BufferOptions, Sinks};

/// An environment with what is built in.
pub fn environment() -> Environment {
    let registry = telemetry::stats::Registry::new();
    Environment {
        schema: Default::default(),
        extensions: registry::Extensions::new(),
        sinks: Sinks::new(BufferOptions::default(), registry.clone()),
        registry,
        node: node::NodeInfo::default(),
        formats: Default::default(),
        listener_limits: BTreeMap::new(),
        variable: |_| None,
        parts: Default::default(),
    }
}

/// A snapshot with a clock of its own.
struct Fixture {
    snapshot: Snapshot,
    now: Instant,
}

impl Fixture {
    fn new() -> Self {
        Self { snapshot: Snapshot::new(environment()), now: Instant::now() }
    }

    /// Applies resources given as YAML; says what was rejected.
    fn apply(&mut self, kind: ResourceKind, resources: &[(&str, &str)]) -> Vec<String> {
        let schema = api::schema::Schema::new();
        let message = schema.message_of_type_url(kind.type_url()).unwrap();
        let added = resources.iter().map(|(name, yaml)| {
            let loaded = load(&schema, message, &Sources::one("test", yaml));
            assert_eq!(loaded.all_problems(), [], "{yaml}");
            Resource { name: (*name).to_owned(), version: "1".to_owned(), bytes: loaded.bytes }
        });
        let update = Update { kind, added: added.collect(), removed: Vec::new() };
        let rejected = self.snapshot.apply(&update, &mut NoSockets, self.now);
        rejected
            .iter()
            .map(|rejected| format!("{}: {}", rejected.name, rejected.problems[0]))
            .collect()
    }

    fn remove(&mut self, kind: ResourceKind, name: &str) {
        let update = Update { kind, added: Vec::new(), removed: vec![name.to_owned()] };
        assert!(self.snapshot.apply(&update, &mut NoSockets, self.now).is_empty());
    }

    /// What the workers are told, in short.
    fn settle(&mut self) -> Vec<String> {
        let effects = self.snapshot.settle(self.now);
        let changes = effects.changes.iter().map(|change| match change {
            Change::Cluster(_, Some(cluster)) => format!("cluster {}", cluster.config.name),
            Change::Cluster(at, None) => format!("no cluster {}", at.slot),
            Change::Hosts(_, hosts) => {
                let hosts: Vec<_> =
                    hosts.hosts.iter().map(|host| host.address_text.to_string()).collect();
                format!("hosts {}", hosts.join(" "))
            }
            Change::RouteTable(_, Some(table)) => {
                let hosts: Vec<_> =
                    table.virtual_hosts().iter().map(|host| host.name().to_string()).collect();
                format!("routes {}", hosts.join(" "))
            }
            Change::RouteTable(at, None) => format!("no routes {}", at.slot),
        });
        let listeners = effects.listeners.iter().map(|effect| match effect {
            ListenerEffect::Add(id, config) => format!("add {} {}", id.0, config.name),
            ListenerEffect::Update(id, config) => format!("update {} {}", id.0, config.name),
            ListenerEffect::Remove(id) => format!("remove {}", id.0),
        });
        changes.chain(listeners).collect()
    }

    fn wanted(&self, kind: ResourceKind) -> Vec<String> {
        let subscriptions = self.snapshot.subscriptions();
        let names = subscriptions.wanted.get(&Source::Ads).and_then(|kinds| kinds.get(&kind));
        match names {
            Some(Names::Named(names)) => names.iter().map(|name| name.to_string()).collect(),
            Some(Names::Wildcard) => vec!["*".to_owned()],
            None => Vec::new(),
        }
    }
}

const EDS: &str = "{name: c, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}}";

fn endpoints(ports: &[u16]) -> String {
    let endpoint = |port: &u16| {
        format!(
            "{{endpoint: {{address: {{socket_address: {{address: 10.0.0.1, port_value: {port}}}}}}}}}"
        )
    };
    let list: Vec<_> = ports.iter().map(endpoint).collect();
    format!("{{cluster_name: c, endpoints: [{{lb_endpoints: [{}]}}]}}", list.join(","))
}

fn listener(routes: &str) -> String {
    format!(
        "{{name: l, address: {{socket_address: {{address: 127.0.0.1, port_value: 80}}}}, filter_chains: [{{filters: [{{name: h, typed_config: {{
        '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
        stat_prefix: s, {routes}, http_filters: [{{name: r, typed_config: {{
        '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]}}"
    )
}

const RDS: &str = "rds: {route_config_name: rc, config_source: {ads: {}}}";

#[test]
fn a_cluster_serves_once_its_endpoints_are_there() {
    let mut fixture = Fixture::new();
    assert!(fixture.apply(ResourceKind::Cluster, &[("c", EDS)]).is_empty());
    assert_eq!(fixture.settle(), [""; 0]);
    assert_eq!(fixture.wanted(ResourceKind::Endpoints), ["c"]);
    fixture.apply(ResourceKind::Endpoints, &[("c", &endpoints(&[1, 2]))]);
    assert_eq!(fixture.settle(), ["cluster c", "hosts 10.0.0.1:1 10.0.0.1:2"]);
    fixture.apply(ResourceKind::Endpoints, &[("c", &endpoints(&[2, 3]))]);
    assert_eq!(fixture.settle(), ["hosts 10.0.0.1:2 10.0.0.1:3"]);
    fixture.remove(ResourceKind::Cluster, "c");
    assert_eq!(fixture.settle(), ["no cluster 0"]);
    assert_eq!(fixture.wanted(ResourceKind::Endpoints), [""; 0]);
}

#[test]
fn hosts_keep_their_identity_across_updates() {
    let mut fixture = Fixture::new();
    fixture.apply(ResourceKind::Cluster, &[("c", EDS)]);
    let hosts = |fixture: &mut Fixture, ports: &[u16]| {
        fixture.apply(ResourceKind::Endpoints, &[("c", &endpoints(ports))]);
        let effects = fixture.snapshot.settle(fixture.now);
        let hosts = effects.changes.iter().find_map(|change| match change {
            Change::Hosts(_, hosts) => Some(Arc::clone(hosts)),
            _ => None,
        });
        hosts.unwrap()
    };
    let before = hosts(&mut fixture, &[1, 2]);
    let after = hosts(&mut fixture, &[2, 3]);
    assert!(Arc::ptr_eq(&before.hosts[1], &after.hosts[0]));
}

#[test]
fn identical_configuration_is_no_change() {
    let mut fixture = Fixture::new();
    let cluster = "{name: c, metadata: {filter_metadata: {a: {x: 1}, b: {y: 2}}}}";
    fixture.apply(ResourceKind::Cluster, &[("c", cluster)]);
    assert_eq!(fixture.settle(), ["cluster c", "hosts "]);
    let same = "{metadata: {filter_metadata: {b: {y: 2}, a: {x: 1}}}, name: c}";
    fixture.apply(ResourceKind::Cluster, &[("c", same)]);
    fixture.apply(ResourceKind::Cluster, &[("c", cluster)]);
    assert_eq!(fixture.settle(), [""; 0]);
}

#[test]
fn after_the_fetch_timeout_it_goes_on_without() {
    let mut fixture = Fixture::new();
    fixture.apply(ResourceKind::Cluster, &[("c", EDS)]);
    fixture.settle();
    let deadline = fixture.snapshot.next_deadline().unwrap();
    assert_eq!(deadline - fixture.now, Duration::from_secs(15));
    fixture.now = deadline;
    assert_eq!(fixture.settle(), ["cluster c", "hosts "]);
    assert!(fixture.snapshot.is_warm());
}

#[test]
fn a_listener_waits_for_clusters_and_then_for_its_routes() {
    let mut fixture = Fixture::new();
    fixture.apply(ResourceKind::Cluster, &[("c", EDS)]);
    fixture.apply(ResourceKind::Listener, &[("l", &listener(RDS))]);
    assert_eq!(fixture.wanted(ResourceKind::Routes), ["rc"]);
    let routes = "{name: rc, virtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: c}}]}]}";
    fixture.apply(ResourceKind::Routes, &[("rc", routes)]);
    assert_eq!(fixture.settle(), ["routes v"], "clusters first");
    fixture.apply(ResourceKind::Endpoints, &[("c", &endpoints(&[1]))]);
    assert_eq!(fixture.settle(), ["cluster c", "hosts 10.0.0.1:1", "add 1 l"]);
    assert_eq!(fixture.apply(ResourceKind::Listener, &[("l", &listener(RDS))]), [""; 0]);
    assert_eq!(fixture.settle(), [""; 0]);
    let changed = listener(&format!("{RDS}, server_name: x"));
    fixture.apply(ResourceKind::Listener, &[("l", &changed)]);
    assert_eq!(fixture.settle(), ["update 1 l"]);
    fixture.remove(ResourceKind::Listener, "l");
    assert_eq!(fixture.settle(), ["no routes 0", "remove 1"]);
}

#[test]
fn a_new_address_is_a_new_socket_and_the_old_one_goes() {
    let mut fixture = Fixture::new();
    let inline = "route_config: {name: i}";
    fixture.apply(ResourceKind::Listener, &[("l", &listener(inline))]);
    assert_eq!(fixture.settle(), ["add 1 l"]);
    let moved = listener(inline).replace("port_value: 80", "port_value: 81");
    fixture.apply(ResourceKind::Listener, &[("l", &moved)]);
    assert_eq!(fixture.settle(), ["add 2 l", "remove 1"]);
    let clash = moved.replace("name: l,", "name: m,");
    assert_eq!(
        fixture.apply(ResourceKind::Listener, &[("m", &clash)]),
        ["m: address: 127.0.0.1:81 is the address of listener `l`"]
    );
}

#[test]
fn virtual_hosts_come_one_by_one() {
    let mut fixture = Fixture::new();
    fixture.apply(ResourceKind::Listener, &[("l", &listener(RDS))]);
    fixture.apply(ResourceKind::Routes, &[("rc", "{name: rc, vhds: {config_source: {ads: {}}}}")]);
    assert_eq!(fixture.settle(), ["no routes 0"], "its virtual hosts are still to come");
    assert_eq!(fixture.wanted(ResourceKind::VirtualHosts), ["rc"]);
    let host = |name: &str, domain: &str| format!("{{name: {name}, domains: [{domain}]}}");
    let both = [("rc/a", host("a", "a.com")), ("rc/b", host("b", "b.com"))];
    let both: Vec<_> = both.iter().map(|(name, yaml)| (*name, yaml.as_str())).collect();
    assert_eq!(fixture.apply(ResourceKind::VirtualHosts, &both), [""; 0]);
    assert_eq!(fixture.settle(), ["routes a b", "add 1 l"]);
    assert_eq!(
        fixture.apply(ResourceKind::VirtualHosts, &[("rc/c", &host("c", "a.com"))]).len(),
        1,
        "two hosts cannot have one domain"
    );
    fixture.remove(ResourceKind::VirtualHosts, "rc/a");
    assert_eq!(fixture.settle(), ["routes b"]);
    fixture.remove(ResourceKind::VirtualHosts, "rc");
    assert_eq!(fixture.settle(), ["routes "]);
}

#[test]
fn the_good_is_taken_and_the_bad_keeps_its_last_version() {
    let mut fixture = Fixture::new();
    fixture.apply(ResourceKind::Cluster, &[("a", "{name: a}"), ("b", "{name: b}")]);
    fixture.settle();
    let rejected = fixture.apply(
        ResourceKind::Cluster,
        &[("a", "{name: a, connect_timeout: 1s}"), ("b", "{name: b, lb_policy: MAGLEV}")],
    );
    assert_eq!(rejected.len(), 1);
    assert!(
        rejected[0].starts_with("b: lb_policy: `lb_policy: MAGLEV` is not supported yet"),
        "{rejected:?}"
    );
    assert_eq!(fixture.settle(), ["cluster a", "hosts "]);
}

#[test]
fn secrets_are_waited_for_and_replaced_without_a_change_of_the_cluster() {
    let mut fixture = Fixture::new();
    let tls = "{name: c, transport_socket: {name: t, typed_config: {
        '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext,
        common_tls_context: {tls_certificate_sds_secret_configs: [{name: s, sds_config: {ads: {}}}]}}}}";
    assert_eq!(fixture.apply(ResourceKind::Cluster, &[("c", tls)]), [""; 0]);
    assert_eq!(fixture.settle(), [""; 0]);
    assert_eq!(fixture.wanted(ResourceKind::Secret), ["s"]);
    let secret = |name: &str| {
        let signed = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let (chain, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
        let quoted = |text: &str| text.replace('\n', "\\n");
        format!(
            "{{name: s, tls_certificate: {{certificate_chain: {{inline_string: \"{}\"}}, private_key: {{inline_string: \"{}\"}}}}}}",
            quoted(&chain),
            quoted(&key)
        )
    };
    assert_eq!(fixture.apply(ResourceKind::Secret, &[("s", &secret("a"))]), [""; 0]);
    assert_eq!(fixture.settle(), ["cluster c", "hosts "]);
    assert_eq!(fixture.apply(ResourceKind::Secret, &[("s", &secret("b"))]), [""; 0]);
    assert_eq!(fixture.settle(), [""; 0], "the same context, with another certificate");
    assert_eq!(fixture.snapshot.certificates().len(), 1);
}

#[test]
fn nothing_is_ready_before_discovery_has_answered() {
    let mut fixture = Fixture::new();
    let ads =
        || Some(Fetch { source: Source::Ads, initial_timeout: Some(Duration::from_secs(15)) });
    fixture.snapshot.discover(None, ads(), ads(), fixture.now);
    assert!(!fixture.snapshot.is_warm());
    fixture.apply(ResourceKind::Listener, &[("l", &listener("route_config: {name: i}"))]);
    assert_eq!(fixture.settle(), [""; 0], "clusters first");
    fixture.apply(ResourceKind::Cluster, &[]);
    assert_eq!(fixture.settle(), ["add 1 l"]);
    assert!(fixture.snapshot.is_warm());
}

#[test]
fn a_silent_control_plane_is_not_waited_for_for_ever() {
    let mut fixture = Fixture::new();
    let ads =
        || Some(Fetch { source: Source::Ads, initial_timeout: Some(Duration::from_secs(15)) });
    fixture.snapshot.discover(None, ads(), ads(), fixture.now);
    fixture.now = fixture.snapshot.next_deadline().unwrap();
    fixture.settle();
    assert!(fixture.snapshot.is_warm());
}

#[test]
fn a_host_that_passes_its_checks_stays_though_discovery_has_lost_it() {
    let check = "health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}}]";
    for (ignores, expected) in [(false, "hosts 10.0.0.1:2 10.0.0.1:1"), (true, "hosts 10.0.0.1:2")]
    {
        let mut fixture = Fixture::new();
        let cluster = EDS.replace(
            "type: EDS,",
            &format!("type: EDS, ignore_health_on_host_removal: {ignores}, {check},"),
        );
        fixture.apply(ResourceKind::Cluster, &[("c", &cluster)]);
        fixture.apply(ResourceKind::Endpoints, &[("c", &endpoints(&[1, 2]))]);
        let effects = fixture.snapshot.settle(fixture.now);
        let [task] = &effects.health[..] else { panic!("{:?}", effects.health) };
        assert!(task.hosts.hosts.iter().all(|host| host.active_check_failed()), "not yet healthy");
        assert!(!fixture.snapshot.is_warm(), "before every host has been checked");
        fixture.snapshot.health_checked("c");
        assert!(fixture.snapshot.is_warm());
        let gone = Arc::clone(&task.hosts.hosts[0]);
        gone.set_active_check_failed(false);
        fixture.apply(ResourceKind::Endpoints, &[("c", &endpoints(&[2]))]);
        assert_eq!(fixture.settle(), [expected]);
        if !ignores {
            gone.set_active_check_failed(true);
            fixture.snapshot.host_failed("c");
            assert_eq!(fixture.settle(), ["hosts 10.0.0.1:2"]);
        }
    }
}
