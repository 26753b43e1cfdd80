//! Steps 1 to 3: accept, listener filters, filter-chain match.

pub mod config;
pub mod filter_chain;
