//! Everything Envoy calls an extension, and Istio's filters: one feature, one file, one row in its folder's table.
//!
//! * [`filters::http`]: HTTP filters
//! * [`filters::network`]: what watches L4 connections
//! * [`grpc`]: what the filters about gRPC share
//! * [`block_cache`]: statistics named by what requests say
//! * [`istio`]: what Istio's filters share: workloads, labels and the series they name

pub mod block_cache;
pub mod filters;
pub mod grpc;
pub mod istio;

use proxy::snapshot::registry::Extensions;

/// Every extension of this crate, for the binary to pass in.
pub fn extensions() -> Extensions {
    Extensions::new()
        .with_http_filters(filters::http::ROWS)
        .with_route_filters(filters::http::ROUTE_ROWS)
        .with_connection_observers(filters::network::ROWS)
}
