//! `istio.stats`: Istio's standard metrics.

use api::google::protobuf::Any;

use super::Site;
use crate::proxy::Capabilities;

/// `stats.PluginConfig`.
pub const TYPE_URL: &str = "type.googleapis.com/stats.PluginConfig";

/// The defaults are what Istio wants, so the message is empty.
pub(super) fn config(site: &Site<'_>) -> Option<Any> {
    site.capabilities
        .contains(Capabilities::STATS)
        .then(|| Any { type_url: TYPE_URL.to_owned(), value: Vec::new() })
}
