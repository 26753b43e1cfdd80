//! What the control plane itself writes on the WorkloadEntries of workloads that register themselves.

use resources::kinds::Parsed;
use resources::kinds::networking::workload_entry::WorkloadEntry;

/// The WorkloadGroup that an entry was made from.
pub const GROUP_ANNOTATION: &str = "istio.io/autoRegistrationGroup";
/// When its proxy connected.
pub const CONNECTED_ANNOTATION: &str = "istio.io/connectedAt";
/// When its proxy went away; absent while it is connected.
pub const DISCONNECTED_ANNOTATION: &str = "istio.io/disconnectedAt";
/// That its health is checked, so that it is unhealthy until it says otherwise.
pub const HEALTH_CHECKS_ANNOTATION: &str = "proxy.istio.io/health-checks-enabled";
/// Whether it is healthy: `true` or `false`. Istio keeps this in the status; it is state of the registry, which moves
/// endpoints, so here it is where changes of status alone are not ignored.
pub const HEALTHY_ANNOTATION: &str = "outrigger.dev/healthy";

/// Whether an entry should get no requests.
pub fn is_unhealthy(entry: &Parsed<WorkloadEntry>) -> bool {
    let annotations = &entry.meta.annotations;
    let checked = annotations.get(HEALTH_CHECKS_ANNOTATION).is_some_and(|value| value == "true");
    checked && annotations.get(HEALTHY_ANNOTATION).is_none_or(|value| value != "true")
}

/// The name of the workload that an entry is an instance of: its group's, else its own.
pub fn workload_name(entry: &Parsed<WorkloadEntry>) -> &str {
    entry.meta.annotations.get(GROUP_ANNOTATION).unwrap_or(&entry.meta.name)
}
