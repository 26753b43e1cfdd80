//! `/quitquitquit`: ends the process in order.

use super::{AdminContext, Endpoint, Query, Reply};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/quitquitquit",
    changes: true,
    help: "exit the server",
    parameters: &[],
    handle,
};

fn handle(context: &AdminContext, _: &Query) -> Reply {
    context.state.quit();
    Reply::text("OK\n")
}
