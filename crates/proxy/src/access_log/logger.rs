//! One configured log: what is logged, how, and where to.

use std::sync::Arc;

use super::filter::Filter;
use super::format::Format;
use super::json::JsonFormat;
use super::sink::Sink;
use crate::stream_info::{AccessLogger, LogRecord};

/// How a line looks.
#[derive(Clone, Debug)]
pub enum Layout {
    /// Text as it is written: a format without `\n` at its end makes no lines (as in Envoy).
    Text(Format),
    /// A JSON object a line.
    Json(JsonFormat),
}

/// A log to a file or a stream.
#[derive(Clone, Debug)]
pub struct Log {
    /// What is logged; `None` is everything.
    pub filter: Option<Filter>,
    /// How.
    pub layout: Layout,
    /// Where to.
    pub sink: Arc<Sink>,
}

impl AccessLogger for Log {
    fn log(&self, record: &LogRecord<'_>) {
        if self.filter.as_ref().is_some_and(|filter| !filter.admits(record)) {
            return;
        }
        self.sink.append(record.worker, |line| match &self.layout {
            Layout::Text(format) => format.append_line(record, line),
            Layout::Json(format) => {
                format.append(record, line);
                line.push(b'\n');
            }
        });
    }
}
