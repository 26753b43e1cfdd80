//! Bootstraps that many tests start from.

/// One HTTP listener `entrance` on a free port, everything routed to one cluster `backend`.
pub fn http_proxy(port: u16) -> String {
    http_proxy_with(port, "timeout: 15s", "")
}

/// As [`http_proxy`], with fields of the route action (`key: value, ...`) and of the connection manager (whole YAML lines).
pub fn http_proxy_with(port: u16, route_action: &str, connection_manager: &str) -> String {
    let manager = indent(connection_manager, 10);
    format!(
        r#"static_resources:
  listeners:
  - name: entrance
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: entrance
{manager}
          route_config:
            name: routes
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{ prefix: "/" }}
                route: {{ cluster: backend, {route_action} }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
{}"#,
        cluster("backend", port)
    )
}

/// A static cluster of one endpoint on 127.0.0.1, as an entry of `clusters`.
pub fn cluster(name: &str, port: u16) -> String {
    format!(
        r"  - name: {name}
    type: STATIC
    connect_timeout: 2s
    lb_policy: ROUND_ROBIN
    load_assignment:
      cluster_name: {name}
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}
"
    )
}

/// Every line of `text` moved to the right.
pub fn indent(text: &str, by: usize) -> String {
    text.lines().map(|line| format!("{:by$}{line}\n", "")).collect()
}
