//! Counters, gauges and histograms under Envoy's names.
//!
//! * A [`stat_set!`](crate::stat_set) is a static table of fields, declared beside the feature that counts them.
//! * [`Registry::block`] is such a set in a [`Scope`] (`cluster.reviews`, `http.ingress_http`, ...), held by compiled
//!   config and shared by all workers. It survives config updates because the next config asks for the same block
//!   before the old one lets go; when nobody holds it, it is gone.
//! * A thread writes through its own [`Recorder`]; [`Recorder::local`] gives a [`Local`], whose increments are a load, an
//!   add and a store. Memory for a set is allocated when a thread first touches it.
//! * [`Snapshot`] reads everything in place for `/stats` and `/stats/prometheus`.

mod histogram;
mod json;
mod prometheus;
mod recorder;
mod registry;
mod scope;
pub mod sets;
mod snapshot;
mod template;
mod text;

#[cfg(test)]
mod tests;

pub use histogram::{BOUNDS, BUCKETS, Distribution, QUANTILES};
pub use prometheus::Exposition;
pub use recorder::{Local, Recorder, SharedRecorder};
pub use registry::{Block, Registry};
pub use scope::Scope;
pub use snapshot::{HistogramView, KindFilter, Selection, Series, Snapshot, Value};
pub use template::{
    Counter, Family, Field, Gauge, Histogram, Kind, StatSet, Template, Unit, Values,
};
