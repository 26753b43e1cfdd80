//! `cluster.<name>.*`. Split so that a thread allocates only what it touches: membership is the main thread's, times and
//! codes come with the first request.

crate::stat_set! {
    /// Connections and requests of a cluster: `cluster.<name>.*`.
    pub struct Cluster {
        UPSTREAM_CX_TOTAL = counter "upstream_cx_total",
        UPSTREAM_CX_ACTIVE = gauge "upstream_cx_active",
        UPSTREAM_CX_HTTP1_TOTAL = counter "upstream_cx_http1_total",
        UPSTREAM_CX_HTTP2_TOTAL = counter "upstream_cx_http2_total",
        UPSTREAM_CX_CONNECT_FAIL = counter "upstream_cx_connect_fail",
        UPSTREAM_CX_CONNECT_TIMEOUT = counter "upstream_cx_connect_timeout",
        UPSTREAM_CX_OVERFLOW = counter "upstream_cx_overflow",
        UPSTREAM_CX_DESTROY = counter "upstream_cx_destroy",
        UPSTREAM_CX_DESTROY_LOCAL = counter "upstream_cx_destroy_local",
        UPSTREAM_CX_DESTROY_REMOTE = counter "upstream_cx_destroy_remote",
        UPSTREAM_CX_DESTROY_WITH_ACTIVE_RQ = counter "upstream_cx_destroy_with_active_rq",
        UPSTREAM_CX_DESTROY_LOCAL_WITH_ACTIVE_RQ = counter "upstream_cx_destroy_local_with_active_rq",
        UPSTREAM_CX_DESTROY_REMOTE_WITH_ACTIVE_RQ = counter "upstream_cx_destroy_remote_with_active_rq",
        UPSTREAM_CX_IDLE_TIMEOUT = counter "upstream_cx_idle_timeout",
        UPSTREAM_CX_NONE_HEALTHY = counter "upstream_cx_none_healthy",
        UPSTREAM_CX_PROTOCOL_ERROR = counter "upstream_cx_protocol_error",
        UPSTREAM_CX_CLOSE_NOTIFY = counter "upstream_cx_close_notify",
        UPSTREAM_CX_MAX_REQUESTS = counter "upstream_cx_max_requests",
        UPSTREAM_CX_MAX_DURATION_REACHED = counter "upstream_cx_max_duration_reached",
        /// Plaintext, as all bytes that are counted here.
        UPSTREAM_CX_RX_BYTES_TOTAL = counter "upstream_cx_rx_bytes_total",
        UPSTREAM_CX_RX_BYTES_BUFFERED = gauge "upstream_cx_rx_bytes_buffered",
        UPSTREAM_CX_TX_BYTES_TOTAL = counter "upstream_cx_tx_bytes_total",
        UPSTREAM_CX_TX_BYTES_BUFFERED = gauge "upstream_cx_tx_bytes_buffered",
        // Requests.
        UPSTREAM_RQ_TOTAL = counter "upstream_rq_total",
        UPSTREAM_RQ_ACTIVE = gauge "upstream_rq_active",
        UPSTREAM_RQ_PENDING_TOTAL = counter "upstream_rq_pending_total",
        UPSTREAM_RQ_PENDING_ACTIVE = gauge "upstream_rq_pending_active",
        UPSTREAM_RQ_PENDING_OVERFLOW = counter "upstream_rq_pending_overflow",
        UPSTREAM_RQ_PENDING_FAILURE_EJECT = counter "upstream_rq_pending_failure_eject",
        UPSTREAM_RQ_CANCELLED = counter "upstream_rq_cancelled",
        UPSTREAM_RQ_TIMEOUT = counter "upstream_rq_timeout",
        UPSTREAM_RQ_PER_TRY_TIMEOUT = counter "upstream_rq_per_try_timeout",
        UPSTREAM_RQ_PER_TRY_IDLE_TIMEOUT = counter "upstream_rq_per_try_idle_timeout",
        UPSTREAM_RQ_RX_RESET = counter "upstream_rq_rx_reset",
        UPSTREAM_RQ_TX_RESET = counter "upstream_rq_tx_reset",
        UPSTREAM_RQ_RETRY = counter "upstream_rq_retry",
        UPSTREAM_RQ_RETRY_SUCCESS = counter "upstream_rq_retry_success",
        UPSTREAM_RQ_RETRY_OVERFLOW = counter "upstream_rq_retry_overflow",
        UPSTREAM_RQ_RETRY_LIMIT_EXCEEDED = counter "upstream_rq_retry_limit_exceeded",
        RETRY_OR_SHADOW_ABANDONED = counter "retry_or_shadow_abandoned",
        UPSTREAM_RQ_RETRY_BACKOFF_EXPONENTIAL = counter "upstream_rq_retry_backoff_exponential",
        LB_HEALTHY_PANIC = counter "lb_healthy_panic",
        UPSTREAM_FLOW_CONTROL_PAUSED_READING_TOTAL = counter "upstream_flow_control_paused_reading_total",
        UPSTREAM_FLOW_CONTROL_RESUMED_READING_TOTAL = counter "upstream_flow_control_resumed_reading_total",
    }
}

