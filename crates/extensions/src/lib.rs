//! extensions.
