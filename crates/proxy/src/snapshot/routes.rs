//! `config.route.v3.RouteConfiguration` → route tables. The unit is the virtual host: what did not change is not
//! compiled again.

use std::sync::Arc;
use std::time::Duration;

use api::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use api::envoy::config::core::v3::{HeaderValueOption, RoutingPriority};
use api::envoy::config::route::v3 as proto;
use api::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use codec::headers::HeaderName;
use prost::Message as _;
use proto::query_parameter_matcher::QueryParameterMatchSpecifier;
use proto::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
use proto::route_action::{ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy};
use proto::route_match::PathSpecifier;
use proto::virtual_host::TlsRequirementType;

use super::compile::Compile;
use super::fingerprint::{Fingerprint, Print};
use super::{filter_overrides, values};
use crate::http::header_mutation::{AppendAction, HeaderMutations};
use crate::route_table::config::{
    Action, Criteria, DirectResponse, FilterOverrides, HeaderMatcher, HostRewrite, PathMatch,
    PathRewrite, QueryMatcher, QueryValue, Redirect, RedirectPath, RequireTls, RouteAction,
    RouteConfig, Substitution, TableConfig, VirtualHostConfig, WeightedEntry,
};
use crate::router::config::{
    ClusterChoice, ConnectConfig, GrpcTimeout, Mirror, RetryOn, RetryPolicy, RoutePolicy,
};
use crate::string_matcher::StringMatcher;
use crate::upstream::config::{ClusterRef, WeightedClusters};

/// Envoy's `max_direct_response_body_size_bytes`.
const MAX_DIRECT_RESPONSE: usize = 4096;

/// What a virtual host takes from its table.
#[derive(Debug, Clone)]
pub struct TableSettings {
    /// The largest body of a direct response, in bytes.
    pub max_direct_response: usize,
    /// What the table says of filters.
    pub filter_overrides: FilterOverrides,
    /// Where the table sends copies of requests.
    pub mirrors: Arc<[Mirror]>,
    /// Equal for equal settings.
    pub fingerprint: Fingerprint,
}

/// Compiles what a table says beside its virtual hosts.
pub fn table(
    cx: &mut Compile<'_>,
    message: &proto::RouteConfiguration,
) -> (TableConfig, TableSettings) {
    let (request_headers, response_headers) = mutations(
        cx,
        &message.request_headers_to_add,
        &message.request_headers_to_remove,
        &message.response_headers_to_add,
        &message.response_headers_to_remove,
    );
    let config = TableConfig {
        name: message.name.as_str().into(),
        ignore_port_in_host_matching: message.ignore_port_in_host_matching,
        most_specific_header_mutations_wins: message.most_specific_header_mutations_wins,
        request_headers,
        response_headers,
        internal_only_headers: cx.each(
            "internal_only_headers",
            &message.internal_only_headers,
            |cx, name| header_name(cx, name),
        ),
    };
    let max = message.max_direct_response_body_size_bytes;
    let max_direct_response = max.map_or(MAX_DIRECT_RESPONSE, |max| max.value as usize);
    let filters = &message.typed_per_filter_config;
    let settings = TableSettings {
        max_direct_response,
        filter_overrides: filter_overrides::overrides(cx, filters, &FilterOverrides::default()),
        mirrors: mirrors(cx, &message.request_mirror_policies),
        fingerprint: settings_print(message, max_direct_response),
    };
    (config, settings)
}

/// A virtual host is compiled again when what it takes from its table has changed, and only then.
fn settings_print(message: &proto::RouteConfiguration, max_direct_response: usize) -> Fingerprint {
    let mut print = Print::default();
    print.add(max_direct_response);
    let mut filters: Vec<_> = message.typed_per_filter_config.iter().collect();
    filters.sort_by_key(|(name, _)| *name);
    for (name, any) in filters {
        print.add((name, &any.type_url, &any.value));
    }
    for policy in &message.request_mirror_policies {
        print.add(policy.encode_to_vec());
    }
    print.finish()
}