crate::stat_set! {
    /// Endpoints of a cluster, their updates and the cluster's limits: `cluster.<name>.*`. Written by the main thread alone.
    pub struct ClusterMembership {
        MEMBERSHIP_TOTAL = gauge "membership_total",
        MEMBERSHIP_HEALTHY = gauge "membership_healthy",
        MEMBERSHIP_DEGRADED = gauge "membership_degraded",
        MEMBERSHIP_EXCLUDED = gauge "membership_excluded",
        MEMBERSHIP_CHANGE = counter "membership_change",
        MAX_HOST_WEIGHT = gauge "max_host_weight",
        /// 1 while a newer version of the cluster waits for what it needs.
        WARMING_STATE = gauge "warming_state",
        UPDATE_ATTEMPT = counter "update_attempt",
        UPDATE_SUCCESS = counter "update_success",
        UPDATE_FAILURE = counter "update_failure",
        UPDATE_REJECTED = lazy "update_rejected",
        UPDATE_EMPTY = counter "update_empty",
        UPDATE_NO_REBUILD = counter "update_no_rebuild",
        // Limits that are reached, and with `track_remaining` what is left of them; set when somebody looks.
        DEFAULT_CX_OPEN = gauge "circuit_breakers.default.cx_open",
        DEFAULT_RQ_PENDING_OPEN = gauge "circuit_breakers.default.rq_pending_open",
        DEFAULT_RQ_OPEN = gauge "circuit_breakers.default.rq_open",
        DEFAULT_RQ_RETRY_OPEN = gauge "circuit_breakers.default.rq_retry_open",
        HIGH_CX_OPEN = gauge "circuit_breakers.high.cx_open",
        HIGH_RQ_PENDING_OPEN = gauge "circuit_breakers.high.rq_pending_open",
        HIGH_RQ_OPEN = gauge "circuit_breakers.high.rq_open",
        HIGH_RQ_RETRY_OPEN = gauge "circuit_breakers.high.rq_retry_open",
        DEFAULT_REMAINING_CX = lazy_gauge "circuit_breakers.default.remaining_cx",
        DEFAULT_REMAINING_PENDING = lazy_gauge "circuit_breakers.default.remaining_pending",
        DEFAULT_REMAINING_RQ = lazy_gauge "circuit_breakers.default.remaining_rq",
        DEFAULT_REMAINING_RETRIES = lazy_gauge "circuit_breakers.default.remaining_retries",
        HIGH_REMAINING_CX = lazy_gauge "circuit_breakers.high.remaining_cx",
        HIGH_REMAINING_PENDING = lazy_gauge "circuit_breakers.high.remaining_pending",
        HIGH_REMAINING_RQ = lazy_gauge "circuit_breakers.high.remaining_rq",
        HIGH_REMAINING_RETRIES = lazy_gauge "circuit_breakers.high.remaining_retries",
    }
}

crate::stat_set! {
    /// Times of a cluster's requests and connections.
    pub struct ClusterTimes {
        UPSTREAM_RQ_TIME = histogram(Milliseconds) "upstream_rq_time",
        UPSTREAM_CX_CONNECT_MS = histogram(Milliseconds) "upstream_cx_connect_ms",
        UPSTREAM_CX_LENGTH_MS = histogram(Milliseconds) "upstream_cx_length_ms",
        UPSTREAM_RQ_PER_CX = histogram(Unspecified) "upstream_rq_per_cx",
    }
}

