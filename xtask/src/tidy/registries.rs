//! One feature is one file and one row: in a registry's folder every file is declared and named in the table,
//! so that nothing is written and then forgotten.

use anyhow::Result;

use super::{Findings, Tree};

pub fn check(tree: &Tree, findings: &mut Findings) -> Result<()> {
    for (folder, table_path) in &tree.rules.registries {
        let Some(table) = tree.sources.iter().find(|file| &file.path == table_path) else {
            findings.add(format_args!("{table_path}: the table of `{folder}` does not exist"));
            continue;
        };
        for feature in features(tree, folder, table_path) {
            let is_row = |line: &str| {
                line.contains(&format!("{feature}::")) && !line.trim_start().starts_with("pub use")
            };
            if !table.source.code_lines().any(|(_, line)| is_row(line)) {
                findings.add(format_args!("{folder}/{feature} has no row in {table_path}"));
            }
        }
    }
    Ok(())
}

/// Names of the files and folders that stand directly in `folder`.
fn features(tree: &Tree, folder: &str, table_path: &str) -> Vec<String> {
    let prefix = format!("{folder}/");
    let inside = tree.sources.iter().filter(|file| file.path != table_path);
    let mut names: Vec<String> = inside
        .filter_map(|file| file.path.strip_prefix(&prefix))
        .map(|rest| rest.split('/').next().unwrap_or(rest).trim_end_matches(".rs").to_owned())
        .filter(|name| name != "mod")
        .collect();
    names.sort();
    names.dedup();
    names
}
