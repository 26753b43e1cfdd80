//! `istio.stats`: Istio's standard metrics.

use api::google::protobuf::Any;

use super::Site;
use crate::proxy::Capabilities;

/// `stats.PluginConfig`.
pub const TYPE_URL: &str = "type.googleapis.com/stats.PluginConfig";

/// Its name, on HTTP and on L4.
pub const NAME: &str = "istio.stats";

pub(super) fn config(site: &Site<'_>) -> Option<Any> {
    of_node(site.capabilities)
}

/// The defaults are what Istio wants, so the message is empty. It is the same on HTTP and on L4.
pub fn of_node(capabilities: Capabilities) -> Option<Any> {
    capabilities
        .contains(Capabilities::STATS)
        .then(|| Any { type_url: TYPE_URL.to_owned(), value: Vec::new() })
}
