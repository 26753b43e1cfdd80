//! TLS at both ends: certificates by name, clients that must show one, upstreams that are who they should be.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result};
use e2e::certificates::{Authority, Issued};
use e2e::{Engine, Proxy, Upstream};
use tempfile::TempDir;

use crate::bootstrap::indent;

pub(crate) const ALICE: &str = "spiffe://cluster.local/ns/default/sa/alice";
pub(crate) const BOB: &str = "spiffe://cluster.local/ns/default/sa/bob";

#[test]
fn the_name_that_is_asked_for_chooses_the_certificate() -> Result<()> {
    for engine in Engine::available() {
        let folder = TempDir::new()?;
        let authority = Authority::new(folder.path(), "ca")?;
        let (a, b) = (authority.issue("a", &["a.example"])?, authority.issue("b", &["b.example"])?);
        let upstream = Upstream::saying("hello")?;
        let chains = [
            chain("{ server_names: [a.example] }", &server_tls(&a, "")),
            chain("{ server_names: [\"*.example\"] }", &server_tls(&b, "")),
        ];
        let proxy = Proxy::start_engine(engine, &listener(&chains.concat(), upstream.port(), ""))?;
        let address = proxy.listener("entrance")?;
        for name in ["a.example", "b.example"] {
            let done = curl(address, name, &folder.path().join("ca.pem"), &[])?;
            assert_eq!(String::from_utf8_lossy(&done.stdout), "hello 200", "{engine:?}: {done:?}");
        }
        // A name that no chain has gets no certificate, rather than a wrong one.
        let done = curl(address, "elsewhere.test", &folder.path().join("ca.pem"), &[])?;
        assert!(!done.status.success(), "{engine:?}: {done:?}");
        assert_eq!(
            proxy.stat("listener.127.0.0.1_0.no_filter_chain_match")?.unwrap_or(1),
            1,
            "{engine:?}"
        );
    }
    Ok(())
}

#[test]
fn a_client_must_show_a_certificate_of_the_right_authority_and_name() -> Result<()> {
    for engine in Engine::available() {
        let folder = TempDir::new()?;
        let authority = Authority::new(folder.path(), "ca")?;
        let strangers = Authority::new(folder.path(), "strangers")?;
        let server = authority.issue("server", &["a.example"])?;
        let alice = authority.issue("alice", &[ALICE])?;
        let bob = authority.issue("bob", &[BOB])?;
        let stranger = strangers.issue("stranger", &[ALICE])?;
        let upstream = Upstream::saying("hello")?;
        let chain = chain("{}", &server_tls(&server, &require_client(folder.path(), ALICE)));
        let proxy = Proxy::start_engine(engine, &listener(&chain, upstream.port(), ""))?;
        let address = proxy.listener("entrance")?;
        let authority_file = folder.path().join("ca.pem");
        let ask = |client: Option<&Issued>| {
            let mut arguments = Vec::new();
            if let Some(Issued { certificate, key }) = client {
                arguments = vec!["--cert", path(certificate), "--key", path(key)];
            }
            curl(address, "a.example", &authority_file, &arguments)
        };
        let done = ask(Some(&alice))?;
        assert_eq!(String::from_utf8_lossy(&done.stdout), "hello 200", "{engine:?}: {done:?}");
        for (who, client) in
            [("nobody", None), ("bob", Some(&bob)), ("a stranger", Some(&stranger))]
        {
            let done = ask(client)?;
            assert!(!done.status.success(), "{engine:?} let {who} in: {done:?}");
        }
        assert_eq!(upstream.received().len(), 1, "{engine:?}");
    }
    Ok(())
}

