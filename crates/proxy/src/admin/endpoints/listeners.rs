//! `/listeners`: `admin.v3.Listeners`.

use serde_json::{Value, json};

use super::super::ListenerStatus;
use super::{AdminContext, Endpoint, Query, Reply, address_json};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/listeners",
    changes: false,
    help: "print listener info",
    parameters: &[("format", "File format to use; One of (text, json)")],
    handle,
};

fn handle(context: &AdminContext, query: &Query) -> Reply {
    let mut listeners = context.state.listeners();
    listeners.sort_by(|a, b| a.name.cmp(&b.name));
    match query.get("format") {
        None | Some("text") => Reply::text(listeners.iter().map(line).collect::<String>()),
        Some("json") => Reply::json(
            &json!({"listener_statuses": listeners.iter().map(status).collect::<Vec<_>>()}),
        ),
        Some(_) => Reply::error(400, "usage: /listeners?format=(text|json)\n"),
    }
}

fn line(listener: &ListenerStatus) -> String {
    let line = |address: &_| format!("{}::{address}\n", listener.name);
    listener.addresses.iter().map(line).collect()
}

fn status(listener: &ListenerStatus) -> Value {
    let mut addresses = listener.addresses.iter().map(address_json);
    let mut status = json!({"name": &*listener.name, "local_address": addresses.next()});
    let more: Vec<Value> = addresses.collect();
    if !more.is_empty() {
        status["additional_local_addresses"] = more.into();
    }
    status
}
