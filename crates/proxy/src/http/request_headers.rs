//! Step 8: a request's head is made safe before anything reads it.
//!
//! In Envoy's order: what cannot be served is refused; the path is normalised; the host is trimmed; fields of the connection
//! go; who the client is is found from `x-forwarded-for`; what only trusted callers may say is removed from what others say;
//! the request gets its id; what the client's certificate says is told. Filters, routes and upstreams all see this one head.

mod client_address;
mod client_cert;
mod connection_fields;
mod path;
mod request_id;

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use codec::headers::{HeaderName, Method, NameSet, RequestHead, ResponseHead, Version, names};
use telemetry::stats::Counter;
use telemetry::stats::sets::HttpConnManager;

use super::config::{
    ClientAddress, ForwardClientCert, HostNormalization, Http1Options, HttpConnectionManager,
    PathNormalization, RequestIdOptions, UnderscoreAction, UserAgent,
};
use crate::route_table::port_start;
use crate::stream_info::{ConnectionInfo, ResponseFlags};
use crate::worker::random::Random;

pub use request_id::write_uuid;

/// What a connection manager's configuration says of heads.
#[derive(Clone, Copy, Debug)]
pub struct HeadRules<'a> {
    /// HTTP/1.0 and its missing hosts.
    pub http1: &'a Http1Options,
    /// Field names with `_`.
    pub underscores: UnderscoreAction,
    /// Who the client is.
    pub client_address: &'a ClientAddress,
    /// How paths are made safe.
    pub path: &'a PathNormalization,
    /// What is cut from hosts.
    pub host: &'a HostNormalization,
    /// `x-request-id`.
    pub request_id: &'a RequestIdOptions,
    /// `x-forwarded-client-cert`.
    pub client_cert: &'a ForwardClientCert,
    /// Added to `via`, if not empty.
    pub via: &'a str,
    /// `add_user_agent`.
    pub user_agent: Option<&'a UserAgent>,
    /// The route table's `internal_only_headers`.
    pub internal_only: &'a [HeaderName],
}

impl<'a> HeadRules<'a> {
    /// The rules of a connection manager.
    pub fn new(
        config: &'a HttpConnectionManager,
        internal_only: &'a [HeaderName],
    ) -> HeadRules<'a> {
        HeadRules {
            http1: &config.http1,
            underscores: config.limits.headers_with_underscores,
            client_address: &config.client_address,
            path: &config.path,
            host: &config.host,
            request_id: &config.request_id,
            client_cert: &config.client_cert,
            via: &config.via,
            user_agent: config.user_agent.as_ref(),
            internal_only,
        }
    }
}

/// Who sent a request, as far as it can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The client's address, if it is not the connection's.
    pub address: Option<IpAddr>,
    /// It comes from within: it may say what others may not.
    pub is_internal: bool,
    /// It comes from the client itself, not from a proxy of ours.
    pub is_edge: bool,
}

/// Why a request is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The answer's status.
    pub status: u16,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
    /// The answer's body; mostly empty.
    pub body: &'static str,
    /// The answer's `location`.
    pub location: Option<Vec<u8>>,
    /// Close the connection after the answer.
    pub close: bool,
}

impl Rejection {
    /// Where Envoy counts rejections of this kind, if it does so apart from others.
    pub fn statistic(&self) -> Option<Counter<HttpConnManager>> {
        match self.details {
            "path_normalization_failed" => {
                Some(HttpConnManager::DOWNSTREAM_RQ_FAILED_PATH_NORMALIZATION)
            }
            "path_normalized" => {
                Some(HttpConnManager::DOWNSTREAM_RQ_REDIRECTED_WITH_NORMALIZED_PATH)
            }
            "absolute_path_rejected" => Some(HttpConnManager::DOWNSTREAM_RQ_NON_RELATIVE_PATH),
            _ => None,
        }
    }

    /// What Envoy's codec refuses, and not its connection manager, is a breach of the protocol.
    pub fn flags(&self) -> ResponseFlags {
        match self.details {
            "low_version" | "http1.unexpected_underscore" => {
                ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR
            }
            _ => ResponseFlags::default(),
        }
    }

    const fn new(status: u16, details: &'static str) -> Rejection {
        Rejection { status, details, body: "", location: None, close: false }
    }

