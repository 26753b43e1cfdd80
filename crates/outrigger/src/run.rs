//! One workload: its agent, its proxy and its application, from the first to the last word.
//!
//! A clean end has an order that loses no request: the endpoint goes first; when what was under way has its answers the
//! application is told; the proxy ends last.

pub mod app;
pub mod engine;
pub mod membership;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use agent::app_listener::listening_ports;
use agent::app_ports::AppPorts;
use agent::bootstrap::{Role, Workload};
use agent::health::Health;
use agent::{Agent, Options};
use anyhow::Context;
use identity::ProxyCredential;
use rustix::process::Signal;
use telemetry::logging::Levels;
use tokio::signal::unix::{SignalKind, signal};

use app::{App, Surroundings, exit_code};
use engine::{Engine, Kind, Settings};
use membership::Membership;

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
/// A control plane that is back sooner was hardly gone.
const LOSS_WORTH_SAYING: Duration = Duration::from_secs(1);
/// An application that does not accept where it should is looked for elsewhere after this.
const FOLLOW_AFTER: Duration = Duration::from_secs(2);

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
    let mut app = match plan.gateway {
        true => None,
        false => Some(App::start(&plan.command, &surroundings(&member, &ports, &credential))?),
    };
    member.notes.iter().for_each(|note| tracing::info!("{note}"));

    let end = {
        let group = app.as_ref().map(App::group);
        let watching = async {
            tokio::join!(tell_and_follow(&agent, &member, &ports, group), tell_of_loss(&agent));
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
                tracing::error!("{failure}");
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
        () = signals.end() => Ok(ExitCode::from(130)),
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
            tracing::warn!("the application does not end, so it is killed");
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

/// Says when the workload is ready, and follows an application that turns out to be elsewhere.
async fn tell_and_follow(agent: &Agent, member: &Membership, ports: &AppPorts, group: Option<u32>) {
    let mut health = agent.health();
    let mut follow = tokio::time::interval(FOLLOW_AFTER);
    follow.tick().await;
    let mut followed = None;
    loop {
        tokio::select! {
            healthy = health.wait_for(|health| *health == Health::Healthy) => {
                if healthy.is_err() {
                    return;
                }
                break;
            }
            _ = follow.tick() => {
                if let Some(found) = group.and_then(|group| elsewhere(group, ports))
                    && followed.replace(found) != Some(found)
                {
                    tracing::warn!("the application does not listen on the port it was given (PORT), but on {found}: followed");
                    agent.follow_app(AppPorts::all_on(&member.ports, found));
                }
            }
        }
    }
    let list: Vec<String> = member.ports.iter().map(u16::to_string).collect();
    tracing::info!(
        "{}.{} ready at {} port {}",
        member.group,
        member.namespace,
        member.address,
        list.join(", ")
    );
}

/// Says when the control plane is lost, and when it is back. A stream that is reopened at once is not worth a word.
async fn tell_of_loss(agent: &Agent) {
    let mut relay = agent.relay();
    loop {
        if relay.wait_for(|relay| relay.streams > 0).await.is_err()
            || relay.wait_for(|relay| relay.streams == 0).await.is_err()
        {
            return;
        }
        let back = relay.wait_for(|relay| relay.streams > 0);
        if tokio::time::timeout(LOSS_WORTH_SAYING, back).await.is_ok() {
            continue;
        }
        tracing::warn!("the control plane is lost; everything stays as it is until it is back");
        if relay.wait_for(|relay| relay.streams > 0).await.is_ok() {
            tracing::info!("the control plane is back");
        }
    }
}

/// Where an application listens that does not listen where it should: on a port of the workload, else the lowest.
fn elsewhere(group: u32, ports: &AppPorts) -> Option<u16> {
    let found = listening_ports(group);
    if ports.0.values().any(|expected| found.contains(expected)) {
        return None;
    }
    ports.0.keys().copied().find(|port| found.contains(port)).or_else(|| found.first().copied())
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
        port: first.copied().unwrap_or_default(),
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
    async fn end(&mut self) {
        while let Caught::Forward(_) = self.next().await {}
    }
}
