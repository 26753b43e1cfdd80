//! EndpointSlice: where a service's workloads are.

use crate::field::{Fields, Names, Reason};
use crate::kinds::{Kind, KindInfo, Meta, check};
use crate::object::Collection;
use crate::rules;
use crate::terms::port::Transport;

/// Where some of a service's workloads are. The label `kubernetes.io/service-name` says which service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Kind of its addresses.
    pub address_type: AddressType,
    /// Workloads.
    pub endpoints: Vec<Endpoint>,
    /// Ports of every workload in it.
    pub ports: Vec<EndpointPort>,
}

/// Kind of an endpoint's address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressType {
    /// IPv4.
    #[default]
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Host name.
    Fqdn,
}

impl Names for AddressType {
    const NAMES: &'static [(&'static str, Self)] =
        &[("IPv4", Self::Ipv4), ("IPv6", Self::Ipv6), ("FQDN", Self::Fqdn)];
}

/// One workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Addresses, all of the same workload; the first counts.
    pub addresses: Vec<String>,
    /// Whether it takes traffic; yes where nothing was said.
    pub ready: bool,
    /// Whether it still serves, ready or terminating; as `ready` where nothing was said.
    pub serving: bool,
    /// Whether it is on its way out.
    pub terminating: bool,
    /// Host name, for headless services.
    pub hostname: Option<String>,
    /// Node that it runs on.
    pub node_name: Option<String>,
    /// Zone that it runs in.
    pub zone: Option<String>,
    /// The pod behind it, as namespace and name.
    pub target_pod: Option<(String, String)>,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Name of the service's port.
    pub name: String,
    /// Port; none means all.
    pub port: Option<u16>,
    /// Transport protocol.
    pub transport: Transport,
    /// `appProtocol` as written.
    pub app_protocol: Option<String>,
}

impl Kind for EndpointSlice {
    const INFO: &'static KindInfo = &KindInfo {
        collection: Collection::of("discovery.k8s.io", "endpointslices"),
        kind: "EndpointSlice",
        short_names: &[],
        versions: &["v1"],
        namespaced: true,
        has_status: false,
        check: check::<Self>,
    };

    fn read(fields: &mut Fields<'_>, _meta: &Meta) -> Self {
        if !fields.has("addressType") {
            fields.require("addressType");
        }
        let address_type = fields.choice("addressType").unwrap_or_default();
        Self {
            address_type,
            endpoints: fields.list("endpoints", |endpoint| Endpoint::read(endpoint, address_type)),
            ports: fields.list("ports", |port| EndpointPort {
                name: port.text("name"),
                port: port.port("port"),
                transport: port.choice("protocol").unwrap_or_default(),
                app_protocol: port.optional_text("appProtocol"),
            }),
        }
    }
}

impl Endpoint {
    fn read(fields: &mut Fields<'_>, address_type: AddressType) -> Self {
        fields.kept(&["deprecatedTopology", "hints"]);
        let addresses = fields.texts_with("addresses", |address| match address_type {
            AddressType::Fqdn => rules::host::fqdn(address),
            AddressType::Ipv4 | AddressType::Ipv6 => rules::host::address(address),
        });
        if !fields.has("addresses") {
            fields.error_in("addresses", Reason::Required, "at least one address is required");
        }
        let conditions = fields.object("conditions", |conditions| {
            let ready = conditions.flag("ready").unwrap_or(true);
            let serving = conditions.flag("serving").unwrap_or(ready);
            (ready, serving, conditions.flag("terminating").unwrap_or_default())
        });
        let (ready, serving, terminating) = conditions.unwrap_or((true, true, false));
        let target_pod = fields.object("targetRef", |target| {
            target.kept(&["apiVersion", "fieldPath", "resourceVersion", "uid"]);
            let place = (target.text("namespace"), target.text("name"));
            (target.text("kind") == "Pod").then_some(place)
        });
        Self {
            addresses,
            ready,
            serving,
            terminating,
            hostname: fields.optional_text("hostname"),
            node_name: fields.optional_text("nodeName"),
            zone: fields.optional_text("zone"),
            target_pod: target_pod.flatten(),
        }
    }
}
