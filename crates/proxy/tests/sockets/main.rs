//! The engine on real sockets: one worker, configuration built by hand, peers in threads.
#![allow(clippy::unwrap_used)]

mod allocations;
mod endings;
mod engine;
mod filters;
mod http;
mod http2;
mod inputs;
mod peer;
mod streams;
mod tcp;
mod tls;
mod web;
