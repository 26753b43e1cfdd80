//! WorkloadEntry: one workload that is no pod.

use std::collections::BTreeMap;

use super::{GROUP, VERSIONS};
use crate::field::{Fields, Reason};
use crate::kinds::{Kind, KindInfo, Meta, check};
use crate::object::Collection;
use crate::rules;

/// One workload that is no pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadEntry {
    /// IP address, host name or `unix://<path>`; empty only with a network, whose gateway is used.
    pub address: String,
    /// Ports by the name of the service's port; a port that is not named is the service's target port.
    pub ports: BTreeMap<String, u16>,
    /// Labels, in place of a pod's.
    pub labels: BTreeMap<String, String>,
    /// Network; workloads of one network reach each other.
    pub network: String,
    /// `region/zone/subzone`.
    pub locality: String,
    /// Share of the traffic, relative to its neighbours; 1 where nothing was said.
    pub weight: Option<u32>,
    /// Service account, in place of a pod's.
    pub service_account: String,
}

impl Kind for WorkloadEntry {
    const INFO: &'static KindInfo = &KindInfo {
        collection: Collection::of(GROUP, "workloadentries"),
        kind: "WorkloadEntry",
        short_names: &["we"],
        versions: VERSIONS,
        namespaced: true,
        has_status: true,
        check: check::<Self>,
    };

    fn read(fields: &mut Fields<'_>, _meta: &Meta) -> Self {
        fields.required_object("spec", |spec| Self::read_spec(spec, true)).unwrap_or_default()
    }
}

impl WorkloadEntry {
    /// Reads the fields of an entry; a WorkloadGroup's template has no address.
    pub(super) fn read_spec(spec: &mut Fields<'_>, needs_address: bool) -> Self {
        let read = Self {
            address: spec.text("address"),
            ports: spec.port_map("ports"),
            labels: rules::label::read_labels(spec, "labels"),
            network: spec.text("network"),
            locality: spec.text("locality"),
            weight: spec.u32("weight"),
            service_account: spec.text("serviceAccount"),
        };
        if needs_address && read.address.is_empty() && read.network.is_empty() {
            spec.require("address");
        }
        for name in read.ports.keys() {
            if let Err(error) = rules::name::mixed_case_label(name) {
                spec.error_key(
                    "ports",
                    name,
                    Reason::Invalid,
                    format!("invalid port name: {error}"),
                );
            }
        }
        spec.check("serviceAccount", &read.service_account, rules::name::dns_subdomain);
        match read.address.strip_prefix("unix://") {
            Some(path) => {
                if !path.starts_with(['/', '@']) || path.ends_with('/') {
                    spec.error_in(
                        "address",
                        Reason::Invalid,
                        "a unix socket must be an absolute path or @name",
                    );
                }
                if !read.ports.is_empty() {
                    spec.error_in("ports", Reason::Forbidden, "a unix socket has no ports");
                }
            }
            None => spec.check("address", &read.address, |address| {
                rules::host::address(address).or_else(|_| rules::host::fqdn(address))
            }),
        }
        read
    }
}
