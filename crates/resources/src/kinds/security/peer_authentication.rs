//! PeerAuthentication: whether workloads demand mTLS.

use std::collections::BTreeMap;

use super::GROUP;
use crate::field::{Fields, Names, Reason};
use crate::kinds::{Kind, KindInfo, Meta, check};
use crate::object::Collection;
use crate::rules;

/// Whether workloads demand mTLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// Labels of the workloads it is for; none means the namespace, or the mesh in the root namespace.
    pub selector: Option<BTreeMap<String, String>>,
    /// Mode of every port; `Unset` inherits.
    pub mtls: MtlsMode,
    /// Modes of single workload ports.
    pub port_level_mtls: BTreeMap<u16, MtlsMode>,
}

/// Whether mTLS is demanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MtlsMode {
    /// As the namespace or mesh has it; permissive where nothing was said.
    #[default]
    Unset,
    /// Clear text only.
    Disable,
    /// Both.
    Permissive,
    /// mTLS only.
    Strict,
}

impl Names for MtlsMode {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("UNSET", Self::Unset),
        ("DISABLE", Self::Disable),
        ("PERMISSIVE", Self::Permissive),
        ("STRICT", Self::Strict),
    ];
}

impl Kind for PeerAuthentication {
    const INFO: &'static KindInfo = &KindInfo {
        collection: Collection::of(GROUP, "peerauthentications"),
        kind: "PeerAuthentication",
        short_names: &["pa"],
        versions: &["v1", "v1beta1"],
        namespaced: true,
        has_status: true,
        check: check::<Self>,
    };

    fn read(fields: &mut Fields<'_>, _meta: &Meta) -> Self {
        // An object without a spec is a policy that inherits everything, as in Istio.
        fields.object("spec", read_spec).unwrap_or_default()
    }
}

fn read_spec(spec: &mut Fields<'_>) -> PeerAuthentication {
    let mode = |fields: &mut Fields<'_>| fields.choice("mode").unwrap_or_default();
    let selector =
        spec.object("selector", |fields| rules::label::read_selector_labels(fields, "matchLabels"));
    let mut port_level_mtls = BTreeMap::new();
    for (key, mode) in spec.object_map("portLevelMtls", |_, fields| mode(fields)) {
        match key.parse::<u16>() {
            Ok(port) if port > 0 => drop(port_level_mtls.insert(port, mode)),
            _ => spec.error_key(
                "portLevelMtls",
                &key,
                Reason::Invalid,
                "must be a port between 1 and 65535",
            ),
        }
    }
    if spec.has("portLevelMtls") {
        if selector.as_ref().is_none_or(BTreeMap::is_empty) {
            let message = "needs a selector: ports are of workloads, not of namespaces or meshes";
            spec.error_in("portLevelMtls", Reason::Forbidden, message);
        }
        if port_level_mtls.is_empty() {
            spec.error_in("portLevelMtls", Reason::Required, "at least one port is required");
        }
    }
    PeerAuthentication {
        selector: selector.filter(|labels| !labels.is_empty()),
        mtls: spec.object("mtls", mode).unwrap_or_default(),
        port_level_mtls,
    }
}
