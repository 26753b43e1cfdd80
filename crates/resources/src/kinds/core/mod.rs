//! Kubernetes' core group.

pub mod config_map;
pub mod namespace;
pub mod pod;
pub mod secret;
pub mod service;
pub mod service_account;
