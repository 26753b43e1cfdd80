//! Steps 6 to 8: the HTTP connection manager.

pub mod config;
pub mod conn_manager;
pub mod flow;
pub mod grpc;
pub mod header_mutation;
pub mod keepalive;
pub mod multiplexed;
pub mod protocol;
pub mod request_headers;
pub mod response;
pub mod stats;
pub mod stream;
pub mod stream_table;
pub mod tunnel;
