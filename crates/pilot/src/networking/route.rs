//! The HTTP routes of a VirtualService, and the default route of a service that has none.

use std::collections::BTreeMap;
use std::time::Duration;

use api::envoy::config::core::v3::{
    DataSource, HeaderValue, HeaderValueOption, Metadata, RuntimeFractionalPercent, data_source,
    header_value_option::HeaderAppendAction,
};
use api::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, RetryPolicy, Route, RouteAction, RouteMatch,
    WeightedCluster,
    redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier},
    route::Action,
    route_action::{ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy},
    weighted_cluster::{ClusterWeight, cluster_weight},
};
use api::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use resources::kinds::networking::virtual_service::{
    HeaderOperations, Headers, HttpAction, HttpDirectResponse, HttpMatch, HttpRedirect, HttpRoute,
    HttpRouteDestination, Mirror, PathRewrite, RedirectPath, RedirectPort, ResponseBody,
};
use resources::terms::gateway_ref::GatewayRef;

use super::cors;
use super::destination::{DestinationServices, Destinations};
use super::encoding::pack;
use super::fault;
use super::filters::{CORS_FILTER, FAULT_FILTER};
use super::retry;
use super::route_match;
use super::values::{duration, number, regex, share, text_struct};
use crate::model::interned::Interned;
use crate::model::mesh::DefaultRetries;
use crate::model::virtual_service::{Client, VirtualServiceRule};
use crate::naming;

/// What the routes of one VirtualService depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoutesKey {
    /// The VirtualService, its delegates' routes in place.
    pub virtual_service: Interned<VirtualServiceRule>,
    /// The gateway they are for, or the mesh.
    pub gateway: GatewayRef,
    /// Who calls: only where the VirtualService asks.
    pub client: Client,
    /// The port they are for.
    pub port: u16,
    /// Whether requests come over TLS that ends here.
    pub over_tls: bool,
    /// Every service its destinations may be.
    pub services: DestinationServices,
    /// Ends full names.
    pub domain_suffix: std::sync::Arc<str>,
}

/// The routes, in order, up to the first that matches everything. What says nothing of retries has the mesh's.
pub fn routes(key: &RoutesKey, default_retries: &DefaultRetries) -> Vec<Route> {
    let rule = &*key.virtual_service;
    let translation = Translation {
        key,
        default_retries,
        destinations: Destinations {
            namespace: &rule.namespace,
            domain_suffix: &key.domain_suffix,
            services: &key.services,
            listener_port: key.port,
        },
    };
    let mut out = Vec::new();
    for http in &rule.view.http {
        for (matched, name) in translation.matches(http) {
            let last = route_match::is_catch_all(&matched);
            if let Some(route) = translation.route(http, matched, name) {
                out.push(route);
            }
            if last {
                return out;
            }
        }
    }
    out
}

/// The route of a service that no VirtualService speaks for.
pub fn default_route(cluster: String, retry_policy: Option<RetryPolicy>) -> Route {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster)),
        retry_policy,
        ..limited(Duration::ZERO)
    };
    Route {
        name: naming::DEFAULT_ROUTE.to_owned(),
        r#match: Some(route_match::everything()),
        action: Some(Action::Route(action)),
        ..Default::default()
    }
}

/// An action that takes this long at most; zero is for ever. A gRPC client's own deadline counts, but not beyond that.
fn limited(timeout: Duration) -> RouteAction {
    // What replaces this field starts counting elsewhere; Istio keeps to it, too.
    #[allow(deprecated)]
    RouteAction {
        timeout: Some(duration(timeout)),
        max_grpc_timeout: Some(duration(timeout)),
        ..Default::default()
    }
}

struct Translation<'a> {
    key: &'a RoutesKey,
    default_retries: &'a DefaultRetries,
    destinations: Destinations<'a>,
}

