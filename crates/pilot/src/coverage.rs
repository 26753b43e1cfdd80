//! What is not translated yet, named field by field: whoever writes such a field is told, never left to wonder.

use resources::field::{FieldPath, Finding, Reason};
use resources::kinds::networking::destination_rule::DestinationRule;
use resources::kinds::networking::gateway::Gateway;
use resources::kinds::networking::sidecar::{CaptureMode, Sidecar};
use resources::kinds::networking::virtual_service::{
    HttpMatch, HttpRoute, L4Match, VirtualService,
};
use resources::kinds::networking::workload_entry::WorkloadEntry;
use resources::kinds::networking::workload_group::{Probe, ProbeAction, WorkloadGroup};
use resources::kinds::security::peer_authentication::PeerAuthentication;
use resources::kinds::{Kind, KindInfo};
use resources::object::Object;
use resources::terms::server_tls::{ServerTls, ServerTlsMode};
use resources::terms::traffic_policy::{Policy, PolicySettings, SimpleLb, TrafficPolicy};

use crate::networking::route_match::CLAIMS_PREFIX;

/// A kind that knows what of it has no effect.
pub trait Coverage {
    /// Every field that is understood but has no effect yet.
    fn not_translated(&self) -> Vec<Finding>;
}

/// Every field of an object that is understood but has no effect yet. Empty for an object that is not valid: that has
/// errors of its own.
pub fn not_translated(object: &Object) -> Vec<Finding> {
    of::<VirtualService>(object)
        .or_else(|| of::<DestinationRule>(object))
        .or_else(|| of::<Gateway>(object))
        .or_else(|| of::<Sidecar>(object))
        .or_else(|| of::<WorkloadEntry>(object))
        .or_else(|| of::<WorkloadGroup>(object))
        .unwrap_or_default()
}

/// `None` for an object of another kind.
fn of<T: Kind + Coverage>(object: &Object) -> Option<Vec<Finding>> {
    is::<T>(object)
        .then(|| T::parse(object).map(|parsed| parsed.view.not_translated()).unwrap_or_default())
}

macro_rules! covered {
    ($($kind:ident by $function:ident),*) => {
        $(impl Coverage for $kind {
            fn not_translated(&self) -> Vec<Finding> {
                let mut found = Findings(Vec::new());
                $function(self, &FieldPath::of("spec"), &mut found);
                found.0
            }
        })*
    };
}

covered!(
    VirtualService by virtual_service,
    DestinationRule by destination_rule,
    Gateway by gateway,
    Sidecar by sidecar,
    WorkloadEntry by workload_entry,
    WorkloadGroup by workload_group
);

impl Coverage for PeerAuthentication {
    fn not_translated(&self) -> Vec<Finding> {
        Vec::new()
    }
}

fn is<T: Kind>(object: &Object) -> bool {
    let info: &KindInfo = T::INFO;
    object.kind() == info.kind && object.group() == info.collection.group
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, path: &FieldPath, field: &str, effect: &str) {
        let message = match effect {
            "" => "is not translated yet and has no effect".to_owned(),
            effect => format!("is not translated yet: {effect}"),
        };
        self.0.push(Finding {
            path: path.clone().field(field),
            reason: Reason::NotSupported,
            message,
        });
    }

    fn add_if(&mut self, present: bool, path: &FieldPath, field: &str) {
        if present {
            self.add(path, field, "");
        }
    }
}

fn virtual_service(view: &VirtualService, spec: &FieldPath, found: &mut Findings) {
    for (index, route) in view.http.iter().enumerate() {
        http_route(route, &spec.clone().field("http").index(index), found);
    }
    for (index, tls) in view.tls.iter().enumerate() {
        let path = spec.clone().field("tls").index(index);
        l4_matches(tls.matches.iter().map(|matched| &matched.l4), &path, found);
    }
    for (index, tcp) in view.tcp.iter().enumerate() {
        l4_matches(tcp.matches.iter(), &spec.clone().field("tcp").index(index), found);
    }
}

fn l4_matches<'a>(
    matches: impl Iterator<Item = &'a L4Match>,
    route: &FieldPath,
    found: &mut Findings,
) {
    for (index, matched) in matches.enumerate() {
        let path = route.clone().field("match").index(index);
        found.add_if(!matched.destination_subnets.is_empty(), &path, "destinationSubnets");
    }
}

