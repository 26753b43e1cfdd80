//! Which HTTP a cluster is spoken to in, and the limits of its connections.

use api::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions,
    KeepaliveSettings,
};
use api::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions,
    http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
        explicit_http_config::ProtocolConfig,
    },
};
use resources::terms::traffic_policy::{ConnectionPool, H2Upgrade, HttpPool};

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
}

/// What decides about the version beside the port and its pool.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The mesh's word on upgrades, for ports that say HTTP.
    pub mesh_upgrade: H2Upgrade,
    /// Whether the node finds out what a port speaks that does not say: sidecars do, gateways speak HTTP/1.1 to it.
    pub detects: bool,
}

/// Istio's rules: the client's own version where a rule says so; HTTP/2 for ports that speak it, and for those that are
/// upgraded; what came in where nobody knows; else HTTP/1.1.
pub fn version(pool: Option<&ConnectionPool>, port: &ServicePort, site: Site) -> HttpVersion {
    let http = pool.and_then(|pool| pool.http.as_ref());
    if http.is_some_and(|http| http.use_client_protocol) {
        HttpVersion::Downstream
    } else if port.is_http2() || is_upgraded(http, port, site) {
        HttpVersion::Http2
    } else if port.protocol == Protocol::Unspecified && site.detects {
        HttpVersion::Downstream
    } else {
        HttpVersion::Http1
    }
}

/// Whoever asks for the upgrade of a service knows that it speaks HTTP; the mesh asks only for ports that say so.
fn is_upgraded(http: Option<&HttpPool>, port: &ServicePort, site: Site) -> bool {
    match http.map_or(H2Upgrade::Default, |http| http.h2_upgrade_policy) {
        H2Upgrade::Upgrade => true,
        H2Upgrade::DoNotUpgrade => false,
        H2Upgrade::Default => port.protocol.is_http() && site.mesh_upgrade == H2Upgrade::Upgrade,
    }
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
        idle_timeout: http.and_then(|http| http.idle_timeout).map(duration),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::service::TargetPort;

    fn version_of(
        protocol: Protocol,
        upgrade: H2Upgrade,
        mesh: H2Upgrade,
        detects: bool,
    ) -> HttpVersion {
        let port = ServicePort {
            name: String::new(),
            number: 80,
            target: TargetPort::Number(80),
            protocol,
        };
        let http = HttpPool { h2_upgrade_policy: upgrade, ..Default::default() };
        let pool = ConnectionPool { http: Some(http), ..Default::default() };
        version(Some(&pool), &port, Site { mesh_upgrade: mesh, detects })
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
}
