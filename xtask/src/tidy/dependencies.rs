//! What a manifest asks for is used: a dependency that no line of its crate names is built for nothing.

use anyhow::{Context, Result};

use super::{Findings, Tree};
use crate::rust_source::RustSource;

pub fn check(tree: &Tree, findings: &mut Findings) -> Result<()> {
    let mut asked_for = Vec::new();
    for package in tree.workspace.packages()? {
        let code = code_of(tree, &package.folder)?;
        for dependency in package.dependencies {
            if !names(&code, &dependency.extern_name) {
                findings.add(format_args!("`{}` never uses `{}`", package.name, dependency.name));
            }
            asked_for.push(dependency.extern_name);
        }
    }
    for offered in offered(tree)? {
        if !asked_for.contains(&offered.replace('-', "_")) {
            findings.add(format_args!("nobody uses `{offered}` of the workspace's dependencies"));
        }
    }
    Ok(())
}

/// Every line of code below a folder, tests and generated files included.
fn code_of(tree: &Tree, folder: &str) -> Result<Vec<String>> {
    let mut code = Vec::new();
    let files = tree.workspace.files.iter();
    for file in files.filter(|file| file.starts_with(folder) && file.ends_with(".rs")) {
        let source = RustSource::new(&tree.workspace.read(file)?);
        code.extend(source.code.lines().map(str::to_owned));
    }
    Ok(code)
}

/// Whether code speaks of a crate: `name::...`, `use name;`, `use name as ...`, `extern crate name`.
fn names(code: &[String], name: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.iter().any(|line| {
        line.match_indices(name).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + name.len()..]);
            let is_path = after.starts_with("::") && !before.ends_with("crate::");
            let before = before.trim_start();
            let is_import = matches!(before, "use " | "pub use " | "extern crate ");
            !before.ends_with(is_part) && (is_path || is_import && !after.starts_with(is_part))
        })
    })
}

/// The names in `[workspace.dependencies]`.
fn offered(tree: &Tree) -> Result<Vec<String>> {
    let manifest: toml::Table = toml::from_str(&tree.workspace.read("Cargo.toml")?)?;
    let table = manifest.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let table = table.and_then(toml::Value::as_table).context("no [workspace.dependencies]")?;
    Ok(table.keys().cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_is_named_by_paths_and_imports_alone() {
        let names = |line: &str| names(&[line.to_owned()], "tower");
        assert!(names("use tower::Service;") && names("    let x = tower::layer();"));
        assert!(
            names("pub use tower;") && names("extern crate tower;") && names("use tower as t;")
        );
        assert!(
            !names("let tower = 1;") && !names("use watchtower::x;") && !names("tower_http::x()")
        );
        assert!(!names("use crate::tower::x;") && !names("use towers;"));
    }
}