/// Compiles a virtual host.
pub fn virtual_host(
    cx: &mut Compile<'_>,
    message: &proto::VirtualHost,
    settings: &TableSettings,
) -> Option<VirtualHostConfig> {
    let before = cx.problems.len();
    let (request_headers, response_headers) = mutations(
        cx,
        &message.request_headers_to_add,
        &message.request_headers_to_remove,
        &message.response_headers_to_add,
        &message.response_headers_to_remove,
    );
    let retry = match &message.retry_policy {
        None => None,
        Some(policy) => cx.at("retry_policy", |cx| retry_policy(cx, policy)).map(Arc::new),
    };
    let filters = &message.typed_per_filter_config;
    let filter_overrides = filter_overrides::overrides(cx, filters, &settings.filter_overrides);
    let max_direct_response = settings.max_direct_response;
    let mirrors = match message.request_mirror_policies.as_slice() {
        [] => Arc::clone(&settings.mirrors),
        own => mirrors(cx, own),
    };
    let inherited =
        Inherited { host: message, retry, mirrors, filter_overrides, max_direct_response };
    let config = VirtualHostConfig {
        name: message.name.as_str().into(),
        domains: message.domains.clone(),
        routes: cx.each("routes", &message.routes, |cx, route| self::route(cx, route, &inherited)),
        require_tls: match message.require_tls() {
            TlsRequirementType::None => RequireTls::None,
            TlsRequirementType::ExternalOnly => RequireTls::ExternalOnly,
            TlsRequirementType::All => RequireTls::All,
        },
        request_headers,
        response_headers,
    };
    (cx.problems.len() == before).then_some(config)
}

/// What a route takes from its virtual host.
struct Inherited<'a> {
    host: &'a proto::VirtualHost,
    retry: Option<Arc<RetryPolicy>>,
    mirrors: Arc<[Mirror]>,
    filter_overrides: FilterOverrides,
    max_direct_response: usize,
}

