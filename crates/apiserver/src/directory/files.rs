//! Reading a directory's files as they are at one moment.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use resources::yaml::{FilePlace, FileProblem};

/// A file and what was in it.
pub(super) struct SourceFile {
    /// Name within the directory.
    pub name: String,
    /// Its path, as problems tell it.
    pub shown: String,
    /// What is in it.
    pub text: String,
}

/// What tells one state of the directory's files from another.
pub(super) type Fingerprint = Vec<(String, u64, i64, i64, u64)>;

/// Most bytes of one file.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Time between two looks at a directory that changes while it is read.
const RETRY: Duration = Duration::from_millis(50);
/// Looks before a directory that never comes to rest is taken as it is.
const MAX_LOOKS: usize = 20;

/// The state of the directory's files.
pub(super) fn fingerprint(directory: &Path) -> io::Result<Fingerprint> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !is_source(&name) {
            continue;
        }
        // A link's target counts; one that leads nowhere is told when it is read.
        let (size, seconds, nanos, inode) = match fs::metadata(entry.path()) {
            Ok(metadata) if metadata.is_dir() => continue,
            Ok(metadata) => {
                (metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.ino())
            }
            Err(_) => (0, 0, 0, 0),
        };
        files.push((name, size, seconds, nanos, inode));
    }
    files.sort();
    Ok(files)
}

/// Whether a file is a source: not hidden, which editors' temporary files are, and YAML or JSON by name.
fn is_source(name: &str) -> bool {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    !name.starts_with('.') && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Reads every file, by name. If one changes meanwhile, all are read again.
pub(super) async fn read(directory: &Path) -> Result<Vec<SourceFile>, Vec<FileProblem>> {
    let mut looks = 0;
    loop {
        let whole =
            |error: io::Error| vec![problem(&directory.display().to_string(), error.to_string())];
        let before = fingerprint(directory).map_err(whole)?;
        let read = read_once(directory, &before);
        looks += 1;
        if looks >= MAX_LOOKS || fingerprint(directory).map_err(whole)? == before {
            return read;
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn read_once(directory: &Path, files: &Fingerprint) -> Result<Vec<SourceFile>, Vec<FileProblem>> {
    let (mut sources, mut problems) = (Vec::new(), Vec::new());
    for (name, size, ..) in files {
        let path = directory.join(name);
        let shown = path.display().to_string();
        if *size > MAX_BYTES {
            problems.push(problem(&shown, format!("is larger than {MAX_BYTES} bytes")));
            continue;
        }
        match fs::read_to_string(&path) {
            Ok(text) => sources.push(SourceFile { name: name.clone(), shown, text }),
            Err(error) => problems.push(problem(&shown, error.to_string())),
        }
    }
    if problems.is_empty() { Ok(sources) } else { Err(problems) }
}

fn problem(file: &str, message: String) -> FileProblem {
    FileProblem { at: FilePlace { file: Arc::from(file), place: None }, message }
}
