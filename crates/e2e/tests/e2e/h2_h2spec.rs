//! h2spec: every check of RFC 9113 and RFC 7541 that it has, cleartext and TLS, where requests go on to an HTTP/1 upstream and where
//! they go through a second proxy over HTTP/2.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::certificates::{Authority, Issued};
use e2e::{Proxy, Upstream, binaries};
use tempfile::TempDir;

use crate::bootstrap::{http_proxy_with, indent};
use crate::h2_frames::{Peer, Told, get};

/// Appended to a bootstrap whose last cluster is to be spoken to in HTTP/2.
pub const HTTP2_CLUSTER: &str = r#"    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }
"#;

/// How many checks the version that `cargo xtask setup` installs has: fewer would mean that some were left out.
const CHECKS: usize = 146;

#[test]
fn cleartext_before_http1() -> Result<()> {
    check(false, false)
}

#[test]
fn tls_before_http1() -> Result<()> {
    check(true, false)
}

#[test]
fn cleartext_before_http2() -> Result<()> {
    check(false, true)
}

#[test]
fn tls_before_http2() -> Result<()> {
    check(true, true)
}

fn check(is_tls: bool, is_http2_upstream: bool) -> Result<()> {
    let Some(h2spec) = binaries::program("h2spec") else {
        binaries::skip("h2spec", "h2spec, or Go to build it,");
        return Ok(());
    };
    let folder = TempDir::new()?;
    let identity = Authority::new(folder.path(), "ca")?.issue("server", &["localhost"])?;
    // It answers when it has the whole request, so that what is wrong with one is seen before.
    let upstream = Upstream::saying("hello")?;
    let second = Proxy::start(&proxy(upstream.port(), false, None))?;
    let address = second.listener("entrance")?;
    assert_eq!(status(&second)?, Told::Status(200));
    let port = if is_http2_upstream { address.port() } else { upstream.port() };
    let first = Proxy::start(&proxy(port, is_http2_upstream, is_tls.then_some(&identity)))?;
    if !is_tls {
        assert_eq!(status(&first)?, Told::Status(200));
    }

    let port = first.listener("entrance")?.port().to_string();
    let mut command = Command::new(h2spec);
    command.args(["--host", "127.0.0.1", "--port", &port, "--timeout", "5", "--strict"]);
    if is_tls {
        command.args(["--tls", "--insecure"]);
    }
    let output = command.output().context("running h2spec")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let summary = said.lines().rev().find(|line| line.contains("tests,")).unwrap_or_default();
    let failures = said.split_once("Failures:").map_or("", |(_, failures)| failures);
    let all = format!("{CHECKS} tests, {CHECKS} passed, 0 skipped, 0 failed");
    ensure!(summary == all, "{summary}\n{failures}");
    // The requests among the checks went all the way.
    ensure!(upstream.received().len() > 20, "only {} requests", upstream.received().len());
    Ok(())
}

fn status(proxy: &Proxy) -> Result<Told> {
    let mut peer = Peer::open(proxy.listener("entrance")?)?;
    peer.send(&get(1, "/"))?;
    peer.told(1)
}

/// A listener that speaks HTTP/2 alone, before one upstream.
fn proxy(port: u16, is_http2_upstream: bool, identity: Option<&Issued>) -> String {
    let mut text = http_proxy_with(port, "timeout: 15s", "codec_type: HTTP2");
    if is_http2_upstream {
        text.push_str(HTTP2_CLUSTER);
    }
    if let Some(Issued { certificate, key }) = identity {
        let socket = format!(
            r#"transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
    common_tls_context:
      alpn_protocols: [h2]
      tls_certificates:
      - certificate_chain: {{ filename: {} }}
        private_key: {{ filename: {} }}
"#,
            certificate.display(),
            key.display()
        );
        let chain = format!("    -\n{}      filters:\n", indent(&socket, 6));
        text = text.replacen("    - filters:\n", &chain, 1);
    }
    text
}
