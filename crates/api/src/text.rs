//! YAML and JSON → protobuf, with the file, line, column, path and snippet of everything that is wrong.
//!
//! A document becomes a tree with places ([`tree`]), the tree becomes wire bytes by the schema ([`encode`]). All
//! errors are collected; nothing stops at the first.

mod encode;
mod scalar;
mod source;
mod suggest;
mod tree;

pub use encode::{encode_struct, is_typed_struct};
pub use source::{Place, Problem, Source, Sources, Spans};
pub use suggest::closest;

use crate::schema::{Message, Schema};

/// A message read from text.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The message's wire bytes; what could not be understood is left out of them.
    pub bytes: Vec<u8>,
    /// Where in the text each path is.
    pub spans: Spans,
    /// What is wrong with the text; empty, with [`Self::unknown`], when the bytes are whole.
    pub problems: Vec<Problem>,
    /// Fields that the schema does not have: wrong, too, unless one says that they may be there.
    pub unknown: Vec<Problem>,
}

impl Loaded {
    /// Everything that is wrong, unknown fields included.
    pub fn all_problems(&self) -> Vec<Problem> {
        [self.problems.as_slice(), self.unknown.as_slice()].concat()
    }
}

/// Reads one message of type `message` from `sources`, each laid over the one before: objects merge, lists append,
/// scalars override.
pub fn load(schema: &Schema, message: Message, sources: &Sources) -> Loaded {
    let mut problems = Vec::new();
    let mut whole: Option<tree::Node> = None;
    for (index, source) in sources.iter().enumerate() {
        match tree::parse(&source.text, index as u8) {
            Ok(document) => match &mut whole {
                Some(whole) => tree::merge(whole, document),
                None => whole = Some(document),
            },
            Err(found) => problems.extend(found),
        }
    }
    let mut loaded =
        Loaded { bytes: Vec::new(), spans: Spans::default(), problems, unknown: Vec::new() };
    if let Some(node) = whole {
        encode::Encoder::new(schema, &mut loaded).document(&node, message);
    }
    loaded
}
