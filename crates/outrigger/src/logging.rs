//! The process's own log: lines on standard error or in a file, by level and component.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use telemetry::logging::{Level, Levels};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts logging; `levels` may change while the process runs.
pub fn start(levels: Arc<Levels>, path: Option<&Path>) -> anyhow::Result<()> {
    let wanted = filter_fn(move |event| levels.enabled(event.target(), level(*event.level())));
    let lines = tracing_subscriber::fmt::layer().with_ansi(false);
    let layer = match path {
        None => lines.with_writer(std::io::stderr).with_filter(wanted).boxed(),
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file = file.with_context(|| format!("cannot open {}", path.display()))?;
            lines.with_writer(Mutex::new(file)).with_filter(wanted).boxed()
        }
    };
    tracing_subscriber::registry().with(layer).try_init().context("logging was started twice")
}

fn level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::TRACE => Level::Trace,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::INFO => Level::Info,
        tracing::Level::WARN => Level::Warning,
        tracing::Level::ERROR => Level::Error,
    }
}
