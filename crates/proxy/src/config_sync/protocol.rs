//! The two forms of discovery, incremental and state of the world, as a stream uses them.

use std::sync::Arc;

use api::envoy::config::core::v3::Node;
use api::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use xds::client::{ClientError, ResponseId, Update};
use xds::{DeltaClient, Rejection, ResourceType, SotwClient};

use super::service::{delta_path, sotw_path};
use super::sink::ResourceKind;

/// A client's state machine with its messages and its gRPC methods.
pub(super) trait Protocol: Send + 'static {
    /// What the client says.
    type Request: prost::Message + Send + Sync + 'static;
    /// What the server says.
    type Response: prost::Message + Default + Send + Sync + 'static;

    fn new(node: Node) -> Self;
    fn path(only: Option<ResourceKind>) -> &'static str;
    fn subscribe_all(&mut self, kind: ResourceType);
    fn subscribe(&mut self, kind: ResourceType, name: &Arc<str>);
    fn unsubscribe(&mut self, kind: ResourceType, name: &str);
    fn connected(&mut self);
    fn disconnected(&mut self);
    fn receive(&mut self, response: Self::Response) -> Result<Update, ClientError>;
    fn answer(&mut self, id: &ResponseId, rejections: Vec<Rejection>);
    fn poll_request(&mut self) -> Option<Self::Request>;
}

/// Both clients have the same methods; only their messages differ.
macro_rules! protocol {
    ($client:ty, $request:ty, $response:ty, $path:path) => {
        impl Protocol for $client {
            type Request = $request;
            type Response = $response;

            fn new(node: Node) -> Self {
                <$client>::new(node)
            }

            fn path(only: Option<ResourceKind>) -> &'static str {
                $path(only)
            }

            fn subscribe_all(&mut self, kind: ResourceType) {
                <$client>::subscribe_all(self, kind);
            }

            fn subscribe(&mut self, kind: ResourceType, name: &Arc<str>) {
                <$client>::subscribe(self, kind, Arc::clone(name));
            }

            fn unsubscribe(&mut self, kind: ResourceType, name: &str) {
                <$client>::unsubscribe(self, kind, name);
            }

            fn connected(&mut self) {
                <$client>::connected(self);
            }

            fn disconnected(&mut self) {
                <$client>::disconnected(self);
            }

            fn receive(&mut self, response: $response) -> Result<Update, ClientError> {
                <$client>::receive(self, response)
            }

            fn answer(&mut self, id: &ResponseId, rejections: Vec<Rejection>) {
                <$client>::answer(self, id, rejections);
            }

            fn poll_request(&mut self) -> Option<$request> {
                <$client>::poll_request(self)
            }
        }
    };
}

protocol!(DeltaClient, DeltaDiscoveryRequest, DeltaDiscoveryResponse, delta_path);
protocol!(SotwClient, DiscoveryRequest, DiscoveryResponse, sotw_path);
