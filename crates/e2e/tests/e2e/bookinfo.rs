//! The bookinfo mesh, as a person would meet it: a page, its stars, and the weights that decide about them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::http1::Connection;
use e2e::mesh::{Mesh, Plan};
use e2e::{Load, binaries, wait_until};

use crate::one_mesh_at_a_time;

const PAGE: &str = "/productpage";
const WEIGHTS: &str = "weight: 92";

#[test]
fn traffic_follows_the_weights_and_their_change() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let mut mesh = Plan::bookinfo()?.start()?;
    mesh.wait_for_page(PAGE, "served by reviews")?;
    wait_for_both_versions(&mesh)?;
    let share = count(&mesh, 1000, "reviews v3")?;
    // 8 % of 1,000: mean 80, three standard deviations 25.7.
    assert!((55..=105).contains(&share), "{share} of 1,000 requests went to v3, which has 8 %");

    let load = Load::start(2, mesh.gateway(), "bookinfo.test", PAGE, true);
    load.wait_for_more(20)?;
    // Each way twice, so that one hiccup of the machine is seen for what it is.
    let mut took = Vec::new();
    for (v2, v3) in [(0, 100), (100, 0), (0, 100), (100, 0)] {
        took.push(time_to_change(&mesh, v2, v3)?);
        load.wait_for_more(20)?;
    }
    let outcome = load.stop();
    assert!(outcome.failures.is_empty(), "{:?}", outcome.failures);
    eprintln!("from the file's change to the first page of the other version alone: {took:?}");
    Ok(())
}

/// Writes these weights and waits until pages come from the heavier version alone; how long that took from the writing of the
/// file to the sending of the first request of the pages that showed it.
fn time_to_change(mesh: &Mesh, v2: u32, v3: u32) -> Result<Duration> {
    let traffic = binaries::root().join("examples/bookinfo/traffic.yaml");
    let text = std::fs::read_to_string(traffic)?
        .replace(WEIGHTS, &format!("weight: {v2}"))
        .replace("weight: 8\n", &format!("weight: {v3}\n"));
    let wanted = if v3 > v2 { "reviews v3" } else { "reviews v2" };
    mesh.write("traffic.yaml", &text)?;
    let changed = Instant::now();
    wait_until(&format!("all reviews to come as {wanted}"), || {
        let asked = changed.elapsed();
        Ok((count(mesh, 20, wanted)? == 20).then_some(asked))
    })
}

#[test]
fn a_bad_edit_is_reported_and_the_old_configuration_keeps_serving() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let mut mesh = Plan::bookinfo()?.start()?;
    mesh.wait_for_page(PAGE, "served by reviews")?;
    mesh.edit("traffic.yaml", "weight: 8", "weight: many")?;
    let problem = wait_until("the problem in the status", || {
        let status = mesh.status()?;
        Ok(status["problems"].as_array().and_then(|all| all.first()).map(ToString::to_string))
    })?;
    assert!(problem.contains("traffic.yaml:") && problem.contains("weight"), "{problem}");
    for _ in 0..20 {
        assert_eq!(mesh.get(PAGE)?.status, 200);
    }
    mesh.edit("traffic.yaml", "weight: many", "weight: 8")?;
    wait_until("the problem to go", || {
        Ok(mesh.status()?["problems"].as_array().is_some_and(Vec::is_empty).then_some(()))
    })
}

#[test]
fn a_browser_sees_the_stars() -> Result<()> {
    let Some(chromium) = binaries::program("chromium") else {
        binaries::skip("a_browser_sees_the_stars", "chromium");
        return Ok(());
    };
    let _alone = one_mesh_at_a_time();
    let mut mesh = Plan::bookinfo()?.start()?;
    mesh.edit("traffic.yaml", WEIGHTS, "weight: 0")?;
    mesh.edit("traffic.yaml", "weight: 8", "weight: 100")?;
    mesh.wait_for_page(PAGE, "stars red")?;
    wait_until("all reviews to come from v3", || {
        Ok((count(&mesh, 20, "reviews v3")? == 20).then_some(()))
    })?;
    let red = screenshot(&chromium, &mesh, "red")?;
    mesh.edit("traffic.yaml", "subset: v3", "subset: v1")?;
    wait_until("all reviews to come from v1", || {
        Ok((count(&mesh, 20, "reviews v1")? == 20).then_some(()))
    })?;
    let none = screenshot(&chromium, &mesh, "none")?;
    assert!(red.starts_with(b"\x89PNG") && red.len() > 10_000, "{} bytes", red.len());
    assert_ne!(red, none, "the stars are not to be seen");
    Ok(())
}

