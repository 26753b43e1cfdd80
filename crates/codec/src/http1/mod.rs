//! HTTP/1.0 and HTTP/1.1 (RFC 9112), both ends of a connection.
//!
//! Whatever two parsers could read in two ways is refused: see `docs/compat/http1.md` for the list beside Envoy's behaviour.

mod body;
mod chunked;
mod client;
mod encode;
mod framing;
mod head;
mod lines;
mod server;
mod target;

pub use body::DataTail;
pub use client::ClientCodec;
pub use encode::reason_phrase;
pub(crate) use framing::parse_length;
pub use server::ServerCodec;

/// What a codec takes and gives; the defaults are Envoy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The longest head, and the longest trailers, in bytes: `max_request_headers_kb`.
    pub max_head_bytes: usize,
    /// The most fields of a head, and of trailers: `max_headers_count`.
    pub max_fields: usize,
    /// Takes request targets in absolute form: `allow_absolute_url`.
    pub allow_absolute_form: bool,
    /// Gives trailers out and writes them; otherwise they are checked and dropped: `enable_trailers`.
    pub enable_trailers: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_head_bytes: 60 * 1024,
            max_fields: 100,
            allow_absolute_form: true,
            enable_trailers: false,
        }
    }
}

/// A breach of protocol before it is known which stream it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) details: &'static str,
    pub(crate) reason: &'static str,
}

impl Refusal {
    pub(crate) const fn bad_request(details: &'static str, reason: &'static str) -> Refusal {
        Refusal { status: 400, details, reason }
    }

    pub(crate) const fn codec_error(reason: &'static str) -> Refusal {
        Refusal::bad_request("http1.codec_error", reason)
    }
}

#[cfg(test)]
mod tests;
