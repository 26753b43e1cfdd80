//! `config.core.v3.Http2ProtocolOptions` → [`Http2Options`], whichever side of the proxy they are for.

use std::time::Duration;

use api::envoy::config::core::v3::{Http2ProtocolOptions, KeepaliveSettings};

use super::compile::Compile;
use super::values;
use crate::http::config::{Http2Keepalive, Http2Options};

/// Envoy's `interval_jitter`, in percent.
const INTERVAL_JITTER: f64 = 15.0;

/// Compiles the options under `field`; without any the defaults hold.
pub fn options(
    cx: &mut Compile<'_>,
    field: &str,
    message: Option<&Http2ProtocolOptions>,
) -> Http2Options {
    let Some(message) = message else { return Http2Options::default() };
    let default = Http2Options::default();
    let keepalive = match &message.connection_keepalive {
        None => None,
        Some(settings) => {
            cx.at(field, |cx| cx.at("connection_keepalive", |cx| keepalive(cx, settings)))
        }
    };
    // A whole head has a limit, and so every field of it.
    let refused = [
        ("max_header_field_size_kb", message.max_header_field_size_kb.is_some()),
        ("disallow_obs_text", message.disallow_obs_text.is_some_and(|wanted| wanted.value)),
    ];
    for (name, _) in refused.into_iter().filter(|(_, is_set)| *is_set) {
        cx.at(field, |cx| cx.problem_at(name, format!("`{name}` is not supported yet")));
    }
    // The deprecated field has a say only where the one that replaces it has none.
    #[allow(deprecated)]
    let stream_error = message
        .override_stream_error_on_invalid_http_message
        .map(|wanted| wanted.value)
        .or(message.stream_error_on_invalid_http_messaging.then_some(true));
    Http2Options {
        hpack_table_size: values::count(message.hpack_table_size, default.hpack_table_size),
        max_concurrent_streams: values::count(
            message.max_concurrent_streams,
            default.max_concurrent_streams,
        ),
        initial_stream_window_size: message.initial_stream_window_size.map(|size| size.value),
        initial_connection_window_size: message
            .initial_connection_window_size
            .map(|size| size.value),
        allow_connect: message.allow_connect,
        max_outbound_frames: values::count(
            message.max_outbound_frames,
            default.max_outbound_frames,
        ),
        max_outbound_control_frames: values::count(
            message.max_outbound_control_frames,
            default.max_outbound_control_frames,
        ),
        max_consecutive_inbound_frames_with_empty_payload: values::count(
            message.max_consecutive_inbound_frames_with_empty_payload,
            default.max_consecutive_inbound_frames_with_empty_payload,
        ),
        max_inbound_priority_frames_per_stream: values::count(
            message.max_inbound_priority_frames_per_stream,
            default.max_inbound_priority_frames_per_stream,
        ),
        max_inbound_window_update_frames_per_data_frame_sent: values::count(
            message.max_inbound_window_update_frames_per_data_frame_sent,
            default.max_inbound_window_update_frames_per_data_frame_sent,
        ),
        stream_error_on_invalid_message: stream_error,
        keepalive,
        huffman: message.enable_huffman_encoding.is_none_or(|wanted| wanted.value),
        stream_reset_burst: message
            .stream_reset_burst
            .map_or(default.stream_reset_burst, |value| value.value),
        stream_reset_rate: message
            .stream_reset_rate
            .map_or(default.stream_reset_rate, |value| value.value),
    }
}

fn keepalive(cx: &mut Compile<'_>, message: &KeepaliveSettings) -> Option<Http2Keepalive> {
    let interval = values::limit(message.interval.as_ref(), None);
    let idle_interval = values::limit(message.connection_idle_interval.as_ref(), None);
    if interval.is_none() && idle_interval.is_none() {
        return None;
    }
    let timeout = message.timeout.as_ref().map_or(Duration::ZERO, values::duration);
    if interval.is_some_and(|interval| timeout > interval) {
        cx.problem_at("timeout", "must not be more than `interval`");
    }
    let jitter = message.interval_jitter.map_or(INTERVAL_JITTER, |percent| percent.value);
    Some(Http2Keepalive { interval, timeout, jitter_percent: jitter as u8, idle_interval })
}