#[test]
fn a_workload_that_crashes_comes_back_and_a_second_up_is_refused() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let mut mesh = Plan::bookinfo()?.start()?;
    mesh.wait_for_page(PAGE, "served by reviews")?;
    let directory = mesh.directory();
    let second = mesh.run(&["up", directory.to_str().unwrap_or_default()])?;
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("already running"), "{said}");

    let before = mesh.workload("details-v1")?;
    let pid = before.pid.context("no process id")?;
    kill(pid)?;
    wait_until("details to be restarted", || {
        let now = mesh.workload("details-v1")?;
        Ok((now.restarts > before.restarts && now.pid != before.pid).then_some(()))
    })?;
    mesh.wait_for_page(PAGE, "William Shakespeare")?;
    Ok(())
}

/// Istio's own sample, as it is, with each of its routings of reviews in turn.
#[test]
fn istios_bookinfo_runs_unmodified() -> Result<()> {
    let inputs = binaries::root().join("../shared/inputs/istio/bookinfo");
    if !inputs.is_dir() {
        binaries::skip("istios_bookinfo_runs_unmodified", "../shared/inputs/istio/bookinfo");
        return Ok(());
    }
    let _alone = one_mesh_at_a_time();
    let plan = Plan::empty()?;
    for file in [
        "platform/bookinfo.yaml",
        "networking/bookinfo-gateway.yaml",
        "networking/destination-rule-all.yaml",
    ] {
        plan.copy_file(&inputs.join(file))?;
    }
    plan.copy_file(&binaries::root().join("examples/bookinfo/workloads.yaml"))?;
    let mut mesh = plan.start()?;
    mesh.wait_for_page(PAGE, "served by reviews")?;
    let routings: [(&str, &[&str]); 6] = [
        ("virtual-service-all-v1.yaml", &["v1"]),
        ("virtual-service-reviews-v3.yaml", &["v3"]),
        ("virtual-service-reviews-50-v3.yaml", &["v1", "v3"]),
        ("virtual-service-reviews-80-20.yaml", &["v1", "v2"]),
        ("virtual-service-reviews-90-10.yaml", &["v1", "v2"]),
        ("virtual-service-reviews-v2-v3.yaml", &["v2", "v3"]),
    ];
    for (file, versions) in routings {
        let text = std::fs::read_to_string(inputs.join("networking").join(file))?;
        mesh.write("routing.yaml", &text)?;
        settle_on(&mesh, versions, None).with_context(|| file.to_owned())?;
    }
    let text =
        std::fs::read_to_string(inputs.join("networking/virtual-service-reviews-test-v2.yaml"))?;
    mesh.write("routing.yaml", &text)?;
    settle_on(&mesh, &["v2"], Some("jason"))?;
    settle_on(&mesh, &["v1"], None)
}

/// Waits until exactly these versions of reviews answer.
fn settle_on(mesh: &Mesh, versions: &[&str], user: Option<&str>) -> Result<()> {
    wait_until(&format!("reviews {versions:?}"), || {
        let mut seen = versions_seen(mesh.gateway(), 60, user)?;
        seen.sort();
        seen.dedup();
        ensure!(seen == versions, "{seen:?}");
        Ok(Some(()))
    })
}

fn wait_for_both_versions(mesh: &Mesh) -> Result<()> {
    wait_until("both versions of reviews", || {
        let seen = versions_seen(mesh.gateway(), 60, None)?;
        Ok((seen.iter().any(|v| v == "v2") && seen.iter().any(|v| v == "v3")).then_some(()))
    })
}

/// How many of `requests` pages have `text`.
fn count(mesh: &Mesh, requests: usize, text: &str) -> Result<usize> {
    let version = text.trim_start_matches("reviews ");
    Ok(versions_seen(mesh.gateway(), requests, None)?
        .iter()
        .filter(|seen| *seen == version)
        .count())
}

fn versions_seen(gateway: SocketAddr, requests: usize, user: Option<&str>) -> Result<Vec<String>> {
    let mut connection = Connection::open(gateway)?;
    let cookie = user.map_or_else(String::new, |user| format!("cookie: user={user}\r\n"));
    let mut seen = Vec::with_capacity(requests);
    for _ in 0..requests {
        connection.send(format!("GET {PAGE} HTTP/1.1\r\nhost: bookinfo.test\r\n{cookie}\r\n"))?;
        let response = connection.response()?;
        let text = response.text();
        ensure!(response.status == 200, "{}: {text}", response.status);
        let version =
            text.split("served by reviews ").nth(1).and_then(|rest| rest.split('<').next());
        seen.push(version.with_context(|| format!("no reviews on the page: {text}"))?.to_owned());
    }
    Ok(seen)
}

fn screenshot(chromium: &Path, mesh: &Mesh, name: &str) -> Result<Vec<u8>> {
    let folder = binaries::root().join("target/e2e");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("bookinfo-{name}.png"));
    let profile = tempfile::TempDir::new()?;
    let done = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--window-size=1000,500",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--screenshot={}", file.display()))
        .arg(format!("http://{}{PAGE}", mesh.gateway()))
        .output()?;
    ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    std::fs::read(&file).with_context(|| format!("{}", file.display()))
}

fn kill(pid: u32) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).context("a process id")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).context("kill")
}
