//! The endpoints: one row, one file.

pub mod certs;
mod clusters;
mod config_dump;
mod drain_listeners;
mod healthcheck;
mod help;
mod home;
mod hot_restart_version;
mod init_dump;
mod listeners;
mod logging;
pub mod memory;
mod quitquitquit;
mod ready;
mod reopen_logs;
mod reset_counters;
mod runtime;
mod server_info;
mod stats;

use super::AdminContext;
use super::request::{Method, Query, Reply};

/// One endpoint.
pub(super) struct Endpoint {
    /// Its path.
    pub path: &'static str,
    /// It changes something: POST only.
    pub changes: bool,
    /// What it does, in a line.
    pub help: &'static str,
    /// Its parameters and what each does.
    pub parameters: &'static [(&'static str, &'static str)],
    /// Answers a request.
    pub handle: fn(&AdminContext, &Query) -> Reply,
}

/// All endpoints, by path.
pub(super) const ENDPOINTS: &[Endpoint] = &[
    home::ENDPOINT,
    certs::ENDPOINT,
    clusters::ENDPOINT,
    config_dump::ENDPOINT,
    drain_listeners::ENDPOINT,
    healthcheck::FAIL,
    healthcheck::OK,
    help::ENDPOINT,
    hot_restart_version::ENDPOINT,
    init_dump::ENDPOINT,
    listeners::ENDPOINT,
    logging::ENDPOINT,
    memory::ENDPOINT,
    quitquitquit::ENDPOINT,
    ready::ENDPOINT,
    reopen_logs::ENDPOINT,
    reset_counters::ENDPOINT,
    runtime::ENDPOINT,
    server_info::ENDPOINT,
    stats::TEXT,
    stats::PROMETHEUS,
];

/// Finds the endpoint and lets it answer.
pub(super) fn dispatch(
    context: &AdminContext,
    method: Method,
    verb: &str,
    path: &str,
    query: &Query,
) -> Reply {
    let Some(endpoint) = ENDPOINTS.iter().find(|endpoint| endpoint.path == path) else {
        return Reply::error(404, format!("invalid path. {}", help::text()));
    };
    if endpoint.changes && method == Method::Read {
        return Reply::error(405, format!("Method {verb} not allowed, POST required."));
    }
    // `/logging?<name>=<level>` has parameters of any name.
    let open = endpoint.path == logging::ENDPOINT.path;
    if let Some(unknown) = query.unknown(endpoint.parameters).find(|_| !open) {
        return Reply::error(400, format!("unknown parameter `{unknown}`\n{}", help::of(endpoint)));
    }
    (endpoint.handle)(context, query)
}

/// A regular expression that matches anywhere, or the answer that says why it is none.
fn regex(pattern: &str) -> Result<regex_automata::meta::Regex, Reply> {
    regex_automata::meta::Regex::new(pattern).map_err(|error| {
        // The last line of a syntax error says what is wrong; those before it draw a picture.
        let syntax = error.syntax_error().map(ToString::to_string);
        let why = syntax.unwrap_or_else(|| error.to_string());
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Reply::error(400, format!("Invalid re2 regex: {why}: {pattern}\n"))
    })
}

/// One of the admin's JSON shapes for an address (`core.v3.Address`).
fn address_json(address: &crate::listener::config::ListenAddress) -> serde_json::Value {
    use crate::listener::config::ListenAddress;
    match address {
        ListenAddress::Tcp(socket) => serde_json::json!({
            "socket_address": {"address": socket.ip().to_string(), "port_value": socket.port()}
        }),
        ListenAddress::Pipe(path) => {
            serde_json::json!({"pipe": {"path": path.display().to_string()}})
        }
    }
}
