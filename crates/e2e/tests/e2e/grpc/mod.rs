//! gRPC as its two most used families have it (grpcio's C core, and tonic on hyper) through the proxy: every kind of
//! stream, big messages, metadata, statuses, cancellation, deadlines and readers that stop.
//!
//! The service is in [`service`] and, the same, in `python/interop.py`; the cases are in [`cases`] and there.

pub mod bytes_codec;
mod cases;
mod ghz;
mod long_stream;
pub mod python;
mod service;
mod topology;

use anyhow::{Context, Result};
use e2e::{Engine, binaries};

use topology::Route;

#[test]
fn tonic_and_grpcio_understand_each_other_without_a_proxy() -> Result<()> {
    every_pair("directly", Route::direct)
}

#[test]
fn every_pair_of_client_and_server_works_through_one_hop() -> Result<()> {
    for engine in Engine::available() {
        every_pair(&format!("through {engine:?}"), |port| Route::one_hop(engine, port))?;
    }
    Ok(())
}

#[test]
fn every_pair_of_client_and_server_works_through_two_hops_with_mutual_tls() -> Result<()> {
    let engines = Engine::available();
    for hops in engines.iter().flat_map(|a| engines.iter().map(move |b| (*a, *b))) {
        every_pair(&format!("through {hops:?}"), |port| Route::two_hops(hops, port))?;
    }
    Ok(())
}

/// Runs every client's cases on every server, each on a route of its own.
fn every_pair(what: &str, route: impl Fn(u16) -> Result<Route>) -> Result<()> {
    let tonic = service::Server::start()?;
    let said = || format!("tonic's server {what}");
    let through = route(tonic.port()).with_context(said)?;
    cases::run(through.entrance).with_context(said)?;
    if python::interpreter().is_none() {
        binaries::skip("grpcio's part", "grpcio");
        return Ok(());
    }
    python::run(through.entrance).with_context(said)?;
    drop(through);
    let grpcio = python::Server::start()?;
    let said = || format!("grpcio's server {what}");
    let through = route(grpcio.port()).with_context(said)?;
    cases::run(through.entrance).with_context(said)?;
    python::run(through.entrance).with_context(said)
}
