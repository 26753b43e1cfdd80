//! The relay for aggregated discovery: the engine speaks to the agent's socket without credentials, the agent speaks to
//! the control plane with the workload's. Messages pass unread, except that
//!
//! * the node on the first one gets the application's present ports,
//! * the workload's health goes in between, as a message of its own, and answers to it stop here.
//!
//! One stream up for each stream down; when one ends, so does the other, and the engine, which knows what it holds, comes
//! again.

use std::sync::Arc;

use api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::{Request, Response, Status, Streaming};

use crate::app_ports::AppPorts;
use crate::certificates::{WorkloadCertificate, bearer};
use crate::control_plane::{ControlPlane, with_causes};
use crate::credential::TokenSource;
use crate::health::{HEALTH_TYPE_URL, Health};
use crate::raw_codec::RawCodec;
use crate::secrets::Responses;

/// How many requests may wait for the control plane to read; further ones wait in the engine.
const PENDING_REQUESTS: usize = 64;

/// The two forms of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Delta,
    Sotw,
}

impl Protocol {
    pub(crate) fn path(self) -> &'static str {
        match self {
            Protocol::Delta => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
            }
            Protocol::Sotw => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
            }
        }
    }

    fn health(self, health: &Health) -> Bytes {
        match self {
            Protocol::Delta => health.delta_request(),
            Protocol::Sotw => health.sotw_request(),
        }
        .into()
    }

    /// The first message of a stream, with the application's ports in its node.
    fn with_app_ports(self, message: Bytes, ports: &AppPorts) -> Result<Bytes, Status> {
        let malformed =
            |error: prost::DecodeError| Status::invalid_argument(format!("first request: {error}"));
        match self {
            Protocol::Delta => {
                let mut request = DeltaDiscoveryRequest::decode(message).map_err(malformed)?;
                request.node.iter_mut().for_each(|node| ports.write_to(node));
                Ok(request.encode_to_vec().into())
            }
            Protocol::Sotw => {
                let mut request = DiscoveryRequest::decode(message).map_err(malformed)?;
                request.node.iter_mut().for_each(|node| ports.write_to(node));
                Ok(request.encode_to_vec().into())
            }
        }
    }
}

/// What every relayed stream needs.
#[derive(Clone)]
pub(crate) struct Relay {
    pub(crate) control_plane: ControlPlane,
    pub(crate) tokens: Arc<dyn TokenSource>,
    pub(crate) certificate: watch::Receiver<Option<Arc<WorkloadCertificate>>>,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) app_ports: watch::Receiver<AppPorts>,
    pub(crate) state: watch::Sender<RelayState>,
}

/// What the relay has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayState {
    /// How many streams are open to the control plane.
    pub streams: usize,
    /// The control plane has taken the workload out.
    pub left: bool,
    /// Why the last attempt failed; `None` while a stream is open.
    pub last_error: Option<String>,
}

