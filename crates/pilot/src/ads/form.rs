//! The two forms of the discovery protocol, incremental and state of the world, as a stream drives them.

use std::sync::Arc;

use api::envoy::config::core::v3::Node;
use api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use api::google::rpc::Status;
use xds::server::{RequestError, RequestOutcome};
use xds::sotw::{SotwOutcome, SotwServer};
use xds::wire::{DeltaResponse, SotwResponse};
use xds::{DeltaServer, Rejection, ResourceSource, ResourceType, SharedTables};

/// One form of the protocol, with the state of one stream.
pub trait Form: Send + Sync + 'static {
    /// What clients send.
    type Request: prost::Message + Default + 'static;
    /// What they are sent.
    type Response: prost::Message + Default + 'static;
    /// The method's name.
    const METHOD: &'static str;

    /// A stream on which nothing has been said, beside others whose knowledge is in `tables`.
    fn begin(tables: &SharedTables) -> Self;

    /// A request's parts that mean the same in both forms.
    fn parts(request: &Self::Request) -> Parts<'_>;

    /// Takes a request in, and says what of an earlier response it rejects.
    fn take(&mut self, request: Self::Request) -> Result<Option<Rejected>, RequestError>;

    /// A resource may have changed.
    fn changed(&mut self, kind: ResourceType, name: &Arc<str>);

    /// Anything of a type may have changed.
    fn changed_all(&mut self, kind: ResourceType);

    /// The next response, if there is anything to say.
    fn next(&mut self, source: &mut dyn ResourceSource) -> Option<Self::Response>;

    /// A response of no resources.
    fn empty_response(type_url: &str) -> Self::Response;

    /// The type of a response, and the bytes of its resources.
    fn weight(response: &Self::Response) -> (Option<ResourceType>, usize);

    /// How far the client is with a type; `None` if it never asked for it.
    fn progress(&self, kind: ResourceType) -> Option<Progress>;

    /// Whether everything that the client may have was answered.
    fn is_settled(&self) -> bool;
}

/// What a request is about.
pub struct Parts<'a> {
    /// Who sends it; only on a stream's first request.
    pub node: Option<&'a Node>,
    /// The type.
    pub type_url: &'a str,
    /// Why a response is not taken.
    pub error: Option<&'a Status>,
}

/// What a client rejected of a response.
pub struct Rejected {
    /// The response's type.
    pub kind: ResourceType,
    /// Its resources.
    pub resources: Vec<Rejection>,
}

/// How far a client is with one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Whether it has accepted all of it.
    pub synced: bool,
    /// How many resources it holds.
    pub resources: usize,
    /// How many it rejected in their present version.
    pub rejected: usize,
}

impl Form for DeltaServer {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaResponse;
    const METHOD: &'static str = "DeltaAggregatedResources";

    fn begin(tables: &SharedTables) -> DeltaServer {
        DeltaServer::sharing(tables)
    }

    fn parts(request: &Self::Request) -> Parts<'_> {
        Parts {
            node: request.node.as_ref(),
            type_url: &request.type_url,
            error: request.error_detail.as_ref(),
        }
    }

    fn take(&mut self, request: Self::Request) -> Result<Option<Rejected>, RequestError> {
        Ok(match self.on_request(request)? {
            RequestOutcome::Rejected(answered, resources) => {
                Some(Rejected { kind: answered.kind, resources })
            }
            RequestOutcome::Subscribed(_) | RequestOutcome::Accepted(_) => None,
        })
    }

    fn changed(&mut self, kind: ResourceType, name: &Arc<str>) {
        DeltaServer::changed(self, kind, name);
    }

    fn changed_all(&mut self, kind: ResourceType) {
        DeltaServer::changed_all(self, kind);
    }

    fn next(&mut self, source: &mut dyn ResourceSource) -> Option<DeltaResponse> {
        self.next_response(source)
    }

    fn empty_response(type_url: &str) -> DeltaResponse {
        DeltaResponse { type_url: type_url.to_owned(), ..Default::default() }
    }

    fn weight(response: &DeltaResponse) -> (Option<ResourceType>, usize) {
        let bytes = response.resources.iter().map(bytes::Bytes::len).sum();
        (ResourceType::from_type_url(&response.type_url), bytes)
    }

    fn progress(&self, kind: ResourceType) -> Option<Progress> {
        let synced = self.is_type_synced(kind)?;
        let (resources, rejected) = (self.held_count(kind), self.rejected_count(kind));
        Some(Progress { synced, resources, rejected })
    }

    fn is_settled(&self) -> bool {
        DeltaServer::is_settled(self)
    }
}

impl Form for SotwServer {
    type Request = DiscoveryRequest;
    type Response = SotwResponse;
    const METHOD: &'static str = "StreamAggregatedResources";

    fn begin(_: &SharedTables) -> SotwServer {
        SotwServer::new()
    }

    fn parts(request: &Self::Request) -> Parts<'_> {
        Parts {
            node: request.node.as_ref(),
            type_url: &request.type_url,
            error: request.error_detail.as_ref(),
        }
    }

    fn take(&mut self, request: Self::Request) -> Result<Option<Rejected>, RequestError> {
        Ok(match self.on_request(request)? {
            SotwOutcome::Rejected(kind, _) => {
                Some(Rejected { kind, resources: self.rejections(kind).to_vec() })
            }
            SotwOutcome::Subscribed(_) | SotwOutcome::Accepted(_) | SotwOutcome::Stale(_) => None,
        })
    }

    fn changed(&mut self, kind: ResourceType, _: &Arc<str>) {
        SotwServer::changed(self, kind);
    }

    fn changed_all(&mut self, kind: ResourceType) {
        SotwServer::changed(self, kind);
    }

    fn next(&mut self, source: &mut dyn ResourceSource) -> Option<SotwResponse> {
        self.next_response(source)
    }

    fn empty_response(type_url: &str) -> SotwResponse {
        SotwResponse { type_url: type_url.to_owned(), ..Default::default() }
    }

    fn weight(response: &SotwResponse) -> (Option<ResourceType>, usize) {
        let bytes = response.resources.iter().map(bytes::Bytes::len).sum();
        (ResourceType::from_type_url(&response.type_url), bytes)
    }

    fn progress(&self, kind: ResourceType) -> Option<Progress> {
        let synced = self.is_type_synced(kind)?;
        let (resources, rejected) = (self.sent_count(kind), self.rejections(kind).len());
        Some(Progress { synced, resources, rejected })
    }

    fn is_settled(&self) -> bool {
        SotwServer::is_settled(self)
    }
}
