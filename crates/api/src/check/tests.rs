use super::*;
use crate::text::{Sources, load};

/// Reads YAML as `message` and checks it, with every extension there.
fn check(message: &str, yaml: &str) -> Vec<String> {
    let schema = Schema::new();
    let message = schema.message(message).unwrap();
    let loaded = load(&schema, message, &Sources::one("test.yaml", yaml));
    assert_eq!(loaded.all_problems(), [], "{yaml}");
    let report = Checker::new(&schema, &|_| true).check(message, &loaded.bytes);
    report.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn constraints() {
    let address = "envoy.config.core.v3.SocketAddress";
    let cluster = "envoy.config.cluster.v3.Cluster";
    for (message, yaml, expected) in [
        (address, "{address: a, port_value: 1}", &[][..]),
        (address, "{port_value: 1}", &["address: `address` is required"]),
        (
            address,
            "{address: a, port_value: 65536}",
            &["port_value: must be at most 65535, is 65536"],
        ),
        (address, "{address: a}", &["one of `port_value`, `named_port` is required"]),
        (
            cluster,
            "{name: c, connect_timeout: 0s}",
            &["connect_timeout: must be greater than 0s, is 0s"],
        ),
        (cluster, "{}", &["name: `name` is required"]),
        (
            "envoy.config.route.v3.VirtualHost",
            "{name: v, domains: []}",
            &["domains: `domains` is required"],
        ),
        (
            "envoy.config.core.v3.HeaderValue",
            "{key: \"a\\nb\"}",
            &["key: must be a header name, is \"a\\nb\""],
        ),
    ] {
        assert_eq!(check(message, yaml), expected, "{yaml}");
    }
}

#[test]
fn what_is_known_but_not_supported_is_named_with_its_path() {
    let yaml = "{address: {socket_address: {address: a, port_value: 1, resolver_name: r}}}";
    assert_eq!(
        check("envoy.config.listener.v3.Listener", yaml),
        ["address.socket_address.resolver_name: `resolver_name` is not supported yet"]
    );
    let yaml = "{address: {socket_address: {address: a, port_value: 1, protocol: UDP}}}";
    assert_eq!(
        check("envoy.config.listener.v3.Listener", yaml),
        ["address.socket_address.protocol: `protocol: UDP` is not supported yet, only TCP"]
    );
}

#[test]
fn unknown_fields_are_counted_and_malformed_bytes_are_not_accepted() {
    let schema = Schema::new();
    let address = schema.message("envoy.config.core.v3.SocketAddress").unwrap();
    let checker = Checker::new(&schema, &|_| true);
    let mut bytes = Vec::new();
    crate::wire::put_bytes(&mut bytes, 2, b"a");
    crate::wire::put_value(&mut bytes, 3, Value::Varint(80));
    crate::wire::put_value(&mut bytes, 999, Value::Varint(1));
    let report = checker.check(address, &bytes);
    assert_eq!((report.problems.len(), report.unknown_fields), (0, 1));
    let report = checker.check(address, &[0x0b, 1, 2]);
    assert_eq!(report.problems, [Problem::new("", "malformed protobuf")]);
}

#[test]
fn extensions_are_told_apart_from_unknown_types() {
    let schema = Schema::new();
    let socket = schema.message("envoy.config.core.v3.TransportSocket").unwrap();
    let raw = "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer";
    let checker = Checker::new(&schema, &|_| false);
    let body = |type_url: &str| {
        let any = protobuf::Any { type_url: type_url.to_owned(), value: Vec::new() };
        let mut bytes = Vec::new();
        crate::wire::put_bytes(&mut bytes, 1, b"name");
        crate::wire::put_bytes(&mut bytes, 3, &any.encode_to_vec());
        bytes
    };
    for (type_url, message) in [
        (
            raw,
            "typed_config: envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer is not supported yet",
        ),
        ("type.googleapis.com/a.B", "typed_config: unknown type URL `type.googleapis.com/a.B`"),
        ("", "typed_config: the type URL is missing"),
    ] {
        let report = checker.check(socket, &body(type_url));
        assert_eq!(report.problems[0].to_string(), message);
    }
}
