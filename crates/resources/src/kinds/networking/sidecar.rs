//! Sidecar: what a workload's sidecar listens on and which services it knows.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::{GROUP, VERSIONS};
use crate::field::{Fields, Names, Reason};
use crate::kinds::{Kind, KindInfo, Meta, check};
use crate::object::Collection;
use crate::rules;
use crate::terms::destination::Destination;
use crate::terms::port::Protocol;
use crate::terms::server_tls::{ServerTls, ServerTlsMode};
use crate::terms::traffic_policy::ConnectionPool;

/// What a workload's sidecar listens on and which services it knows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sidecar {
    /// Labels of the workloads it is for; none means the whole namespace.
    pub workload_selector: Option<BTreeMap<String, String>>,
    /// Listeners towards the application; none means one for each service port.
    pub ingress: Vec<IngressListener>,
    /// Listeners for the application's own calls, and the hosts that it may see.
    pub egress: Vec<EgressListener>,
    /// Limits of inbound connections.
    pub inbound_connection_pool: Option<ConnectionPool>,
    /// What happens with calls to unknown hosts.
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// Port of a sidecar's listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarPort {
    /// Port; 0 only with a unix socket as bind address.
    pub number: u16,
    /// What it speaks; `Unspecified` finds out.
    pub protocol: Protocol,
    /// Name.
    pub name: String,
}

/// How connections reach a listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaptureMode {
    /// As the workload's environment has it.
    #[default]
    Default,
    /// Redirected by the kernel.
    Iptables,
    /// The application connects to it.
    None,
}

impl Names for CaptureMode {
    const NAMES: &'static [(&'static str, Self)] =
        &[("DEFAULT", Self::Default), ("IPTABLES", Self::Iptables), ("NONE", Self::None)];
}

/// A listener towards the application.
#[derive(Clone, Debug, PartialEq)]
pub struct IngressListener {
    /// Port.
    pub port: SidecarPort,
    /// Address to listen on; the workload's where nothing was said.
    pub bind: Option<String>,
    /// How connections reach it.
    pub capture_mode: CaptureMode,
    /// Where the application listens; its own address and port where nothing was said.
    pub default_endpoint: Option<DefaultEndpoint>,
    /// TLS that clients outside of the mesh speak.
    pub tls: Option<ServerTls>,
    /// Limits of this port's connections.
    pub connection_pool: Option<ConnectionPool>,
}

/// Where an application listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultEndpoint {
    /// An address and port. `0.0.0.0` and `::` are the workload's own address.
    Address(SocketAddr),
    /// A unix socket.
    Unix(String),
}

/// A listener for the application's own calls, and the hosts that it may see.
#[derive(Clone, Debug, PartialEq)]
pub struct EgressListener {
    /// Port; none is the listener for everything that no other takes.
    pub port: Option<SidecarPort>,
    /// Address or unix socket to listen on.
    pub bind: Option<String>,
    /// How connections reach it.
    pub capture_mode: CaptureMode,
    /// Hosts that may be seen through it.
    pub hosts: Vec<EgressHost>,
}

/// Hosts that may be seen: `namespace/host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressHost {
    /// Whether these are taken out of what the others say (`~namespace/host`).
    pub excluded: bool,
    /// Namespace of the services.
    pub namespace: EgressNamespace,
    /// Host, wildcards allowed.
    pub host: String,
}

/// Namespace of services that may be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EgressNamespace {
    /// Any (`*`).
    Any,
    /// None at all (`~/*`).
    Nothing,
    /// This one; `.` is resolved to the object's own.
    One(String),
}

/// What happens with calls to unknown hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboundTrafficPolicy {
    /// Whether they go out.
    pub mode: OutboundMode,
    /// The egress gateway through which they go.
    pub egress_proxy: Option<Destination>,
}

/// Whether calls to unknown hosts go out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutboundMode {
    /// They fail.
    #[default]
    RegistryOnly,
    /// They go where they were headed.
    AllowAny,
}

impl Names for OutboundMode {
    const NAMES: &'static [(&'static str, Self)] =
        &[("REGISTRY_ONLY", Self::RegistryOnly), ("ALLOW_ANY", Self::AllowAny)];
}

impl Kind for Sidecar {
    const INFO: &'static KindInfo = &KindInfo {
        collection: Collection::of(GROUP, "sidecars"),
        kind: "Sidecar",
        short_names: &[],
        versions: VERSIONS,
        namespaced: true,
        has_status: true,
        check: check::<Self>,
    };

    fn read(fields: &mut Fields<'_>, meta: &Meta) -> Self {
        fields.required_object("spec", |spec| read_spec(spec, &meta.namespace)).unwrap_or_default()
    }
}

