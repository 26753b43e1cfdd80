//! HTTP/2 for the load: frames whose header blocks are encoded once and never decoded.
//!
//! The blocks use the dynamic table as common clients and servers do: what repeats is spelled out in the first message of a
//! connection and is an index in all later ones.

mod backend;
mod client;
mod frames;

pub use backend::Backend;
pub use client::Clients;
pub use frames::{Frame, Frames};

/// What the clients ask for on each connection.
#[derive(Clone, Copy)]
pub struct Multiplexed {
    /// Streams at once.
    pub streams: usize,
    /// Unary gRPC calls, or else GETs.
    pub grpc: bool,
}

/// Length of a message, either way.
const MESSAGE: usize = 100;

/// The kinds of frames that the load has to do with.
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
}

pub const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A header block as it is the first time on a connection, and as it is from then on.
pub struct Block {
    pub first: Vec<u8>,
    pub later: Vec<u8>,
}

impl Block {
    fn at(&self, is_first: bool) -> &[u8] {
        if is_first { &self.first } else { &self.later }
    }

    /// The fields of a GET.
    pub fn get(path: &str) -> Self {
        let mut first = vec![0x82, 0x86];
        for (name, value) in [(4, path), (1, "bench"), (58, "bench"), (19, "*/*")] {
            indexed_literal(&mut first, name, value);
        }
        Self { first, later: vec![0x82, 0x86, 0xc1, 0xc0, 0xbf, 0xbe] }
    }

    /// The fields of a gRPC call.
    pub fn call(path: &str) -> Self {
        let mut first = vec![0x83, 0x86];
        for (name, value) in [(4, path), (1, "bench"), (31, "application/grpc")] {
            indexed_literal(&mut first, name, value);
        }
        named_literal(&mut first, "te", "trailers");
        indexed_literal(&mut first, 58, "grpc-bench/1.0");
        Self { first, later: vec![0x83, 0x86, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe] }
    }

    /// The fields before a gRPC answer; [`Self::trailers`] come after them on the same connection.
    fn answer() -> Self {
        let mut first = vec![0x88];
        indexed_literal(&mut first, 31, "application/grpc");
        Self { first, later: vec![0x88, 0xbf] }
    }

    fn trailers() -> Self {
        let mut first = Vec::new();
        named_literal(&mut first, "grpc-status", "0");
        Self { first, later: vec![0xbe] }
    }
}

/// A literal that enters the table, its name from the static table.
fn indexed_literal(block: &mut Vec<u8>, name: u8, value: &str) {
    block.push(0x40 | name);
    block.push(value.len() as u8);
    block.extend_from_slice(value.as_bytes());
}

/// A literal that enters the table, with a name of its own.
fn named_literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.extend_from_slice(&[0x40, name.len() as u8]);
    block.extend_from_slice(name.as_bytes());
    block.push(value.len() as u8);
    block.extend_from_slice(value.as_bytes());
}

/// A gRPC message: not compressed, its length, its bytes.
fn message() -> Vec<u8> {
    let mut message = vec![0];
    message.extend_from_slice(&(MESSAGE as u32).to_be_bytes());
    message.resize(message.len() + MESSAGE, b'x');
    message
}
