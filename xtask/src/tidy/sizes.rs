//! Files and functions stay small; what is over the limit is on a list that may only shrink.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{Findings, Tree};

pub fn check(tree: &Tree, findings: &mut Findings) -> Result<()> {
    let rules = &tree.rules;
    let mut files = BTreeMap::new();
    let mut functions: BTreeMap<String, usize> = BTreeMap::new();
    for file in &tree.sources {
        files.insert(file.path.clone(), file.source.non_test_lines());
        for function in file.source.functions() {
            let longest = functions.entry(format!("{}::{}", file.path, function.name)).or_default();
            *longest = function.lines.max(*longest);
        }
    }
    hold(&files, rules.sizes.file, &rules.ratchet.files, "file", findings);
    hold(&functions, rules.sizes.function, &rules.ratchet.functions, "function", findings);
    Ok(())
}

fn hold(
    sizes: &BTreeMap<String, usize>,
    limit: usize,
    debts: &BTreeMap<String, usize>,
    what: &str,
    findings: &mut Findings,
) {
    for (name, size) in sizes.iter().filter(|(_, size)| **size > limit) {
        match debts.get(name) {
            None => {
                findings.add(format_args!("{name}: a {what} of {size} lines; the limit is {limit}"))
            }
            Some(debt) if size > debt => {
                findings.add(format_args!(
                    "{name}: grew from {debt} to {size} lines; the limit is {limit}"
                ));
            }
            Some(debt) if size < debt => {
                findings.add(format_args!(
                    "{name}: shrank to {size} lines; say so in layers.toml (it says {debt})"
                ));
            }
            Some(_) => {}
        }
    }
    for name in debts.keys().filter(|name| sizes.get(*name).is_none_or(|size| *size <= limit)) {
        findings
            .add(format_args!("{name}: within the limit now; take it off the list in layers.toml"));
    }
}
