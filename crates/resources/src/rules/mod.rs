//! Formats that fields of many kinds share.

pub mod duration;
pub mod host;
pub mod http;
pub mod label;
pub mod name;