crate::stat_set! {
    /// Answers of a cluster by status; see [`usual_code`]. Count with [`Local::response`](crate::stats::Local::response).
    pub struct ClusterCodes {
        UPSTREAM_RQ_COMPLETED = counter "upstream_rq_completed",
        UPSTREAM_RQ_CLASS = classes "upstream_rq_",
        UPSTREAM_RQ_CODE = codes(USUAL_CODES) "upstream_rq_",
    }
}

crate::stat_set! {
    /// Answers of a cluster with a status that is not one of [`USUAL_CODES`].
    pub struct ClusterRareCodes {
        UPSTREAM_RQ_CODE = codes(&RARE_CODES) "upstream_rq_",
    }
}

crate::stat_set! {
    /// Ejections: `cluster.<name>.outlier_detection.*`.
    pub struct Outliers {
        EJECTIONS_ENFORCED_TOTAL = counter "outlier_detection.ejections_enforced_total",
        EJECTIONS_ACTIVE = gauge "outlier_detection.ejections_active",
        EJECTIONS_OVERFLOW = counter "outlier_detection.ejections_overflow",
        EJECTIONS_ENFORCED_CONSECUTIVE_5XX = counter "outlier_detection.ejections_enforced_consecutive_5xx",
        EJECTIONS_DETECTED_CONSECUTIVE_5XX = counter "outlier_detection.ejections_detected_consecutive_5xx",
        EJECTIONS_ENFORCED_CONSECUTIVE_GATEWAY_FAILURE = counter "outlier_detection.ejections_enforced_consecutive_gateway_failure",
        EJECTIONS_DETECTED_CONSECUTIVE_GATEWAY_FAILURE = counter "outlier_detection.ejections_detected_consecutive_gateway_failure",
        EJECTIONS_ENFORCED_CONSECUTIVE_LOCAL_ORIGIN_FAILURE = counter "outlier_detection.ejections_enforced_consecutive_local_origin_failure",
        EJECTIONS_DETECTED_CONSECUTIVE_LOCAL_ORIGIN_FAILURE = counter "outlier_detection.ejections_detected_consecutive_local_origin_failure",
    }
}

/// Statuses with a cell in [`ClusterCodes`].
pub const USUAL_CODES: &[u16] = &[
    101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409,
    410, 412, 413, 422, 426, 429, 431, 499, 500, 501, 502, 503, 504,
];

/// All statuses from 100 to 599; a thread allocates their cells when a cluster first sends an unusual one.
pub const RARE_CODES: [u16; 500] = {
    let mut codes = [0; 500];
    let mut i = 0;
    while i < codes.len() {
        codes[i] = 100 + i as u16;
        i += 1;
    }
    codes
};

/// The index of `status` in [`USUAL_CODES`].
pub fn usual_code(status: u16) -> Option<usize> {
    const INDEX: [u8; 600] = {
        let mut index = [u8::MAX; 600];
        let mut i = 0;
        while i < USUAL_CODES.len() {
            index[USUAL_CODES[i] as usize] = i as u8;
            i += 1;
        }
        index
    };
    INDEX.get(status as usize).filter(|i| **i != u8::MAX).map(|i| *i as usize)
}

impl crate::stats::Local<ClusterCodes> {
    /// Counts one answer: completed, its class and its status. For a status that is not usual, `rare` is called to count it in
    /// [`ClusterRareCodes`] (index: status - 100).
    pub fn response(&self, status: u16, rare: impl FnOnce(usize)) {
        self.inc(ClusterCodes::UPSTREAM_RQ_COMPLETED);
        let Some(class @ 0..5) = (status / 100).checked_sub(1) else { return };
        self.inc_member(ClusterCodes::UPSTREAM_RQ_CLASS, class.into());
        match usual_code(status) {
            Some(index) => self.inc_member(ClusterCodes::UPSTREAM_RQ_CODE, index),
            None => rare(status as usize - 100),
        }
    }
}