fn route(
    cx: &mut Compile<'_>,
    message: &proto::Route,
    inherited: &Inherited<'_>,
) -> Option<RouteConfig> {
    use proto::route::Action as ProtoAction;
    let criteria = cx.at("match", |cx| criteria(cx, message.r#match.as_ref()?));
    let filters = &message.typed_per_filter_config;
    let filter_overrides = filter_overrides::overrides(cx, filters, &inherited.filter_overrides);
    let action = match &message.action {
        Some(ProtoAction::Route(action)) => cx
            .at("route", |cx| {
                let (cluster, weighted) = cluster_choice(cx, action, &filter_overrides)?;
                route_action(cx, action, message, inherited).map(|rest| RouteAction {
                    cluster,
                    weighted,
                    ..rest
                })
            })
            .map(|action| Action::Route(action.into())),
        Some(ProtoAction::Redirect(action)) => cx
            .at("redirect", |cx| redirect(cx, action))
            .map(|action| Action::Redirect(action.into())),
        Some(ProtoAction::DirectResponse(action)) => cx
            .at("direct_response", |cx| direct(cx, action, inherited.max_direct_response))
            .map(Action::Direct),
        _ => {
            cx.problem("one of `route`, `redirect`, `direct_response` is required");
            None
        }
    };
    let (request_headers, response_headers) = mutations(
        cx,
        &message.request_headers_to_add,
        &message.request_headers_to_remove,
        &message.response_headers_to_add,
        &message.response_headers_to_remove,
    );
    Some(RouteConfig {
        name: message.name.as_str().into(),
        request_headers,
        response_headers,
        metadata: values::metadata(cx, message.metadata.as_ref()),
        filter_overrides,
        ..RouteConfig::new(criteria?, action?)
    })
}

fn criteria(cx: &mut Compile<'_>, message: &proto::RouteMatch) -> Option<Criteria> {
    let path = match message.path_specifier.as_ref()? {
        PathSpecifier::Prefix(prefix) => PathMatch::Prefix(prefix.as_str().into()),
        PathSpecifier::Path(path) => PathMatch::Exact(path.as_str().into()),
        PathSpecifier::PathSeparatedPrefix(prefix) => {
            PathMatch::SeparatedPrefix(prefix.as_str().into())
        }
        PathSpecifier::SafeRegex(regex) => {
            cx.at("safe_regex.regex", |cx| regex_compiles(cx, &regex.regex))?;
            PathMatch::Regex(regex.regex.as_str().into())
        }
        PathSpecifier::ConnectMatcher(_) => PathMatch::Connect,
        _ => {
            cx.problem("this way of matching a path is not supported yet");
            return None;
        }
    };
    let fraction = message.runtime_fraction.as_ref().and_then(|fraction| fraction.default_value);
    Some(Criteria {
        case_sensitive: message.case_sensitive.is_none_or(|sensitive| sensitive.value),
        headers: cx.each("headers", &message.headers, header_matcher),
        query: cx.each("query_parameters", &message.query_parameters, query_matcher),
        fraction: fraction.as_ref().map(values::fraction),
        grpc: message.grpc.is_some(),
        tls: None,
        path,
    })
}

fn regex_compiles(cx: &mut Compile<'_>, pattern: &str) -> Option<StringMatcher> {
    StringMatcher::regex(pattern).map_err(|error| cx.problem(error.to_string())).ok()
}

fn header_name(cx: &mut Compile<'_>, name: &str) -> Option<HeaderName> {
    HeaderName::parse(name).map_err(|error| cx.problem(error.to_string())).ok()
}

/// Compiles a `HeaderMatcher`.
pub fn header_matcher(
    cx: &mut Compile<'_>,
    message: &proto::HeaderMatcher,
) -> Option<HeaderMatcher> {
    values::read_header_matcher(message).map_err(|problem| cx.problems_under(vec![problem])).ok()
}

fn query_matcher(
    cx: &mut Compile<'_>,
    message: &proto::QueryParameterMatcher,
) -> Option<QueryMatcher> {
    let value = match &message.query_parameter_match_specifier {
        None => QueryValue::Present(true),
        Some(QueryParameterMatchSpecifier::PresentMatch(wanted)) => QueryValue::Present(*wanted),
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
            QueryValue::String(cx.at("string_match", |cx| values::string_matcher(cx, matcher))?)
        }
    };
    Some(QueryMatcher { name: message.name.as_str().into(), value })
}

fn route_action(
    cx: &mut Compile<'_>,
    message: &proto::RouteAction,
    route: &proto::Route,
    inherited: &Inherited<'_>,
) -> Option<RouteAction> {
    let policy = policy(cx, message, route, inherited)?;
    let path_rewrite = match (&message.regex_rewrite, message.prefix_rewrite.as_str()) {
        (Some(_), prefix) if !prefix.is_empty() => {
            cx.problem_at(
                "regex_rewrite",
                "only one of `prefix_rewrite` and `regex_rewrite` may be set",
            );
            None
        }
        (Some(rewrite), _) => {
            Some(PathRewrite::Regex(cx.at("regex_rewrite", |cx| substitution(cx, rewrite))?))
        }
        (None, "") => None,
        (None, prefix) => Some(PathRewrite::Prefix(prefix.into())),
    };
    // Which cluster is the caller's to say.
    let nowhere = ClusterChoice::Cluster(ClusterRef::NONE);
    let mut action = RouteAction { policy, path_rewrite, ..RouteAction::new(nowhere) };
    match &message.host_rewrite_specifier {
        None => {}
        Some(HostRewriteSpecifier::HostRewriteLiteral(host)) => {
            action.host_rewrite = Some(HostRewrite::Literal(host.as_str().into()));
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(auto)) => {
            action.policy.auto_host_rewrite = auto.value
        }
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            let name = cx.at("host_rewrite_header", |cx| header_name(cx, name))?;
            action.host_rewrite = Some(HostRewrite::Header(name));
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(rewrite)) => {
            let rewrite = cx.at("host_rewrite_path_regex", |cx| substitution(cx, rewrite))?;
            action.host_rewrite = Some(HostRewrite::PathRegex(rewrite));
        }
        Some(_) => {
            cx.problem("this way of rewriting the host is not supported yet");
            return None;
        }
    }
    Some(action)
}

