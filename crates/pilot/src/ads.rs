//! One proxy's stream, in either form of the protocol: requests in, the newest resources out.

pub mod authenticate;
pub mod form;
mod framing;
pub mod node;
pub mod service;

use std::sync::Arc;

use api::google::rpc::Status as RpcStatus;
use form::Form;
use node::NodeError;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use xds::ResourceType;

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
pub struct Stream<F: Form> {
    plane: Arc<Plane>,
    peer: Option<Peer>,
    requests: Streaming<F::Request>,
    responses: mpsc::Sender<Result<F::Response, Status>>,
}

impl<F: Form> Stream<F> {
    /// A stream of whom the credential names; `None` on the plaintext port.
    pub fn new(
        plane: Arc<Plane>,
        peer: Option<Peer>,
        requests: Streaming<F::Request>,
        responses: mpsc::Sender<Result<F::Response, Status>>,
    ) -> Stream<F> {
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
        let node = F::parts(&first).node.ok_or_else(|| invalid(NodeError::Missing))?;
        let mut proxy = node::read(node, self.peer.as_ref()).map_err(invalid)?;
        let registered = self.register(&mut proxy).await?;
        let client = self.plane.connect(proxy, self.peer.as_ref()).await;
        tracing::info!(id = client.proxy.id, peer = ?self.peer, "a proxy connected");
        let mut session = Session::<F> {
            plane: &self.plane,
            client: &client,
            registered: registered.as_ref(),
            responses: &self.responses,
            server: F::begin(&self.plane.tables),
            number: client.told(),
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
struct Session<'a, F: Form> {
    plane: &'a Plane,
    client: &'a Client,
    registered: Option<&'a Registered>,
    responses: &'a mpsc::Sender<Result<F::Response, Status>>,
    server: F,
    /// The context that the server knows of.
    number: u64,
    /// Whether the workload said good-bye.
    left: bool,
}

impl<F: Form> Session<'_, F> {
    async fn run(
        &mut self,
        first: F::Request,
        requests: &mut Streaming<F::Request>,
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

    async fn take(&mut self, request: F::Request) -> Result<(), Status> {
        let parts = F::parts(&request);
        if parts.type_url == HEALTH_TYPE_URL {
            return self.take_health(parts.error).await;
        }
        let rejected = self
            .server
            .take(request)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if let Some(rejected) = rejected {
            let kind = rejected.kind;
            self.plane.counters.rejected(kind);
            for rejection in &rejected.resources {
                tracing::warn!(
                    id = self.client.proxy.id, %kind, ?rejection, "a proxy rejected a resource"
                );
            }
            self.plane.board.rejected(self.client.id, kind, &rejected.resources);
            self.plane.keeper.proxies_changed();
        }
        self.plane.board.progress(self.client.id, &self.server);
        Ok(())
    }

    /// Whoever has nothing to answer has answered everything.
    fn note_answered(&self) {
        if self.server.is_settled() {
            self.client.note_answered(self.number);
            self.plane.keeper.answered();
        }
    }

    async fn take_health(&mut self, unwell: Option<&RpcStatus>) -> Result<(), Status> {
        let Some(registered) = self.registered else { return Ok(()) };
        if unwell.is_some_and(|status| status.code == LEAVING_CODE) {
            self.left = true;
            self.plane.registrations.leave(registered).await;
            self.plane.wait_until_gone(&registered.entry).await;
            return self.send(F::empty_response(HEALTH_TYPE_URL)).await;
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
        self.number = self.number.max(dirty.number);
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
        while let Some(response) = self.server.next(&mut Source(self.client)) {
            let (kind, bytes) = F::weight(&response);
            self.plane.counters.pushed(kind, bytes);
            self.send(response).await?;
            sent = true;
        }
        if sent {
            self.plane.board.progress(self.client.id, &self.server);
        }
        self.note_answered();
        Ok(())
    }

    async fn send(&self, response: F::Response) -> Result<(), Status> {
        self.responses.send(Ok(response)).await.map_err(|_| Status::cancelled("the client is gone"))
    }
}