fn http_route(route: &HttpRoute, path: &FieldPath, found: &mut Findings) {
    if let Some(retries) = &route.retries {
        found.add_if(
            retries.retry_remote_localities == Some(true),
            &path.clone().field("retries"),
            "retryRemoteLocalities",
        );
    }
    for (index, matched) in route.matches.iter().enumerate() {
        http_match(matched, &path.clone().field("match").index(index), found);
    }
}

fn http_match(matched: &HttpMatch, path: &FieldPath, found: &mut Findings) {
    for (field, headers) in
        [("headers", &matched.headers), ("withoutHeaders", &matched.without_headers)]
    {
        for key in headers.keys().filter(|key| key.starts_with(CLAIMS_PREFIX)) {
            let path = path.clone().field(field).key(key);
            let message =
                "matching claims is not translated yet: this match never holds".to_owned();
            found.0.push(Finding { path, reason: Reason::NotSupported, message });
        }
    }
    found.add_if(matched.stat_prefix.is_some(), path, "statPrefix");
}

fn destination_rule(view: &DestinationRule, spec: &FieldPath, found: &mut Findings) {
    if view.workload_selector.is_some() {
        found.add(spec, "workloadSelector", "the whole rule is left out");
    }
    if let Some(policy) = &view.traffic_policy {
        traffic_policy(policy, &spec.clone().field("trafficPolicy"), found);
    }
    for (index, subset) in view.subsets.iter().enumerate() {
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy(
                policy,
                &spec.clone().field("subsets").index(index).field("trafficPolicy"),
                found,
            );
        }
    }
}

fn traffic_policy(policy: &TrafficPolicy, path: &FieldPath, found: &mut Findings) {
    settings(&policy.settings, path, found);
    for (index, (_, port)) in policy.port_level.iter().enumerate() {
        settings(port, &path.clone().field("portLevelSettings").index(index), found);
    }
    found.add_if(policy.tunnel.is_some(), path, "tunnel");
    found.add_if(policy.proxy_protocol.is_some(), path, "proxyProtocol");
    found.add_if(policy.retry_budget.is_some(), path, "retryBudget");
}

fn settings(settings: &PolicySettings, path: &FieldPath, found: &mut Findings) {
    if let Some(balancer) = &settings.load_balancer {
        let path = path.clone().field("loadBalancer");
        match &balancer.policy {
            Some(Policy::Simple(SimpleLb::Passthrough)) => {
                found.add(&path, "simple", "LEAST_REQUEST is used instead of PASSTHROUGH")
            }
            Some(Policy::ConsistentHash(_)) => {
                found.add(&path, "consistentHash", "LEAST_REQUEST is used instead")
            }
            Some(Policy::BackendUtilization(_)) => {
                found.add(&path, "backendUtilization", "LEAST_REQUEST is used instead")
            }
            Some(Policy::Simple(_)) | None => {}
        }
        if let Some(locality) = &balancer.locality {
            let path = path.clone().field("localityLbSetting");
            found.add_if(!locality.failover_priority.is_empty(), &path, "failoverPriority");
        }
        found.add_if(balancer.zone_aware.is_some(), &path, "zoneAwareLbSetting");
        found.add_if(balancer.warmup.is_some(), &path, "warmup");
    }
    if let Some(outliers) = &settings.outlier_detection {
        let path = path.clone().field("outlierDetection");
        found.add_if(
            !outliers.http_error_codes.is_empty(),
            &path,
            "outlierDetectionHttpErrorCodes",
        );
    }
    if let Some(tls) = &settings.tls {
        let path = path.clone().field("tls");
        found.add_if(tls.ca_crl.is_some(), &path, "caCrl");
        if tls.credential_name.is_some() {
            let effect = "sidecars call in plaintext, only gateways are given Secrets";
            found.add(&path, "credentialName", effect);
        }
    }
}

fn gateway(view: &Gateway, spec: &FieldPath, found: &mut Findings) {
    for (index, server) in view.servers.iter().enumerate() {
        if let Some(tls) = &server.tls {
            server_tls(tls, &spec.clone().field("servers").index(index).field("tls"), found);
        }
    }
}

