//! The server's half of incremental ADS: one [`DeltaServer`] per stream.
//!
//! A stream keeps a *set* of names that may have changed, never a queue of messages: whatever happens between two
//! messages is one message. At most one response of a type is unanswered. What to send is read from a
//! [`ResourceSource`] at the last moment, so a slow client costs nothing and always gets the newest state.
//!
//! Make before break: additions go out in the order of [`ResourceType`], listeners and routes only when clusters and
//! endpoints are at rest, and a thing is removed only when everything that may use it is at rest and nothing there was
//! rejected (a rejected route still runs in its last version, and may still need the old cluster).

mod table;
mod type_state;

use std::sync::Arc;

use api::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use crate::nack::{self, Rejection};
use crate::resource::{Resource, Version};
use crate::resource_type::ResourceType;
use crate::wire::DeltaResponse;
pub use table::SharedTables;
use type_state::TypeState;

/// What one proxy may see, at this moment. The server asks only for what it is about to send or compare.
pub trait ResourceSource {
    /// The names of everything of a type that a wildcard subscription yields.
    fn names(&mut self, kind: ResourceType) -> Vec<Arc<str>>;

    /// The names of everything below a collection: the `80/<virtual host>` of route configuration `80`.
    fn names_in(&mut self, kind: ResourceType, collection: &str) -> Vec<Arc<str>>;

    /// One resource; `None` if there is none of this name for this proxy.
    fn resource(&mut self, kind: ResourceType, name: &str) -> Option<Resource>;
}

/// A request that breaks the protocol. The stream should be closed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A type that this server does not serve.
    #[error("type {0:?} is not served here")]
    UnknownType(String),
    /// xdstp locators are not supported.
    #[error("resource locators (xdstp) are not supported")]
    Locators,
    /// More names than a proxy can mean.
    #[error("more than {limit} names subscribed for {kind}")]
    TooManyNames {
        /// The type.
        kind: ResourceType,
        /// [`MAX_NAMES`].
        limit: usize,
    },
}

/// How many names one stream may subscribe per type, so that a client that sends nonsense cannot fill the memory.
pub const MAX_NAMES: usize = 1 << 18;

/// What a request told the server, for status and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Only subscriptions changed, or nothing did (an answer to a response that is no longer the latest).
    Subscribed(ResourceType),
    /// The client applied a response.
    Accepted(Answered),
    /// The client applied a response but for some resources.
    Rejected(Answered, Vec<Rejection>),
}

/// A response that a client answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Its type.
    pub kind: ResourceType,
    /// The resources that the client holds since, with their versions.
    pub accepted: Vec<(Arc<str>, Version)>,
    /// The names that the client dropped.
    pub removed: Vec<Arc<str>>,
}

/// One client's stream.
#[derive(Debug, Default)]
pub struct DeltaServer {
    types: [TypeState; ResourceType::COUNT],
    shared: SharedTables,
    last_nonce: u64,
    /// Whether any response was answered. A client introduces all its types before its first answer, so only then is
    /// it known what else may use a thing that is to be removed.
    answered: bool,
}

impl DeltaServer {
    /// A stream on which nothing has been said.
    pub fn new() -> DeltaServer {
        DeltaServer::default()
    }

    /// The same, that keeps what it knows of its client together with other streams' knowledge of theirs.
    pub fn sharing(tables: &SharedTables) -> DeltaServer {
        DeltaServer { shared: tables.clone(), ..DeltaServer::default() }
    }

    /// Takes a request in: changes of subscription always count; an answer counts if it is to the latest response of
    /// its type. Call [`Self::next_response`] until it has nothing more.
    pub fn on_request(
        &mut self,
        request: DeltaDiscoveryRequest,
    ) -> Result<RequestOutcome, RequestError> {
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
            return Err(RequestError::UnknownType(request.type_url));
        };
        if !request.resource_locators_subscribe.is_empty()
            || !request.resource_locators_unsubscribe.is_empty()
        {
            return Err(RequestError::Locators);
        }
        let state = &mut self.types[kind as usize];
        if state.name_count()
            + request.resource_names_subscribe.len()
            + request.initial_resource_versions.len()
            > MAX_NAMES
        {
            return Err(RequestError::TooManyNames { kind, limit: MAX_NAMES });
        }

