//! Noticing that a directory's files changed, and that they came to rest.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::files::{Fingerprint, fingerprint};

/// Time without an event after which the files are at rest: editors write a file in several steps.
const QUIET: Duration = Duration::from_millis(60);
/// Time after which files that never rest are read as they are.
const LONGEST: Duration = Duration::from_secs(1);
/// Time between looks without an event: links' targets and network file systems tell of nothing.
const LOOK: Duration = Duration::from_secs(2);

/// Why a directory cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot watch for changes: {error}")]
pub struct WatchError {
    path: PathBuf,
    error: notify::Error,
}

/// Watches a directory's files.
pub struct Changes {
    path: PathBuf,
    events: mpsc::UnboundedReceiver<()>,
    seen: Fingerprint,
    /// Since something stirred, by an event or by the clock: when quiet will have lasted, and when to look at the latest.
    stirred: Option<Stir>,
    /// When the clock wants the next look.
    next_look: Instant,
    _watcher: RecommendedWatcher,
}

#[derive(Clone, Copy)]
struct Stir {
    quiet: Instant,
    latest: Instant,
}

impl Changes {
    /// Watches from now on.
    pub fn watch(path: &Path) -> Result<Self, WatchError> {
        let failed = |error| WatchError { path: path.to_owned(), error };
        let (sender, events) = mpsc::unbounded_channel();
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                if event.is_ok_and(|event| is_change(event.kind)) {
                    // Nobody listens any more: nothing is left to tell.
                    let _ = sender.send(());
                }
            })
            .map_err(failed)?;
        watcher.watch(path, RecursiveMode::NonRecursive).map_err(failed)?;
        let seen = fingerprint(path).unwrap_or_default();
        Ok(Self {
            path: path.to_owned(),
            events,
            seen,
            stirred: None,
            next_look: Instant::now() + LOOK,
            _watcher: watcher,
        })
    }

    /// Waits until files changed and came to rest. Cancel-safe: an event that one call heard is not forgotten by the
    /// next, and calls that never last long still come to their look by the clock.
    pub async fn settled(&mut self) {
        loop {
            let Some(stir) = self.stirred else {
                let _ = timeout_at(self.next_look, self.events.recv()).await;
                let now = Instant::now();
                self.stirred = Some(Stir { quiet: now + QUIET, latest: now + LONGEST });
                continue;
            };
            if let Ok(Some(())) = timeout_at(stir.quiet.min(stir.latest), self.events.recv()).await
            {
                self.stirred = Some(Stir { quiet: Instant::now() + QUIET, ..stir });
                continue;
            }
            self.stirred = None;
            self.next_look = Instant::now() + LOOK;
            let now = fingerprint(&self.path).unwrap_or_default();
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

/// Whether an event may have changed a file: reading, which this process does itself, does not.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}
