//! Route tables, and the virtual hosts that they are built from.

use std::sync::Arc;

use api::envoy::config::route::v3 as proto;

use super::compile::Compile;
use super::routes;
use crate::route_table::{RouteTable, VirtualHost};

/// Compiles a table that stands in a connection manager's own configuration.
pub fn inline(
    cx: &mut Compile<'_>,
    message: &proto::RouteConfiguration,
) -> Option<Arc<RouteTable>> {
    let before = cx.problems.len();
    let (config, settings) = routes::table(cx, message);
    let hosts = cx.each("virtual_hosts", &message.virtual_hosts, |cx, host| {
        let config = routes::virtual_host(cx, host, &settings)?;
        compile_host(cx, config)
    });
    if cx.problems.len() > before {
        return None;
    }
    RouteTable::new(config, hosts).map(Arc::new).map_err(|error| cx.problem(error.to_string())).ok()
}

/// Compiles one virtual host for the table.
pub fn compile_host(
    cx: &mut Compile<'_>,
    config: crate::route_table::config::VirtualHostConfig,
) -> Option<Arc<VirtualHost>> {
    VirtualHost::compile(config)
        .map_err(|error| match error.route {
            Some(route) => cx.problem_at(&format!("routes[{route}]"), error.reason.to_string()),
            None => cx.problem(error.reason.to_string()),
        })
        .ok()
}
