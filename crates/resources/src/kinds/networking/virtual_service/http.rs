//! HTTP routes: matches and what is done with a match.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;

use super::http_policy::{CorsPolicy, Fault, HttpRewrite, Mirror, Retries};
use crate::field::{Fields, Names, Reason};
use crate::rules;
use crate::terms::destination::{Destination, check_weights};
use crate::terms::gateway_ref::GatewayRef;
use crate::terms::string_match::{StringMatch, ValueMatch};

/// One HTTP route.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute {
    /// Name, for logs and status.
    pub name: Option<String>,
    /// Any of these matches; empty matches everything.
    pub matches: Vec<HttpMatch>,
    /// What is done with the request.
    pub action: HttpAction,
    /// Changes of the request's path and authority.
    pub rewrite: Option<HttpRewrite>,
    /// Time for the whole, retries included; none where nothing was said.
    pub timeout: Option<Duration>,
    /// Retries; the mesh's default policy where nothing was said.
    pub retries: Option<Retries>,
    /// Faults to inject.
    pub fault: Option<Fault>,
    /// Copies of the request, sent along and not waited for.
    pub mirrors: Vec<Mirror>,
    /// Cross-origin policy.
    pub cors_policy: Option<CorsPolicy>,
    /// Header changes.
    pub headers: Headers,
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum HttpAction {
    /// It goes to one of these, by weight.
    Route(Vec<HttpRouteDestination>),
    /// It is answered with a redirect.
    Redirect(HttpRedirect),
    /// It is answered at once.
    DirectResponse(HttpDirectResponse),
    /// The routes of another VirtualService decide.
    Delegate {
        /// Its namespace; the route's own where none was written.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// What a request must look like: all of it holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpMatch {
    /// Name, appended to the route's.
    pub name: Option<String>,
    /// Path, without its query.
    pub uri: Option<StringMatch>,
    /// Scheme.
    pub scheme: Option<StringMatch>,
    /// Method.
    pub method: Option<StringMatch>,
    /// Authority.
    pub authority: Option<StringMatch>,
    /// Headers, lower case; `@request.auth.claims...` keys match claims of a verified token.
    pub headers: BTreeMap<String, ValueMatch>,
    /// Headers that must not match; a `Present` one must be absent.
    pub without_headers: BTreeMap<String, ValueMatch>,
    /// Query parameters.
    pub query_params: BTreeMap<String, ValueMatch>,
    /// Port of the host that is asked for.
    pub port: Option<u16>,
    /// Labels that the calling workload must have.
    pub source_labels: BTreeMap<String, String>,
    /// Namespace that the calling workload must be in.
    pub source_namespace: Option<String>,
    /// Gateways that this match is for, in place of the VirtualService's.
    pub gateways: Vec<GatewayRef>,
    /// Whether exact and prefix matches of the path ignore case.
    pub ignore_uri_case: bool,
    /// Prefix of the statistics of this route.
    pub stat_prefix: Option<String>,
}

/// A destination with its share of the traffic.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRouteDestination {
    /// Where to.
    pub destination: Destination,
    /// Share, relative to the sum of all; 0 gets nothing unless it is alone.
    pub weight: u32,
    /// Header changes for this destination only.
    pub headers: Headers,
}

/// Header changes of requests and responses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Changes of the request.
    pub request: HeaderOperations,
    /// Changes of the response.
    pub response: HeaderOperations,
}

/// Changes of one message's headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderOperations {
    /// Replace or add.
    pub set: BTreeMap<String, String>,
    /// Append.
    pub add: BTreeMap<String, String>,
    /// Remove.
    pub remove: Vec<String>,
}

/// A redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRedirect {
    /// New path.
    pub path: Option<RedirectPath>,
    /// New authority.
    pub authority: Option<String>,
    /// New port.
    pub port: Option<RedirectPort>,
    /// New scheme.
    pub scheme: Option<String>,
    /// Status: 301 where nothing was said.
    pub code: u16,
}

/// How a redirect changes the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectPath {
    /// The whole path.
    Full(String),
    /// The part that the match's prefix covers.
    Prefix(String),
}

/// The port that a redirect names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedirectPort {
    /// This one.
    Port(u16),
    /// 80 for http, 443 for https.
    FromProtocolDefault,
    /// The request's own.
    FromRequestPort,
}

#[derive(Clone, Copy, PartialEq)]
enum DerivePort {
    ProtocolDefault,
    RequestPort,
}

impl Names for DerivePort {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("FROM_PROTOCOL_DEFAULT", Self::ProtocolDefault),
        ("FROM_REQUEST_PORT", Self::RequestPort),
    ];
}

/// An answer that no upstream gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpDirectResponse {
    /// Status, 200 to 599.
    pub status: u16,
    /// Body.
    pub body: Option<ResponseBody>,
}

