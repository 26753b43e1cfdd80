//! Step 4: a connection is a transport (raw or TLS) under a codec.

pub mod tls;
