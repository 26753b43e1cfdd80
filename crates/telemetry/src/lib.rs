//! How numbers, spans and lines leave a process: per-thread counters and histograms and their text, JSON and Prometheus
//! forms; log levels. Instances, never globals.

pub mod logging;
pub mod stats;
