//! HAProxy configured for the same duty: one thread, connections to upstream kept and shared, no logs.

use super::{Hop, Shape};

pub fn render(hop: &Hop<'_>) -> String {
    let upstream = if hop.setting.shape == Shape::Grpc { " proto h2" } else { "" };
    let servers: String = (hop.upstreams.iter().enumerate())
        .map(|(n, address)| format!("    server s{n} {address}{upstream} pool-max-conn 1000\n"))
        .collect();
    format!(
        "global\n    nbthread 1\n    maxconn 4000\n    tune.h2.max-concurrent-streams 250\n\
         defaults\n    mode http\n    http-reuse always\n    timeout connect 5s\n    timeout client 3600s\n    timeout server 3600s\n\
         frontend entrance\n    bind {} proto h2\n    default_backend backend\n\
         backend backend\n{servers}",
        hop.listen
    )
}
