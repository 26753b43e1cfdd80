//! `listener.<address>.*`.

crate::stat_set! {
    /// Accepted connections of a listener: `listener.<address>.*`.
    pub struct Listener {
        DOWNSTREAM_CX_TOTAL = counter "downstream_cx_total",
        DOWNSTREAM_CX_ACTIVE = gauge "downstream_cx_active",
        DOWNSTREAM_CX_DESTROY = counter "downstream_cx_destroy",
        DOWNSTREAM_CX_OVERFLOW = counter "downstream_cx_overflow",
        DOWNSTREAM_CX_TRANSPORT_SOCKET_CONNECT_TIMEOUT = counter "downstream_cx_transport_socket_connect_timeout",
        DOWNSTREAM_PRE_CX_ACTIVE = gauge "downstream_pre_cx_active",
        DOWNSTREAM_PRE_CX_TIMEOUT = counter "downstream_pre_cx_timeout",
        DOWNSTREAM_LISTENER_FILTER_ERROR = counter "downstream_listener_filter_error",
        DOWNSTREAM_LISTENER_FILTER_REMOTE_CLOSE = counter "downstream_listener_filter_remote_close",
        NO_FILTER_CHAIN_MATCH = counter "no_filter_chain_match",
    }
}

crate::stat_set! {
    /// Times of a listener's connections: `listener.<address>.*`.
    pub struct ListenerTimes {
        DOWNSTREAM_CX_LENGTH_MS = histogram(Milliseconds) "downstream_cx_length_ms",
    }
}
