//! Message heads: one byte buffer and an index into it.
//!
//! The bytes of a head are copied once from the connection into a buffer that the head owns and keeps over its reuse, so that
//! a worker which has warmed up allocates nothing. Names are lower-cased in place, as Envoy does. An edit leaves the bytes
//! alone: it flags an entry as removed, or writes the new value at the end of the same buffer. What nobody edited lies
//! together as it came from the wire and is encoded by copying whole runs of lines.
//!
//! Fields that occur twice are two entries: nothing here ever joins them, so that a matcher sees each value on its own.

mod fields;
mod head;
pub mod names;
pub(crate) mod scan;

pub use fields::{Fields, HeaderName, InvalidHeaderName, NameRef};
pub use head::{Method, RequestHead, ResponseHead, Version};
pub use names::{KnownName, NameSet};

pub(crate) use fields::{Span, is_token_byte};
pub(crate) use head::{PseudoFields, is_authority};
