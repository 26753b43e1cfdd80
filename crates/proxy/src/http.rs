//! Steps 6 to 8: the HTTP connection manager.

pub mod config;
