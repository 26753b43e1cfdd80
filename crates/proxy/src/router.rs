//! Step 12: the terminal filter of every HTTP chain.

pub mod config;
