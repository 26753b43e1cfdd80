//! `envoy.filters.http.cors`: answers preflight requests and tells browsers who may read an answer (Fetch §3.2). Its
//! policy is the route's.

use std::any::Any;
use std::sync::Arc;

use api::envoy::config::core::v3::RuntimeFractionalPercent;
use api::envoy::extensions::filters::http::cors::v3 as proto;
use api::text::Problem;
use codec::headers::{Method, RequestHead, names};
use prost::Message;
use proxy::filter_manager::{
    FilterContext, HeadersStatus, HttpFilter, HttpFilterFactory, LocalReply, Phases, WorkerContext,
};
use proxy::route_table::config::Fraction;
use proxy::snapshot::registry::CompileContext;
use proxy::snapshot::values;
use proxy::string_matcher::StringMatcher;
use telemetry::stats::{Block, Scope};

telemetry::stat_set! {
    /// `http.<prefix>.cors.*`.
    struct Origins {
        ORIGIN_VALID = counter "cors.origin_valid",
        ORIGIN_INVALID = counter "cors.origin_invalid",
    }
}

#[derive(Debug)]
struct Factory(Block<Origins>);

/// One stream.
struct Cors {
    stats: Block<Origins>,
    /// The origin of a request that the route's policy allows.
    origin: Vec<u8>,
    is_cors: bool,
}

/// A route's policy.
#[derive(Debug)]
struct Policy {
    origins: Vec<StringMatcher>,
    methods: Box<[u8]>,
    headers: Box<[u8]>,
    expose: Box<[u8]>,
    max_age: Box<[u8]>,
    credentials: bool,
    private_network: bool,
    /// A preflight request from an origin that is not allowed goes on to the upstream; else it is answered here.
    forwards_preflights: bool,
    enabled: Fraction,
    /// Requests that are only counted.
    shadow: Fraction,
}

/// Takes an encoded `Cors`, which says nothing.
pub(super) fn compile(
    _: &[u8],
    cx: &CompileContext<'_>,
) -> Result<Arc<dyn HttpFilterFactory>, Vec<Problem>> {
    Ok(Arc::new(Factory(cx.registry.block(&Scope::http(cx.stat_prefix)))))
}

/// Reads an encoded `CorsPolicy`.
pub(super) fn compile_policy(
    bytes: &[u8],
    _: &CompileContext<'_>,
) -> Result<Arc<dyn Any + Send + Sync>, Vec<Problem>> {
    let one = |path: &str, message: String| vec![Problem::new(path, message)];
    let config = proto::CorsPolicy::decode(bytes).map_err(|error| one("", error.to_string()))?;
    let mut origins = Vec::new();
    for (index, matcher) in config.allow_origin_string_match.iter().enumerate() {
        let path = format!("allow_origin_string_match[{index}]");
        let compiled =
            values::read_string_matcher(matcher).map_err(|problem| vec![problem.under(&path)])?;
        origins.push(compiled);
    }
    let text = |text: &str| text.as_bytes().into();
    let wanted = |value: Option<api::google::protobuf::BoolValue>| value.is_some_and(|it| it.value);
    Ok(Arc::new(Policy {
        origins,
        methods: text(&config.allow_methods),
        headers: text(&config.allow_headers),
        expose: text(&config.expose_headers),
        max_age: text(&config.max_age),
        credentials: wanted(config.allow_credentials),
        private_network: wanted(config.allow_private_network_access),
        forwards_preflights: config.forward_not_matching_preflights.is_none_or(|it| it.value),
        enabled: fraction(config.filter_enabled.as_ref(), 100),
        shadow: fraction(config.shadow_enabled.as_ref(), 0),
    }))
}

/// A fraction, in percent where it is not given.
pub(super) fn fraction(value: Option<&RuntimeFractionalPercent>, default: u32) -> Fraction {
    match value.and_then(|value| value.default_value.as_ref()) {
        Some(percent) => values::fraction(percent),
        None => Fraction { numerator: default, denominator: 100 },
    }
}

impl Policy {
    fn allows(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|matcher| matcher.matches(b"*") || matcher.matches(origin))
    }

    /// What a preflight request hears.
    fn answer(&self, origin: &[u8], request: &RequestHead) -> LocalReply {
        let mut headers: Vec<(Box<str>, Box<str>)> = Vec::new();
        let mut add = |name: &str, value: &[u8]| {
            if !value.is_empty() {
                headers.push((name.into(), String::from_utf8_lossy(value).into()));
            }
        };
        add("access-control-allow-origin", origin);
        if self.credentials {
            add("access-control-allow-credentials", b"true");
        }
        add("access-control-allow-methods", &self.methods);
        add("access-control-allow-headers", &self.headers);
        add("access-control-max-age", &self.max_age);
        let asked = request.get("access-control-request-private-network");
        if self.private_network && asked == Some(b"true") {
            add("access-control-allow-private-network", b"true");
        }
        LocalReply { status: 200, headers, details: "cors_response", ..LocalReply::default() }
    }
}

