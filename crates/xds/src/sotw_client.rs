//! The client's half of state-of-the-world discovery, for servers and services that do not speak the incremental
//! protocol. It looks the same from above as [`crate::DeltaClient`]: what did not change is not handed on.
//!
//! Resources have no version of their own here; their content's hash stands for it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use ahash::RandomState;
use api::envoy::config::core::v3::Node;
use api::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse, Resource};
use api::google::protobuf::Any;
use prost::{Message, Name};

use crate::client::{ClientError, Received, ResponseId, Update};
use crate::nack::{self, Rejection};
use crate::resource::Version;
use crate::resource_type::ResourceType;

/// The client of one control plane. It has at most one stream at a time.
#[derive(Debug)]
pub struct SotwClient {
    node: Node,
    types: [TypeState; ResourceType::COUNT],
    stream: u64,
    connected: bool,
    node_sent: bool,
}

#[derive(Debug, Default)]
struct TypeState {
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    held: HashMap<Arc<str>, Version, RandomState>,
    /// The version of the last set that was accepted whole.
    accepted: String,
    /// The nonce of the last response on this stream.
    nonce: String,
    introduced: bool,
    /// The server has not been told the present names.
    names_changed: bool,
    pending: VecDeque<Pending>,
    answer: Option<Vec<Rejection>>,
}

#[derive(Debug)]
struct Pending {
    id: ResponseId,
    version_info: String,
    changed: Vec<(Arc<str>, Version)>,
    removed: Vec<Arc<str>>,
}

/// The name in every resource's first field.
#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

impl SotwClient {
    /// A client that will introduce itself as `node`, once on each stream.
    pub fn new(node: Node) -> SotwClient {
        SotwClient {
            node,
            types: Default::default(),
            stream: 0,
            connected: false,
            node_sent: false,
        }
    }

    /// Asks for everything of a type that the server has for this node (clusters and listeners).
    pub fn subscribe_all(&mut self, kind: ResourceType) {
        let state = &mut self.types[kind as usize];
        state.names_changed |= !std::mem::replace(&mut state.wildcard, true);
    }

    /// Asks for one resource. Asking twice is asking once.
    pub fn subscribe(&mut self, kind: ResourceType, name: &str) {
        let state = &mut self.types[kind as usize];
        state.names_changed |= state.names.insert(Arc::from(name));
    }

    /// Gives a name up, and forgets what was held through it alone.
    pub fn unsubscribe(&mut self, kind: ResourceType, name: &str) {
        let state = &mut self.types[kind as usize];
        if !state.names.remove(name) {
            return;
        }
        state.names_changed = true;
        if !state.wildcard {
            state.held.remove(name);
            for response in &mut state.pending {
                response.changed.retain(|(changed, _)| changed.as_ref() != name);
            }
        }
    }

    /// A stream is open: every type that is subscribed introduces itself again, as soon as every response of
    /// earlier streams is answered.
    pub fn connected(&mut self) {
        self.stream += 1;
        self.connected = true;
        self.node_sent = false;
        for state in &mut self.types {
            state.introduced = false;
            state.nonce.clear();
            state.answer = None;
        }
    }

    /// The stream is gone. Subscriptions, held versions and unanswered responses stay.
    pub fn disconnected(&mut self) {
        self.connected = false;
    }

    /// Takes a response in.
    pub fn receive(&mut self, response: DiscoveryResponse) -> Result<Update, ClientError> {
        if !self.connected {
            return Err(ClientError::NotConnected);
        }
        let kind = ResourceType::from_type_url(&response.type_url)
            .filter(|kind| self.types[*kind as usize].introduced)
            .ok_or(ClientError::NotSubscribed(response.type_url))?;
        if response.nonce.is_empty() {
            return Err(ClientError::NoNonce(kind));
        }
        let id = ResponseId::new(kind, self.stream, &response.nonce);
        let state = &mut self.types[kind as usize];
        state.nonce = response.nonce;
        let update = state.difference(id, response.resources);
        state.pending.push_back(Pending {
            id: update.id.clone(),
            version_info: response.version_info,
            changed: update
                .changed
                .iter()
                .filter_map(|r| Some((r.name.clone(), Version::parse(&r.version)?)))
                .collect(),
            removed: update.removed.clone(),
        });
        Ok(update)
    }

