//! The client's half of incremental ADS: subscriptions in, requests out; responses in, verdicts out.
//!
//! What is held survives the stream: after a reconnect the first request of each type lists the versions that were
//! accepted, so that an unchanged server has nothing to send.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ahash::RandomState;
use api::envoy::config::core::v3::Node;
use api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use api::google::protobuf::Any;
use indexmap::IndexSet;

use crate::nack::{self, Rejection};
use crate::resource_type::{ResourceType, collection_of};

/// What a client refuses of a server. The stream goes on: the message is dropped.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server sent a type that this client never asked for.
    #[error("response for type {0}, which was never subscribed")]
    NotSubscribed(String),
    /// A response arrived while the client had no stream.
    #[error("response outside a stream")]
    NotConnected,
    /// Without a nonce a response cannot be answered.
    #[error("response of type {0} without a nonce")]
    NoNonce(ResourceType),
}

/// Names one response until it is answered. Stays valid after the stream has gone: what was applied is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResponseId {
    /// The type of the response.
    pub kind: ResourceType,
    stream: u64,
    nonce: Arc<str>,
}

impl ResponseId {
    pub(crate) fn new(kind: ResourceType, stream: u64, nonce: &str) -> ResponseId {
        ResponseId { kind, stream, nonce: Arc::from(nonce) }
    }

    /// Whether the response came on this stream.
    pub(crate) fn is_on(&self, stream: u64) -> bool {
        self.stream == stream
    }

    /// Whether it is this very response.
    pub(crate) fn is_of(&self, stream: u64, nonce: &str) -> bool {
        self.stream == stream && self.nonce.as_ref() == nonce
    }
}

/// One resource of a response.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// The resource's name.
    pub name: Arc<str>,
    /// The server's version of it.
    pub version: String,
    /// The resource itself; `None` where the server only says that it knows nothing behind the name.
    pub body: Option<Any>,
}

/// What a response asks the client to apply. Answer it with [`DeltaClient::answer`].
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// To be given back with the answer.
    pub id: ResponseId,
    /// New and changed resources, each name once.
    pub changed: Vec<Received>,
    /// Names that are gone or do not exist.
    pub removed: Vec<Arc<str>>,
}

/// The client of one control plane. It has at most one stream at a time.
#[derive(Debug)]
pub struct DeltaClient {
    node: Node,
    types: [TypeState; ResourceType::COUNT],
    /// Counts streams, so that a late answer is not sent on a later one.
    stream: u64,
    connected: bool,
    node_sent: bool,
}

#[derive(Debug, Default)]
struct TypeState {
    wildcard: bool,
    names: IndexSet<Arc<str>, RandomState>,
    /// Accepted resources and their versions.
    held: HashMap<Arc<str>, String, RandomState>,
    /// Whether this stream has seen a request for this type.
    introduced: bool,
    /// Changes of subscription that this stream has not been told.
    subscribe: IndexSet<Arc<str>, RandomState>,
    unsubscribe: IndexSet<Arc<str>, RandomState>,
    /// Responses that await a verdict, oldest first.
    pending: VecDeque<Pending>,
    /// Verdicts to send on this stream, oldest first.
    answers: VecDeque<Answer>,
}

#[derive(Debug)]
struct Pending {
    id: ResponseId,
    changed: Vec<(Arc<str>, String)>,
    removed: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Answer {
    nonce: Arc<str>,
    rejections: Vec<Rejection>,
}

impl DeltaClient {
    /// A client that will introduce itself as `node`, once on each stream.
    pub fn new(node: Node) -> DeltaClient {
        DeltaClient {
            node,
            types: Default::default(),
            stream: 0,
            connected: false,
            node_sent: false,
        }
    }

    /// Asks for everything of a type that the server has for this node.
    pub fn subscribe_all(&mut self, kind: ResourceType) {
        let state = &mut self.types[kind as usize];
        if !state.wildcard {
            state.wildcard = true;
            if state.introduced {
                state.subscribe.insert(Arc::from("*"));
            }
        }
    }

