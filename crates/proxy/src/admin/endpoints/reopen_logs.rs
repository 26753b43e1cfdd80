//! `/reopen_logs`: after log rotation.

use super::{AdminContext, Endpoint, Query, Reply};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/reopen_logs",
    changes: true,
    help: "reopen access logs",
    parameters: &[],
    handle,
};

fn handle(context: &AdminContext, _: &Query) -> Reply {
    context.sinks.reopen();
    Reply::text("OK\n")
}