impl Relay {
    /// Relays one stream; returns when the control plane has accepted it.
    pub(crate) async fn serve(
        self,
        protocol: Protocol,
        requests: Request<Streaming<Bytes>>,
    ) -> Result<Response<Responses<Bytes>>, Status> {
        let opened = self.open(protocol, requests.into_inner()).await;
        if let Err(status) = &opened {
            tracing::debug!(code = ?status.code(), message = %status.message(), "no discovery stream to the control plane");
            self.state.send_modify(|state| state.last_error = Some(status.message().to_owned()));
        }
        let responses = opened?;
        let counted = Counted::new(self.state.clone());
        let state = self.state;
        let responses = responses.filter(move |response| {
            let _until_the_stream_ends = &counted;
            let about_health = response.as_ref().is_ok_and(is_about_health);
            if about_health {
                state.send_modify(|state| state.left = true);
            }
            !about_health
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn open(
        &self,
        protocol: Protocol,
        requests: Streaming<Bytes>,
    ) -> Result<Streaming<Bytes>, Status> {
        let certificate = self.certificate.borrow().clone();
        let valid =
            certificate.filter(|certificate| certificate.not_after > std::time::SystemTime::now());
        let presented = valid.as_ref().map(|certificate| &certificate.tls);
        let unavailable = |error: &dyn std::error::Error| Status::unavailable(with_causes(error));
        let channel =
            self.control_plane.connect(presented).await.map_err(|error| unavailable(&error))?;

        let (up, outgoing) = mpsc::channel(PENDING_REQUESTS);
        let mut request = Request::new(ReceiverStream::new(outgoing));
        if presented.is_none() {
            let token = self
                .tokens
                .token()
                .await
                .map_err(|error| Status::unauthenticated(error.to_string()))?;
            bearer(&mut request, &token)
                .map_err(|error| Status::unauthenticated(error.to_string()))?;
        }
        // The control plane may not answer before it knows who asks, so requests flow before its answer comes.
        tokio::spawn(self.clone().pump(protocol, requests, up));
        let mut grpc = Grpc::new(channel).max_decoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| unavailable(&error))?;
        let path = PathAndQuery::from_static(protocol.path());
        Ok(grpc.streaming(request, path, RawCodec).await?.into_inner())
    }

    /// Carries requests up, the workload's health among them, until either side ends. What ends it ends the stream up, and
    /// with it the stream down.
    async fn pump(
        mut self,
        protocol: Protocol,
        mut requests: Streaming<Bytes>,
        up: mpsc::Sender<Bytes>,
    ) {
        let Ok(Some(first)) = requests.message().await else { return };
        let ports = self.app_ports.borrow_and_update().clone();
        let Ok(first) = protocol.with_app_ports(first, &ports) else { return };
        let health = self.health.borrow_and_update().clone();
        for message in [first, protocol.health(&health)] {
            if up.send(message).await.is_err() {
                return;
            }
        }
        loop {
            let message = tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => request,
                    _ => return,
                },
                Ok(()) = self.health.changed() => protocol.health(&self.health.borrow_and_update().clone()),
                // A node is named once a stream: other ports need another stream.
                Ok(()) = self.app_ports.changed() => return,
                () = up.closed() => return,
            };
            if up.send(message).await.is_err() {
                return;
            }
        }
    }
}

/// Counts a stream while it is open.
struct Counted(watch::Sender<RelayState>);

impl Counted {
    fn new(state: watch::Sender<RelayState>) -> Counted {
        state.send_modify(|state| {
            state.streams += 1;
            state.last_error = None;
        });
        Counted(state)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|state| state.streams -= 1);
    }
}

/// The type of a discovery response of either form, without reading its resources.
#[derive(Clone, PartialEq, prost::Message)]
struct ResponseType {
    #[prost(string, tag = "4")]
    type_url: String,
}

fn is_about_health(response: &Bytes) -> bool {
    ResponseType::decode(response.clone())
        .is_ok_and(|response| response.type_url == HEALTH_TYPE_URL)
}

#[cfg(test)]
mod tests {
    use api::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse, Resource};

    use super::*;

    #[test]
    fn answers_about_health_are_told_from_the_rest_in_both_forms() {
        let delta = |type_url: &str| {
            let resources = vec![Resource { name: HEALTH_TYPE_URL.into(), ..Resource::default() }];
            let type_url = type_url.to_owned();
            DeltaDiscoveryResponse { resources, type_url, ..Default::default() }
                .encode_to_vec()
                .into()
        };
        let sotw = |type_url: &str| {
            DiscoveryResponse { type_url: type_url.to_owned(), ..Default::default() }
                .encode_to_vec()
                .into()
        };
        assert!(is_about_health(&delta(HEALTH_TYPE_URL)));
        assert!(is_about_health(&sotw(HEALTH_TYPE_URL)));
        assert!(!is_about_health(&delta("type.googleapis.com/envoy.config.cluster.v3.Cluster")));
        assert!(!is_about_health(&sotw("type.googleapis.com/envoy.config.cluster.v3.Cluster")));
        assert!(!is_about_health(&Bytes::from_static(b"\xff\xff")));
    }
}
