//! Which HTTP a cluster is spoken to in, and the limits of its connections.

use std::time::Duration;

use api::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions,
    KeepaliveSettings,
};
use api::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions,
    http_protocol_options::{
        AutoHttpConfig, ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
        explicit_http_config::ProtocolConfig,
    },
};
use resources::terms::traffic_policy::{ConnectionPool, H2Upgrade, HttpPool};

use super::traffic_policy::counts_connections;
use super::values::{duration, number};
use crate::model::service::{Protocol, ServicePort};

/// The key of HTTP options among a cluster's extension options.
pub const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Which HTTP a cluster is spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// What the request came in.
    Downstream,
    /// What each connection agrees on by ALPN: HTTP/2 where the peer offers it, else HTTP/1.1.
    Agreed,
}

/// PINGs on connections that were made HTTP/2 by agreement: one connection carries what many did, so a peer that is gone
/// without a word must be noticed sooner than TCP gives up (a quarter of an hour).
const AGREED_KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));

/// What decides about the version beside the port and its pool.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The mesh's word on upgrades, for ports that say HTTP.
    pub mesh_upgrade: H2Upgrade,
    /// Whether the node finds out what a port speaks that does not say: sidecars do, gateways speak HTTP/1.1 to it.
    pub detects: bool,
    /// Whether node and peers can agree on HTTP/2: the node learns a connection's protocol from its handshake, and there is
    /// one, the mesh's own.
    pub can_agree: bool,
}

/// Istio's rules: the client's own version where a rule says so; HTTP/2 for ports that speak it, and for those that are
/// upgraded; what came in where nobody knows; else HTTP/1.1. Beyond Istio, where nobody has said a word about upgrades,
/// mesh peers may agree on HTTP/2.
pub fn version(pool: Option<&ConnectionPool>, port: &ServicePort, site: Site) -> HttpVersion {
    let http = pool.and_then(|pool| pool.http.as_ref());
    if http.is_some_and(|http| http.use_client_protocol) {
        HttpVersion::Downstream
    } else if port.is_http2() || is_upgraded(http, port, site) {
        HttpVersion::Http2
    } else if port.protocol == Protocol::Unspecified && site.detects {
        HttpVersion::Downstream
    } else if site.can_agree && may_agree(pool, port, site) {
        HttpVersion::Agreed
    } else {
        HttpVersion::Http1
    }
}

/// Whoever asks for the upgrade of a service knows that it speaks HTTP; the mesh asks only for ports that say so.
fn is_upgraded(http: Option<&HttpPool>, port: &ServicePort, site: Site) -> bool {
    match policy(http) {
        H2Upgrade::Upgrade => true,
        H2Upgrade::DoNotUpgrade => false,
        H2Upgrade::Default => port.protocol.is_http() && site.mesh_upgrade == H2Upgrade::Upgrade,
    }
}

/// Ports that say HTTP, about whose upgrade neither the rule nor the mesh has a word. Whoever limits connections means
/// HTTP/1.1's, of which each carries one request.
fn may_agree(pool: Option<&ConnectionPool>, port: &ServicePort, site: Site) -> bool {
    port.protocol.is_http()
        && policy(pool.and_then(|pool| pool.http.as_ref())) == H2Upgrade::Default
        && site.mesh_upgrade == H2Upgrade::Default
        && !pool.is_some_and(counts_connections)
}

fn policy(http: Option<&HttpPool>) -> H2Upgrade {
    http.map_or(H2Upgrade::Default, |http| http.h2_upgrade_policy)
}

/// HTTP particulars; none where the plain defaults are meant, HTTP/1.1 without limits.
pub fn options(pool: Option<&ConnectionPool>, version: HttpVersion) -> Option<HttpProtocolOptions> {
    let http = pool.and_then(|pool| pool.http.as_ref());
    let common = common_options(pool);
    let common = (common != CommonOptions::default()).then_some(common);
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(config),
        })
    };
    let protocol = match version {
        HttpVersion::Http1 => {
            common.as_ref()?;
            explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()))
        }
        HttpVersion::Http2 => explicit(ProtocolConfig::Http2ProtocolOptions(http2_options(http))),
        HttpVersion::Downstream => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(Http1ProtocolOptions::default()),
                http2_protocol_options: Some(http2_options(http)),
                ..Default::default()
            })
        }
        HttpVersion::Agreed => UpstreamProtocolOptions::AutoConfig(AutoHttpConfig {
            http_protocol_options: Some(Http1ProtocolOptions::default()),
            http2_protocol_options: Some(agreed_http2_options(http)),
            ..Default::default()
        }),
    };
    Some(HttpProtocolOptions {
        common_http_protocol_options: common,
        upstream_protocol_options: Some(protocol),
        ..Default::default()
    })
}

fn common_options(pool: Option<&ConnectionPool>) -> CommonOptions {
    let http = pool.and_then(|pool| pool.http.as_ref());
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    CommonOptions {
        idle_timeout: http
            .and_then(|http| http.idle_timeout)
            .or_else(|| tcp.and_then(|tcp| tcp.idle_timeout))
            .map(duration),
        max_requests_per_connection: http
            .and_then(|http| http.max_requests_per_connection)
            .filter(|limit| *limit > 0)
            .and_then(number),
        max_connection_duration: tcp.and_then(|tcp| tcp.max_connection_duration).map(duration),
        ..Default::default()
    }
}

