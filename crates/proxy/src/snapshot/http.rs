//! `HttpConnectionManager` → [`crate::http::config::HttpConnectionManager`].

use std::sync::Arc;

use api::envoy::config::core::v3::Http1ProtocolOptions;
use api::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use api::envoy::config::core::v3::http1_protocol_options::header_key_format::HeaderFormat;
use api::envoy::config::core::v3::scheme_header_transformation::Transformation;
use api::envoy::extensions::filters::http::router::v3::Router;
use api::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use api::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use proto::http_connection_manager::{
    CodecType as ProtoCodec, ForwardClientCertDetails as ProtoForward,
    PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
};
use proto::http_filter::ConfigType;

use super::compile::Compile;
use super::{access_logs, http2, route_tables, source, values};
use crate::filter_manager::{FilterChainFactory, HttpFilterFactory, MAX_FILTERS};
use crate::http::config::{
    ClientAddress, CodecType, EscapedSlashesAction, ForwardClientCert, ForwardClientCertDetails,
    HostNormalization, Http1Options, HttpConnectionManager, Limits, PathNormalization,
    RequestIdOptions, RouteSource, ServerHeader, Timeouts, UnderscoreAction, UpgradeConfig,
    UserAgent,
};
use crate::http::stats::HttpBlocks;
use crate::router::config::RouterOptions;

/// Compiles a connection manager; `listener_prefix` is the listener's stat prefix.
pub fn manager(
    cx: &mut Compile<'_>,
    bytes: &[u8],
    listener_prefix: &str,
) -> Option<Arc<HttpConnectionManager>> {
    let message: proto::HttpConnectionManager = cx.decode(bytes)?;
    let before = cx.problems.len();
    let routes = routes(cx, &message);
    let (filters, router) = filters(cx, &message);
    let request_id = request_id(cx, &message);
    let access_loggers = access_logs::access_logs(cx, &message.access_log, &message.stat_prefix);
    let http2 = message.http2_protocol_options.as_ref();
    let http2 = http2::options(cx, "http2_protocol_options", http2);
    let config = HttpConnectionManager {
        stat_prefix: message.stat_prefix.as_str().into(),
        stats: HttpBlocks::new(&cx.env.registry, listener_prefix, &message.stat_prefix),
        codec: match message.codec_type() {
            ProtoCodec::Http1 => CodecType::Http1,
            ProtoCodec::Http2 => CodecType::Http2,
            _ => CodecType::Auto,
        },
        http1: http1(message.http_protocol_options.as_ref()),
        http2,
        timeouts: timeouts(&message),
        limits: limits(&message),
        client_address: client_address(cx, &message),
        path: path(&message),
        request_id,
        client_cert: client_cert(&message),
        server_header: server_header(&message),
        via: message.via.as_str().into(),
        user_agent: message.add_user_agent.is_some_and(|wanted| wanted.value).then(|| UserAgent {
            cluster: Arc::clone(&cx.env.node.cluster),
            node: Arc::clone(&cx.env.node.id),
        }),
        host: host(&message),
        upgrades: message
            .upgrade_configs
            .iter()
            .map(|upgrade| UpgradeConfig {
                upgrade_type: upgrade.upgrade_type.as_str().into(),
                enabled: upgrade.enabled.is_none_or(|enabled| enabled.value),
            })
            .collect(),
        proxy_100_continue: message.proxy_100_continue,
        stream_error_on_invalid_message: message
            .stream_error_on_invalid_http_message
            .is_some_and(|wanted| wanted.value),
        routes: routes?,
        filters: Arc::new(filters),
        router: router?,
        access_loggers,
        direction: cx.direction,
    };
    (cx.problems.len() == before).then(|| Arc::new(config))
}

fn client_address(cx: &mut Compile<'_>, message: &proto::HttpConnectionManager) -> ClientAddress {
    let internal = message.internal_address_config.as_ref();
    let scheme = message.scheme_header_transformation.as_ref();
    ClientAddress {
        use_remote_address: message.use_remote_address.is_some_and(|wanted| wanted.value),
        xff_num_trusted_hops: message.xff_num_trusted_hops,
        skip_xff_append: message.skip_xff_append,
        append_x_forwarded_port: message.append_x_forwarded_port,
        internal_ranges: internal.map_or_else(Vec::new, |internal| {
            cx.at("internal_address_config", |cx| {
                cx.each("cidr_ranges", &internal.cidr_ranges, values::cidr)
            })
        }),
        unix_sockets_internal: internal.is_some_and(|config| config.unix_sockets),
        scheme_overwrite: scheme
            .and_then(|scheme| scheme.transformation.as_ref())
            .map(|Transformation::SchemeToOverwrite(scheme)| scheme.as_str().into()),
    }
}

