//! Where a route sends traffic.

use crate::field::{Fields, Reason};
use crate::rules;

/// A service, by the host name it is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// Host name as written: short names are relative to the namespace of the object that says it.
    pub host: String,
    /// Subset of a DestinationRule.
    pub subset: Option<String>,
    /// Service port; may be left out for a service with one port.
    pub port: Option<u16>,
}

impl Destination {
    /// Reads a destination.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let host = fields.required_text("host");
        match host.as_str() {
            "*" => {
                fields.error_in("host", Reason::Invalid, "a destination must be one host, not *")
            }
            host => fields.check("host", host, rules::host::host_or_address),
        }
        let subset = fields.optional_text("subset").filter(|subset| !subset.is_empty());
        fields.check(
            "subset",
            subset.as_deref().unwrap_or_default(),
            rules::name::mixed_case_label,
        );
        Self { host, subset, port: read_port_selector(fields, "port") }
    }
}

/// Reads `{number: 80}`.
pub fn read_port_selector(fields: &mut Fields<'_>, name: &'static str) -> Option<u16> {
    fields.object(name, |port| port.required_port("number"))
}

/// Refuses weights that add up to nothing: with more than one destination, one must have a weight.
pub fn check_weights(fields: &Fields<'_>, name: &str, weights: &[u32]) {
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    if weights.len() > 1 && total == 0 {
        fields.error_in(
            name,
            Reason::Invalid,
            "the weights add up to 0: give at least one destination a weight",
        );
    }
    if total > u64::from(u32::MAX) {
        fields.error_in(
            name,
            Reason::Invalid,
            format!("the weights add up to {total}, more than {}", u32::MAX),
        );
    }
}
