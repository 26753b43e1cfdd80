//! What is measured: one row a scenario.

use super::load::{Multiplexed, Pattern};
use super::peers::Shape;

/// What the mesh says of HTTP between sidecars.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum BetweenSidecars {
    /// Nothing: Outrigger's agree on HTTP/2, Envoy's are told HTTP/1.1. `envoy-h2` is Envoy with `h2UpgradePolicy: UPGRADE`.
    Default,
    /// `h2UpgradePolicy: DO_NOT_UPGRADE`.
    Http1,
}

/// One arrangement of proxy and load.
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    pub shape: Shape,
    pub path: &'static str,
    pub pattern: Pattern,
    pub connections: usize,
    /// Several, where one address would run out of ports.
    pub backends: usize,
    /// A double hop of sidecars, configured as the control plane does it: Istio's metrics (which Envoy does not have), its access
    /// log, its TLS. nginx, which no control plane configures, has neither metrics nor log.
    pub sidecars: Option<BetweenSidecars>,
    /// HTTP/2 from the clients, and how much of it at once.
    pub http2: Option<Multiplexed>,
}

const fn http(name: &'static str, about: &'static str, path: &'static str) -> Scenario {
    let (shape, pattern) = (Shape::Http, Pattern::KeepAlive);
    Scenario {
        name,
        about,
        shape,
        path,
        pattern,
        connections: 64,
        backends: 1,
        sidecars: None,
        http2: None,
    }
}

const fn http2(
    name: &'static str,
    about: &'static str,
    path: &'static str,
    shape: Shape,
) -> Scenario {
    let http2 = Some(Multiplexed { streams: 32, grpc: matches!(shape, Shape::Grpc) });
    Scenario { shape, connections: 16, http2, ..http(name, about, path) }
}

pub const SCENARIOS: &[Scenario] = &[
    http("s1", "1 KiB over kept HTTP/1.1 connections", "/1k"),
    Scenario {
        pattern: Pattern::NewConnection,
        connections: 32,
        ..http("s1-new", "an empty answer, a connection for each request", "/0")
    },
    http("s2", "16 KiB over kept HTTP/1.1 connections", "/16k"),
    http2("s4a", "1 KiB, HTTP/2 in and HTTP/1.1 out", "/1k", Shape::Http),
    http2("s4b", "unary gRPC calls, HTTP/2 in and out", "/pkg.Svc/Do", Shape::Grpc),
    Scenario { shape: Shape::Tls, ..http("s5", "1 KiB over kept TLS connections", "/1k") },
    Scenario {
        shape: Shape::Tls,
        pattern: Pattern::NewConnection,
        connections: 16,
        ..http("s5-full", "an empty answer, a full TLS handshake for each request", "/0")
    },
    Scenario {
        shape: Shape::Tcp,
        ..http("s6-rr", "L4: small round trips over kept connections", "/1k")
    },
    Scenario {
        shape: Shape::Tcp,
        pattern: Pattern::NewConnection,
        connections: 32,
        backends: 8,
        ..http("s6-new", "L4: a connection for each small round trip", "/0")
    },
    Scenario {
        shape: Shape::Tcp,
        pattern: Pattern::Bulk,
        connections: 8,
        ..http("s6-bulk", "L4: bytes without end in one direction", "/bulk")
    },
    Scenario {
        shape: Shape::Mesh,
        ..http("s7", "1 KiB through a double hop with mutual TLS between", "/1k")
    },
    Scenario {
        shape: Shape::Mesh,
        sidecars: Some(BetweenSidecars::Default),
        ..http("s7-istio", "the double hop of sidecars as they are configured by default", "/1k")
    },
    Scenario {
        shape: Shape::Mesh,
        sidecars: Some(BetweenSidecars::Default),
        ..http("s7-16k", "the same with 16 KiB", "/16k")
    },
    Scenario {
        shape: Shape::Mesh,
        sidecars: Some(BetweenSidecars::Http1),
        ..http("s7-http1", "the double hop with h2UpgradePolicy: DO_NOT_UPGRADE", "/1k")
    },
];
