//! Addresses of workloads on this machine: one each, out of 127.64.0.0/10, the same after every restart.
//!
//! What is allotted is kept in a ConfigMap. An address on which somebody else listens is given up for another.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};

use resources::kinds::Kind;
use resources::kinds::core::config_map::ConfigMap;
use resources::object::{Object, ObjectKey};
use resources::store::{Store, StoreError, WriteOptions};
use serde_json::json;

/// Name of the ConfigMap, in the root namespace.
pub const CONFIG_MAP: &str = "outrigger-addresses";
/// The range's first address is not used, as of any network.
const FIRST: u32 = u32::from_be_bytes([127, 64, 0, 1]);
const LAST: u32 = u32::from_be_bytes([127, 127, 255, 254]);
/// Addresses tried before giving up: something is wrong if so many are in use.
const MAX_TRIES: usize = 4096;
/// Ports that every sidecar listens on: its admin interface, outbound proxy and metrics.
const SIDECAR_PORTS: [u16; 3] = [15000, 15007, 15020];

/// Why an address cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// What is allotted cannot be read or kept.
    #[error("addresses: {0}")]
    Store(#[from] StoreError),
    /// Too many are in use.
    #[error("no free address in 127.64.0.0/10 after {MAX_TRIES} tries")]
    NoneFree,
    /// The machine's loopback has one address, and workloads need one each.
    #[error(
        "this machine's loopback has no address of 127.64.0.0/10, and every workload needs one of its own. Where it has \
         only 127.0.0.1, as on macOS, give it one for each workload: `sudo ifconfig lo0 alias 127.64.0.1 up`, and so on"
    )]
    NoRange,
}

/// Whom an address is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Namespace of its WorkloadGroup.
    pub namespace: String,
    /// Its WorkloadGroup.
    pub group: String,
    /// Which of the group's workloads; none takes the first that does not run.
    pub instance: Option<String>,
}

impl Holder {
    fn key(&self, instance: &str) -> String {
        format!("{}.{}.{instance}", self.namespace, self.group)
    }
}

/// An allotted address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allotted {
    /// The address.
    pub address: Ipv4Addr,
    /// Which of the group's workloads has it.
    pub instance: String,
}

/// The holder's address: the one it had if nobody listens there, else a free one. `ports` are those that it will
/// listen on beside a sidecar's own.
pub async fn allot(
    store: &dyn Store,
    root_namespace: &str,
    holder: &Holder,
    ports: &[u16],
) -> Result<Allotted, AddressError> {
    match allot_where(store, root_namespace, holder, |address| is_in_use(address, ports)).await {
        Err(AddressError::NoneFree)
            if is_missing(TcpListener::bind((Ipv4Addr::from(FIRST), 0))) =>
        {
            Err(AddressError::NoRange)
        }
        allotted => allotted,
    }
}

