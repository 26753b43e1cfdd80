//! One workload: its agent, its proxy and its application, from the first to the last word.
//!
//! A clean end has an order that loses no request: the endpoint goes first; when what was under way has its answers the
//! application is told; the proxy ends last.

pub mod app;
pub mod engine;
pub mod membership;
pub mod news;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use agent::app_ports::AppPorts;
use agent::bootstrap::{Role, Workload};
use agent::health::accepts;
use agent::{Agent, Options};
use anyhow::Context;
use identity::ProxyCredential;
use rustix::process::Signal;
use telemetry::logging::Levels;
use tokio::signal::unix::{SignalKind, signal};

use app::{App, Surroundings, exit_code};
use engine::{Engine, Kind, Settings};
use membership::Membership;

use crate::tell;

/// The engine's admin, on the workload's address.
const ADMIN_PORT: u16 = 15000;
/// The outbound HTTP proxy.
const HTTP_PROXY_PORT: u16 = 15007;
/// Readiness and metrics.
const STATUS_PORT: u16 = 15020;

/// How long the control plane may take to tell everyone that we leave.
const LEAVE_LIMIT: Duration = Duration::from_secs(3);
/// After the last word to a sidecar's proxy, whose application has ended.
const SIDECAR_GRACE: Duration = Duration::ZERO;
/// A gateway's clients hear `Connection: close` for so long before its listeners go.
const GATEWAY_GRACE: Duration = Duration::from_secs(2);
/// The way out of an application may take so long to open; then it is started without.
const WAY_OUT_LIMIT: Duration = Duration::from_secs(10);
/// A proxy that has its configuration opens what is in it in much less.
const WAY_OUT_GRACE: Duration = Duration::from_secs(1);
/// Time between two looks whether something listens.
const LOOK: Duration = Duration::from_millis(10);

/// What is to be run.
pub struct Plan {
    /// A gateway instead of an application.
    pub gateway: bool,
    /// What the gateway binds.
    pub gateway_address: Option<IpAddr>,
    /// The application's port.
    pub app_port: Option<u16>,
    /// TCP destinations.
    pub upstreams: Vec<String>,
    /// Which proxy.
    pub proxy: Kind,
    /// Envoy's executable.
    pub envoy_path: PathBuf,
    /// The proxy's threads.
    pub concurrency: usize,
    /// The life of certificates.
    pub certificate_ttl: Duration,
    /// How long requests may take at the end.
    pub drain_time: Duration,
    /// The application and its arguments.
    pub command: Vec<OsString>,
    /// Levels of this process's log.
    pub levels: Arc<Levels>,
    /// Whether somebody else says that the workload is ready.
    pub is_announced: bool,
}

/// Why the run ends.
enum End {
    /// The application has ended.
    App(ExitStatus),
    /// We were asked to, by this signal.
    Asked(Signal),
    /// Without its proxy the application is cut off.
    Engine(String),
}

/// Runs a workload that has joined a mesh; returns the application's exit code.
pub async fn run(plan: Plan, member: Membership) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let credential = ProxyCredential::generate();
    let ports = app_ports(&plan, &member)?;
    let workload = workload(&plan, &member, &ports, &credential);
    let agent = Agent::start(Options {
        workload,
        trust_domain: member.trust_domain.clone(),
        control_plane: member.control_plane.clone(),
        roots_pem: member.roots_pem.clone(),
        tokens: member.tokens.clone(),
        certificate_ttl: plan.certificate_ttl,
        admin: SocketAddr::new(member.address, ADMIN_PORT),
        status: SocketAddr::new(member.address, STATUS_PORT),
        directory: member.directory.clone(),
    })
    .await?;
    let mut engine = Engine::start(&settings(&plan, &member), &agent.bootstrap()).await?;
    member.notes.iter().for_each(|note| tell(note));
    let mut app = None;
    if !plan.gateway {
        let end = until_way_out(&agent, &member, &mut engine, &mut signals).await;
        if let Some(end) = end {
            return finish(end, &agent, engine, app, &mut signals, plan.drain_time).await;
        }
        app = Some(App::start(&plan.command, &surroundings(&member, &ports, &credential))?);
    }

    let end = {
        let group = app.as_ref().map(App::group);
        let watching = async {
            tokio::join!(
                news::readiness(&agent, &member, &ports, group, plan.is_announced),
                news::upstreams(&plan.upstreams, member.address),
                news::control_plane(&agent)
            );
            // The agent is here as long as we are.
            std::future::pending::<()>().await;
        };
        tokio::pin!(watching);
        loop {
            tokio::select! {
                () = &mut watching => {}
                status = wait_for(&mut app) => break End::App(status?),
                failure = engine.failed() => break End::Engine(failure),
                () = agent.quit_requested() => break End::Asked(Signal::TERM),
                caught = signals.next() => match caught {
                    Caught::End(signal) => break End::Asked(signal),
                    Caught::Forward(signal) => app.iter().for_each(|app| app.signal(signal)),
                },
            }
        }
    };
    finish(end, &agent, engine, app, &mut signals, plan.drain_time).await
}

