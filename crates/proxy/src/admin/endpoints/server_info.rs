//! `/server_info`: `admin.v3.ServerInfo`.

use serde_json::json;

use super::{AdminContext, Endpoint, Query, Reply};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/server_info",
    changes: false,
    help: "print server version/status information",
    parameters: &[],
    handle,
};

fn handle(context: &AdminContext, _: &Query) -> Reply {
    let schema = api::schema::Schema::new();
    let node = schema
        .message("envoy.config.core.v3.Node")
        .map(|message| api::dump::to_json(&schema, message, &context.state.node()));
    let uptime = format!("{}s", context.started.elapsed().as_secs());
    Reply::json(&json!({
        "version": context.state.version(),
        "state": context.state.state().as_str(),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": context.state.command_line_options(),
        "node": node,
    }))
}
