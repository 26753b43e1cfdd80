//! Step 18: lines about ended streams, in Envoy's format language.
//!
//! A [`Format`] is compiled once from text (`%OPERATOR(arguments):length%`) or from nested JSON; [`operators`] has one row
//! per operator. The same compiler serves header formatters and direct-response bodies ([`Format::append`]). A [`Log`] is a
//! format with a filter and a [`sink::Sink`]; the worker appends a line to a buffer of its own and the sink's thread
//! writes it out.

mod filter;
mod format;
mod json;
mod logger;
mod operators;
mod output;
pub mod sink;
mod time;

#[cfg(test)]
mod tests;

pub use filter::{Comparison, Filter, ThresholdOperator};
pub use format::{Environment, Format, FormatError};
pub use json::{JsonFormat, JsonTemplate};
pub use logger::{Layout, Log};
pub use operators::{DEFAULT_FORMAT, UNSUPPORTED, grpc_number as grpc_status, supported_operators};
