//! `apps`.

pub mod deployment;
