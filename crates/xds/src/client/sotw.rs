//! State of the world, for servers and services that do not speak the incremental form: requests name all that is
//! wanted, responses bring all of it. What did not change is not handed on.
//!
//! Resources have no version of their own here; their content's hash stands for it.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use api::envoy::config::core::v3::Node;
use api::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse, Resource};
use api::google::protobuf::Any;
use prost::{Message, Name};

use super::{Contents, Form, Judged, Known, Received};
use crate::nack::{self, Rejection};
use crate::resource::Version;
use crate::resource_type::ResourceType;

/// What is to be said of one type on this stream.
#[derive(Debug, Default)]
pub struct Sotw {
    /// The version of the last set that was accepted whole.
    accepted: String,
    /// The nonce of the last response on this stream.
    nonce: String,
    /// The server has not been told the present names.
    names_changed: bool,
    answer: Option<Vec<Rejection>>,
}

/// The name in every resource's first field.
#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

impl Form for Sotw {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;
    type Version = Version;

    fn envelope(response: &DiscoveryResponse) -> (&str, &str) {
        (&response.type_url, &response.nonce)
    }

    fn set_node(request: &mut DiscoveryRequest, node: Node) {
        request.node = Some(node);
    }

    fn connected(&mut self) {
        self.nonce.clear();
        self.answer = None;
    }

    fn subscribed(&mut self, _: &Arc<str>) {
        self.names_changed = true;
    }

    fn unsubscribed(&mut self, _: Arc<str>, _: bool) {
        self.names_changed = true;
    }

    /// Only where everything was asked for does absence mean that a thing is gone.
    fn read(
        &mut self,
        known: &Known<Version>,
        kind: ResourceType,
        response: DiscoveryResponse,
    ) -> Contents<Version> {
        self.nonce = response.nonce;
        let mut present: HashMap<Arc<str>, (Version, Any), RandomState> = HashMap::default();
        for any in response.resources {
            let (name, body) = unwrap(any);
            let version = Version::of(&body.value);
            present.insert(name, (version, body));
        }
        let gone = |name: &&Arc<str>| !present.contains_key(*name);
        let removed = match known.wildcard {
            true => known.held.keys().filter(gone).cloned().collect(),
            false => Vec::new(),
        };
        let mut changed: Vec<(Received, Version)> = present
            .into_iter()
            .filter(|(name, _)| known.wants(kind, name))
            .filter(|(name, (version, _))| known.held.get(name) != Some(version))
            .map(|(name, (version, body))| {
                (Received { name, version: version.to_string(), body: Some(body) }, version)
            })
            .collect();
        changed.sort_unstable_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        Contents { changed, removed, version_info: response.version_info }
    }

    /// Only the latest response is answered.
    fn judged(&mut self, response: Judged, here: bool) {
        if response.rejections.is_empty() {
            self.accepted = response.version_info;
        }
        if here && *response.nonce == *self.nonce {
            self.answer = Some(response.rejections);
        }
    }

    fn subscription_request(
        &mut self,
        known: &mut Known<Version>,
        kind: ResourceType,
    ) -> Option<DiscoveryRequest> {
        let first = !known.introduced && known.is_wanted();
        // A request on a response that is being judged would answer it.
        let later = known.introduced
            && self.names_changed
            && known.pending.is_empty()
            && self.answer.is_none();
        if !first && !later {
            return None;
        }
        known.introduced = true;
        Some(self.request(known, kind))
    }

    fn answer_request(
        &mut self,
        known: &Known<Version>,
        kind: ResourceType,
    ) -> Option<DiscoveryRequest> {
        let rejections = self.answer.take()?;
        let mut request = self.request(known, kind);
        request.error_detail = (!rejections.is_empty()).then(|| nack::to_status(&rejections));
        Some(request)
    }
}

impl Sotw {
    fn request(&mut self, known: &Known<Version>, kind: ResourceType) -> DiscoveryRequest {
        self.names_changed = false;
        DiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            version_info: self.accepted.clone(),
            response_nonce: self.nonce.clone(),
            resource_names: known.listed_names(),
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
