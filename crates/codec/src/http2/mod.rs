//! HTTP/2 (RFC 9113, RFC 7541, RFC 8441), both ends of a connection.
//!
//! * `frame`, `settings`: what goes over the wire
//! * `streams`, `window`: what is known of each stream, and how much may be sent on it
//! * `connection`: what arrives, the same for both ends; `output`: what leaves
//! * `server`, `client`: what a block of header fields means at each end; `both_ends`: what is the same for either
//! * `hpack`: blocks of header fields ⇄ heads
//! * `limits`: what a peer may not do too often
//!
//! Body bytes are not copied, and the other side's pace is this side's: a window is opened again only for bytes that have
//! been [passed on](ServerCodec::passed_on).

mod both_ends;
mod client;
mod connection;
mod frame;
pub mod hpack;
mod limits;
mod output;
mod server;
mod settings;
mod streams;
mod window;

pub use client::ClientCodec;
pub use limits::Counts;
pub use server::ServerCodec;

/// The window that a stream or connection starts with if nobody says otherwise (RFC 9113 §6.9.2): 64 KiB less one byte.
pub const RFC_WINDOW: u32 = 65_535;

/// The most that a window can be.
pub const MAX_WINDOW: u32 = 0x7fff_ffff;

/// What a codec takes and gives. The limits are Envoy's with Envoy's defaults (`http2_protocol_options`); the windows are
/// not: they start small and grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The longest decoded head, and the longest trailers, in bytes: `max_request_headers_kb`.
    pub max_head_bytes: usize,
    /// The most fields of a head, and of trailers, cookie crumbs counted one by one: `max_headers_count`.
    pub max_fields: usize,
    /// Bytes of the peer's dynamic table that we keep: `hpack_table_size`. It bounds our own table too.
    pub header_table_size: u32,
    /// Huffman codes in what we send, where they are shorter: `enable_huffman_encoding`.
    pub huffman: bool,
    /// Streams at a time. A server refuses more; a client does not open more, whatever the server allows.
    pub max_concurrent_streams: u32,
    /// What a peer may send on a stream before anything is passed on: `initial_stream_window_size`.
    pub initial_stream_window: u32,
    /// The same for all streams of the connection: `initial_connection_window_size`. More than one stream's, so that a stream
    /// that nobody reads does not hold up the others.
    pub initial_connection_window: u32,
    /// How far a stream's window may grow while what arrives is passed on without delay, if the way to the peer is long.
    pub max_stream_window: u32,
    /// How far the connection's may.
    pub max_connection_window: u32,
    /// A server takes extended CONNECT (RFC 8441): `allow_connect`.
    pub allow_connect: bool,
    /// A malformed message costs its stream, not the connection: `override_stream_error_on_invalid_http_message`.
    pub stream_error_on_invalid_http_message: bool,
    /// Frames of all kinds that may wait for the peer to read.
    pub max_outbound_frames: u32,
    /// PING, SETTINGS and RST_STREAM frames that may wait for the peer to read.
    pub max_outbound_control_frames: u32,
    /// HEADERS, CONTINUATION and DATA frames in a row that have no payload and end nothing.
    pub max_consecutive_inbound_frames_with_empty_payload: u32,
    /// PRIORITY frames for each stream so far, and one.
    pub max_inbound_priority_frames_per_stream: u32,
    /// WINDOW_UPDATE frames for each DATA frame that we have sent.
    pub max_inbound_window_update_frames_per_data_frame_sent: u32,
    /// RST_STREAM frames that a client may send at once ...
    pub stream_reset_burst: u32,
    /// ... and how many more a second it may then send.
    pub stream_reset_rate: u32,
    /// A client that takes back most of so many requests before they are answered is a flooder:
    /// `overload.premature_reset_total_stream_count`.
    pub premature_reset_total_stream_count: u32,
    /// A request that has waited for its answer so many milliseconds is taken back with reason:
    /// `overload.premature_reset_min_stream_lifetime_seconds`.
    pub premature_reset_min_stream_lifetime_ms: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_head_bytes: 60 * 1024,
            max_fields: 100,
            header_table_size: 4096,
            huffman: true,
            max_concurrent_streams: 1024,
            initial_stream_window: RFC_WINDOW,
            initial_connection_window: 1 << 20,
            max_stream_window: 4 << 20,
            max_connection_window: 16 << 20,
            allow_connect: false,
            stream_error_on_invalid_http_message: false,
            max_outbound_frames: 10_000,
            max_outbound_control_frames: 1_000,
            max_consecutive_inbound_frames_with_empty_payload: 1,
            max_inbound_priority_frames_per_stream: 100,
            max_inbound_window_update_frames_per_data_frame_sent: 10,
            stream_reset_burst: 1_000,
            stream_reset_rate: 33,
            premature_reset_total_stream_count: 500,
            premature_reset_min_stream_lifetime_ms: 1_000,
        }
    }
}

#[cfg(test)]
mod tests;