fn is_preflight(request: &RequestHead) -> bool {
    request.method_kind() == Method::Options
        && request.get("access-control-request-method").is_some_and(|asked| !asked.is_empty())
}

impl HttpFilterFactory for Factory {
    fn create(&self, _: &WorkerContext) -> Box<dyn HttpFilter> {
        Box::new(Cors { stats: self.0.clone(), origin: Vec::new(), is_cors: false })
    }

    fn phases(&self) -> Phases {
        Phases::HEADERS
    }
}

impl HttpFilter for Cors {
    fn decode_headers(&mut self, cx: &mut FilterContext<'_>, _: bool) -> HeadersStatus {
        let Some(policy) = cx.route_config::<Policy>() else { return HeadersStatus::Continue };
        let draw = || rand::random::<u64>();
        let is_enabled = policy.enabled.admits(draw());
        if !is_enabled && !policy.shadow.admits(draw()) {
            return HeadersStatus::Continue;
        }
        let Some(origin) = cx.request.get(names::ORIGIN).filter(|origin| !origin.is_empty()) else {
            return HeadersStatus::Continue;
        };
        if !policy.allows(origin) {
            cx.worker.recorder.inc(&self.stats, Origins::ORIGIN_INVALID);
            if is_enabled && is_preflight(cx.request) && !policy.forwards_preflights {
                cx.send_local_reply(LocalReply {
                    status: 200,
                    details: "cors_response",
                    ..LocalReply::default()
                });
                return HeadersStatus::StopIteration;
            }
            return HeadersStatus::Continue;
        }
        cx.worker.recorder.inc(&self.stats, Origins::ORIGIN_VALID);
        if !is_enabled {
            return HeadersStatus::Continue;
        }
        self.is_cors = true;
        self.origin.extend_from_slice(origin);
        if !is_preflight(cx.request) {
            return HeadersStatus::Continue;
        }
        let answer = policy.answer(&self.origin, cx.request);
        cx.send_local_reply(answer);
        HeadersStatus::StopIteration
    }

    fn encode_headers(&mut self, cx: &mut FilterContext<'_>, _: bool) -> HeadersStatus {
        if !self.is_cors {
            return HeadersStatus::Continue;
        }
        let Some(route) = &cx.info.route else { return HeadersStatus::Continue };
        let Some(policy) = route.filter_overrides().get::<Policy>(cx.name) else {
            return HeadersStatus::Continue;
        };
        let fields = &mut cx.response.fields;
        fields.set("access-control-allow-origin", &self.origin);
        if policy.credentials {
            fields.set("access-control-allow-credentials", b"true");
        }
        if !policy.expose.is_empty() {
            fields.set("access-control-expose-headers", &policy.expose);
        }
        HeadersStatus::Continue
    }

    fn reset(&mut self) {
        self.origin.clear();
        self.is_cors = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(origins: &[&str]) -> Policy {
        use api::envoy::r#type::matcher::v3::StringMatcher as Matcher;
        use api::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
        let config = proto::CorsPolicy {
            allow_origin_string_match: origins
                .iter()
                .map(|origin| Matcher {
                    match_pattern: Some(match origin.strip_suffix("...") {
                        Some(prefix) => MatchPattern::Prefix(prefix.to_owned()),
                        None => MatchPattern::Exact((*origin).to_owned()),
                    }),
                    ..Matcher::default()
                })
                .collect(),
            allow_methods: "GET,PUT".to_owned(),
            max_age: "60".to_owned(),
            allow_credentials: Some(api::google::protobuf::BoolValue { value: true }),
            ..proto::CorsPolicy::default()
        };
        let registry = telemetry::stats::Registry::new();
        let node = proxy::snapshot::node::NodeInfo::default();
        let cx = CompileContext {
            registry: &registry,
            node: &node,
            direction: proxy::listener::config::TrafficDirection::Unspecified,
            stat_prefix: "",
        };
        let compiled = compile_policy(&config.encode_to_vec(), &cx).unwrap();
        Arc::into_inner(compiled.downcast::<Policy>().unwrap()).unwrap()
    }

    #[test]
    fn origins_are_allowed_by_any_matcher() {
        let listed = policy(&["https://a.example", "https://b..."]);
        assert!(listed.allows(b"https://a.example"));
        assert!(listed.allows(b"https://b.example"));
        assert!(!listed.allows(b"https://c.example"));
        assert!(policy(&["*"]).allows(b"https://anything"));
        assert!(!policy(&[]).allows(b"https://a.example"));
    }

    #[test]
    fn a_preflight_request_hears_the_policy() {
        let mut request = RequestHead::new();
        request.set_method(b"OPTIONS");
        assert!(!is_preflight(&request));
        request.fields.append("access-control-request-method", b"PUT");
        assert!(is_preflight(&request));
        let answer = policy(&["*"]).answer(b"https://a.example", &request);
        let headers: Vec<_> =
            answer.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        assert_eq!(
            headers,
            [
                "access-control-allow-origin: https://a.example",
                "access-control-allow-credentials: true",
                "access-control-allow-methods: GET,PUT",
                "access-control-max-age: 60",
            ]
        );
    }
}
