//! What Istio's filters share.

pub mod labels;
pub mod series;
pub mod settings;
pub mod workload;
