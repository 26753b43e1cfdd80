//! Configuration from files: each holds a discovery response, as text, and is read again when it changes.
//!
//! A file is the whole truth of its kind: listeners and clusters that are in it no more are gone. A file that cannot be
//! read changes nothing, and neither does one that is wrong as a whole; of a file with a wrong resource the others apply.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::envoy::config::cluster::v3::Cluster;
use api::envoy::config::endpoint::v3::ClusterLoadAssignment;
use api::envoy::config::listener::v3::Listener;
use api::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use api::envoy::extensions::transport_sockets::tls::v3::Secret;
use api::envoy::service::discovery::v3::{DiscoveryResponse, Resource as Wrapped};
use api::google::protobuf::Any;
use api::schema::Schema;
use api::text::{Problem, Sources};
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use prost::Message;
use tokio::sync::{mpsc, oneshot};

use super::sink::{ConfigSink, FileSource, Resource, ResourceKind, Update};
use crate::snapshot::tls::files_of;

/// Without an event for so long a file is at rest: it is replaced, and then what it refers to.
const QUIET: Duration = Duration::from_millis(30);

/// Keeps `sink` supplied with what a file has of one kind, until `stopped`.
pub(super) async fn run<S: ConfigSink>(
    sink: Arc<S>,
    source: FileSource,
    kind: ResourceKind,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut file = File { schema: Schema::new(), source, kind, known: BTreeSet::new() };
    loop {
        // Watching begins before reading, so that no change falls between.
        let mut changes = Changes::watch(&file.source);
        let read = file.read();
        match read {
            Ok((update, referred)) => {
                changes.also(&referred);
                let applied = sink.apply(update).await;
                for rejected in &applied.rejected {
                    let problems: Vec<_> =
                        rejected.problems.iter().map(ToString::to_string).collect();
                    tracing::warn!(path = %file.source.path, name = %rejected.name, reason = %problems.join("; "), "resource rejected; its last good version stays");
                }
            }
            Err(error) => {
                tracing::warn!(path = %file.source.path, %error, "configuration not read; it stays as it is");
            }
        }
        tokio::select! {
            _ = &mut stopped => return,
            () = changes.next(file.source.poll_interval) => {}
        }
    }
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
enum Unread {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Problems(Vec<Problem>),
    #[error("{0}")]
    Protobuf(#[from] prost::DecodeError),
    #[error("resources[{0}] is a {1}, not a {2}")]
    Kind(usize, String, &'static str),
}

/// One file, for one kind.
struct File {
    schema: Schema,
    source: FileSource,
    kind: ResourceKind,
    /// The names that it had.
    known: BTreeSet<String>,
}

impl File {
    /// What the file changes, and the files that it refers to.
    fn read(&mut self) -> Result<(Update, Vec<PathBuf>), Unread> {
        let response = self.parse()?;
        let mut update = Update { kind: self.kind, added: Vec::new(), removed: Vec::new() };
        let mut referred = Vec::new();
        for (index, any) in response.resources.iter().enumerate() {
            let resource = self.resource(index, any, &response.version_info)?;
            if self.kind == ResourceKind::Secret {
                referred.extend(files_of(&resource.bytes));
            }
            update.added.push(resource);
        }
        let names: BTreeSet<String> = update.added.iter().map(|it| it.name.clone()).collect();
        // As in discovery: only of these is a list all that there is.
        if matches!(self.kind, ResourceKind::Cluster | ResourceKind::Listener) {
            update.removed = self.known.difference(&names).cloned().collect();
        }
        self.known = names;
        Ok((update, referred))
    }

    fn parse(&self) -> Result<DiscoveryResponse, Unread> {
        let path = Path::new(&*self.source.path);
        let bytes = std::fs::read(path)?;
        if path.extension().is_some_and(|extension| extension == "pb") {
            return Ok(DiscoveryResponse::decode(bytes.as_slice())?);
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let descriptor = self.schema.message("envoy.service.discovery.v3.DiscoveryResponse");
        let Some(descriptor) = descriptor else {
            return Err(Unread::Problems(vec![Problem::new("", "the schema has no responses")]));
        };
        let loaded =
            api::text::load(&self.schema, descriptor, &Sources::one(&self.source.path, &text));
        let problems = loaded.all_problems();
        if !problems.is_empty() {
            return Err(Unread::Problems(problems));
        }
        Ok(DiscoveryResponse::decode(loaded.bytes.as_slice())?)
    }

    fn resource(&self, index: usize, any: &Any, version: &str) -> Result<Resource, Unread> {
        let type_name = any.type_url.rsplit_once('/').map_or("", |(_, name)| name);
        if type_name == "envoy.service.discovery.v3.Resource" {
            let wrapped = Wrapped::decode(any.value.as_slice())?;
            let inner = wrapped.resource.unwrap_or_default();
            return self.resource(index, &inner, version);
        }
        if any.type_url != self.kind.type_url() {
            return Err(Unread::Kind(index, any.type_url.clone(), self.kind.type_url()));
        }
        Ok(Resource {
            name: self.name(&any.value)?,
            version: version.to_owned(),
            bytes: any.value.clone(),
        })
    }

    fn name(&self, bytes: &[u8]) -> Result<String, prost::DecodeError> {
        Ok(match self.kind {
            ResourceKind::Cluster => Cluster::decode(bytes)?.name,
            ResourceKind::Endpoints => ClusterLoadAssignment::decode(bytes)?.cluster_name,
            ResourceKind::Listener => Listener::decode(bytes)?.name,
            ResourceKind::Routes => RouteConfiguration::decode(bytes)?.name,
            ResourceKind::VirtualHosts => VirtualHost::decode(bytes)?.name,
            ResourceKind::Secret => Secret::decode(bytes)?.name,
        })
    }
}

/// What tells that a file, or what it refers to, has changed.
struct Changes {
    events: mpsc::UnboundedReceiver<()>,
    watcher: Option<RecommendedWatcher>,
}

impl Changes {
    /// Watches the folder that `source` names, or else the file's own: files are replaced by moving others in their place.
    /// With a `poll_interval` nothing is watched.
    fn watch(source: &FileSource) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let tell = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| is_change(event.kind)) {
                // Nobody listens any more: nothing is left to tell.
                let _ = sender.send(());
            }
        };
        let watcher = match source.poll_interval {
            Some(_) => None,
            None => notify::recommended_watcher(tell)
                .map_err(|error| tracing::warn!(path = %source.path, %error, "cannot be watched"))
                .ok(),
        };
        let mut changes = Self { events, watcher };
        match &source.watched_directory {
            Some(folder) => changes.folder(Path::new(&**folder)),
            None => changes.also(&[PathBuf::from(&*source.path)]),
        }
        changes
    }

    /// Watches for changes of these, too.
    fn also(&mut self, files: &[PathBuf]) {
        for folder in files.iter().filter_map(|file| file.parent()).collect::<BTreeSet<_>>() {
            self.folder(folder);
        }
    }

    fn folder(&mut self, folder: &Path) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if let Some(watcher) = &mut self.watcher
            && let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive)
        {
            tracing::warn!(folder = %folder.display(), %error, "cannot be watched");
        }
    }

    /// Waits for a change and for quiet after it, or for the time to look again.
    async fn next(&mut self, poll_interval: Option<Duration>) {
        if let Some(interval) = poll_interval {
            return tokio::time::sleep(interval).await;
        }
        if self.events.recv().await.is_none() {
            // Nothing is watched: nothing will ever change.
            return std::future::pending().await;
        }
        while tokio::time::timeout(QUIET, self.events.recv()).await.is_ok_and(|it| it.is_some()) {}
    }
}

