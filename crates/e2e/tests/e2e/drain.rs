//! SIGTERM: what was accepted is served to its end, then the process goes.

use std::time::Duration;

use anyhow::{Context, Result};
use e2e::{Act, Load, Proxy, Upstream};
use rustix::process::Signal;

use crate::bootstrap::http_proxy;

const GONE_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn no_request_fails_while_a_proxy_drains() -> Result<()> {
    let upstream = Upstream::saying("x")?;
    let mut proxy = Proxy::start(&http_proxy(upstream.port()))?;
    let load = Load::start(8, proxy.listener("entrance")?, "a", "/", false);
    load.wait_for_more(500)?;
    proxy.process.signal(Signal::TERM)?;
    let status = proxy.process.wait_for_end(GONE_WITHIN)?;
    let outcome = load.stop();
    assert_eq!(status.code(), Some(0), "{}", proxy.process.output());
    assert!(outcome.failures.is_empty(), "{} responses, {:?}", outcome.responses, outcome.failures);
    Ok(())
}

#[test]
fn a_request_in_flight_gets_its_answer_and_is_told_to_close() -> Result<()> {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let upstream = Upstream::doing(move |request| {
        if request.target() == "/slow" {
            let waiting = released.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            waiting.recv_timeout(GONE_WITHIN).ok();
        }
        Act::Answer(200, "done".to_owned())
    })?;
    let mut proxy = Proxy::start(&http_proxy(upstream.port()))?;
    let mut client = proxy.connect("entrance")?;
    client.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")?;
    e2e::wait_until("the request to reach the upstream", || {
        Ok((proxy.stat("cluster.backend.upstream_rq_active")? == Some(1)).then_some(()))
    })?;
    let entrance = proxy.listener("entrance")?;
    proxy.process.signal(Signal::TERM)?;
    // The listener goes first; the stream stays.
    e2e::wait_until("the listener to close", || {
        Ok(e2e::Connection::open(entrance).is_err().then_some(()))
    })?;
    release.send(()).context("the upstream is gone")?;
    let response = client.response()?;
    assert_eq!((response.status, response.text().as_str()), (200, "done"));
    assert_eq!(response.header("connection"), Some("close"));
    client.expect_end()?;
    assert_eq!(proxy.process.wait_for_end(GONE_WITHIN)?.code(), Some(0));
    Ok(())
}