fn routes(cx: &mut Compile<'_>, message: &proto::HttpConnectionManager) -> Option<RouteSource> {
    match message.route_specifier.as_ref()? {
        RouteSpecifier::RouteConfig(config) => cx.at("route_config", |cx| {
            // Envoy: routes that are given in place must lead to clusters that there are, unless they say otherwise.
            cx.validate_clusters = config.validate_clusters.is_none_or(|validate| validate.value);
            if config.vhds.is_some() {
                cx.problem_at(
                    "vhds",
                    "virtual hosts are discovered for route configurations that are discovered too",
                );
                return None;
            }
            route_tables::inline(cx, config).map(RouteSource::Inline)
        }),
        RouteSpecifier::Rds(rds) => cx.at("rds", |cx| {
            let fetch =
                cx.at("config_source", |cx| source::fetch(cx, rds.config_source.as_ref()))?;
            let name = &rds.route_config_name;
            if name.is_empty() {
                cx.problem_at("route_config_name", "`route_config_name` is required");
                return None;
            }
            cx.needs.routes.insert(name.as_str().into(), fetch);
            let prefix = message.stat_prefix.as_str().into();
            cx.needs.managers.insert((name.as_str().into(), prefix));
            Some(RouteSource::Slot(cx.slots.route_table(name)))
        }),
        RouteSpecifier::ScopedRoutes(_) => {
            cx.problem_at("scoped_routes", "`scoped_routes` is not supported yet");
            None
        }
    }
}

/// The filters before the router, and the router's options; the router must be the last, and there once.
fn filters(
    cx: &mut Compile<'_>,
    message: &proto::HttpConnectionManager,
) -> (FilterChainFactory, Option<RouterOptions>) {
    let mut chain = FilterChainFactory::default();
    let mut router = None;
    let last = message.http_filters.len().saturating_sub(1);
    for (index, filter) in message.http_filters.iter().enumerate() {
        cx.at(&format!("http_filters[{index}]"), |cx| {
            let any = match &filter.config_type {
                Some(ConfigType::TypedConfig(any)) => Some(any),
                _ => None,
            };
            let Some((name, bytes)) = cx.extension("typed_config", any) else { return };
            let is_router = name == "envoy.extensions.filters.http.router.v3.Router";
            if is_router != (index == last) {
                let rule = if is_router {
                    format!("`{}` ends the chain and must be the last filter", filter.name)
                } else {
                    "the last filter must be the router".to_owned()
                };
                return cx.problem(rule);
            }
            if is_router && filter.disabled {
                cx.problem_at("disabled", "the router cannot be disabled");
            }
            if is_router {
                router = cx.decode::<Router>(&bytes).map(|router| RouterOptions {
                    suppress_envoy_headers: router.suppress_envoy_headers,
                    no_dynamic_stats: router.dynamic_stats.is_some_and(|wanted| !wanted.value),
                });
            } else if let Some(factory) =
                cx.at("typed_config", |cx| extension(cx, &name, &bytes, &message.stat_prefix))
            {
                chain.disabled |= u64::from(filter.disabled) << chain.filters.len().min(63);
                chain.filters.push((filter.name.as_str().into(), factory));
            }
        });
    }
    if chain.filters.len() > MAX_FILTERS {
        cx.problem_at("http_filters", format!("more than {MAX_FILTERS} filters"));
    }
    if message.http_filters.is_empty() {
        cx.problem_at("http_filters", "the chain needs the router as its last filter");
    }
    (chain, router)
}

fn extension(
    cx: &mut Compile<'_>,
    name: &str,
    bytes: &[u8],
    stat_prefix: &str,
) -> Option<Arc<dyn HttpFilterFactory>> {
    let Some(row) = cx.env.extensions.http_filter(name) else {
        cx.problem(format!("{name} is no HTTP filter"));
        return None;
    };
    let compiled = (row.compile)(bytes, &cx.context(stat_prefix));
    compiled.map_err(|problems| cx.problems_under(problems)).ok()
}

fn request_id(cx: &mut Compile<'_>, message: &proto::HttpConnectionManager) -> RequestIdOptions {
    let mut options = RequestIdOptions {
        generate: message.generate_request_id.is_none_or(|generate| generate.value),
        preserve_external: message.preserve_external_request_id,
        always_set_in_response: message.always_set_request_id_in_response,
        pack_trace_reason: true,
    };
    if let Some(extension) = &message.request_id_extension {
        cx.at("request_id_extension", |cx| {
            let Some((name, bytes)) = cx.extension("typed_config", extension.typed_config.as_ref())
            else {
                return;
            };
            if name != "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig" {
                return cx.problem_at("typed_config", format!("{name} is no request id extension"));
            }
            if let Some(config) = cx.decode::<UuidRequestIdConfig>(&bytes) {
                options.pack_trace_reason = config.pack_trace_reason.is_none_or(|pack| pack.value);
            }
        });
    }
    options
}