/// A body written in configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseBody {
    /// Text.
    Text(String),
    /// Bytes, written in base64.
    Bytes(Vec<u8>),
}

/// Istio's limit of a direct response's body.
const MAX_BODY_BYTES: usize = 1024 * 1024;

impl HttpRoute {
    pub(super) fn read(fields: &mut Fields<'_>, namespace: &str, in_delegate: bool) -> Self {
        let matches = fields.list("match", |fields| HttpMatch::read(fields, namespace));
        let rewrite = fields.object("rewrite", HttpRewrite::read);
        let action = read_action(fields, namespace, in_delegate, &matches);
        Self {
            name: fields.optional_text("name"),
            action,
            rewrite,
            timeout: fields.duration("timeout"),
            retries: fields.object("retries", Retries::read),
            fault: fields.object("fault", Fault::read),
            mirrors: Mirror::read_all(fields),
            cors_policy: fields.object("corsPolicy", CorsPolicy::read),
            headers: Headers::read(fields),
            matches,
        }
    }
}

fn read_action(
    fields: &mut Fields<'_>,
    namespace: &str,
    in_delegate: bool,
    matches: &[HttpMatch],
) -> HttpAction {
    let destinations = fields.list("route", HttpRouteDestination::read);
    let weights: Vec<u32> = destinations.iter().map(|destination| destination.weight).collect();
    check_weights(fields, "route", &weights);
    let redirect = fields.object("redirect", |fields| HttpRedirect::read(fields, matches));
    let response = fields.object("directResponse", HttpDirectResponse::read);
    let delegate = fields.object("delegate", |fields| read_delegate(fields, namespace));
    fields.exactly_one(&["route", "redirect", "directResponse", "delegate"]);
    if fields.has("redirect") || fields.has("directResponse") {
        for field in ["fault", "rewrite"] {
            if fields.has(field) {
                let message =
                    "cannot go with a redirect or direct response, which no upstream sees";
                fields.error_in(field, Reason::Forbidden, message);
            }
        }
    }
    if in_delegate && fields.has("delegate") {
        fields.error_in("delegate", Reason::Forbidden, "a delegate may not delegate further");
    }
    match (redirect, response, delegate) {
        (Some(redirect), _, _) => HttpAction::Redirect(redirect),
        (None, Some(response), _) => HttpAction::DirectResponse(response),
        (None, None, Some(delegate)) => delegate,
        (None, None, None) => HttpAction::Route(destinations),
    }
}

fn read_delegate(fields: &mut Fields<'_>, own: &str) -> HttpAction {
    let name = fields.required_text("name");
    fields.check("name", &name, rules::name::dns_subdomain);
    let namespace = fields.optional_text("namespace").filter(|namespace| !namespace.is_empty());
    fields.check("namespace", namespace.as_deref().unwrap_or_default(), rules::name::dns_label);
    HttpAction::Delegate { namespace: namespace.unwrap_or_else(|| own.to_owned()), name }
}

impl HttpMatch {
    fn read(fields: &mut Fields<'_>, namespace: &str) -> Self {
        let stat_prefix = fields.optional_text("statPrefix");
        Self {
            name: fields.optional_text("name"),
            uri: fields.object("uri", StringMatch::read),
            scheme: fields.object("scheme", StringMatch::read),
            method: fields.object("method", StringMatch::read),
            authority: fields.object("authority", StringMatch::read),
            headers: read_header_matches(fields, "headers"),
            without_headers: read_header_matches(fields, "withoutHeaders"),
            query_params: fields.object_map("queryParams", |_, fields| ValueMatch::read(fields)),
            port: fields.port("port"),
            source_labels: rules::label::read_labels(fields, "sourceLabels"),
            source_namespace: fields
                .optional_text("sourceNamespace")
                .filter(|namespace| !namespace.is_empty()),
            gateways: GatewayRef::read_list(fields, "gateways", namespace),
            ignore_uri_case: fields.flag("ignoreUriCase").unwrap_or_default(),
            stat_prefix,
        }
    }
}

fn read_header_matches(
    fields: &mut Fields<'_>,
    name: &'static str,
) -> BTreeMap<String, ValueMatch> {
    let headers = fields.object_map(name, |_, fields| ValueMatch::read(fields));
    for key in headers.keys() {
        let is_claim = key.starts_with("@request.auth.claims");
        let plain = key.strip_prefix(':').unwrap_or(key);
        if !is_claim && let Err(error) = rules::http::header_name(plain) {
            fields.error_key(name, key, Reason::Invalid, format!("invalid header name: {error}"));
        }
    }
    // Header names match in any case; the data plane compares lower case.
    let lower = |key: String| if key.starts_with('@') { key } else { key.to_ascii_lowercase() };
    headers.into_iter().map(|(key, value)| (lower(key), value)).collect()
}

