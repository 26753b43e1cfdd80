//! One discovery stream: connects, subscribes, applies, answers, and starts over when it is lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::uri::PathAndQuery;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::client::Grpc;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use xds::client::ResponseId;
use xds::{Rejection, ResourceType};

use super::backoff::Backoff;
use super::channel::{self, ConnectError};
use super::protocol::Protocol;
use super::sink::{
    ConfigSink, GrpcSource, Names, Rejected, Resource, ResourceKind, Subscriptions, Update,
};
use super::{FEATURES, StreamKey};

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Transport(#[from] tonic::transport::Error),
    #[error("{} ({:?})", .0.message(), .0.code())]
    Status(Box<tonic::Status>),
    #[error("the server closed the stream")]
    Closed,
    #[error("initial_metadata: invalid header {0:?}")]
    Metadata(String),
}

impl From<tonic::Status> for Lost {
    fn from(status: tonic::Status) -> Lost {
        Lost::Status(Box::new(status))
    }
}

/// An update on its way to the main thread.
struct Job {
    id: ResponseId,
    update: Update,
    /// What could not even be handed over.
    rejections: Vec<Rejection>,
}

/// What became of it.
struct Verdict {
    id: ResponseId,
    rejections: Vec<Rejection>,
}

/// A stream's task.
pub(super) struct Stream<S, P> {
    sink: Arc<S>,
    key: StreamKey,
    source: GrpcSource,
    client: P,
    subscriptions: watch::Receiver<Arc<Subscriptions>>,
    /// What the client was told to want, as far as it follows [`Self::subscriptions`].
    told: BTreeMap<ResourceKind, Names>,
    jobs: mpsc::UnboundedSender<Job>,
    verdicts: mpsc::UnboundedReceiver<Verdict>,
    backoff: Backoff,
}

impl<S: ConfigSink, P: Protocol> Stream<S, P> {
    pub(super) fn new(sink: Arc<S>, key: StreamKey, source: GrpcSource) -> Stream<S, P> {
        let mut node = sink.node();
        for feature in FEATURES {
            if !node.client_features.iter().any(|named| named == feature) {
                node.client_features.push(feature.to_owned());
            }
        }
        let (jobs, queue) = mpsc::unbounded_channel();
        let (judged, verdicts) = mpsc::unbounded_channel();
        // A task of its own: an update that is being applied is finished even if the stream ends meanwhile.
        tokio::spawn(apply_in_order(sink.clone(), queue, judged));
        Stream {
            client: P::new(node),
            subscriptions: sink.subscriptions(),
            sink,
            key,
            source,
            told: BTreeMap::new(),
            jobs,
            verdicts,
            backoff: Backoff::new(),
        }
    }