fn substitution(cx: &mut Compile<'_>, rewrite: &RegexMatchAndSubstitute) -> Option<Substitution> {
    let pattern = rewrite.pattern.as_ref().map_or("", |pattern| pattern.regex.as_str());
    Substitution::new(pattern, &rewrite.substitution)
        .map_err(|error| cx.problem(error.to_string()))
        .ok()
}

fn cluster_choice(
    cx: &mut Compile<'_>,
    message: &proto::RouteAction,
    filters: &FilterOverrides,
) -> Option<(ClusterChoice, Vec<WeightedEntry>)> {
    match message.cluster_specifier.as_ref()? {
        ClusterSpecifier::Cluster(name) => {
            Some((ClusterChoice::Cluster(cx.cluster("cluster", name)), Vec::new()))
        }
        ClusterSpecifier::ClusterHeader(name) => {
            Some((ClusterChoice::Header(name.to_ascii_lowercase().into()), Vec::new()))
        }
        ClusterSpecifier::WeightedClusters(clusters) => {
            cx.at("weighted_clusters", |cx| weighted_clusters(cx, clusters, filters))
        }
        _ => {
            cx.problem("this way of choosing a cluster is not supported yet");
            None
        }
    }
}

fn weighted_clusters(
    cx: &mut Compile<'_>,
    message: &proto::WeightedCluster,
    around: &FilterOverrides,
) -> Option<(ClusterChoice, Vec<WeightedEntry>)> {
    use proto::weighted_cluster::cluster_weight::HostRewriteSpecifier;
    let entries = cx.each("clusters", &message.clusters, |cx, entry| {
        if entry.name.is_empty() {
            cx.problem_at("name", "`name` is required");
            return None;
        }
        let (request_headers, response_headers) = mutations(
            cx,
            &entry.request_headers_to_add,
            &entry.request_headers_to_remove,
            &entry.response_headers_to_add,
            &entry.response_headers_to_remove,
        );
        let host_rewrite = entry.host_rewrite_specifier.as_ref();
        let host_rewrite =
            host_rewrite.map(|HostRewriteSpecifier::HostRewriteLiteral(host)| host.as_str().into());
        let weight = entry.weight.map_or(0, |weight| weight.value);
        let filters = &entry.typed_per_filter_config;
        let filter_overrides =
            (!filters.is_empty()).then(|| filter_overrides::overrides(cx, filters, around));
        let changes =
            WeightedEntry { request_headers, response_headers, host_rewrite, filter_overrides };
        Some(((cx.cluster("name", &entry.name), weight), changes))
    });
    let (weights, changes): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
    #[allow(deprecated)]
    if let Some(total) = message.total_weight {
        let sum: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
        if sum != u64::from(total.value) {
            cx.problem_at(
                "total_weight",
                format!("the weights add up to {sum}, not to {}", total.value),
            );
        }
    }
    match WeightedClusters::new(weights) {
        Some(choice) => Some((ClusterChoice::Weighted(choice), changes)),
        None => {
            cx.problem_at("clusters", "the weights add up to nothing");
            None
        }
    }
}

