//! The server's half of state-of-the-world discovery, for clients that do not speak the incremental protocol.
//!
//! Every response carries all that a client asked for of one type. Requests with a nonce that is not the latest are
//! ignored, as the protocol demands.

use std::sync::Arc;

use api::envoy::service::discovery::v3::DiscoveryRequest;

use crate::nack::{self, Rejection};
use crate::resource::{Resource, Version};
use crate::resource_type::ResourceType;
use crate::server::{MAX_NAMES, RequestError, ResourceSource};
use crate::wire::SotwResponse;

/// One client's stream.
#[derive(Debug, Default)]
pub struct SotwServer {
    types: [TypeState; ResourceType::COUNT],
    last_nonce: u64,
}

#[derive(Debug, Default)]
struct TypeState {
    introduced: bool,
    names: Vec<Arc<str>>,
    dirty: bool,
    /// The names changed, so that an answer is owed even if the set is the same.
    owes_answer: bool,
    nonce: String,
    in_flight: bool,
    /// The set that was sent last, by the hash of its names and versions.
    sent: Option<Version>,
    sent_names: Vec<Arc<str>>,
    rejected: Option<Version>,
    /// What of the set that was rejected the client named; all of it if it named nothing.
    rejections: Vec<Rejection>,
}

/// What a request told the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SotwOutcome {
    /// A subscription is new or its names changed.
    Subscribed(ResourceType),
    /// The latest response was applied.
    Accepted(ResourceType),
    /// The latest response was refused, with the client's reason.
    Rejected(ResourceType, String),
    /// An answer to an older response: ignored.
    Stale(ResourceType),
}

impl SotwServer {
    /// A stream on which nothing has been said.
    pub fn new() -> SotwServer {
        SotwServer::default()
    }

    /// Takes a request in. Call [`Self::next_response`] until it has nothing more.
    pub fn on_request(&mut self, request: DiscoveryRequest) -> Result<SotwOutcome, RequestError> {
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
            return Err(RequestError::UnknownType(request.type_url));
        };
        if !request.resource_locators.is_empty() {
            return Err(RequestError::Locators);
        }
        if request.resource_names.len() > MAX_NAMES {
            return Err(RequestError::TooManyNames { kind, limit: MAX_NAMES });
        }
        Ok(self.types[kind as usize].on_request(kind, request))
    }

    /// Says that something of a type may have changed.
    pub fn changed(&mut self, kind: ResourceType) {
        let state = &mut self.types[kind as usize];
        state.dirty |= state.introduced;
    }

    /// Whether the client has answered everything that it may have, be it by a rejection.
    pub fn is_settled(&self) -> bool {
        self.types.iter().all(TypeState::is_settled)
    }

    /// Whether a client subscribed to this type at all, and has accepted all of it. `None` if it never asked.
    pub fn is_type_synced(&self, kind: ResourceType) -> Option<bool> {
        let state = &self.types[kind as usize];
        let at_rest = state.is_settled() && state.rejections.is_empty();
        state.introduced.then_some(at_rest)
    }

    /// How many resources of a type the last response had.
    pub fn sent_count(&self, kind: ResourceType) -> usize {
        self.types[kind as usize].sent_names.len()
    }

    /// What of a type's last response the client rejected.
    pub fn rejections(&self, kind: ResourceType) -> &[Rejection] {
        &self.types[kind as usize].rejections
    }

    /// The next response to send, if anything changed that this client asked for.
    pub fn next_response(&mut self, source: &mut dyn ResourceSource) -> Option<SotwResponse> {
        for kind in ResourceType::ALL {
            // What uses a thing is told after the thing: a route to a new cluster finds it.
            if !kind.adds_after().iter().all(|earlier| self.types[*earlier as usize].is_settled()) {
                continue;
            }
            let state = &mut self.types[kind as usize];
            if state.dirty
                && !state.in_flight
                && let Some(response) = state.respond(kind, source, self.last_nonce + 1)
            {
                self.last_nonce += 1;
                return Some(response);
            }
        }
        None
    }
}

impl TypeState {
    /// Nothing to send, and nothing unanswered.
    fn is_settled(&self) -> bool {
        !self.dirty && !self.in_flight
    }

    fn on_request(&mut self, kind: ResourceType, request: DiscoveryRequest) -> SotwOutcome {
        // A nonce on a fresh type is left over from the client's last stream.
        let answers = self.introduced && !request.response_nonce.is_empty();
        if answers && request.response_nonce != self.nonce {
            return SotwOutcome::Stale(kind);
        }
        let mut names: Vec<Arc<str>> = request.resource_names.into_iter().map(Arc::from).collect();
        names.sort_unstable();
        names.dedup();
        if !self.introduced || names != self.names {
            self.owes_answer =
                !self.introduced || names.iter().any(|name| !self.names.contains(name));
            self.dirty = true;
            self.names = names;
        }
        self.introduced = true;
        if !answers || !std::mem::take(&mut self.in_flight) {
            return SotwOutcome::Subscribed(kind);
        }
        match request.error_detail {
            None => {
                self.rejections.clear();
                SotwOutcome::Accepted(kind)
            }
            Some(status) => {
                self.rejected = self.sent;
                self.rejections = nack::from_status(&status, self.sent_names.iter());
                SotwOutcome::Rejected(kind, status.message)
            }
        }
    }

    fn respond(
        &mut self,
        kind: ResourceType,
        source: &mut dyn ResourceSource,
        nonce: u64,
    ) -> Option<SotwResponse> {
        self.dirty = false;
        let all = (self.names.is_empty() && kind.is_listed_by_default())
            || self.names.iter().any(|name| name.as_ref() == "*");
        let mut names = if all { source.names(kind) } else { self.names.clone() };
        names.sort_unstable();
        let resources: Vec<Resource> =
            names.iter().filter_map(|name| source.resource(kind, name)).collect();
        let set: String = resources
            .iter()
            .map(|resource| format!("{} {}\n", resource.name(), resource.version()))
            .collect();
        let version = Version::of(set.as_bytes());
        let unchanged = self.sent == Some(version) && !self.owes_answer;
        if unchanged || self.rejected == Some(version) {
            return None;
        }
        // Nothing at all is news only where it replaces something, or where everything was asked for.
        if resources.is_empty() && !all && self.sent.is_none() {
            return None;
        }
        self.owes_answer = false;
        self.sent = Some(version);
        self.sent_names = resources.iter().map(|resource| Arc::clone(resource.name())).collect();
        self.in_flight = true;
        self.nonce = nonce.to_string();
        Some(SotwResponse {
            version_info: version.to_string(),
            resources: resources.iter().map(Resource::any).collect(),
            type_url: kind.type_url().to_owned(),
            nonce: self.nonce.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
