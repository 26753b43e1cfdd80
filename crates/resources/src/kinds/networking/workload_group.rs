//! WorkloadGroup: what workloads that register themselves look like, and who may.

use std::collections::BTreeMap;

use super::workload_entry::WorkloadEntry;
use super::{GROUP, VERSIONS};
use crate::field::{Fields, Reason};
use crate::kinds::{Kind, KindInfo, Meta, check};
use crate::object::Collection;
use crate::rules;

/// What workloads that register themselves look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadGroup {
    /// Labels of every entry.
    pub labels: BTreeMap<String, String>,
    /// Annotations of every entry.
    pub annotations: BTreeMap<String, String>,
    /// What an entry is made from; it has no address.
    pub template: WorkloadEntry,
    /// How a workload's health is found.
    pub probe: Option<Probe>,
}

/// How a workload's health is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub action: ProbeAction,
    /// Seconds before the first probe.
    pub initial_delay_seconds: u32,
    /// Seconds for an answer; 1 where nothing was said.
    pub timeout_seconds: u32,
    /// Seconds between probes; 10 where nothing was said.
    pub period_seconds: u32,
    /// Successes until it counts as healthy; 1 where nothing was said.
    pub success_threshold: u32,
    /// Failures until it counts as unhealthy; 3 where nothing was said.
    pub failure_threshold: u32,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeAction {
    /// An HTTP request that must be answered with 200 to 399.
    HttpGet {
        /// Path; `/` where nothing was said.
        path: String,
        /// Port.
        port: u16,
        /// Host; the workload where nothing was said.
        host: Option<String>,
        /// Whether it is asked over TLS.
        https: bool,
        /// Headers.
        headers: Vec<(String, String)>,
    },
    /// A connection that must be accepted.
    TcpSocket {
        /// Host; the workload where nothing was said.
        host: Option<String>,
        /// Port.
        port: u16,
    },
    /// A command that must exit with 0.
    Exec(Vec<String>),
    /// gRPC's health service.
    Grpc {
        /// Port.
        port: u16,
        /// Service that is asked for.
        service: Option<String>,
    },
}

impl Kind for WorkloadGroup {
    const INFO: &'static KindInfo = &KindInfo {
        collection: Collection::of(GROUP, "workloadgroups"),
        kind: "WorkloadGroup",
        short_names: &["wg"],
        versions: VERSIONS,
        namespaced: true,
        has_status: true,
        check: check::<Self>,
    };

    fn read(fields: &mut Fields<'_>, _meta: &Meta) -> Self {
        fields.required_object("spec", read_spec).unwrap_or_default()
    }
}

fn read_spec(spec: &mut Fields<'_>) -> WorkloadGroup {
    let metadata = spec.object("metadata", |fields| {
        (rules::label::read_labels(fields, "labels"), fields.text_map("annotations"))
    });
    let (labels, annotations) = metadata.unwrap_or_default();
    WorkloadGroup {
        labels,
        annotations,
        template: spec
            .required_object("template", |fields| WorkloadEntry::read_spec(fields, false))
            .unwrap_or_default(),
        probe: spec.object("probe", Probe::read),
    }
}

impl Probe {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.exactly_one(&["httpGet", "tcpSocket", "exec", "grpc"]);
        let http = fields.object("httpGet", read_http_get);
        let tcp = fields.object("tcpSocket", |fields| ProbeAction::TcpSocket {
            host: fields.optional_text("host"),
            port: fields.required_port("port"),
        });
        let exec = fields.object("exec", |fields| {
            let command = fields.texts("command");
            if command.is_empty() {
                fields.require("command");
            }
            ProbeAction::Exec(command)
        });
        let grpc = fields.object("grpc", |fields| ProbeAction::Grpc {
            port: fields.required_port("port"),
            service: fields.optional_text("service"),
        });
        let mut seconds = |name, default: u32| match fields.non_negative(name) {
            None | Some(0) => default,
            Some(seconds) => seconds,
        };
        Self {
            initial_delay_seconds: seconds("initialDelaySeconds", 0),
            timeout_seconds: seconds("timeoutSeconds", 1),
            period_seconds: seconds("periodSeconds", 10),
            success_threshold: seconds("successThreshold", 1),
            failure_threshold: seconds("failureThreshold", 3),
            action: http.or(tcp).or(exec).or(grpc).unwrap_or(ProbeAction::Exec(Vec::new())),
        }
    }
}

fn read_http_get(fields: &mut Fields<'_>) -> ProbeAction {
    let scheme = fields.text("scheme");
    if !matches!(scheme.as_str(), "" | "HTTP" | "HTTPS") {
        fields.error_in("scheme", Reason::NotSupported, "must be HTTP or HTTPS");
    }
    let path = fields.text("path");
    let headers = fields.list("httpHeaders", |fields| {
        let name = fields.required_text("name");
        fields.check("name", &name, rules::http::header_name);
        (name, fields.text("value"))
    });
    ProbeAction::HttpGet {
        path: if path.is_empty() { "/".to_owned() } else { path },
        port: fields.required_port("port"),
        host: fields.optional_text("host"),
        https: scheme == "HTTPS",
        headers,
    }
}
