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
/// Time in which a file that was emptied, or taken away, may come back: whoever writes it anew may be slow.
const SUSPECT: Duration = Duration::from_millis(500);
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
    /// Since something stirred, by an event or by the clock.
    stirred: Option<Stir>,
    /// When the clock wants the next look.
    next_look: Instant,
    _watcher: RecommendedWatcher,
}

#[derive(Clone, Copy)]
struct Stir {
    /// When quiet will have lasted.
    quiet: Instant,
    /// Until when a file that was emptied is thought to be one that is being written.
    suspect: Instant,
    /// When to look at the latest.
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
                self.stirred = Some(Stir {
                    quiet: now + QUIET,
                    suspect: now + SUSPECT,
                    latest: now + LONGEST,
                });
                continue;
            };
            if let Ok(Some(())) = timeout_at(stir.quiet.min(stir.latest), self.events.recv()).await
            {
                self.stirred = Some(Stir { quiet: Instant::now() + QUIET, ..stir });
                continue;
            }
            let now = fingerprint(&self.path).unwrap_or_default();
            if Instant::now() < stir.suspect && is_being_written(&self.seen, &now) {
                self.stirred = Some(Stir { quiet: Instant::now() + QUIET, ..stir });
                continue;
            }
            self.stirred = None;
            self.next_look = Instant::now() + LOOK;
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

/// Whether a file that was there has nothing in it, or is gone: the first half of what many programs do to write one.
fn is_being_written(before: &Fingerprint, now: &Fingerprint) -> bool {
    let size = |files: &Fingerprint, name: &str| {
        // They are in the order of their names.
        files.binary_search_by(|(known, ..)| known.as_str().cmp(name)).map_or(0, |at| files[at].1)
    };
    before.iter().any(|(name, before, ..)| *before > 0 && size(now, name) == 0)
}

/// Whether an event may have changed a file: reading, which this process does itself, does not.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_emptied_or_taken_away_may_come_back() {
        let files = |sizes: &[(&str, u64)]| -> Fingerprint {
            sizes.iter().map(|(name, size)| ((*name).to_owned(), *size, 0, 0, 0)).collect()
        };
        let before = files(&[("a.yaml", 7), ("b.yaml", 9), ("empty.yaml", 0)]);
        assert!(is_being_written(&before, &files(&[("a.yaml", 0), ("b.yaml", 9)])));
        assert!(is_being_written(&before, &files(&[("b.yaml", 9)])));
        // One that changed is there, and one that was empty has lost nothing.
        assert!(!is_being_written(&before, &files(&[("a.yaml", 1), ("b.yaml", 9), ("c.yaml", 0)])));
    }
}
