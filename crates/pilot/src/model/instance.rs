//! The instances behind a service: where they are, who they are, how they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Marks an instance whose proxy speaks mesh TLS.
pub const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";

/// One instance of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// An IP address, a DNS name or `unix://` path.
    pub address: String,
    /// The instance's port for each service port, by the service port's name.
    pub ports: BTreeMap<String, u16>,
    /// What subsets select by.
    pub labels: Arc<BTreeMap<String, String>>,
    /// Where it runs.
    pub locality: Locality,
    /// Its share of the load; 0 is the default of 1.
    pub weight: u32,
    /// Whether it should get requests.
    pub health: Health,
    /// Who it is.
    pub workload: Workload,
    /// Whether its proxy speaks mesh TLS.
    pub mesh_tls: bool,
}

/// Who an instance is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The Deployment's (or group's) name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// `service.istio.io/canonical-name`, or what stands in for it.
    pub canonical_name: String,
    /// `service.istio.io/canonical-revision`, or what stands in for it.
    pub canonical_revision: String,
    /// The cluster (in the multi-cluster sense) it runs in.
    pub cluster: String,
}

/// A place: `region/zone/subzone`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone in the region.
    pub zone: String,
    /// Subzone in the zone.
    pub subzone: String,
}

/// Whether an instance should get requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Health {
    /// It should.
    Healthy,
    /// It is not ready, or its health checks fail.
    Unhealthy,
    /// It is going away and finishes what it has.
    Draining,
}

/// All instances of a service, sorted by address.
pub type Instances = Vec<Instance>;

/// What the clients of a service must know to authenticate it: changes far less often than its instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities {
    /// `(namespace, service account)` of every instance.
    pub service_accounts: BTreeSet<(String, String)>,
}

impl Identities {
    /// The identities of these instances.
    pub fn of(instances: &[Instance]) -> Self {
        let service_accounts = instances
            .iter()
            .filter(|instance| !instance.workload.service_account.is_empty())
            .map(|instance| {
                (instance.workload.namespace.clone(), instance.workload.service_account.clone())
            })
            .collect();
        Self { service_accounts }
    }
}

impl Locality {
    /// Reads `region/zone/subzone`; missing parts are empty. `.` separates when there is no slash, as labels write it.
    pub fn parse(text: &str) -> Locality {
        let separator = if text.contains('/') { '/' } else { '.' };
        let mut parts = text.splitn(3, separator).map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Locality { region: next(), zone: next(), subzone: next() }
    }
}

impl Workload {
    /// The identity of a workload called `name` with these labels (Istio: `IstioCanonicalServiceName`).
    pub fn from_labels(
        name: &str,
        namespace: &str,
        service_account: &str,
        cluster: &str,
        labels: &BTreeMap<String, String>,
    ) -> Workload {
        let first = |keys: [&str; 3]| keys.iter().find_map(|key| labels.get(*key)).cloned();
        let canonical_name =
            first(["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
        let revision =
            first(["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
        Workload {
            name: labels
                .get("service.istio.io/workload-name")
                .cloned()
                .unwrap_or_else(|| name.to_owned()),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            canonical_name: canonical_name.unwrap_or_else(|| name.to_owned()),
            canonical_revision: revision.unwrap_or_else(|| "latest".to_owned()),
            cluster: cluster.to_owned(),
        }
    }

    /// `name;namespace;canonical name;canonical revision;cluster`: what endpoint metadata tells peers.
    pub fn metadata(&self) -> String {
        let Workload { name, namespace, canonical_name, canonical_revision, cluster, .. } = self;
        format!("{name};{namespace};{canonical_name};{canonical_revision};{cluster}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_without_labels_is_its_name() {
        let plain =
            Workload::from_labels("reviews-v1", "default", "sa", "Kubernetes", &BTreeMap::new());
        assert_eq!(plain.metadata(), "reviews-v1;default;reviews-v1;latest;Kubernetes");
        let labels =
            BTreeMap::from([("app".into(), "reviews".into()), ("version".into(), "v1".into())]);
        let labelled = Workload::from_labels("reviews-v1", "default", "sa", "Kubernetes", &labels);
        assert_eq!(labelled.metadata(), "reviews-v1;default;reviews;v1;Kubernetes");
    }

    #[test]
    fn localities_have_up_to_three_parts() {
        let parsed = Locality::parse("us-west/zone1");
        assert_eq!(
            (parsed.region.as_str(), parsed.zone.as_str(), parsed.subzone.as_str()),
            ("us-west", "zone1", "")
        );
        assert_eq!(Locality::parse("a.b.c"), Locality::parse("a/b/c"));
    }
}
