//! Who is who in a mesh: certificates between sidecars, and what strangers get.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::http1::Connection;
use e2e::mesh::{Mesh, Plan};
use e2e::{Process, binaries, wait_until};

use crate::one_mesh_at_a_time;

const PAGE: &str = "/productpage";

#[test]
fn sidecars_have_spiffe_certificates_and_refuse_plaintext() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let mut mesh = Plan::bookinfo()?.start()?;
    mesh.wait_for_page(PAGE, "served by reviews")?;
    for (workload, account) in
        [("reviews-v2", "bookinfo-reviews"), ("details-v1", "bookinfo-details")]
    {
        let certificates = mesh.admin(workload, "/certs")?.text();
        let name = format!("spiffe://cluster.local/ns/default/sa/{account}");
        assert!(certificates.contains(&name), "{workload}: {certificates}");
    }
    let details = sidecar(&mesh, "details-v1")?;
    let mut plaintext = Connection::open(details)?;
    plaintext.send("GET /details/0 HTTP/1.1\r\nhost: details:9080\r\n\r\n")?;
    let answer = plaintext.until_end()?;
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    // TLS without a certificate is no better.
    let url = format!("https://{details}/details/0");
    let done = Command::new("curl").args(["-sSk", "--max-time", "20", &url]).output()?;
    assert!(!done.status.success() && done.stdout.is_empty(), "{done:?}");
    Ok(())
}

#[test]
fn the_wire_between_sidecars_carries_tls_and_nothing_else() -> Result<()> {
    let Some(tcpdump) =
        binaries::program("tcpdump").filter(|_| rustix::process::geteuid().is_root())
    else {
        binaries::skip(
            "the_wire_between_sidecars_carries_tls_and_nothing_else",
            "tcpdump, or root to run it,",
        );
        return Ok(());
    };
    let _alone = one_mesh_at_a_time();
    let mut mesh = Plan::bookinfo()?.start()?;
    mesh.wait_for_page(PAGE, "served by reviews")?;
    let details = sidecar(&mesh, "details-v1")?;
    let folder = tempfile::TempDir::new()?;
    let mut command = Command::new(tcpdump);
    command.args(["-i", "lo", "-U", "-s", "0", "-A", "-n", "-l", "--immediate-mode"]);
    command.arg(format!("tcp and host {} and port {}", details.ip(), details.port()));
    let capture = Process::start("tcpdump", command, folder.path())?;
    wait_until("the capture to listen", || {
        Ok(capture.output().contains("listening on").then_some(()))
    })?;
    for _ in 0..20 {
        ensure!(mesh.get(PAGE)?.text().contains("William Shakespeare"));
    }
    wait_until("packets", || Ok((capture.output().matches("IP 127.").count() > 20).then_some(())))?;
    let seen = capture.output();
    for secret in ["GET /details", "Shakespeare", "details:9080", "x-request-id"] {
        assert!(!seen.contains(secret), "{secret} is readable on the wire");
    }
    Ok(())
}

#[test]
fn a_neighbour_cannot_leave_with_another_ones_identity() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let mut mesh = Plan::bookinfo()?.start()?;
    mesh.wait_for_page(PAGE, "served by reviews")?;
    let outbound = SocketAddr::new(mesh.workload("productpage-v1")?.address, 15007);
    for credential in ["", "proxy-authorization: Basic YWxpY2U6d3Jvbmc=\r\n"] {
        let mut connection = Connection::open(outbound)?;
        connection.send(format!(
            "GET http://details:9080/details/0 HTTP/1.1\r\nhost: details:9080\r\n{credential}\r\n"
        ))?;
        let response = connection.response()?;
        assert_eq!(response.status, 407, "{}", response.text());
        assert!(!response.text().contains("Shakespeare"));
    }
    Ok(())
}

#[test]
fn metrics_are_istios_and_promtool_reads_them() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let mut mesh = Plan::bookinfo()?.start()?;
    mesh.wait_for_page(PAGE, "served by reviews")?;
    // The page can do without details, which may still be coming up: it counts once a page has asked it.
    let address = SocketAddr::new(mesh.workload("details-v1")?.address, 15020);
    let metrics = wait_until("istio_requests_total", || {
        mesh.wait_for_page(PAGE, "served by reviews")?;
        let text = e2e::http1::get(address, "localhost", "/stats/prometheus")?.text();
        Ok(text.contains("istio_requests_total{").then_some(text))
    })?;
    let line =
        metrics.lines().find(|line| line.starts_with("istio_requests_total{")).unwrap_or_default();
    for label in [
        "reporter=\"destination\"",
        "source_workload=\"productpage-v1\"",
        "source_principal=\"spiffe://cluster.local/ns/default/sa/bookinfo-productpage\"",
        "destination_workload=\"details-v1\"",
        "destination_service=\"details.default.svc.cluster.local\"",
        "response_code=\"200\"",
        "connection_security_policy=\"mutual_tls\"",
    ] {
        assert!(line.contains(label), "no {label} in {line}");
    }
    let Some(promtool) = binaries::program("promtool") else {
        binaries::skip("promtool", "promtool");
        return Ok(());
    };
    let folder = tempfile::TempDir::new()?;
    let file = folder.path().join("metrics");
    std::fs::write(&file, &metrics)?;
    let checked = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(&file)?)
        .output()?;
    // 3 is the linter's dislike of names; 1 is text that Prometheus cannot read.
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        matches!(checked.status.code(), Some(0 | 3)) && !said.contains("parsing error"),
        "{said}"
    );
    for remark in said.lines() {
        assert!(is_of_the_contract(remark), "a metric of our own: {remark}");
    }
    Ok(())
}

/// What the linter dislikes of names and types that Envoy and Istio have given, and that others rely on.
fn is_of_the_contract(remark: &str) -> bool {
    const DISLIKED: [&str; 5] = [
        // Envoy's counters have no `_total`, its times are in milliseconds.
        "counter metrics should have \"_total\" suffix",
        "use base unit",
        "metric names should not contain abbreviated units",
        "non-counter metrics should not have \"_total\" suffix",
        "non-histogram and non-summary metrics should not have",
    ];
    let (name, dislike) = remark.split_once(' ').unwrap_or((remark, ""));
    (name.starts_with("envoy_") || name.starts_with("istio_"))
        && DISLIKED.iter().any(|known| dislike.starts_with(known))
}

/// Where a workload's sidecar takes requests from the mesh.
fn sidecar(mesh: &Mesh, workload: &str) -> Result<SocketAddr> {
    let workload = mesh.workload(workload)?;
    let port = workload.ports.first().context("a workload without ports")?;
    Ok(SocketAddr::new(workload.address, *port))
}
