//! The door to protobuf.
//!
//! * [`envoy`], [`google`], [`xds`], [`udpa`], [`istio`]: the generated types and gRPC stubs, named as their protobuf
//!   packages are: Envoy's from the `envoy-types` crate, and from `proto/` the few that it lacks.
//! * [`text`]: YAML and JSON → wire bytes, every error with its place. [`dump`]: wire bytes → JSON.
//! * [`check`]: the one walker over wire bytes, for files and xDS alike: what is known but unsupported and what breaks
//!   a constraint is a problem, what is unknown is counted.
//! * [`schema`]: the tables that all of these read in place.
//! * The well-known types are `envoy-types`' own ([`google::protobuf::Any`], `Duration`, `Struct`, ...), not those of
//!   `prost-types`.

pub mod canonical;
pub mod check;
pub mod dump;
pub mod schema;
pub mod text;
pub mod wire;

pub use envoy_types::pb::{cel, envoy, google, validate};
pub use envoy_types::util::pack_any;

/// Istio's own services and filters.
pub mod istio {
    /// The choice of the upstream's ALPN, `istio.envoy.config.filter.http.alpn.v2alpha1`.
    #[allow(missing_docs, clippy::all)]
    pub mod alpn {
        include!("generated/istio.envoy.config.filter.http.alpn.v2alpha1.rs");
    }
    /// The exchange of workload metadata, `io.istio.http.peer_metadata`.
    #[allow(missing_docs, clippy::all)]
    pub mod peer_metadata {
        include!("generated/io.istio.http.peer_metadata.rs");
    }
    /// Istio's metrics, `stats`.
    #[allow(missing_docs, clippy::all)]
    pub mod stats {
        include!("generated/stats.rs");
    }
    /// `istio.v1`.
    pub mod v1 {
        /// The certificate service, `istio.v1.auth`.
        #[allow(missing_docs, clippy::all)]
        pub mod auth {
            include!("generated/istio.v1.auth.rs");
        }
    }
}

/// xDS types that are not Envoy's alone.
pub mod xds {
    pub use envoy_types::pb::xds::{annotations, core};

    /// `xds.type`.
    pub mod r#type {
        /// `xds.type.matcher`.
        pub mod matcher {
            /// `xds.type.matcher.v3`: generic matchers, ours and those of `envoy-types`.
            #[allow(missing_docs, clippy::all)]
            pub mod v3 {
                pub use envoy_types::pb::xds::r#type::matcher::v3::*;
                include!("generated/xds.type.matcher.v3.rs");
            }
        }
        /// `xds.type.v3`: `TypedStruct` and CEL expressions.
        #[allow(missing_docs, clippy::all)]
        pub mod v3 {
            pub use envoy_types::pb::xds::r#type::v3::*;
            include!("generated/xds.type.v3.rs");
        }
    }
}

/// The older names of some xDS types.
pub mod udpa {
    pub use envoy_types::pb::udpa::annotations;

    /// `udpa.type`.
    pub mod r#type {
        /// `udpa.type.v1`: `TypedStruct`.
        #[allow(missing_docs, clippy::all)]
        pub mod v1 {
            include!("generated/udpa.type.v1.rs");
        }
    }
}

/// Paths by which generated code names `envoy-types`' own; prost cannot write `r#type` inside an imported path.
mod imported {
    pub(crate) use envoy_types::pb::xds::r#type::matcher::v3 as matcher;
    pub(crate) use envoy_types::pb::xds::r#type::v3 as types;
}

#[cfg(test)]
mod tests {
    use prost::Name;

    #[test]
    fn type_urls_are_the_public_ones() {
        assert_eq!(
            super::xds::r#type::v3::TypedStruct::type_url(),
            "type.googleapis.com/xds.type.v3.TypedStruct"
        );
        assert_eq!(
            super::udpa::r#type::v1::TypedStruct::type_url(),
            "type.googleapis.com/udpa.type.v1.TypedStruct"
        );
        assert_eq!(super::istio::v1::auth::IstioCertificateRequest::PACKAGE, "istio.v1.auth");
    }
}