    /// The verdict on a response: everything in it is applied except `rejections`, which keep their last version.
    /// After a reconnect the verdict is still recorded, and only not sent.
    pub fn answer(&mut self, id: &ResponseId, rejections: Vec<Rejection>) {
        let state = &mut self.types[id.kind as usize];
        let Some(at) = state.pending.iter().position(|pending| pending.id == *id) else { return };
        let Some(pending) = state.pending.remove(at) else { return };
        let rejected = |name: &Arc<str>| rejections.iter().any(|rejection| rejection.name == *name);
        for (name, version) in pending.changed {
            if !rejected(&name) {
                state.held.insert(name, version);
            }
        }
        for name in pending.removed.iter().filter(|name| !rejected(name)) {
            state.held.remove(name);
        }
        if rejections.is_empty() {
            state.accepted = pending.version_info;
        }
        if self.connected && id.is_of(self.stream, &state.nonce) {
            state.answer = Some(rejections);
        }
    }

    /// The next message to send, if any: subscriptions before answers, in the order of the types.
    pub fn poll_request(&mut self) -> Option<DiscoveryRequest> {
        let stream = self.stream;
        let judging =
            |state: &TypeState| state.pending.iter().any(|pending| !pending.id.is_on(stream));
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
    /// What a whole set changes. Only where everything was asked for does absence mean that a thing is gone.
    fn difference(&self, id: ResponseId, resources: Vec<Any>) -> Update {
        let mut present: HashMap<Arc<str>, (Version, Any), RandomState> = HashMap::default();
        for any in resources {
            let (name, body) = unwrap(any);
            let version = Version::of(&body.value);
            present.insert(name, (version, body));
        }
        let removed = match self.wildcard {
            true => self.held.keys().filter(|name| !present.contains_key(*name)).cloned().collect(),
            false => Vec::new(),
        };
        let mut changed: Vec<Received> = present
            .into_iter()
            .filter(|(name, _)| self.wildcard || self.names.contains(name))
            .filter(|(name, (version, _))| self.held.get(name) != Some(version))
            .map(|(name, (version, body))| Received {
                name,
                version: version.to_string(),
                body: Some(body),
            })
            .collect();
        changed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Update { id, changed, removed }
    }

    fn subscription_request(&mut self, kind: ResourceType) -> Option<DiscoveryRequest> {
        let first = !self.introduced && (self.wildcard || !self.names.is_empty());
        // A request on a response that is being judged would answer it.
        let later = self.introduced
            && self.names_changed
            && self.pending.is_empty()
            && self.answer.is_none();
        if !first && !later {
            return None;
        }
        self.introduced = true;
        Some(self.request(kind))
    }

    fn answer_request(&mut self, kind: ResourceType) -> Option<DiscoveryRequest> {
        let rejections = self.answer.take()?;
        let mut request = self.request(kind);
        request.error_detail = (!rejections.is_empty()).then(|| nack::to_status(&rejections));
        Some(request)
    }

    fn request(&mut self, kind: ResourceType) -> DiscoveryRequest {
        self.names_changed = false;
        let asterisk = (self.wildcard && !self.names.is_empty()).then(|| "*".to_owned());
        DiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            version_info: self.accepted.clone(),
            response_nonce: self.nonce.clone(),
            resource_names: asterisk
                .into_iter()
                .chain(self.names.iter().map(|name| name.to_string()))
                .collect(),
            ..DiscoveryRequest::default()
        }
    }
}

/// A resource's name and body. Servers may wrap resources to name them; what cannot be read has no name, and is rejected
/// by whoever reads it in earnest.
fn unwrap(any: Any) -> (Arc<str>, Any) {
    if any.type_url == Resource::type_url()
        && let Ok(Resource { name, resource: Some(body), .. }) =
            Resource::decode(any.value.as_slice())
    {
        return (Arc::from(name), body);
    }
    let name = Named::decode(any.value.as_slice()).map(|named| named.name).unwrap_or_default();
    (Arc::from(name), any)
}

#[cfg(test)]
mod tests;