/// Waits until the application's first request would find the sidecar's way out open; or tells why it is not to start.
async fn until_way_out(
    agent: &Agent,
    member: &Membership,
    engine: &mut Engine,
    signals: &mut Signals,
) -> Option<End> {
    let way_out = SocketAddr::new(member.address, HTTP_PROXY_PORT);
    let open = async {
        while !accepts(way_out).await {
            tokio::time::sleep(LOOK).await;
        }
    };
    // A `Sidecar` may say that there is none.
    let configured = async {
        while !agent.proxy_is_ready().await {
            tokio::time::sleep(LOOK).await;
        }
        tokio::time::sleep(WAY_OUT_GRACE).await;
    };
    tokio::select! {
        () = open => None,
        () = configured => None,
        () = tokio::time::sleep(WAY_OUT_LIMIT) => {
            let seconds = WAY_OUT_LIMIT.as_secs();
            tell(&format!(
                "the mesh has said nothing for {seconds} s: the application is started, but reaches nobody yet"
            ));
            None
        }
        failure = engine.failed() => Some(End::Engine(failure)),
        signal = signals.end() => Some(End::Asked(signal)),
    }
}

/// Ends everything in an order that loses no request. A second word to end kills.
async fn finish(
    end: End,
    agent: &Agent,
    engine: Engine,
    mut app: Option<App>,
    signals: &mut Signals,
    drain_time: Duration,
) -> anyhow::Result<ExitCode> {
    let orderly = async {
        match end {
            End::App(status) => {
                if let Some(signal) = status.signal() {
                    tell(&format!("the application was ended by signal {signal}"));
                }
                agent.app_ended();
                agent.leave(LEAVE_LIMIT).await;
                engine.stop().await;
                anyhow::Ok(ExitCode::from(exit_code(status)))
            }
            End::Asked(signal) => {
                agent.leave(LEAVE_LIMIT).await;
                if app.is_some() {
                    agent.quiesce(drain_time).await;
                }
                let code = stop_app(&mut app, signal, drain_time).await?;
                engine.stop().await;
                Ok(code)
            }
            End::Engine(failure) => {
                tell(&failure);
                agent.leave(LEAVE_LIMIT).await;
                stop_app(&mut app, Signal::TERM, drain_time).await?;
                engine.stop().await;
                Ok(ExitCode::FAILURE)
            }
        }
    };
    tokio::select! {
        code = orderly => code,
        // The application is killed when it is dropped, a child engine too.
        _ = signals.end() => Ok(ExitCode::from(130)),
    }
}

/// Tells the application to end and waits; one that does not is killed when the drain time is over.
async fn stop_app(
    app: &mut Option<App>,
    signal: Signal,
    drain_time: Duration,
) -> anyhow::Result<ExitCode> {
    let Some(app) = app else { return Ok(ExitCode::SUCCESS) };
    app.signal(signal);
    let status = match tokio::time::timeout(drain_time, app.wait()).await {
        Ok(status) => status?,
        Err(_) => {
            tell("the application does not end, so it is killed");
            app.signal(Signal::KILL);
            app.wait().await?
        }
    };
    Ok(ExitCode::from(exit_code(status)))
}