    /// Whoever sends such things is not listened to any more.
    const fn bad_request(details: &'static str, body: &'static str) -> Rejection {
        Rejection { status: 400, details, body, location: None, close: true }
    }
}

/// Makes a request's head safe.
///
/// # Errors
/// What to answer, if it cannot be.
pub fn sanitise(
    head: &mut RequestHead,
    rules: HeadRules<'_>,
    connection: &ConnectionInfo,
    random: &mut Random,
) -> Result<Caller, Rejection> {
    check_version_and_host(head, rules.http1)?;
    apply_underscore_rule(head, rules.underscores)?;
    check_path(head)?;
    path::normalise(head, rules.path)?;
    trim_host(head, rules.host, connection);
    connection_fields::remove(head)?;
    let caller = client_address::find(head, rules.client_address, connection);
    remove_what_only_trusted_may_say(head, caller, rules.internal_only);
    if !rules.via.is_empty() {
        head.fields.append_to(names::VIA, b", ", rules.via.as_bytes());
    }
    if let Some(user_agent) = rules.user_agent {
        tell_node(head, user_agent);
    }
    tell_caller(head, caller, connection);
    request_id::set(head, rules.request_id, caller.is_edge, random);
    client_cert::forward(head, rules.client_cert, connection.tls.as_deref());
    Ok(caller)
}

/// Finishes the head of a response on its way to the client: `request` is the one that it answers.
pub fn finish_response(head: &mut ResponseHead, request: &RequestHead, rules: HeadRules<'_>) {
    const OF_THE_CONNECTION: NameSet = NameSet::of(&[
        names::CONNECTION,
        names::KEEP_ALIVE,
        names::PROXY_CONNECTION,
        names::TRANSFER_ENCODING,
    ]);

    head.fields.remove_any(OF_THE_CONNECTION);
    if head.status != 101 {
        head.fields.remove(names::UPGRADE);
    }
    if rules.request_id.always_set_in_response
        && let Some(id) = request.fields.get(names::X_REQUEST_ID)
    {
        head.fields.set(names::X_REQUEST_ID, id);
    }
    if !rules.via.is_empty() {
        head.fields.append_to(names::VIA, b", ", rules.via.as_bytes());
    }
}

/// Tells the upstream which proxy this is, and a request without a user agent that the proxy's cluster is it.
fn tell_node(head: &mut RequestHead, user_agent: &UserAgent) {
    let cluster = user_agent.cluster.as_bytes();
    head.fields.set(names::X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER, cluster);
    if head.fields.get(names::USER_AGENT).is_none_or(<[u8]>::is_empty) {
        head.fields.set(names::USER_AGENT, cluster);
    }
    if !user_agent.node.is_empty() {
        head.fields.set(names::X_ENVOY_DOWNSTREAM_SERVICE_NODE, user_agent.node.as_bytes());
    }
}

fn check_version_and_host(head: &mut RequestHead, http1: &Http1Options) -> Result<(), Rejection> {
    const LOW_VERSION: Rejection = Rejection {
        status: 426,
        details: "low_version",
        body: "Upgrade Required",
        location: None,
        close: true,
    };

    if head.version == Version::Http10 {
        if !http1.accept_http_10 {
            return Err(LOW_VERSION);
        }
        if head.authority().is_empty() {
            head.set_authority(http1.default_host_for_http_10.as_bytes());
        }
    }
    if head.authority().is_empty() {
        return Err(Rejection::bad_request("missing_host_header", ""));
    }
    Ok(())
}

fn apply_underscore_rule(
    head: &mut RequestHead,
    action: UnderscoreAction,
) -> Result<(), Rejection> {
    let has_underscore = |name: &[u8]| name.contains(&b'_');
    match action {
        UnderscoreAction::Allow => {}
        UnderscoreAction::RejectRequest => {
            if head.fields.iter().any(|(name, _)| has_underscore(name)) {
                return Err(Rejection::bad_request("http1.unexpected_underscore", "Bad Request"));
            }
        }
        UnderscoreAction::DropHeader => {
            head.fields.retain(|name, _| !has_underscore(name.as_bytes()))
        }
    }
    Ok(())
}