fn policy(
    cx: &mut Compile<'_>,
    message: &proto::RouteAction,
    route: &proto::Route,
    inherited: &Inherited<'_>,
) -> Option<RoutePolicy> {
    use proto::route_action::ClusterNotFoundResponseCode as NotFound;
    let default = RoutePolicy::default();
    let host = inherited.host;
    // Zero is "no limit" for each of these.
    let switchable = |value: Option<&api::google::protobuf::Duration>| {
        value.map(|value| Some(values::duration(value)).filter(|limit| !limit.is_zero()))
    };
    let retry = match &message.retry_policy {
        Some(policy) => cx.at("retry_policy", |cx| retry_policy(cx, policy)).map(Arc::new),
        None => inherited.retry.clone(),
    };
    let max_stream =
        message.max_stream_duration.as_ref().and_then(|max| max.max_stream_duration.as_ref());
    let grpc_timeout = grpc_timeout(message);
    let connect = connect_config(cx, message);
    let mirrors = match message.request_mirror_policies.as_slice() {
        [] => Arc::clone(&inherited.mirrors),
        own => mirrors(cx, own),
    };
    #[allow(deprecated)]
    let buffer = route.per_request_buffer_limit_bytes.or(host.per_request_buffer_limit_bytes);
    Some(RoutePolicy {
        timeout: values::limit(message.timeout.as_ref(), default.timeout),
        idle_timeout: switchable(message.idle_timeout.as_ref()),
        max_stream_duration: switchable(max_stream),
        grpc_timeout,
        retry,
        priority: usize::from(message.priority() == RoutingPriority::High),
        cluster_not_found_status: match message.cluster_not_found_response_code() {
            NotFound::ServiceUnavailable => 503,
            NotFound::NotFound => 404,
            NotFound::InternalServerError => 500,
        },
        include_attempt_count_in_request: host.include_request_attempt_count,
        include_attempt_count_in_response: host.include_attempt_count_in_response,
        upgrades: message
            .upgrade_configs
            .iter()
            .map(|upgrade| {
                (
                    upgrade.upgrade_type.as_str().into(),
                    upgrade.enabled.is_none_or(|enabled| enabled.value),
                )
            })
            .collect(),
        connect,
        auto_host_rewrite: false,
        append_x_forwarded_host: message.append_x_forwarded_host,
        request_body_buffer_limit: buffer.map(|limit| limit.value.into()),
        mirrors,
    })
}

fn mirrors(cx: &mut Compile<'_>, messages: &[RequestMirrorPolicy]) -> Arc<[Mirror]> {
    let compiled = cx.each("request_mirror_policies", messages, |cx, message| {
        let cluster = match (message.cluster.as_str(), message.cluster_header.as_str()) {
            ("", "") => {
                cx.problem("one of `cluster` and `cluster_header` is required");
                return None;
            }
            ("", header) => ClusterChoice::Header(header.to_ascii_lowercase().into()),
            (name, "") => ClusterChoice::Cluster(cx.cluster("cluster", name)),
            _ => {
                cx.problem("only one of `cluster` and `cluster_header` may be set");
                return None;
            }
        };
        let host = message.host_rewrite_literal.as_str();
        Some(Mirror {
            cluster,
            fraction: message
                .runtime_fraction
                .as_ref()
                .and_then(|fraction| fraction.default_value.as_ref())
                .map(values::fraction),
            marks_host: !message.disable_shadow_host_suffix_append,
            host: (!host.is_empty()).then(|| host.into()),
        })
    });
    compiled.into()
}

/// What `grpc-timeout` means on this route; the fields of `max_stream_duration` win over the deprecated ones.
fn grpc_timeout(message: &proto::RouteAction) -> Option<GrpcTimeout> {
    let offset = |offset: Option<&api::google::protobuf::Duration>| {
        offset.map(values::duration).unwrap_or_default()
    };
    let stream = message.max_stream_duration.as_ref();
    if let Some(stream) = stream
        && let Some(max) = &stream.grpc_timeout_header_max
    {
        return Some(GrpcTimeout {
            max: values::limit(Some(max), None),
            offset: offset(stream.grpc_timeout_header_offset.as_ref()),
            of_response: false,
        });
    }
    // As in Envoy: a route with `max_stream_duration` is one of the new kind.
    #[allow(deprecated)]
    let (max, offset) =
        (message.max_grpc_timeout.as_ref()?, offset(message.grpc_timeout_offset.as_ref()));
    let is_new = stream.is_some();
    (!is_new).then(|| GrpcTimeout {
        max: values::limit(Some(max), None),
        offset,
        of_response: true,
    })
}

