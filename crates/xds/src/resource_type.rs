//! The kinds of resources that travel over discovery, with their order and their make-before-break rules.
//!
//! Each rule is one row of [`ROWS`]: adding a type is adding a row.

use std::fmt;

/// A kind of xDS resource. The order of the variants is the order in which additions are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// `envoy.config.cluster.v3.Cluster` (CDS).
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
    Endpoints,
    /// `envoy.config.listener.v3.Listener` (LDS).
    Listener,
    /// `envoy.config.core.v3.TypedExtensionConfig` (ECDS).
    ExtensionConfig,
    /// `envoy.config.route.v3.RouteConfiguration` (RDS).
    RouteConfiguration,
    /// `envoy.config.route.v3.VirtualHost` (VHDS), named `<route configuration>/<virtual host>`.
    VirtualHost,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
    Secret,
}

/// What the server must know of a type: its name on the wire and what must be at rest before it is sent.
struct Row {
    kind: ResourceType,
    type_url: &'static str,
    label: &'static str,
    /// Additions and changes wait until these have nothing to send and nothing unanswered.
    adds_after: &'static [ResourceType],
    /// Removals wait until these are at rest, hold nothing rejected and have nothing of their own to remove.
    removals_after: &'static [ResourceType],
}

use ResourceType::*;

/// One row a type, in the order of the enum (checked by a test).
const ROWS: [Row; 7] = [
    Row {
        kind: Cluster,
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        label: "CDS",
        adds_after: &[],
        removals_after: &[Listener, ExtensionConfig, RouteConfiguration, VirtualHost],
    },
    Row {
        kind: Endpoints,
        type_url: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        label: "EDS",
        adds_after: &[],
        removals_after: &[Cluster],
    },
    Row {
        kind: Listener,
        type_url: "type.googleapis.com/envoy.config.listener.v3.Listener",
        label: "LDS",
        adds_after: &[Cluster, Endpoints],
        removals_after: &[],
    },
    Row {
        kind: ExtensionConfig,
        type_url: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        label: "ECDS",
        adds_after: &[Cluster, Endpoints],
        removals_after: &[Listener],
    },
    Row {
        kind: RouteConfiguration,
        type_url: "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        label: "RDS",
        adds_after: &[Cluster, Endpoints],
        removals_after: &[Listener],
    },
    Row {
        kind: VirtualHost,
        type_url: "type.googleapis.com/envoy.config.route.v3.VirtualHost",
        label: "VHDS",
        adds_after: &[Cluster, Endpoints],
        removals_after: &[],
    },
    Row {
        kind: Secret,
        type_url: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        label: "SDS",
        adds_after: &[],
        removals_after: &[Cluster, Listener],
    },
];

impl ResourceType {
    /// How many types there are; `self as usize` is below it.
    pub const COUNT: usize = ROWS.len();

    /// Every type, in the order in which additions are sent.
    pub const ALL: [ResourceType; ResourceType::COUNT] =
        [Cluster, Endpoints, Listener, ExtensionConfig, RouteConfiguration, VirtualHost, Secret];

    /// The type of a `type_url`; `None` for what this crate does not serve.
    pub fn from_type_url(type_url: &str) -> Option<ResourceType> {
        ROWS.iter().find(|row| row.type_url == type_url).map(|row| row.kind)
    }

    /// `type.googleapis.com/...`, as on the wire.
    pub fn type_url(self) -> &'static str {
        self.row().type_url
    }

    /// The short name people use: `CDS`, `EDS`, ...
    pub fn label(self) -> &'static str {
        self.row().label
    }

    /// Types that must be at rest before an addition or change of this one is sent.
    pub fn adds_after(self) -> &'static [ResourceType] {
        self.row().adds_after
    }

    /// Types that may still use a resource of this one, and must be at rest before one is removed.
    pub fn removals_after(self) -> &'static [ResourceType] {
        self.row().removals_after
    }

    /// Whether subscribing a name without a slash means "everything below that name": the eager form of VHDS, where
    /// subscribing route configuration `80` yields every `80/<virtual host>`.
    pub fn has_collections(self) -> bool {
        matches!(self, VirtualHost)
    }

    /// Whether a state-of-the-world request without names means everything (clusters and listeners) or nothing.
    pub fn is_listed_by_default(self) -> bool {
        matches!(self, Cluster | Listener)
    }

    fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// The collection that a resource name belongs to: what stands before its last slash.
pub fn collection_of(name: &str) -> Option<&str> {
    name.rsplit_once('/').map(|(collection, _)| collection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_the_order_of_the_enum() {
        for (index, row) in ROWS.iter().enumerate() {
            assert_eq!(row.kind as usize, index, "{}", row.label);
            assert_eq!(ResourceType::ALL[index], row.kind);
            assert_eq!(ResourceType::from_type_url(row.type_url), Some(row.kind));
        }
    }

    /// A cycle of waits would leave a stream silent forever.
    #[test]
    fn additions_wait_only_for_earlier_types() {
        for row in &ROWS {
            for earlier in row.adds_after {
                assert!(*earlier < row.kind, "{} waits for {}", row.label, earlier.label());
            }
        }
    }

    #[test]
    fn removals_do_not_wait_in_a_circle() {
        fn reaches(from: ResourceType, to: ResourceType) -> bool {
            from.removals_after().iter().any(|next| *next == to || reaches(*next, to))
        }
        for kind in ResourceType::ALL {
            assert!(!reaches(kind, kind), "{kind}");
        }
    }

    #[test]
    fn a_virtual_host_belongs_to_its_route_configuration() {
        assert_eq!(collection_of("80/reviews.default.svc.cluster.local:9080"), Some("80"));
        assert_eq!(collection_of("80"), None);
    }
}
