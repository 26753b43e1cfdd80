//! What the control plane knows of how its configuration fares: [`board`] of each proxy, [`objects`] of each object,
//! and [`keeper`], which writes the latter on the objects themselves.

pub mod board;
pub mod keeper;
pub mod objects;

use serde::Serialize;

pub use board::{ProxyStatus, RejectedResource, StatusBoard, TypeStatus};
pub use keeper::Keeper;
pub use objects::ObjectStatus;

/// The whole mesh at one moment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MeshStatus {
    /// Whether every kind has been read.
    pub ready: bool,
    /// How many changes were taken in.
    pub changes: u64,
    /// Connected proxies, by node id.
    pub proxies: Vec<ProxyStatus>,
    /// Objects that say what proxies do, by kind and name.
    pub objects: Vec<ObjectStatus>,
}
