//! The whole-process tests, in one binary so that they link once.

mod applications;
mod bookinfo;
mod bootstrap;
mod documentation;
mod drain;
mod file_config;
mod formats;
mod grpc;
mod grpc_answers;
mod grpc_mesh;
mod h2_frames;
mod h2_h2spec;
mod h2_hostile;
mod h2_hostile_upstream;
mod h2_inputs;
mod health_checks;
mod http1_beside_envoy;
mod http1_inputs;
mod mesh_faults;
mod mesh_http;
mod mesh_security;
mod proxy_smoke;
mod proxyless_grpc;
mod routes_and_filters;
mod statistics;
mod strangers;
mod tls;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Meshes hand out the same loopback addresses and fill two cores: one after the other.
fn one_mesh_at_a_time() -> MutexGuard<'static, ()> {
    static MESH: Mutex<()> = Mutex::new(());
    MESH.lock().unwrap_or_else(PoisonError::into_inner)
}
