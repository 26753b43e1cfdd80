//! The proxies that are compared: each turns a [`Setting`] into running processes.

mod envoy_bootstrap;
mod haproxy_conf;
mod nginx_conf;
mod sidecar_bootstrap;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::certificates::Certificates;
use super::load::Pattern;
use super::process::Process;
use super::scenarios::{BetweenSidecars, Scenario};
use crate::setup;
pub use sidecar_bootstrap::Sent;
use sidecar_bootstrap::Variant;

/// What the proxies are asked to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// HTTP in, HTTP out.
    Http,
    /// gRPC in, gRPC out: HTTP/2 without TLS.
    Grpc,
    /// HTTPS in, HTTP out.
    Tls,
    /// Bytes in, bytes out.
    Tcp,
    /// HTTP in at one proxy, mutual TLS to a second one, HTTP out.
    Mesh,
}

/// One arrangement to measure.
pub struct Setting<'a> {
    pub shape: Shape,
    /// Whether HTTP/2 comes in, for those who have to be told.
    pub http2: bool,
    pub backends: Vec<SocketAddr>,
    /// What exists beside what is used.
    pub idle: Idle,
    /// Whether the proxies are sidecars, and what they are sent then.
    pub sidecars: Option<(BetweenSidecars, &'a Sent)>,
    pub certificates: &'a Certificates,
    /// For configuration files and logs.
    pub folder: PathBuf,
    pub realtime: bool,
}

/// What is configured and never used, for measuring what each costs.
#[derive(Clone, Copy, Default)]
pub struct Idle {
    pub clusters: usize,
    /// Of one cluster.
    pub endpoints: usize,
    pub listeners: usize,
    /// Of the listener that is used; each with two domains and two routes.
    pub virtual_hosts: usize,
}

/// One proxy's part in a setting.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Only,
    /// The double hop's first proxy, which originates mutual TLS.
    First,
    /// The double hop's second proxy, which terminates it.
    Second,
}

/// One proxy's addresses, files and duty, as its configuration needs them.
struct Hop<'a> {
    setting: &'a Setting<'a>,
    role: Role,
    listen: SocketAddr,
    upstreams: Vec<SocketAddr>,
}

/// Running proxies, and where the load goes.
pub struct Running {
    pub entrance: SocketAddr,
    pub processes: Vec<Process>,
}

/// A proxy that can be measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// No proxy at all: what the generator itself can do.
    Direct,
    Outrigger,
    Nginx,
    HaProxy,
    Envoy,
    /// Envoy's sidecars with HTTP/2 between them, which nobody gets who does not ask for it.
    EnvoyHttp2,
    /// [`super::hyper_peer`].
    Hyper,
    /// [`super::floor`].
    Floor,
}

impl Peer {
    pub const ALL: [Self; 8] = [
        Self::Direct,
        Self::Outrigger,
        Self::Nginx,
        Self::HaProxy,
        Self::Envoy,
        Self::EnvoyHttp2,
        Self::Hyper,
        Self::Floor,
    ];

    /// Whether the proxy is set up here for what `scenario` asks. HAProxy and hyper are there for HTTP/2. The floor
    /// gives each client a connection upstream, which is the least only where a connection is not for one request.
    pub fn takes_part_in(self, scenario: &Scenario) -> bool {
        match self {
            // Without a proxy there is nobody to take the TLS off or to translate.
            Self::Direct => {
                scenario.shape != Shape::Tls
                    && scenario.http2.is_some() == (scenario.shape == Shape::Grpc)
            }
            Self::Outrigger | Self::Nginx | Self::Envoy => true,
            Self::EnvoyHttp2 => scenario.sidecars == Some(BetweenSidecars::Default),
            Self::HaProxy => scenario.http2.is_some(),
            Self::Hyper => scenario.shape == Shape::Grpc,
            Self::Floor => {
                scenario.http2.is_none()
                    && (scenario.pattern != Pattern::NewConnection || scenario.shape == Shape::Tcp)
            }
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Outrigger => "outrigger",
            Self::Nginx => "nginx",
            Self::HaProxy => "haproxy",
            Self::Envoy => "envoy",
            Self::EnvoyHttp2 => "envoy-h2",
            Self::Hyper => "hyper",
            Self::Floor => "floor",
        }
    }

