//! `http2.*`: of all clients' connections together, and `cluster.<name>.http2.*`: of those to a cluster's hosts.

crate::stat_set! {
    /// What HTTP/2 connections see, under Envoy's names.
    pub struct Http2 {
        GOAWAY_SENT = counter "http2.goaway_sent",
        HEADER_OVERFLOW = counter "http2.header_overflow",
        HEADERS_CB_NO_STREAM = counter "http2.headers_cb_no_stream",
        INBOUND_EMPTY_FRAMES_FLOOD = counter "http2.inbound_empty_frames_flood",
        INBOUND_PRIORITY_FRAMES_FLOOD = counter "http2.inbound_priority_frames_flood",
        INBOUND_WINDOW_UPDATE_FRAMES_FLOOD = counter "http2.inbound_window_update_frames_flood",
        KEEPALIVE_TIMEOUT = counter "http2.keepalive_timeout",
        OUTBOUND_CONTROL_FLOOD = counter "http2.outbound_control_flood",
        OUTBOUND_FLOOD = counter "http2.outbound_flood",
        RX_MESSAGING_ERROR = counter "http2.rx_messaging_error",
        RX_RESET = counter "http2.rx_reset",
        STREAM_REFUSED_ERRORS = counter "http2.stream_refused_errors",
        TRAILERS = counter "http2.trailers",
        TX_RESET = counter "http2.tx_reset",
        STREAMS_ACTIVE = gauge "http2.streams_active",
    }
}