impl HttpRouteDestination {
    fn read(fields: &mut Fields<'_>) -> Self {
        Self {
            destination: fields
                .required_object("destination", Destination::read)
                .unwrap_or_default(),
            weight: fields.non_negative("weight").unwrap_or_default(),
            headers: Headers::read(fields),
        }
    }
}

impl Headers {
    fn read(fields: &mut Fields<'_>) -> Self {
        let read = fields.object("headers", |fields| Self {
            request: fields
                .object("request", |fields| {
                    HeaderOperations::read(fields, rules::http::request_header_operation)
                })
                .unwrap_or_default(),
            response: fields
                .object("response", |fields| {
                    HeaderOperations::read(fields, rules::http::header_operation)
                })
                .unwrap_or_default(),
        });
        read.unwrap_or_default()
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.request.is_empty() && self.response.is_empty()
    }
}

impl HeaderOperations {
    fn read(fields: &mut Fields<'_>, may_set: fn(&str) -> Result<(), String>) -> Self {
        let mut read = |name, rule: fn(&str) -> Result<(), String>| {
            let headers = fields.text_map(name);
            for (key, value) in &headers {
                if let Err(error) = rule(key).and_then(|()| rules::http::header_value(value)) {
                    fields.error_key(name, key, Reason::Invalid, error);
                }
            }
            headers
        };
        let set = read("set", may_set);
        let add = read("add", may_set);
        Self { set, add, remove: fields.texts_with("remove", rules::http::header_operation) }
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

impl HttpRedirect {
    fn read(fields: &mut Fields<'_>, matches: &[HttpMatch]) -> Self {
        let uri = fields.optional_text("uri").filter(|uri| !uri.is_empty());
        let prefix = fields.optional_text("prefixRewrite").filter(|prefix| !prefix.is_empty());
        let by_prefix = |found: &HttpMatch| matches!(found.uri, Some(StringMatch::Prefix(_)));
        let all_by_prefix = !matches.is_empty() && matches.iter().all(by_prefix);
        if prefix.is_some() && !all_by_prefix {
            let message = "needs every match of this route to have a uri.prefix";
            fields.error_in("prefixRewrite", Reason::Invalid, message);
        }
        fields.at_most_one(&["uri", "prefixRewrite"]);
        fields.at_most_one(&["port", "derivePort"]);
        let port = fields.port("port").map(RedirectPort::Port);
        let derived = fields.choice("derivePort").map(|derive| match derive {
            DerivePort::ProtocolDefault => RedirectPort::FromProtocolDefault,
            DerivePort::RequestPort => RedirectPort::FromRequestPort,
        });
        let authority = fields.optional_text("authority").filter(|authority| !authority.is_empty());
        let scheme = fields.optional_text("scheme").filter(|scheme| !scheme.is_empty());
        if scheme.as_deref().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
            fields.error_in("scheme", Reason::NotSupported, "must be http or https");
        }
        if fields.count(&["uri", "prefixRewrite", "authority", "port", "derivePort", "scheme"]) == 0
        {
            let message =
                "one of uri, prefixRewrite, authority, port, derivePort, scheme is required";
            fields.error(Reason::Required, message);
        }
        let code = fields.integer("redirectCode", 0..=599).filter(|code| *code != 0).unwrap_or(301);
        if !matches!(code, 301 | 302 | 303 | 307 | 308) {
            fields.error_in(
                "redirectCode",
                Reason::NotSupported,
                "must be one of 301, 302, 303, 307, 308",
            );
        }
        let path = uri.map(RedirectPath::Full).or(prefix.map(RedirectPath::Prefix));
        Self { path, authority, port: port.or(derived), scheme, code }
    }
}

impl HttpDirectResponse {
    fn read(fields: &mut Fields<'_>) -> Self {
        if !fields.has("status") {
            fields.require("status");
        }
        let status = fields.integer("status", 200..=599).unwrap_or_default();
        let body = fields.object("body", |body| {
            body.exactly_one(&["string", "bytes"]);
            let text = body.optional_text("string").map(ResponseBody::Text);
            let decode = |text: &str| base64::engine::general_purpose::STANDARD.decode(text);
            let bytes = body.parsed("bytes", decode).map(ResponseBody::Bytes);
            let size = text.as_ref().or(bytes.as_ref()).map_or(0, ResponseBody::len);
            if size > MAX_BODY_BYTES {
                body.error(
                    Reason::Invalid,
                    format!("{size} bytes are more than the limit of {MAX_BODY_BYTES}"),
                );
            }
            text.or(bytes)
        });
        Self { status, body: body.flatten() }
    }
}

impl ResponseBody {
    /// Size in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}
