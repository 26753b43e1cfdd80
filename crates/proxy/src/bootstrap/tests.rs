use super::*;
use crate::snapshot::compile::Environment;
use crate::snapshot::tests::environment;

/// What `--mode validate` would say, without the snippets.
fn problems(yaml: &str) -> Vec<String> {
    let Environment { schema, extensions, .. } = environment();
    let bootstrap = match Bootstrap::read(&schema, &extensions, Sources::one("t.yaml", yaml)) {
        Ok(bootstrap) => bootstrap,
        Err(error) => return error.problems.iter().map(ToString::to_string).collect(),
    };
    let mut snapshot = Snapshot::new(Environment {
        listener_limits: bootstrap.listener_limits(),
        ..environment()
    });
    match bootstrap.load(&mut snapshot, &mut NoSockets, Instant::now()) {
        Ok(()) => Vec::new(),
        Err(error) => error.problems.iter().map(ToString::to_string).collect(),
    }
}

/// A bootstrap with one HTTP listener; `$routes`, `$filters` and `$clusters` are filled in.
fn http(routes: &str, filters: &str, clusters: &str) -> String {
    format!(
        "static_resources:
  listeners:
  - name: l
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: s
          route_config:
            virtual_hosts:
            - {{name: v, domains: ['*'], routes: [{routes}]}}
          http_filters: [{filters}]
  clusters: [{clusters}]
"
    )
}

const ROUTER: &str = "{name: r, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";
const MANAGER: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
const HOST: &str = "route_config.virtual_hosts[0]";

#[test]
fn a_good_one_has_no_problems() {
    let yaml = http("{match: {prefix: /}, route: {cluster: c}}", ROUTER, "{name: c}");
    assert_eq!(problems(&yaml), [""; 0]);
}

#[test]
fn http2_and_grpc_are_told_of_as_envoy_has_it() {
    let options = "hpack_table_size: 8192, max_concurrent_streams: 7, initial_stream_window_size: 65536, initial_connection_window_size: 1048576, allow_connect: true, max_outbound_frames: 100, max_outbound_control_frames: 10, max_consecutive_inbound_frames_with_empty_payload: 2, max_inbound_priority_frames_per_stream: 3, max_inbound_window_update_frames_per_data_frame_sent: 4, override_stream_error_on_invalid_http_message: true, connection_keepalive: {interval: 30s, timeout: 5s, interval_jitter: {value: 20}, connection_idle_interval: 10s}, enable_huffman_encoding: false, stream_reset_burst: 5, stream_reset_rate: 6";
    let explicit = |config: &str| {
        format!(
            "{{name: c, typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, {config}}}}}}}"
        )
    };
    let routes = "{match: {connect_matcher: {}}, route: {cluster: c, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {allow_post: true}}]}}, {match: {prefix: /, grpc: {}}, route: {cluster: c, max_stream_duration: {max_stream_duration: 1s, grpc_timeout_header_max: 0s, grpc_timeout_header_offset: 0.1s}}}";
    for cluster in [
        format!("{{name: c, http2_protocol_options: {{{options}}}}}"),
        explicit(&format!("explicit_http_config: {{http2_protocol_options: {{{options}}}}}")),
        explicit(
            "use_downstream_protocol_config: {http_protocol_options: {}, http2_protocol_options: {}}",
        ),
    ] {
        let yaml = http(routes, ROUTER, &cluster);
        for codec in ["AUTO", "HTTP2"] {
            let fields =
                format!("codec_type: {codec}\n          http2_protocol_options: {{{options}}}");
            let yaml = yaml.replace(
                "          route_config:",
                &format!("          {fields}\n          route_config:"),
            );
            assert_eq!(problems(&yaml), [""; 0], "{cluster}");
        }
    }
}

#[test]
fn unknown_fields_may_be_allowed() {
    let Environment { schema, extensions, .. } = environment();
    let yaml = "static_resources: {clusters: [{name: c, from_the_future: 1}]}";
    let mut bootstrap =
        Bootstrap::read(&schema, &extensions, Sources::one("t.yaml", yaml)).unwrap();
    let load = |bootstrap: &Bootstrap| {
        bootstrap.load(&mut Snapshot::new(environment()), &mut NoSockets, Instant::now())
    };
    assert!(load(&bootstrap).is_err());
    bootstrap.allow_unknown_fields();
    assert!(load(&bootstrap).is_ok());
}