fn server_tls(tls: &ServerTls, path: &FieldPath, found: &mut Findings) {
    if tls.mode == ServerTlsMode::AutoPassthrough {
        found.add(path, "mode", "AUTO_PASSTHROUGH relays nothing");
    }
    found.add_if(tls.ca_crl.is_some(), path, "caCrl");
    found.add_if(!tls.verify_certificate_spki.is_empty(), path, "verifyCertificateSpki");
    found.add_if(!tls.verify_certificate_hash.is_empty(), path, "verifyCertificateHash");
    found.add_if(!tls.ecdh_curves.is_empty(), path, "ecdhCurves");
    found.add_if(tls.insecure_skip_verify == Some(true), path, "insecureSkipVerify");
}

fn sidecar(view: &Sidecar, spec: &FieldPath, found: &mut Findings) {
    found.add_if(view.inbound_connection_pool.is_some(), spec, "inboundConnectionPool");
    found.add_if(view.outbound_traffic_policy.is_some(), spec, "outboundTrafficPolicy");
    for (index, ingress) in view.ingress.iter().enumerate() {
        let path = spec.clone().field("ingress").index(index);
        found.add_if(ingress.tls.is_some(), &path, "tls");
        found.add_if(ingress.connection_pool.is_some(), &path, "connectionPool");
        found.add_if(ingress.capture_mode == CaptureMode::Iptables, &path, "captureMode");
    }
    for (index, egress) in view.egress.iter().enumerate() {
        let path = spec.clone().field("egress").index(index);
        found.add_if(egress.capture_mode == CaptureMode::Iptables, &path, "captureMode");
        let unix = egress.bind.as_deref().is_some_and(|bind| bind.starts_with("unix:"));
        let portless = egress.bind.is_some() && egress.port.is_none();
        found.add_if(unix || portless, &path, "bind");
    }
}

fn workload_entry(view: &WorkloadEntry, spec: &FieldPath, found: &mut Findings) {
    found.add_if(!view.network.is_empty(), spec, "network");
}

fn workload_group(view: &WorkloadGroup, spec: &FieldPath, found: &mut Findings) {
    workload_entry(&view.template, &spec.clone().field("template"), found);
    if let Some(written) = &view.probe {
        probe(written, &spec.clone().field("probe"), found);
    }
}

/// Agents connect to the application's port, all alike.
fn probe(written: &Probe, path: &FieldPath, found: &mut Findings) {
    let effect = "health is found by connecting to the application's port";
    match &written.action {
        ProbeAction::TcpSocket { host: None, .. } => {}
        ProbeAction::TcpSocket { .. } => {
            found.add(&path.clone().field("tcpSocket"), "host", effect)
        }
        ProbeAction::HttpGet { .. } => found.add(path, "httpGet", effect),
        ProbeAction::Exec(_) => found.add(path, "exec", effect),
        ProbeAction::Grpc { .. } => found.add(path, "grpc", effect),
    }
    for (field, value, default) in [
        ("initialDelaySeconds", written.initial_delay_seconds, 0),
        ("timeoutSeconds", written.timeout_seconds, 1),
        ("periodSeconds", written.period_seconds, 10),
        ("successThreshold", written.success_threshold, 1),
        ("failureThreshold", written.failure_threshold, 3),
    ] {
        found.add_if(value != default, path, field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(yaml: &str) -> Vec<String> {
        let documents = resources::yaml::load("test.yaml", yaml).expect("well-formed");
        not_translated(&documents[0].object)
            .iter()
            .map(|finding| finding.path.to_string())
            .collect()
    }

    #[test]
    fn fields_are_named_by_path() {
        let found = named(
            "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, spec: {hosts: [a], http: [{retries: {attempts: 2, retryRemoteLocalities: true}, route: [{destination: {host: a}}]}]}}",
        );
        assert_eq!(found, ["spec.http[0].retries.retryRemoteLocalities"]);
        let found = named(
            "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a}, spec: {host: a, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x}}, portLevelSettings: [{port: {number: 80}, loadBalancer: {simple: PASSTHROUGH}}]}}}",
        );
        assert_eq!(
            found,
            [
                "spec.trafficPolicy.loadBalancer.consistentHash",
                "spec.trafficPolicy.portLevelSettings[0].loadBalancer.simple"
            ]
        );
    }

    #[test]
    fn what_is_translated_is_not_named() {
        for yaml in [
            include_str!("../tests/data/bookinfo.yaml"),
            include_str!("../tests/data/everything.yaml"),
        ] {
            for document in resources::yaml::load("test.yaml", yaml).expect("well-formed") {
                assert_eq!(not_translated(&document.object), [], "{}", document.object.name());
            }
        }
    }
}