fn http1(message: Option<&Http1ProtocolOptions>) -> Http1Options {
    let Some(message) = message else { return Http1Options::default() };
    let format =
        message.header_key_format.as_ref().and_then(|format| format.header_format.as_ref());
    Http1Options {
        accept_http_10: message.accept_http_10,
        default_host_for_http_10: message.default_host_for_http_10.as_str().into(),
        allow_absolute_url: message.allow_absolute_url.is_none_or(|allow| allow.value),
        enable_trailers: message.enable_trailers,
        proper_case_words: matches!(format, Some(HeaderFormat::ProperCaseWords(_))),
    }
}

fn timeouts(message: &proto::HttpConnectionManager) -> Timeouts {
    let default = Timeouts::default();
    let common = message.common_http_protocol_options.unwrap_or_default();
    Timeouts {
        idle: values::limit(common.idle_timeout.as_ref(), default.idle),
        max_connection_duration: values::limit(common.max_connection_duration.as_ref(), None),
        max_stream_duration: values::limit(common.max_stream_duration.as_ref(), None),
        stream_idle: values::limit(message.stream_idle_timeout.as_ref(), default.stream_idle),
        request: values::limit(message.request_timeout.as_ref(), None),
        request_headers: values::limit(message.request_headers_timeout.as_ref(), None),
        drain: message.drain_timeout.as_ref().map_or(default.drain, values::duration),
        delayed_close: message
            .delayed_close_timeout
            .as_ref()
            .map_or(default.delayed_close, values::duration),
    }
}

fn limits(message: &proto::HttpConnectionManager) -> Limits {
    let default = Limits::default();
    let common = message.common_http_protocol_options.unwrap_or_default();
    Limits {
        max_request_headers_kb: values::count(
            message.max_request_headers_kb,
            default.max_request_headers_kb,
        ),
        max_headers_count: values::count(common.max_headers_count, default.max_headers_count),
        max_requests_per_connection: common
            .max_requests_per_connection
            .map(|max| max.value)
            .filter(|max| *max > 0),
        headers_with_underscores: match common.headers_with_underscores_action() {
            HeadersWithUnderscoresAction::Allow => UnderscoreAction::Allow,
            HeadersWithUnderscoresAction::RejectRequest => UnderscoreAction::RejectRequest,
            HeadersWithUnderscoresAction::DropHeader => UnderscoreAction::DropHeader,
        },
    }
}

fn path(message: &proto::HttpConnectionManager) -> PathNormalization {
    PathNormalization {
        normalize_path: message.normalize_path.is_some_and(|wanted| wanted.value),
        merge_slashes: message.merge_slashes,
        escaped_slashes: match message.path_with_escaped_slashes_action() {
            PathWithEscapedSlashesAction::ImplementationSpecificDefault
            | PathWithEscapedSlashesAction::KeepUnchanged => EscapedSlashesAction::KeepUnchanged,
            PathWithEscapedSlashesAction::RejectRequest => EscapedSlashesAction::RejectRequest,
            PathWithEscapedSlashesAction::UnescapeAndRedirect => {
                EscapedSlashesAction::UnescapeAndRedirect
            }
            PathWithEscapedSlashesAction::UnescapeAndForward => {
                EscapedSlashesAction::UnescapeAndForward
            }
        },
    }
}

fn client_cert(message: &proto::HttpConnectionManager) -> ForwardClientCert {
    let set = message.set_current_client_cert_details.unwrap_or_default();
    ForwardClientCert {
        details: match message.forward_client_cert_details() {
            ProtoForward::Sanitize => ForwardClientCertDetails::Sanitize,
            ProtoForward::ForwardOnly => ForwardClientCertDetails::ForwardOnly,
            ProtoForward::AppendForward => ForwardClientCertDetails::AppendForward,
            ProtoForward::SanitizeSet => ForwardClientCertDetails::SanitizeSet,
            ProtoForward::AlwaysForwardOnly => ForwardClientCertDetails::AlwaysForwardOnly,
        },
        subject: set.subject.is_some_and(|wanted| wanted.value),
        cert: set.cert,
        chain: set.chain,
        dns: set.dns,
        uri: set.uri,
    }
}

fn server_header(message: &proto::HttpConnectionManager) -> ServerHeader {
    let name = match message.server_name.as_str() {
        "" => "envoy",
        name => name,
    };
    match message.server_header_transformation() {
        ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite(name.into()),
        ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent(name.into()),
        ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
    }
}

fn host(message: &proto::HttpConnectionManager) -> HostNormalization {
    use proto::http_connection_manager::StripPortMode;
    HostNormalization {
        strip_matching_port: message.strip_matching_host_port,
        strip_any_port: matches!(
            message.strip_port_mode,
            Some(StripPortMode::StripAnyHostPort(true))
        ),
        strip_trailing_dot: message.strip_trailing_host_dot,
    }
}
