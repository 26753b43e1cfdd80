//! The control plane: from objects to what every proxy should do.
//!
//! A change's journey, in the order of the modules:
//!
//! ```text
//! ingest        every kind, listed and watched; one settled pass is one ChangeSet
//! model         every object, parsed, as one immutable PushContext; `next(&ChangeSet)` rebuilds what a change touches
//! push          which views and proxies a change touches
//! discovery     one xDS type, one file: keys are gathered, translated at most once, kept by view
//! networking    pure translation of keys to protobuf
//! ads           one proxy's delta stream
//! ```
//!
//! Beside it: [`ads::authenticate`] says who calls, [`ca`] signs workloads' certificates, [`registration`] keeps entries of
//! workloads that register themselves, [`status`] knows which proxy has what, [`server`] has the sockets.

pub mod ads;
pub mod ca;
pub mod certificate;
pub mod counters;
pub mod coverage;
pub mod discovery;
pub mod ingest;
pub mod model;
pub mod monitoring;
pub mod naming;
pub mod networking;
pub mod plane;
pub mod proxy;
pub mod push;
pub mod registration;
pub mod server;
pub mod status;

pub use coverage::not_translated;
pub use server::{Options, Pilot, StartError, start};
