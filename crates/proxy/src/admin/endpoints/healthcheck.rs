//! `/healthcheck/fail` and `/healthcheck/ok`.

use super::{AdminContext, Endpoint, Query, Reply};

pub(super) const FAIL: Endpoint = Endpoint {
    path: "/healthcheck/fail",
    changes: true,
    help: "cause the server to fail health checks",
    parameters: &[],
    handle: |context, _| answer(context, true),
};

pub(super) const OK: Endpoint = Endpoint {
    path: "/healthcheck/ok",
    changes: true,
    help: "cause the server to pass health checks",
    parameters: &[],
    handle: |context, _: &Query| answer(context, false),
};

fn answer(context: &AdminContext, fail: bool) -> Reply {
    context.state.fail_health_checks(fail);
    Reply::text("OK\n")
}
