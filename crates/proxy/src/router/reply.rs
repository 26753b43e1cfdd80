//! What the client hears when there is no response to pass on: Envoy's statuses, bodies, details and flags.

use super::{Overdue, ResetReason};
use crate::filter_manager::LocalReply;
use crate::http::grpc;
use crate::route_table::DirectResponse;
use crate::stream_info::ResponseFlags;

/// No route matched.
pub fn no_route() -> LocalReply {
    LocalReply {
        status: 404,
        details: "route_not_found",
        flags: ResponseFlags::NO_ROUTE_FOUND,
        ..LocalReply::default()
    }
}

/// Details of an upgrade that nobody allows.
pub const UPGRADE_FAILED: &str = "upgrade_failed";

/// An upgrade that nobody allows.
pub fn upgrade_refused() -> LocalReply {
    LocalReply { status: 403, details: UPGRADE_FAILED, ..LocalReply::default() }
}

/// A route that redirects.
pub fn redirect(status: u16, location: &[u8]) -> LocalReply {
    let location = String::from_utf8_lossy(location).into_owned();
    LocalReply {
        status,
        headers: vec![("location".into(), location.into())],
        details: "direct_response",
        ..LocalReply::default()
    }
}

/// A route that answers.
pub fn direct_response(direct: &DirectResponse) -> LocalReply {
    LocalReply {
        status: direct.status,
        body: String::from_utf8_lossy(&direct.body).into_owned().into(),
        details: "direct_response",
        ..LocalReply::default()
    }
}

/// The route's cluster is not there.
pub fn no_cluster(status: u16) -> LocalReply {
    LocalReply {
        status,
        details: "cluster_not_found",
        flags: ResponseFlags::NO_CLUSTER_FOUND,
        ..LocalReply::default()
    }
}

/// The cluster has no host to choose.
pub fn no_healthy_upstream() -> LocalReply {
    LocalReply {
        status: 503,
        body: "no healthy upstream".into(),
        details: "no_healthy_upstream",
        flags: ResponseFlags::NO_HEALTHY_UPSTREAM,
        ..LocalReply::default()
    }
}

/// The response did not come in time. With `alternative` the client has asked for a 204 in that case.
pub fn timeout(overdue: Overdue, alternative: bool) -> LocalReply {
    let details = match overdue {
        Overdue::Response => "response_timeout",
        Overdue::Attempt => "upstream_per_try_timeout",
        Overdue::AttemptIdle => "upstream_per_try_idle_timeout",
    };
    LocalReply {
        status: if alternative { 204 } else { 504 },
        body: if alternative { "".into() } else { "upstream request timeout".into() },
        details,
        flags: ResponseFlags::UPSTREAM_REQUEST_TIMEOUT,
        ..LocalReply::default()
    }
}

/// The stream has taken longer than any may; `request_done` says whether the client is the one who is waited for.
pub fn stream_too_long(request_done: bool) -> LocalReply {
    LocalReply {
        status: if request_done { 504 } else { 408 },
        body: "downstream duration timeout".into(),
        details: "max_duration_timeout",
        grpc_status: Some(grpc::DEADLINE_EXCEEDED),
        ..LocalReply::default()
    }
}

/// The flag of a failure.
pub fn flags_of(reason: ResetReason) -> ResponseFlags {
    match reason {
        ResetReason::ConnectionFailure | ResetReason::ConnectionTimeout => {
            ResponseFlags::UPSTREAM_CONNECTION_FAILURE
        }
        ResetReason::ConnectionTermination => ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
        ResetReason::Remote | ResetReason::Refused => ResponseFlags::UPSTREAM_REMOTE_RESET,
        ResetReason::Protocol => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
        ResetReason::Overflow => ResponseFlags::UPSTREAM_OVERFLOW,
    }
}

/// `%RESPONSE_CODE_DETAILS%` of a response that its host did not finish.
pub fn cut_short(reason: ResetReason) -> &'static str {
    match reason {
        ResetReason::Remote => "upstream_reset_after_response_started{remote_reset}",
        ResetReason::Refused => {
            "upstream_reset_after_response_started{remote_refused_stream_reset}"
        }
        ResetReason::Protocol => "upstream_reset_after_response_started{protocol_error}",
        ResetReason::ConnectionFailure
        | ResetReason::ConnectionTimeout
        | ResetReason::ConnectionTermination
        | ResetReason::Overflow => "upstream_reset_after_response_started{connection_termination}",
    }
}

/// The attempt failed before a response, and no other will be made.
/// `attempts` says how many there were.
pub fn upstream_failure(reason: ResetReason, transport: Option<&str>, attempts: u32) -> LocalReply {
    let (text, details) = match reason {
        ResetReason::ConnectionFailure => (
            "remote connection failure",
            "upstream_reset_before_response_started{remote_connection_failure}",
        ),
        ResetReason::ConnectionTimeout => {
            ("connection timeout", "upstream_reset_before_response_started{connection_timeout}")
        }
        ResetReason::ConnectionTermination => (
            "connection termination",
            "upstream_reset_before_response_started{connection_termination}",
        ),
        ResetReason::Remote => {
            ("remote reset", "upstream_reset_before_response_started{remote_reset}")
        }
        ResetReason::Refused => (
            "remote refused stream reset",
            "upstream_reset_before_response_started{remote_refused_stream_reset}",
        ),
        ResetReason::Protocol => {
            ("protocol error", "upstream_reset_before_response_started{protocol_error}")
        }
        ResetReason::Overflow => ("overflow", "upstream_reset_before_response_started{overflow}"),
    };
    let retried = if attempts > 1 { "retried and the latest " } else { "" };
    let mut body = format!(
        "upstream connect error or disconnect/reset before headers. {retried}reset reason: {text}"
    );
    if let Some(transport) = transport {
        body.push_str(", transport failure reason: ");
        body.push_str(transport);
    }
    let status = if reason == ResetReason::Protocol { 502 } else { 503 };
    let mut headers = Vec::new();
    if reason == ResetReason::Overflow {
        headers.push(("x-envoy-overloaded".into(), "true".into()));
    }
    LocalReply {
        status,
        body: body.into(),
        headers,
        details,
        flags: flags_of(reason),
        ..LocalReply::default()
    }
}
