//! The configuration of `istio.stats`.

use api::istio::stats::{PluginConfig, Reporter as ConfiguredReporter};
use api::text::Problem;
use prost::Message;
use proxy::snapshot::registry::CompileContext;

use super::labels::{NAMES, Reporter};
use super::series::publish_build;
use super::workload::Workload;

/// What `istio.stats` is told, for HTTP and for TCP.
#[derive(Debug)]
pub struct Settings {
    /// Which side this proxy reports.
    pub reporter: Reporter,
    /// This proxy's workload.
    pub own: Workload,
    /// The authority names the destination when the cluster does not.
    pub host_header_fallback: bool,
    /// Labels that every metric goes without.
    pub removed: Box<[&'static str]>,
}

impl Settings {
    /// Reads an encoded `PluginConfig`.
    ///
    /// # Errors
    /// With what is not supported, by path.
    pub fn read(bytes: &[u8], context: &CompileContext<'_>) -> Result<Self, Vec<Problem>> {
        let config = PluginConfig::decode(bytes)
            .map_err(|error| vec![Problem::new("", error.to_string())])?;
        let mut problems = Vec::new();
        let mut removed = Vec::new();
        for (i, metric) in config.metrics.iter().enumerate() {
            if !metric.name.is_empty()
                || metric.drop
                || !metric.dimensions.is_empty()
                || !metric.r#match.is_empty()
            {
                let what = "only tags_to_remove of all metrics is supported";
                problems.push(Problem::new(format!("metrics[{i}]"), what));
            }
            for (k, tag) in metric.tags_to_remove.iter().enumerate() {
                match NAMES.iter().find(|name| *name == tag) {
                    Some(name) => removed.push(*name),
                    None => problems.push(Problem::new(
                        format!("metrics[{i}].tags_to_remove[{k}]"),
                        format!("no metric has a label `{tag}`"),
                    )),
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let server_gateway = config.reporter() == ConfiguredReporter::ServerGateway;
        publish_build(context.registry, env!("CARGO_PKG_VERSION"));
        Ok(Self {
            reporter: Reporter::new(context.direction, server_gateway),
            own: Workload::of_node(context.node),
            host_header_fallback: !config.disable_host_header_fallback,
            removed: removed.into(),
        })
    }
}
