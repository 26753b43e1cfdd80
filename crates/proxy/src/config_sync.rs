//! Step 8 of a config change's journey: the proxy's discovery client.
//!
//! One task per stream (the aggregated one, and one for every service of its own) keeps a connection to the control
//! plane, says what the main thread wants, hands it what comes, and answers with what became of it: good resources are
//! applied, rejected ones keep their last version and are named in the NACK with path and reason. When the control plane
//! goes away, everything stays as it is, and the stream is tried again with a growing, jittered pause. Configuration in
//! files comes the same way, one task a file.

pub mod sink;

mod backoff;
pub(crate) mod channel;
mod files;
mod protocol;
mod service;
mod stream;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use xds::{DeltaClient, SotwClient};

use sink::{ConfigSink, GrpcSource, ResourceKind, Source, Subscriptions};
use stream::Stream;

/// Says to the control plane that this node takes virtual hosts as resources of their own, all of them at once.
pub const EAGER_VIRTUAL_HOSTS: &str = "outrigger.eager_vhds";
/// Says that mesh peers may be left to agree on HTTP/2 by `auto_config` wherever nobody says what to speak.
pub const HTTP2_BY_AGREEMENT: &str = "outrigger.http2_by_agreement";
/// What every node adds to its `client_features`.
const FEATURES: [&str; 2] = [EAGER_VIRTUAL_HOSTS, HTTP2_BY_AGREEMENT];

/// The running client. Dropping it ends every stream; what was applied stays.
#[derive(Debug)]
pub struct ConfigSync {
    supervisor: JoinHandle<()>,
}

impl Drop for ConfigSync {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

/// Starts to keep `sink` supplied. Must be called inside a tokio runtime.
pub fn start<S: ConfigSink>(sink: Arc<S>) -> ConfigSync {
    ConfigSync { supervisor: tokio::spawn(supervise(sink)) }
}

/// What makes a stream: where it goes, and the one kind that it carries unless it is aggregated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct StreamKey {
    source: Source,
    only: Option<ResourceKind>,
}

/// A stream's task. Dropping the sender asks it to end; an update that is being applied is finished.
struct Running {
    _stop: oneshot::Sender<()>,
}

/// Keeps one stream for every source that anything is wanted from.
async fn supervise<S: ConfigSink>(sink: Arc<S>) {
    let mut subscriptions = sink.subscriptions();
    let mut running: BTreeMap<StreamKey, Running> = BTreeMap::new();
    loop {
        let wanted = subscriptions.borrow_and_update().clone();
        let keys = stream_keys(&wanted);
        running.retain(|key, _| keys.contains(key));
        for key in keys {
            if running.contains_key(&key) {
                continue;
            }
            let (stop, stopped) = oneshot::channel();
            if let (Source::File(file), Some(kind)) = (&key.source, key.only) {
                tokio::spawn(files::run(sink.clone(), file.clone(), kind, stopped));
                running.insert(key, Running { _stop: stop });
                continue;
            }
            let Some(source) = service_of(&key, &wanted) else {
                tracing::error!(
                    ?key,
                    "resources are wanted over ADS, but no ads_config says where it is"
                );
                continue;
            };
            if source.delta {
                let stream = Stream::<S, DeltaClient>::new(sink.clone(), key.clone(), source);
                tokio::spawn(stream.run(stopped));
            } else {
                let stream = Stream::<S, SotwClient>::new(sink.clone(), key.clone(), source);
                tokio::spawn(stream.run(stopped));
            }
            running.insert(key, Running { _stop: stop });
        }
        if subscriptions.changed().await.is_err() {
            return;
        }
    }
}

fn stream_keys(subscriptions: &Subscriptions) -> BTreeSet<StreamKey> {
    let mut keys = BTreeSet::new();
    for (source, kinds) in &subscriptions.wanted {
        match source {
            Source::Ads if !kinds.is_empty() => {
                keys.insert(StreamKey { source: Source::Ads, only: None });
            }
            Source::Ads => {}
            Source::Grpc(_) | Source::File(_) => keys.extend(
                kinds.keys().map(|kind| StreamKey { source: source.clone(), only: Some(*kind) }),
            ),
        }
    }
    keys
}

fn service_of(key: &StreamKey, subscriptions: &Subscriptions) -> Option<GrpcSource> {
    match &key.source {
        Source::Ads => subscriptions.ads.clone(),
        Source::Grpc(service) => Some(service.clone()),
        Source::File(_) => None,
    }
}
