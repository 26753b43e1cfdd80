//! HTTP between sidecars in every mixture of Outrigger and Envoy: what applications say in HTTP/1.1 arrives as they said it,
//! and two sidecars of ours have agreed on HTTP/2 for the way between them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};
use e2e::http1::Connection;
use e2e::mesh::{Mesh, Plan};
use e2e::wait::{PATIENCE, wait_until};
use e2e::{Process, binaries};
use tempfile::TempDir;

use crate::one_mesh_at_a_time;

/// More than any window starts with.
const BIG: usize = 3 << 20;

const MODE: &str = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: mode, namespace: default}, spec: {mtls: {mode: PERMISSIVE}}}\n";

fn service(name: &str, port: u16) -> String {
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: default}}, spec: {{ports: [{{port: {port}, name: http}}], selector: {{app: {name}}}}}}}\n---\n"
    )
}

/// A callee, and whose proxy stands before it.
struct Callee {
    name: &'static str,
    proxy: &'static str,
    port: u16,
}

const CALLEES: [Callee; 2] = [
    Callee { name: "web", proxy: "outrigger", port: 8081 },
    Callee { name: "elsewhere", proxy: "envoy", port: 8082 },
];

#[test]
fn applications_talk_through_every_mixture_of_sidecars() -> Result<()> {
    let _alone = one_mesh_at_a_time();
    let has_envoy = binaries::envoy().is_some();
    if !has_envoy {
        binaries::skip("the half of applications_talk_through_every_mixture_of_sidecars", "envoy");
    }
    let proxies = if has_envoy { &["outrigger", "envoy"][..] } else { &["outrigger"] };
    let folder = TempDir::new()?;
    let plan = Plan::empty()?;
    let objects: String = CALLEES.iter().map(|it| service(it.name, it.port)).collect();
    plan.write("objects.yaml", &(objects + MODE))?;
    let mesh = plan.argument("--no-gateway").start()?;
    let (release, released) = channel();
    let app = serve_app(released)?;
    let mut running = Vec::new();
    let callees = || CALLEES.iter().filter(|callee| proxies.contains(&callee.proxy));
    for callee in callees() {
        let (app, port) = (app.port().to_string(), callee.port.to_string());
        let arguments = ["--port", &port, "--app-port", &app, "--proxy", callee.proxy];
        running.push(run(&mesh, &folder, callee.name, &arguments, "exec sleep 600")?);
    }
    for proxy in proxies {
        let name = format!("by-{proxy}");
        let upstreams = CALLEES.map(|callee| format!("{}:{}", callee.name, callee.port));
        let mut arguments = vec!["--proxy", proxy];
        upstreams.iter().for_each(|upstream| arguments.extend(["--upstream", upstream]));
        running.push(run(&mesh, &folder, &name, &arguments, TUNNELLED)?);
        for callee in callees() {
            let workload = format!("{name}-0");
            let entrance = SocketAddr::new(mesh.workload(&workload)?.address, callee.port);
            let what = format!("{proxy} to {}", callee.proxy);
            talk(entrance, &release).with_context(|| what.clone())?;
            let versions = [1, 2].map(|version| connections(&mesh, &workload, callee, version));
            let [http1, http2] = versions;
            let (http1, http2) = (http1?, http2?);
            // Ours agree with whoever offers it, Envoys have Istio's configuration.
            let agreed = *proxy == "outrigger";
            ensure!((http2 > 0) == agreed && (http1 > 0) != agreed, "{what}: {http1} and {http2}");
        }
    }
    for caller in running.iter_mut().skip(callees().count()) {
        let log = caller.log_file().to_owned();
        caller.wait_for("an answer through a tunnel", || {
            let said = std::fs::read_to_string(&log)?;
            Ok(said.contains("GET /tunnelled HTTP/1.1").then_some(()))
        })?;
    }
    // Plaintext is still taken from those who have nothing else.
    for callee in callees() {
        let address = mesh.workload(&format!("{}-0", callee.name))?.address;
        let answer = e2e::http1::get(SocketAddr::new(address, callee.port), "web", "/plain")?;
        ensure!(answer.text().starts_with("GET /plain HTTP/1.1"), "{}", answer.text());
    }
    Ok(())
}

/// HTTP/1.1 through a tunnel that the outbound proxy opens: bytes, of which nobody promised that they are HTTP/2.
const TUNNELLED: &str =
    "until curl -sf --proxytunnel http://web:8081/tunnelled; do sleep 0.2; done; exec sleep 600";

/// `outrigger run` of a shell's command.
fn run(
    mesh: &Mesh,
    folder: &TempDir,
    name: &str,
    arguments: &[&str],
    app: &str,
) -> Result<Process> {
    let mut command = mesh.outrigger(&["run", "--name", name])?;
    command.args(arguments).args(["--", "sh", "-c", app]);
    Process::start(name, command, folder.path())
}

/// How many connections to a callee spoke that version so far.
fn connections(mesh: &Mesh, caller: &str, callee: &Callee, version: u8) -> Result<u64> {
    let host = format!("{}.default.svc.cluster.local", callee.name);
    let stat = format!("cluster.outbound|{}||{host}.upstream_cx_http{version}_total", callee.port);
    // Envoy's names of clusters end in a semicolon, as Istio's `altStatName` has none.
    let all = mesh.admin(caller, &format!("/stats?filter=upstream_cx_http{version}_total"))?.text();
    let line = all.lines().find(|line| line.replace(";.", ".").starts_with(&stat));
    let count = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    count.with_context(|| format!("no {stat}: {all}"))
}

