//! `/runtime`: there are no runtime layers yet (a bootstrap with `layered_runtime` is refused).

use serde_json::json;

use super::{AdminContext, Endpoint, Query, Reply};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/runtime",
    changes: false,
    help: "print runtime values",
    parameters: &[],
    handle,
};

fn handle(_: &AdminContext, _: &Query) -> Reply {
    Reply::json(&json!({"entries": {}, "layers": []}))
}
