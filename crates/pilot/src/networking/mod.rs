//! Translation: pure functions from a key, the very struct that the caches compare, to protobuf. No async, clock or store.
//!
//! One file is one thing that is emitted; `filters/` has the ordered table of HTTP filters.

pub mod access_log;
pub mod cluster;
pub mod connection_manager;
pub mod cors;
pub mod destination;
pub mod encoding;
pub mod endpoints;
pub mod fault;
pub mod filters;
pub mod gateway;
pub mod inbound;
pub mod locality;
pub mod outbound;
pub mod proxyless;
pub mod relay;
pub mod retry;
pub mod route;
pub mod route_match;
pub mod secret;
pub mod tls;
pub mod traffic_policy;
pub mod upstream_protocol;
pub mod values;
pub mod virtual_host;
