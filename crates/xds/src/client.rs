//! The client's half of discovery: subscriptions in, requests out; responses in, verdicts out.
//!
//! One driver, [`Client`], over the two forms of the protocol, [`delta`] and [`sotw`], which look the same from above.
//! What is held survives the stream: after a reconnect the first request of each type says what was accepted, so that an
//! unchanged server has nothing new to send.

mod delta;
mod sotw;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::Arc;

use ahash::RandomState;
use api::envoy::config::core::v3::Node;
use api::google::protobuf::Any;

use crate::nack::Rejection;
use crate::resource_type::{ResourceType, collection_of};

/// The client of a control plane that speaks the incremental form.
pub type DeltaClient = Client<delta::Delta>;

/// The client of a control plane that speaks the state of the world.
pub type SotwClient = Client<sotw::Sotw>;

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
    /// What the server calls it.
    fn nonce(&self) -> &Arc<str> {
        &self.nonce
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

/// What a response asks the client to apply. Answer it with [`Client::answer`].
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
pub struct Client<F: Form> {
    node: Node,
    types: [TypeState<F>; ResourceType::COUNT],
    /// Counts streams, so that a late answer is not sent on a later one.
    stream: u64,
    connected: bool,
    node_sent: bool,
}

/// A form of the protocol, with what it keeps of one type.
pub trait Form: Debug + Default {
    /// What is sent.
    type Request;
    /// What comes.
    type Response;
    /// How a resource's content is told from others of the same name.
    type Version: Clone + Debug + PartialEq;

    /// A response's type URL and nonce.
    fn envelope(response: &Self::Response) -> (&str, &str);

    /// Introduces the client: once on each stream.
    fn set_node(request: &mut Self::Request, node: Node);

    /// A stream is open: nothing was said on it yet.
    fn connected(&mut self);

    /// A name, or `*`, is wanted that was not.
    fn subscribed(&mut self, name: &Arc<str>);

    /// A name is not wanted any more. `introduced` says whether the stream has seen any request for the type.
    fn unsubscribed(&mut self, name: Arc<str>, introduced: bool);

    /// What a response changes.
    fn read(
        &mut self,
        known: &Known<Self::Version>,
        kind: ResourceType,
        response: Self::Response,
    ) -> Contents<Self::Version>;

    /// A response was judged. `here` says whether it came on this stream, so that its answer is due.
    fn judged(&mut self, response: Judged, here: bool);

    /// The request that tells of new subscriptions, if one is due.
    fn subscription_request(
        &mut self,
        known: &mut Known<Self::Version>,
        kind: ResourceType,
    ) -> Option<Self::Request>;

    /// The request that answers a response, if one is due.
    fn answer_request(
        &mut self,
        known: &Known<Self::Version>,
        kind: ResourceType,
    ) -> Option<Self::Request>;
}

/// What a client knows of one type, in either form.
#[derive(Debug)]
pub struct Known<V> {
    wildcard: bool,
    names: BTreeSet<Arc<str>>,
    /// Accepted resources and their versions.
    held: HashMap<Arc<str>, V, RandomState>,
    /// Whether this stream has seen a request for this type.
    introduced: bool,
    /// Responses that await a verdict, oldest first.
    pending: VecDeque<Pending<V>>,
}

/// What a response changes.
#[derive(Debug)]
pub struct Contents<V> {
    changed: Vec<(Received, V)>,
    removed: Vec<Arc<str>>,
    /// The version of the whole set, where there is one.
    version_info: String,
}

/// A response with its verdict.
#[derive(Debug)]
pub struct Judged {
    nonce: Arc<str>,
    version_info: String,
    rejections: Vec<Rejection>,
}

#[derive(Debug)]
struct Pending<V> {
    id: ResponseId,
    version_info: String,
    changed: Vec<(Arc<str>, V)>,
    removed: Vec<Arc<str>>,
}

#[derive(Debug)]
struct TypeState<F: Form> {
    known: Known<F::Version>,
    form: F,
}

impl<F: Form> Client<F> {
    /// A client that will introduce itself as `node`, once on each stream.
    pub fn new(node: Node) -> Self {
        let types = std::array::from_fn(|_| TypeState::default());
        Self { node, types, stream: 0, connected: false, node_sent: false }
    }

    /// Asks for everything of a type that the server has for this node.
    pub fn subscribe_all(&mut self, kind: ResourceType) {
        let state = &mut self.types[kind as usize];
        if !std::mem::replace(&mut state.known.wildcard, true) {
            state.form.subscribed(&Arc::from("*"));
        }
    }

    /// Asks for one resource, or for a collection of virtual hosts by its route configuration's name. Asking twice is
    /// asking once.
    pub fn subscribe(&mut self, kind: ResourceType, name: impl Into<Arc<str>>) {
        let (state, name) = (&mut self.types[kind as usize], name.into());
        if !state.known.names.contains(&name) {
            state.form.subscribed(&name);
            state.known.names.insert(name);
        }
    }

    /// Gives a name up, and forgets what was held through it alone.
    pub fn unsubscribe(&mut self, kind: ResourceType, name: &str) {
        let TypeState { known, form } = &mut self.types[kind as usize];
        if let Some(name) = known.names.take(name) {
            form.unsubscribed(Arc::clone(&name), known.introduced);
            known.forget_unwanted(kind, &name);
        }
    }

    /// Whether `name` is subscribed by name.
    pub fn is_subscribed(&self, kind: ResourceType, name: &str) -> bool {
        self.types[kind as usize].known.names.contains(name)
    }

    /// The versions accepted so far of one type, by name.
    pub fn held(&self, kind: ResourceType) -> impl Iterator<Item = (&Arc<str>, &F::Version)> {
        self.types[kind as usize].known.held.iter()
    }

    /// A stream is open: every type that is subscribed introduces itself again, as soon as every response of
    /// earlier streams is answered.
    pub fn connected(&mut self) {
        self.stream += 1;
        self.connected = true;
        self.node_sent = false;
        for state in &mut self.types {
            state.known.introduced = false;
            state.form.connected();
        }
    }

    /// The stream is gone. Subscriptions, held versions and unanswered responses stay.
    pub fn disconnected(&mut self) {
        self.connected = false;
    }

    /// Takes a response in. Resources that are no longer subscribed are left out of the update, and so is what is held
    /// already where the protocol sends it again and again.
    pub fn receive(&mut self, response: F::Response) -> Result<Update, ClientError> {
        if !self.connected {
            return Err(ClientError::NotConnected);
        }
        let (type_url, nonce) = F::envelope(&response);
        let kind = ResourceType::from_type_url(type_url)
            .filter(|kind| self.types[*kind as usize].known.introduced)
            .ok_or_else(|| ClientError::NotSubscribed(type_url.to_owned()))?;
        if nonce.is_empty() {
            return Err(ClientError::NoNonce(kind));
        }
        let id = ResponseId { kind, stream: self.stream, nonce: Arc::from(nonce) };
        let TypeState { known, form } = &mut self.types[kind as usize];
        let Contents { changed, removed, version_info } = form.read(known, kind, response);
        known.pending.push_back(Pending {
            id: id.clone(),
            version_info,
            changed: changed
                .iter()
                .map(|(one, version)| (one.name.clone(), version.clone()))
                .collect(),
            removed: removed.clone(),
        });
        Ok(Update { id, changed: changed.into_iter().map(|(one, _)| one).collect(), removed })
    }

    /// The verdict on a response: everything in it is applied except `rejections`, which keep their last version.
    /// After a reconnect the verdict is still recorded, and only not sent.
    pub fn answer(&mut self, id: &ResponseId, rejections: Vec<Rejection>) {
        let TypeState { known, form } = &mut self.types[id.kind as usize];
        let Some(at) = known.pending.iter().position(|pending| pending.id == *id) else { return };
        let Some(pending) = known.pending.remove(at) else { return };
        let rejected = |name: &Arc<str>| rejections.iter().any(|rejection| rejection.name == *name);
        for (name, version) in pending.changed {
            if !rejected(&name) {
                known.held.insert(name, version);
            }
        }
        for name in pending.removed.iter().filter(|name| !rejected(name)) {
            known.held.remove(name);
        }
        let here = self.connected && id.stream == self.stream;
        let (nonce, version_info) = (id.nonce().clone(), pending.version_info);
        form.judged(Judged { nonce, version_info, rejections }, here);
    }

    /// The next message to send, if any. Changes of subscription go before answers, in the order of the types: a server
    /// that hears "clusters accepted" has heard before which endpoints they want.
    pub fn poll_request(&mut self) -> Option<F::Request> {
        // What is still being judged from an earlier stream may be held in a moment, and then the server must hear of it.
        // The introductions of all types stay together: a server that removes a cluster must know all routes.
        let stream = self.stream;
        let judging = |state: &TypeState<F>| {
            state.known.pending.iter().any(|pending| pending.id.stream != stream)
        };
        if !self.connected || self.types.iter().any(judging) {
            return None;
        }
        let types = &mut self.types;
        let subscriptions = ResourceType::ALL.into_iter().find_map(|kind| {
            let TypeState { known, form } = &mut types[kind as usize];
            form.subscription_request(known, kind)
        });
        let mut request = subscriptions.or_else(|| {
            ResourceType::ALL.into_iter().find_map(|kind| {
                let TypeState { known, form } = &mut self.types[kind as usize];
                form.answer_request(known, kind)
            })
        })?;
        if !std::mem::replace(&mut self.node_sent, true) {
            F::set_node(&mut request, self.node.clone());
        }
        Some(request)
    }
}

impl<F: Form> Default for TypeState<F> {
    fn default() -> Self {
        let known = Known {
            wildcard: false,
            names: BTreeSet::new(),
            held: HashMap::default(),
            introduced: false,
            pending: VecDeque::new(),
        };
        Self { known, form: F::default() }
    }
}

impl<V> Known<V> {
    /// Whether anything of the type is subscribed.
    fn is_wanted(&self) -> bool {
        self.wildcard || !self.names.is_empty()
    }

    /// Whether a resource is covered by a subscription.
    fn wants(&self, kind: ResourceType, name: &str) -> bool {
        self.wildcard
            || self.names.contains(name)
            || (kind.has_collections()
                && collection_of(name).is_some_and(|collection| self.names.contains(collection)))
    }

    /// Every subscribed name as a request lists them. No names at all means everything, which every server understands;
    /// the asterisk is needed only beside names.
    fn listed_names(&self) -> Vec<String> {
        let asterisk = (self.wildcard && !self.names.is_empty()).then(|| "*".to_owned());
        asterisk.into_iter().chain(self.names.iter().map(|name| name.to_string())).collect()
    }

    /// A name is given up. What is on its way counts as never received: whoever subscribes again waits for it anew.
    fn forget_unwanted(&mut self, kind: ResourceType, name: &Arc<str>) {
        if !kind.has_collections() && self.pending.is_empty() {
            // Thousands may be given up at once: nothing else was held through this one.
            if !self.wildcard {
                self.held.remove(name);
            }
            return;
        }
        let mut held = std::mem::take(&mut self.held);
        let mut pending = std::mem::take(&mut self.pending);
        held.retain(|name, _| self.wants(kind, name));
        for response in &mut pending {
            response.changed.retain(|(name, _)| self.wants(kind, name));
        }
        (self.held, self.pending) = (held, pending);
    }
}

#[cfg(test)]
mod tests;
