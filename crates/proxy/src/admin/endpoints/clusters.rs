//! `/clusters`: `admin.v3.Clusters`, or a line a fact.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};

use super::super::ClusterStatus;
use super::{AdminContext, Endpoint, Query, Reply, address_json, regex};
use crate::listener::config::ListenAddress;
use crate::upstream::config::BreakerThresholds;
use crate::upstream::host::{DiscoveredHealth, Host, HostAddress, HostCounters};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/clusters",
    changes: false,
    help: "upstream cluster status",
    parameters: &[
        ("filter", "Regular expression for filtering clusters by name"),
        ("format", "File format to use; One of (text, json)"),
    ],
    handle,
};

fn handle(context: &AdminContext, query: &Query) -> Reply {
    let mut clusters = context.state.clusters();
    clusters.sort_by(|a, b| a.cluster.config.name.cmp(&b.cluster.config.name));
    if let Some(pattern) = query.get("filter") {
        match regex(pattern) {
            Ok(regex) => {
                clusters.retain(|status| regex.is_match(status.cluster.config.name.as_bytes()))
            }
            Err(reply) => return reply,
        }
    }
    match query.get("format") {
        None | Some("text") => Reply::text(clusters.iter().map(text).collect::<String>()),
        Some("json") => Reply::json(
            &json!({"cluster_statuses": clusters.iter().map(status).collect::<Vec<_>>()}),
        ),
        Some(_) => Reply::error(400, "usage: /clusters?format=(text|json)\n"),
    }
}

