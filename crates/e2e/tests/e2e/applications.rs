//! What `outrigger up` and `outrigger run` make of applications, those that behave and those that do not.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::mesh::{Mesh, Plan};
use e2e::{Process, wait_until};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::one_mesh_at_a_time;

const RATINGS: &str = "run: [bookinfo, ratings]";

#[test]
fn a_first_request_finds_the_way_open_and_the_exit_code_is_the_applications() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let mesh = Plan::bookinfo()?.argument("--no-gateway").start()?;
    wait_for_state(&mesh, "details-v1", "running")?;
    let folder = TempDir::new()?;
    for round in 0..3 {
        let ask =
            "curl -s -o answer -w '%{http_code}' http://details:9080/details/0 > code; exit 7";
        let mut command = mesh.outrigger(&["run", "--name", "client", "--", "sh", "-c", ask])?;
        command.current_dir(folder.path());
        let mut client = Process::start("client", command, folder.path())?;
        let ended = client.wait_for_end(e2e::wait::PATIENCE)?;
        assert_eq!(ended.code(), Some(7), "{}", client.output());
        let code = std::fs::read_to_string(folder.path().join("code"))?;
        assert_eq!(code, "200", "in round {round}: {}", client.output());
    }
    Ok(())
}

#[test]
fn what_an_application_starts_ends_with_the_mesh_however_that_ends() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let plan = Plan::bookinfo()?;
    plan.write("app.sh", "sleep 300 &\necho $! > grandchild\nwait\n")?;
    plan.edit("workloads.yaml", RATINGS, "run: [sh, app.sh]")?;
    let mut mesh = plan.argument("--no-gateway").start()?;
    let file = mesh.directory().join("grandchild");
    let grandchild = wait_until("the application's own child", || {
        Ok(std::fs::read_to_string(&file)?.trim().parse::<u32>().ok())
    })?;
    ensure!(runs(grandchild), "the application's child does not run");
    mesh.process.signal(Signal::KILL)?;
    mesh.process.wait_for_end(e2e::wait::PATIENCE)?;
    wait_until("the end of the application's child", || Ok((!runs(grandchild)).then_some(())))
}

/// Whether a process is there and not merely waiting to be noticed as ended.
fn runs(process: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat"));
    let state = |stat: String| stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('Z'));
    stat.ok().and_then(state) == Some(false)
}

#[test]
fn a_workload_is_ready_when_its_application_accepts_and_status_says_why_it_does_not() -> Result<()>
{
    let _alone = one_mesh_at_a_time();
    let plan = Plan::bookinfo()?;
    plan.edit("workloads.yaml", RATINGS, "run: [sleep, '300']")?;
    let mesh = plan.argument("--no-gateway").start()?;
    wait_for_state(&mesh, "details-v1", "running")?;
    wait_for_trouble(&mesh, "starting", "the application does not accept connections on port")?;
    let output = mesh.process.output();
    ensure!(!output.contains("ratings-v1 is ready"), "{output}");

    mesh.edit("workloads.yaml", "run: [sleep, '300']", RATINGS)?;
    wait_for_state(&mesh, "ratings-v1", "running")?;
    let before = mesh.workload("ratings-v1")?;
    ensure!(before.raw["trouble"].is_null(), "{}", before.raw);

    // A program that is not there takes nothing away from what is.
    mesh.edit("workloads.yaml", RATINGS, "run: [no-such-program]")?;
    wait_until("the row's error", || {
        let problems = mesh.status()?["problems"].to_string();
        Ok(problems.contains("no-such-program").then_some(()))
    })?;
    let after = mesh.workload("ratings-v1")?;
    assert_eq!((after.pid, &after.raw["state"]), (before.pid, &before.raw["state"]));
    mesh.edit("workloads.yaml", "run: [no-such-program]", "run: [sh, -c, 'exit 3']")?;
    wait_for_trouble(&mesh, "waiting", "ended with exit code 3")
}

fn wait_for_state(mesh: &Mesh, name: &str, state: &str) -> Result<()> {
    wait_until(&format!("{name} {state}"), || {
        Ok((workload(mesh, name)?["state"] == state).then_some(()))
    })
}

fn wait_for_trouble(mesh: &Mesh, state: &str, trouble: &str) -> Result<()> {
    wait_until(&format!("ratings-v1 {state}: {trouble}"), || {
        let raw = workload(mesh, "ratings-v1")?;
        let told = raw["trouble"].as_str().with_context(|| raw.to_string())?;
        ensure!(raw["state"] == state, "{raw}");
        Ok(told.starts_with(trouble).then_some(()))
    })
}

fn workload(mesh: &Mesh, name: &str) -> Result<Value> {
    let status = mesh.status()?;
    let mut all = status["workloads"].as_array().into_iter().flatten();
    all.find(|workload| workload["name"] == name).cloned().with_context(|| status.to_string())
}

#[test]
fn a_server_that_speaks_first_is_called_by_tcp_and_an_unknown_one_is_told() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let mesh = Plan::empty()?.argument("--no-gateway").start()?;
    let server = TcpListener::bind("127.0.0.1:0")?;
    let app_port = server.local_addr()?.port().to_string();
    std::thread::spawn(move || {
        for connection in server.incoming().flatten() {
            // Whoever only looks whether it accepts is gone by now.
            let _ = (&connection).write_all(b"hello");
        }
    });
    let folder = TempDir::new()?;
    let start = |name: &str, arguments: &[&str]| -> Result<Process> {
        let mut command = mesh.outrigger(&["run", "--name", name])?;
        command.args(arguments).args(["--", "sleep", "300"]);
        Process::start(name, command, folder.path())
    };
    let _db = start("db", &["--port", "tcp:5432", "--app-port", &app_port])?;
    let mut shop = start("shop", &["--upstream", "db:5432", "--upstream", "nobody:77"])?;
    let entrance = mesh.workload("shop-0")?.address;
    let heard = wait_until("what the server says first", || {
        let mut heard = String::new();
        TcpStream::connect((entrance, 5432))?.read_to_string(&mut heard)?;
        Ok((!heard.is_empty()).then_some(heard))
    })?;
    assert_eq!(heard, "hello");
    let log = shop.log_file().to_owned();
    shop.wait_for("a word on the unknown one", || {
        let text = std::fs::read_to_string(&log)?;
        Ok(text.contains("the mesh has no nobody:77 to call by TCP").then_some(()))
    })
}