        let outcome = match state.take_answered(&request.response_nonce) {
            None => RequestOutcome::Subscribed(kind),
            Some(sent) => match &request.error_detail {
                None => RequestOutcome::Accepted(state.accept(kind, sent, &[], &self.shared)),
                Some(status) => {
                    let rejections = nack::from_status(status, sent.names());
                    RequestOutcome::Rejected(
                        state.accept(kind, sent, &rejections, &self.shared),
                        rejections,
                    )
                }
            },
        };
        self.answered |= outcome != RequestOutcome::Subscribed(kind);
        if !state.is_introduced() {
            state.introduce(
                &request.initial_resource_versions,
                request.resource_names_subscribe.is_empty(),
            );
        }
        for name in &request.resource_names_unsubscribe {
            state.unsubscribe(kind, name);
        }
        for name in &request.resource_names_subscribe {
            state.subscribe(kind, name);
        }
        Ok(outcome)
    }

    /// Says that a resource was created, changed or deleted. Costs one look-up if this client does not hold it or want it.
    pub fn changed(&mut self, kind: ResourceType, name: &Arc<str>) {
        self.types[kind as usize].mark(kind, name);
    }

    /// Says that anything of a type may have changed: everything held and everything listed is compared.
    pub fn changed_all(&mut self, kind: ResourceType) {
        self.types[kind as usize].mark_all();
    }

    /// The next response to send, if anything may be sent now.
    pub fn next_response(&mut self, source: &mut dyn ResourceSource) -> Option<DeltaResponse> {
        for kind in ResourceType::ALL {
            if self.types[kind as usize].may_send() && self.are_quiet(kind.adds_after()) {
                self.types[kind as usize].resolve(kind, source);
                if self.types[kind as usize].has_additions() {
                    return Some(self.respond(kind));
                }
            }
        }
        // Users before what they use: listeners and routes go before clusters.
        for kind in ResourceType::ALL.into_iter().rev() {
            if self.types[kind as usize].may_send()
                && self.types[kind as usize].has_removals()
                && self.may_remove(kind)
            {
                return Some(self.respond(kind));
            }
        }
        None
    }

    /// Whether the client has accepted everything that it may have: nothing to send, nothing unanswered, nothing rejected.
    pub fn is_synced(&self) -> bool {
        self.types
            .iter()
            .all(|state| state.is_quiet() && !state.has_removals() && state.rejected_count() == 0)
    }

    /// Whether the client has answered everything that it may have, be it by a rejection: nothing to send, nothing
    /// unanswered.
    pub fn is_settled(&self) -> bool {
        self.types.iter().all(TypeState::is_quiet)
    }

    /// Whether a client subscribed to this type at all, and has accepted all of it. `None` if it never asked.
    pub fn is_type_synced(&self, kind: ResourceType) -> Option<bool> {
        let state = &self.types[kind as usize];
        state
            .is_introduced()
            .then(|| state.is_quiet() && !state.has_removals() && state.rejected_count() == 0)
    }

    /// The version of a resource that the client holds.
    pub fn held(&self, kind: ResourceType, name: &str) -> Option<Version> {
        self.types[kind as usize].held(name)
    }

    /// How many resources of a type the client holds.
    pub fn held_count(&self, kind: ResourceType) -> usize {
        self.types[kind as usize].held_count()
    }

    /// How many resources of a type the client has rejected in their present version.
    pub fn rejected_count(&self, kind: ResourceType) -> usize {
        self.types[kind as usize].rejected_count()
    }

    /// Whether this client wants to hear of a name: it is subscribed, by name, by collection or by wildcard.
    pub fn wants(&self, kind: ResourceType, name: &str) -> bool {
        self.types[kind as usize].wants(kind, name)
    }

    fn respond(&mut self, kind: ResourceType) -> DeltaResponse {
        let with_removals = self.may_remove(kind);
        self.last_nonce += 1;
        let response = self.types[kind as usize].respond(kind, self.last_nonce, with_removals);
        if kind == ResourceType::Cluster {
            // Envoy makes a changed cluster anew and waits for its endpoints, without asking for them again.
            let [clusters, endpoints, ..] = &mut self.types;
            clusters.sent_names().for_each(|name| endpoints.send_again(name));
        }
        response
    }

    fn are_quiet(&self, kinds: &[ResourceType]) -> bool {
        kinds.iter().all(|kind| self.types[*kind as usize].is_quiet())
    }

    /// Whether nothing can still be using what this type is about to remove.
    fn may_remove(&self, kind: ResourceType) -> bool {
        let users = kind.removals_after();
        (users.is_empty() || self.answered)
            && users.iter().all(|user| {
                let user = &self.types[*user as usize];
                user.is_quiet() && !user.has_removals() && user.rejected_count() == 0
            })
    }
}

#[cfg(test)]
mod tests;
