//! Load assignments → host sets that keep their hosts.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use api::envoy::config::core::v3::HealthStatus;
use api::envoy::config::endpoint::v3::endpoint::HealthCheckConfig;
use api::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use api::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints};

use super::compile::Compile;
use super::values::{self, Place};
use crate::network::tls::UpstreamTls;
use crate::stream_info::Metadata;
use crate::upstream::config::ClusterConfig;
use crate::upstream::health_check::CheckTarget;
use crate::upstream::host::{DiscoveredHealth, Host, HostAddress, HostOptions, HostSet, Locality};

/// Envoy's `overprovisioning_factor`, in percent.
const OVERPROVISIONING_FACTOR: u32 = 140;

/// A compiled load assignment: what hosts are made from, names not resolved.
#[derive(Debug, Clone, Default)]
pub struct Assignment {
    /// In the order of the configuration.
    pub endpoints: Box<[Endpoint]>,
    /// In percent.
    pub overprovisioning_factor: u32,
}

/// One endpoint as configured.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Where, perhaps by name.
    pub place: Place,
    /// The name to use for it (auto host rewrite).
    pub hostname: Arc<str>,
    /// Its metadata over its locality's.
    pub metadata: Metadata,
    /// Where it is.
    pub locality: Arc<Locality>,
    /// 0 is best.
    pub priority: u32,
    /// At least 1.
    pub weight: u32,
    /// Its locality's; 0 where it has none.
    pub locality_weight: u32,
    /// As the configuration says.
    pub health: DiscoveredHealth,
    /// How it is checked, if not as its cluster says.
    pub check: Option<Arc<CheckTarget>>,
}

/// Compiles a load assignment.
pub fn assignment(cx: &mut Compile<'_>, assignment: &ClusterLoadAssignment) -> Assignment {
    let mut endpoints = Vec::new();
    for (index, group) in assignment.endpoints.iter().enumerate() {
        cx.at(&format!("endpoints[{index}]"), |cx| locality(cx, group, &mut endpoints));
    }
    let policy = assignment.policy.as_ref();
    let factor = policy.and_then(|policy| policy.overprovisioning_factor);
    let overprovisioning_factor = factor.map_or(OVERPROVISIONING_FACTOR, |factor| factor.value);
    Assignment { endpoints: endpoints.into(), overprovisioning_factor }
}

fn locality(cx: &mut Compile<'_>, group: &LocalityLbEndpoints, out: &mut Vec<Endpoint>) {
    let found = group.locality.clone().unwrap_or_default();
    let locality = cx.env.parts.localities.share(Locality {
        region: values::text(&found.region),
        zone: values::text(&found.zone),
        sub_zone: values::text(&found.sub_zone),
    });
    let locality_weight = group.load_balancing_weight.map_or(0, |weight| weight.value);
    let endpoints = cx.each("lb_endpoints", &group.lb_endpoints, |cx, endpoint| {
        let mut endpoint = self::endpoint(cx, endpoint, &locality, group.priority)?;
        endpoint.locality_weight = locality_weight;
        Some(endpoint)
    });
    out.extend(endpoints);
}

fn endpoint(
    cx: &mut Compile<'_>,
    endpoint: &LbEndpoint,
    locality: &Arc<Locality>,
    priority: u32,
) -> Option<Endpoint> {
    let Some(HostIdentifier::Endpoint(inner)) = &endpoint.host_identifier else {
        cx.problem("`endpoint` is required");
        return None;
    };
    let place = cx.at("endpoint.address", |cx| values::address(cx, inner.address.as_ref()))?;
    let hostname = match &place {
        Place::Name(name, _) if inner.hostname.is_empty() => name.as_str(),
        _ => inner.hostname.as_str(),
    };
    Some(Endpoint {
        hostname: values::text(hostname),
        place,
        metadata: values::metadata(cx, endpoint.metadata.as_ref()),
        locality: Arc::clone(locality),
        check: check_target(cx, inner.health_check_config.as_ref()),
        priority,
        weight: endpoint.load_balancing_weight.map_or(1, |weight| weight.value),
        locality_weight: 0,
        health: match endpoint.health_status() {
            HealthStatus::Unknown | HealthStatus::Healthy => DiscoveredHealth::Healthy,
            HealthStatus::Degraded => DiscoveredHealth::Degraded,
            HealthStatus::Unhealthy | HealthStatus::Timeout => DiscoveredHealth::Unhealthy,
            HealthStatus::Draining => DiscoveredHealth::Draining,
        },
    })
}

fn check_target(
    cx: &mut Compile<'_>,
    message: Option<&HealthCheckConfig>,
) -> Option<Arc<CheckTarget>> {
    let message = message?;
    let port = u16::try_from(message.port_value).ok().filter(|port| *port > 0);
    let address = message.address.as_ref().and_then(|address| {
        cx.at("endpoint.health_check_config.address", |cx| {
            match values::address(cx, Some(address))? {
                Place::Tcp(address) => Some(address),
                _ => {
                    cx.problem("health is checked at an IP address");
                    None
                }
            }
        })
    });
    let target = CheckTarget {
        port,
        address: address
            .map(|address| SocketAddr::new(address.ip(), port.unwrap_or(address.port()))),
        hostname: values::text(&message.hostname),
        disabled: message.disable_active_health_check,
    };
    (target != CheckTarget::default()).then(|| Arc::new(target))
}

