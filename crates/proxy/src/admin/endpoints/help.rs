//! `/help`: the table in words.

use std::fmt::Write;

use super::{AdminContext, ENDPOINTS, Endpoint, Query, Reply};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/help",
    changes: false,
    help: "print out list of admin commands",
    parameters: &[],
    handle,
};

fn handle(_: &AdminContext, _: &Query) -> Reply {
    Reply::text(text())
}

/// Every endpoint with its parameters, as Envoy lists them.
pub(super) fn text() -> String {
    let lines = ENDPOINTS.iter().map(of);
    std::iter::once("admin commands are:\n".to_owned()).chain(lines).collect()
}

/// One endpoint's lines.
pub(super) fn of(endpoint: &Endpoint) -> String {
    let post = if endpoint.changes { " (POST)" } else { "" };
    let mut text = format!("  {}{post}: {}\n", endpoint.path, endpoint.help);
    for (name, meaning) in endpoint.parameters {
        let _ = writeln!(text, "      {name}: {meaning}");
    }
    text
}
