//! What may be done to a request on its way: rewrites, retries, faults, mirrors, CORS.

use std::time::Duration;

use crate::field::{Fields, Names, Reason};
use crate::rules;
use crate::terms::destination::Destination;
use crate::terms::string_match::{StringMatch, check_regex};

/// Changes of a request's path and authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRewrite {
    /// New path.
    pub path: Option<PathRewrite>,
    /// New authority.
    pub authority: Option<String>,
}

/// How a path is rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// Replaces what the match's prefix covers, or the whole path of an exact match.
    Uri(String),
    /// Replaces what an expression matches; `\1` is its first group.
    Regex {
        /// RE2 expression.
        pattern: String,
        /// Replacement.
        substitution: String,
    },
}

impl HttpRewrite {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        fields.at_most_one(&["uri", "uriRegexRewrite"]);
        if fields.count(&["uri", "uriRegexRewrite", "authority"]) == 0 {
            fields.error(Reason::Required, "one of uri, uriRegexRewrite, authority is required");
        }
        let uri = fields.optional_text("uri").filter(|uri| !uri.is_empty()).map(PathRewrite::Uri);
        let regex = fields.object("uriRegexRewrite", |fields| {
            let pattern = fields.required_text("match");
            fields.check("match", &pattern, check_regex);
            PathRewrite::Regex { pattern, substitution: fields.required_text("rewrite") }
        });
        let authority = fields.optional_text("authority").filter(|authority| !authority.is_empty());
        Self { path: uri.or(regex), authority }
    }
}

/// When and how often a request is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Retries {
    /// Retries after the first try; 0 switches retries off.
    pub attempts: u32,
    /// Time for one try; the route's timeout where nothing was said.
    pub per_try_timeout: Option<Duration>,
    /// What is tried again: Envoy's condition names, and statuses as numbers.
    pub retry_on: Vec<String>,
    /// Whether a retry may leave the locality.
    pub retry_remote_localities: Option<bool>,
    /// Whether a retry avoids hosts that were tried.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Base interval between retries.
    pub backoff: Option<Duration>,
}

/// Envoy's retry conditions, for HTTP and for gRPC.
const RETRY_CONDITIONS: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

impl Retries {
    /// Reads a policy; MeshConfig has one too.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Self {
        let retry_on: Vec<String> = fields
            .text("retryOn")
            .split(',')
            .map(|condition| condition.trim().to_owned())
            .filter(|condition| !condition.is_empty())
            .collect();
        for condition in &retry_on {
            let status = condition.parse::<u16>().is_ok_and(|status| (100..=599).contains(&status));
            if !status && !RETRY_CONDITIONS.contains(&condition.as_str()) {
                let hint = crate::field::did_you_mean(condition, RETRY_CONDITIONS.iter().copied());
                let hint = hint.map(|near| format!(", did you mean {near}?")).unwrap_or_default();
                let message =
                    format!("{condition:?} is no retry condition and no HTTP status{hint}");
                fields.error_in("retryOn", Reason::NotSupported, message);
            }
        }
        let read = Self {
            attempts: fields.non_negative("attempts").unwrap_or_default(),
            per_try_timeout: fields.duration("perTryTimeout"),
            retry_on,
            retry_remote_localities: fields.flag("retryRemoteLocalities"),
            retry_ignore_previous_hosts: fields.flag("retryIgnorePreviousHosts"),
            backoff: fields.duration("backoff"),
        };
        if read.attempts == 0 {
            for field in ["perTryTimeout", "retryOn", "backoff"] {
                if fields.has(field) {
                    fields.error_in(
                        field,
                        Reason::Forbidden,
                        "has no effect while attempts is 0: retries are off",
                    );
                }
            }
        }
        read
    }
}

/// Faults to inject.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Wait before the request goes on.
    pub delay: Option<Delay>,
    /// Answer in place of the upstream.
    pub abort: Option<Abort>,
}

/// An injected wait.
#[derive(Clone, Debug, PartialEq)]
pub struct Delay {
    /// How long.
    pub fixed: Duration,
    /// Share of requests, 0 to 100.
    pub percentage: f64,
}

/// An injected failure.
#[derive(Clone, Debug, PartialEq)]
pub struct Abort {
    /// What the caller sees.
    pub status: AbortStatus,
    /// Share of requests, 0 to 100.
    pub percentage: f64,
}

/// What the caller of an aborted request sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AbortStatus {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status.
    Grpc(u8),
}

/// gRPC statuses by name, in the order of their numbers.
const GRPC_STATUSES: &[&str] = &[
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl Fault {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        if fields.count(&["delay", "abort"]) == 0 {
            fields.error(Reason::Required, "one of delay, abort is required");
        }
        Self {
            delay: fields.object("delay", Delay::read),
            abort: fields.object("abort", Abort::read),
        }
    }
}

impl Delay {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.deprecated("percent", "percentage.value");
        let percent = fields.number("percent", 0.0..=100.0);
        let percentage = read_percentage(fields, "percentage");
        if fields.has("exponentialDelay") {
            fields.duration("exponentialDelay");
            fields.error_in(
                "exponentialDelay",
                Reason::Forbidden,
                "is not supported, use fixedDelay",
            );
        } else if !fields.has("fixedDelay") {
            fields.require("fixedDelay");
        }
        Self {
            fixed: fields.duration("fixedDelay").unwrap_or_default(),
            percentage: percentage.or(percent).unwrap_or(100.0),
        }
    }
}