impl Translation<'_> {
    /// The matches of a route that can hold for this client at this gateway and port, each with the route's name there.
    fn matches(&self, http: &HttpRoute) -> Vec<(RouteMatch, String)> {
        let name = http.name.clone().unwrap_or_default();
        if http.matches.is_empty() {
            return vec![(route_match::everything(), name)];
        }
        http.matches
            .iter()
            .filter(|matched| self.may_hold(matched))
            .filter_map(|matched| {
                let full_name = match &matched.name {
                    // Istio's, also where the route has no name of its own: `.match`.
                    Some(own) => format!("{name}.{own}"),
                    None => name.clone(),
                };
                Some((route_match::translate(matched)?, full_name))
            })
            .collect()
    }

    fn may_hold(&self, matched: &HttpMatch) -> bool {
        let gateway = matched.gateways.is_empty() || matched.gateways.contains(&self.key.gateway);
        let port = matched.port.is_none_or(|port| port == self.key.port);
        gateway
            && port
            && self.key.client.is(matched.source_namespace.as_deref(), &matched.source_labels)
    }

    /// `None` for a route that delegates: the delegate's own routes stand in its place, if it is there.
    fn route(&self, http: &HttpRoute, matched: RouteMatch, name: String) -> Option<Route> {
        let mut route = Route {
            name,
            r#match: Some(matched),
            metadata: Some(self.metadata()),
            ..Default::default()
        };
        add_headers(&http.headers, &mut route);
        if let Some(written) = &http.cors_policy {
            let policy = pack(&cors::policy(written));
            route.typed_per_filter_config.insert(CORS_FILTER.to_owned(), policy);
        }
        if let Some(written) = &http.fault {
            let faults = pack(&fault::faults(written));
            route.typed_per_filter_config.insert(FAULT_FILTER.to_owned(), faults);
        }
        route.action = Some(match &http.action {
            HttpAction::Route(destinations) => {
                Action::Route(self.forward(http, destinations, &mut route))
            }
            HttpAction::Redirect(to) => {
                Action::Redirect(redirect(to, self.key.port, self.key.over_tls))
            }
            HttpAction::DirectResponse(response) => {
                Action::DirectResponse(direct_response(response))
            }
            HttpAction::Delegate { .. } => return None,
        });
        Some(route)
    }

    fn metadata(&self) -> Metadata {
        let rule = &*self.key.virtual_service;
        let path = naming::config_path("virtual-service", &rule.namespace, &rule.name);
        Metadata {
            filter_metadata: [("istio".to_owned(), text_struct([("config", path.as_str())]))]
                .into(),
            ..Default::default()
        }
    }

    fn forward(
        &self,
        http: &HttpRoute,
        to: &[HttpRouteDestination],
        route: &mut Route,
    ) -> RouteAction {
        let mut action = RouteAction {
            retry_policy: match &http.retries {
                None => retry::outbound(self.default_retries),
                Some(retries) => retry::of_route(retries),
            },
            ..limited(http.timeout.unwrap_or_default())
        };
        action.request_mirror_policies =
            http.mirrors.iter().filter_map(|mirror| self.mirror(mirror)).collect();
        if let Some(rewrite) = &http.rewrite {
            match &rewrite.path {
                Some(PathRewrite::Uri(uri)) => action.prefix_rewrite.clone_from(uri),
                Some(PathRewrite::Regex { pattern, substitution }) => {
                    action.regex_rewrite = Some(RegexMatchAndSubstitute {
                        pattern: Some(regex(pattern)),
                        substitution: substitution.clone(),
                    });
                }
                None => {}
            }
        }
        // The rewrite's authority, else the route's header, else that of its only destination.
        let rewritten = http.rewrite.as_ref().and_then(|rewrite| rewrite.authority.clone());
        let mut authority = rewritten.or_else(|| authority_of(&http.headers.request));
        action.cluster_specifier = Some(match to {
            [only] => {
                add_headers(&only.headers, route);
                authority = authority.or_else(|| authority_of(&only.headers.request));
                ClusterSpecifier::Cluster(self.destinations.cluster(&only.destination))
            }
            several => ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters: several
                    .iter()
                    .filter(|to| to.weight > 0)
                    .map(|to| self.weighted(to))
                    .collect(),
                ..Default::default()
            }),
        });
        action.host_rewrite_specifier = authority.map(HostRewriteSpecifier::HostRewriteLiteral);
        action
    }

    /// A share of requests, in parts of a million; nothing for none. The copy keeps its authority, as Istio has it.
    fn mirror(&self, mirror: &Mirror) -> Option<RequestMirrorPolicy> {
        let share = share(mirror.percentage);
        (share.numerator > 0).then(|| RequestMirrorPolicy {
            cluster: self.destinations.cluster(&mirror.destination),
            runtime_fraction: Some(RuntimeFractionalPercent {
                default_value: Some(share),
                ..Default::default()
            }),
            disable_shadow_host_suffix_append: true,
            ..Default::default()
        })
    }

    fn weighted(&self, to: &HttpRouteDestination) -> ClusterWeight {
        let request = header_values(&to.headers.request);
        let response = header_values(&to.headers.response);
        ClusterWeight {
            name: self.destinations.cluster(&to.destination),
            weight: number(to.weight),
            request_headers_to_add: request,
            request_headers_to_remove: to.headers.request.remove.clone(),
            response_headers_to_add: response,
            response_headers_to_remove: to.headers.response.remove.clone(),
            host_rewrite_specifier: authority_of(&to.headers.request)
                .map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
            ..Default::default()
        }
    }
}

