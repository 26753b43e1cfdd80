//! `security.istio.io`: every served version of a kind has the same fields.

pub mod peer_authentication;

/// The group.
pub const GROUP: &str = "security.istio.io";
