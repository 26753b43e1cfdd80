//! The directory in which a mesh keeps everything: private to its owner, and used by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// A mesh's directory, locked.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    /// Held for the process's life; the kernel lets go of it however the process ends.
    _lock: File,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another process uses it.
    #[error("{path} is in use by process {pid}")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process.
        pid: String,
    },
    /// Others may look into it.
    #[error("{path} may be read by others (mode {mode:o}): run chmod {wanted:o} {path}")]
    Loose {
        /// The directory or file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        wanted: u32,
    },
    /// It belongs to somebody else.
    #[error("{path} belongs to user {owner}, not to you")]
    Foreign {
        /// The directory or file.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
    },
    /// It cannot be made, read or written.
    #[error("{path}: {error}")]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

impl StateDir {
    /// Makes the directory if it is not there, refuses it if others may look into it, and locks it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StateDirError> {
        let path = path.into();
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&path);
        made.map_err(|error| StateDirError::Io { path: path.clone(), error })?;
        check_private(&path, DIRECTORY_MODE)?;
        let lock_path = path.join("lock");
        let mut lock = open_private(&lock_path)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            // The number is for the message only.
            let _ = lock.read_to_string(&mut pid);
            return Err(StateDirError::InUse { path, pid: pid.trim().to_owned() });
        }
        let written = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| write!(lock, "{}", std::process::id()));
        written.map_err(|error| StateDirError::Io { path: lock_path, error })?;
        Ok(Self { path, _lock: lock })
    }

    /// The process that uses a directory, if one does.
    pub fn user_of(path: &Path) -> Option<String> {
        let mut lock = File::open(path.join("lock")).ok()?;
        if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() {
            return None;
        }
        let mut pid = String::new();
        lock.read_to_string(&mut pid).ok()?;
        Some(pid.trim().to_owned())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The control socket's path.
    pub fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// Opens a file of the directory for reading and writing, made if it is not there; refused if others may read it.
    pub fn file(&self, name: &str) -> Result<File, StateDirError> {
        open_private(&self.path.join(name))
    }

    /// A directory within, made if it is not there.
    pub fn directory(&self, name: &str) -> Result<PathBuf, StateDirError> {
        let path = self.path.join(name);
        let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&path);
        made.map_err(|error| StateDirError::Io { path: path.clone(), error })?;
        check_private(&path, DIRECTORY_MODE)?;
        Ok(path)
    }
}

fn open_private(path: &Path) -> Result<File, StateDirError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path);
    let file = file.map_err(|error| StateDirError::Io { path: path.to_owned(), error })?;
    check_private(path, FILE_MODE)?;
    Ok(file)
}

fn check_private(path: &Path, wanted: u32) -> Result<(), StateDirError> {
    let metadata =
        fs::metadata(path).map_err(|error| StateDirError::Io { path: path.to_owned(), error })?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(StateDirError::Foreign { path: path.to_owned(), owner: metadata.uid() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(StateDirError::Loose { path: path.to_owned(), mode, wanted });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_process_at_a_time() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("a/b");
        let first = StateDir::open(&path).unwrap();
        let me = std::process::id().to_string();
        let second = StateDir::open(&path).unwrap_err();
        assert_eq!(second.to_string(), format!("{} is in use by process {me}", path.display()));
        assert_eq!(StateDir::user_of(&path), Some(me));
        drop(first);
        assert_eq!(StateDir::user_of(&path), None);
        StateDir::open(&path).unwrap();
    }

    #[test]
    fn what_others_may_read_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("state");
        drop(StateDir::open(&path).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(path.join("lock")).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(path.join("lock"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateDirError::Loose { mode: 0o644, .. })));
        fs::set_permissions(path.join("lock"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateDirError::Loose { mode: 0o750, .. })));
    }
}
