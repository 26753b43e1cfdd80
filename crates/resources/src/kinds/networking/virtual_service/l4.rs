//! Routes of connections: TLS that is passed through, by SNI, and TCP.

use std::collections::BTreeMap;

use crate::field::{Fields, Reason};
use crate::rules;
use crate::terms::destination::{Destination, check_weights};
use crate::terms::gateway_ref::GatewayRef;

/// A route of TLS connections that are passed through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsRoute {
    /// Any of these matches.
    pub matches: Vec<TlsMatch>,
    /// Where to, by weight.
    pub route: Vec<RouteDestination>,
}

/// What a TLS connection must look like: all of it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsMatch {
    /// SNI hosts, any of them; wildcards allowed.
    pub sni_hosts: Vec<String>,
    /// The rest, as for TCP.
    pub l4: L4Match,
}

/// A route of TCP connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpRoute {
    /// Any of these matches; empty matches everything.
    pub matches: Vec<L4Match>,
    /// Where to, by weight.
    pub route: Vec<RouteDestination>,
}

/// What a connection must look like: all of it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct L4Match {
    /// Networks that the original destination is in, any of them.
    pub destination_subnets: Vec<String>,
    /// Port of the host that is asked for.
    pub port: Option<u16>,
    /// Labels that the calling workload must have.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways that this match is for, in place of the VirtualService's.
    pub gateways: Vec<GatewayRef>,
    /// Namespace that the calling workload must be in.
    pub source_namespace: Option<String>,
}

/// A destination with its share of the connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Share, relative to the sum of all.
    pub weight: u32,
}

impl TlsRoute {
    pub(super) fn read(fields: &mut Fields<'_>, namespace: &str, hosts: &[String]) -> Self {
        let matches = fields.list("match", |fields| TlsMatch::read(fields, namespace, hosts));
        if matches.is_empty() {
            fields.error_in(
                "match",
                Reason::Required,
                "at least one match with sniHosts is required",
            );
        }
        Self { matches, route: read_destinations(fields) }
    }
}

impl TlsMatch {
    fn read(fields: &mut Fields<'_>, namespace: &str, hosts: &[String]) -> Self {
        let sni_hosts = fields.texts_with("sniHosts", rules::host::host_or_address);
        if !fields.has("sniHosts") {
            fields.require("sniHosts");
        }
        for (index, sni) in sni_hosts.iter().enumerate() {
            if sni.parse::<std::net::IpAddr>().is_ok() {
                fields
                    .warn_in("sniHosts", format!("{sni:?}: clients send no SNI for an IP address"));
            }
            if !hosts.iter().any(|host| rules::host::covers(host, sni)) {
                let message = format!("{sni:?} is covered by none of this VirtualService's hosts");
                fields.error_at("sniHosts", index, Reason::Invalid, message);
            }
        }
        Self { sni_hosts, l4: L4Match::read(fields, namespace) }
    }
}

impl TcpRoute {
    pub(super) fn read(fields: &mut Fields<'_>, namespace: &str) -> Self {
        let matches = fields.list("match", |fields| {
            if fields.raw("sourceSubnet").is_some() {
                fields.warn_in("sourceSubnet", "has no effect, as in Istio");
            }
            L4Match::read(fields, namespace)
        });
        Self { matches, route: read_destinations(fields) }
    }
}

impl L4Match {
    fn read(fields: &mut Fields<'_>, namespace: &str) -> Self {
        Self {
            destination_subnets: fields.texts_with("destinationSubnets", rules::host::subnet),
            port: fields.port("port"),
            source_labels: rules::label::read_labels(fields, "sourceLabels"),
            gateways: GatewayRef::read_list(fields, "gateways", namespace),
            source_namespace: fields
                .optional_text("sourceNamespace")
                .filter(|namespace| !namespace.is_empty()),
        }
    }
}

fn read_destinations(fields: &mut Fields<'_>) -> Vec<RouteDestination> {
    let destinations = fields.list("route", |fields| RouteDestination {
        destination: fields.required_object("destination", Destination::read).unwrap_or_default(),
        weight: fields.non_negative("weight").unwrap_or_default(),
    });
    if destinations.is_empty() {
        fields.error_in("route", Reason::Required, "at least one destination is required");
    }
    let weights: Vec<u32> = destinations.iter().map(|destination| destination.weight).collect();
    check_weights(fields, "route", &weights);
    destinations
}
