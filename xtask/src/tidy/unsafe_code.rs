//! `unsafe` is denied but for the modules that `layers.toml` lists, and each use says why it is sound.

use anyhow::Result;

use super::{Findings, SourceFile, Tree};

/// How far above a use its `SAFETY` reason may stand.
const REASON_WITHIN_LINES: usize = 8;

pub fn check(tree: &Tree, findings: &mut Findings) -> Result<()> {
    let listed = &tree.rules.unsafe_modules;
    for file in &tree.sources {
        let allows = file.source.code.contains("allow(unsafe_code)");
        match (allows, listed.contains_key(&file.path)) {
            (true, false) => findings.add(format_args!(
                "{}: allows unsafe code, but is not in layers.toml [unsafe_modules]",
                file.path
            )),
            (false, true) => {
                findings.add(format_args!("{}: listed in [unsafe_modules] without need", file.path))
            }
            _ => {}
        }
        if allows {
            reasons(file, findings);
        }
    }
    for path in listed.keys().filter(|path| !tree.sources.iter().any(|file| &file.path == *path)) {
        findings.add(format_args!("{path}: listed in [unsafe_modules] but is not there"));
    }
    Ok(())
}

fn reasons(file: &SourceFile, findings: &mut Findings) {
    let text: Vec<&str> = file.text.lines().collect();
    for (number, line) in file.source.code_lines() {
        let uses = ["unsafe {", "unsafe impl"].iter().any(|form| line.contains(form));
        let nearby = &text[number.saturating_sub(1 + REASON_WITHIN_LINES)..number];
        if uses && !nearby.iter().any(|line| line.contains("SAFETY")) {
            findings.add(format_args!("{}:{number}: `unsafe` without a SAFETY reason", file.path));
        }
    }
}