fn read_spec(spec: &mut Fields<'_>, namespace: &str) -> Sidecar {
    let fields = ["egress", "ingress", "outboundTrafficPolicy", "inboundConnectionPool"];
    if spec.count(&fields) == 0 {
        spec.error(Reason::Required, format!("one of {} is required", fields.join(", ")));
    }
    let read = Sidecar {
        workload_selector: spec.object("workloadSelector", |fields| {
            rules::label::read_selector_labels(fields, "labels")
        }),
        ingress: spec.list("ingress", IngressListener::read),
        egress: spec.list("egress", |fields| EgressListener::read(fields, namespace)),
        inbound_connection_pool: spec.object("inboundConnectionPool", ConnectionPool::read),
        outbound_traffic_policy: spec.object("outboundTrafficPolicy", OutboundTrafficPolicy::read),
    };
    check_ports(spec, "ingress", read.ingress.iter().map(|listener| Some(&listener.port)));
    check_ports(spec, "egress", read.egress.iter().map(|listener| listener.port.as_ref()));
    let last = read.egress.len().saturating_sub(1);
    for (index, listener) in read.egress.iter().enumerate() {
        if listener.port.is_none() && index != last {
            let message = "only the last listener may be without a port";
            spec.error_at("egress", index, Reason::Invalid, message);
        }
    }
    read
}

fn check_ports<'p>(
    spec: &Fields<'_>,
    list: &str,
    ports: impl Iterator<Item = Option<&'p SidecarPort>>,
) {
    let mut seen = Vec::new();
    for (index, port) in ports.enumerate() {
        let Some(number) = port.map(|port| port.number).filter(|number| *number != 0) else {
            continue;
        };
        if seen.contains(&number) {
            spec.error_at(
                list,
                index,
                Reason::Duplicate,
                format!("port {number} is there already"),
            );
        }
        seen.push(number);
    }
}

impl SidecarPort {
    fn read(fields: &mut Fields<'_>) -> Self {
        if fields.u32("targetPort").is_some_and(|target| target > 0) {
            fields.error_in("targetPort", Reason::Forbidden, "has no effect here");
        }
        let text = fields.text("protocol");
        let protocol = Protocol::parse(&text);
        if protocol.is_none() && !text.is_empty() {
            fields.error_in("protocol", Reason::NotSupported, format!("unknown value {text:?}"));
        }
        let name = fields.text("name");
        fields.check("name", &name, rules::name::mixed_case_label);
        Self {
            number: fields.integer("number", 0..=u16::MAX).unwrap_or_default(),
            protocol: protocol.unwrap_or(Protocol::Unspecified),
            name,
        }
    }
}

impl IngressListener {
    fn read(fields: &mut Fields<'_>) -> Self {
        let port = fields.required_object("port", |fields| {
            let port = SidecarPort::read(fields);
            if port.number == 0 {
                fields.error_in("number", Reason::Required, "must be between 1 and 65535");
            }
            port
        });
        let port = port.unwrap_or(SidecarPort {
            number: 0,
            protocol: Protocol::Unspecified,
            name: String::new(),
        });
        let bind = fields.optional_text("bind").filter(|bind| !bind.is_empty());
        fields.check("bind", bind.as_deref().unwrap_or_default(), rules::host::address);
        let tls = fields.object("tls", |fields| {
            for field in [
                "subjectAltNames",
                "httpsRedirect",
                "credentialName",
                "credentialNames",
                "tlsCertificates",
            ] {
                if fields.has(field) {
                    fields.error_in(
                        field,
                        Reason::Forbidden,
                        "is not supported for a Sidecar's ingress",
                    );
                }
            }
            let tls = ServerTls::read(fields);
            if matches!(tls.mode, ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough) {
                fields.error_in(
                    "mode",
                    Reason::NotSupported,
                    "must be SIMPLE, MUTUAL or OPTIONAL_MUTUAL here",
                );
            }
            tls
        });
        if tls.is_some() && !port.protocol.is_tls() {
            let message =
                format!("a port that speaks {} has no TLS of its own", port.protocol.name());
            fields.error_in("tls", Reason::Forbidden, message);
        }
        let connection_pool = fields.object("connectionPool", ConnectionPool::read);
        if connection_pool.as_ref().is_some_and(|pool| pool.http.is_some())
            && !port.protocol.is_http()
        {
            let message =
                format!("http has no effect on a port that speaks {}", port.protocol.name());
            fields.warn_in("connectionPool", message);
        }
        Self {
            port,
            bind,
            capture_mode: fields.choice("captureMode").unwrap_or_default(),
            default_endpoint: fields.parsed("defaultEndpoint", DefaultEndpoint::parse).flatten(),
            tls,
            connection_pool,
        }
    }
}

