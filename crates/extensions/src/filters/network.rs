//! What watches L4 connections: network filters that do not change what passes.

mod istio_stats;

use proxy::snapshot::registry::{CompileAccessLogger, Row};

/// The table.
pub const ROWS: &[Row<CompileAccessLogger>] =
    &[Row { name: "istio.stats", message: "stats.PluginConfig", compile: istio_stats::compile }];