/// The address that was allotted to one of a group's workloads, if one was.
pub async fn of(
    store: &dyn Store,
    root_namespace: &str,
    holder: &Holder,
) -> Result<Option<Ipv4Addr>, StoreError> {
    let key = ObjectKey::new(ConfigMap::INFO.collection.clone(), root_namespace, CONFIG_MAP);
    let object = match store.get(&key).await {
        Ok(object) => object,
        Err(StoreError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let data = ConfigMap::parse(&object).map(|parsed| parsed.view.data).unwrap_or_default();
    let instance = holder.instance.as_deref().unwrap_or("0");
    Ok(data.get(&holder.key(instance)).and_then(|address| address.parse().ok()))
}

async fn allot_where(
    store: &dyn Store,
    root_namespace: &str,
    holder: &Holder,
    in_use: impl Fn(Ipv4Addr) -> bool,
) -> Result<Allotted, AddressError> {
    let key = ObjectKey::new(ConfigMap::INFO.collection.clone(), root_namespace, CONFIG_MAP);
    loop {
        let (there, allotments) = match store.get(&key).await {
            Ok(object) => {
                let data =
                    ConfigMap::parse(&object).map(|parsed| parsed.view.data).unwrap_or_default();
                (Some(object), data)
            }
            Err(StoreError::NotFound(_)) => (None, BTreeMap::new()),
            Err(error) => return Err(error.into()),
        };
        let (allotted, data) = choose(&allotments, holder, &in_use)?;
        let Some(data) = data else { return Ok(allotted) };
        let mut object =
            Object::new("v1", "ConfigMap", root_namespace, CONFIG_MAP).with("data", json!(data));
        let options = WriteOptions::by("outrigger");
        let written = match there {
            None => store.create(key.clone(), object, options).await,
            Some(there) => {
                object.set_meta("resourceVersion", there.resource_version());
                store.update(key.clone(), object, options).await
            }
        };
        match written {
            Ok(_) => return Ok(allotted),
            // Somebody else was quicker: look again.
            Err(StoreError::Conflict { .. } | StoreError::AlreadyExists(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The address, and the allotments to keep if they change.
fn choose(
    allotments: &BTreeMap<String, String>,
    holder: &Holder,
    in_use: impl Fn(Ipv4Addr) -> bool,
) -> Result<(Allotted, Option<BTreeMap<String, String>>), AddressError> {
    let had = |instance: &str| {
        allotments.get(&holder.key(instance)).and_then(|address| address.parse().ok())
    };
    let instance = match &holder.instance {
        Some(instance) => instance.clone(),
        // The first that has no address yet, or one where nobody listens.
        None => {
            let free = |instance: &String| had(instance).is_none_or(|address| !in_use(address));
            (0..MAX_TRIES)
                .map(|number| number.to_string())
                .find(free)
                .ok_or(AddressError::NoneFree)?
        }
    };
    if let Some(address) = had(&instance)
        && !in_use(address)
    {
        return Ok((Allotted { address, instance }, None));
    }
    let taken: BTreeSet<&str> = allotments.values().map(String::as_str).collect();
    let candidates = (FIRST..=LAST)
        .map(Ipv4Addr::from)
        .filter(|address| !matches!(address.octets()[3], 0 | 255));
    let mut free =
        candidates.filter(|address| !taken.contains(address.to_string().as_str())).take(MAX_TRIES);
    let address = free.find(|address| !in_use(*address)).ok_or(AddressError::NoneFree)?;
    let mut data = allotments.clone();
    data.insert(holder.key(&instance), address.to_string());
    Ok((Allotted { address, instance }, Some(data)))
}

/// Whether an address could not be listened on because the machine does not have it.
fn is_missing<T>(bound: std::io::Result<T>) -> bool {
    bound.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable)
}

/// Whether one of the ports that a sidecar at this address needs cannot be had: somebody listens on it, or the machine
/// does not have the address, of which some have few.
fn is_in_use(address: Ipv4Addr, ports: &[u16]) -> bool {
    let taken = |port: &u16| {
        let bound = TcpListener::bind((address, *port));
        bound.is_err_and(|error| {
            matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable)
        })
    };
    SIDECAR_PORTS.iter().chain(ports).any(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use resources::store::Versioned;

    fn holder(group: &str, instance: Option<&str>) -> Holder {
        Holder {
            namespace: "default".into(),
            group: group.into(),
            instance: instance.map(str::to_owned),
        }
    }

    #[test]
    fn an_address_that_the_machine_does_not_have_is_no_free_one() {
        // TEST-NET-1: nobody's.
        let foreign = Ipv4Addr::new(192, 0, 2, 1);
        assert!(is_missing(TcpListener::bind((foreign, 0))));
        assert!(is_in_use(foreign, &[]));
        assert!(!is_missing(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))));
    }

    #[tokio::test]
    async fn everyone_has_one_and_keeps_it() {
        let store = Versioned::in_memory().unwrap();
        let allot = async |group: &str, instance, busy: &[&str]| {
            let in_use = |address: Ipv4Addr| busy.contains(&address.to_string().as_str());
            let allotted = allot_where(&store, "istio-system", &holder(group, instance), in_use)
                .await
                .unwrap();
            format!("{} {}", allotted.instance, allotted.address)
        };
        assert_eq!(allot("a", Some("0"), &[]).await, "0 127.64.0.1");
        assert_eq!(allot("b", Some("0"), &["127.64.0.2"]).await, "0 127.64.0.3");
        assert_eq!(allot("a", Some("0"), &[]).await, "0 127.64.0.1");
        // Taken by somebody else: another one, and that is kept.
        assert_eq!(allot("a", Some("0"), &["127.64.0.1"]).await, "0 127.64.0.2");
        assert_eq!(allot("a", Some("0"), &[]).await, "0 127.64.0.2");
        // Without a number, a second one that runs beside the first is the next.
        assert_eq!(allot("a", None, &["127.64.0.2"]).await, "1 127.64.0.1");
        assert_eq!(allot("a", None, &[]).await, "0 127.64.0.2");
    }

    #[test]
    fn a_listener_is_noticed() {
        let listener = TcpListener::bind((Ipv4Addr::new(127, 99, 7, 3), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_in_use(Ipv4Addr::new(127, 99, 7, 3), &[port]));
        assert!(!is_in_use(Ipv4Addr::new(127, 99, 7, 4), &[port]));
    }
}
