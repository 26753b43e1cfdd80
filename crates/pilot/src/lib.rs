//! The control plane: from objects to what every proxy should do.
//!
//! A change's journey, in the order of the modules:
//!
//! ```text
//! model         every object, parsed, as one immutable PushContext; `next(&ChangeSet)` rebuilds what a change touches
//! networking    pure translation of keys to protobuf
//! ```

pub mod discovery;
pub mod model;
pub mod naming;
pub mod networking;
pub mod proxy;
pub mod push;
