//! What is known of the proxies: who is connected, and whether each has what it should have.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use serde::Serialize;
use xds::{Rejection, ResourceType};

use crate::ads::form::{Form, Progress};
use crate::proxy::{Peer, Proxy, ProxyKind};
use crate::push::ProxyId;

/// One connected proxy.
#[derive(Clone, Debug, Serialize)]
pub struct ProxyStatus {
    /// Node id.
    pub id: String,
    /// `sidecar`, `router` or `proxyless`.
    pub kind: &'static str,
    /// The workload's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// `namespace/service account` of its credential; none on the plaintext port.
    pub identity: Option<String>,
    /// The address it listens on.
    pub address: String,
    /// What software it says it is.
    pub version: String,
    /// Seconds since 1970.
    pub connected_at: u64,
    /// Whether it has accepted everything that it should have.
    pub synced: bool,
    /// By type (`CDS`, ...): only those that it asked for.
    pub types: BTreeMap<&'static str, TypeStatus>,
    /// Resources that it rejected in their present version.
    pub rejected: Vec<RejectedResource>,
}

/// One type of one proxy.
#[derive(Clone, Debug, Serialize)]
pub struct TypeStatus {
    /// Whether everything of it was accepted.
    pub synced: bool,
    /// How many resources the proxy holds.
    pub resources: usize,
    /// How many it rejected in their present version.
    pub rejected: usize,
}

/// A resource that a proxy did not take.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct RejectedResource {
    /// `CDS`, ...
    pub kind: &'static str,
    /// Its name; empty if the proxy did not say which.
    pub name: String,
    /// What the proxy says.
    pub reason: String,
}

/// The connected proxies.
#[derive(Clone, Default)]
pub struct StatusBoard(Arc<Mutex<BTreeMap<ProxyId, ProxyStatus>>>);

impl StatusBoard {
    /// Adds a proxy.
    pub fn connected(&self, id: ProxyId, proxy: &Proxy, peer: Option<&Peer>) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let status = ProxyStatus {
            id: proxy.id.clone(),
            kind: match proxy.kind {
                ProxyKind::Sidecar => "sidecar",
                ProxyKind::Router => "router",
                ProxyKind::Proxyless => "proxyless",
            },
            name: proxy.name.clone(),
            namespace: proxy.namespace.to_string(),
            identity: peer.map(Peer::to_string),
            address: proxy.address.to_string(),
            version: proxy.version.clone(),
            connected_at: since.map_or(0, |since| since.as_secs()),
            synced: false,
            types: BTreeMap::new(),
            rejected: Vec::new(),
        };
        self.0.lock().insert(id, status);
    }

    /// Removes a proxy.
    pub fn disconnected(&self, id: ProxyId) {
        self.0.lock().remove(&id);
    }

    /// Notes how far a proxy's stream is. A stream that never asked for anything is not in sync with anything.
    pub fn progress(&self, id: ProxyId, server: &impl Form) {
        let mut board = self.0.lock();
        let Some(status) = board.get_mut(&id) else { return };
        for kind in ResourceType::ALL {
            let Some(Progress { synced, resources, rejected }) = server.progress(kind) else {
                continue;
            };
            status.types.insert(kind.label(), TypeStatus { synced, resources, rejected });
            if rejected == 0 {
                status.rejected.retain(|one| one.kind != kind.label());
            }
        }
        status.synced = !status.types.is_empty() && status.types.values().all(|one| one.synced);
    }

    /// Notes what a proxy rejected.
    pub fn rejected(&self, id: ProxyId, kind: ResourceType, rejections: &[Rejection]) {
        let mut board = self.0.lock();
        let Some(status) = board.get_mut(&id) else { return };
        for rejection in rejections {
            let one = RejectedResource {
                kind: kind.label(),
                name: rejection.name.to_string(),
                reason: rejection.reason.clone(),
            };
            status.rejected.retain(|known| (known.kind, &known.name) != (one.kind, &one.name));
            status.rejected.push(one);
        }
    }

    /// What a proxy rejected and still does.
    pub fn rejections(&self, id: ProxyId) -> Vec<RejectedResource> {
        self.0.lock().get(&id).map(|status| status.rejected.clone()).unwrap_or_default()
    }

    /// Every connected proxy, by node id.
    pub fn proxies(&self) -> Vec<ProxyStatus> {
        let mut all: Vec<ProxyStatus> = self.0.lock().values().cloned().collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }
}