/// Only CONNECT comes without a path, and paths begin with a slash.
fn check_path(head: &RequestHead) -> Result<(), Rejection> {
    match head.path() {
        [] if head.method_kind() == Method::Connect => Ok(()),
        [] => Err(Rejection::new(404, "missing_path_rejected")),
        [b'/', ..] => Ok(()),
        _ => Err(Rejection::new(404, "absolute_path_rejected")),
    }
}

/// Cuts a trailing dot and a port. The port of a CONNECT is what it is about.
fn trim_host(head: &mut RequestHead, rules: &HostNormalization, connection: &ConnectionInfo) {
    if !(rules.strip_trailing_dot || rules.strip_any_port || rules.strip_matching_port) {
        return;
    }
    let authority = head.authority();
    let (host, port) = authority.split_at(port_start(authority));
    let trimmed =
        if rules.strip_trailing_dot { host.strip_suffix(b".").unwrap_or(host) } else { host };
    let number = port.strip_prefix(b":").and_then(|digits| std::str::from_utf8(digits).ok());
    // As Envoy: what is no number is no port, whatever its size.
    let number: Option<u32> = number.and_then(|digits| digits.parse().ok());
    let listens_on = connection.local_address.map(|address| u32::from(address.port()));
    let cuts_port = number.is_some()
        && head.method_kind() != Method::Connect
        && (rules.strip_any_port || rules.strip_matching_port && number == listens_on);
    if !cuts_port && trimmed.len() == host.len() {
        return;
    }
    let kept_port: &[u8] = if cuts_port { b"" } else { port };
    let host = [trimmed, kept_port].concat();
    head.set_authority(&host);
}

/// Envoy's lists: what an edge client may not say, and what no external caller may.
fn remove_what_only_trusted_may_say(
    head: &mut RequestHead,
    caller: Caller,
    internal_only: &[HeaderName],
) {
    const NOT_FROM_THE_EDGE: NameSet = NameSet::of(&[
        names::X_ENVOY_DECORATOR_OPERATION,
        names::X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER,
        names::X_ENVOY_DOWNSTREAM_SERVICE_NODE,
        names::X_ENVOY_ORIGINAL_PATH,
        names::X_ENVOY_ORIGINAL_HOST,
    ]);
    const FROM_WITHIN_ONLY: NameSet = NameSet::of(&[
        names::X_ENVOY_RETRIABLE_STATUS_CODES,
        names::X_ENVOY_RETRIABLE_HEADER_NAMES,
        names::X_ENVOY_RETRY_ON,
        names::X_ENVOY_RETRY_GRPC_ON,
        names::X_ENVOY_MAX_RETRIES,
        names::X_ENVOY_UPSTREAM_ALT_STAT_NAME,
        names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_MS,
        names::X_ENVOY_UPSTREAM_RQ_PER_TRY_TIMEOUT_MS,
        names::X_ENVOY_UPSTREAM_RQ_TIMEOUT_ALT_RESPONSE,
        names::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS,
        names::X_ENVOY_FORCE_TRACE,
        names::X_ENVOY_IP_TAGS,
        names::X_ENVOY_ORIGINAL_URL,
        names::X_ENVOY_HEDGE_ON_PER_TRY_TIMEOUT,
    ]);

    // Whoever says it of itself, it is ours to say.
    head.fields.remove(names::X_ENVOY_INTERNAL);
    if caller.is_internal {
        return;
    }
    if caller.is_edge {
        head.fields.remove_any(NOT_FROM_THE_EDGE);
    }
    head.fields.remove_any(FROM_WITHIN_ONLY);
    for name in internal_only {
        head.fields.remove(name);
    }
}

/// `x-envoy-internal` and `x-envoy-external-address`.
fn tell_caller(head: &mut RequestHead, caller: Caller, connection: &ConnectionInfo) {
    if caller.is_internal {
        head.fields.set(names::X_ENVOY_INTERNAL, b"true");
    }
    let address = caller.address.or_else(|| connection.remote_address.map(|address| address.ip()));
    if caller.is_edge
        && let Some(address) = address
    {
        head.fields
            .set_with(names::X_ENVOY_EXTERNAL_ADDRESS, |out| client_address::write(address, out));
    }
}