/// Everything that HTTP/1.1 has between one application and another.
fn talk(entrance: SocketAddr, release: &Sender<()>) -> Result<()> {
    wait_until("an answer", || {
        let answer = e2e::http1::get(entrance, "web", "/first")?;
        ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
        Ok(Some(()))
    })?;
    let mut client = Connection::open(entrance)?;
    let answer = client.get("web", "/kept?a=b")?;
    ensure!(answer.text() == "GET /kept?a=b HTTP/1.1, 0 bytes", "{}", answer.text());
    ensure!(client.get("web", "/nothing")?.status == 204);
    client.send("HEAD /head HTTP/1.1\r\nhost: web\r\n\r\n")?;
    let (status, fields) = client.head()?;
    let length = fields.iter().find(|(name, _)| name == "content-length");
    ensure!(status == 200 && length.is_some(), "{status} {fields:?}");
    client.send("POST /chunked HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")?;
    ensure!(client.response()?.text() == "POST /chunked HTTP/1.1, 5 bytes");

    // A body that waits to be asked for.
    client.send(
        "PUT /asked HTTP/1.1\r\nhost: web\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n",
    )?;
    ensure!(client.head()?.0 == 100);
    client.send("ok")?;
    ensure!(client.response()?.text() == "PUT /asked HTTP/1.1, 2 bytes");

    // Bodies beyond every window, both ways.
    client.send(format!("POST /up HTTP/1.1\r\nhost: web\r\ncontent-length: {BIG}\r\n\r\n"))?;
    client.send(vec![b'x'; BIG])?;
    ensure!(client.response()?.text() == format!("POST /up HTTP/1.1, {BIG} bytes"));
    ensure!(client.get("web", "/big")?.body.len() == BIG);

    // An answer that never ends is passed on as it comes, and holds up nobody beside it.
    let mut listening = Connection::open(entrance)?;
    listening.send("GET /events HTTP/1.1\r\nhost: web\r\n\r\n")?;
    ensure!(listening.head()?.0 == 200);
    let first = listening.take(14)?;
    ensure!(first == b"9\r\ndata: 1\n\n\r\n", "{:?}", String::from_utf8_lossy(&first));
    ensure!(client.get("web", "/beside")?.status == 200);
    release.send(())?;
    let second = listening.take(14)?;
    ensure!(second == b"9\r\ndata: 2\n\n\r\n", "{:?}", String::from_utf8_lossy(&second));

    web_socket(entrance)
}

fn web_socket(entrance: SocketAddr) -> Result<()> {
    let mut client = Connection::open(entrance)?;
    client.send("GET /socket HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")?;
    let (status, fields) = client.head()?;
    let accept = fields.iter().find(|(name, _)| name == "sec-websocket-accept");
    let accept = accept.map(|(_, value)| value.as_str());
    ensure!(status == 101 && accept == Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{status} {fields:?}");
    for word in ["ping", "pong"] {
        client.send(word)?;
        ensure!(client.take(word.len())? == word.as_bytes());
    }
    Ok(())
}

/// An application of HTTP/1.1; says where it listens. Its events go on when they are released.
fn serve_app(released: Receiver<()>) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let released = Arc::new(Mutex::new(released));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let released = Arc::clone(&released);
            thread::spawn(move || while let Ok(true) = answer_one(&stream, &released) {});
        }
    });
    Ok(address)
}

/// Answers a request; says whether another may come.
fn answer_one(mut stream: &TcpStream, released: &Mutex<Receiver<()>>) -> Result<bool> {
    // Nobody sends the next request, or more of a tunnel, before the answer.
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(false);
        }
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_ascii_lowercase()),
        }
    }
    let field = |name: &str| head.iter().find_map(|line| line.strip_prefix(name));
    if field("expect: 100-continue").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = 0;
    if let Some(length) = field("content-length: ") {
        let length = length.parse()?;
        body = std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
    } else if field("transfer-encoding: chunked").is_some() {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size)?;
            let size = u64::from_str_radix(size.trim_end(), 16)?;
            std::io::copy(&mut (&mut reader).take(size + 2), &mut std::io::sink())?;
            body += size;
            if size == 0 {
                break;
            }
        }
    }
    let (method, path) = head[0].split_once(' ').context("a request line")?;
    let (path, version) = path.rsplit_once(' ').context("a request line")?;
    let (method, version) = (method.to_ascii_uppercase(), version.to_ascii_uppercase());
    let said = format!("{method} {path} {version}, {body} bytes");
    match path {
        "/nothing" => stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?,
        "/big" => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n")?;
            stream.write_all(&vec![b'x'; BIG])?;
        }
        "/events" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n")?;
            released.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(PATIENCE)?;
            stream.write_all(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")?;
        }
        "/socket" => {
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")?;
            let mut echo = stream;
            std::io::copy(&mut reader, &mut echo)?;
            return Ok(false);
        }
        _ => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", said.len())?;
            if method != "HEAD" {
                stream.write_all(said.as_bytes())?;
            }
        }
    }
    Ok(true)
}
