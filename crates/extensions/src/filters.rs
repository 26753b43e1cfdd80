//! Filters, by the layer they work on.

pub mod http;
pub mod network;
