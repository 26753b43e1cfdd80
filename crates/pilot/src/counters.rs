//! Numbers under Istio's names, for `/metrics`.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use xds::ResourceType;

/// What was pushed and rejected.
#[derive(Debug, Default)]
pub struct Counters {
    pushes: [AtomicU64; ResourceType::COUNT],
    bytes: [AtomicU64; ResourceType::COUNT],
    rejects: [AtomicU64; ResourceType::COUNT],
    csrs: AtomicU64,
}

impl Counters {
    /// A response was sent.
    pub fn pushed(&self, kind: Option<ResourceType>, bytes: usize) {
        let Some(kind) = kind else { return };
        self.pushes[kind as usize].fetch_add(1, Ordering::Relaxed);
        self.bytes[kind as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A response was not taken whole.
    pub fn rejected(&self, kind: ResourceType) {
        self.rejects[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A certificate was asked for.
    pub fn certificate_requested(&self) {
        self.csrs.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of resources that were sent.
    pub fn bytes_sent(&self) -> u64 {
        self.bytes.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }

    /// Prometheus' text format.
    pub fn exposition(&self, connected: usize, services: usize, virtual_services: usize) -> String {
        let mut out = String::new();
        let mut family = |name: &str, kind: &str, help: &str, rows: &[(Option<&str>, u64)]| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (label, value) in rows {
                let _ = match label {
                    Some(label) => writeln!(out, "{name}{{type=\"{label}\"}} {value}"),
                    None => writeln!(out, "{name} {value}"),
                };
            }
        };
        let by_type =
            |cells: &[AtomicU64; ResourceType::COUNT]| -> Vec<(Option<&'static str>, u64)> {
                ResourceType::ALL
                    .into_iter()
                    .map(|kind| {
                        (Some(metric_label(kind)), cells[kind as usize].load(Ordering::Relaxed))
                    })
                    .collect()
            };
        let rejects: u64 = self.rejects.iter().map(|cell| cell.load(Ordering::Relaxed)).sum();
        family(
            "pilot_xds",
            "gauge",
            "Number of endpoints connected to this pilot using XDS.",
            &[(None, connected as u64)],
        );
        family(
            "pilot_xds_pushes",
            "counter",
            "Pilot build and send errors for lds, rds, cds and eds.",
            &by_type(&self.pushes),
        );
        family(
            "pilot_xds_sent_bytes_total",
            "counter",
            "Bytes of resources sent.",
            &by_type(&self.bytes),
        );
        family(
            "pilot_total_xds_rejects",
            "counter",
            "Total number of XDS responses rejected by proxy.",
            &[(None, rejects)],
        );
        family(
            "pilot_services",
            "gauge",
            "Total services known to pilot.",
            &[(None, services as u64)],
        );
        family(
            "pilot_virt_services",
            "gauge",
            "Total virtual services known to pilot.",
            &[(None, virtual_services as u64)],
        );
        family(
            "citadel_server_csr_count",
            "counter",
            "The number of CSRs received by Citadel server.",
            &[(None, self.csrs.load(Ordering::Relaxed))],
        );
        out
    }
}

/// Istio's labels are lower case.
fn metric_label(kind: ResourceType) -> &'static str {
    match kind {
        ResourceType::Cluster => "cds",
        ResourceType::Endpoints => "eds",
        ResourceType::Listener => "lds",
        ResourceType::ExtensionConfig => "ecds",
        ResourceType::RouteConfiguration => "rds",
        ResourceType::VirtualHost => "vhds",
        ResourceType::Secret => "sds",
    }
}
