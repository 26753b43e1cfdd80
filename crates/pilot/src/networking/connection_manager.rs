//! The HTTP connection manager of each kind of listener.

use std::time::Duration;

use api::envoy::config::core::v3::Http2ProtocolOptions;
use api::envoy::config::listener::v3::{Filter, filter};
use api::envoy::config::route::v3::RouteConfiguration;
use api::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, Rds,
    http_connection_manager::{
        CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction as Escaped,
        RouteSpecifier, SetCurrentClientCertDetails, UpgradeConfig,
    },
};

use super::access_log::access_logs;
use super::encoding::pack;
use super::filters::{Direction, Site, http_filters};
use super::tls::ads;
use super::values::{boolean, duration};
use super::virtual_host::CONNECT;
use crate::model::mesh::{MeshConfig, PathNormalization};
use crate::proxy::Capabilities;

/// The `Server` of every response.
const SERVER_NAME: &str = "istio-envoy";

/// Where a connection manager's routes come from.
pub enum Routes {
    /// In place.
    Inline(Box<RouteConfiguration>),
    /// A route configuration of this name, from the stream.
    Rds(String),
}

/// What a connection manager is made of.
pub struct ConnectionManager<'a> {
    /// `http.<stat prefix>.`
    pub stat_prefix: String,
    /// Which side of a workload it serves.
    pub direction: Direction,
    /// Where its routes come from.
    pub routes: Routes,
    /// The mesh's settings.
    pub mesh: &'a MeshConfig,
    /// What the node can load.
    pub capabilities: Capabilities,
    /// The htpasswd line that clients of the outbound HTTP proxy must satisfy.
    pub proxy_credential: Option<&'a str>,
    /// Whether clients may speak gRPC-Web.
    pub grpc_web: bool,
    /// Whether clients may ask for tunnels, with CONNECT.
    pub tunnels: bool,
}

/// The network filter.
pub fn network_filter(manager: ConnectionManager<'_>) -> Filter {
    Filter {
        name: "envoy.filters.network.http_connection_manager".to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack(&connection_manager(manager)))),
    }
}

fn connection_manager(manager: ConnectionManager<'_>) -> HttpConnectionManager {
    let ConnectionManager { direction, mesh, capabilities, .. } = manager;
    let gateway = direction == Direction::Gateway;
    let (forward, details) = match direction {
        Direction::Inbound => {
            (ForwardClientCertDetails::AppendForward, Some(client_certificate_details(false)))
        }
        Direction::Gateway => {
            (ForwardClientCertDetails::SanitizeSet, Some(client_certificate_details(true)))
        }
        Direction::Outbound => (ForwardClientCertDetails::Sanitize, None),
    };
    let (normalize_path, merge_slashes, escaped_slashes) = match mesh.path_normalization {
        PathNormalization::None => (false, false, Escaped::KeepUnchanged),
        PathNormalization::Default | PathNormalization::Base => {
            (true, false, Escaped::KeepUnchanged)
        }
        PathNormalization::MergeSlashes => (true, true, Escaped::KeepUnchanged),
        PathNormalization::DecodeAndMergeSlashes => (true, true, Escaped::UnescapeAndForward),
    };
    let ConnectionManager { proxy_credential, grpc_web, tunnels, .. } = manager;
    let site = Site { direction, capabilities, proxy_credential, grpc_web };
    HttpConnectionManager {
        codec_type: CodecType::Auto as i32,
        stat_prefix: manager.stat_prefix,
        route_specifier: Some(match manager.routes {
            Routes::Inline(routes) => RouteSpecifier::RouteConfig(*routes),
            Routes::Rds(name) => {
                RouteSpecifier::Rds(Rds { config_source: Some(ads()), route_config_name: name })
            }
        }),
        http_filters: http_filters(&site),
        access_log: access_logs(mesh),
        // A gateway is where the outside ends: it says who the client is.
        use_remote_address: boolean(gateway),
        xff_num_trusted_hops: if gateway { mesh.trusted_proxies } else { 0 },
        forward_client_cert_details: forward as i32,
        set_current_client_cert_details: details,
        server_name: SERVER_NAME.to_owned(),
        // WebSockets come as extended CONNECT too; what is not in the list of upgrades is refused.
        http2_protocol_options: Some(Http2ProtocolOptions {
            allow_connect: true,
            ..Default::default()
        }),
        stream_idle_timeout: Some(duration(Duration::ZERO)),
        proxy_100_continue: true,
        preserve_external_request_id: !gateway,
        normalize_path: boolean(normalize_path),
        merge_slashes,
        path_with_escaped_slashes_action: escaped_slashes as i32,
        upgrade_configs: upgrades(tunnels),
        ..Default::default()
    }
}

fn upgrades(tunnels: bool) -> Vec<UpgradeConfig> {
    let of = |kind: &str| UpgradeConfig { upgrade_type: kind.to_owned(), ..Default::default() };
    std::iter::once(of("websocket")).chain(tunnels.then(|| of(CONNECT))).collect()
}

/// What is told of a client's certificate; `whole` tells the certificate itself, too.
fn client_certificate_details(whole: bool) -> SetCurrentClientCertDetails {
    SetCurrentClientCertDetails {
        cert: whole,
        subject: boolean(true),
        dns: true,
        uri: true,
        ..Default::default()
    }
}
