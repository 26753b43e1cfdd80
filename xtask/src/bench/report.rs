//! What was measured, as a table of ratios for people and as JSON for machines.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// One repetition of one proxy in one scenario.
#[derive(Serialize, Clone)]
pub struct Sample {
    /// CPU time per unit: microseconds per request, or seconds per gigabyte where bytes are counted.
    pub cpu_per_unit: f64,
    /// Requests, or gigabytes, per second.
    pub rate: f64,
    /// The share of the CPU time spent in the kernel, 0 to 1.
    pub kernel_share: f64,
    /// How busy the proxy's core was, 0 to 1.
    pub busy: f64,
    pub p50_us: u32,
    pub p99_us: u32,
    pub errors: u64,
}

/// One proxy's repetitions.
#[derive(Serialize)]
pub struct Row {
    pub proxy: &'static str,
    pub samples: Vec<Sample>,
}

/// One scenario's rows.
#[derive(Serialize)]
pub struct Table {
    pub scenario: &'static str,
    pub about: &'static str,
    /// What one unit of work is: `request` or `GB`.
    pub unit: &'static str,
    pub rows: Vec<Row>,
}

/// One proxy's memory, in bytes.
#[derive(Serialize)]
pub struct MemoryRow {
    pub proxy: &'static str,
    pub process: f64,
    pub per_http_connection: f64,
    pub per_tls_connection: f64,
    /// HTTP/2 without TLS.
    pub per_http2_connection: f64,
    pub per_cluster: f64,
    pub per_endpoint: f64,
    /// With a connection manager and one route.
    pub per_listener: f64,
    /// With two routes.
    pub per_virtual_host: f64,
    /// CPU time of reading a configuration with ten thousand clusters, in seconds.
    pub many_clusters_seconds: f64,
}

/// Everything one run has found.
#[derive(Serialize, Default)]
pub struct Report {
    pub commit: String,
    pub seconds: f64,
    pub realtime: bool,
    pub tables: Vec<Table>,
    pub memory: Vec<MemoryRow>,
    /// The control plane's own numbers, as its bench prints them.
    pub control_plane: Option<serde_json::Value>,
}

impl Row {
    /// The median over the repetitions of one number.
    pub fn median(&self, number: impl Fn(&Sample) -> f64) -> f64 {
        let mut values: Vec<f64> = self.samples.iter().map(number).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn range(&self) -> (f64, f64) {
        let cpu = self.samples.iter().map(|sample| sample.cpu_per_unit);
        (cpu.clone().fold(f64::INFINITY, f64::min), cpu.fold(0.0, f64::max))
    }
}

impl Table {
    /// As Markdown: CPU per unit, and how it compares with each of the others.
    pub fn print(&self) {
        let unit = if self.unit == "GB" { "s/GB" } else { "µs/req" };
        let peers: Vec<&str> = (self.rows.iter().map(|row| row.proxy))
            .filter(|proxy| !matches!(*proxy, "direct" | "outrigger"))
            .collect();
        println!("\n### {} — {}\n", self.scenario, self.about);
        println!(
            "| proxy | {}/s | CPU {unit} (min–max) |{} kernel % | core busy | p50 µs | p99 µs | errors |",
            self.unit,
            peers.iter().map(|peer| format!(" ×{peer} |")).collect::<String>(),
        );
        println!("|---|---|---|{}---|---|---|---|---|", "---|".repeat(peers.len()));
        for row in &self.rows {
            let cpu = row.median(|s| s.cpu_per_unit);
            let (low, high) = row.range();
            let ratio = |peer: &str| {
                let peer = self
                    .rows
                    .iter()
                    .find(|row| row.proxy == peer)
                    .map(|row| row.median(|s| s.cpu_per_unit));
                peer.filter(|_| cpu > 0.0)
                    .map_or("–".to_owned(), |peer| format!("{:.2}", cpu / peer))
            };
            println!(
                "| {} | {:.*} | {cpu:.2} ({low:.2}–{high:.2}) |{} {:.0} | {:.0}% | {} | {} | {} |",
                row.proxy,
                if self.unit == "GB" { 2 } else { 0 },
                row.median(|s| s.rate),
                peers.iter().map(|peer| format!(" {} |", ratio(peer))).collect::<String>(),
                row.median(|s| s.kernel_share) * 100.0,
                row.median(|s| s.busy) * 100.0,
                row.median(|s| f64::from(s.p50_us)),
                row.median(|s| f64::from(s.p99_us)),
                row.samples.iter().map(|s| s.errors).sum::<u64>(),
            );
        }
    }
}

impl Report {
    pub fn print_memory(&self) {
        println!(
            "\n### Idle memory\n\n| proxy | process MB | per HTTP/1 connection | per TLS connection | per HTTP/2 connection | per cluster | per endpoint | per listener | per virtual host | start with 10,000 clusters, CPU s |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
        for row in &self.memory {
            // Not every peer has everything.
            let cell =
                |value: f64, text: String| if value.is_nan() { "–".to_owned() } else { text };
            let kb = |bytes: f64| cell(bytes, format!("{:.1} KB", bytes / 1024.0));
            println!(
                "| {} | {:.1} | {} | {} | {} | {} | {} | {} | {} | {} |",
                row.proxy,
                row.process / 1e6,
                kb(row.per_http_connection),
                kb(row.per_tls_connection),
                kb(row.per_http2_connection),
                kb(row.per_cluster),
                kb(row.per_endpoint),
                kb(row.per_listener),
                kb(row.per_virtual_host),
                cell(row.many_clusters_seconds, format!("{:.2}", row.many_clusters_seconds)),
            );
        }
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }
}
