//! What the main thread counts.

crate::stat_set! {
    /// The process: `server.*`.
    pub struct Server {
        CONCURRENCY = gauge "concurrency",
        LIVE = gauge "live",
        /// 0 live, 1 draining, 2 pre-initializing, 3 initializing.
        STATE = gauge "state",
        UPTIME = gauge "uptime",
        MEMORY_ALLOCATED = gauge "memory_allocated",
        MEMORY_PHYSICAL_SIZE = gauge "memory_physical_size",
        MEMORY_HEAP_SIZE = gauge "memory_heap_size",
        TOTAL_CONNECTIONS = gauge "total_connections",
        DAYS_UNTIL_FIRST_CERT_EXPIRING = gauge "days_until_first_cert_expiring",
        DYNAMIC_UNKNOWN_FIELDS = counter "dynamic_unknown_fields",
        INITIALIZATION_TIME_MS = histogram(Milliseconds) "initialization_time_ms",
    }
}

crate::stat_set! {
    /// Listeners of the process: `listener_manager.*`.
    pub struct ListenerManager {
        LISTENER_ADDED = counter "listener_added",
        LISTENER_MODIFIED = counter "listener_modified",
        LISTENER_REMOVED = counter "listener_removed",
        LISTENER_STOPPED = counter "listener_stopped",
        /// By updates that were refused: nothing of theirs was made.
        LISTENER_CREATE_FAILURE = counter "listener_create_failure",
        LISTENER_CREATE_SUCCESS = counter "listener_create_success",
        LISTENER_IN_PLACE_UPDATED = counter "listener_in_place_updated",
        TOTAL_LISTENERS_ACTIVE = gauge "total_listeners_active",
        TOTAL_LISTENERS_WARMING = gauge "total_listeners_warming",
        WORKERS_STARTED = gauge "workers_started",
    }
}

crate::stat_set! {
    /// Clusters of the process: `cluster_manager.*`.
    pub struct ClusterManager {
        CLUSTER_ADDED = counter "cluster_added",
        CLUSTER_MODIFIED = counter "cluster_modified",
        CLUSTER_REMOVED = counter "cluster_removed",
        ACTIVE_CLUSTERS = gauge "active_clusters",
        WARMING_CLUSTERS = gauge "warming_clusters",
    }
}

crate::stat_set! {
    /// One subscription (`cluster_manager.cds.*`, `listener_manager.lds.*`, `http.<prefix>.rds.<name>.*`, ...).
    pub struct ConfigSource {
        UPDATE_ATTEMPT = counter "update_attempt",
        UPDATE_SUCCESS = counter "update_success",
        UPDATE_FAILURE = counter "update_failure",
        UPDATE_REJECTED = counter "update_rejected",
        INIT_FETCH_TIMEOUT = counter "init_fetch_timeout",
        /// Milliseconds since the epoch.
        UPDATE_TIME = gauge "update_time",
        UPDATE_DURATION = histogram(Milliseconds) "update_duration",
    }
}

crate::stat_set! {
    /// A subscription whose updates change what serves (`cluster_manager.cds.*`, `http.<prefix>.rds.<name>.*`).
    pub struct ConfigReload {
        CONFIG_RELOAD = counter "config_reload",
        /// Milliseconds since the epoch.
        CONFIG_RELOAD_TIME_MS = gauge "config_reload_time_ms",
    }
}

crate::stat_set! {
    /// The aggregated stream: `control_plane.*`.
    pub struct ControlPlane {
        CONNECTED_STATE = gauge "connected_state",
    }
}

crate::stat_set! {
    /// Access-log files: `filesystem.*`.
    pub struct Filesystem {
        WRITE_BUFFERED = counter "write_buffered",
        WRITE_COMPLETED = counter "write_completed",
        WRITE_FAILED = counter "write_failed",
        FLUSHED_BY_TIMER = counter "flushed_by_timer",
        REOPEN_FAILED = counter "reopen_failed",
        /// Lines dropped because a file could not keep up (not Envoy's, which lets its buffer grow).
        WRITE_DROPPED = counter "write_dropped",
    }
}
