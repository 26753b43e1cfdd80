//! `/memory`: what the kernel says of the process.

use serde_json::json;

use super::{AdminContext, Endpoint, Query, Reply};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    path: "/memory",
    changes: false,
    help: "print current allocation/heap usage",
    parameters: &[],
    handle,
};

/// Memory of the process in bytes; zeros where `/proc` does not say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Resident, all kinds.
    pub resident: u64,
    /// Resident, anonymous: stacks and heap.
    pub anonymous: u64,
    /// Mapped for data.
    pub data: u64,
}

impl Memory {
    /// Asks the kernel.
    pub fn read() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_end_matches("kB").trim().parse::<u64>().ok().map(|kib| kib * 1024)
        };
        let get = |name| field(name).unwrap_or(0);
        Self { resident: get("VmRSS:"), anonymous: get("RssAnon:"), data: get("VmData:") }
    }
}

fn handle(_: &AdminContext, _: &Query) -> Reply {
    let Memory { resident, anonymous, data } = Memory::read();
    Reply::json(&json!({
        "allocated": anonymous.to_string(),
        "heap_size": data.to_string(),
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": resident.to_string(),
    }))
}
