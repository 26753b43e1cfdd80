//! Pod, and the pod templates that other kinds have.

use std::collections::BTreeMap;

use crate::field::{Fields, Names, Reason};
use crate::kinds::{Kind, KindInfo, Meta, check};
use crate::object::Collection;
use crate::rules;
use crate::terms::port::Transport;

/// A running workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// What it is made of.
    pub spec: PodSpec,
    /// Its addresses; empty until it has one.
    pub ips: Vec<String>,
    /// How far it is.
    pub phase: PodPhase,
    /// Whether its `Ready` condition is true.
    pub ready: bool,
}

/// What a pod is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSpec {
    /// Service account; `default` where nothing was said.
    pub service_account: String,
    /// Node that it runs on.
    pub node_name: Option<String>,
    /// Whether it shares its node's addresses.
    pub host_network: bool,
    /// Containers.
    pub containers: Vec<Container>,
    /// Names of the containers that run first, or beside if their `restartPolicy` is `Always`.
    pub init_containers: Vec<Container>,
}

/// One container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image.
    pub image: String,
    /// Ports that it says it listens on.
    pub ports: Vec<ContainerPort>,
    /// Plain environment variables.
    pub env: BTreeMap<String, String>,
}

/// A port that a container says it listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// Name; services may ask for it.
    pub name: String,
    /// Port.
    pub port: u16,
    /// Transport protocol.
    pub transport: Transport,
}

/// How far a pod is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodPhase {
    /// Not running yet.
    #[default]
    Pending,
    /// Running.
    Running,
    /// Done, well.
    Succeeded,
    /// Done, badly.
    Failed,
    /// Not known.
    Unknown,
}

impl Names for PodPhase {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("Pending", Self::Pending),
        ("Running", Self::Running),
        ("Succeeded", Self::Succeeded),
        ("Failed", Self::Failed),
        ("Unknown", Self::Unknown),
    ];
}

impl Kind for Pod {
    const INFO: &'static KindInfo = &KindInfo {
        collection: Collection::of("", "pods"),
        kind: "Pod",
        short_names: &["po"],
        versions: &["v1"],
        namespaced: true,
        has_status: true,
        check: check::<Self>,
    };

    fn read(fields: &mut Fields<'_>, _meta: &Meta) -> Self {
        let spec = fields.required_object("spec", PodSpec::read).unwrap_or_default();
        let status = fields.object("status", read_status).unwrap_or_default();
        Self { spec, ..status }
    }
}

fn read_status(status: &mut Fields<'_>) -> Pod {
    status.kept(&[
        "allocatedResources",
        "containerStatuses",
        "ephemeralContainerStatuses",
        "extendedResourceClaimStatus",
        "hostIP",
        "hostIPs",
        "initContainerStatuses",
        "message",
        "nominatedNodeName",
        "observedGeneration",
        "qosClass",
        "reason",
        "resize",
        "resourceClaimStatuses",
        "resources",
        "startTime",
    ]);
    let mut ips = status.list("podIPs", |ip| ip.text("ip"));
    if let Some(ip) = status.optional_text("podIP").filter(|ip| !ip.is_empty() && !ips.contains(ip))
    {
        ips.insert(0, ip);
    }
    let conditions = status.list("conditions", |condition| {
        condition.kept(&[
            "lastProbeTime",
            "lastTransitionTime",
            "message",
            "observedGeneration",
            "reason",
        ]);
        (condition.text("type"), condition.text("status"))
    });
    Pod {
        spec: PodSpec::default(),
        ips,
        phase: status.choice("phase").unwrap_or_default(),
        ready: conditions.iter().any(|(kind, status)| kind == "Ready" && status == "True"),
    }
}

/// A template that pods are made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodTemplate {
    /// Labels of its pods.
    pub labels: BTreeMap<String, String>,
    /// Annotations of its pods.
    pub annotations: BTreeMap<String, String>,
    /// What its pods are made of.
    pub spec: PodSpec,
}

