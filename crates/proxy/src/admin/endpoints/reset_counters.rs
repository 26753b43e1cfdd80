//! `/reset_counters`.

use super::{AdminContext, Endpoint, Query, Reply};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/reset_counters",
    changes: true,
    help: "reset all counters to zero",
    parameters: &[],
    handle,
};

fn handle(context: &AdminContext, _: &Query) -> Reply {
    context.registry.reset_counters();
    Reply::text("OK\n")
}
