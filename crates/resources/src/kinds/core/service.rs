//! Service.

use std::collections::BTreeMap;

use crate::field::{Fields, Names, Reason};
use crate::kinds::{Kind, KindInfo, Meta, check};
use crate::object::Collection;
use crate::rules;
use crate::terms::port::{Protocol, Transport};

/// A name for a set of workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// How it is reached from outside.
    pub service_type: ServiceType,
    /// Labels of its workloads; empty if its endpoints are kept by someone else.
    pub selector: BTreeMap<String, String>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Virtual addresses; empty where none was given.
    pub cluster_ips: Vec<String>,
    /// Whether it has no virtual address on purpose (`clusterIP: None`).
    pub headless: bool,
    /// The name that an `ExternalName` service stands for.
    pub external_name: Option<String>,
    /// Whether workloads that are not ready get traffic.
    pub publish_not_ready_addresses: bool,
    /// Preference for near endpoints.
    pub traffic_distribution: Option<String>,
}

/// How a service is reached from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceType {
    /// Not at all.
    #[default]
    ClusterIp,
    /// On a port of every node.
    NodePort,
    /// By a load balancer.
    LoadBalancer,
    /// It only stands for another name.
    ExternalName,
}

impl Names for ServiceType {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("ClusterIP", Self::ClusterIp),
        ("NodePort", Self::NodePort),
        ("LoadBalancer", Self::LoadBalancer),
        ("ExternalName", Self::ExternalName),
    ];
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Name; empty only for a single port.
    pub name: String,
    /// Port of the service.
    pub port: u16,
    /// Port of its workloads.
    pub target_port: TargetPort,
    /// Transport protocol.
    pub transport: Transport,
    /// What is spoken, by `appProtocol`, name and number.
    pub protocol: Protocol,
    /// `appProtocol` as written.
    pub app_protocol: Option<String>,
    /// Port on every node, if given.
    pub node_port: Option<u16>,
}

/// The port of a service's workloads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TargetPort {
    /// This one.
    Number(u16),
    /// The one that the workload's container calls so.
    Name(String),
}

impl Kind for Service {
    const INFO: &'static KindInfo = &KindInfo {
        collection: Collection::of("", "services"),
        kind: "Service",
        short_names: &["svc"],
        versions: &["v1"],
        namespaced: true,
        has_status: true,
        check: check::<Self>,
    };

    fn read(fields: &mut Fields<'_>, _meta: &Meta) -> Self {
        fields.required_object("spec", read_spec).unwrap_or_default()
    }
}

fn read_spec(spec: &mut Fields<'_>) -> Service {
    spec.kept(&[
        "allocateLoadBalancerNodePorts",
        "externalIPs",
        "externalTrafficPolicy",
        "healthCheckNodePort",
        "internalTrafficPolicy",
        "ipFamilies",
        "ipFamilyPolicy",
        "loadBalancerClass",
        "loadBalancerIP",
        "loadBalancerSourceRanges",
        "sessionAffinity",
        "sessionAffinityConfig",
    ]);
    let service_type = spec.choice("type").unwrap_or_default();
    let mut cluster_ips = spec.texts("clusterIPs");
    if let Some(ip) =
        spec.optional_text("clusterIP").filter(|ip| !ip.is_empty() && !cluster_ips.contains(ip))
    {
        cluster_ips.insert(0, ip);
    }
    let headless = cluster_ips.first().is_some_and(|ip| ip == "None");
    cluster_ips.retain(|ip| ip != "None");
    for ip in &cluster_ips {
        spec.check("clusterIP", ip, rules::host::address);
    }
    let external_name = spec.optional_text("externalName").filter(|name| !name.is_empty());
    let ports = spec.list("ports", ServicePort::read);
    check_ports(spec, &ports);
    match (service_type, &external_name) {
        (ServiceType::ExternalName, None) => spec.require("externalName"),
        (ServiceType::ExternalName, Some(name)) => {
            spec.check("externalName", name, rules::host::fqdn)
        }
        _ if ports.is_empty() && !headless && !spec.has("ports") => spec.require("ports"),
        _ => {}
    }
    Service {
        service_type,
        selector: rules::label::read_labels(spec, "selector"),
        ports,
        cluster_ips,
        headless,
        external_name,
        publish_not_ready_addresses: spec.flag("publishNotReadyAddresses").unwrap_or_default(),
        traffic_distribution: spec.optional_text("trafficDistribution"),
    }
}

impl ServicePort {
    fn read(fields: &mut Fields<'_>) -> Self {
        let name = fields.text("name");
        fields.check("name", &name, rules::name::dns_label);
        let port = fields.required_port("port");
        let transport = fields.choice("protocol").unwrap_or_default();
        let app_protocol =
            fields.optional_text("appProtocol").filter(|protocol| !protocol.is_empty());
        Self {
            protocol: Protocol::of_service_port(transport, app_protocol.as_deref(), &name, port),
            target_port: TargetPort::read(fields, "targetPort").unwrap_or(TargetPort::Number(port)),
            node_port: fields.integer("nodePort", 0..=u16::MAX).filter(|port| *port > 0),
            name,
            port,
            transport,
            app_protocol,
        }
    }
}

impl TargetPort {
    fn read(fields: &mut Fields<'_>, name: &'static str) -> Option<Self> {
        let value = fields.raw(name)?;
        match value.as_str() {
            Some(text) => {
                fields.check(name, text, rules::name::port_name);
                Some(Self::Name(text.to_owned()))
            }
            // 0 is what clients write for "the same".
            None => fields.integer(name, 0..=u16::MAX).filter(|port| *port > 0).map(Self::Number),
        }
    }
}

fn check_ports(spec: &Fields<'_>, ports: &[ServicePort]) {
    for (index, port) in ports.iter().enumerate() {
        if ports.len() > 1 && port.name.is_empty() {
            spec.error_at(
                "ports",
                index,
                Reason::Required,
                "a name is required where there is more than one port",
            );
        }
        for earlier in &ports[..index] {
            if earlier.name == port.name && !port.name.is_empty() {
                let message = format!("the name {:?} is there already", port.name);
                spec.error_at("ports", index, Reason::Duplicate, message);
            }
            if earlier.port == port.port && earlier.transport == port.transport && port.port != 0 {
                let message = format!("port {} is there already", port.port);
                spec.error_at("ports", index, Reason::Duplicate, message);
            }
        }
    }
}
