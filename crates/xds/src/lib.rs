//! The discovery protocol (xDS), sans-IO: who asked for what, what was sent, what was accepted.
//!
//! Both ends are plain state machines without sockets, clocks or tasks. A caller feeds them messages and asks for the
//! next message to send, so that one seeded test can drive a client against a server through drops and reconnects.
//!
//! ```text
//! proxy / agent                                       pilot / agent's SDS
//! client::DeltaClient  -- DeltaDiscoveryRequest -->  server::DeltaServer  <-- server::ResourceSource (what the proxy sees)
//! client::SotwClient   <-- wire::DeltaResponse ---      sotw::SotwServer (for whoever does not speak delta)
//! ```
//!
//! The protocol is Envoy's incremental ADS (`envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources`).

pub mod client;
pub mod nack;
pub mod resource;
pub mod resource_type;
pub mod server;
pub mod sotw;
pub mod wire;

#[cfg(test)]
mod simulation;

pub use client::{DeltaClient, SotwClient};
pub use nack::Rejection;
pub use resource::{Resource, Version};
pub use resource_type::ResourceType;
pub use server::{DeltaServer, ResourceSource, SharedTables};
