//! Discovery messages whose resources are shared bytes: what the server sends without copying or re-encoding.
//!
//! Field numbers are those of `envoy.service.discovery.v3`; a message encoded here is decoded by any xDS client.

use bytes::Bytes;

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaResponse {
    /// Free text for people; this server puts nothing in it.
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    /// Encoded `envoy.service.discovery.v3.Resource` messages ([`crate::Resource::wire`]).
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub resources: Vec<Bytes>,
    /// The type of all resources in this message.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// Names that are gone, or that were asked for and do not exist.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
    /// Answered by the client in `response_nonce`.
    #[prost(string, tag = "5")]
    pub nonce: String,
}

/// `envoy.service.discovery.v3.DiscoveryResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SotwResponse {
    /// A version for the whole set.
    #[prost(string, tag = "1")]
    pub version_info: String,
    /// Encoded `google.protobuf.Any` messages ([`crate::Resource::any`]).
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub resources: Vec<Bytes>,
    /// The type of all resources in this message.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// Answered by the client in `response_nonce`.
    #[prost(string, tag = "5")]
    pub nonce: String,
}