impl Abort {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.exactly_one(&["httpStatus", "grpcStatus", "http2Error"]);
        if fields.raw("http2Error").is_some() {
            fields.error_in(
                "http2Error",
                Reason::Forbidden,
                "is not supported, use httpStatus or grpcStatus",
            );
        }
        let http = fields.integer("httpStatus", 200..=599).map(AbortStatus::Http);
        let grpc = fields.optional_text("grpcStatus").and_then(|name| {
            let number = GRPC_STATUSES.iter().position(|status| *status == name);
            if number.is_none() {
                let message =
                    format!("unknown value {name:?}: must be one of {}", GRPC_STATUSES.join(", "));
                fields.error_in("grpcStatus", Reason::NotSupported, message);
            }
            Some(AbortStatus::Grpc(u8::try_from(number?).ok()?))
        });
        Self {
            status: http.or(grpc).unwrap_or(AbortStatus::Http(0)),
            percentage: read_percentage(fields, "percentage").unwrap_or(100.0),
        }
    }
}

/// Reads Istio's `Percent`: `{value: 12.5}`.
fn read_percentage(fields: &mut Fields<'_>, name: &'static str) -> Option<f64> {
    fields.object(name, |percent| {
        let value = percent.number("value", 0.0..=100.0).unwrap_or_default();
        if value > 0.0 && value < 0.0001 {
            percent.error_in("value", Reason::Invalid, "must be 0 or at least 0.0001");
        }
        value
    })
}

/// A copy of the request, sent along and not waited for.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Where to.
    pub destination: Destination,
    /// Share of requests, 0 to 100.
    pub percentage: f64,
}

impl Mirror {
    /// Reads `mirrors`, or the older `mirror` with its percentage.
    pub(super) fn read_all(fields: &mut Fields<'_>) -> Vec<Self> {
        fields.at_most_one(&["mirror", "mirrors"]);
        fields.deprecated("mirrorPercent", "mirrorPercentage.value");
        fields.deprecated("mirror_percent", "mirrorPercentage.value");
        let older = fields.integer("mirror_percent", 0..=100u32);
        let old = fields.integer("mirrorPercent", 0..=100u32).or(older);
        let percentage =
            read_percentage(fields, "mirrorPercentage").or(old.map(f64::from)).unwrap_or(100.0);
        let single = fields
            .object("mirror", Destination::read)
            .map(|destination| Self { destination, percentage });
        let mut mirrors = fields.list("mirrors", |mirror| Self {
            destination: mirror
                .required_object("destination", Destination::read)
                .unwrap_or_default(),
            percentage: read_percentage(mirror, "percentage").unwrap_or(100.0),
        });
        mirrors.extend(single);
        mirrors
    }
}

/// Which origins may call from a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsPolicy {
    /// Origins that may.
    pub allow_origins: Vec<StringMatch>,
    /// Methods that may be used.
    pub allow_methods: Vec<String>,
    /// Headers that may be sent.
    pub allow_headers: Vec<String>,
    /// Headers that may be read.
    pub expose_headers: Vec<String>,
    /// How long a preflight's answer holds.
    pub max_age: Option<Duration>,
    /// Whether credentials may be sent.
    pub allow_credentials: Option<bool>,
    /// What is done with a preflight of an origin that may not.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// What is done with a preflight of an origin that may not call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnmatchedPreflights {
    /// It goes to the upstream; also where nothing was said.
    #[default]
    Forward,
    /// It is answered without CORS headers.
    Ignore,
}

impl Names for UnmatchedPreflights {
    const NAMES: &'static [(&'static str, Self)] =
        &[("UNSPECIFIED", Self::Forward), ("FORWARD", Self::Forward), ("IGNORE", Self::Ignore)];
}

impl CorsPolicy {
    pub(super) fn read(fields: &mut Fields<'_>) -> Self {
        fields.deprecated("allowOrigin", "allowOrigins");
        let old = fields.texts("allowOrigin");
        let mut allow_origins = fields.list("allowOrigins", StringMatch::read);
        allow_origins.extend(old.into_iter().map(|origin| match origin.as_str() {
            "*" => StringMatch::Regex(".*".to_owned()),
            _ => StringMatch::Exact(origin),
        }));
        let max_age = fields.duration("maxAge");
        if max_age.is_some_and(|age| age.subsec_nanos() != 0) {
            fields.error_in("maxAge", Reason::Invalid, "must be whole seconds");
        }
        Self {
            allow_origins,
            allow_methods: fields.texts_with("allowMethods", rules::http::method),
            allow_headers: fields.texts_with("allowHeaders", rules::http::header_name),
            expose_headers: fields.texts_with("exposeHeaders", rules::http::header_name),
            max_age,
            allow_credentials: fields.flag("allowCredentials"),
            unmatched_preflights: fields.choice("unmatchedPreflights").unwrap_or_default(),
        }
    }
}
