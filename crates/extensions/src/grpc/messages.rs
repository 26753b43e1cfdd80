//! Messages of a gRPC call, as `envoy.filters.http.grpc_stats` leaves them in the stream's state for other filters.

/// Messages that have begun, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrpcMessages {
    /// From the client.
    pub requests: u64,
    /// From the server.
    pub responses: u64,
}
