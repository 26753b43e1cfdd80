//! `tcp.<stat_prefix>.*`.

crate::stat_set! {
    /// The TCP proxy: `tcp.<stat_prefix>.*`.
    pub struct TcpProxy {
        DOWNSTREAM_CX_TOTAL = counter "downstream_cx_total",
        DOWNSTREAM_CX_NO_ROUTE = counter "downstream_cx_no_route",
        DOWNSTREAM_CX_RX_BYTES_TOTAL = counter "downstream_cx_rx_bytes_total",
        DOWNSTREAM_CX_TX_BYTES_TOTAL = counter "downstream_cx_tx_bytes_total",
        DOWNSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL = counter "downstream_flow_control_paused_reading_total",
        DOWNSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL = counter "downstream_flow_control_resumed_reading_total",
        IDLE_TIMEOUT = counter "idle_timeout",
        MAX_DOWNSTREAM_CONNECTION_DURATION = counter "max_downstream_connection_duration",
    }
}