impl DefaultEndpoint {
    /// Reads `127.0.0.1:port`, `0.0.0.0:port`, `[::1]:port`, `[::]:port`, `:port` or `unix:///path`.
    fn parse(text: &str) -> Result<Option<Self>, String> {
        const EXPECTED: &str =
            "must be 127.0.0.1:<port>, 0.0.0.0:<port>, [::1]:<port>, [::]:<port> or unix://<path>";
        if text.is_empty() {
            return Ok(None);
        }
        if let Some(path) = text.strip_prefix("unix://") {
            return match path.starts_with(['/', '@']) {
                true => Ok(Some(Self::Unix(path.to_owned()))),
                false => Err(EXPECTED.to_owned()),
            };
        }
        let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
        let address: SocketAddr = full.parse().map_err(|_| EXPECTED)?;
        let local = match address.ip() {
            IpAddr::V4(ip) => ip.is_unspecified() || ip == std::net::Ipv4Addr::LOCALHOST,
            IpAddr::V6(ip) => ip.is_unspecified() || ip.is_loopback(),
        };
        if local && address.port() > 0 {
            Ok(Some(Self::Address(address)))
        } else {
            Err(EXPECTED.to_owned())
        }
    }
}

impl EgressListener {
    fn read(fields: &mut Fields<'_>, namespace: &str) -> Self {
        let port = fields.object("port", SidecarPort::read);
        let bind = fields.optional_text("bind").filter(|bind| !bind.is_empty());
        let capture_mode = fields.choice("captureMode").unwrap_or_default();
        let unix = bind.as_deref().is_some_and(|bind| bind.starts_with("unix://"));
        match (&port, &bind) {
            (Some(port), _) if port.number == 0 && !unix => {
                fields.error_in(
                    "bind",
                    Reason::Required,
                    "a port of number 0 needs a bind address unix://<path>",
                );
            }
            (_, Some(bind)) if !unix => fields.check("bind", bind, rules::host::address),
            _ => {}
        }
        if unix && capture_mode == CaptureMode::Iptables {
            fields.error_in(
                "captureMode",
                Reason::Invalid,
                "must be DEFAULT or NONE for a unix socket",
            );
        }
        Self { port, bind, capture_mode, hosts: read_egress_hosts(fields, namespace) }
    }
}

fn read_egress_hosts(fields: &mut Fields<'_>, own: &str) -> Vec<EgressHost> {
    let written = fields.texts("hosts");
    if written.is_empty() {
        fields.error_in("hosts", Reason::Required, "at least one host is required");
    }
    let mut hosts: Vec<EgressHost> = Vec::new();
    for (index, text) in written.iter().enumerate() {
        match EgressHost::parse(text, own) {
            Ok(host) => {
                if hosts.contains(&host) {
                    fields.warn_in("hosts", format!("{text:?} is there already"));
                }
                hosts.push(host);
            }
            Err(error) => fields.error_at(
                "hosts",
                index,
                Reason::Invalid,
                format!("invalid value {text:?}: {error}"),
            ),
        }
    }
    hosts
}

impl EgressHost {
    fn parse(text: &str, own: &str) -> Result<Self, String> {
        let expected = "must be <namespace>/<host>, with ., * or ~ for the namespace";
        let (namespace, host) = text.split_once('/').ok_or(expected)?;
        rules::host::host_or_address(host)?;
        let (excluded, namespace) = match namespace {
            "~" => {
                return Ok(Self {
                    excluded: false,
                    namespace: EgressNamespace::Nothing,
                    host: host.to_owned(),
                });
            }
            _ => match namespace.strip_prefix('~') {
                Some(rest) => (true, rest),
                None => (false, namespace),
            },
        };
        let namespace = match namespace {
            "*" => EgressNamespace::Any,
            "." => EgressNamespace::One(own.to_owned()),
            name => {
                rules::name::dns_label(name).map_err(|_| expected)?;
                EgressNamespace::One(name.to_owned())
            }
        };
        Ok(Self { excluded, namespace, host: host.to_owned() })
    }
}

impl OutboundTrafficPolicy {
    fn read(fields: &mut Fields<'_>) -> Self {
        let mode = fields.choice("mode").unwrap_or_default();
        let egress_proxy = fields.object("egressProxy", |fields| {
            if !fields.has("port") {
                fields.require("port");
            }
            Destination::read(fields)
        });
        if egress_proxy.is_some() && mode != OutboundMode::AllowAny {
            fields.error_in("egressProxy", Reason::Forbidden, "goes only with mode: ALLOW_ANY");
        }
        Self { mode, egress_proxy }
    }
}