    /// Runs until `stopped`.
    pub(super) async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut rng = StdRng::from_os_rng();
        loop {
            let lost = tokio::select! {
                _ = &mut stopped => return,
                lost = self.session() => lost,
            };
            self.client.disconnected();
            self.sink.connected(self.key.only, false);
            let first = self.backoff.is_fresh();
            let pause = self.backoff.next(&mut rng);
            let cluster = &self.source.cluster;
            // A control plane that stays away is worth one line, not one for every attempt.
            if first {
                tracing::warn!(%cluster, error = %lost, "discovery stream lost; the configuration stays as it is");
            } else {
                tracing::debug!(%cluster, error = %lost, ?pause, "no discovery stream yet");
            }
            tokio::select! {
                _ = &mut stopped => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One stream, from connection to loss.
    async fn session(&mut self) -> Lost {
        match self.open().await {
            Ok((requests, responses)) => self.serve(requests, responses).await,
            Err(lost) => lost,
        }
    }

    async fn open(
        &mut self,
    ) -> Result<(mpsc::UnboundedSender<P::Request>, Streaming<P::Response>), Lost> {
        let target = self.sink.grpc_target(&self.source.cluster).await;
        let target = target.ok_or_else(|| ConnectError::NoCluster(self.source.cluster.clone()))?;
        let channel = channel::connect(&self.source, target).await?;

        self.client.connected();
        self.follow_subscriptions();
        let (requests, outgoing) = mpsc::unbounded_channel();
        // The first requests are there before the server answers: some servers do not until they know who asks.
        self.send_requests(&requests);
        let mut request = tonic::Request::new(UnboundedReceiverStream::new(outgoing));
        for (key, value) in &self.source.initial_metadata {
            let invalid = || Lost::Metadata(key.clone());
            let name = AsciiMetadataKey::from_bytes(key.as_bytes()).map_err(|_| invalid())?;
            let value = AsciiMetadataValue::try_from(value.as_str()).map_err(|_| invalid())?;
            request.metadata_mut().append(name, value);
        }
        let mut grpc = Grpc::new(channel).max_decoding_message_size(usize::MAX);
        grpc.ready().await?;
        let path = PathAndQuery::from_static(P::path(self.key.only));
        let codec = tonic_prost::ProstCodec::<P::Request, P::Response>::default();
        let responses = grpc.streaming(request, path, codec).await?.into_inner();
        self.sink.connected(self.key.only, true);
        tracing::info!(cluster = %self.source.cluster, "discovery stream open");
        Ok((requests, responses))
    }

    async fn serve(
        &mut self,
        requests: mpsc::UnboundedSender<P::Request>,
        mut responses: Streaming<P::Response>,
    ) -> Lost {
        loop {
            tokio::select! {
                response = responses.message() => match response {
                    Ok(Some(response)) => self.on_response(response),
                    Ok(None) => return Lost::Closed,
                    Err(status) => return status.into(),
                },
                Some(verdict) = self.verdicts.recv() => {
                    // What the update made wanted is said before the update is answered.
                    self.follow_subscriptions();
                    self.client.answer(&verdict.id, verdict.rejections);
                }
                Ok(()) = self.subscriptions.changed() => self.follow_subscriptions(),
                // The main thread is gone.
                else => return Lost::Closed,
            }
            self.send_requests(&requests);
        }
    }

    fn send_requests(&mut self, requests: &mpsc::UnboundedSender<P::Request>) {
        while let Some(request) = self.client.poll_request() {
            // A stream that no longer takes requests is about to end by itself.
            let _ = requests.send(request);
        }
    }

    fn on_response(&mut self, response: P::Response) {
        self.backoff.reset();
        let received = match self.client.receive(response) {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(cluster = %self.source.cluster, %error, "response ignored");
                return;
            }
        };
        let Some(kind) = ResourceKind::from_resource_type(received.id.kind) else { return };
        let mut update = Update { kind, added: Vec::new(), removed: Vec::new() };
        let mut rejections = Vec::new();
        for resource in received.changed {
            match resource.body {
                None => update.removed.push(resource.name.to_string()),
                Some(body) if body.type_url == kind.type_url() => update.added.push(Resource {
                    name: resource.name.to_string(),
                    version: resource.version,
                    bytes: body.value,
                }),
                Some(body) => rejections.push(Rejection {
                    name: resource.name,
                    reason: format!(
                        "resource is a {:?}, not a {:?}",
                        body.type_url,
                        kind.type_url()
                    ),
                }),
            }
        }
        update.removed.extend(received.removed.iter().map(|name| name.to_string()));
        // The applier ends only after this end of the channel.
        let _ = self.jobs.send(Job { id: received.id, update, rejections });
    }

    /// Brings the client's subscriptions up to what the main thread wants now.
    fn follow_subscriptions(&mut self) {
        let current = self.subscriptions.borrow_and_update().clone();
        let mut wanted = current.wanted.get(&self.key.source).cloned().unwrap_or_default();
        if let Some(only) = self.key.only {
            wanted.retain(|kind, _| *kind == only);
        }
        for (kind, names) in &wanted {
            follow(&mut self.client, kind.resource_type(), self.told.get(kind), Some(names));
        }
        for (kind, names) in &self.told {
            if !wanted.contains_key(kind) {
                follow(&mut self.client, kind.resource_type(), Some(names), None);
            }
        }
        self.told = wanted;
    }
}

fn follow<P: Protocol>(
    client: &mut P,
    kind: ResourceType,
    old: Option<&Names>,
    new: Option<&Names>,
) {
    if new == Some(&Names::Wildcard) {
        client.subscribe_all(kind);
    }
    let named = |names: Option<&Names>| match names {
        Some(Names::Named(names)) => Arc::clone(names),
        _ => Arc::default(),
    };
    let (old, new) = (named(old), named(new));
    if Arc::ptr_eq(&old, &new) {
        return;
    }
    old.difference(&new).for_each(|name| client.unsubscribe(kind, name));
    new.difference(&old).for_each(|name| client.subscribe(kind, name));
}

/// Hands updates to the main thread, one after the other.
async fn apply_in_order<S: ConfigSink>(
    sink: Arc<S>,
    mut queue: mpsc::UnboundedReceiver<Job>,
    verdicts: mpsc::UnboundedSender<Verdict>,
) {
    while let Some(Job { id, update, mut rejections }) = queue.recv().await {
        let applied = sink.apply(update).await;
        rejections.extend(applied.rejected.iter().map(rejection));
        for rejection in &rejections {
            tracing::warn!(kind = %id.kind, name = %rejection.name, reason = %rejection.reason, "resource rejected; its last good version stays");
        }
        let _ = verdicts.send(Verdict { id, rejections });
    }
}

fn rejection(rejected: &Rejected) -> Rejection {
    Rejection { name: Arc::from(rejected.name.as_str()), reason: rejected.reason() }
}
