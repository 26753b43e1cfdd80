//! How a peer's certificate is verified.
