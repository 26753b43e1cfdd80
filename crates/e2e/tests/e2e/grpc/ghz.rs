//! Load as Go's gRPC makes it, with `ghz`.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{Engine, binaries};
use serde_json::Value;

use super::service;
use super::topology::Route;

#[test]
fn no_call_of_ghz_fails_through_one_hop_or_two() -> Result<()> {
    if binaries::program("ghz").is_none() {
        binaries::skip("no_call_of_ghz_fails_through_one_hop_or_two", "ghz (which needs Go)");
        return Ok(());
    }
    let server = service::Server::start()?;
    for engine in Engine::available() {
        let one = Route::one_hop(engine, server.port())?;
        let two = Route::two_hops((engine, engine), server.port())?;
        for route in [one, two] {
            for method in ["interop.Test.Unary", "interop.Test.Chat"] {
                let said = || format!("{method} through {} of {engine:?}", route.proxies.len());
                let report = ghz(&route, method).with_context(said)?;
                let codes = &report["statusCodeDistribution"];
                ensure!(
                    codes == &serde_json::json!({ "OK": CALLS }),
                    "{}: {codes} {}",
                    said(),
                    report["errorDistribution"]
                );
            }
        }
    }
    Ok(())
}

const CALLS: u32 = 2000;

fn ghz(route: &Route, method: &str) -> Result<Value> {
    let ghz = binaries::program("ghz").context("ghz")?;
    let proto = binaries::root().join("crates/e2e/tests/e2e/grpc/interop.proto");
    let data = r#"{"data": "c29tZXRoaW5nIHRvIHNheQ=="}"#;
    let calls = CALLS.to_string();
    let done = Command::new(ghz)
        .args(["--insecure", "--format", "json", "--call", method, "--data", data])
        .arg("--proto")
        .arg(proto)
        .args(["--total", &calls, "--concurrency", "40", "--connections", "4"])
        .arg(route.entrance.to_string())
        .output()?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_str(&said).with_context(|| said.clone())
}
