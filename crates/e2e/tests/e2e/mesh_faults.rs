//! What happens to traffic when certificates, endpoints, the control plane or the proxy itself change under load: nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::mesh::{Mesh, Plan};
use e2e::{Load, Process, binaries, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::one_mesh_at_a_time;

const PAGE: &str = "/productpage";

#[test]
fn certificates_rotate_without_a_failed_request() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let mut mesh = Plan::bookinfo()?.argument("--workload-cert-ttl").argument("10s").start()?;
    mesh.wait_for_page(PAGE, "William Shakespeare")?;
    let load = Load::start(2, mesh.gateway(), "bookinfo.test", PAGE, true);
    let mut seen = vec![serial(&mesh, "details-v1")?];
    for _ in 0..2 {
        let next = wait_until("a new certificate", || {
            let serial = serial(&mesh, "details-v1")?;
            Ok((!seen.contains(&serial)).then_some(serial))
        })?;
        seen.push(next);
        load.wait_for_more(20)?;
    }
    let outcome = load.stop();
    assert!(outcome.failures.is_empty(), "{} responses, {:?}", outcome.responses, outcome.failures);
    Ok(())
}

#[test]
fn endpoints_come_and_go_without_a_failed_request() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let mut mesh = Plan::bookinfo()?.start()?;
    mesh.wait_for_page(PAGE, "William Shakespeare")?;
    let load = Load::start(2, mesh.gateway(), "bookinfo.test", PAGE, true);
    let one = "run: [bookinfo, details]\n";
    let three = "run: [bookinfo, details]\n  replicas: 3\n";
    for _ in 0..2 {
        mesh.edit("workloads.yaml", one, three)?;
        wait_for_details(&mesh, 3)?;
        load.wait_for_more(20)?;
        mesh.edit("workloads.yaml", three, one)?;
        wait_for_details(&mesh, 1)?;
        load.wait_for_more(20)?;
    }
    let outcome = load.stop();
    assert!(outcome.failures.is_empty(), "{} responses, {:?}", outcome.responses, outcome.failures);
    Ok(())
}

#[test]
fn security_and_protocol_change_without_a_failed_request() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let mut mesh = Plan::bookinfo()?.start()?;
    mesh.wait_for_page(PAGE, "William Shakespeare")?;
    let load = Load::start(2, mesh.gateway(), "bookinfo.test", PAGE, true);
    let details = SocketAddr::new(mesh.workload("details-v1")?.address, 9080);
    for (from, to) in [("STRICT", "PERMISSIVE"), ("PERMISSIVE", "STRICT")] {
        mesh.edit("security.yaml", from, to)?;
        wait_until(&format!("a sidecar that is {to}"), || {
            let plaintext = e2e::http1::get(details, "details:9080", "/details/0");
            let is_taken = plaintext.is_ok_and(|answer| answer.status == 200);
            Ok((is_taken == (to == "PERMISSIVE")).then_some(()))
        })?;
        load.wait_for_more(20)?;
    }
    // HTTP/2 by agreement, then HTTP/1.1 because the mesh says so, then HTTP/2 again.
    for (policy, version) in [("    h2UpgradePolicy: DO_NOT_UPGRADE\n", 1), ("", 2)] {
        let before = connections_to_details(&mesh, version)?;
        mesh.write("mesh.yaml", &format!("{MESH}{policy}"))?;
        wait_until(&format!("connections of HTTP/{version}"), || {
            Ok((connections_to_details(&mesh, version)? > before).then_some(()))
        })?;
        load.wait_for_more(20)?;
    }
    let outcome = load.stop();
    assert!(outcome.failures.is_empty(), "{} responses, {:?}", outcome.responses, outcome.failures);
    Ok(())
}

const MESH: &str = "
apiVersion: v1
kind: ConfigMap
metadata: { name: istio, namespace: istio-system }
data:
  mesh: |
    accessLogFile: /dev/stdout
";

/// How many connections of that version the product page's sidecar has opened to `details`.
fn connections_to_details(mesh: &Mesh, version: u8) -> Result<u64> {
    let stats = mesh.admin("productpage-v1", "/stats?filter=details.*upstream_cx_http")?.text();
    let stat = format!("upstream_cx_http{version}_total: ");
    let count = stats.lines().find_map(|line| line.split_once(&stat)?.1.parse().ok());
    count.with_context(|| format!("no {stat}: {stats}"))
}

#[test]
fn the_control_plane_dies_and_comes_back_and_traffic_does_not_notice() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let plan = Plan::bookinfo()?;
    // The workloads are started apart, so that they outlive the control plane.
    plan.write("workloads.yaml", "[]\n")?;
    plan.edit("security.yaml", "STRICT", "PERMISSIVE")?;
    plan.edit("traffic.yaml", "subset: v3", "subset: v2")?;
    let mut mesh = plan.argument("--no-gateway").start()?;
    let folder = tempfile::TempDir::new()?;
    let services: [(&str, &[&str]); 4] = [
        ("details", &["details"]),
        ("ratings", &["ratings"]),
        ("reviews", &["reviews", "--version", "v2"]),
        ("productpage", &["productpage"]),
    ];
    let running = services.map(|(name, service)| run(&mesh, folder.path(), name, service));
    let mut running: Vec<Process> = running.into_iter().collect::<Result<_>>()?;
    let entrance = entrance(running.last_mut().context("nothing runs")?)?;
    page_shows(entrance, &["William Shakespeare", "stars black"])?;
    let load = Load::start(2, entrance, "productpage:9080", PAGE, true);
    load.wait_for_more(20)?;
    mesh.process.signal(Signal::KILL)?;
    mesh.process.wait_for_end(e2e::wait::PATIENCE)?;
    load.wait_for_more(50)?;
    mesh.start_again(&["--no-gateway"])?;
    load.wait_for_more(50)?;
    // The sidecars have found their way back if they hear of a change.
    mesh.write("details-elsewhere.yaml", DETAILS_ELSEWHERE)?;
    page_shows(entrance, &["Somebody Else", "stars black"])?;
    let outcome = load.stop();
    assert!(outcome.failures.is_empty(), "{} responses, {:?}", outcome.responses, outcome.failures);
    Ok(())
}

