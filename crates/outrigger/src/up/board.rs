//! How everything is: what `status` answers with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use apiserver::control_socket::protocol::{ObjectProgress, Status, WorkloadState, WorkloadStatus};
use futures::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use pilot::Pilot;
use pilot::status::objects::Rejected;
use pilot::status::{ObjectStatus, ProxyStatus};
use resources::kinds::networking::workload_entry::WorkloadEntry;
use resources::kinds::{Kind, kind_in};
use resources::object::Object;
use resources::store::Versioned;
use serde_json::Value;
use tokio::sync::Notify;

use super::http_get::get;
use super::plan::Spec;
use super::{GatewayOptions, Options, gateway};

/// Port of a sidecar's admin interface, as in Istio.
const ADMIN_PORT: u16 = 15000;
/// Port on which a sidecar says whether it is ready, as in Istio.
pub const STATUS_PORT: u16 = 15020;

/// How everything is.
pub struct Board {
    status: Mutex<Status>,
    gateway: Option<GatewayOptions>,
    changed: Notify,
}

impl Board {
    /// A board on which nothing runs yet.
    pub fn new(options: &Options) -> Self {
        let status = Status {
            mesh: options.mesh.clone(),
            pid: std::process::id(),
            directory: options.directory.display().to_string(),
            started: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            ..Status::default()
        };
        let gateway = options.gateway;
        Self { status: Mutex::new(status), gateway, changed: Notify::new() }
    }

    /// Waits for a workload's next change. Cancel-safe: a change that nobody waited for is kept.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Adds a workload that is about to be started.
    pub fn add(&self, spec: &Spec) {
        let mut status = self.status.lock();
        status.workloads.push(WorkloadStatus {
            name: spec.name.clone(),
            namespace: spec.namespace.clone(),
            service_account: spec.service_account.clone(),
            // A gateway's are told as URLs: they are not on its own address.
            ports: if spec.is_gateway { Vec::new() } else { spec.ports.clone() },
            log: format!("{}.log", spec.name),
            ..WorkloadStatus::default()
        });
        status.workloads.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Removes a workload that ended for good.
    pub fn remove(&self, name: &str) {
        self.status.lock().workloads.retain(|workload| workload.name != name);
        self.changed.notify_one();
    }

    /// Changes what is known of a workload.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut WorkloadStatus)) {
        if let Some(workload) =
            self.status.lock().workloads.iter_mut().find(|workload| workload.name == name)
        {
            change(workload);
        }
        self.changed.notify_one();
    }

    /// Whether everything that should run does.
    pub fn all_ready(&self) -> bool {
        self.status.lock().workloads.iter().all(|workload| workload.state == WorkloadState::Running)
    }

    /// Notes where the control plane listens.
    pub fn set_xds_address(&self, address: SocketAddr) {
        self.status.lock().xds_address = address.to_string();
    }

    /// Notes what is wrong with the directory.
    pub fn set_problems(&self, problems: Vec<String>) {
        self.status.lock().problems = problems;
    }

    /// Whether that is noted to be wrong.
    pub fn knows_problem(&self, problem: &str) -> bool {
        self.status.lock().problems.iter().any(|known| known == problem)
    }

    /// Notes the Deployments that are not run here.
    pub fn set_not_run(&self, names: Vec<String>) {
        self.status.lock().not_run_here = names;
    }

    /// Whether it was noted before that a Deployment is not run here.
    pub fn knows_not_run(&self, name: &str) -> bool {
        self.status.lock().not_run_here.iter().any(|known| known == name)
    }

