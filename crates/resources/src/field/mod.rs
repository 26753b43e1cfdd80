//! Reading a typed view out of JSON: every error at once, each with its path and what would be right.

mod findings;
mod path;
mod reader;
mod suggestion;

pub use findings::{FieldErrors, Finding, Findings, Reason};
pub use path::{FieldPath, Segment};
pub use reader::{Fields, Names, read_object};
pub use suggestion::did_you_mean;
