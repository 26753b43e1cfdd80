//! HPACK (RFC 7541): header blocks ⇄ heads.
//!
//! * [`integer`], [`huffman`]: the primitives
//! * [`static_table`], [`table`]: what indexes name
//! * [`decoder`]: a block straight into the buffer of a head, each byte copied once; [`sinks`] place its fields and judge them
//! * [`encoder`]: a head into a block; [`recollection`] finds out which fields repeat and are worth a place in the table
//!
//! The table of a connection allocates nothing before its first entry, so an idle connection has none.

mod decoder;
mod encoder;
mod huffman;
mod integer;
mod recollection;
mod sinks;
mod static_table;
mod table;

#[cfg(test)]
mod tests;

pub use decoder::Decoder;
pub use encoder::Encoder;

/// The size of a table until SETTINGS say otherwise (RFC 9113 §6.5.2).
pub const DEFAULT_TABLE_SIZE: u32 = 4096;

/// What a field counts beside its bytes (RFC 7541 §4.1).
const ENTRY_OVERHEAD: usize = 32;

/// The most that one block may hold once it is decoded. Every crumb of a cookie and every pseudo field counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of names and values and 32 for each field, as SETTINGS_MAX_HEADER_LIST_SIZE counts.
    pub max_bytes: usize,
    /// Fields.
    pub max_fields: usize,
}

/// Why a block gives no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// The table is out of step: a connection error, COMPRESSION_ERROR.
    #[error("HPACK: {0}")]
    Compression(&'static str),
    /// RFC 9113 §8.1.1 calls the message malformed. The table is in step.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// More bytes than allowed. The table is in step.
    #[error("header block is too large")]
    TooLarge,
    /// More fields than allowed. The table is in step.
    #[error("too many header fields")]
    TooMany,
}

/// Pseudo fields (RFC 9113 §8.3, RFC 8441 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pseudo {
    Authority,
    Method,
    Path,
    Protocol,
    Scheme,
    Status,
}

impl Pseudo {
    fn from_bytes(name: &[u8]) -> Option<Pseudo> {
        Some(match name {
            b":authority" => Pseudo::Authority,
            b":method" => Pseudo::Method,
            b":path" => Pseudo::Path,
            b":protocol" => Pseudo::Protocol,
            b":scheme" => Pseudo::Scheme,
            b":status" => Pseudo::Status,
            _ => return None,
        })
    }

    const fn as_str(self) -> &'static str {
        match self {
            Pseudo::Authority => ":authority",
            Pseudo::Method => ":method",
            Pseudo::Path => ":path",
            Pseudo::Protocol => ":protocol",
            Pseudo::Scheme => ":scheme",
            Pseudo::Status => ":status",
        }
    }
}
