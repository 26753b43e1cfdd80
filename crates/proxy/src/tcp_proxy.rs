//! The L4 terminal: bytes from a client to a host and back.

pub mod config;

pub use config::{Config, Destination, WeightedClusters};
