//! The fixture of the whole-process tests: real binaries on port 0, fake upstreams, raw clients.
//!
//! A test starts what it needs, waits on conditions, and ends what it started by process id; nothing sleeps to
//! synchronise and nothing assumes a free port. What is compared with the real Envoy is skipped, with a notice, where
//! `cargo xtask setup` has not installed it.
#![allow(clippy::print_stderr, reason = "notices of skipped tests")]

pub mod binaries;
pub mod certificates;
pub mod http1;
pub mod load;
pub mod mesh;
pub mod process;
pub mod proxy;
pub mod upstream;
pub mod wait;

pub use http1::{Connection, Response};
pub use load::Load;
pub use process::Process;
pub use proxy::{Engine, Proxy};
pub use upstream::{Act, Upstream};
pub use wait::wait_until;