impl PodTemplate {
    /// Reads a template.
    pub fn read(fields: &mut Fields<'_>) -> Self {
        let metadata = fields.object("metadata", |metadata| {
            metadata.kept(&[
                "creationTimestamp",
                "name",
                "namespace",
                "finalizers",
                "generateName",
            ]);
            (rules::label::read_labels(metadata, "labels"), metadata.text_map("annotations"))
        });
        let (labels, annotations) = metadata.unwrap_or_default();
        Self {
            labels,
            annotations,
            spec: fields.required_object("spec", PodSpec::read).unwrap_or_default(),
        }
    }
}

impl PodSpec {
    fn read(spec: &mut Fields<'_>) -> Self {
        spec.kept(&[
            "activeDeadlineSeconds",
            "affinity",
            "automountServiceAccountToken",
            "dnsConfig",
            "dnsPolicy",
            "enableServiceLinks",
            "ephemeralContainers",
            "hostAliases",
            "hostIPC",
            "hostPID",
            "hostUsers",
            "hostname",
            "hostnameOverride",
            "imagePullSecrets",
            "nodeSelector",
            "os",
            "overhead",
            "preemptionPolicy",
            "priority",
            "priorityClassName",
            "readinessGates",
            "resourceClaims",
            "resources",
            "restartPolicy",
            "runtimeClassName",
            "schedulerName",
            "schedulingGates",
            "securityContext",
            "setHostnameAsFQDN",
            "shareProcessNamespace",
            "subdomain",
            "terminationGracePeriodSeconds",
            "tolerations",
            "topologySpreadConstraints",
            "volumes",
        ]);
        let older = spec.optional_text("serviceAccount");
        let account = spec
            .optional_text("serviceAccountName")
            .or(older)
            .filter(|account| !account.is_empty());
        let containers = spec.list("containers", Container::read);
        if containers.is_empty() {
            spec.error_in("containers", Reason::Required, "at least one container is required");
        }
        Self {
            service_account: account.unwrap_or_else(|| "default".to_owned()),
            node_name: spec.optional_text("nodeName").filter(|node| !node.is_empty()),
            host_network: spec.flag("hostNetwork").unwrap_or_default(),
            init_containers: spec.list("initContainers", Container::read),
            containers,
        }
    }

    /// The port that a container calls `name`.
    pub fn port_named(&self, name: &str) -> Option<u16> {
        let ports = self
            .containers
            .iter()
            .chain(&self.init_containers)
            .flat_map(|container| &container.ports);
        ports.filter(|port| port.name == name).map(|port| port.port).next()
    }
}

impl Container {
    fn read(fields: &mut Fields<'_>) -> Self {
        fields.kept(&[
            "args",
            "command",
            "envFrom",
            "imagePullPolicy",
            "lifecycle",
            "livenessProbe",
            "readinessProbe",
            "resizePolicy",
            "resources",
            "restartPolicy",
            "restartPolicyRules",
            "securityContext",
            "startupProbe",
            "stdin",
            "stdinOnce",
            "terminationMessagePath",
            "terminationMessagePolicy",
            "tty",
            "volumeDevices",
            "volumeMounts",
            "workingDir",
        ]);
        let name = fields.required_text("name");
        fields.check("name", &name, rules::name::dns_label);
        let env = fields.list("env", |variable| {
            variable.kept(&["valueFrom"]);
            (variable.required_text("name"), variable.optional_text("value"))
        });
        Self {
            name,
            image: fields.text("image"),
            ports: fields.list("ports", |port| {
                port.kept(&["hostIP", "hostPort"]);
                let name = port.text("name");
                port.check("name", &name, rules::name::port_name);
                ContainerPort {
                    name,
                    port: port.required_port("containerPort"),
                    transport: port.choice("protocol").unwrap_or_default(),
                }
            }),
            env: env
                .into_iter()
                .filter_map(|(name, value)| value.map(|value| (name, value)))
                .collect(),
        }
    }
}
