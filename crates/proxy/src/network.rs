//! Step 4: a connection is a transport (raw or TLS) under a codec.

pub mod credits;
pub mod downstream;
pub mod handshake;
pub mod io;
pub mod socket;
pub mod tls;