/// Where CONNECT ends here.
fn connect_config(cx: &mut Compile<'_>, message: &proto::RouteAction) -> Option<ConnectConfig> {
    let mut found = None;
    for (index, upgrade) in message.upgrade_configs.iter().enumerate() {
        let Some(config) = &upgrade.connect_config else { continue };
        if upgrade.upgrade_type.eq_ignore_ascii_case("CONNECT") {
            found = Some(ConnectConfig { allow_post: config.allow_post });
        } else {
            cx.problem_at(
                &format!("upgrade_configs[{index}].connect_config"),
                "only `upgrade_type: CONNECT` has a `connect_config`",
            );
        }
    }
    found
}

fn retry_policy(cx: &mut Compile<'_>, message: &proto::RetryPolicy) -> Option<RetryPolicy> {
    let default = RetryPolicy::default();
    let (on, unknown) = RetryOn::parse(&message.retry_on);
    for word in unknown {
        cx.problem_at("retry_on", format!("`{word}` is not supported"));
    }
    let retriable_headers =
        cx.each("retriable_headers", &message.retriable_headers, header_matcher);
    let retriable_request_headers =
        cx.each("retriable_request_headers", &message.retriable_request_headers, header_matcher);
    let mut avoid_previous_hosts = false;
    for (index, predicate) in message.retry_host_predicate.iter().enumerate() {
        use proto::retry_policy::retry_host_predicate::ConfigType;
        let field = format!("retry_host_predicate[{index}].typed_config");
        let any = predicate.config_type.as_ref().map(|ConfigType::TypedConfig(any)| any);
        // Istio gives the name alone.
        if any.is_none() && predicate.name == "envoy.retry_host_predicates.previous_hosts" {
            avoid_previous_hosts = true;
        } else if let Some((name, _)) = cx.extension(&field, any) {
            match name.as_str() {
                "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate" => {
                    avoid_previous_hosts = true
                }
                _ => cx.problem_at(&field, format!("{name} is no predicate of retry hosts")),
            }
        }
    }
    let back_off = message.retry_back_off.as_ref();
    let base = back_off
        .and_then(|back_off| back_off.base_interval.as_ref())
        .map_or(default.base_interval, values::duration);
    let max = back_off
        .and_then(|back_off| back_off.max_interval.as_ref())
        .map_or(base * 10, values::duration);
    if max < base {
        cx.problem_at("retry_back_off.max_interval", "must not be less than `base_interval`");
    }
    let status = |code: &u32| u16::try_from(*code).ok();
    Some(RetryPolicy {
        on,
        num_retries: values::count(message.num_retries, default.num_retries),
        per_try_timeout: values::limit(message.per_try_timeout.as_ref(), None),
        per_try_idle_timeout: values::limit(message.per_try_idle_timeout.as_ref(), None),
        retriable_status_codes: message.retriable_status_codes.iter().filter_map(status).collect(),
        retriable_headers,
        retriable_request_headers,
        // Envoy treats intervals below a millisecond as one.
        base_interval: base.max(Duration::from_millis(1)),
        max_interval: max.max(Duration::from_millis(1)),
        avoid_previous_hosts,
        host_selection_attempts: u32::try_from(message.host_selection_retry_max_attempts)
            .unwrap_or_default()
            .max(1),
    })
}

