//! Istio's traffic policies: how a client treats a service.

mod connection_pool;
mod load_balancer;
mod outlier;
mod tls;

pub use connection_pool::{
    ConnectionPool, H2Upgrade, Http2KeepAlive, HttpPool, TcpKeepalive, TcpPool,
};
pub use load_balancer::{
    BackendUtilization, ConsistentHash, CookieAttribute, Distribute, Failover, HashAlgorithm,
    HashKey, LoadBalancer, LocalityLb, Policy, SimpleLb, Warmup, ZoneAwareLb,
};
pub use outlier::OutlierDetection;
pub use tls::{ClientTls, ClientTlsMode};

use std::time::Duration;

use crate::field::{Fields, Names, Reason};
use crate::rules;
use crate::terms::destination::read_port_selector;

/// How a client treats a service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TrafficPolicy {
    /// For every port that has no settings of its own.
    pub settings: PolicySettings,
    /// For single ports: replaces `settings` whole, not field by field.
    pub port_level: Vec<(u16, PolicySettings)>,
    /// TCP is tunnelled through HTTP CONNECT or POST.
    pub tunnel: Option<Tunnel>,
    /// Version of the PROXY protocol header that is sent first.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// Limit of concurrent retries relative to requests.
    pub retry_budget: Option<RetryBudget>,
}

/// The settings that may differ by port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySettings {
    /// How a host is picked.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits and timeouts of connections.
    pub connection_pool: Option<ConnectionPool>,
    /// When a host that fails is left out.
    pub outlier_detection: Option<OutlierDetection>,
    /// How connections are secured; auto mTLS decides where nothing was said.
    pub tls: Option<ClientTls>,
}

/// Tunnelling of TCP through an HTTP proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Method used.
    pub protocol: TunnelProtocol,
    /// Host that the proxy is asked for.
    pub target_host: String,
    /// Port that the proxy is asked for.
    pub target_port: u16,
}

/// Method of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelProtocol {
    /// CONNECT; also where nothing was said.
    Connect,
    /// POST.
    Post,
}

impl Names for TunnelProtocol {
    const NAMES: &'static [(&'static str, Self)] =
        &[("CONNECT", Self::Connect), ("POST", Self::Post), ("", Self::Connect)];
}

/// Version of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocolVersion {
    /// Text.
    #[default]
    V1,
    /// Binary.
    V2,
}

impl Names for ProxyProtocolVersion {
    const NAMES: &'static [(&'static str, Self)] = &[("V1", Self::V1), ("V2", Self::V2)];
}

/// Limit of concurrent retries relative to requests.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryBudget {
    /// Share of active and pending requests, 0 to 100; 20 where nothing was said.
    pub percent: Option<f64>,
    /// Retries that are always allowed; 3 where nothing was said.
    pub min_retry_concurrency: Option<u32>,
    /// Window over which requests count; none counts those in flight.
    pub interval: Option<Duration>,
}

const PORT_FIELDS: &[&str] = &["loadBalancer", "connectionPool", "outlierDetection", "tls"];

impl TrafficPolicy {
    /// Reads a policy.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let others = ["portLevelSettings", "tunnel", "proxyProtocol", "retryBudget"];
        if fields.count(PORT_FIELDS) + fields.count(&others) == 0 {
            let all = PORT_FIELDS.iter().chain(&others).copied().collect::<Vec<_>>().join(", ");
            fields.error(Reason::Required, format!("one of {all} is required"));
        }
        fields.at_most_one(&["tunnel", "proxyProtocol"]);
        Self {
            settings: PolicySettings::read(fields),
            port_level: read_port_level(fields),
            tunnel: fields.object("tunnel", Tunnel::read),
            proxy_protocol: fields
                .object("proxyProtocol", |fields| fields.choice("version").unwrap_or_default()),
            retry_budget: fields.object("retryBudget", |fields| RetryBudget {
                percent: fields.number("percent", 0.0..=100.0),
                min_retry_concurrency: fields.u32("minRetryConcurrency"),
                interval: fields.duration_or_zero("budgetInterval"),
            }),
        }
    }
}

fn read_port_level(fields: &mut Fields<'_>) -> Vec<(u16, PolicySettings)> {
    let read = fields.list("portLevelSettings", |fields| {
        if !fields.has("port") {
            fields.require("port");
        }
        if fields.count(PORT_FIELDS) == 0 {
            fields
                .error(Reason::Required, format!("one of {} is required", PORT_FIELDS.join(", ")));
        }
        (read_port_selector(fields, "port").unwrap_or_default(), PolicySettings::read(fields))
    });
    for (index, (port, _)) in read.iter().enumerate() {
        if *port != 0 && read[..index].iter().any(|(earlier, _)| earlier == port) {
            fields.error_at(
                "portLevelSettings",
                index,
                Reason::Duplicate,
                format!("port {port} is there already"),
            );
        }
    }
    read
}

impl PolicySettings {
    fn read(fields: &mut Fields<'_>) -> Self {
        let outlier_detection = fields.object("outlierDetection", OutlierDetection::read);
        Self {
            load_balancer: fields.object("loadBalancer", |fields| {
                LoadBalancer::read(fields, outlier_detection.is_some())
            }),
            connection_pool: fields.object("connectionPool", ConnectionPool::read),
            tls: fields.object("tls", ClientTls::read),
            outlier_detection,
        }
    }
}

impl Tunnel {
    fn read(fields: &mut Fields<'_>) -> Self {
        let target_host = fields.required_text("targetHost");
        fields.check("targetHost", &target_host, |host| {
            rules::host::fqdn(host)
                .or_else(|_| rules::host::address(host))
                .map_err(|_| "must be a host name or an IP address".to_owned())
        });
        Self {
            protocol: fields.choice("protocol").unwrap_or(TunnelProtocol::Connect),
            target_host,
            target_port: fields.required_port("targetPort"),
        }
    }
}
