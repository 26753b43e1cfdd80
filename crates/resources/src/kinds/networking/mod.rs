//! `networking.istio.io`: every served version of a kind has the same fields.

pub mod destination_rule;
pub mod gateway;
pub mod sidecar;
pub mod virtual_service;
pub mod workload_entry;
pub mod workload_group;

/// The group.
pub const GROUP: &str = "networking.istio.io";
/// Versions that every kind here is served in, the preferred one first.
pub const VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];
