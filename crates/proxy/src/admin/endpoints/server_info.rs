//! `/server_info`: `admin.v3.ServerInfo`.

use api::schema::Schema;
use serde_json::{Value, json};

use super::{AdminContext, Endpoint, Query, Reply};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/server_info",
    changes: false,
    help: "print server version/status information",
    parameters: &[],
    handle,
};

fn handle(context: &AdminContext, _: &Query) -> Reply {
    let node = node(context, &Schema::new());
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

/// This proxy as it introduces itself.
pub(super) fn node(context: &AdminContext, schema: &Schema) -> Value {
    let message = schema.message("envoy.config.core.v3.Node");
    message
        .map_or(Value::Null, |message| api::dump::to_json(schema, message, &context.state.node()))
}
