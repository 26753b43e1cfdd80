//! Deployment: its pod template is the truth about a workload.

use std::collections::BTreeMap;

use crate::field::{Fields, Reason};
use crate::kinds::core::pod::PodTemplate;
use crate::kinds::{Kind, KindInfo, Meta, check};
use crate::object::Collection;
use crate::rules;

/// A set of like workloads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deployment {
    /// How many; 1 where nothing was said.
    pub replicas: u32,
    /// Labels by which it knows its pods (`matchLabels`; the template has them all).
    pub selector: BTreeMap<String, String>,
    /// What each is made from.
    pub template: PodTemplate,
}

impl Kind for Deployment {
    const INFO: &'static KindInfo = &KindInfo {
        collection: Collection::of("apps", "deployments"),
        kind: "Deployment",
        short_names: &["deploy"],
        versions: &["v1"],
        namespaced: true,
        has_status: true,
        check: check::<Self>,
    };

    fn read(fields: &mut Fields<'_>, _meta: &Meta) -> Self {
        fields.required_object("spec", read_spec).unwrap_or_default()
    }
}

fn read_spec(spec: &mut Fields<'_>) -> Deployment {
    spec.kept(&[
        "minReadySeconds",
        "paused",
        "progressDeadlineSeconds",
        "revisionHistoryLimit",
        "strategy",
    ]);
    let selector = spec.required_object("selector", |selector| {
        selector.kept(&["matchExpressions"]);
        rules::label::read_labels(selector, "matchLabels")
    });
    let selector = selector.unwrap_or_default();
    let template = spec.required_object("template", PodTemplate::read).unwrap_or_default();
    for (key, value) in &selector {
        if template.labels.get(key) != Some(value) {
            let message = format!("the template's labels have no {key}: {value}");
            spec.error_in("selector", Reason::Invalid, message);
        }
    }
    Deployment { replicas: spec.non_negative("replicas").unwrap_or(1), selector, template }
}