/// A number by Envoy's name.
type Number = (&'static str, u64);

/// A host's counters, then its gauges.
fn numbers(counters: &HostCounters) -> ([Number; 6], [Number; 3]) {
    (
        [
            ("cx_connect_fail", counters.cx_connect_fail.load(Ordering::Relaxed)),
            ("cx_total", counters.cx_total.load(Ordering::Relaxed)),
            ("rq_error", counters.rq_error.load(Ordering::Relaxed)),
            ("rq_success", counters.rq_success.load(Ordering::Relaxed)),
            ("rq_timeout", counters.rq_timeout.load(Ordering::Relaxed)),
            ("rq_total", counters.rq_total.load(Ordering::Relaxed)),
        ],
        [
            ("cx_active", counters.cx_active.load(Ordering::Relaxed).into()),
            ("rq_active", counters.rq_active.load(Ordering::Relaxed).into()),
            ("rq_pending_active", 0),
        ],
    )
}

fn text(status: &ClusterStatus) -> String {
    let config = &status.cluster.config;
    let name = &config.name;
    let mut out = String::new();
    let mut line = |key: &str, value: &dyn Display| {
        let _ = writeln!(out, "{name}::{key}::{value}");
    };
    line("observability_name", &config.stat_name);
    for (priority, breakers) in ["default_priority", "high_priority"].iter().zip(&config.breakers) {
        for (limit, value) in limits(breakers) {
            line(&format!("{priority}::{limit}"), &value);
        }
    }
    line("added_via_api", &status.added_via_api);
    for host in &status.hosts.hosts {
        let mut fact =
            |key: &str, value: &dyn Display| line(&format!("{}::{key}", host.address_text), value);
        let (counters, gauges) = numbers(&host.counters);
        let mut all: Vec<_> = counters.into_iter().chain(gauges).collect();
        all.sort_unstable();
        all.iter().for_each(|(key, value)| fact(key, value));
        fact("hostname", &host.hostname);
        fact("health_flags", &health_flags(host));
        fact("weight", &host.weight());
        fact("region", &host.locality.region);
        fact("zone", &host.locality.zone);
        fact("sub_zone", &host.locality.sub_zone);
        fact("canary", &false);
        fact("priority", &host.priority);
        fact("success_rate", &-1);
        fact("local_origin_success_rate", &-1);
    }
    out
}

fn limits(breakers: &BreakerThresholds) -> [(&'static str, u32); 4] {
    [
        ("max_connections", breakers.max_connections),
        ("max_pending_requests", breakers.max_pending_requests),
        ("max_requests", breakers.max_requests),
        ("max_retries", breakers.max_retries),
    ]
}

fn health_flags(host: &Host) -> String {
    let flags = [
        (host.active_check_failed(), "/failed_active_hc"),
        (host.outlier.is_ejected(), "/failed_outlier_check"),
        (host.discovered_health() == DiscoveredHealth::Unhealthy, "/failed_eds_health"),
        (host.discovered_health() == DiscoveredHealth::Degraded, "/degraded_eds_health"),
        (host.discovered_health() == DiscoveredHealth::Draining, "/eds_status_draining"),
    ];
    let set: String = flags.iter().filter(|(on, _)| *on).map(|(_, flag)| *flag).collect();
    if set.is_empty() { "healthy".to_owned() } else { set }
}

fn status(status: &ClusterStatus) -> Value {
    let config = &status.cluster.config;
    let thresholds =
        config.breakers.iter().zip([None, Some("HIGH")]).map(|(breakers, priority)| {
            let mut threshold: Map<String, Value> = limits(breakers)
                .iter()
                .map(|(limit, value)| ((*limit).to_owned(), json!(value)))
                .collect();
            threshold.extend(priority.map(|priority| ("priority".to_owned(), json!(priority))));
            Value::Object(threshold)
        });
    let mut out = json!({
        "name": &*config.name,
        "host_statuses": status.hosts.hosts.iter().map(|host| host_status(host)).collect::<Vec<_>>(),
        "circuit_breakers": {"thresholds": thresholds.collect::<Vec<_>>()},
        "observability_name": &*config.stat_name,
    });
    if let Some(name) = &status.eds_service_name {
        out["eds_service_name"] = json!(&**name);
    }
    if status.added_via_api {
        out["added_via_api"] = true.into();
    }
    out
}

fn host_status(host: &Host) -> Value {
    let address = match &host.address {
        HostAddress::Tcp(address) => ListenAddress::Tcp(*address),
        HostAddress::Pipe(path) => ListenAddress::Pipe(path.clone()),
    };
    let (counters, gauges) = numbers(&host.counters);
    // Protobuf's JSON leaves zeros out and writes 64-bit numbers as strings.
    let simple = |name: &str, value: u64, gauge: bool| {
        let mut stat = Map::new();
        stat.extend(gauge.then(|| ("type".to_owned(), json!("GAUGE"))));
        stat.extend((value != 0).then(|| ("value".to_owned(), json!(value.to_string()))));
        stat.insert("name".to_owned(), json!(name));
        Value::Object(stat)
    };
    let stats = counters.iter().map(|(name, value)| simple(name, *value, false));
    let stats = stats.chain(gauges.iter().map(|(name, value)| simple(name, *value, true)));
    let mut out = json!({
        "address": address_json(&address),
        "stats": stats.collect::<Vec<_>>(),
        "health_status": health_status(host),
        "weight": host.weight(),
        "locality": locality(host),
    });
    if !host.hostname.is_empty() {
        out["hostname"] = json!(&*host.hostname);
    }
    if host.priority != 0 {
        out["priority"] = host.priority.into();
    }
    out
}

fn health_status(host: &Host) -> Value {
    let eds = match host.discovered_health() {
        DiscoveredHealth::Healthy => "HEALTHY",
        DiscoveredHealth::Degraded => "DEGRADED",
        DiscoveredHealth::Unhealthy => "UNHEALTHY",
        DiscoveredHealth::Draining => "DRAINING",
    };
    let mut out = json!({"eds_health_status": eds});
    if host.active_check_failed() {
        out["failed_active_health_check"] = true.into();
    }
    if host.outlier.is_ejected() {
        out["failed_outlier_check"] = true.into();
    }
    out
}

fn locality(host: &Host) -> Value {
    let parts = [
        ("region", &host.locality.region),
        ("zone", &host.locality.zone),
        ("sub_zone", &host.locality.sub_zone),
    ];
    let set = parts.iter().filter(|(_, value)| !value.is_empty());
    Value::Object(set.map(|(name, value)| ((*name).to_owned(), json!(&***value))).collect())
}