/// Whether an event may have changed a file: reading does not.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Modify(notify::event::ModifyKind::Data(_)) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path, kind: ResourceKind) -> File {
        let source = FileSource {
            path: path.to_string_lossy().into(),
            watched_directory: None,
            poll_interval: None,
        };
        File { schema: Schema::new(), source, kind, known: BTreeSet::new() }
    }

    const CLUSTERS: &str = "
version_info: '7'
resources:
- {'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: a}
- {'@type': type.googleapis.com/envoy.config.cluster.v3.Cluster, name: b}
";

    #[test]
    fn what_is_in_the_file_no_more_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cds.yaml");
        std::fs::write(&path, CLUSTERS).unwrap();
        let mut file = file(&path, ResourceKind::Cluster);
        let (update, _) = file.read().unwrap();
        let names: Vec<_> = update.added.iter().map(|it| (&*it.name, &*it.version)).collect();
        assert_eq!(names, [("a", "7"), ("b", "7")]);
        assert!(update.removed.is_empty());
        std::fs::write(&path, CLUSTERS.replace("name: a", "name: c")).unwrap();
        let (update, _) = file.read().unwrap();
        assert_eq!(update.removed, ["a"]);
    }

    #[test]
    fn a_wrong_file_says_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.yaml");
        let mut file = file(&path, ResourceKind::Listener);
        assert!(matches!(file.read(), Err(Unread::Io(_))));
        std::fs::write(&path, CLUSTERS).unwrap();
        let error = file.read().unwrap_err().to_string();
        assert!(error.starts_with("resources[0] is a type.googleapis.com/envoy.config.cluster"));
        std::fs::write(&path, "resource: []").unwrap();
        let error = file.read().unwrap_err().to_string();
        assert!(error.contains("did you mean `resources`"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_moved_into_its_place_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cds.yaml");
        std::fs::write(&path, CLUSTERS).unwrap();
        let mut changes = Changes::watch(&file(&path, ResourceKind::Cluster).source);
        std::fs::write(folder.path().join("new"), "").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, changes.next(None)).await.unwrap();
    }
}