    /// What answers the control socket: what is known here, what the control plane knows of each proxy, and what each
    /// proxy says of its certificate.
    pub fn status_of(
        self: &Arc<Self>,
        pilot: &Arc<Pilot>,
        store: &Arc<Versioned>,
    ) -> Box<dyn Fn() -> BoxFuture<'static, Status> + Send + Sync> {
        let (board, pilot, store) =
            (Arc::clone(self), Arc::downgrade(pilot), Arc::downgrade(store));
        Box::new(move || {
            let mut status = board.status.lock().clone();
            if let (Some(store), Some(pilot)) = (store.upgrade(), pilot.upgrade()) {
                status.objects = kinds(&store);
                status.gateway = gateway::urls(&store, board.gateway.as_ref());
                let known = pilot.status();
                note_proxies(&mut status, known.proxies, &registered_ports(&store));
                status.programmed = known.objects.into_iter().map(progress).collect();
            }
            Box::pin(async move {
                let (expiries, troubles) = tokio::join!(
                    join_all(status.workloads.iter().map(certificate_expires)),
                    join_all(status.workloads.iter().map(trouble))
                );
                let answers = expiries.into_iter().zip(troubles);
                for (workload, (expires, trouble)) in status.workloads.iter_mut().zip(answers) {
                    workload.certificate_expires = expires;
                    if trouble.is_some() && workload.state == WorkloadState::Running {
                        workload.state = WorkloadState::Unready;
                    }
                    workload.trouble = trouble;
                }
                status
            })
        })
    }
}

/// Objects that proxies do not follow, each with why: what they reject, and what nobody `is_told` of yet.
pub fn lacking(objects: Vec<ObjectStatus>, is_told: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let of_object = |object: ObjectStatus| {
        let ObjectProgress { kind, namespace, name, rejections, warnings, .. } = progress(object);
        let whys = rejections.into_iter().chain(warnings.into_iter().filter(|why| !is_told(why)));
        whys.map(|why| format!("{kind} {namespace}/{name}: {why}")).collect::<Vec<_>>()
    };
    objects.into_iter().flat_map(of_object).collect()
}

fn progress(object: ObjectStatus) -> ObjectProgress {
    let rejection = |it: Rejected| format!("{}: {}: {}", it.proxy, it.resource, it.reason);
    ObjectProgress {
        kind: object.kind.to_owned(),
        namespace: object.namespace,
        name: object.name,
        generation: object.generation,
        proxies: object.proxies,
        programmed: object.programmed,
        rejections: object.rejections.into_iter().map(rejection).collect(),
        warnings: object.warnings,
    }
}

fn kinds(store: &Versioned) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (key, _) in store.objects() {
        let kind = kind_in(&key.collection)
            .map_or_else(|| key.collection.to_string(), |info| info.kind.to_owned());
        *counts.entry(kind).or_default() += 1;
    }
    counts
}

/// Takes over what the control plane knows: a proxy is known by its address. Those that somebody else started, with
/// `outrigger run`, are added.
fn note_proxies(
    status: &mut Status,
    proxies: Vec<ProxyStatus>,
    ports: &BTreeMap<String, Vec<u16>>,
) {
    for workload in &mut status.workloads {
        let Some(address) = workload.address.map(|address| address.to_string()) else { continue };
        let proxy = proxies.iter().find(|proxy| proxy.address == address);
        // A workload that runs and is not connected does not have what it should have.
        workload.synced = Some(proxy.is_some_and(|proxy| proxy.synced));
    }
    for proxy in proxies {
        let address: Option<IpAddr> = proxy.address.parse().ok();
        if status.workloads.iter().any(|workload| workload.address == address) {
            continue;
        }
        let account = proxy.identity.as_deref().and_then(|identity| identity.rsplit('/').next());
        status.workloads.push(WorkloadStatus {
            service_account: account.unwrap_or_default().to_owned(),
            ports: ports.get(&proxy.address).cloned().unwrap_or_default(),
            name: proxy.name,
            namespace: proxy.namespace,
            state: WorkloadState::Running,
            synced: Some(proxy.synced),
            address,
            ..WorkloadStatus::default()
        });
    }
    status.workloads.sort_by(|a, b| a.name.cmp(&b.name));
}

