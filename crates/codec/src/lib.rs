//! Bytes ⇄ messages, without sockets, clock, threads or configuration.
//!
//! * [`grpc`]: where messages begin and end
//! * [`headers`]: heads of messages as one buffer and an index
//! * [`event`]: what decoders say, the same for every version of HTTP
//! * [`server`], [`client`]: the two ends of a connection, whichever version it speaks
//! * [`http1`]: HTTP/1.0 and HTTP/1.1
//! * [`http2`]: HTTP/2 and HPACK
//! * [`raw`]: the payload of a tunnel
//! * [`sniff`]: which protocol a connection starts with
//! * [`tls_client_hello`]: what a TLS client asks for
//!
//! Decoders are given what has been read and has not been consumed yet, and answer one event at a time and how many bytes it
//! took. Body bytes are never copied: events give their range in that input. Encoders write to the end of a `Vec<u8>`.

pub mod client;
pub mod event;
pub mod grpc;
pub mod headers;
pub mod http1;
pub mod http2;
mod multiplexing;
pub mod raw;
pub mod server;
pub mod sniff;
pub mod tls_client_hello;