fn add_headers(headers: &Headers, route: &mut Route) {
    route.request_headers_to_add.extend(header_values(&headers.request));
    route.request_headers_to_remove.extend(headers.request.remove.iter().cloned());
    route.response_headers_to_add.extend(header_values(&headers.response));
    route.response_headers_to_remove.extend(headers.response.remove.iter().cloned());
}

/// Setting the authority is a rewrite of the host, not a header.
fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

fn authority_of(operations: &HeaderOperations) -> Option<String> {
    let all = operations.set.iter().chain(&operations.add);
    all.into_iter().find(|(name, _)| is_authority(name)).map(|(_, value)| value.clone())
}

fn header_values(operations: &HeaderOperations) -> Vec<HeaderValueOption> {
    let values = |headers: &BTreeMap<String, String>,
                  action: HeaderAppendAction|
     -> Vec<HeaderValueOption> {
        headers
            .iter()
            .filter(|(name, _)| !is_authority(name))
            .map(|(name, value)| HeaderValueOption {
                header: Some(HeaderValue {
                    key: name.clone(),
                    value: value.clone(),
                    ..Default::default()
                }),
                append_action: action as i32,
                ..Default::default()
            })
            .collect()
    };
    let mut all = values(&operations.set, HeaderAppendAction::OverwriteIfExistsOrAdd);
    all.extend(values(&operations.add, HeaderAppendAction::AppendIfExistsOrAdd));
    all
}

/// Where a redirect leads from a listener of this port.
fn redirect(to: &HttpRedirect, listener_port: u16, over_tls: bool) -> RedirectAction {
    RedirectAction {
        host_redirect: to.authority.clone().unwrap_or_default(),
        port_redirect: redirect_port(to, listener_port, over_tls),
        response_code: redirect_code(to.code) as i32,
        scheme_rewrite_specifier: to.scheme.clone().map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: to.path.as_ref().map(|path| match path {
            RedirectPath::Full(path) => PathRewriteSpecifier::PathRedirect(path.clone()),
            RedirectPath::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix.clone()),
        }),
        ..Default::default()
    }
}

/// The port that a redirect names; zero names none, which is what a scheme's own port is, too.
fn redirect_port(to: &HttpRedirect, listener_port: u16, over_tls: bool) -> u32 {
    let port = match to.port {
        Some(RedirectPort::Port(port)) => port,
        Some(RedirectPort::FromRequestPort) => listener_port,
        Some(RedirectPort::FromProtocolDefault) | None => return 0,
    };
    let scheme = to.scheme.as_deref().unwrap_or(if over_tls { "https" } else { "http" });
    if matches!((scheme, port), ("http", 80) | ("https", 443)) { 0 } else { u32::from(port) }
}

/// Envoy knows five; validation lets no other through.
fn redirect_code(code: u16) -> RedirectResponseCode {
    match code {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    }
}

fn direct_response(response: &HttpDirectResponse) -> DirectResponseAction {
    let body = response.body.as_ref().map(|body| DataSource {
        specifier: Some(match body {
            ResponseBody::Text(text) => data_source::Specifier::InlineString(text.clone()),
            ResponseBody::Bytes(bytes) => data_source::Specifier::InlineBytes(bytes.clone()),
        }),
        ..Default::default()
    });
    DirectResponseAction { status: u32::from(response.status), body, ..Default::default() }
}
