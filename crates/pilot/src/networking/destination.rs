//! A destination of a route as the name of a cluster.

use std::collections::BTreeMap;

use resources::terms::destination::Destination;

use crate::model::hostname;
use crate::model::interned::Interned;
use crate::model::service::{Host, Service};
use crate::naming;

/// The services that the routes of an object may name, by full host; `None` for a host that is no service. This is the
/// part of the registry that its translation may look at.
pub type DestinationServices = BTreeMap<Host, Option<Interned<Service>>>;

/// How an object's destinations become clusters.
pub struct Destinations<'a> {
    /// Where short names belong.
    pub namespace: &'a str,
    /// Ends full names.
    pub domain_suffix: &'a str,
    /// Every service that may be named.
    pub services: &'a DestinationServices,
    /// The port of a destination that says none and whose service does not tell.
    pub listener_port: u16,
}

impl Destinations<'_> {
    /// `outbound|port|subset|host`. A destination without a port takes its service's only port.
    pub fn cluster(&self, destination: &Destination) -> String {
        let (host, port) = self.host_and_port(destination);
        naming::outbound_cluster(port, destination.subset.as_deref().unwrap_or_default(), &host)
    }

    /// Full host and port of a destination.
    pub fn host_and_port(&self, destination: &Destination) -> (String, u16) {
        let host = hostname::resolve(&destination.host, self.namespace, self.domain_suffix);
        let only_port = || {
            let service = self.services.get(host.as_str()).and_then(Option::as_ref)?;
            match service.ports.as_slice() {
                [only] => Some(only.number),
                _ => None,
            }
        };
        let port = destination.port.or_else(only_port).unwrap_or(self.listener_port);
        (host, port)
    }
}
