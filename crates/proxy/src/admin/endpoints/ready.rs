//! `/ready`: whether traffic should come.

use super::super::ServerState;
use super::{AdminContext, Endpoint, Query, Reply};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/ready",
    changes: false,
    help: "print server state, return 200 if LIVE, otherwise return 503",
    parameters: &[],
    handle,
};

fn handle(context: &AdminContext, _: &Query) -> Reply {
    let state = context.state.state();
    let status = if state == ServerState::Live { 200 } else { 503 };
    Reply::error(status, format!("{}\n", state.as_str()))
}
