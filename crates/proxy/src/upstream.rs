//! Steps 13 to 16: clusters, load balancing, pools, attempts.

pub mod cluster;
pub mod config;
pub mod host;
pub mod outlier;
pub mod stats;
