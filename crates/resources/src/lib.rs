//! Kubernetes-style objects, kept whole, and everything that is known about them.
//!
//! Top to bottom, as a write travels:
//!
//! * [`yaml`] reads documents and remembers where every field was written;
//! * [`object`] keeps an object whole as JSON, so that no field is ever lost;
//! * [`field`] is how a typed view is read out of one: every error at once, each with its path and what would be right;
//! * [`rules`] are the formats that fields of many kinds share (host names, labels, headers, durations);
//! * [`terms`] are the pieces that several kinds are made of (string matches, destinations, traffic policies);
//! * [`kinds`] has every kind that is understood, one file each, and the [`kinds::KINDS`] table;
//! * [`selector`] picks objects by label;
//! * [`store`] is the port behind which objects live, with the rules that every adapter keeps.

pub mod field;
pub mod kinds;
pub mod object;
pub mod rules;
pub mod selector;
pub mod store;
pub mod terms;
pub mod yaml;