fn redirect(cx: &mut Compile<'_>, message: &proto::RedirectAction) -> Option<Redirect> {
    let text = |text: &str| (!text.is_empty()).then(|| text.into());
    let scheme = match &message.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => text(scheme),
        _ => None,
    };
    let path = match &message.path_rewrite_specifier {
        Some(PathRewriteSpecifier::PathRedirect(path)) => text(path).map(RedirectPath::Full),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            Some(RedirectPath::Rewrite(PathRewrite::Prefix(prefix.as_str().into())))
        }
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => {
            let rewrite = cx.at("regex_rewrite", |cx| substitution(cx, rewrite))?;
            Some(RedirectPath::Rewrite(PathRewrite::Regex(rewrite)))
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => {
            cx.problem_at("path_rewrite", "`path_rewrite` is not supported yet");
            None
        }
        None => None,
    };
    Some(Redirect {
        status: match message.response_code() {
            RedirectResponseCode::MovedPermanently => 301,
            RedirectResponseCode::Found => 302,
            RedirectResponseCode::SeeOther => 303,
            RedirectResponseCode::TemporaryRedirect => 307,
            RedirectResponseCode::PermanentRedirect => 308,
        },
        scheme,
        host: text(&message.host_redirect),
        port: u16::try_from(message.port_redirect).ok().filter(|port| *port != 0),
        path,
        strip_query: message.strip_query,
    })
}

fn direct(
    cx: &mut Compile<'_>,
    message: &proto::DirectResponseAction,
    limit: usize,
) -> Option<DirectResponse> {
    let body = match &message.body {
        None => Vec::new(),
        Some(source) => cx.at("body", |cx| cx.data(source))?,
    };
    if body.len() > limit {
        let found = body.len();
        cx.problem_at(
            "body",
            format!("has {found} bytes, more than `max_direct_response_body_size_bytes` ({limit})"),
        );
        return None;
    }
    Some(DirectResponse { status: u16::try_from(message.status).ok()?, body: body.into() })
}

/// Compiles the four lists of header changes of one level.
fn mutations(
    cx: &mut Compile<'_>,
    request_add: &[HeaderValueOption],
    request_remove: &[String],
    response_add: &[HeaderValueOption],
    response_remove: &[String],
) -> (HeaderMutations, HeaderMutations) {
    let mut both = [HeaderMutations::default(), HeaderMutations::default()];
    let lists = [
        ("request_headers", request_add, request_remove),
        ("response_headers", response_add, response_remove),
    ];
    for (mutations, (side, add, remove)) in both.iter_mut().zip(lists) {
        for (index, name) in remove.iter().enumerate() {
            if let Err(error) = mutations.remove(name) {
                cx.problem_at(&format!("{side}_to_remove[{index}]"), error.to_string());
            }
        }
        for (index, option) in add.iter().enumerate() {
            let header = option.header.clone().unwrap_or_default();
            let added = mutations.add(
                &header.key,
                &header.value,
                append_action(option),
                option.keep_empty_value,
                &cx.env.formats,
            );
            if let Err(error) = added {
                cx.problem_at(&format!("{side}_to_add[{index}].header"), error.to_string());
            }
        }
    }
    let [request, response] = both;
    (request, response)
}

#[allow(deprecated)]
fn append_action(option: &HeaderValueOption) -> AppendAction {
    if option.append.is_some_and(|append| !append.value) {
        return AppendAction::OverwriteIfExistsOrAdd;
    }
    match option.append_action() {
        HeaderAppendAction::AppendIfExistsOrAdd => AppendAction::AppendIfExistsOrAdd,
        HeaderAppendAction::AddIfAbsent => AppendAction::AddIfAbsent,
        HeaderAppendAction::OverwriteIfExistsOrAdd => AppendAction::OverwriteIfExistsOrAdd,
        HeaderAppendAction::OverwriteIfExists => AppendAction::OverwriteIfExists,
    }
}