    /// Asks for one resource, or for a collection of virtual hosts by its route configuration's name. Asking twice is
    /// asking once.
    pub fn subscribe(&mut self, kind: ResourceType, name: &str) {
        let state = &mut self.types[kind as usize];
        if !state.names.contains(name) {
            let name: Arc<str> = Arc::from(name);
            state.unsubscribe.shift_remove(&name);
            state.subscribe.insert(name.clone());
            state.names.insert(name);
        }
    }

    /// Gives a name up, and forgets what was held through it alone.
    pub fn unsubscribe(&mut self, kind: ResourceType, name: &str) {
        let state = &mut self.types[kind as usize];
        let Some(name) = state.names.shift_take(name) else { return };
        // A name that the server was never told needs no taking back.
        if !state.subscribe.shift_remove(&name) && state.introduced {
            state.unsubscribe.insert(name);
        }
        // What is on its way counts as never received: whoever subscribes again waits for it anew.
        let (mut held, mut pending) =
            (std::mem::take(&mut state.held), std::mem::take(&mut state.pending));
        held.retain(|name, _| state.wants(kind, name));
        for response in &mut pending {
            response.changed.retain(|(name, _)| state.wants(kind, name));
        }
        (state.held, state.pending) = (held, pending);
    }

    /// Whether `name` is subscribed by name.
    pub fn is_subscribed(&self, kind: ResourceType, name: &str) -> bool {
        self.types[kind as usize].names.contains(name)
    }

    /// The versions accepted so far of one type, by name.
    pub fn held(&self, kind: ResourceType) -> impl Iterator<Item = (&Arc<str>, &str)> {
        self.types[kind as usize].held.iter().map(|(name, version)| (name, version.as_str()))
    }

    /// A stream is open: every type that is subscribed introduces itself again, as soon as every response of
    /// earlier streams is answered.
    pub fn connected(&mut self) {
        self.stream += 1;
        self.connected = true;
        self.node_sent = false;
        for state in &mut self.types {
            state.introduced = false;
            state.subscribe.clear();
            state.unsubscribe.clear();
            state.answers.clear();
        }
    }

    /// The stream is gone. Subscriptions, held versions and unanswered responses stay.
    pub fn disconnected(&mut self) {
        self.connected = false;
    }

    /// Takes a response in. Resources that are no longer subscribed are left out of the update, and a name that comes
    /// twice counts as it came last.
    pub fn receive(&mut self, response: DeltaDiscoveryResponse) -> Result<Update, ClientError> {
        if !self.connected {
            return Err(ClientError::NotConnected);
        }
        let kind = ResourceType::from_type_url(&response.type_url)
            .filter(|kind| self.types[*kind as usize].introduced)
            .ok_or(ClientError::NotSubscribed(response.type_url))?;
        if response.nonce.is_empty() {
            return Err(ClientError::NoNonce(kind));
        }
        let state = &mut self.types[kind as usize];
        let mut changed: indexmap::IndexMap<Arc<str>, Received, RandomState> = Default::default();
        for resource in response.resources {
            let name: Arc<str> = Arc::from(resource.name);
            if state.wants(kind, &name) {
                changed.insert(
                    name.clone(),
                    Received { name, version: resource.version, body: resource.resource },
                );
            }
        }
        let changed: Vec<Received> = changed.into_values().collect();
        let removed: Vec<Arc<str>> = response
            .removed_resources
            .into_iter()
            .map(Arc::from)
            .filter(|name| state.wants(kind, name))
            .collect();

        let id = ResponseId { kind, stream: self.stream, nonce: Arc::from(response.nonce) };
        state.pending.push_back(Pending {
            id: id.clone(),
            changed: changed.iter().map(|r| (r.name.clone(), r.version.clone())).collect(),
            removed: removed.clone(),
        });
        Ok(Update { id, changed, removed })
    }