/// Ports of every registered workload, by its address.
fn registered_ports(store: &Versioned) -> BTreeMap<String, Vec<u16>> {
    let collection = &WorkloadEntry::INFO.collection;
    let entries = store.objects().into_iter().filter(|(key, _)| key.collection == *collection);
    let view = |(_, object): (_, Arc<Object>)| Some(WorkloadEntry::parse(&object).ok()?.view);
    entries
        .filter_map(view)
        .map(|entry| (entry.address, entry.ports.into_values().collect()))
        .collect()
}

/// Why a workload takes no requests, as its sidecar says, or how it ended; none if all is well.
async fn trouble(workload: &WorkloadStatus) -> Option<String> {
    if workload.state == WorkloadState::Waiting {
        return workload.last_exit.clone();
    }
    let place = SocketAddr::new(workload.address?, STATUS_PORT);
    match get(place, "/healthz/workload").await {
        Ok((200, _)) => None,
        Ok((_, why)) => Some(String::from_utf8_lossy(&why).trim().to_owned()),
        Err(error) => Some(format!("its sidecar does not answer at {place}: {error}")),
    }
}

/// When a workload's certificate ends, as its proxy says.
async fn certificate_expires(workload: &WorkloadStatus) -> Option<String> {
    let address: IpAddr = workload.address?;
    let (status, body) = get(SocketAddr::new(address, ADMIN_PORT), "/certs").await.ok()?;
    if status != 200 {
        return None;
    }
    earliest_expiry(&serde_json::from_slice(&body).ok()?)
}

/// The earliest end of the certificates that Envoy's `/certs` shows.
fn earliest_expiry(certs: &Value) -> Option<String> {
    let certificates = certs.get("certificates")?.as_array()?;
    let chains =
        certificates.iter().filter_map(|certificate| certificate.get("cert_chain")?.as_array());
    let ends =
        chains.flatten().filter_map(|certificate| certificate.get("expiration_time")?.as_str());
    // RFC 3339 in UTC sorts as text.
    ends.min().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn workloads_of_others_are_told_too() {
        let mut status = Status::default();
        status.workloads.push(WorkloadStatus {
            name: "own".to_owned(),
            address: Some([127, 64, 0, 1].into()),
            ..WorkloadStatus::default()
        });
        let proxy = |name: &str, address: &str| ProxyStatus {
            id: String::new(),
            kind: "sidecar",
            name: name.to_owned(),
            namespace: "default".to_owned(),
            identity: Some("default/theirs".to_owned()),
            address: address.to_owned(),
            version: String::new(),
            connected_at: 0,
            synced: true,
            types: BTreeMap::new(),
            rejected: Vec::new(),
        };
        let proxies = vec![proxy("own-0", "127.64.0.1"), proxy("their", "127.64.0.9")];
        let ports = BTreeMap::from([("127.64.0.9".to_owned(), vec![80])]);
        note_proxies(&mut status, proxies, &ports);
        assert_eq!(status.workloads.len(), 2);
        assert_eq!(
            (status.workloads[0].name.as_str(), status.workloads[0].synced),
            ("own", Some(true))
        );
        let theirs = &status.workloads[1];
        assert_eq!(
            (theirs.service_account.as_str(), theirs.ports.as_slice()),
            ("theirs", &[80][..])
        );
    }

    #[test]
    fn the_certificate_that_ends_first_counts() {
        let certs = json!({"certificates": [
            {"ca_cert": [{"expiration_time": "2020-01-01T00:00:00Z"}], "cert_chain": [{"expiration_time": "2031-01-01T00:00:00Z"}]},
            {"cert_chain": [{"expiration_time": "2030-01-01T00:00:00Z"}]},
        ]});
        assert_eq!(earliest_expiry(&certs).as_deref(), Some("2030-01-01T00:00:00Z"));
        assert_eq!(earliest_expiry(&json!({})), None);
    }
}
