//! A stream of a gibibyte through two proxies, each of which may hold a few of its frames and no more.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use e2e::{Engine, binaries};

use super::python;
use super::topology::Route;

const MESSAGE: usize = 256 * 1024;
const MESSAGES: usize = 4096;
/// What a proxy may grow by while the stream passes.
const ROOM: u64 = 4 << 20;

#[test]
fn a_gibibyte_passes_two_hops_without_being_held() -> Result<()> {
    if python::interpreter().is_none() {
        binaries::skip("a_gibibyte_passes_two_hops_without_being_held", "grpcio");
        return Ok(());
    }
    let server = python::Server::start()?;
    let route = Route::two_hops((Engine::Outrigger, Engine::Outrigger), server.port())?;
    // What the first stream of a process makes once is not the stream's.
    python::download(route.entrance, 16, MESSAGE)?;
    let before = resident(&route)?;
    let stop = &AtomicBool::new(false);
    let (received, peak) = std::thread::scope(|scope| {
        let sampling = scope.spawn(|| sample(&route, stop));
        let received = python::download(route.entrance, MESSAGES, MESSAGE);
        stop.store(true, Ordering::Relaxed);
        (received, sampling.join())
    });
    ensure!(received? == (MESSAGES * MESSAGE) as u64);
    let peak = peak.map_err(|_| anyhow::anyhow!("the sampling thread panicked"))??;
    for (hop, (before, peak)) in before.iter().zip(&peak).enumerate() {
        let grown = peak.saturating_sub(*before);
        eprintln!("hop {}: {before} bytes before, {grown} more at most", hop + 1);
        ensure!(grown < ROOM, "hop {} grew by {grown} bytes from {before}", hop + 1);
    }
    Ok(())
}

/// The most that each proxy held while the stream passed.
fn sample(route: &Route, stop: &AtomicBool) -> Result<Vec<u64>> {
    let mut peak = resident(route)?;
    while !stop.load(Ordering::Relaxed) {
        for (peak, now) in peak.iter_mut().zip(resident(route)?) {
            *peak = now.max(*peak);
        }
        e2e::wait::pause();
    }
    Ok(peak)
}

/// Memory of each proxy's own; pages of its program come and go with what the kernel has room for.
fn resident(route: &Route) -> Result<Vec<u64>> {
    let of = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kilobytes.with_context(|| status.clone())? * 1024)
    };
    route.proxies.iter().map(|proxy| of(proxy.process.id())).collect()
}
