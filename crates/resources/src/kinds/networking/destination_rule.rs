//! DestinationRule: how clients treat a service, and its subsets.

use std::collections::BTreeMap;

use super::{GROUP, VERSIONS};
use crate::field::{Fields, Reason};
use crate::kinds::{Kind, KindInfo, Meta, check};
use crate::object::Collection;
use crate::rules;
use crate::terms::export::ExportTo;
use crate::terms::traffic_policy::TrafficPolicy;

/// How clients treat a service, and its subsets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DestinationRule {
    /// Host it is for, as written: a short name is relative to its namespace.
    pub host: String,
    /// Policy of every subset that has none of its own.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named parts of the service.
    pub subsets: Vec<Subset>,
    /// Namespaces that may use it.
    pub export_to: ExportTo,
    /// Labels of the client workloads that use it; none means all.
    pub workload_selector: Option<BTreeMap<String, String>>,
}

/// A named part of a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Subset {
    /// Name.
    pub name: String,
    /// Labels that its endpoints have.
    pub labels: BTreeMap<String, String>,
    /// Policy; merged over the rule's, setting by setting.
    pub traffic_policy: Option<TrafficPolicy>,
}

impl Kind for DestinationRule {
    const INFO: &'static KindInfo = &KindInfo {
        collection: Collection::of(GROUP, "destinationrules"),
        kind: "DestinationRule",
        short_names: &["dr"],
        versions: VERSIONS,
        namespaced: true,
        has_status: true,
        check: check::<Self>,
    };

    fn read(fields: &mut Fields<'_>, meta: &Meta) -> Self {
        fields.required_object("spec", |spec| read_spec(spec, &meta.namespace)).unwrap_or_default()
    }
}

fn read_spec(spec: &mut Fields<'_>, namespace: &str) -> DestinationRule {
    let host = spec.required_text("host");
    spec.check("host", &host, rules::host::host_or_address);
    let subsets = spec.list("subsets", |fields| {
        let name = fields.required_text("name");
        fields.check("name", &name, rules::name::mixed_case_label);
        Subset {
            name,
            labels: rules::label::read_labels(fields, "labels"),
            traffic_policy: fields.object("trafficPolicy", TrafficPolicy::read),
        }
    });
    for (index, subset) in subsets.iter().enumerate() {
        if subsets[..index].iter().any(|earlier| earlier.name == subset.name) {
            spec.error_at(
                "subsets",
                index,
                Reason::Duplicate,
                format!("{:?} is there already", subset.name),
            );
        }
    }
    let workload_selector = spec.object("workloadSelector", |fields| {
        rules::label::read_selector_labels(fields, "matchLabels")
    });
    let export_to = ExportTo::read(spec, namespace);
    let own_only = match &export_to {
        ExportTo::Default => true,
        ExportTo::Namespaces(names) => names.len() == 1 && names.contains(namespace),
        ExportTo::Public | ExportTo::Nobody => false,
    };
    if workload_selector.is_some() && !own_only {
        spec.error_in(
            "exportTo",
            Reason::Forbidden,
            "a rule with a workloadSelector is for its own namespace only",
        );
    }
    DestinationRule {
        host,
        traffic_policy: spec.object("trafficPolicy", TrafficPolicy::read),
        subsets,
        export_to,
        workload_selector,
    }
}