fn http2_options(http: Option<&HttpPool>) -> Http2ProtocolOptions {
    Http2ProtocolOptions {
        // WebSockets go up as extended CONNECT.
        allow_connect: true,
        max_concurrent_streams: http
            .and_then(|http| http.max_concurrent_streams)
            .filter(|limit| *limit > 0)
            .and_then(number),
        connection_keepalive: http.and_then(|http| http.http2_keep_alive.as_ref()).map(|written| {
            KeepaliveSettings {
                interval: Some(duration(written.interval)),
                timeout: Some(duration(written.timeout)),
                ..Default::default()
            }
        }),
        ..Default::default()
    }
}

fn agreed_http2_options(http: Option<&HttpPool>) -> Http2ProtocolOptions {
    let mut options = http2_options(http);
    options.connection_keepalive.get_or_insert_with(|| {
        let (interval, timeout) = AGREED_KEEPALIVE;
        KeepaliveSettings {
            interval: Some(duration(interval)),
            timeout: Some(duration(timeout)),
            ..Default::default()
        }
    });
    options
}

#[cfg(test)]
mod tests {
    use resources::terms::traffic_policy::TcpPool;

    use super::*;
    use crate::model::service::TargetPort;

    fn version_of(
        protocol: Protocol,
        upgrade: H2Upgrade,
        mesh: H2Upgrade,
        detects: bool,
    ) -> HttpVersion {
        let http = HttpPool { h2_upgrade_policy: upgrade, ..Default::default() };
        let pool = ConnectionPool { http: Some(http), ..Default::default() };
        let site = Site { mesh_upgrade: mesh, detects, can_agree: false };
        version(Some(&pool), &port(protocol), site)
    }

    fn port(protocol: Protocol) -> ServicePort {
        let target = TargetPort::Number(80);
        ServicePort { name: String::new(), number: 80, target, protocol }
    }

    #[test]
    fn the_port_then_the_rule_then_the_mesh_decide() {
        use H2Upgrade::{Default as Silent, DoNotUpgrade, Upgrade};
        use HttpVersion::{Downstream, Http1, Http2};
        for (protocol, rule, mesh, detects, expected) in [
            (Protocol::Http, Silent, Silent, true, Http1),
            (Protocol::Http, Upgrade, Silent, true, Http2),
            (Protocol::Http, Silent, Upgrade, true, Http2),
            (Protocol::Http, DoNotUpgrade, Upgrade, true, Http1),
            (Protocol::Grpc, DoNotUpgrade, Silent, true, Http2),
            (Protocol::Http2, Silent, Silent, false, Http2),
            (Protocol::Unspecified, Silent, Silent, true, Downstream),
            (Protocol::Unspecified, Silent, Silent, false, Http1),
            (Protocol::Unspecified, Upgrade, Silent, true, Http2),
            // The mesh's word is only for ports that say what they speak.
            (Protocol::Unspecified, Silent, Upgrade, true, Downstream),
            (Protocol::Tcp, Silent, Upgrade, true, Http1),
        ] {
            let found = version_of(protocol, rule, mesh, detects);
            assert_eq!(found, expected, "{protocol:?} {rule:?} {mesh:?} {detects}");
        }
    }

    #[test]
    fn mesh_peers_agree_where_nobody_has_spoken() {
        use H2Upgrade::{Default as Silent, DoNotUpgrade, Upgrade};
        use HttpVersion::{Agreed, Downstream, Http1, Http2};
        let limits = |most: Option<u32>, pending: Option<u32>, rule: H2Upgrade| ConnectionPool {
            tcp: Some(TcpPool { max_connections: most, ..Default::default() }),
            http: Some(HttpPool {
                http1_max_pending_requests: pending,
                h2_upgrade_policy: rule,
                ..Default::default()
            }),
        };
        let silent = limits(None, None, Silent);
        for (protocol, pool, mesh, expected) in [
            (Protocol::Http, None, Silent, Agreed),
            (Protocol::Http, Some(&silent), Silent, Agreed),
            (Protocol::Http, None, DoNotUpgrade, Http1),
            (Protocol::Http, None, Upgrade, Http2),
            (Protocol::Http, Some(&limits(None, None, DoNotUpgrade)), Silent, Http1),
            (Protocol::Http, Some(&limits(None, None, Upgrade)), DoNotUpgrade, Http2),
            // Zero is no limit.
            (Protocol::Http, Some(&limits(Some(0), Some(0), Silent)), Silent, Agreed),
            (Protocol::Http, Some(&limits(Some(1), None, Silent)), Silent, Http1),
            (Protocol::Http, Some(&limits(None, Some(1), Silent)), Silent, Http1),
            (Protocol::Grpc, None, Silent, Http2),
            (Protocol::Unspecified, None, Silent, Downstream),
            (Protocol::Tcp, None, Silent, Http1),
        ] {
            let site = Site { mesh_upgrade: mesh, detects: true, can_agree: true };
            let found = version(pool, &port(protocol), site);
            assert_eq!(found, expected, "{protocol:?} {pool:?} {mesh:?}");
        }
    }
}
