//! What the filters about gRPC share.

pub mod calls;
pub mod messages;
