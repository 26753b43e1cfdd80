//! One proxy's delta stream: requests in, the newest resources out.

pub mod authenticate;
pub mod node;
pub mod service;

use std::sync::Arc;

use api::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use node::NodeError;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use xds::server::RequestOutcome;
use xds::wire::DeltaResponse;
use xds::{DeltaServer, ResourceType};

use crate::plane::Plane;
use crate::proxy::{Peer, Proxy};
use crate::push::{Client, Dirty, Source};
use crate::registration::Registered;

/// By which an agent says whether its workload is healthy.
pub const HEALTH_TYPE_URL: &str = "type.googleapis.com/istio.v1.HealthInformation";
/// The code of a health report that says good-bye (`CANCELLED`).
const LEAVING_CODE: i32 = 1;
/// Responses that may wait for a slow proxy. More are not made: what changes meanwhile is one response later.
pub const RESPONSES_IN_FLIGHT: usize = 4;

/// One stream, from its first request to its end.
pub struct Stream {
    plane: Arc<Plane>,
    peer: Option<Peer>,
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaResponse, Status>>,
}

impl Stream {
    /// A stream of whom the credential names; `None` on the plaintext port.
    pub fn new(
        plane: Arc<Plane>,
        peer: Option<Peer>,
        requests: Streaming<DeltaDiscoveryRequest>,
        responses: mpsc::Sender<Result<DeltaResponse, Status>>,
    ) -> Stream {
        Stream { plane, peer, requests, responses }
    }

    /// Serves until either side ends. What is wrong with a stream ends that stream, and the client hears why.
    pub async fn serve(mut self) {
        if let Err(status) = self.run().await {
            tracing::info!(peer = ?self.peer, %status, "a stream ended");
            let _ = self.responses.send(Err(status)).await;
        }
    }

    async fn run(&mut self) -> Result<(), Status> {
        if !self.plane.wait_until_ready().await {
            return Err(stopping());
        }
        let Some(first) = self.requests.message().await? else { return Ok(()) };
        let node = first.node.as_ref().ok_or_else(|| invalid(NodeError::Missing))?;
        let mut proxy = node::read(node, self.peer.as_ref()).map_err(invalid)?;
        let registered = self.register(&mut proxy).await?;
        let client = self.plane.connect(proxy, self.peer.as_ref()).await;
        tracing::info!(id = client.proxy.id, peer = ?self.peer, "a proxy connected");
        let mut session = Session {
            plane: &self.plane,
            client: &client,
            registered: registered.as_ref(),
            responses: &self.responses,
            server: DeltaServer::new(),
            left: false,
        };
        let result = session.run(first, &mut self.requests).await;
        let left = session.left;
        self.plane.disconnect(client.id);
        if let Some(registered) = registered.filter(|_| !left) {
            self.plane.registrations.lose(registered);
        }
        result
    }

    /// Joins the group that the node names; its labels are the workload's from then on. One that names none may be in
    /// the registry all the same.
    async fn register(&self, proxy: &mut Proxy) -> Result<Option<Registered>, Status> {
        let Some(group) = proxy.auto_register_group.clone() else {
            self.plane.identify(proxy);
            return Ok(None);
        };
        let registered = self
            .plane
            .registrations
            .register(proxy, self.peer.as_ref(), &group)
            .await
            .map_err(|error| Status::permission_denied(error.to_string()))?;
        proxy.labels = Arc::new(registered.labels.clone());
        proxy.is_registered = true;
        Ok(Some(registered))
    }
}

fn stopping() -> Status {
    Status::unavailable("the control plane is shutting down")
}

fn invalid(error: NodeError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// A stream whose proxy is known.
struct Session<'a> {
    plane: &'a Plane,
    client: &'a Client,
    registered: Option<&'a Registered>,
    responses: &'a mpsc::Sender<Result<DeltaResponse, Status>>,
    server: DeltaServer,
    /// Whether the workload said good-bye.
    left: bool,
}

impl Session<'_> {
    async fn run(
        &mut self,
        first: DeltaDiscoveryRequest,
        requests: &mut Streaming<DeltaDiscoveryRequest>,
    ) -> Result<(), Status> {
        self.take(first).await?;
        loop {
            self.respond().await?;
            tokio::select! {
                request = requests.message() => match request? {
                    Some(request) => self.take(request).await?,
                    None => return Ok(()),
                },
                () = self.client.changed() => self.mark(self.client.take_dirty())?,
                () = self.plane.stopping() => {
                    return Err(stopping());
                }
            }
        }
    }

    async fn take(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        if request.type_url == HEALTH_TYPE_URL {
            return self.take_health(&request).await;
        }
        let outcome = self
            .server
            .on_request(request)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if let RequestOutcome::Rejected(answered, rejections) = &outcome {
            self.plane.counters.rejected(answered.kind);
            for rejection in rejections {
                tracing::warn!(
                    id = self.client.proxy.id, kind = %answered.kind, ?rejection, "a proxy rejected a resource"
                );
            }
            self.plane.board.rejected(self.client.id, answered.kind, rejections);
        }
        self.plane.board.progress(self.client.id, &self.server);
        Ok(())
    }

    async fn take_health(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), Status> {
        let Some(registered) = self.registered else { return Ok(()) };
        let unwell = request.error_detail.as_ref();
        if unwell.is_some_and(|status| status.code == LEAVING_CODE) {
            self.left = true;
            self.plane.registrations.leave(registered).await;
            self.plane.wait_until_gone(&registered.entry).await;
            let done = DeltaResponse { type_url: HEALTH_TYPE_URL.to_owned(), ..Default::default() };
            return self.send(done).await;
        }
        if let Err(error) =
            self.plane.registrations.report_health(registered, unwell.is_none()).await
        {
            tracing::warn!(entry = %registered.entry, %error, "cannot note a workload's health");
        }
        Ok(())
    }

    fn mark(&mut self, dirty: Dirty) -> Result<(), Status> {
        if dirty.retired {
            return Err(Status::unavailable("the registry knows this workload now: connect again"));
        }
        if dirty.everything {
            ResourceType::ALL.into_iter().for_each(|kind| self.server.changed_all(kind));
        }
        for kind in ResourceType::ALL {
            for name in dirty.names[kind as usize].iter().flat_map(|list| list.iter()) {
                self.server.changed(kind, name);
            }
        }
        Ok(())
    }

    async fn respond(&mut self) -> Result<(), Status> {
        let mut sent = false;
        while let Some(response) = self.server.next_response(&mut Source(self.client)) {
            let kind = ResourceType::from_type_url(&response.type_url);
            let bytes: usize = response.resources.iter().map(bytes::Bytes::len).sum();
            self.plane.counters.pushed(kind, bytes);
            self.send(response).await?;
            sent = true;
        }
        if sent {
            self.plane.board.progress(self.client.id, &self.server);
        }
        Ok(())
    }

    async fn send(&self, response: DeltaResponse) -> Result<(), Status> {
        self.responses.send(Ok(response)).await.map_err(|_| Status::cancelled("the client is gone"))
    }
}
