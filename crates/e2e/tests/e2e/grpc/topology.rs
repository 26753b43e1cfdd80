//! Where the calls go through: one proxy, or two with mutual TLS between.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use e2e::certificates::{Authority, Issued};
use e2e::{Engine, Proxy};
use serde_json::{Value, json};
use tempfile::TempDir;

const ALICE: &str = "spiffe://cluster.local/ns/default/sa/alice";
const BOB: &str = "spiffe://cluster.local/ns/default/sa/bob";

const NETWORK: &str = "type.googleapis.com/envoy.extensions.filters.network";
const HTTP: &str = "type.googleapis.com/envoy.extensions.filters.http";
const TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3";

/// One proxy or a chain of them, HTTP/2 in and out.
pub struct Route {
    /// From the client's side to the server's.
    pub proxies: Vec<Proxy>,
    pub entrance: SocketAddr,
    _certificates: Option<TempDir>,
}

impl Route {
    /// No proxy at all, to try the tests themselves.
    pub fn direct(port: u16) -> Result<Self> {
        let entrance = SocketAddr::from(([127, 0, 0, 1], port));
        Ok(Self { proxies: Vec::new(), entrance, _certificates: None })
    }

    /// h2c → proxy → h2c.
    pub fn one_hop(engine: Engine, port: u16) -> Result<Self> {
        Self::one_hop_with(engine, port, &[])
    }

    /// As [`Self::one_hop`], with HTTP filters before the router.
    pub fn one_hop_with(engine: Engine, port: u16, filters: &[Value]) -> Result<Self> {
        let proxy = Proxy::start_engine(engine, &bootstrap(engine, port, None, None, filters))?;
        let entrance = proxy.listener("entrance")?;
        Ok(Self { proxies: vec![proxy], entrance, _certificates: None })
    }

    /// h2c → first proxy → HTTP/2 over mutual TLS → second proxy → h2c.
    pub fn two_hops(engines: (Engine, Engine), port: u16) -> Result<Self> {
        let folder = TempDir::new()?;
        let authority = Authority::new(folder.path(), "ca")?;
        let (alice, bob) = (authority.issue("alice", &[ALICE])?, authority.issue("bob", &[BOB])?);
        let inner = downstream_tls(&bob, folder.path());
        let inner = bootstrap(engines.1, port, Some(inner), None, &[]);
        let second = Proxy::start_engine(engines.1, &inner)?;
        let port = second.listener("entrance")?.port();
        let outer = upstream_tls(&alice, folder.path());
        let outer = bootstrap(engines.0, port, None, Some(outer), &[]);
        let first = Proxy::start_engine(engines.0, &outer)?;
        let entrance = first.listener("entrance")?;
        Ok(Self { proxies: vec![first, second], entrance, _certificates: Some(folder) })
    }
}

/// Envoy has the windows that its own documentation recommends at the edge: with its defaults of 16 and 24 MiB, a
/// connection whose stream is not read comes to a stop altogether every now and then.
fn http2_options(engine: Engine) -> Value {
    match engine {
        Engine::Outrigger => json!({}),
        Engine::Envoy => json!({
            "initial_stream_window_size": 65_536,
            "initial_connection_window_size": 1_048_576,
        }),
    }
}

fn bootstrap(
    engine: Engine,
    port: u16,
    downstream: Option<Value>,
    upstream: Option<Value>,
    filters: &[Value],
) -> String {
    let mut filters = filters.to_vec();
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": format!("{HTTP}.router.v3.Router") },
    }));
    let manager = json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("{NETWORK}.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "entrance",
            "http2_protocol_options": http2_options(engine),
            // Calls last as long as they ask to.
            "stream_idle_timeout": "0s",
            "route_config": { "name": "routes", "virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "backend", "timeout": "0s" } }],
            }] },
            "http_filters": filters,
        },
    });
    let mut chain = json!({ "filters": [manager] });
    if let Some(tls) = downstream {
        chain["transport_socket"] = tls;
    }
    let listener = json!({ "name": "entrance", "address": address(0), "filter_chains": [chain] });
    let static_resources =
        json!({ "listeners": [listener], "clusters": [http2_cluster(engine, port, upstream)] });
    // JSON is YAML; the fixture adds the admin section as a line of its own.
    format!("static_resources: {static_resources}\n")
}

fn http2_cluster(engine: Engine, port: u16, tls: Option<Value>) -> Value {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let plenty = json!({ "max_requests": 10_000, "max_pending_requests": 10_000 });
    let mut cluster = json!({
        "name": "backend",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": { "thresholds": [plenty] },
        "typed_extension_protocol_options": { options: {
            "@type": format!("type.googleapis.com/{options}"),
            "explicit_http_config": { "http2_protocol_options": http2_options(engine) },
        } },
        "load_assignment": {
            "cluster_name": "backend",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address(port) } }] }],
        },
    });
    if let Some(tls) = tls {
        cluster["transport_socket"] = tls;
    }
    cluster
}

fn address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

fn downstream_tls(issued: &Issued, folder: &Path) -> Value {
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": format!("{TLS}.DownstreamTlsContext"),
        "require_client_certificate": true,
        "common_tls_context": common_tls(issued, folder, ALICE),
    } })
}

fn upstream_tls(issued: &Issued, folder: &Path) -> Value {
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": format!("{TLS}.UpstreamTlsContext"),
        "common_tls_context": common_tls(issued, folder, BOB),
    } })
}

fn common_tls(issued: &Issued, folder: &Path, peer: &str) -> Value {
    json!({
        "alpn_protocols": ["h2"],
        "tls_certificates": [{
            "certificate_chain": { "filename": issued.certificate },
            "private_key": { "filename": issued.key },
        }],
        "validation_context": {
            "trusted_ca": { "filename": folder.join("ca.pem") },
            "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "exact": peer } }],
        },
    })
}
