//! Formats of header changes and access logs print what Envoy prints.

use anyhow::{Context, Result};
use e2e::{Engine, Proxy, Upstream, wait_until};

/// The route's name is known where its own header changes are formatted, both ways, and heads are as long as Envoy says.
#[test]
fn formats_see_the_route_and_the_heads_size() -> Result<()> {
    let mut seen = Vec::new();
    for engine in Engine::available() {
        let upstream = Upstream::saying("hello")?;
        let proxy = Proxy::start_engine(engine, &bootstrap(upstream.port()))?;
        let response = proxy.connect("entrance")?.get("a.example", "/x")?;
        assert_eq!(response.status, 200, "{engine:?}: {}", response.text());
        assert_eq!(response.header("x-answered"), Some("to-back"), "{engine:?}");
        let received = upstream.received();
        let request = received.first().context("no request")?;
        assert_eq!(request.header("x-route"), Some("to-back via entrance"), "{engine:?}");
        let line = wait_until("the log's line", || {
            let log = proxy.process.output();
            Ok(log.lines().find(|line| line.starts_with("LOG ")).map(str::to_owned))
        })?;
        seen.push(line);
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:#?}");
    Ok(())
}

fn bootstrap(port: u16) -> String {
    let cluster = crate::bootstrap::cluster("backend", port);
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
          server_header_transformation: PASS_THROUGH
          access_log:
          - name: envoy.access_loggers.stderr
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog
              log_format: {{ text_format_source: {{ inline_string: "LOG %ROUTE_NAME% %REQUEST_HEADERS_BYTES% %RESPONSE_CODE%\n" }} }}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - name: to-back
                match: {{ prefix: / }}
                route: {{ cluster: backend }}
                request_headers_to_add:
                - header: {{ key: x-route, value: "%ROUTE_NAME% via entrance" }}
                response_headers_to_add:
                - header: {{ key: x-answered, value: "%ROUTE_NAME%" }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
{cluster}"#
    )
}
