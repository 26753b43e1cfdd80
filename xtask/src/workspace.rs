//! What the tools know of the workspace: its packages, and the files that belong to it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The workspace as it is on disk: files that git tracks or would track.
pub struct Workspace {
    pub root: PathBuf,
    /// Paths relative to the root, with `/`, sorted.
    pub files: Vec<String>,
}

/// One package of the workspace and what it depends on.
pub struct Package {
    pub name: String,
    /// Its folder relative to the root, with a `/` at its end.
    pub folder: String,
    /// Normal, build and development dependencies, by name.
    pub dependencies: Vec<Dependency>,
}

/// What a package depends on.
pub struct Dependency {
    /// The package's name.
    pub name: String,
    /// What the package's code calls it.
    pub extern_name: String,
}

impl Workspace {
    pub fn open(root: &Path) -> Result<Self> {
        // The folder may be somebody else's, as in a container; listing its files runs nothing of it.
        let listed = output(
            Command::new("git")
                .args(["-c", "safe.directory=*"])
                .args(["ls-files", "--cached", "--others", "--exclude-standard"])
                .current_dir(root),
        );
        let mut files: Vec<String> = match listed {
            Ok(listed) => {
                listed.lines().filter(|file| root.join(file).is_file()).map(str::to_owned).collect()
            }
            Err(error) => {
                println!("not a clone ({error:#}): every file counts");
                files_under(root, root)?
            }
        };
        files.sort();
        files.dedup();
        Ok(Self { root: root.to_owned(), files })
    }

    pub fn read(&self, file: &str) -> Result<String> {
        fs::read_to_string(self.root.join(file)).with_context(|| format!("cannot read {file}"))
    }

    /// Whether `path` is a file or a folder of the repository.
    pub fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let folder = format!("{path}/");
        self.files.iter().any(|file| file == path || file.starts_with(&folder))
    }

    /// The workspace's packages, as cargo sees them.
    pub fn packages(&self) -> Result<Vec<Package>> {
        let metadata: Metadata = self.metadata(&["--no-deps"])?;
        let root = metadata.workspace_root;
        Ok(metadata.packages.into_iter().map(|package| package.under(&root)).collect())
    }

    /// Every crate, with version, that a build for Linux would compile in.
    pub fn compiled_crates(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let tree = output(
            Command::new("cargo")
                .args(["tree", "--workspace", "--all-features", "--locked"])
                .args(["--edges", "normal,build", "--prefix", "none", "--format", "{p}"])
                .current_dir(&self.root),
        )?;
        let mut crates: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in tree.lines() {
            let mut words = line.split_whitespace();
            if let (Some(name), Some(version)) = (words.next(), words.next()) {
                let versions = crates.entry(name.to_owned()).or_default();
                if !versions.iter().any(|known| known == version) {
                    versions.push(version.to_owned());
                }
            }
        }
        Ok(crates)
    }

    fn metadata<T: serde::de::DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let json = output(
            Command::new("cargo")
                .args(["metadata", "--format-version", "1"])
                .args(arguments)
                .current_dir(&self.root),
        )?;
        serde_json::from_str(&json).context("cargo metadata's answer is not what was expected")
    }
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct MetadataPackage {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<MetadataDependency>,
}

#[derive(Deserialize)]
struct MetadataDependency {
    name: String,
    rename: Option<String>,
}

impl MetadataPackage {
    fn under(self, root: &Path) -> Package {
        let folder = self.manifest_path.parent().unwrap_or(root);
        let folder = folder.strip_prefix(root).unwrap_or(folder).to_string_lossy();
        let dependencies = self.dependencies.into_iter().map(|dependency| {
            let MetadataDependency { name, rename } = dependency;
            let extern_name = rename.as_ref().unwrap_or(&name).replace('-', "_");
            Dependency { name, extern_name }
        });
        Package {
            folder: format!("{folder}/"),
            name: self.name,
            dependencies: dependencies.collect(),
        }
    }
}

/// Every file of an unpacked archive but what builds leave behind, relative to `root`.
fn files_under(root: &Path, folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        let relative = path.strip_prefix(root)?.to_string_lossy().into_owned();
        let is_left_over =
            relative.starts_with("target") || matches!(&*relative, ".git" | "bench-results");
        if is_left_over {
            continue;
        }
        if path.is_dir() {
            files.extend(files_under(root, &path)?);
        } else {
            files.push(relative);
        }
    }
    Ok(files)
}

/// Runs a command to its end and gives its standard output; an error if it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&done.stderr));
    }
    String::from_utf8(done.stdout).with_context(|| format!("{command:?} did not print UTF-8"))
}
