//! The incremental form: requests name what is new and what is given up, responses what changed and what is gone.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::RandomState;
use api::envoy::config::core::v3::Node;
use api::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use indexmap::{IndexMap, IndexSet};

use super::{Contents, Form, Judged, Known, Received};
use crate::nack;
use crate::resource_type::ResourceType;

/// What is to be said of one type on this stream.
#[derive(Debug, Default)]
pub struct Delta {
    /// Names that the server has not been told.
    subscribe: IndexSet<Arc<str>, RandomState>,
    /// Names that it has been told and are not wanted any more.
    unsubscribe: IndexSet<Arc<str>, RandomState>,
    /// Verdicts to send, oldest first.
    answers: VecDeque<Judged>,
}

impl Form for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;
    type Version = String;

    fn envelope(response: &DeltaDiscoveryResponse) -> (&str, &str) {
        (&response.type_url, &response.nonce)
    }

    fn set_node(request: &mut DeltaDiscoveryRequest, node: Node) {
        request.node = Some(node);
    }

    fn connected(&mut self) {
        *self = Delta::default();
    }

    fn subscribed(&mut self, name: &Arc<str>) {
        self.unsubscribe.shift_remove(name);
        self.subscribe.insert(Arc::clone(name));
    }

    fn unsubscribed(&mut self, name: Arc<str>, introduced: bool) {
        // A name that the server was never told needs no taking back.
        if !self.subscribe.shift_remove(&name) && introduced {
            self.unsubscribe.insert(name);
        }
    }

    /// A name that comes twice counts as it came last.
    fn read(
        &mut self,
        known: &Known<String>,
        kind: ResourceType,
        response: DeltaDiscoveryResponse,
    ) -> Contents<String> {
        let mut changed: IndexMap<Arc<str>, (Received, String), RandomState> = IndexMap::default();
        for resource in response.resources {
            let name: Arc<str> = Arc::from(resource.name);
            if known.wants(kind, &name) {
                let version = resource.version;
                let received = Received {
                    name: name.clone(),
                    version: version.clone(),
                    body: resource.resource,
                };
                changed.insert(name, (received, version));
            }
        }
        let removed = response.removed_resources.into_iter().map(Arc::from);
        Contents {
            changed: changed.into_values().collect(),
            removed: removed.filter(|name: &Arc<str>| known.wants(kind, name)).collect(),
            version_info: String::new(),
        }
    }

    fn judged(&mut self, response: Judged, here: bool) {
        if here {
            self.answers.push_back(response);
        }
    }

    fn subscription_request(
        &mut self,
        known: &mut Known<String>,
        kind: ResourceType,
    ) -> Option<DeltaDiscoveryRequest> {
        let changed = !self.subscribe.is_empty() || !self.unsubscribe.is_empty();
        let due = if known.introduced { changed } else { known.is_wanted() };
        if !due {
            return None;
        }
        let drained = |names: &mut IndexSet<Arc<str>, RandomState>| {
            names.drain(..).map(|name| name.to_string()).collect::<Vec<_>>()
        };
        let (new, gone) = (drained(&mut self.subscribe), drained(&mut self.unsubscribe));
        let type_url = kind.type_url().to_owned();
        if std::mem::replace(&mut known.introduced, true) {
            return Some(DeltaDiscoveryRequest {
                type_url,
                resource_names_subscribe: new,
                resource_names_unsubscribe: gone,
                ..Default::default()
            });
        }
        let versions = known.held.iter().map(|(name, version)| (name.to_string(), version.clone()));
        Some(DeltaDiscoveryRequest {
            type_url,
            resource_names_subscribe: known.listed_names(),
            initial_resource_versions: versions.collect(),
            ..Default::default()
        })
    }

    fn answer_request(
        &mut self,
        _: &Known<String>,
        kind: ResourceType,
    ) -> Option<DeltaDiscoveryRequest> {
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
