//! The L4 terminal: bytes from a client to a host and back.
//!
//! A session is a client's connection and one connection of its own to a host. Ends are kept apart: when one side has
//! said all it will, the other may go on (half-close); a reset on one side is a reset on the other.

pub mod config;
pub mod session;
pub mod upstream;

pub use config::{Config, Destination};