    /// Starts the proxies of `setting` and waits until they listen.
    pub fn start(self, root: &Path, setting: &Setting<'_>) -> Result<Running> {
        if self == Self::Direct {
            let entrance = *setting.backends.first().context("no backend")?;
            return Ok(Running { entrance, processes: Vec::new() });
        }
        let entrance = free_address()?;
        let hops = match setting.shape {
            Shape::Mesh => {
                let middle = free_address()?;
                vec![
                    Hop {
                        setting,
                        role: Role::Second,
                        listen: middle,
                        upstreams: setting.backends.clone(),
                    },
                    Hop { setting, role: Role::First, listen: entrance, upstreams: vec![middle] },
                ]
            }
            _ => vec![Hop {
                setting,
                role: Role::Only,
                listen: entrance,
                upstreams: setting.backends.clone(),
            }],
        };
        let processes = hops.iter().map(|hop| self.start_hop(root, hop)).collect::<Result<_>>()?;
        Ok(Running { entrance, processes })
    }

    fn start_hop(self, root: &Path, hop: &Hop<'_>) -> Result<Process> {
        let name = match hop.role {
            Role::Second => format!("{}-second", self.name()),
            _ => self.name().to_owned(),
        };
        let folder = &hop.setting.folder;
        let (end, text) = match self {
            Self::Nginx => ("conf", nginx_conf::render(hop, folder)),
            Self::HaProxy => ("cfg", haproxy_conf::render(hop)),
            _ => match hop.setting.sidecars {
                Some((between, sent)) => {
                    ("yaml", sidecar_bootstrap::render(hop, sent, self.variant(between))?)
                }
                None => ("yaml", envoy_bootstrap::render(hop)),
            },
        };
        let file = folder.join(format!("{name}.{end}"));
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let command = self.command(root, hop, &file)?;
        let mut process =
            Process::start(&command, &folder.join(format!("{name}.log")), hop.setting.realtime)?;
        process
            .wait_for(hop.listen)
            .with_context(|| format!("{name}, configured by {}", file.display()))?;
        Ok(process)
    }

    /// Which sidecars it is.
    fn variant(self, between: BetweenSidecars) -> Variant {
        match (self, between) {
            (Self::EnvoyHttp2, _) => Variant::EnvoyHttp2,
            (Self::Envoy, _) => Variant::Envoy,
            (_, BetweenSidecars::Default) => Variant::Outrigger,
            (_, BetweenSidecars::Http1) => Variant::OutriggerHttp1,
        }
    }

    fn command(self, root: &Path, hop: &Hop<'_>, file: &Path) -> Result<Command> {
        let mut command;
        match self {
            Self::Nginx => {
                command = Command::new("nginx");
                command.arg("-c").arg(file);
            }
            Self::HaProxy => {
                command = Command::new("haproxy");
                command.args(["-db", "-f"]).arg(file);
            }
            Self::Hyper => {
                command = Command::new(std::env::current_exe().context("this program's path")?);
                let upstream = *hop.upstreams.first().context("no upstream")?;
                command.args(["hyper-proxy", &hop.listen.to_string(), &upstream.to_string()]);
            }
            Self::Floor => {
                command = Command::new(std::env::current_exe().context("this program's path")?);
                command.arg("floor-relay").arg(hop.listen.to_string());
                command.args(hop.upstreams.iter().map(SocketAddr::to_string));
                command.arg("--certificates").arg(&hop.setting.certificates.folder);
                command.args(floor_tls(hop));
            }
            Self::Envoy | Self::EnvoyHttp2 => {
                command = Command::new(
                    setup::envoy(root).context("envoy is not installed: cargo xtask setup")?,
                );
                command
                    .args([
                        "--concurrency",
                        "1",
                        "--disable-hot-restart",
                        "--log-level",
                        "error",
                        "-c",
                    ])
                    .arg(file);
            }
            Self::Outrigger | Self::Direct => {
                command = Command::new(root.join("target/release/outrigger"));
                command
                    .args(["proxy", "--concurrency", "1", "--log-level", "error", "-c"])
                    .arg(file);
            }
        }
        Ok(command)
    }
}

fn floor_tls(hop: &Hop<'_>) -> Option<&'static str> {
    match (hop.setting.shape, hop.role) {
        (Shape::Tls, _) => Some("--accept-tls"),
        (Shape::Mesh, Role::First) => Some("--connect-mutual-tls"),
        (Shape::Mesh, _) => Some("--accept-mutual-tls"),
        _ => None,
    }
}

/// An address of 127.0.0.1 that nothing listened on a moment ago.
fn free_address() -> Result<SocketAddr> {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    probe.local_addr().context("a free port's address")
}