#[test]
fn whatever_is_wrong_is_named_by_its_path() {
    let route = |route: &str| http(route, ROUTER, "{name: backend}");
    let cluster = |cluster: &str| format!("static_resources: {{clusters: [{cluster}]}}");
    let cases: &[(String, &str)] = &[
        (
            route("{match: {prefix: /}, route: {cluster: backnd}}"),
            "M.H.routes[0].route.cluster: there is no cluster `backnd`, did you mean `backend`?",
        ),
        (
            route("{match: {safe_regex: {regex: '('}}, route: {cluster: backend}}"),
            "M.H.routes[0].match.safe_regex.regex: invalid regular expression",
        ),
        (
            route(
                "{match: {prefix: /}, route: {cluster: backend, retry_policy: {retry_on: '5xx,sometimes'}}}",
            ),
            "M.H.routes[0].route.retry_policy.retry_on: `sometimes` is not supported",
        ),
        (
            route(
                "{match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: backend, weight: 0}]}}}",
            ),
            "M.H.routes[0].route.weighted_clusters.clusters: the weights add up to nothing",
        ),
        (
            route("{match: {prefix: /}, direct_response: {status: 700}}"),
            "M.H.routes[0].direct_response.status: must be at least 200 and less than 600, is 700",
        ),
        (
            route(
                "{match: {prefix: /}, request_headers_to_add: [{header: {key: ':path', value: x}}], route: {cluster: backend}}",
            ),
            "M.H.routes[0].request_headers_to_add[0].header: :-prefixed or host headers may not be modified",
        ),
        (
            http("{match: {prefix: /}, route: {cluster: c}}", "", "{name: c}"),
            "M.http_filters: the chain needs the router as its last filter",
        ),
        (
            http("{match: {prefix: /}, route: {cluster: c}}", "{name: r}", "{name: c}"),
            "M.http_filters[0].typed_config: `typed_config` is required: it says which extension this is",
        ),
        (
            cluster(
                "{name: c, load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: example.com, port_value: 80}}}}]}]}}",
            ),
            "static_resources.clusters[0].load_assignment: `example.com` is no IP address; a STATIC cluster's endpoints need one",
        ),
        (
            cluster("{name: c}, {name: c}"),
            "static_resources.clusters[1].name: there are two clusters `c`",
        ),
        (
            cluster("{name: c, type: EDS}"),
            "static_resources.clusters[0].eds_cluster_config: an EDS cluster needs `eds_config`",
        ),
        (
            cluster("{name: c, lb_policy: RING_HASH}"),
            "static_resources.clusters[0].lb_policy: `lb_policy: RING_HASH` is not supported yet, only ROUND_ROBIN and LEAST_REQUEST and RANDOM",
        ),
        (
            "dynamic_resources: {cds_config: {ads: {}}}".to_owned(),
            "dynamic_resources: `ads` is used, but there is no `ads_config`",
        ),
        (
            "layered_runtime: {layers: [{name: s, static_layer: {a: {b: 1}}}]}".to_owned(),
            "layered_runtime.layers[0].static_layer: runtime key `a.b` is not supported yet",
        ),
        (
            "static_resource: {}".to_owned(),
            "unknown field `static_resource` in envoy.config.bootstrap.v3.Bootstrap, did you mean `static_resources`?",
        ),
        (
            "admin: {address: {socket_address: {address: a, port_value: 1}}}".to_owned(),
            "admin.address: `a` is no IP address",
        ),
        (
            cluster("{name: c, http2_protocol_options: {max_concurrent_streams: 0}}"),
            "static_resources.clusters[0].http2_protocol_options.max_concurrent_streams: must be at least 1",
        ),
        (
            cluster(
                "{name: c, http2_protocol_options: {custom_settings_parameters: [{identifier: 9, value: 1}]}}",
            ),
            "static_resources.clusters[0].http2_protocol_options.custom_settings_parameters: `custom_settings_parameters` is not supported yet",
        ),
        (
            cluster("{name: c, http2_protocol_options: {disallow_obs_text: true}}"),
            "static_resources.clusters[0].http2_protocol_options.disallow_obs_text: `disallow_obs_text` is not supported yet",
        ),
        (
            cluster(
                "{name: c, http2_protocol_options: {connection_keepalive: {interval: 1s, timeout: 2s}}}",
            ),
            "static_resources.clusters[0].http2_protocol_options.connection_keepalive.timeout: must not be more than `interval`",
        ),
        (
            cluster(
                "{name: c, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, auto_config: {}}}}",
            ),
            "static_resources.clusters[0].typed_extension_protocol_options: `auto_config` needs a transport socket with ALPN",
        ),
        (
            cluster(
                "{name: c, health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {send: {text: xyz}}}]}",
            ),
            "static_resources.clusters[0].health_checks[0].tcp_health_check.send.text: `xyz` is not hexadecimal",
        ),
        (
            cluster(
                "{name: c, health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: /, expected_statuses: [{start: 99, end: 200}]}}]}",
            ),
            "static_resources.clusters[0].health_checks[0].http_health_check.expected_statuses[0]: a range of statuses begins at 100",
        ),
        (
            cluster(
                "{name: c, health_checks: [{timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, event_logger: [{name: a}], tcp_health_check: {}}]}",
            ),
            "static_resources.clusters[0].health_checks[0].event_logger: `event_logger` is not supported yet",
        ),
        (
            route(
                "{match: {prefix: /}, route: {cluster: backend, upgrade_configs: [{upgrade_type: websocket, connect_config: {}}]}}",
            ),
            "M.H.routes[0].route.upgrade_configs[0].connect_config: only `upgrade_type: CONNECT` has a `connect_config`",
        ),
        (
            route(
                "{match: {prefix: /}, route: {cluster: backend, request_mirror_policies: [{cluster: backnd}]}}",
            ),
            "M.H.routes[0].route.request_mirror_policies[0].cluster: there is no cluster `backnd`, did you mean `backend`?",
        ),
        (
            route(
                "{match: {prefix: /}, route: {cluster: backend}, typed_per_filter_config: {x: {'@type': type.googleapis.com/envoy.config.route.v3.FilterConfig}}}",
            ),
            "M.H.routes[0].typed_per_filter_config[\"x\"]: neither `disabled` nor a `config` for filter `x`",
        ),
        (
            route(
                "{match: {prefix: /}, route: {cluster: backend}, typed_per_filter_config: {x: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}",
            ),
            "M.H.routes[0].typed_per_filter_config[\"x\"]: envoy.extensions.filters.http.router.v3.Router is no configuration of a filter for a route",
        ),
        (
            "dynamic_resources: {cds_config: {path_config_source: {path: /no/such/file}}}"
                .to_owned(),
            "dynamic_resources.cds_config.path_config_source.path: /no/such/file: No such file or directory",
        ),
    ];
    for (yaml, expected) in cases {
        let expected =
            expected.replace("M.", &format!("{MANAGER}.")).replace("H.", &format!("{HOST}."));
        let found = problems(yaml);
        assert!(
            found.len() == 1 && found[0].starts_with(&expected),
            "expected {expected}\nfound {found:#?}"
        );
    }
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_text() {
    let yaml = http(
        "{match: {prefix: /}, route: {cluster: nowhere, timeut: 3s}}, {match: {prefix: /x}, route: {cluster: nowhere}}",
        "{name: x, typed_config: {'@type': type.googleapis.com/a.B}}, {name: y, typed_config: {}}",
        "{name: c, connect_timeout: 5, type: STRICT_DSN, lrs_server: {self: {}}}",
    );
    let found = problems(&yaml);
    let expected = [
        "routes[0].route: unknown field `timeut` in envoy.config.route.v3.RouteAction, did you mean `timeout`?",
        "routes[1].route.cluster: there is no cluster `nowhere`",
        "http_filters[0].typed_config: unknown type URL `type.googleapis.com/a.B`",
        "http_filters[1].typed_config: `@type` is missing",
        "connect_timeout: expected a duration in seconds such as `1.5s`, found `5`, did you mean `5s`?",
        "type: `STRICT_DSN` is no value of envoy.config.cluster.v3.Cluster.DiscoveryType, did you mean `STRICT_DNS`?",
        "lrs_server: `lrs_server` is not supported yet",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "expected {expected}\nfound {found}");
    }
}

