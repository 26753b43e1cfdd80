//! `/init_dump`: `admin.v3.UnreadyTargetsDumps`: what is configured and does not serve yet.

use serde_json::{Value, json};

use super::{AdminContext, Endpoint, Query, Reply};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/init_dump",
    changes: false,
    help: "dump what is configured and does not serve yet",
    parameters: &[(
        "mask",
        "The desired component to dump unready targets: `listener` or `cluster`",
    )],
    handle,
};

fn handle(context: &AdminContext, query: &Query) -> Reply {
    let wanted = |kind: &str| match query.get("mask") {
        None | Some("") => true,
        Some(mask) => kind.to_ascii_lowercase().contains(&mask.to_ascii_lowercase()),
    };
    let unready = context.state.unready().into_iter().filter(|(kind, _)| wanted(kind));
    let dumps: Vec<Value> =
        unready.map(|(kind, names)| json!({"name": kind, "target_names": names})).collect();
    if dumps.is_empty() {
        return Reply::json(&json!({}));
    }
    Reply::json(&json!({"unready_targets_dumps": dumps}))
}
