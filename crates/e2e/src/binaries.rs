//! Where the programs under test are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The repository's root.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest).to_owned()
}

/// A binary of the workspace, built in the same profile as the test that runs.
///
/// # Errors
/// If it has not been built.
pub fn workspace_binary(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe().context("the test's own path")?;
    // target/<profile>/deps/<test> → target/<profile>/<name>
    let folder = test.ancestors().nth(2).context("the test is not in a target folder")?;
    let binary = folder.join(name);
    if !binary.is_file() {
        bail!("{} does not exist: `cargo build --workspace --bins` makes it", binary.display());
    }
    Ok(binary)
}

/// The real Envoy, if `cargo xtask setup` has installed it.
pub fn envoy() -> Option<PathBuf> {
    python_package("envoy/_bin/envoy")
}

/// The Python interpreter of the repository's own environment, if `cargo xtask setup` has made one.
pub fn python() -> Option<PathBuf> {
    Some(root().join("target/tools/python/bin/python")).filter(|python| python.is_file())
}

/// A file that a package of that environment has brought, relative to `site-packages`.
pub fn python_package(file: &str) -> Option<PathBuf> {
    let versions = std::fs::read_dir(root().join("target/tools/python/lib")).ok()?;
    let mut found =
        versions.filter_map(Result::ok).map(|v| v.path().join("site-packages").join(file));
    found.find(|path| path.is_file())
}

/// A program of the system, or one that `cargo xtask setup` has built, if it is there.
pub fn program(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let own = root().join("target/tools/bin");
    let more = [own, "/usr/sbin".into(), "/sbin".into()];
    std::env::split_paths(&folders).chain(more).map(|f| f.join(name)).find(|p| p.is_file())
}

/// Says why a test does less than it could.
pub fn skip(test: &str, missing: &str) {
    eprintln!("{test}: skipped, {missing} is not there (cargo xtask setup)");
}
