//! Which protocol a connection speaks, and the codec for it, made from configuration.

use codec::headers::Version;
use codec::sniff::HTTP2_PREFACE;
use codec::{http1, http2};

use super::config::{CodecType, Http2Options, HttpConnectionManager};
use crate::upstream::config::UpstreamHttpOptions;

/// What is known of a client's protocol before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// This.
    Known(Version),
    /// The first bytes will say.
    Sniff,
}

/// By configuration, then by ALPN, then by the first bytes.
pub fn choose(codec: CodecType, alpn: &[u8]) -> Choice {
    match codec {
        CodecType::Http1 => Choice::Known(Version::Http11),
        CodecType::Http2 => Choice::Known(Version::Http2),
        CodecType::Auto if alpn.is_empty() => Choice::Sniff,
        CodecType::Auto if alpn == b"h2" => Choice::Known(Version::Http2),
        CodecType::Auto => Choice::Known(Version::Http11),
    }
}

/// What the first bytes of a client say; `None` while they could still be either.
pub fn sniff(input: &[u8]) -> Option<Version> {
    let len = input.len().min(HTTP2_PREFACE.len());
    if input[..len] != HTTP2_PREFACE[..len] {
        return Some(Version::Http11);
    }
    (len == HTTP2_PREFACE.len()).then_some(Version::Http2)
}

/// HTTP/1 towards clients.
pub fn http1_of(config: &HttpConnectionManager) -> http1::Options {
    http1::Options {
        max_head_bytes: config.limits.max_request_headers_kb as usize * 1024,
        max_fields: config.limits.max_headers_count as usize,
        allow_absolute_form: config.http1.allow_absolute_url,
        enable_trailers: config.http1.enable_trailers,
    }
}

/// HTTP/2 with the limits that heads have on that side. A window that is configured is what it is from the first byte on,
/// and may still grow.
pub fn http2_of(config: &Http2Options, max_head_kb: u32, max_fields: u32) -> http2::Options {
    let default = http2::Options::default();
    let initial_stream_window =
        config.initial_stream_window_size.unwrap_or(default.initial_stream_window);
    let initial_connection_window =
        config.initial_connection_window_size.unwrap_or(default.initial_connection_window);
    http2::Options {
        max_head_bytes: max_head_kb as usize * 1024,
        max_fields: max_fields as usize,
        header_table_size: config.hpack_table_size,
        huffman: config.huffman,
        max_concurrent_streams: config.max_concurrent_streams,
        initial_stream_window,
        initial_connection_window,
        max_stream_window: default.max_stream_window.max(initial_stream_window),
        max_connection_window: default.max_connection_window.max(initial_connection_window),
        allow_connect: config.allow_connect,
        stream_error_on_invalid_http_message: config
            .stream_error_on_invalid_message
            .unwrap_or(default.stream_error_on_invalid_http_message),
        max_outbound_frames: config.max_outbound_frames,
        max_outbound_control_frames: config.max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload: config
            .max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream: config.max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent: config
            .max_inbound_window_update_frames_per_data_frame_sent,
        stream_reset_burst: u32::try_from(config.stream_reset_burst).unwrap_or(u32::MAX),
        stream_reset_rate: u32::try_from(config.stream_reset_rate).unwrap_or(u32::MAX),
        ..default
    }
}

/// HTTP/1 towards hosts.
pub fn http1_to(config: &UpstreamHttpOptions) -> http1::Options {
    http1::Options {
        max_head_bytes: MAX_HTTP1_RESPONSE_HEAD_KB * 1024,
        max_fields: config.max_response_headers_count as usize,
        enable_trailers: config.enable_trailers,
        ..http1::Options::default()
    }
}

/// The largest head of a response that a host may send, by HTTP version, in KiB: Envoy's.
const MAX_HTTP1_RESPONSE_HEAD_KB: usize = 80;
const MAX_HTTP2_RESPONSE_HEAD_KB: u32 = 60;

/// HTTP/2 towards hosts.
pub fn http2_to(config: &UpstreamHttpOptions) -> http2::Options {
    http2_of(&config.http2, MAX_HTTP2_RESPONSE_HEAD_KB, config.max_response_headers_count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_is_told_from_a_request() {
        assert_eq!(sniff(b""), None);
        assert_eq!(sniff(b"PRI * HTT"), None);
        assert_eq!(sniff(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"), Some(Version::Http2));
        assert_eq!(sniff(b"PRI * HTTP/2.0\r\n\r\nXM"), Some(Version::Http11));
        assert_eq!(sniff(b"PUT / HTTP/1.1\r\n"), Some(Version::Http11));
        assert_eq!(sniff(b"GET"), Some(Version::Http11));
    }

    #[test]
    fn configuration_comes_before_alpn() {
        assert_eq!(choose(CodecType::Http1, b"h2"), Choice::Known(Version::Http11));
        assert_eq!(choose(CodecType::Http2, b"http/1.1"), Choice::Known(Version::Http2));
        assert_eq!(choose(CodecType::Auto, b"h2"), Choice::Known(Version::Http2));
        assert_eq!(choose(CodecType::Auto, b"http/1.1"), Choice::Known(Version::Http11));
        assert_eq!(choose(CodecType::Auto, b""), Choice::Sniff);
    }
}
