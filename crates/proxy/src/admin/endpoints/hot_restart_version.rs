//! `/hot_restart_version`: there is no hot restart.

use super::{AdminContext, Endpoint, Query, Reply};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/hot_restart_version",
    changes: false,
    help: "print the hot restart compatibility version",
    parameters: &[],
    handle,
};

fn handle(_: &AdminContext, _: &Query) -> Reply {
    Reply::text("disabled\n")
}