const DETAILS_ELSEWHERE: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: { name: details }
spec:
  hosts: [details]
  http:
  - directResponse: { status: 200, body: { string: '{"author": "Somebody Else"}' } }
"#;

#[test]
fn a_gateway_that_is_told_to_go_finishes_what_it_has_accepted() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let mut mesh = Plan::bookinfo()?.start()?;
    mesh.wait_for_page(PAGE, "William Shakespeare")?;
    let gateway = mesh.workload("gateway")?;
    let load = Load::start(4, mesh.gateway(), "bookinfo.test", PAGE, false);
    load.wait_for_more(20)?;
    let pid =
        gateway.pid.and_then(|pid| Pid::from_raw(pid.cast_signed())).context("no process id")?;
    kill_process(pid, Signal::TERM)?;
    wait_until("another gateway", || {
        let now = mesh.workload("gateway")?;
        Ok((now.pid.is_some() && now.pid != gateway.pid).then_some(()))
    })?;
    let outcome = load.stop();
    assert!(outcome.failures.is_empty(), "{} responses, {:?}", outcome.responses, outcome.failures);
    mesh.wait_for_page(PAGE, "William Shakespeare")?;
    Ok(())
}

#[test]
fn real_envoy_is_a_gateway_and_a_sidecar_of_the_mesh() -> Result<()> {
    if binaries::envoy().is_none() {
        binaries::skip("real_envoy_is_a_gateway_and_a_sidecar_of_the_mesh", "envoy");
        return Ok(());
    }
    let _alone = one_mesh_at_a_time();
    let plan = Plan::bookinfo()?;
    plan.edit(
        "workloads.yaml",
        "run: [bookinfo, details]\n",
        "run: [bookinfo, details]\n  proxy: envoy\n",
    )?;
    let mut mesh = plan.argument("--gateway-proxy").argument("envoy").start()?;
    mesh.wait_for_page(PAGE, "William Shakespeare")?;
    for workload in ["gateway", "details-v1"] {
        let info: serde_json::Value =
            serde_json::from_str(&mesh.admin(workload, "/server_info")?.text())?;
        let version = info["version"].as_str().unwrap_or_default();
        assert!(version.contains("BoringSSL"), "{workload} is {version}");
        let stats = mesh.admin(workload, "/stats?filter=update_rejected")?.text();
        assert!(stats.lines().all(|line| line.ends_with(": 0")), "{workload}: {stats}");
    }
    Ok(())
}

/// The serial number of the certificate that a sidecar shows.
fn serial(mesh: &Mesh, workload: &str) -> Result<String> {
    let certificates = mesh.admin(workload, "/certs")?.text();
    let certificates: serde_json::Value = serde_json::from_str(&certificates)?;
    let serial = certificates["certificates"][0]["cert_chain"][0]["serial_number"].as_str();
    serial.map(str::to_owned).with_context(|| format!("no serial number: {certificates}"))
}

/// Waits until the product page's sidecar knows so many healthy endpoints of `details`.
fn wait_for_details(mesh: &Mesh, count: usize) -> Result<()> {
    wait_until(&format!("{count} endpoints of details"), || {
        let clusters = mesh.admin("productpage-v1", "/clusters")?.text();
        let prefix = "outbound|9080||details.default.svc.cluster.local::";
        let lines: Vec<&str> = clusters.lines().filter(|line| line.starts_with(prefix)).collect();
        let healthy = lines.iter().filter(|line| line.contains("::health_flags::healthy")).count();
        ensure!(healthy == count, "{}\n{}", lines.join("\n"), mesh.status()?["workloads"]);
        Ok(Some(()))
    })
}

/// Where the sidecar of an `outrigger run` listens, as it says itself.
fn entrance(process: &mut Process) -> Result<SocketAddr> {
    let log = process.log_file().to_owned();
    process.wait_for("the address of the sidecar", || {
        let text = std::fs::read_to_string(&log)?;
        let address =
            text.split(" is ready at ").nth(1).and_then(|rest| rest.split_whitespace().next());
        Ok(address.and_then(|address| address.parse().ok()))
    })
}

fn page_shows(entrance: SocketAddr, texts: &[&str]) -> Result<()> {
    wait_until(&format!("a page with {texts:?}"), || {
        let page = e2e::http1::get(entrance, "productpage:9080", PAGE)?.text();
        Ok(texts.iter().all(|text| page.contains(text)).then_some(()))
    })
}

/// `outrigger run` of one of bookinfo's services.
fn run(mesh: &Mesh, folder: &Path, name: &str, service: &[&str]) -> Result<Process> {
    let account = format!("bookinfo-{name}");
    let mut command: Command = mesh.outrigger(&["run", "--name", name, "--port", "9080"])?;
    command
        .args(["--service-account", &account, "--version", "v2", "--", "bookinfo"])
        .args(service);
    Process::start(name, command, folder)
}