    /// The verdict on a response: everything in it is applied except `rejections`, which keep their last version.
    /// After a reconnect the verdict is still recorded, and only not sent.
    pub fn answer(&mut self, id: &ResponseId, rejections: Vec<Rejection>) {
        let state = &mut self.types[id.kind as usize];
        let Some(at) = state.pending.iter().position(|pending| pending.id == *id) else { return };
        let Some(pending) = state.pending.remove(at) else { return };
        let rejected = |name: &Arc<str>| rejections.iter().any(|rejection| rejection.name == *name);
        for (name, version) in pending.changed {
            if !rejected(&name) && state.wants(id.kind, &name) {
                state.held.insert(name, version);
            }
        }
        for name in &pending.removed {
            if !rejected(name) {
                state.held.remove(name);
            }
        }
        if self.connected && id.stream == self.stream {
            state.answers.push_back(Answer { nonce: id.nonce.clone(), rejections });
        }
    }

    /// The next message to send, if any. Changes of subscription go before answers, in the order of the types: a server
    /// that hears "clusters accepted" has heard before which endpoints they want.
    pub fn poll_request(&mut self) -> Option<DeltaDiscoveryRequest> {
        // What is still being judged from an earlier stream may be held in a moment, and then the server must hear of it.
        // The introductions of all types stay together: a server that removes a cluster must know all routes.
        let stream = self.stream;
        let judging =
            |state: &TypeState| state.pending.iter().any(|pending| pending.id.stream != stream);
        if !self.connected || self.types.iter().any(judging) {
            return None;
        }
        let mut request = ResourceType::ALL
            .into_iter()
            .find_map(|kind| self.types[kind as usize].subscription_request(kind))
            .or_else(|| {
                ResourceType::ALL
                    .into_iter()
                    .find_map(|kind| self.types[kind as usize].answer_request(kind))
            })?;
        if !self.node_sent {
            self.node_sent = true;
            request.node = Some(self.node.clone());
        }
        Some(request)
    }
}

impl TypeState {
    /// Whether a resource is covered by a subscription.
    fn wants(&self, kind: ResourceType, name: &str) -> bool {
        self.wildcard
            || self.names.contains(name)
            || (kind.has_collections()
                && collection_of(name).is_some_and(|collection| self.names.contains(collection)))
    }

    fn subscription_request(&mut self, kind: ResourceType) -> Option<DeltaDiscoveryRequest> {
        if !self.introduced {
            return (self.wildcard || !self.names.is_empty()).then(|| self.introduction(kind));
        }
        if self.subscribe.is_empty() && self.unsubscribe.is_empty() {
            return None;
        }
        Some(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: self
                .subscribe
                .drain(..)
                .map(|name| name.to_string())
                .collect(),
            resource_names_unsubscribe: self
                .unsubscribe
                .drain(..)
                .map(|name| name.to_string())
                .collect(),
            ..Default::default()
        })
    }

    /// The first request of this type on a stream. No names at all means everything, which every server understands;
    /// the asterisk is needed only beside names.
    fn introduction(&mut self, kind: ResourceType) -> DeltaDiscoveryRequest {
        self.introduced = true;
        self.subscribe.clear();
        self.unsubscribe.clear();
        let asterisk = (self.wildcard && !self.names.is_empty()).then(|| "*".to_owned());
        DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: asterisk
                .into_iter()
                .chain(self.names.iter().map(|name| name.to_string()))
                .collect(),
            initial_resource_versions: self
                .held
                .iter()
                .map(|(name, version)| (name.to_string(), version.clone()))
                .collect(),
            ..Default::default()
        }
    }

    fn answer_request(&mut self, kind: ResourceType) -> Option<DeltaDiscoveryRequest> {
        let answer = self.answers.pop_front()?;
        Some(DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            response_nonce: answer.nonce.to_string(),
            error_detail: (!answer.rejections.is_empty())
                .then(|| nack::to_status(&answer.rejections)),
            ..Default::default()
        })
    }
}

#[cfg(test)]
mod tests;
