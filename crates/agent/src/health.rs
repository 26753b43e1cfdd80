//! Whether the workload should get requests, as the control plane hears it.

use std::net::SocketAddr;
use std::time::Duration;

use api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use api::google::rpc::Status;
use prost::Message;
use tokio::net::TcpStream;

/// The type under which health travels on the discovery stream, as in Istio.
pub const HEALTH_TYPE_URL: &str = "type.googleapis.com/istio.v1.HealthInformation";

/// gRPC's CANCELLED: the workload is about to stop, and its endpoint should go at once.
const LEAVING: i32 = 1;
/// gRPC's UNAVAILABLE: the workload is here and cannot take requests.
const UNHEALTHY: i32 = 14;

/// How long the application may take to accept a connection.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// A workload's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It takes requests.
    Healthy,
    /// It does not, for this reason.
    Unhealthy(String),
    /// It is about to stop.
    Leaving,
}

impl Health {
    /// The message that says so on an incremental stream.
    pub(crate) fn delta_request(&self) -> Vec<u8> {
        let request = DeltaDiscoveryRequest {
            type_url: HEALTH_TYPE_URL.to_owned(),
            error_detail: self.error_detail(),
            ..DeltaDiscoveryRequest::default()
        };
        request.encode_to_vec()
    }

    /// The message that says so on a state-of-the-world stream.
    pub(crate) fn sotw_request(&self) -> Vec<u8> {
        let request = DiscoveryRequest {
            type_url: HEALTH_TYPE_URL.to_owned(),
            error_detail: self.error_detail(),
            ..DiscoveryRequest::default()
        };
        request.encode_to_vec()
    }

    fn error_detail(&self) -> Option<Status> {
        let status = |code, message: &str| {
            Some(Status { code, message: message.to_owned(), details: Vec::new() })
        };
        match self {
            Health::Healthy => None,
            Health::Unhealthy(reason) => status(UNHEALTHY, reason),
            Health::Leaving => status(LEAVING, "leaving"),
        }
    }
}

/// Whether something accepts connections there.
pub async fn accepts(address: SocketAddr) -> bool {
    matches!(tokio::time::timeout(PROBE_TIMEOUT, TcpStream::connect(address)).await, Ok(Ok(_)))
}
