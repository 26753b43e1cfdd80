//! `cargo xtask tidy`: what the design promises about the shape of the repository, checked.
//!
//! One check is one file and one row in [`CHECKS`]; the rules' data are in `layers.toml`.

mod bans;
mod dependencies;
mod docs;
mod doors;
mod layers;
mod names;
mod registries;
mod rules;
mod sizes;
mod statics;
mod unsafe_code;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::rust_source::RustSource;
use crate::workspace::Workspace;
use rules::Rules;

type Check = fn(&Tree, &mut Findings) -> Result<()>;

const CHECKS: &[(&str, Check)] = &[
    ("bans", bans::check),
    ("dependencies", dependencies::check),
    ("docs", docs::check),
    ("doors", doors::check),
    ("layers", layers::check),
    ("names", names::check),
    ("registries", registries::check),
    ("sizes", sizes::check),
    ("statics", statics::check),
    ("unsafe", unsafe_code::check),
];

/// Everything the checks look at, read once.
pub struct Tree {
    pub workspace: Workspace,
    pub rules: Rules,
    /// Every hand-written Rust file outside tests, benches and generated folders.
    pub sources: Vec<SourceFile>,
}

/// A Rust file and where it is.
pub struct SourceFile {
    pub path: String,
    pub text: String,
    pub source: RustSource,
}

/// What is wrong, one line each.
#[derive(Default)]
pub struct Findings {
    check: &'static str,
    lines: Vec<String>,
}

impl Findings {
    pub fn add(&mut self, what: impl std::fmt::Display) {
        self.lines.push(format!("{}: {what}", self.check));
    }
}

/// Runs the checks whose names contain `only` (all of them if it is `None`) and fails if they find anything.
pub fn run(root: &Path, only: Option<&str>) -> Result<()> {
    let tree = Tree::read(root)?;
    let mut findings = Findings::default();
    for (name, check) in
        CHECKS.iter().filter(|(name, _)| only.is_none_or(|only| name.contains(only)))
    {
        findings.check = name;
        check(&tree, &mut findings)?;
    }
    for line in &findings.lines {
        println!("{line}");
    }
    match findings.lines.len() {
        0 => {
            println!("tidy: {} source files, nothing to say", tree.sources.len());
            Ok(())
        }
        count => bail!("tidy: {count} findings"),
    }
}

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        let workspace = Workspace::open(root)?;
        let rules = Rules::read(&workspace)?;
        let mut sources = Vec::new();
        for path in workspace.files.iter().filter(|path| is_hand_written_rust(path)) {
            let text = workspace.read(path)?;
            if !text.starts_with("// @generated") {
                let source = RustSource::new(&text);
                sources.push(SourceFile { path: path.clone(), text, source });
            }
        }
        let tests: Vec<String> = sources.iter().flat_map(test_files).collect();
        sources.retain(|file| !tests.iter().any(|test| file.path.starts_with(test.as_str())));
        Ok(Self { workspace, rules, sources })
    }
}

fn is_hand_written_rust(path: &str) -> bool {
    let test_folders = ["/tests/", "/benches/", "/examples/", "/generated/"];
    path.ends_with(".rs")
        && !path.ends_with("/tests.rs")
        && !test_folders.iter().any(|t| path.contains(t))
}

/// The files and folders that `#[cfg(test)] mod name;` in this file stands for, as path prefixes.
fn test_files(file: &SourceFile) -> Vec<String> {
    let path = PathBuf::from(&file.path);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let parent = path.parent().unwrap_or(Path::new(""));
    let folder = match stem.as_str() {
        "lib" | "main" | "mod" => parent.to_owned(),
        _ => parent.join(&stem),
    };
    let modules = file.source.test_modules();
    modules
        .iter()
        .flat_map(|m| [".rs", "/"].map(|end| format!("{}/{m}{end}", folder.display())))
        .collect()
}
