//! How numbers, spans and lines leave a process: per-thread counters and histograms and their text, JSON and Prometheus
//! forms. Instances, never globals.

pub mod stats;
