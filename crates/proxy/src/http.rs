//! Steps 6 to 8: the HTTP connection manager.

pub mod config;
pub mod conn_manager;
pub mod header_mutation;
pub mod request_headers;
pub mod response;
pub mod stats;
pub mod stream;