#[test]
fn problems_are_shown_with_their_place() {
    let Environment { schema, extensions, .. } = environment();
    let yaml = "static_resources:\n  clusters:\n  - nam: c\n";
    let bootstrap = Bootstrap::read(&schema, &extensions, Sources::one("t.yaml", yaml)).unwrap();
    let error = bootstrap
        .load(&mut Snapshot::new(environment()), &mut NoSockets, Instant::now())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "error: static_resources.clusters[0]: unknown field `nam` in envoy.config.cluster.v3.Cluster, did you mean `name`?\n \
         --> t.yaml:3:5\n  |\n3 |   - nam: c\n  |     ^^^\n1 error found"
    );
}

#[test]
fn what_lies_over_the_file_merges_as_envoy_does() {
    let Environment { schema, extensions, .. } = environment();
    let mut sources = Sources::one(
        "t.yaml",
        "node: {id: a, cluster: b}\nstatic_resources: {clusters: [{name: c}]}",
    );
    sources.push("--config-yaml", "node: {id: z}\nstatic_resources: {clusters: [{name: d}]}");
    let bootstrap = Bootstrap::read(&schema, &extensions, sources).unwrap();
    let node = bootstrap.node();
    assert_eq!((&*node.id, &*node.cluster), ("z", "b"));
    let clusters = bootstrap.message.static_resources.unwrap_or_default().clusters;
    assert_eq!(
        clusters.iter().map(|cluster| cluster.name.as_str()).collect::<Vec<_>>(),
        ["c", "d"]
    );
}

#[test]
fn connection_limits_come_from_the_runtime() {
    let Environment { schema, extensions, .. } = environment();
    let yaml = "layered_runtime: {layers: [
        {name: a, static_layer: {envoy.resource_limits.listener.x.connection_limit: 5}},
        {name: b, static_layer: {envoy: {resource_limits: {listener: {x: {connection_limit: 7}}}}}}]}";
    let bootstrap = Bootstrap::read(&schema, &extensions, Sources::one("t.yaml", yaml)).unwrap();
    assert_eq!(bootstrap.listener_limits(), BTreeMap::from([("x".to_owned(), 7)]));
}
