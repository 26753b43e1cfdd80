//! The credential of a workload's outbound HTTP proxy: without it a neighbour on the same machine could leave with this
//! workload's identity.

use api::envoy::config::core::v3::{DataSource, data_source};
use api::envoy::extensions::filters::http::basic_auth::v3::BasicAuth;
use api::google::protobuf::Any;

use super::{Direction, Site};
use crate::networking::encoding::pack;
use crate::proxy::Capabilities;

/// `envoy.extensions.filters.http.basic_auth.v3.BasicAuth`.
pub const TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.filters.http.basic_auth.v3.BasicAuth";

/// Only where the node named a credential: a listener for everybody on an address of its own asks for none.
pub(super) fn config(site: &Site<'_>) -> Option<Any> {
    let credential = site.proxy_credential?;
    if site.direction != Direction::Outbound
        || !site.capabilities.contains(Capabilities::BASIC_AUTH)
    {
        return None;
    }
    Some(pack(&BasicAuth {
        users: Some(DataSource {
            specifier: Some(data_source::Specifier::InlineString(credential.to_owned())),
            ..Default::default()
        }),
        authentication_header: "proxy-authorization".to_owned(),
        ..Default::default()
    }))
}