async fn wait_for(app: &mut Option<App>) -> std::io::Result<ExitStatus> {
    match app {
        Some(app) => app.wait().await,
        None => std::future::pending().await,
    }
}

/// The first port of the workload is on the application's port; further ones are on free ports of their own.
fn app_ports(plan: &Plan, member: &Membership) -> anyhow::Result<AppPorts> {
    let mut ports = AppPorts::default();
    if plan.gateway {
        return Ok(ports);
    }
    let mut taken = Vec::new();
    for (index, port) in member.ports.iter().enumerate() {
        let app = match plan.app_port {
            Some(given) if index == 0 => given,
            _ => free_port(&mut taken)?,
        };
        ports.0.insert(*port, app);
    }
    Ok(ports)
}

/// A port of 127.0.0.1 that nobody has. Listeners are kept until all are chosen, so that none is chosen twice.
fn free_port(taken: &mut Vec<TcpListener>) -> anyhow::Result<u16> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port for the application")?;
    let port = listener.local_addr()?.port();
    taken.push(listener);
    Ok(port)
}

fn workload(
    plan: &Plan,
    member: &Membership,
    ports: &AppPorts,
    credential: &ProxyCredential,
) -> Workload {
    let role = if plan.gateway { Role::Gateway } else { Role::Sidecar };
    Workload {
        role,
        name: format!("{}-{}", member.group, member.instance),
        namespace: member.namespace.clone(),
        service_account: member.service_account.clone(),
        workload_name: member.group.clone(),
        labels: member.labels.clone(),
        address: member.address,
        group: Some(member.group.clone()),
        app_ports: ports.clone(),
        upstreams: plan.upstreams.clone(),
        http_proxy_port: HTTP_PROXY_PORT,
        proxy_credential: (role == Role::Sidecar).then(|| credential.htpasswd_line()),
        gateway_address: plan.gateway_address,
        mesh: member.mesh.clone(),
    }
}

fn settings(plan: &Plan, member: &Membership) -> Settings {
    Settings {
        kind: plan.proxy,
        envoy_path: plan.envoy_path.clone(),
        concurrency: plan.concurrency,
        grace: if plan.gateway { GATEWAY_GRACE } else { SIDECAR_GRACE },
        drain_time: plan.drain_time,
        directory: member.directory.clone(),
        levels: plan.levels.clone(),
    }
}

fn surroundings(
    member: &Membership,
    ports: &AppPorts,
    credential: &ProxyCredential,
) -> Surroundings {
    let first = member.ports.first().and_then(|port| ports.0.get(port));
    let proxy = SocketAddr::new(member.address, HTTP_PROXY_PORT);
    Surroundings {
        port: first.copied(),
        address: member.address,
        http_proxy: format!("http://{}@{proxy}", credential.userinfo()),
        ports: ports.0.iter().map(|(port, app)| (*port, *app)).collect(),
    }
}

/// What was caught.
enum Caught {
    /// Asks us to end.
    End(Signal),
    /// Is for the application.
    Forward(Signal),
}

/// The signals that a run listens to.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    user1: tokio::signal::unix::Signal,
    user2: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Caught {
        tokio::select! {
            _ = self.terminate.recv() => Caught::End(Signal::TERM),
            _ = self.interrupt.recv() => Caught::End(Signal::INT),
            _ = self.quit.recv() => Caught::End(Signal::QUIT),
            _ = self.hangup.recv() => Caught::Forward(Signal::HUP),
            _ = self.user1.recv() => Caught::Forward(Signal::USR1),
            _ = self.user2.recv() => Caught::Forward(Signal::USR2),
        }
    }

    /// Waits for the next word to end.
    async fn end(&mut self) -> Signal {
        loop {
            if let Caught::End(signal) = self.next().await {
                return signal;
            }
        }
    }
}
