//! No module is named after nothing in particular.

use anyhow::Result;

use super::{Findings, Tree};

pub fn check(tree: &Tree, findings: &mut Findings) -> Result<()> {
    let banned = &tree.rules.names.banned_modules;
    for file in &tree.sources {
        let mut parts: Vec<&str> = file.path.trim_end_matches(".rs").split('/').collect();
        parts.retain(|part| banned.iter().any(|b| b == part));
        if let Some(name) = parts.first() {
            findings.add(format_args!(
                "{}: a module named `{name}` says nothing about what belongs in it",
                file.path
            ));
        }
        for (number, line) in file.source.code_lines() {
            let inline = line
                .trim()
                .trim_start_matches("pub ")
                .strip_prefix("mod ")
                .and_then(|l| l.strip_suffix(" {"));
            if let Some(name) = inline.filter(|name| banned.iter().any(|b| b == name)) {
                findings.add(format_args!(
                    "{}:{number}: a module named `{name}` says nothing",
                    file.path
                ));
            }
        }
    }
    Ok(())
}