/// Two proxies with mutual TLS between, in every mixture of engines.
#[test]
fn a_double_hop_speaks_mutual_tls_whoever_the_hops_are() -> Result<()> {
    let engines = Engine::available();
    for (first, second) in engines.iter().flat_map(|a| engines.iter().map(move |b| (*a, *b))) {
        let folder = TempDir::new()?;
        let authority = Authority::new(folder.path(), "ca")?;
        let (alice, bob) = (authority.issue("alice", &[ALICE])?, authority.issue("bob", &[BOB])?);
        let upstream = Upstream::saying("hello")?;
        let inner = chain("{}", &server_tls(&bob, &require_client(folder.path(), ALICE)));
        let inner = Proxy::start_engine(second, &listener(&inner, upstream.port(), ""))?;
        let port = inner.listener("entrance")?.port();
        let outer = |server_name: &str| {
            Proxy::start_engine(
                first,
                &listener(&chain("{}", ""), port, &client_tls(&alice, folder.path(), server_name)),
            )
        };
        let response = outer(BOB)?.connect("entrance")?.get("a", "/")?;
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "hello"),
            "{first:?} to {second:?}"
        );
        // A server that is somebody else is no server.
        let response = outer(ALICE)?.connect("entrance")?.get("a", "/")?;
        assert_eq!(response.status, 503, "{first:?} to {second:?}: {}", response.text());
    }
    Ok(())
}

pub(crate) fn curl(
    address: SocketAddr,
    name: &str,
    authority: &Path,
    arguments: &[&str],
) -> Result<Output> {
    let port = address.port();
    Command::new("curl")
        .args(["-sS", "--max-time", "20", "-w", " %{http_code}", "--cacert", path(authority)])
        .args(["--resolve", &format!("{name}:{port}:{}", address.ip())])
        .args(arguments)
        .arg(format!("https://{name}:{port}/"))
        .output()
        .context("curl")
}

pub(crate) fn path(of: &Path) -> &str {
    of.to_str().unwrap_or_default()
}

/// A listener `entrance` with these filter chains, in front of one cluster with this transport socket.
fn listener(chains: &str, port: u16, transport_socket: &str) -> String {
    let cluster = crate::bootstrap::cluster("backend", port);
    format!(
        r#"static_resources:
  listeners:
  - name: entrance
    address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }}
    listener_filters:
    - name: envoy.filters.listener.tls_inspector
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector
    filter_chains:
{chains}  clusters:
{cluster}{}"#,
        indent(transport_socket, 4)
    )
}

fn chain(matches: &str, transport_socket: &str) -> String {
    format!(
        r#"    - filter_chain_match: {matches}
{}      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: entrance
          route_config:
            virtual_hosts:
            - {{ name: all, domains: ["*"], routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: backend }} }}] }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"#,
        indent(transport_socket, 6)
    )
}

/// A transport socket that shows `issued`; `more` are further lines of the context.
pub(crate) fn server_tls(issued: &Issued, more: &str) -> String {
    let (validation, requirement) = more.split_once('\n').unwrap_or((more, ""));
    format!(
        "transport_socket:\n  name: envoy.transport_sockets.tls\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext\n    {requirement}\n    common_tls_context:\n      tls_certificates:\n      - certificate_chain: {{ filename: {} }}\n        private_key: {{ filename: {} }}\n      {validation}\n",
        issued.certificate.display(),
        issued.key.display(),
    )
}

pub(crate) fn require_client(folder: &Path, name: &str) -> String {
    format!("{}\nrequire_client_certificate: true", validation(folder, name))
}

fn validation(folder: &Path, name: &str) -> String {
    format!(
        "validation_context: {{ trusted_ca: {{ filename: {} }}, match_typed_subject_alt_names: [{{ san_type: URI, matcher: {{ exact: \"{name}\" }} }}] }}",
        folder.join("ca.pem").display()
    )
}

pub(crate) fn client_tls(issued: &Issued, folder: &Path, server: &str) -> String {
    format!(
        "transport_socket:\n  name: envoy.transport_sockets.tls\n  typed_config:\n    \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n    common_tls_context:\n      tls_certificates:\n      - certificate_chain: {{ filename: {} }}\n        private_key: {{ filename: {} }}\n      {}\n",
        issued.certificate.display(),
        issued.key.display(),
        validation(folder, server),
    )
}
