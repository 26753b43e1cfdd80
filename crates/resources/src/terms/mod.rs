//! Pieces that several kinds are made of.

pub mod destination;
pub mod export;
pub mod gateway_ref;
pub mod port;
pub mod server_tls;
pub mod string_match;
pub mod traffic_policy;