impl Assignment {
    /// The names to resolve, each once.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .endpoints
            .iter()
            .filter_map(|endpoint| match &endpoint.place {
                Place::Name(name, _) => Some(name.clone()),
                _ => None,
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The host set of these endpoints under `config`. Hosts of `previous` at the same address (of the same priority,
    /// with the same particulars) go on; `resolved` has the addresses of names.
    pub fn host_set(
        &self,
        config: &ClusterConfig,
        resolved: &HashMap<String, Vec<std::net::IpAddr>>,
        previous: &HostSet,
    ) -> HostSet {
        let mut known: HashMap<(&HostAddress, u32), &Arc<Host>> = HashMap::new();
        for host in &previous.hosts {
            known.insert((&host.address, host.priority), host);
        }
        let mut hosts: Vec<Arc<Host>> = Vec::with_capacity(self.endpoints.len());
        let mut seen = std::collections::HashSet::new();
        for endpoint in &self.endpoints {
            for address in endpoint.addresses(resolved) {
                if !seen.insert((address.clone(), endpoint.priority)) {
                    continue;
                }
                let tls = transport(config, &endpoint.metadata);
                let old = known
                    .get(&(&address, endpoint.priority))
                    .filter(|host| endpoint.is_same(host, &tls));
                let is_checked = config.health_check.is_some() && !endpoint.is_unchecked();
                hosts.push(match old {
                    Some(host) => {
                        host.set_weight(endpoint.weight);
                        host.set_locality_weight(endpoint.locality_weight);
                        host.set_discovered_health(endpoint.health);
                        if !is_checked {
                            host.set_active_check_failed(false);
                        }
                        Arc::clone(host)
                    }
                    None => {
                        let host = endpoint.host(address, tls);
                        // It has to show that it is healthy before it is used.
                        host.set_active_check_failed(is_checked);
                        Arc::new(host)
                    }
                });
            }
        }
        let mut set = HostSet::new(hosts);
        set.overprovisioning_factor = self.overprovisioning_factor;
        set
    }
}

/// Takes hosts over that are gone from discovery and still pass their checks, as Envoy: discovery may be wrong. Says
/// whether there are any.
pub fn keep_healthy(set: &mut HostSet, previous: &HostSet) -> bool {
    let is_there = |host: &Host| {
        set.hosts.iter().any(|it| it.address == host.address && it.priority == host.priority)
    };
    let stays = |host: &&Arc<Host>| {
        !is_there(host)
            && !host.is_unchecked()
            && !host.active_check_failed()
            && host.discovered_health() != DiscoveredHealth::Unhealthy
    };
    let kept: Vec<_> = previous.hosts.iter().filter(stays).cloned().collect();
    let any = !kept.is_empty();
    set.hosts.extend(kept);
    any
}

impl Endpoint {
    fn is_unchecked(&self) -> bool {
        self.check.as_ref().is_some_and(|check| check.disabled)
    }

    fn addresses(&self, resolved: &HashMap<String, Vec<std::net::IpAddr>>) -> Vec<HostAddress> {
        match &self.place {
            Place::Tcp(address) => vec![HostAddress::Tcp(*address)],
            Place::Pipe(path) => vec![HostAddress::Pipe(path.clone())],
            Place::Name(name, port) => {
                let found = resolved.get(name).map(Vec::as_slice).unwrap_or_default();
                found.iter().map(|ip| HostAddress::Tcp(SocketAddr::new(*ip, *port))).collect()
            }
        }
    }

    fn is_same(&self, host: &Host, tls: &Option<Arc<UpstreamTls>>) -> bool {
        let same_tls = match (&host.tls, tls) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        same_tls
            && host.hostname == self.hostname
            && host.locality == self.locality
            && host.metadata == self.metadata
            && host.check == self.check
    }

    fn host(&self, address: HostAddress, tls: Option<Arc<UpstreamTls>>) -> Host {
        let options = HostOptions {
            hostname: Arc::clone(&self.hostname),
            metadata: self.metadata.clone(),
            locality: Arc::clone(&self.locality),
            priority: self.priority,
            tls,
            weight: self.weight,
            locality_weight: self.locality_weight,
            health: self.health,
            check: self.check.clone(),
        };
        Host::new(address, options)
    }
}

/// The first of `transport_socket_matches` whose criteria the endpoint's metadata has, else the cluster's own.
fn transport(config: &ClusterConfig, metadata: &Metadata) -> Option<Arc<UpstreamTls>> {
    let labels =
        metadata.as_ref().and_then(|metadata| metadata.get("envoy.transport_socket_match"));
    let has = |name: &str, value: &serde_json::Value| {
        labels.and_then(|labels| labels.get(name)) == Some(value)
    };
    let found = config
        .transport_matches
        .iter()
        .find(|candidate| candidate.criteria.iter().all(|(name, value)| has(name, value)));
    match found {
        Some(found) => found.tls.clone(),
        None => config.tls.clone(),
    }
}
