//! `/drain_listeners`.

use super::super::DrainRequest;
use super::{AdminContext, Endpoint, Query, Reply};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/drain_listeners",
    changes: true,
    help: "drain listeners",
    parameters: &[
        (
            "graceful",
            "When draining listeners, enter a graceful drain period prior to closing listeners. This behaviour and \
             duration is configurable via server options or CLI",
        ),
        (
            "skip_exit",
            "When draining listeners, drain the connections but never stop the listeners. It needs graceful",
        ),
        ("inboundonly", "Drains all inbound listeners, as the listener's traffic_direction says"),
    ],
    handle,
};

fn handle(context: &AdminContext, query: &Query) -> Reply {
    let request = DrainRequest {
        graceful: query.has("graceful"),
        inbound_only: query.has("inboundonly"),
        skip_exit: query.has("skip_exit"),
    };
    if request.skip_exit && !request.graceful {
        return Reply::error(400, "skip_exit requires graceful\n");
    }
    context.state.drain_listeners(request);
    Reply::text("OK\n")
}
